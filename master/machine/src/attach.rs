//! Registration and re-registration of agents, and the table of the log against the
//! agent (behaviour section 11.1, DESIGN section 5).
//!
//! The log owns admission, assignment, reservations, volumes, kill and drain intent;
//! the agent owns what runs. A row each:
//!
//! | log | agent | result |
//! |---|---|---|
//! | command unconfirmed | - | sent again |
//! | launch confirmed | no such task | LOST or DROPPED |
//! | task terminal or unknown | task runs | killed; a restored cluster first adopts |
//! | any | boot id changed | the id stays |
//! | agent known | work directory wiped | a new id; the old one's tasks LOST |
//! | resources differ | checkpointed otherwise | the log wins |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message as _;
use tepui_model::agent::{AgentInfo, Host};
use tepui_model::event::Event;
use tepui_model::framework::FrameworkInfo;
use tepui_model::id::{AgentId, ExecutorId, FrameworkId, Principal, TaskId};
use tepui_model::link::agent_message::Kind as FromAgent;
use tepui_model::link::master_message::Kind as ToAgent;
use tepui_model::log::operation::Kind;
use tepui_model::resources::Resources;
use tepui_model::wire::task_status::Reason;
use tepui_model::wire::{self, TaskState};
use tepui_model::{link, log};

use crate::agents::{Address, Capabilities, Link};
use crate::counters::Counter;
use crate::input::ConnectionId;
use crate::machine::Machine;
use crate::output::{Destination, Status};
use crate::statuses::{self, Verdict, is_terminal};
use crate::tasks::Fate;
use crate::unreachable::Leaving;

/// Why a registration is refused.
#[derive(Debug)]
struct Refusal {
    message: String,
    /// For good: the agent ends.
    shutdown: bool,
}

impl Refusal {
    fn retry(message: impl Into<String>) -> Refusal {
        Refusal {
            message: message.into(),
            shutdown: false,
        }
    }

    fn shutdown(message: impl Into<String>) -> Refusal {
        Refusal {
            message: message.into(),
            shutdown: true,
        }
    }
}

/// A registration that was read and found well-formed.
struct Registration {
    connection: ConnectionId,
    register: link::Register,
    info: AgentInfo,
    address: Address,
    capabilities: Capabilities,
    /// What the agent has on disk.
    total: Resources,
}

impl Machine {
    /// A frame of an agent's link.
    pub(crate) fn agent_message(
        &mut self,
        connection: ConnectionId,
        principal: Option<Principal>,
        message: link::AgentMessage,
    ) {
        let Some(kind) = message.kind else {
            return;
        };
        if let FromAgent::Register(register) = kind {
            self.register(connection, principal, register);
            return;
        }
        if let FromAgent::Attach(attach) = kind {
            self.reattach(connection, attach);
            return;
        }
        // Before its registration, or after it was taken over or removed: nothing to say.
        let Some(agent_id) = self.agents.of_connection(connection).cloned() else {
            return;
        };
        match kind {
            FromAgent::Register(_) | FromAgent::Attach(_) => {}
            FromAgent::Pong(_) => self.agents.pong(&agent_id),
            FromAgent::TaskUpdate(update) => self.task_update(&agent_id, update),
            FromAgent::CommandsDone(done) => self.confirm_commands(&agent_id, done.up_to),
            FromAgent::OperationUpdate(update) => self.operation_update(&agent_id, update),
            FromAgent::Unregister(_) => {
                self.counters.add(Counter::MessagesUnregisterSlave);
                self.remove_agent(&agent_id, Leaving::Unregistered);
            }
            FromAgent::ExecutorExited(exited) => self.executor_exited(&agent_id, &exited),
            FromAgent::ExecutorMessage(message) => self.executor_message(&agent_id, message),
            FromAgent::Oversubscribed(report) => self.oversubscribed(&agent_id, &report),
            FromAgent::FenceRefused(_) => {
                // It obeyed a newer leader: this one is deposed and will learn so from Raft.
                self.detach_agent(&agent_id);
                self.close(
                    Destination::Agent(connection),
                    Status::Unavailable,
                    "the agent obeys a newer leader",
                );
            }
        }
    }

    pub(crate) fn confirm_commands(&mut self, agent_id: &AgentId, up_to: u64) {
        let confirms = self
            .state
            .pending_commands(agent_id)
            .next()
            .is_some_and(|oldest| oldest.sequence <= up_to);
        // Numbers that were never given out confirm nothing.
        let given = self
            .state
            .agent(agent_id)
            .is_some_and(|row| up_to <= row.last_command);
        if confirms && given {
            self.log(Kind::ConfirmCommands(log::ConfirmCommands {
                agent_id: agent_id.as_str().to_owned(),
                up_to,
            }));
        }
    }

    fn register(
        &mut self,
        connection: ConnectionId,
        principal: Option<Principal>,
        register: link::Register,
    ) {
        if !self.is_invited(register.term) {
            return;
        }
        if register.term == 0 && self.may_be_outdated(&register) {
            self.send_link(connection, ToAgent::RegisterAgain(link::RegisterAgain {}));
            return;
        }
        self.counters.add(if register.agent_id.is_empty() {
            Counter::MessagesRegisterSlave
        } else {
            Counter::MessagesReregisterSlave
        });
        if let Some(bound) = self.agents.of_connection(connection).cloned()
            && (register.agent_id.is_empty() || register.agent_id == bound.as_str())
        {
            // It got impatient, or lost track of its link: the answer comes again.
            self.answer_registration(&bound, true);
            return;
        }
        let attached = self
            .read_registration(connection, principal.as_ref(), register)
            .and_then(|registration| self.attach(registration));
        if let Err(refusal) = attached {
            self.send_link(
                connection,
                ToAgent::Refused(link::Refused {
                    message: refusal.message.clone(),
                    shutdown: refusal.shutdown,
                }),
            );
            // A link that is bound already stays so: this was a second registration on it.
            if self.agents.of_connection(connection).is_none() {
                self.close(
                    Destination::Agent(connection),
                    Status::BadRequest,
                    &refusal.message,
                );
            }
        }
    }

    /// Nobody knows how long a registration that answers no invitation was under way: one that
    /// waited on a link to a follower would tell of a past without the tasks of today. Only of
    /// an agent that the log does not know there is no other past.
    fn may_be_outdated(&self, register: &link::Register) -> bool {
        let address = Address::parse(&register.address);
        !register.agent_id.is_empty()
            || address.is_some_and(|it| self.agents.at_address(&it).is_some())
    }

    fn read_registration(
        &self,
        connection: ConnectionId,
        principal: Option<&Principal>,
        register: link::Register,
    ) -> Result<Registration, Refusal> {
        if self.agents.of_connection(connection).is_some() {
            return Err(Refusal::retry(
                "another agent is registered on this link: open one for each",
            ));
        }
        let info = wire::AgentInfo::decode(register.info_payload.clone())
            .map_err(|error| Refusal::retry(format!("info_payload is no AgentInfo: {error}")))?;
        let info = AgentInfo::from_wire(info, Some(register.info_payload.clone()));
        info.validate()
            .map_err(|error| Refusal::retry(error.to_string()))?;
        let address = Address::parse(&register.address).ok_or_else(|| {
            Refusal::retry(format!(
                "address is '{}': expected ip:port",
                register.address
            ))
        })?;
        if !register.principal.is_empty()
            && principal.is_some_and(|principal| principal.as_str() != register.principal)
        {
            return Err(Refusal::retry(
                "principal differs from the one that authenticated",
            ));
        }
        self.check_version(&register.version)?;
        self.check_domain(&info)?;
        self.check_fence(register.fence.as_ref())?;
        let total = Resources::from_wire(&register.total)
            .map_err(|error| Refusal::retry(format!("total: {error}")))?;
        if self.is_machine_down(&info.hostname, &address.ip) {
            return Err(Refusal::shutdown("the machine is down for maintenance"));
        }
        Ok(Registration {
            connection,
            capabilities: Capabilities::from_names(&register.capabilities),
            register,
            info,
            address,
            total,
        })
    }

    /// The minimum is 1.0.0 in Mesos; ours number from 0.1 and only have to be numbers.
    fn check_version(&self, version: &str) -> Result<(), Refusal> {
        let release = version.split(['-', '+']).next().unwrap_or_default();
        let numbers: Vec<&str> = release.split('.').collect();
        let valid = (2..=3).contains(&numbers.len())
            && numbers.iter().all(|number| {
                !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
            });
        if valid {
            return Ok(());
        }
        Err(Refusal::retry(format!(
            "version is '{version}': expected three numbers such as 0.1.0"
        )))
    }

    fn check_domain(&self, info: &AgentInfo) -> Result<(), Refusal> {
        let master_has = self.config.master_info.domain.is_some();
        if info.domain.is_some() && !master_has {
            return Err(Refusal::retry(
                "the agent has a domain and the master has none",
            ));
        }
        if info.domain.is_none() && self.config.require_agent_domain {
            return Err(Refusal::retry(
                "the agent has no domain and --require_agent_domain is set",
            ));
        }
        Ok(())
    }

    fn check_fence(&self, fence: Option<&link::Fence>) -> Result<(), Refusal> {
        let Some(fence) = fence.filter(|fence| !fence.cluster_id.is_empty()) else {
            return Ok(());
        };
        let cluster = self.state.cluster();
        if fence.cluster_id != cluster.cluster_id {
            return Err(Refusal::retry(format!(
                "the agent belongs to cluster '{}' and this is '{}': clear its work directory to move it",
                fence.cluster_id, cluster.cluster_id
            )));
        }
        if (fence.incarnation, fence.term) > (cluster.incarnation, cluster.term) {
            return Err(Refusal::retry("the agent obeys a newer leader"));
        }
        Ok(())
    }

    fn attach(&mut self, registration: Registration) -> Result<(), Refusal> {
        if registration.register.agent_id.is_empty() {
            self.attach_new(registration)
        } else {
            self.attach_known(registration)
        }
    }

    // ------------------------------------------------------------ a new agent

    fn attach_new(&mut self, registration: Registration) -> Result<(), Refusal> {
        let mut repeated = None;
        if let Some(known) = self.agents.at_address(&registration.address).cloned() {
            if self.is_repeated_registration(&known, &registration) {
                repeated = Some(known);
            } else {
                // Its work directory was wiped, or another agent has its address.
                self.check_not_attached(&known, &registration)?;
                self.remove_agent(&known, Leaving::Replaced);
            }
        }
        let agent_id = match repeated {
            Some(agent_id) => {
                self.take_over_link(&agent_id);
                agent_id
            }
            None => self.unused_agent_id(),
        };
        // Reservations and volumes of another id, if it remembers any, were the log's and
        // are gone with that id.
        let total = registration.info.resources.clone();
        let mut row = self.agent_row(&agent_id, &registration, &total);
        row.wall_registered = self.wall.as_secs();
        self.log(Kind::PutAgent(log::PutAgent { agent: Some(row) }));
        self.counters.add(Counter::SlaveRegistrations);
        self.bind(&agent_id, &registration, total, false);
        Ok(())
    }

    /// Who is attached is alive: two agents say that they have the same address, as they
    /// do when both are left at their default on the loopback device.
    fn check_not_attached(
        &self,
        other: &AgentId,
        registration: &Registration,
    ) -> Result<(), Refusal> {
        if !self.agents.is_attached(other) {
            return Ok(());
        }
        Err(Refusal::retry(format!(
            "agent '{other}' is attached and has the address {}, too: give each agent its own --ip and --port",
            registration.register.address
        )))
    }

    /// Somebody may have come with an id that this term would make next.
    fn unused_agent_id(&mut self) -> AgentId {
        loop {
            let id = self.ids.agent();
            if self.state.agent(&id).is_none() {
                return id;
            }
        }
    }

    /// The agent did not get the answer to its first registration: nothing can have
    /// happened on it since, and it may have the same id.
    fn is_repeated_registration(&self, known: &AgentId, registration: &Registration) -> bool {
        let Some(row) = self.state.agent(known) else {
            return false;
        };
        row.boot_id == registration.register.boot_id
            && row.info_payload == registration.register.info_payload
            && row.last_command == 0
            && row.wall_reregistered.is_none()
            && self.state.tasks_of_agent(known).next().is_none()
    }

    // ------------------------------------------------------------ a known agent

    fn attach_known(&mut self, registration: Registration) -> Result<(), Refusal> {
        let agent_id = AgentId::from(registration.register.agent_id.as_str());
        tepui_model::id::validate("agent_id", agent_id.as_str())
            .map_err(|error| Refusal::retry(error.to_string()))?;
        let known = self.state.agent(&agent_id).cloned();
        let adopt = match &known {
            None => true,
            Some(row) => {
                if row.state() == log::AgentState::Gone {
                    return Err(Refusal::shutdown("the agent was marked gone"));
                }
                self.check_same_machine(row, &registration)?;
                // Restored from a backup: the agent may know more than the log.
                let fence = registration.register.fence.as_ref();
                fence.is_some_and(|fence| fence.incarnation < self.state.cluster().incarnation)
            }
        };
        let total = match &known {
            None => registration.total.clone(),
            Some(row) => total_after(row, &registration)?,
        };
        self.check_still_fits(&agent_id, &total)?;
        if let Some(other) = self.agents.at_address(&registration.address).cloned()
            && other != agent_id
        {
            // Two agents cannot listen at one address: the other one is no more.
            self.check_not_attached(&other, &registration)?;
            self.remove_agent(&other, Leaving::Replaced);
        }
        self.take_over_link(&agent_id);

        let was_unreachable = known
            .as_ref()
            .is_some_and(|row| row.state() == log::AgentState::Unreachable);
        // A log that forgot the agent, or is older than it, goes on counting where the agent
        // is: it takes a command with a number that it has seen for one that is done.
        let commands_done = registration.register.commands_done;
        let is_ahead = adopt
            && known
                .as_ref()
                .is_none_or(|row| row.last_command < commands_done);
        let changed = is_ahead
            || known
                .as_ref()
                .is_none_or(|row| differs(row, &registration, &total));
        if changed {
            let mut row = self.agent_row(&agent_id, &registration, &total);
            if is_ahead {
                row.last_command = commands_done;
            }
            row.wall_registered = known
                .as_ref()
                .map_or(self.wall.as_secs(), |row| row.wall_registered);
            self.log(Kind::PutAgent(log::PutAgent { agent: Some(row) }));
        }
        self.log(Kind::AgentConnected(log::AgentConnected {
            agent_id: agent_id.as_str().to_owned(),
            wall_time: self.wall.as_secs(),
        }));
        self.confirm_commands(&agent_id, registration.register.commands_done);
        self.outdate_totals(&agent_id, &total);
        self.counters.add(Counter::SlaveReregistrations);
        self.bind(&agent_id, &registration, total, true);
        if adopt {
            self.make_room(&agent_id, &registration);
            self.adopt_reported(&agent_id, &registration);
        }
        self.compare_tasks(&agent_id, &registration, was_unreachable || known.is_none());
        if was_unreachable {
            self.executors_are_back(&agent_id, &registration);
        }
        self.resume_operations(&agent_id);
        // Its last task may have been forgotten while it was unreachable.
        self.check_drained(&agent_id);
        Ok(())
    }

    /// Commands on their way may carry totals from before a reconfiguration: a last one
    /// says what they are now.
    fn outdate_totals(&mut self, agent_id: &AgentId, total: &Resources) {
        let newest =
            self.state
                .pending_commands(agent_id)
                .filter_map(|command| match &command.kind {
                    Some(log::command::Kind::ApplyOperation(it)) => Some(&it.total),
                    Some(log::command::Kind::SetResources(it)) => Some(&it.total),
                    _ => None,
                });
        let outdated = newest.last().is_some_and(|newest| {
            !Resources::from_wire(newest).is_ok_and(|newest| newest.is_equivalent(total))
        });
        if outdated {
            let set = log::SetResources {
                total: total.to_wire(),
            };
            self.order(agent_id, log::command::Kind::SetResources(set));
        }
    }

    fn check_same_machine(
        &self,
        row: &log::Agent,
        registration: &Registration,
    ) -> Result<(), Refusal> {
        let known = Address::parse(&row.address);
        let hostname = Host::from_payload(&row.info_payload).hostname;
        if known.is_some_and(|known| known.ip != registration.address.ip)
            || *hostname != *registration.info.hostname
        {
            return Err(Refusal::shutdown(format!(
                "the agent was registered as {hostname} at {}, and now comes as {} at {}",
                row.address, registration.info.hostname, registration.register.address
            )));
        }
        Ok(())
    }

    /// What runs or may come back has to fit into the totals. What is oversubscribed is not
    /// known yet, and may be less than what is used of it.
    fn check_still_fits(&self, agent_id: &AgentId, total: &Resources) -> Result<(), Refusal> {
        let mut used = self.used_on(agent_id);
        for (_, _, task) in self.state.tasks_of_agent(agent_id) {
            if task.unreachable {
                used.add(
                    &Resources::from_wire(&task.resources)
                        .unwrap_or_default()
                        .unallocate(),
                );
            }
        }
        let used = used.non_shared().non_revocable();
        if total.contains(&used) {
            return Ok(());
        }
        Err(Refusal::shutdown(format!(
            "the agent's resources are {total}, less than what its tasks use: {used}"
        )))
    }

    /// An older link of the same agent, if any, is closed: the newest one speaks.
    pub(crate) fn take_over_link(&mut self, agent_id: &AgentId) {
        if let Some(connection) = self.agents.connection(agent_id) {
            self.detach_agent(agent_id);
            self.close(
                Destination::Agent(connection),
                Status::Conflict,
                "the agent attached again on another link",
            );
        }
    }

    fn agent_row(
        &self,
        agent_id: &AgentId,
        registration: &Registration,
        total: &Resources,
    ) -> log::Agent {
        let mut row = match self.state.agent(agent_id) {
            Some(row) => log::Agent::clone(row),
            None => log::Agent::default(),
        };
        let register = &registration.register;
        row.agent_id = agent_id.as_str().to_owned();
        row.set_state(log::AgentState::Admitted);
        row.info_payload = register.info_payload.clone();
        row.address = register.address.clone();
        row.version = register.version.clone();
        row.capabilities = register.capabilities.clone();
        row.boot_id = register.boot_id.clone();
        row.total = total.to_wire();
        row.resource_version_uuid = register.resource_version_uuid.clone();
        row.disconnected_at_ns = None;
        row
    }

    /// Binds the link: the agent is told its id, totals and pending commands, and
    /// offered.
    fn bind(
        &mut self,
        agent_id: &AgentId,
        registration: &Registration,
        total: Resources,
        again: bool,
    ) {
        let total = self.agents.kind(total);
        let link = Link {
            connection: Some(registration.connection),
            seen: true,
            unanswered: 0,
            host: Arc::new(Host::from_payload(&registration.register.info_payload)),
            address: registration.address.clone(),
            capabilities: registration.capabilities,
            total,
            oversubscribed: None,
        };
        self.agents.put_attached(
            agent_id,
            registration.connection,
            link,
            self.now,
            self.config.agent_ping_timeout,
        );
        self.answer_registration(agent_id, again);
        self.offer_agent(agent_id);
        self.view_agent(agent_id);
    }

    /// The agent's id, totals, pending commands, and a first ping.
    fn answer_registration(&mut self, agent_id: &AgentId, again: bool) {
        let total_ping_timeout = self.config.total_ping_timeout();
        let total = self
            .state
            .agent(agent_id)
            .map(|row| row.total.clone())
            .unwrap_or_default();
        self.send_agent(
            agent_id,
            ToAgent::Registered(link::Registered {
                agent_id: agent_id.as_str().to_owned(),
                total_ping_timeout_ns: u64::try_from(total_ping_timeout.as_nanos())
                    .unwrap_or(u64::MAX),
                total,
                reregistered: again,
            }),
        );
        self.send_pending(agent_id);
        self.send_agent(agent_id, ToAgent::Ping(link::Ping { connected: true }));
    }

    /// Every command that the agent has not confirmed, in order.
    pub(crate) fn send_pending(&mut self, agent_id: &AgentId) {
        let pending: Vec<_> = self.state.pending_commands(agent_id).cloned().collect();
        for command in pending {
            self.send_agent(agent_id, ToAgent::Command(log::Command::clone(&command)));
        }
    }

    // ------------------------------------------------------------ the log against the agent

    fn compare_tasks(&mut self, agent_id: &AgentId, registration: &Registration, returned: bool) {
        let mut reported: BTreeMap<(FrameworkId, TaskId), &link::AgentTask> = BTreeMap::new();
        for task in &registration.register.tasks {
            reported.insert(
                (
                    FrameworkId::from(task.framework_id.as_str()),
                    TaskId::from(task.task_id.as_str()),
                ),
                task,
            );
        }
        let launching = self.unconfirmed_launches(agent_id, 0);
        for key in self.task_keys_of_agent(agent_id) {
            match reported.get(&key) {
                Some(task) => self.task_is_there(agent_id, &key, task, returned),
                None if launching.contains(&key) => self.task_will_come(&key),
                None => self.task_is_missing(&key),
            }
        }
        let on_agent: BTreeSet<_> = self.task_keys_of_agent(agent_id).into_iter().collect();
        for ((framework_id, task_id), task) in reported {
            // An ended one only waits for an acknowledgement, which will come or be made up.
            if !on_agent.contains(&(framework_id.clone(), task_id.clone()))
                && !is_terminal(task.state)
            {
                self.kill_unknown(agent_id, &framework_id, &task_id);
            }
        }
    }

    /// Tasks whose launch the agent has not confirmed, and not done by command `done`: they
    /// are sent again.
    pub(crate) fn unconfirmed_launches(
        &self,
        agent_id: &AgentId,
        done: u64,
    ) -> BTreeSet<(FrameworkId, TaskId)> {
        let mut launching = BTreeSet::new();
        let pending = self.state.pending_commands(agent_id);
        for command in pending.filter(|it| it.sequence > done) {
            for task in launches(command) {
                launching.insert((
                    FrameworkId::from(task.framework_id.as_str()),
                    TaskId::from(task.task_id.as_str()),
                ));
            }
        }
        launching
    }

    fn task_is_there(
        &mut self,
        agent_id: &AgentId,
        (framework_id, task_id): &(FrameworkId, TaskId),
        task: &link::AgentTask,
        returned: bool,
    ) {
        let Some(row) = self.state.task(framework_id, task_id).cloned() else {
            return;
        };
        if is_terminal(row.state) && !row.unreachable {
            // The master ended it (its verdict stands) while it runs on.
            if !is_terminal(task.state) {
                self.kill_unknown(agent_id, framework_id, task_id);
            }
            return;
        }
        if !returned {
            // Its stream sends what the framework has not acknowledged.
            return;
        }
        let verdict = Verdict {
            task_id: task_id.as_str(),
            agent_id: Some(agent_id.as_str()),
            state: TaskState::TaskRunning,
            reason: Reason::AgentReregistered,
            message: "Agent registered again",
            wall: self.wall,
        };
        let status = statuses::of_known_task(&row, task.state, &verdict);
        self.update_task(framework_id, task_id, &status, None, false);
        self.event(framework_id, Event::Update(Box::new(status)));
    }

    /// An unreachable agent is taken for one without executors. Now it says which run; others
    /// will, since their tasks are launched again.
    fn executors_are_back(&mut self, agent_id: &AgentId, registration: &Registration) {
        for executor in &registration.register.executors {
            self.adopt_executor(agent_id, executor);
        }
        let launched = self.state.pending_commands(agent_id);
        let launched = launched.flat_map(|it| launches(it));
        let executors: Vec<_> = launched
            .filter(|it| !it.executor_info_payload.is_empty())
            .map(|it| link::AgentExecutor {
                framework_id: it.framework_id.clone(),
                executor_info_payload: it.executor_info_payload.clone(),
                resources: it.executor_resources.clone(),
            })
            .collect();
        for executor in executors {
            self.adopt_executor(agent_id, &executor);
        }
    }

    /// Unreachable with its launch still under way: it is awaited again.
    fn task_will_come(&mut self, (framework_id, task_id): &(FrameworkId, TaskId)) {
        let Some(row) = self.state.task(framework_id, task_id).cloned() else {
            return;
        };
        if !row.unreachable {
            return;
        }
        let verdict = Verdict {
            task_id: task_id.as_str(),
            agent_id: Some(&row.agent_id),
            state: TaskState::TaskStaging,
            reason: Reason::AgentReregistered,
            message: "Agent registered again; the launch was sent again",
            wall: self.wall,
        };
        let status = statuses::of_known_task(&row, TaskState::TaskStaging as i32, &verdict);
        self.update_task(framework_id, task_id, &status, None, false);
        self.event(framework_id, Event::Update(Box::new(status)));
    }

    fn task_is_missing(&mut self, (framework_id, task_id): &(FrameworkId, TaskId)) {
        self.decide_task(
            framework_id,
            task_id,
            TaskState::TaskDropped,
            Reason::Reconciliation,
            "The agent registered again without the task",
            Fate::Completed,
        );
    }

    fn kill_unknown(&mut self, agent_id: &AgentId, framework_id: &FrameworkId, task_id: &TaskId) {
        self.send_agent(
            agent_id,
            ToAgent::KillUnknown(link::KillUnknown {
                framework_id: framework_id.as_str().to_owned(),
                task_id: task_id.as_str().to_owned(),
            }),
        );
    }

    // ------------------------------------------------------------ adoption

    /// Tasks of the log that have ended on the agent since the backup hold nothing: what it
    /// runs now may be in their place.
    fn make_room(&mut self, agent_id: &AgentId, registration: &Registration) {
        let key = |it: &link::AgentTask| {
            (
                FrameworkId::from(it.framework_id.as_str()),
                TaskId::from(it.task_id.as_str()),
            )
        };
        let tasks = &registration.register.tasks;
        let reported: BTreeMap<_, i32> = tasks.iter().map(|it| (key(it), it.state)).collect();
        let launching = self.unconfirmed_launches(agent_id, 0);
        for key in self.task_keys_of_agent(agent_id) {
            match reported.get(&key) {
                Some(state) if is_terminal(*state) => self.task_has_ended(&key, *state),
                None if !launching.contains(&key) => self.task_is_missing(&key),
                _ => {}
            }
        }
    }

    /// The agent's stream tells the framework how.
    fn task_has_ended(&mut self, (framework_id, task_id): &(FrameworkId, TaskId), state: i32) {
        let Some(row) = self.state.task(framework_id, task_id).cloned() else {
            return;
        };
        if is_terminal(row.state) {
            return;
        }
        let verdict = Verdict {
            task_id: task_id.as_str(),
            agent_id: Some(&row.agent_id),
            state: TaskState::TaskLost,
            reason: Reason::AgentReregistered,
            message: "Agent registered again",
            wall: self.wall,
        };
        let status = statuses::of_known_task(&row, state, &verdict);
        self.update_task(framework_id, task_id, &status, None, false);
        self.event(framework_id, Event::Update(Box::new(status)));
    }

    /// The log does not know the agent, or is a restored backup: what it reports is
    /// taken over, except what belongs to completed frameworks.
    fn adopt_reported(&mut self, agent_id: &AgentId, registration: &Registration) {
        for payload in &registration.register.framework_info_payloads {
            self.adopt_framework(payload);
        }
        for executor in &registration.register.executors {
            self.adopt_executor(agent_id, executor);
        }
        for task in &registration.register.tasks {
            self.adopt_task(agent_id, task);
        }
    }

    fn adopt_framework(&mut self, payload: &bytes::Bytes) {
        let info = FrameworkInfo::from_payload(payload.clone());
        let Some(framework_id) = info.id.clone() else {
            return;
        };
        if self.state.framework(&framework_id).is_some() {
            return;
        }
        self.log(Kind::PutFramework(log::PutFramework {
            framework: Some(log::Framework {
                framework_id: framework_id.as_str().to_owned(),
                info_payload: payload.clone(),
                wall_registered: self.wall.as_secs(),
                principal: info
                    .principal
                    .as_ref()
                    .map(|it| it.as_str().to_owned())
                    .unwrap_or_default(),
                ..log::Framework::default()
            }),
        }));
        self.framework_infos
            .insert(framework_id.clone(), Arc::new(info));
        // No failover clock: it stays until it subscribes or is torn down (section 12).
        let spec = self.framework_spec(&framework_id, false);
        self.allocator.add_framework(&framework_id, spec);
    }

    fn adopt_executor(&mut self, agent_id: &AgentId, executor: &link::AgentExecutor) {
        let framework_id = FrameworkId::from(executor.framework_id.as_str());
        let Ok(info) = wire::ExecutorInfo::decode(executor.executor_info_payload.clone()) else {
            return;
        };
        let executor_id = ExecutorId::from(&info.executor_id);
        let Ok(resources) = Resources::from_wire(&executor.resources) else {
            return;
        };
        if !self.is_live(&framework_id)
            || self
                .state
                .executor(&framework_id, agent_id, &executor_id)
                .is_some()
            || !self.fits_unused(agent_id, &resources)
        {
            return;
        }
        self.log(Kind::LaunchTask(log::LaunchTask {
            task: None,
            executor: Some(log::Executor {
                framework_id: framework_id.as_str().to_owned(),
                agent_id: agent_id.as_str().to_owned(),
                executor_id: executor_id.as_str().to_owned(),
                executor_info_payload: executor.executor_info_payload.clone(),
                resources: executor.resources.clone(),
                container_id: String::new(),
            }),
            command: None,
        }));
        self.allocator
            .add_allocation(&framework_id, agent_id, &resources);
    }

    fn adopt_task(&mut self, agent_id: &AgentId, task: &link::AgentTask) {
        let framework_id = FrameworkId::from(task.framework_id.as_str());
        let task_id = TaskId::from(task.task_id.as_str());
        let Ok(resources) = Resources::from_wire(&task.resources) else {
            return;
        };
        let known = self.state.task(&framework_id, &task_id).is_some();
        // Told as lost when its agent was removed, it does not come back to life.
        let ended = self
            .state
            .completed_tasks(&framework_id)
            .any(|it| it.task_id == task.task_id && it.agent_id == agent_id.as_str());
        let holds = !is_terminal(task.state);
        if known
            || ended
            || !self.is_live(&framework_id)
            || (holds && !self.fits_unused(agent_id, &resources))
        {
            return;
        }
        let name = wire::TaskInfo::decode(task.task_info_payload.clone())
            .map(|info| info.name)
            .unwrap_or_default();
        let role = resources
            .iter()
            .find_map(|resource| resource.allocation_role.clone())
            .map(|role| role.as_str().to_owned())
            .unwrap_or_else(|| "*".to_owned());
        self.log(Kind::LaunchTask(log::LaunchTask {
            task: Some(log::Task {
                framework_id: framework_id.as_str().to_owned(),
                task_id: task_id.as_str().to_owned(),
                agent_id: agent_id.as_str().to_owned(),
                executor_id: if task.executor_id == task.task_id {
                    String::new()
                } else {
                    task.executor_id.clone()
                },
                container_id: task.container_id.clone(),
                task_info_payload: task.task_info_payload.clone(),
                resources: task.resources.clone(),
                role,
                state: task.state,
                wall_launched: self.wall.as_secs(),
                name,
                ..log::Task::default()
            }),
            executor: None,
            command: None,
        }));
        if holds {
            self.allocator
                .add_allocation(&framework_id, agent_id, &resources);
        }
    }

    /// The resources are in the agent's total and nobody uses them. Revocable ones are in no
    /// total.
    fn fits_unused(&self, agent_id: &AgentId, resources: &Resources) -> bool {
        let Some(link) = self.agents.get(agent_id) else {
            return false;
        };
        let mut free = Resources::clone(&link.total);
        free.saturating_sub(&self.used_on(agent_id));
        free.contains(&resources.unallocate().non_revocable())
    }
}

/// The totals after a re-registration: the log's, moved by what the operator changed in
/// the agent's configuration. What is reserved or a volume cannot be configured away.
fn total_after(row: &log::Agent, registration: &Registration) -> Result<Resources, Refusal> {
    let mut total = Resources::from_wire(&row.total)
        .map_err(|error| Refusal::retry(format!("totals of the agent's row: {error}")))?;
    let before = AgentInfo::from_payload(row.info_payload.clone()).resources;
    let after = &registration.info.resources;
    if before.is_equivalent(after) {
        return Ok(total);
    }
    let removed = before.difference(after);
    if !total.try_sub(&removed) {
        return Err(Refusal::shutdown(format!(
            "the agent's resources shrank by {removed}, of which some are reserved or volumes: {total}"
        )));
    }
    total.add(&after.difference(&before));
    Ok(total)
}

/// Something of the row is to be replaced.
fn differs(row: &log::Agent, registration: &Registration, total: &Resources) -> bool {
    let register = &registration.register;
    row.info_payload != register.info_payload
        || row.address != register.address
        || row.version != register.version
        || row.capabilities != register.capabilities
        || row.boot_id != register.boot_id
        || row.resource_version_uuid != register.resource_version_uuid
        || row.state() != log::AgentState::Admitted
        || !Resources::from_wire(&row.total).is_ok_and(|known| known.is_equivalent(total))
}

/// The tasks that a command launches.
fn launches(command: &log::Command) -> &[log::RunTask] {
    match &command.kind {
        Some(log::command::Kind::RunTask(task)) => std::slice::from_ref(task),
        Some(log::command::Kind::RunTaskGroup(group)) => &group.tasks,
        _ => &[],
    }
}
