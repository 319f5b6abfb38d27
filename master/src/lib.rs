//! The master: its shell around the pure machine.

mod endpoints;
mod shell;
mod view;
mod config;
mod flags;
