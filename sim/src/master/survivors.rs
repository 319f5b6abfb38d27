//! What outlives a machine that panicked: who is connected, and what is offered.
//!
//! What stands here is what `master/src/shell/survivors.rs` does.

use std::{collections::BTreeMap, sync::Arc};
use tepui_master_machine::{
    Machine,
    adopt::{Adopted, AdoptedScheduler},
    input::{ConnectionId, Input, SubscribeInput},
    model::{
        event::Event,
        id::{AgentId, FrameworkId, OfferId},
        link::master_message,
        offer::Offer,
        time::{Instant, WallTime},
    },
    output::{Destination, Message, Output, ViewChange},
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Survivors {
    subscribing: BTreeMap<ConnectionId, SubscribeInput>,
    schedulers: BTreeMap<ConnectionId, AdoptedScheduler>,
    agents: BTreeMap<ConnectionId, AgentId>,
    links: BTreeMap<AgentId, ConnectionId>,
    offers: BTreeMap<OfferId, Arc<Offer>>,
}

impl Survivors {
    /// Looks at an input before it is stepped.
    pub(super) fn observe_input(&mut self, input: &Input) {
        match input {
            Input::Subscribe(it) => {
                self.subscribing.insert(it.connection, it.clone());
            }
            Input::SchedulerDisconnected { connection }
            | Input::AgentDisconnected { connection } => self.forget(*connection),
            _ => {}
        }
    }

    /// Looks at what a step answered.
    pub(super) fn observe_output(&mut self, output: &Output) {
        for outgoing in &output.send {
            match (outgoing.to, &outgoing.message) {
                (Destination::Scheduler(connection), Message::Event { event, .. }) => {
                    if let Event::Subscribed { framework_id, .. } = event.as_ref() {
                        self.subscribed(connection, framework_id);
                    }
                }
                (Destination::Agent(connection), Message::ToAgent(message)) => {
                    if let Some(master_message::Kind::Registered(it)) = &message.kind {
                        let id = AgentId::from(it.agent_id.as_str());
                        if let Some(old) = self.links.insert(id.clone(), connection) {
                            self.agents.remove(&old);
                        }
                        self.agents.insert(connection, id);
                    }
                }
                (
                    Destination::Scheduler(connection) | Destination::Agent(connection),
                    Message::Close { .. },
                ) => self.forget(connection),
                _ => {}
            }
        }
        for change in &output.view {
            match change {
                ViewChange::OfferAdded(offer) => {
                    self.offers.insert(offer.id.clone(), offer.clone());
                }
                ViewChange::OfferRemoved(id) => {
                    self.offers.remove(id);
                }
                _ => {}
            }
        }
    }

    fn subscribed(&mut self, connection: ConnectionId, framework_id: &FrameworkId) {
        if let Some(came) = self.subscribing.remove(&connection) {
            let others = |it: &AdoptedScheduler| it.framework_id != *framework_id;
            self.schedulers.retain(|_, it| others(it));
            let scheduler = AdoptedScheduler {
                connection,
                stream_id: came.stream_id,
                transport: came.transport,
                principal: came.principal,
                framework_id: framework_id.clone(),
            };
            self.schedulers.insert(connection, scheduler);
        }
    }

    /// The connection is gone, or has caused the panic.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        self.subscribing.remove(&connection);
        self.schedulers.remove(&connection);
        if let Some(id) = self.agents.remove(&connection) {
            self.links.remove(&id);
        }
    }

    /// Forgets the offers, which the machine that takes them over names again.
    pub(super) fn forget_offers(&mut self) {
        self.offers.clear();
    }

    /// Gives a new machine what the old one had.
    pub(super) fn restore(&self, machine: &mut Machine, now: Instant, wall: WallTime) -> Output {
        let adopted = Adopted {
            schedulers: self.schedulers.values().cloned().collect(),
            agents: self.agents.iter().map(|(c, a)| (*c, a.clone())).collect(),
            offers: self.offers.values().cloned().collect(),
        };
        machine.adopt_connections(now, wall, adopted)
    }
}
