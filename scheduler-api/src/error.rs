//! What can go wrong between a framework and the masters.

/// Why a session ended or a call was not taken.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The list of masters is empty or one of them is not `host:port`.
    #[error("master address {0:?} is not of the form host:port")]
    InvalidMaster(String),
    /// The master refused the subscription or removed the framework, for good. Trying
    /// again with the same framework info will not help.
    #[error("the master refused the framework: {0}")]
    Refused(String),
    /// The master answered a call with an error; nothing of the call took effect.
    #[error("the master answered {status}: {message}")]
    Rejected {
        /// HTTP status, also for gRPC (mapped from its code).
        status: u16,
        /// The master's words.
        message: String,
    },
    /// The call was not sent, or its answer was lost, because the connection to the
    /// master broke. The framework cannot know whether it took effect; reconciliation
    /// tells.
    #[error("the connection to the master was lost: {0}")]
    Disconnected(String),
    /// A write of the state service was sent again after its answer was lost, and the masters do
    /// not remember any more whether it took effect. Reading tells what is there.
    #[error("whether the write took effect is not known: {0}")]
    Unknown(String),
    /// The session has ended.
    #[error("the session has ended")]
    Closed,
}

/// Result with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
