//! The crate that framework authors link.
//!
//! A framework subscribes at the masters, receives [`Event`]s - offers of resources,
//! states of its tasks - and answers with calls through a [`Driver`]. [`Session`] does
//! what every framework needs and few get right: it finds the leader, reconnects with
//! the same framework id, watches heartbeats, acknowledges status updates and reconciles
//! after a break. Messages are those of the Mesos v1 API ([`v1`]).
//!
//! # A framework in twenty lines
//!
//! It launches one task on the first offer that has room and ends with it.
//!
//! ```no_run
//! use tepui_scheduler_api::{Event, Options, Session, task};
//!
//! # async fn run() -> tepui_scheduler_api::Result<()> {
//! let info = task::framework("", "hello");
//! let Session { driver, mut events } = Session::start(Options::new(["127.0.0.1:5050"], info))?;
//! let mut launched = false;
//! while let Some(event) = events.next().await {
//!     match event? {
//!         Event::Offers(offers) => {
//!             for offer in offers {
//!                 let room = task::amount(&offer.resources, "cpus") >= 0.1;
//!                 if room && !launched {
//!                     let hello = task::shell("echo hello");
//!                     let task = task::task("hello", &offer, 0.1, 32.0, hello);
//!                     driver.launch(&offer, vec![task], None).await?;
//!                     launched = true;
//!                 } else {
//!                     driver.decline(offer.id, None).await?;
//!                 }
//!             }
//!         }
//!         Event::Update(status) if task::is_terminal(status.state()) => {
//!             println!("{} ended as {:?}", status.task_id.value, status.state());
//!             driver.teardown().await?;
//!         }
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What to know beyond that:
//!
//! - **Offers** are used once: [`Driver::launch`] returns the rest of an offer to the
//!   cluster. An offer that is neither used nor declined keeps its resources from
//!   everybody else.
//! - **Acknowledgement** is what makes updates reliable. [`Acknowledge::Automatic`]
//!   answers when [`Events::next`] hands the update over; a framework that must store the
//!   state first takes [`Acknowledge::Explicit`].
//! - **Failover**: keep the id of [`Event::Subscribed`] and start the next instance with
//!   it in `FrameworkInfo.id` within `failover_timeout`; tasks run on meanwhile.
//! - **Doubt**: after [`Event::Disconnected`] some calls may or may not have arrived. The
//!   session reconciles by itself; tasks that the master does not know come back as lost.
//!
//! - **Memory**: [`state`] keeps small variables in the masters' log - the framework's id, its
//!   plans - and elects a leader among several instances.
//!
//! `examples/run_commands.rs` is a complete framework, `examples/elect.rs` an election.
//!
//! # Invariants
//!
//! - At most one subscription at a time; the framework id never changes in a session.
//! - An acknowledgement is sent only for an update that the framework received.
//! - Calls reach the master in the order in which they were made.

mod backoff;
pub mod call;
mod error;
mod event;
mod leader;
mod session;
pub mod state;
pub mod task;
mod transport;

pub use error::{Error, Result};
pub use event::Event;
pub use session::{Acknowledge, Driver, Events, Options, Session};
pub use tepui_proto::mesos::v1;
pub use transport::Transport;
