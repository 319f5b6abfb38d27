//! Calls to the engine, each with a time limit.

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error as BollardError};
use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::OnceCell;

/// Bollard's own limit on an answer; ours are shorter, but this one must not cut a slow pull.
const OUTER_TIMEOUT_SECONDS: u64 = 3600;

/// Why a call has failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// The engine answered with a refusal.
    #[error("{message}")]
    Refused { status: u16, message: String },
    /// No answer in time.
    #[error("the engine did not answer to {call} within {seconds} s")]
    Silent { call: &'static str, seconds: u64 },
    /// No connection, or a broken one.
    #[error("{0}")]
    Unreachable(String),
}

impl EngineError {
    pub fn is_not_found(&self) -> bool {
        matches!(self, EngineError::Refused { status: 404, .. })
    }

    /// Whether the engine may have done what was asked, or may still do it.
    pub fn leaves_doubt(&self) -> bool {
        !matches!(self, EngineError::Refused { .. })
    }

    pub fn is_conflict(&self) -> bool {
        matches!(self, EngineError::Refused { status: 409, .. })
    }
}

/// What the engine or the registry said, without bollard's wrapping.
pub(super) fn words(error: BollardError) -> String {
    match error {
        BollardError::DockerResponseServerError { message, .. } => message,
        BollardError::DockerStreamError { error } => error,
        other => {
            // The cause is often in the source only ("error trying to connect").
            let mut text = other.to_string();
            let mut source = std::error::Error::source(&other);
            while let Some(it) = source {
                text = format!("{text}: {it}");
                source = it.source();
            }
            text
        }
    }
}

/// A connection to the engine, made when it is first there; every call opens its own socket.
#[derive(Clone)]
pub(crate) struct Client {
    socket: PathBuf,
    timeout: Duration,
    docker: Arc<OnceCell<Docker>>,
}

impl Client {
    pub fn new(socket: PathBuf, timeout: Duration) -> Client {
        Client {
            socket,
            timeout,
            docker: Arc::new(OnceCell::new()),
        }
    }

    /// The connection; asks the engine for its version the first time.
    pub async fn docker(&self) -> Result<&Docker, EngineError> {
        self.docker
            .get_or_try_init(|| async {
                let path = self.socket.to_string_lossy();
                let docker =
                    Docker::connect_with_unix(&path, OUTER_TIMEOUT_SECONDS, API_DEFAULT_VERSION)
                        .map_err(|error| EngineError::Unreachable(words(error)))?;
                self.limited("negotiate_version", docker.negotiate_version())
                    .await
            })
            .await
    }

    async fn limited<T>(
        &self,
        call: &'static str,
        future: impl Future<Output = Result<T, BollardError>>,
    ) -> Result<T, EngineError> {
        match tokio::time::timeout(self.timeout, future).await {
            Err(_) => Err(EngineError::Silent {
                call,
                seconds: self.timeout.as_secs(),
            }),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(BollardError::DockerResponseServerError {
                status_code,
                message,
            })) => Err(EngineError::Refused {
                status: status_code,
                message,
            }),
            Ok(Err(error)) => Err(EngineError::Unreachable(words(error))),
        }
    }

    /// One call with the time limit.
    pub async fn call<'a, T, F>(
        &'a self,
        name: &'static str,
        call: impl FnOnce(&'a Docker) -> F,
    ) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, BollardError>> + 'a,
    {
        let docker = self.docker().await?;
        self.limited(name, call(docker)).await
    }
}
