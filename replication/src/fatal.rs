//! What a replica does not survive.

use std::any::Any;

use crate::{listener::BoxError, rocks::DiskFailure};

/// Why this process must end: to go on would mean to acknowledge what may be lost, or to differ
/// from the other masters.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// A write or an fsync failed. What the disk holds now is unknown until it is opened anew.
    #[error("replicated log: disk failed; nothing more can be acknowledged")]
    Disk(#[from] DiskFailure),
    /// A committed entry could not be applied.
    #[error("replicated log: committed entry {index} cannot be applied")]
    Apply {
        /// Its index.
        index: u64,
        /// What the listener said.
        #[source]
        source: BoxError,
    },
    /// Rows of another master could not be swapped in.
    #[error("replicated log: rows fetched from another master cannot be swapped in")]
    Swap(#[source] std::io::Error),
    /// Rows of another master cannot be used.
    #[error("replicated log: rows fetched from another master make no state")]
    Restore(#[source] BoxError),
    /// A mistake in the program, or a log that cannot be read back.
    #[error("replicated log: thread {thread} panicked: {message}")]
    Panicked {
        /// The thread.
        thread: &'static str,
        /// What it said.
        message: String,
    },
}

impl Fatal {
    /// Of what a thread panicked with.
    pub(crate) fn panicked(thread: &'static str, panic: &(dyn Any + Send)) -> Fatal {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
        Fatal::Panicked {
            thread,
            message: text.unwrap_or_default(),
        }
    }
}

/// What is done about it unless [`crate::Options::on_fatal`] says otherwise.
pub(crate) fn abort(fatal: &Fatal) {
    let error: &dyn std::error::Error = fatal;
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    tracing::error!(%cause, "{fatal}");
    std::process::abort();
}
