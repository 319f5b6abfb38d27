//! A world around one machine: names instead of connections, a clock that only tests
//! move, a replica that applies what is logged, and every invariant after every step.

#![allow(dead_code)] // each test binary uses a part

pub mod command;
pub mod trace;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tepui_master_machine::adopt::{Adopted, AdoptedScheduler};
use tepui_master_machine::input::{ConnectionId, Input, RequestId, Transport};
use tepui_master_machine::output::{Destination, Message, Outgoing, Output, ViewChange};
use tepui_master_machine::{Config, Machine};
use tepui_model::event::Event;
use tepui_model::id::{AgentId, OfferId};
use tepui_model::offer::Offer;
use tepui_model::time::{Instant, WallTime};
use tepui_model::{link, log};
use tepui_state::ClusterState;

pub struct World {
    pub machine: Option<Machine>,
    /// What a follower holds: moved by the logged operations alone.
    pub replica: ClusterState,
    pub config: Config,
    pub now: Instant,
    pub seed: u64,
    term: u64,
    births: u64,
    rebirths: u64,
    requests: u64,
    connections: BTreeMap<String, ConnectionId>,
    /// Outstanding offers, as readers see them.
    pub offers: BTreeMap<OfferId, Arc<Offer>>,
    /// What a shell keeps for a machine that panics.
    pub survivors: Adopted,
    /// Agents that answer pings.
    pub pongs: BTreeSet<ConnectionId>,
}

impl World {
    pub fn new() -> World {
        World {
            machine: None,
            replica: ClusterState::new(),
            config: Config {
                cluster_id: "cluster".to_owned(),
                ..Config::default()
            },
            now: Instant(1_000_000_000),
            seed: 7,
            term: 0,
            births: 0,
            rebirths: 0,
            requests: 0,
            connections: BTreeMap::new(),
            offers: BTreeMap::new(),
            survivors: Adopted::default(),
            pongs: BTreeSet::new(),
        }
    }

    pub fn wall(&self) -> WallTime {
        WallTime(self.now.as_nanos() as f64 / 1e9)
    }

    /// Names of connections get numbers in the order of their first use.
    pub fn connection(&mut self, name: &str) -> ConnectionId {
        let next = self.connections.len() as u64 + 1;
        *self
            .connections
            .entry(name.to_owned())
            .or_insert(ConnectionId(next))
    }

    pub fn connection_name(&self, connection: ConnectionId) -> String {
        self.connections
            .iter()
            .find(|(_, it)| **it == connection)
            .map_or_else(|| format!("{connection:?}"), |(name, _)| name.clone())
    }

    pub fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    /// The newest offer to a framework of an agent.
    pub fn offer_of(&self, framework: &str, agent: &str) -> Option<OfferId> {
        let of = |offer: &&Arc<Offer>| {
            offer.framework_id.as_str() == framework && offer.agent_id.as_str() == agent
        };
        // Younger ids are longer or greater.
        let newest = self
            .offers
            .values()
            .filter(of)
            .max_by_key(|offer| (offer.id.as_str().len(), offer.id.clone()));
        newest.map(|offer| offer.id.clone())
    }

    /// The machine is thrown away, and born in place with what outlived it.
    pub fn rebirth(&mut self) -> Vec<Output> {
        let mut adopted = std::mem::take(&mut self.survivors);
        adopted.offers = self.offers.values().cloned().collect();
        self.rebirths += 1;
        let born = self.birth();
        self.survivors = Adopted {
            offers: Vec::new(),
            ..adopted.clone()
        };
        let (now, wall) = (self.now, self.wall());
        let restored = self.machine().adopt_connections(now, wall, adopted);
        self.replicate(&restored);
        vec![born, restored]
    }

    fn keep(&mut self, output: &Output) {
        for change in &output.view {
            if let ViewChange::Oversubscribed {
                agent_id,
                resources,
            } = change
            {
                let known = &mut self.survivors.oversubscribed;
                known.retain(|(id, _)| id != agent_id);
                known.push((agent_id.clone(), resources.clone()));
            }
        }
        for outgoing in &output.send {
            match (&outgoing.to, &outgoing.message) {
                (Destination::Scheduler(connection), Message::Event { event, .. }) => {
                    if let Event::Subscribed { framework_id, .. } = &**event {
                        let name = self.connection_name(*connection);
                        self.survivors
                            .schedulers
                            .retain(|it| it.framework_id != *framework_id);
                        self.survivors.schedulers.push(AdoptedScheduler {
                            connection: *connection,
                            stream_id: format!("stream-{name}").into(),
                            transport: Transport::V1Json,
                            principal: None,
                            framework_id: framework_id.clone(),
                        });
                    }
                }
                (Destination::Agent(connection), Message::ToAgent(message)) => {
                    if let Some(link::master_message::Kind::Registered(it)) = &message.kind {
                        let id = AgentId::from(it.agent_id.as_str());
                        self.survivors.agents.retain(|(_, known)| *known != id);
                        self.survivors.agents.push((*connection, id));
                    }
                }
                (
                    Destination::Scheduler(connection) | Destination::Agent(connection),
                    Message::Close { .. },
                ) => self.forget(*connection),
                _ => {}
            }
        }
    }

    fn forget(&mut self, connection: ConnectionId) {
        self.survivors
            .schedulers
            .retain(|it| it.connection != connection);
        self.survivors.agents.retain(|(it, _)| *it != connection);
    }

    /// A new term over what the replica holds; the machine before is thrown away.
    pub fn birth(&mut self) -> Output {
        self.survivors = Adopted::default();
        self.births += 1;
        // In place: the same term, ids of its own.
        self.term += u64::from(self.rebirths == 0);
        self.rebirths = 0;
        let (machine, output) = Machine::birth(
            self.replica.clone(),
            self.term,
            self.now,
            self.wall(),
            self.seed,
            &format!("m{}", self.births),
            self.config.clone(),
        );
        self.machine = Some(machine);
        self.offers.clear();
        self.replicate(&output);
        output
    }

    pub fn machine(&mut self) -> &mut Machine {
        self.machine.as_mut().expect("a scenario begins with birth")
    }

    pub fn step(&mut self, input: Input) -> Output {
        let (now, wall) = (self.now, self.wall());
        if let Input::SchedulerDisconnected { connection }
        | Input::AgentDisconnected { connection } = &input
        {
            self.forget(*connection);
        }
        let output = self.machine().step(now, wall, input);
        self.replicate(&output);
        self.keep(&output);
        output
    }

    /// Time goes on, from deadline to deadline. Says what every step did that did anything.
    pub fn advance(&mut self, by: Duration) -> Vec<(Instant, Output)> {
        let end = self.now + by;
        let mut outputs = Vec::new();
        let mut steps = 0;
        while let Some(next) = self.machine().next_deadline().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            let output = self.step(Input::Tick);
            let answers = self.pongs_to(&output);
            if !output.is_empty() {
                outputs.push((self.now, output));
            }
            for answer in answers {
                let output = self.step(answer);
                assert!(output.is_empty(), "a pong does something: {output:?}");
            }
            steps += 1;
            assert!(
                steps < 100_000,
                "the machine is due again and again at {next:?}"
            );
        }
        self.now = end;
        outputs
    }

    fn pongs_to(&self, output: &Output) -> Vec<Input> {
        let pinged = |outgoing: &Outgoing| match (&outgoing.to, &outgoing.message) {
            (Destination::Agent(connection), Message::ToAgent(message)) => {
                matches!(message.kind, Some(link::master_message::Kind::Ping(_)))
                    .then_some(*connection)
                    .filter(|connection| self.pongs.contains(connection))
            }
            _ => None,
        };
        let answer = |connection| Input::AgentMessage {
            connection,
            principal: None,
            message: Box::new(link::AgentMessage {
                kind: Some(link::agent_message::Kind::Pong(link::Pong {
                    connected: true,
                })),
            }),
        };
        output.send.iter().filter_map(pinged).map(answer).collect()
    }

    /// One entry for each step that decided something, as shells make them: the replica must be
    /// what the machine's state is.
    fn replicate(&mut self, output: &Output) {
        let now = self.now;
        let machine = self.machine.as_mut().expect("born");
        if !output.log.is_empty() || output.stamp {
            let stamp = machine.cluster_time(now);
            machine.advance(stamp);
            let entry = log::Entry {
                decided_term: self.term,
                cluster_time_ns: stamp.as_nanos(),
                operations: output.log.clone(),
                state_hash: None,
            };
            self.replica.apply_entry(&entry).expect("known operations");
        }
        assert_eq!(
            machine.state_hash(),
            self.replica.hash(),
            "the machine changed its state past the log"
        );
        machine.check_invariants();
        for change in &output.view {
            match change {
                ViewChange::OfferAdded(offer) => {
                    self.offers.insert(offer.id.clone(), offer.clone());
                }
                ViewChange::OfferRemoved(id) => {
                    assert!(
                        self.offers.remove(id).is_some(),
                        "offer {id} was removed twice"
                    );
                }
                _ => {}
            }
        }
    }
}
