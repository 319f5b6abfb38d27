//! Runs tasks in containers, as Docker containers or as isolated processes, and tells the
//! agent what becomes of them.
//!
//! [`Containerizer`] is the whole face: [`launch`](Containerizer::launch),
//! [`kill`](Containerizer::kill), [`remove`](Containerizer::remove),
//! [`recover`](Containerizer::recover) and questions about a running container. What happens
//! to a container comes as [`ContainerEvent`]s on the bounded channel that the agent hands in.
//!
//! A task's parent is never the agent: Docker tasks belong to the engine, process tasks to a
//! `tepui-shim`. The agent may die at any instruction; the next one calls `recover` with the
//! containers it knows of and gets each of them back, running or with its true exit status.
//!
//! # Who does what
//!
//! ```text
//! containerizer.rs  the map of containers, a driver task for each
//! process/          shim's spec and state files, pidfd, launch, re-attach
//! docker/           engine calls, mapping of options, events, logs, pulls
//! cgroups/          version 1 and version 2
//! sandbox.rs        directories of behaviour 11.4      fetcher.rs  URIs of 11.7
//! checks/           health checks and checks of 11.8   runtime.rs  our own files
//! ```
//!
//! # Invariants
//!
//! - Exits arrive as events (the engine's event stream, a pidfd), never by polling.
//! - Every launched container ends in exactly one of `LaunchFailed` and `Exited`, and says so
//!   once; after a restart of the agent `recover` says it instead of an event.
//! - What is needed to find a container again is on disk, or in the engine's labels, before
//!   the container exists.
//! - `remove` may run twice, and after it nothing of the container is left but its sandbox.
//! - No call to the engine is without a time limit; an engine that stops answering delays its
//!   own containers only.
//! - Nothing that a task, an archive or a URI contains can make a file appear outside the
//!   sandbox.
//! - Only containers with this agent's `owner` are ever touched.

mod archive;
pub mod cgroups;
pub mod checks;
mod config;
mod containerizer;
pub mod docker;
mod error;
mod event;
pub mod fetcher;
pub mod process;
mod runtime;
pub mod sandbox;
mod spec;
pub mod text;
pub mod users;
mod wake;

pub use config::{Config, DockerConfig, LogBounds, ProcessConfig};
pub use containerizer::Containerizer;
pub use error::Error;
pub use event::{
    ContainerEvent, Exit, FailureClass, Limitation, Recovered, RecoveredState, Started, Termination,
};
pub use spec::{Amounts, ContainerSpec, Kind, Limit};
