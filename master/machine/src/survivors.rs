//! What must outlive a machine that panicked: who is connected, and what is offered.
//!
//! The shell watches inputs and outputs and remembers just enough to hand a new machine
//! the same connections and offers, so that clients do not notice the change.

use std::{collections::BTreeMap, sync::Arc};

use tepui_model::{
    event::Event,
    id::{AgentId, FrameworkId, OfferId},
    link::master_message,
    offer::Offer,
    resources::Resources,
    time::{Instant, WallTime},
};

use crate::{
    adopt::{Adopted, AdoptedScheduler},
    input::{ConnectionId, Input, SubscribeInput},
    machine::Machine,
    output::{Destination, Message, Output, ViewChange},
};

/// Connections and offers of the machine that runs.
#[derive(Debug, Default)]
pub struct Survivors {
    /// Subscriptions on their way: what they came with.
    subscribing: BTreeMap<ConnectionId, SubscribeInput>,
    schedulers: BTreeMap<ConnectionId, AdoptedScheduler>,
    agents: BTreeMap<ConnectionId, AgentId>,
    /// The same, the other way round.
    links: BTreeMap<AgentId, ConnectionId>,
    oversubscribed: BTreeMap<AgentId, Arc<Resources>>,
    offers: BTreeMap<OfferId, Arc<Offer>>,
}

impl Survivors {
    /// Looks at an input before it is stepped.
    pub fn observe_input(&mut self, input: &Input) {
        match input {
            Input::Subscribe(subscribe) => {
                self.subscribing
                    .insert(subscribe.connection, subscribe.clone());
            }
            Input::SchedulerDisconnected { connection }
            | Input::AgentDisconnected { connection } => self.forget(*connection),
            _ => {}
        }
    }

    /// Looks at what a step answered.
    pub fn observe_output(&mut self, output: &Output) {
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
                ViewChange::Oversubscribed {
                    agent_id,
                    resources,
                } if !resources.is_empty() => {
                    let resources = resources.clone();
                    self.oversubscribed.insert(agent_id.clone(), resources);
                }
                ViewChange::Oversubscribed { agent_id, .. }
                | ViewChange::AgentRemoved(agent_id) => {
                    self.oversubscribed.remove(agent_id);
                }
                _ => {}
            }
        }
    }

    fn subscribed(&mut self, connection: ConnectionId, framework_id: &FrameworkId) {
        if let Some(came) = self.subscribing.remove(&connection) {
            self.schedulers
                .retain(|_, known| known.framework_id != *framework_id);
            self.schedulers.insert(
                connection,
                AdoptedScheduler {
                    connection,
                    stream_id: came.stream_id,
                    transport: came.transport,
                    principal: came.principal,
                    framework_id: framework_id.clone(),
                },
            );
        }
    }

    /// The connection is gone.
    pub fn forget(&mut self, connection: ConnectionId) {
        self.subscribing.remove(&connection);
        self.schedulers.remove(&connection);
        if let Some(id) = self.agents.remove(&connection) {
            self.links.remove(&id);
            self.oversubscribed.remove(&id);
        }
    }

    /// Forgets the offers, which the machine that takes them over names again.
    pub fn forget_offers(&mut self) {
        self.offers.clear();
    }

    /// Forgets the connection that caused a panic; its principal, if it has one.
    pub fn blame(&mut self, source: ConnectionId, input: &Input) -> Option<String> {
        let of_connection = self.schedulers.get(&source).map(|it| it.principal.clone());
        self.forget(source);
        let principal = match input {
            Input::Subscribe(it) => it.principal.clone(),
            Input::SchedulerCall(it) => it.principal.clone(),
            Input::AgentMessage { principal, .. } => principal.clone(),
            Input::Operator(it) => it.principal.clone(),
            Input::State(it) => it.principal.clone(),
            Input::StateWatch { principal, .. } => principal.clone(),
            _ => of_connection.flatten(),
        };
        principal.map(|it| it.as_str().to_owned())
    }

    /// Gives a new machine what the old one had.
    pub fn restore(&self, machine: &mut Machine, now: Instant, wall: WallTime) -> Output {
        machine.adopt_connections(
            now,
            wall,
            Adopted {
                schedulers: self.schedulers.values().cloned().collect(),
                agents: self.agents.iter().map(|(c, a)| (*c, a.clone())).collect(),
                oversubscribed: self
                    .oversubscribed
                    .iter()
                    .map(|(id, it)| (id.clone(), it.clone()))
                    .collect(),
                offers: self.offers.values().cloned().collect(),
            },
        )
    }
}
