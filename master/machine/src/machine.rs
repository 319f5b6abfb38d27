//! The machine: birth from the committed state, one step per input, and the small
//! tools that every coordinator uses.

use std::collections::BTreeMap;
use std::sync::Arc;

use tepui_allocator::Allocator;
use tepui_model::agent::Host;
use tepui_model::event::Event;
use tepui_model::framework::FrameworkInfo;
use tepui_model::id::{AgentId, FrameworkId};
use tepui_model::link::master_message::Kind as ToAgent;
use tepui_model::log::operation::Kind;
use tepui_model::resources::Resources;
use tepui_model::time::{ClusterTime, Instant, WallTime};
use tepui_model::{link, log, wire};
use tepui_state::ClusterState;

use crate::agents::{Address, Agents, Capabilities, Link};
use crate::allocation::{Allocation, Lately};
use crate::clock;
use crate::config::Config;
use crate::counters::Counters;
use crate::frameworks::Frameworks;
use crate::gc;
use crate::hoarding::Hoarding;
use crate::ids::Ids;
use crate::input::{ConnectionId, Input, RequestId};
use crate::inverse_offers::InverseOffers;
use crate::leases::Leases;
use crate::offers::Offers;
use crate::output::{Destination, Message, Needs, Outgoing, Output, Status, ViewChange};
use crate::preemption::Preemption;
use crate::statuses::is_terminal;
use crate::watches::Watches;

/// The master's machine of one term; see the crate's documentation.
#[derive(Debug)]
pub struct Machine {
    pub(crate) config: Config,
    /// What SUBSCRIBED says, shared by all of them.
    pub(crate) master_info: Arc<wire::MasterInfo>,
    pub(crate) state: ClusterState,
    pub(crate) ids: Ids,
    pub(crate) frameworks: Frameworks,
    /// Read once from the rows: what every call of a framework needs.
    pub(crate) framework_infos: BTreeMap<FrameworkId, Arc<FrameworkInfo>>,
    pub(crate) agents: Agents,
    pub(crate) offers: Offers,
    pub(crate) inverse_offers: InverseOffers,
    pub(crate) leases: Leases,
    pub(crate) watches: Watches,
    pub(crate) allocator: Allocator,
    pub(crate) allocation: Allocation,
    pub(crate) hoarding: Hoarding,
    pub(crate) preemption: Preemption,
    /// When agents that are away are next looked through.
    pub(crate) gc_at: Instant,
    /// When it is next looked whether time alone is to be logged.
    pub(crate) stamp_at: Instant,
    pub(crate) counters: Counters,
    /// Of the step that is running.
    pub(crate) now: Instant,
    pub(crate) wall: WallTime,
    pub(crate) out: Output,
    born_at: Instant,
    cluster_time_at_birth: ClusterTime,
}

impl Machine {
    /// Begins a term over the committed state: logs `FormCluster` (once in a cluster's
    /// life) and `BeginTerm`. Nobody is connected; whoever was gets its whole time-out
    /// again, at least `agent_reregister_timeout` (DESIGN section 5, Time).
    ///
    /// `seed` comes from the shell's randomness and is never replicated; `master_id` is
    /// a fresh UUID, the prefix of every id that this term makes.
    pub fn birth(
        state: ClusterState,
        term: u64,
        now: Instant,
        wall: WallTime,
        seed: u64,
        master_id: &str,
        mut config: Config,
    ) -> (Machine, Output) {
        config.master_info.id = master_id.to_owned();
        let allocator = Allocator::new(config.allocator.clone(), seed);
        let cluster_time_at_birth = state.cluster_time();
        let mut machine = Machine {
            gc_at: now + gc::INTERVAL,
            stamp_at: now + clock::INTERVAL,
            allocation: Allocation::new(now, config.allocator.allocation_interval),
            hoarding: Hoarding::new(now),
            preemption: Preemption::new(now),
            state,
            ids: Ids::new(master_id, seed),
            frameworks: Frameworks::new(),
            framework_infos: BTreeMap::new(),
            agents: Agents::new(),
            offers: Offers::default(),
            inverse_offers: InverseOffers::default(),
            leases: Leases::new(),
            watches: Watches::default(),
            allocator,
            counters: Counters::default(),
            now,
            wall,
            out: Output::default(),
            born_at: now,
            master_info: Arc::new(config.master_info.clone()),
            cluster_time_at_birth,
            config,
        };
        machine.begin_term(term);
        machine.recover_settings();
        machine.recover_frameworks();
        machine.recover_agents();
        machine.recover_withdrawn();
        machine.recover_leases();
        let out = std::mem::take(&mut machine.out);
        (machine, out)
    }

    /// Takes one input. Total: whatever a client sends, the answer is an output.
    ///
    /// `now` must not be smaller than before; an earlier one counts as the same time.
    ///
    /// # Panics
    /// On [`Input::InjectPanic`] alone.
    pub fn step(&mut self, now: Instant, wall: WallTime, input: Input) -> Output {
        self.now = self.now.max(now);
        self.wall = wall;
        match input {
            Input::Tick => {}
            Input::Subscribe(input) => self.subscribe(input),
            Input::SchedulerCall(call) => self.scheduler_call(call),
            Input::SchedulerDisconnected { connection } => self.scheduler_disconnected(connection),
            Input::SchedulerPace { connection, behind } => {
                self.set_scheduler_pace(connection, behind);
            }
            Input::SchedulerTurn { connection } => self.scheduler_turn(connection),
            Input::AgentMessage {
                connection,
                principal,
                message,
            } => self.agent_message(connection, principal, *message),
            Input::AgentDisconnected { connection } => self.agent_disconnected(connection),
            Input::Operator(input) => self.operator(input),
            Input::State(input) => self.state_request(input),
            Input::StateWatch {
                connection,
                principal,
                prefix,
            } => self.state_watch(connection, principal.as_ref(), prefix),
            Input::StateWatchClosed { connection } => self.state_watch_closed(connection),
            Input::Whitelist(hosts) => self.set_whitelist(hosts),
            Input::InjectPanic { connection } => {
                panic!("a panic was injected for a test (connection {connection:?})")
            }
        }
        self.tick();
        std::mem::take(&mut self.out)
    }

    /// When to step with [`Input::Tick`] at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        [
            self.frameworks.next_deadline(),
            self.agents.next_deadline(),
            self.offers.next_deadline(),
            self.inverse_offers.next_deadline(),
            self.leases.next_deadline(),
            self.allocation.next_deadline(),
            self.allocator.next_deadline(),
            self.hoarding.next_deadline(),
            self.preemption.next_deadline(),
            Some(self.gc_at),
            self.next_stamp(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The stamp for the log entry that holds what was stepped until `now`: advances
    /// with this leader's clock from where the cluster's stood at its birth.
    pub fn cluster_time(&self, now: Instant) -> ClusterTime {
        self.cluster_time_at_birth + now.saturating_since(self.born_at)
    }

    /// The shell made an entry with this stamp: the machine's state moves its clock as
    /// every replica will, after the entry's operations.
    pub fn advance(&mut self, to: ClusterTime) {
        self.state.advance(to);
    }

    /// Hash over the state, for the entries that carry one.
    pub fn state_hash(&mut self) -> u64 {
        self.state.hash()
    }

    /// The replicated state, moved by every step already; committed later.
    pub fn state(&self) -> &ClusterState {
        &self.state
    }

    /// The master id of this term.
    pub fn master_id(&self) -> &str {
        self.ids.master_id()
    }

    /// What was counted since birth.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The settings it was born with; `master_info.id` is this term's.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Panics when a table contradicts itself, another one or the state. After every
    /// step in tests; too slow for production.
    pub fn check_invariants(&self) {
        self.frameworks.check_invariants();
        self.agents.check_invariants();
        self.offers.check_invariants();
        self.inverse_offers.check_invariants();
        self.watches.check_invariants();
        self.check_leases();
        self.allocator.check_invariants();
        for framework_id in self.frameworks.connected() {
            assert!(
                self.is_live(framework_id),
                "{framework_id} is connected and not live"
            );
        }
        let live: Vec<_> = self.state.frameworks().map(|(id, _)| id).collect();
        let parsed: Vec<_> = self.framework_infos.keys().collect();
        assert_eq!(live, parsed, "live frameworks and those read differ");
        self.check_agents();
        self.check_resources();
        for (number, offer) in self.offers.iter() {
            assert!(
                self.frameworks.is_connected(&offer.framework_id),
                "offer {number} of nobody"
            );
            assert!(
                self.agents.is_attached(&offer.agent_id),
                "offer {number} of no agent"
            );
        }
    }

    fn check_agents(&self) {
        let admitted: Vec<_> = self
            .state
            .agents()
            .filter(|(_, row)| row.state() == log::AgentState::Admitted)
            .map(|(id, _)| id)
            .collect();
        let linked: Vec<_> = self.agents.iter().map(|(id, _)| id).collect();
        assert_eq!(admitted, linked, "admitted agents and those read differ");
        for (agent_id, row) in self.state.agents() {
            if let Some(link) = self.agents.get(agent_id) {
                let total = Resources::from_wire(&row.total).expect("a row's total is valid");
                assert!(
                    total.is_equivalent(&link.total),
                    "{agent_id}: totals differ"
                );
                assert!(
                    !link.seen || link.connection.is_some() == row.disconnected_at_ns.is_none(),
                    "{agent_id}: attached and row differ"
                );
            }
        }
    }

    /// No resource is used twice: what is offered and what tasks and executors use fits
    /// into the agent's total. Of what is oversubscribed more may be used than there is by now,
    /// but not offered.
    fn check_resources(&self) {
        for (agent_id, link) in self.agents.iter() {
            let used = self.used_on(agent_id);
            let mut offered = Resources::default();
            for number in self.offers.of_agent(agent_id) {
                let offer = self.offers.get(number).expect("indexed");
                offered.add(&offer.resources);
            }
            let free = link.offerable().difference(&used);
            assert!(
                free.contains(&offered.revocable()),
                "{agent_id}: {offered} offered, {free} is free"
            );
            let mut all = used;
            all.add(&offered);
            let all = all.non_shared().non_revocable();
            assert!(
                link.total.contains(&all),
                "{agent_id}: {all} used and offered of {}",
                link.total
            );
        }
    }

    /// What the agent's tasks and executors use, allocated to nobody.
    pub(crate) fn used_on(&self, agent_id: &AgentId) -> Resources {
        let mut used = Resources::default();
        for (_, _, task) in self.state.tasks_of_agent(agent_id) {
            if holds_resources(task) {
                used.add(
                    &Resources::from_wire(&task.resources)
                        .unwrap_or_default()
                        .unallocate(),
                );
            }
        }
        for (_, _, executor) in self.state.executors_of_agent(agent_id) {
            used.add(
                &Resources::from_wire(&executor.resources)
                    .unwrap_or_default()
                    .unallocate(),
            );
        }
        used
    }

    fn begin_term(&mut self, term: u64) {
        if !self.state.is_formed() || self.state.cluster().incarnation < self.config.incarnation {
            let kind = Kind::FormCluster(log::FormCluster {
                cluster_id: self.config.cluster_id.clone(),
                incarnation: self.config.incarnation.max(1),
                wall_time: self.wall.as_secs(),
            });
            self.log(kind);
        }
        let kind = Kind::BeginTerm(log::BeginTerm {
            term,
            master_id: self.ids.master_id().to_owned(),
            wall_time: self.wall.as_secs(),
        });
        self.log(kind);
        if self.state.cluster_version() >= tepui_state::SYNTHETIC_VERSION {
            self.log(Kind::Synthetic(log::Synthetic {}));
        }
    }

    fn recover_frameworks(&mut self) {
        let rows: Vec<_> = self
            .state
            .frameworks()
            .map(|(id, row)| (id.clone(), row.clone()))
            .collect();
        for (framework_id, row) in rows {
            let info = Arc::new(FrameworkInfo::from_payload(row.info_payload.clone()));
            self.framework_infos
                .insert(framework_id.clone(), info.clone());
            self.allocator
                .add_framework(&framework_id, self.framework_spec(&framework_id, false));
            let at = match row.disconnected_at_ns {
                // The change of leader is not its disconnection.
                None => {
                    self.now
                        + info
                            .failover_timeout
                            .max(self.config.agent_reregister_timeout)
                }
                Some(at) => self.instant_of(ClusterTime(at) + info.failover_timeout),
            };
            self.frameworks.set_failover(&framework_id, at);
        }
    }

    fn recover_agents(&mut self) {
        let timeout = self.config.agent_reregister_timeout;
        let mut recovered = Vec::with_capacity(self.state.agents().len());
        // Machines of a cluster come in few kinds.
        let mut totals = Lately::default();
        for (agent_id, row) in self.state.agents() {
            if row.state() != log::AgentState::Admitted {
                continue;
            }
            let total = totals.read(&row.total, |it| {
                Arc::new(Resources::from_wire(it).unwrap_or_default())
            });
            let link = Link {
                connection: None,
                seen: false,
                unanswered: 0,
                host: Arc::new(Host::from_payload(&row.info_payload)),
                address: Address::parse(&row.address).unwrap_or(Address {
                    ip: row.address.as_str().into(),
                    port: 0,
                }),
                capabilities: Capabilities::from_names(&row.capabilities),
                total: total.clone(),
                oversubscribed: None,
            };
            let until = match row.disconnected_at_ns {
                None => self.now + timeout,
                Some(at) => self.instant_of(ClusterTime(at) + timeout),
            };
            recovered.push((agent_id.clone(), link, until));
        }
        // The allocator learns of each when it is back, and of the others bit by bit: no framework
        // waits for that, however many there are.
        let unread = recovered.iter().map(|(id, _, _)| id.clone());
        self.allocation.read_later(unread.collect(), self.now);
        self.agents.recover(recovered);
    }

    /// A moment of cluster time on this leader's clock; never before the birth.
    pub(crate) fn instant_of(&self, at: ClusterTime) -> Instant {
        self.born_at + at.saturating_since(self.cluster_time_at_birth)
    }

    // ------------------------------------------------------------ tools of the coordinators

    /// Decides a fact: applies it and hands it to the log.
    pub(crate) fn log(&mut self, kind: Kind) {
        let operation = log::Operation { kind: Some(kind) };
        let applied = self.state.apply(&operation);
        debug_assert!(
            applied.is_ok(),
            "the state does not know an operation of its own release"
        );
        self.out.log.push(operation);
    }

    /// The framework is known and not completed.
    pub(crate) fn is_live(&self, framework_id: &FrameworkId) -> bool {
        self.state
            .framework(framework_id)
            .is_some_and(|row| !row.completed)
    }

    /// Sends an event, if the framework is connected.
    pub(crate) fn event(&mut self, framework_id: &FrameworkId, event: Event) {
        self.event_needing(framework_id, event, Needs::Committed);
    }

    /// Sends an event that rests on the absence of something.
    pub(crate) fn event_needing(&mut self, framework_id: &FrameworkId, event: Event, needs: Needs) {
        if let Some(session) = self.frameworks.session(framework_id) {
            self.out.send.push(Outgoing {
                to: Destination::Scheduler(session.connection),
                message: Message::Event {
                    event: Arc::new(event),
                    format: session.format,
                },
                needs,
            });
        }
    }

    /// Sends the same event to every connected framework.
    pub(crate) fn broadcast(&mut self, event: Event) {
        let event = Arc::new(event);
        for framework_id in self.frameworks.connected() {
            if let Some(session) = self.frameworks.session(framework_id) {
                self.out.send.push(Outgoing {
                    to: Destination::Scheduler(session.connection),
                    message: Message::Event {
                        event: event.clone(),
                        format: session.format,
                    },
                    needs: Needs::Committed,
                });
            }
        }
    }

    /// Sends to an agent, if it is attached; says whether it was.
    pub(crate) fn send_agent(&mut self, agent_id: &AgentId, kind: ToAgent) -> bool {
        let Some(connection) = self.agents.connection(agent_id) else {
            return false;
        };
        self.send_link(connection, kind);
        true
    }

    /// Sends on an agent's link, with the fence of this term.
    pub(crate) fn send_link(&mut self, connection: ConnectionId, kind: ToAgent) {
        let refusal = matches!(&kind, ToAgent::Refused(refused) if refused.shutdown);
        let cluster = self.state.cluster();
        let fence = link::Fence {
            cluster_id: cluster.cluster_id.clone(),
            incarnation: cluster.incarnation,
            term: cluster.term,
        };
        self.out.send.push(Outgoing {
            to: Destination::Agent(connection),
            message: Message::ToAgent(Box::new(link::MasterMessage {
                fence: Some(fence),
                kind: Some(kind),
            })),
            // A refusal rests on nothing in the log, and one for good ends the agent and its tasks:
            // a leader that is none any more must not say it.
            needs: match refusal {
                true => Needs::Leadership,
                false => Needs::Committed,
            },
        });
    }

    /// Closes a connection after what was sent on it.
    pub(crate) fn close(&mut self, to: Destination, status: Status, reason: &str) {
        self.out.send.push(Outgoing {
            to,
            message: Message::Close {
                status,
                reason: reason.into(),
            },
            needs: Needs::Committed,
        });
    }

    /// Answers a request.
    pub(crate) fn answer(&mut self, reply: RequestId, status: Status, message: impl Into<String>) {
        self.answer_needing(reply, status, message, Needs::Committed);
    }

    /// Answers a request, with leadership confirmed when the answer rests on absence.
    pub(crate) fn answer_needing(
        &mut self,
        reply: RequestId,
        status: Status,
        message: impl Into<String>,
        needs: Needs,
    ) {
        self.out.send.push(Outgoing {
            to: Destination::Reply(reply),
            message: Message::Answer {
                status,
                message: message.into(),
            },
            needs,
        });
    }

    /// Tells readers about an agent's link.
    pub(crate) fn view_agent(&mut self, agent_id: &AgentId) {
        let connected = self.agents.is_attached(agent_id);
        let active = connected && !self.is_deactivated(agent_id);
        self.out.view.push(ViewChange::Agent {
            agent_id: agent_id.clone(),
            connected,
            active,
        });
    }

    /// The agent's next command: numbers rise by one per agent.
    pub(crate) fn command(&self, agent_id: &AgentId, kind: log::command::Kind) -> log::Command {
        let last = self.state.agent(agent_id).map_or(0, |row| row.last_command);
        log::Command {
            sequence: last + 1,
            kind: Some(kind),
        }
    }

    /// Logs a command of its own and sends it, now or when the agent is back.
    pub(crate) fn order(&mut self, agent_id: &AgentId, kind: log::command::Kind) {
        let command = self.command(agent_id, kind);
        self.log(Kind::AddCommand(log::AddCommand {
            agent_id: agent_id.as_str().to_owned(),
            command: Some(command.clone()),
        }));
        self.send_agent(agent_id, ToAgent::Command(command));
    }
}

/// The task's resources count as used on its agent.
pub(crate) fn holds_resources(task: &log::Task) -> bool {
    !task.unreachable && !task.completed && !is_terminal(task.state)
}
