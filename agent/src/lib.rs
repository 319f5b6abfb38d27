//! The agent: its shell around the pure machine.

mod config;
mod flags;
mod resources;
