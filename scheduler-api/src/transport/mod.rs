//! The two ways to speak to a master: the v1 HTTP API and gRPC.
//!
//! A transport opens one subscription and yields its messages; the session does the
//! rest (retry, heartbeats, acknowledgement), so that both behave alike.

pub(crate) mod grpc;
pub(crate) mod http;

use crate::error::Error;
use tepui_proto::mesos::v1::scheduler;
use tokio::sync::{mpsc, oneshot};

/// Which protocol a session speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// gRPC: one stream in both directions, the cheapest. Tepui masters only.
    #[default]
    Grpc,
    /// The v1 HTTP API in protobuf: any Mesos v1 master.
    Http,
}

/// A call on its way to the master.
pub(crate) struct OutgoingCall {
    pub(crate) call: scheduler::Call,
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}

/// An open subscription.
pub(crate) struct Subscription {
    /// Messages of the master; the channel closes when the stream ends, the last item
    /// says why.
    pub(crate) events: mpsc::Receiver<Result<scheduler::Event, Error>>,
    /// Calls are sent in this order.
    pub(crate) calls: mpsc::Sender<OutgoingCall>,
    /// `host:port` of every master that the leader knows of; may be empty.
    pub(crate) masters: Vec<String>,
}

/// Why no subscription could be opened.
pub(crate) enum OpenError {
    /// This master does not lead; the one named may.
    NotLeader(Option<String>),
    /// It cannot be reached, or breaks: try again later.
    Unavailable(String),
    /// Never like this.
    Refused(Error),
}

/// Events that may wait between the network and the session. One offers event of a
/// large cluster is hundreds of kilobytes, so this is small on purpose: the socket's
/// flow control is the real queue.
pub(crate) const EVENTS_IN_FLIGHT: usize = 16;

/// Calls that may wait for the network before `Driver` methods wait themselves.
pub(crate) const CALLS_IN_FLIGHT: usize = 256;

/// Seconds for which a master that does not lead is asked to wait for a leader.
pub(crate) const WAIT: &str = "tepui-wait";
/// A leader that cannot be reached, to which it need not send us.
pub(crate) const NOT: &str = "tepui-not";
/// Every master, in the answer to a subscription.
pub(crate) const MASTERS: &str = "tepui-masters";
/// Metadata in which a follower names the leader.
pub(crate) const LEADER: &str = "tepui-leader";

pub(crate) fn list(masters: &str) -> Vec<String> {
    let parts = masters.split(',').filter(|it| !it.is_empty());
    parts.map(str::to_owned).collect()
}

/// Opens a subscription at `master` (`host:port`). One that does not lead waits a moment for
/// a leader other than `dead`, and names it.
pub(crate) async fn open(
    transport: Transport,
    master: &str,
    dead: Option<String>,
    subscribe: scheduler::Call,
) -> Result<Subscription, OpenError> {
    match transport {
        Transport::Grpc => grpc::open(master, dead, subscribe).await,
        Transport::Http => http::open(master, dead, subscribe).await,
    }
}
