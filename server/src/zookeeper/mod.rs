//! ZooKeeper, for those who still look for masters there: the leader publishes itself in
//! Mesos' form ([`publish`]), agents can find it ([`Detector`]). Nothing of ours needs it.
//!
//! The protocol is small, and only a tenth of it is used: `jute` has the encoding, `session`
//! one connection of a session, `keeper` the session over lost connections.
//!
//! # Invariants
//! - A server that is down, slow or wrong costs a retry and a line in the log, nothing else.
//! - Whatever a server sends is checked for its length before memory is taken for it.

mod detect;
mod jute;
mod keeper;
mod publish;
mod session;
mod url;

pub use detect::Detector;
pub use publish::{Leader, publish};
pub use session::{Code, Error};
pub use url::{InvalidUrl, Url};

/// How Mesos names what a master publishes: JSON of MasterInfo, and a sequence number.
const LABEL: &str = "json.info_";
