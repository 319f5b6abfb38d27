//! Connections and offers that outlived a machine which panicked.
//!
//! The shell keeps who is connected and what is offered; a machine that was born again
//! from the committed state takes both back, and no client notices: no event, no new
//! offer, the same stream ids and offer ids. What does not fit the committed state any
//! more (a framework that was removed, an agent that is not admitted) is closed, and its
//! client comes back by itself.

use std::sync::Arc;

use tepui_model::id::{AgentId, FrameworkId, Principal};
use tepui_model::log;
use tepui_model::log::operation::Kind;
use tepui_model::offer::{FrameworkFormat, Offer};
use tepui_model::time::{Instant, WallTime};

use crate::frameworks::Session;
use crate::input::{ConnectionId, Transport};
use crate::machine::Machine;
use crate::output::{Destination, Output, Status, ViewChange};

/// One open subscription.
#[derive(Clone, Debug)]
pub struct AdoptedScheduler {
    /// Where its events go.
    pub connection: ConnectionId,
    /// Its `Mesos-Stream-Id`.
    pub stream_id: Arc<str>,
    /// How its events travel.
    pub transport: Transport,
    /// Who authenticated, if anybody.
    pub principal: Option<Principal>,
    /// Whose it is.
    pub framework_id: FrameworkId,
}

/// Everything that is taken over.
#[derive(Clone, Debug, Default)]
pub struct Adopted {
    /// Open subscriptions.
    pub schedulers: Vec<AdoptedScheduler>,
    /// Open links of agents that are attached.
    pub agents: Vec<(ConnectionId, AgentId)>,
    /// Outstanding offers.
    pub offers: Vec<Arc<Offer>>,
}
