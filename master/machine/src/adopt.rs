//! A machine born in place of one that panicked: the connections and offers that the
//! shell kept are taken over silently, so that only the connection which caused the
//! panic notices anything.

use std::sync::Arc;

use tepui_model::event::Event;
use tepui_model::id::{AgentId, FrameworkId, Principal};
use tepui_model::log;
use tepui_model::log::operation::Kind;
use tepui_model::offer::{FrameworkFormat, Offer};
use tepui_model::resources::Resources;
use tepui_model::time::{Instant, WallTime};

use crate::frameworks::Session;
use crate::input::{ConnectionId, Transport};
use crate::machine::Machine;
use crate::offers::{self, Outstanding};
use crate::output::{Destination, Output, Status, ViewChange};

const NOT_ADOPTED: &str = "the master began anew without this connection";

/// What outlived a machine.
#[derive(Clone, Debug, Default)]
pub struct Adopted {
    /// Open subscriptions.
    pub schedulers: Vec<AdoptedScheduler>,
    /// Attached agents' links.
    pub agents: Vec<(ConnectionId, AgentId)>,
    /// What agents oversubscribe.
    pub oversubscribed: Vec<(AgentId, Arc<Resources>)>,
    /// Outstanding offers, under the ids that frameworks know.
    pub offers: Vec<Arc<Offer>>,
}

/// One open subscription.
#[derive(Clone, Debug)]
pub struct AdoptedScheduler {
    /// Its event stream.
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

impl Machine {
    /// Takes over what outlived the machine before, right after the birth. What does not
    /// fit the committed state is left out: such an offer is rescinded, such a
    /// connection closed (its client subscribes or registers again).
    pub fn adopt_connections(&mut self, now: Instant, wall: WallTime, adopted: Adopted) -> Output {
        self.now = self.now.max(now);
        self.wall = wall;
        for (connection, agent_id) in adopted.agents {
            self.adopt_link(connection, &agent_id);
        }
        for (agent_id, resources) in adopted.oversubscribed {
            if self.agents.is_attached(&agent_id) {
                self.set_oversubscribed(&agent_id, Resources::clone(&resources));
            }
        }
        for scheduler in adopted.schedulers {
            self.adopt_session(scheduler);
        }
        for offer in adopted.offers {
            self.adopt_offer(offer);
        }
        self.allocation.trigger(self.now);
        std::mem::take(&mut self.out)
    }

    fn adopt_link(&mut self, connection: ConnectionId, agent_id: &AgentId) {
        let free = self.agents.of_connection(connection).is_none();
        let link = self
            .agents
            .get(agent_id)
            .filter(|link| free && link.connection.is_none());
        let Some(link) = link.cloned() else {
            self.close(
                Destination::Agent(connection),
                Status::Unavailable,
                NOT_ADOPTED,
            );
            return;
        };
        let away = self
            .state
            .agent(agent_id)
            .is_some_and(|row| row.disconnected_at_ns.is_some());
        if away {
            self.log(Kind::AgentConnected(log::AgentConnected {
                agent_id: agent_id.as_str().to_owned(),
                wall_time: self.wall.as_secs(),
            }));
        }
        let interval = self.config.agent_ping_timeout;
        self.agents
            .put_attached(agent_id, connection, link, self.now, interval);
        // No ping is on its way.
        self.agents.pong(agent_id);
        // What the old machine sent may not have left; twice is harmless.
        self.send_pending(agent_id);
        self.offer_agent(agent_id);
        self.view_agent(agent_id);
    }

    fn adopt_session(&mut self, scheduler: AdoptedScheduler) {
        let framework_id = scheduler.framework_id;
        let Some(info) = self.framework_infos.get(&framework_id) else {
            return;
        };
        if self.frameworks.is_connected(&framework_id)
            || self
                .frameworks
                .of_connection(scheduler.connection)
                .is_some()
        {
            return;
        }
        let session = Session {
            connection: scheduler.connection,
            stream_id: scheduler.stream_id,
            transport: scheduler.transport,
            format: FrameworkFormat::of(info),
        };
        let away = self
            .state
            .framework(&framework_id)
            .is_some_and(|row| row.disconnected_at_ns.is_some());
        if away {
            self.log(Kind::FrameworkConnected(log::FrameworkConnected {
                framework_id: framework_id.as_str().to_owned(),
                wall_time: self.wall.as_secs(),
            }));
        }
        self.bind_session(&framework_id, session);
    }

    fn adopt_offer(&mut self, offer: Arc<Offer>) {
        let framework_id = &offer.framework_id;
        if !self.frameworks.is_connected(framework_id) {
            return;
        }
        let free = self.agents.is_attached(&offer.agent_id)
            && !self.is_deactivated(&offer.agent_id)
            && self
                .free_on(&offer.agent_id)
                .contains(&offer.resources.non_shared());
        if !free || self.offers.number_of(&offer.id).is_some() {
            self.event(framework_id, Event::Rescind(offer.id.clone()));
            return;
        }
        let number = self.ids.offer_number();
        self.allocator
            .add_allocation(framework_id, &offer.agent_id, &offer.allocated());
        let outstanding = Outstanding {
            id: offer.id.clone(),
            framework_id: framework_id.clone(),
            agent_id: offer.agent_id.clone(),
            role: offer.role.clone(),
            resources: offer.resources.clone(),
            made_at: self.now,
        };
        let expires = offers::expiry(self.now, self.config.offer_timeout);
        self.offers.insert_adopted(number, outstanding, expires);
        self.out.view.push(ViewChange::OfferAdded(offer));
    }
}
