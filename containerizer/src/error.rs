//! Why a call was refused. What goes wrong with a container later comes as an event.

use crate::spec::Kind;
use std::{io, path::PathBuf};

/// A refused call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container of this id is known.
    #[error("container {0} is not known")]
    NotFound(String),
    /// A container of this id is there already.
    #[error("container {0} was launched before")]
    Duplicate(String),
    /// The id cannot name a file.
    #[error(
        "container id {0:?} must be 1 to 200 letters, digits, '-', '_' or '.', not starting with '.'"
    )]
    InvalidId(String),
    /// That containerizer is not there.
    #[error("no {0:?} containerizer on this agent: {1}")]
    Unavailable(Kind, String),
    /// The container does not run, so it cannot be asked.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// A file of our own could not be read or written.
    #[error("{action} {}", path.display())]
    File {
        /// What was tried: `write`, `create`...
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The engine refused or did not answer.
    #[error("docker engine: {0}")]
    Engine(String),
    /// A command could not be run inside a container.
    #[error("running a command in container {0}: {1}")]
    Exec(String, String),
}

impl Error {
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File {
            action,
            path,
            source,
        }
    }
}
