//! The agent's machine: pure, synchronous, deterministic.
//!
//! [`Machine::step`] takes one [`Input`](input::Input) and answers with records for the
//! checkpoint log, frames for masters and orders for the containerizer. Everything that must
//! survive the process is in [`Knowledge`](knowledge::Knowledge), the fold of the records; the
//! machine changes it through records alone, so that a restart is a replay.
//!
//! # Invariants
//! - Nothing leaves before the records of its step are durable: a command is on the disk before
//!   it is confirmed, an update before it is sent.
//! - One stream per task: first in, first out, only the head is in flight, sent again until
//!   acknowledged. A terminal update that is acknowledged ends the stream and the task.
//! - Commands are obeyed once, in order of their sequence; a repeated one is confirmed again.
//! - A command of a lower fence (cluster, incarnation, term) than one obeyed is refused.
//! - First terminal state wins.

pub use tepui_model as model;

mod commands;
mod containers;
pub mod gc;
pub mod input;
pub mod knowledge;
mod machine;
pub mod output;
mod oversubscription;
mod registration;
mod streams;
mod view;

pub use machine::{Machine, Options};
