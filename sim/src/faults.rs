//! What the plan does to the world, and how it passes.

use crate::{
    clock::{MILLI, SECOND},
    core::Event,
    network::{Host, Quality},
    plan::{Act, Fault, Part},
    trace::note,
    world::World,
};
use std::collections::BTreeSet;
use tepui_master_machine::input::OperatorRequest;
use tepui_model::{
    AgentId, Role, Scalar,
    resources::{Reservation, Resource},
    wire,
};
use tepui_replication_node::{MemberChange, Members, NodeId};

/// A node whose disk is gone, and the one that takes its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replacing {
    // None when a member joins beside those that are there.
    old: Option<NodeId>,
    new: NodeId,
}

impl World {
    fn clock_of(&mut self, host: Host) -> Option<&mut crate::clock::Clock> {
        match host {
            Host::Master(number) => Some(&mut self.masters.get_mut(number)?.body.clock),
            Host::Agent(number) => Some(&mut self.agents.get_mut(number)?.clock),
            Host::Framework(_) | Host::Operator | Host::Keeper(_) => None,
        }
    }

    pub(crate) fn fault(&mut self, number: usize, fault: Fault) {
        note!(self.core, "PLAN", "{number}: {fault:?}");
        let now = self.core.now;
        match fault {
            Fault::CrashMaster {
                master,
                lead,
                power,
                lasts,
            } => {
                let leader = self.leader().filter(|_| lead);
                let master = leader.unwrap_or(master);
                self.masters[master].crash(&mut self.core, power);
                self.masters[master].start_after(&mut self.core, lasts);
            }
            Fault::Pause { host, lead, lasts } => {
                let leader = self.leader().filter(|_| lead);
                let host = leader.map_or(host, Host::Master);
                if !self.core.is_paused(host) {
                    self.core.pause(host);
                    self.core.after(lasts, Event::Resume(host, 0));
                }
            }
            Fault::CrashAgent { agent, lasts } => {
                self.agents[agent].crash(&mut self.core);
                self.agents[agent].start_after(&mut self.core, lasts);
            }
            Fault::RebootAgent { agent, lasts } => {
                self.agents[agent].reboot(&mut self.core);
                self.agents[agent].start_after(&mut self.core, lasts);
            }
            Fault::WipeAgent { agent, lasts } => {
                self.agents[agent].wipe(&mut self.core);
                self.core.checkers.fences.wiped(agent);
                self.agents[agent].start_after(&mut self.core, lasts);
            }
            Fault::CrashFramework { framework, lasts } => {
                self.frameworks[framework].crash(&mut self.core);
                self.frameworks[framework].start_after(&mut self.core, lasts);
            }
            Fault::TakeOver { framework } => self.frameworks[framework].take_over(&mut self.core),
            Fault::SlowReader { framework, lasts } => {
                self.frameworks[framework].slow = true;
                self.core.after(lasts, Event::Pass(number));
            }
            Fault::Cut {
                from,
                to,
                both_ways,
                lasts,
            } => self.cut(from, to, both_ways, lasts),
            Fault::CutLeader {
                clients,
                one_way,
                lasts,
            } => {
                let Some(leader) = self.leader() else { return };
                let leader = Host::Master(leader);
                let others = self.hosts(clients).into_iter().filter(|it| *it != leader);
                self.cut([leader].into(), others.collect(), !one_way, lasts);
            }
            Fault::Break { host } => {
                for (conn, _) in self.core.net.of(host) {
                    self.core.break_off(conn);
                }
            }
            Fault::SlowDisk {
                master,
                factor,
                lasts,
            } => {
                self.masters[master].body.slow = factor;
                self.core.after(lasts, Event::Pass(number));
            }
            Fault::FailSync { master, lasts } => {
                self.masters[master].body.fail_sync = Some(lasts);
            }
            Fault::FullDisk { host, lasts } => {
                match host {
                    Host::Master(number) => self.masters[number].body.full = true,
                    Host::Agent(number) => self.agents[number].full = true,
                    Host::Framework(_) | Host::Operator | Host::Keeper(_) => {}
                }
                self.core.after(lasts, Event::Pass(number));
            }
            Fault::LoseDisk { master, lasts } => self.lose_disk(master, lasts),
            Fault::Leap { host, by } => {
                if let Some(clock) = self.clock_of(host) {
                    clock.leap(now, by);
                }
            }
            Fault::Drift { host, drift } => {
                if let Some(clock) = self.clock_of(host) {
                    clock.set_drift(now, drift);
                }
            }
            Fault::WallClock { host, error } => {
                if let Some(clock) = self.clock_of(host) {
                    clock.set_wall_error(error as f64);
                }
            }
            Fault::Nonsense { agent } => self.agents[agent].talk_nonsense(&mut self.core),
            Fault::Upgrade { master, lasts } => {
                self.masters[master].body.supported = tepui_state::SYNTHETIC_VERSION;
                self.masters[master].crash(&mut self.core, false);
                self.masters[master].start_after(&mut self.core, lasts);
            }
            Fault::Transfer { to } => {
                let node = self.masters[to].body.id;
                if let Some(leader) = self.leader() {
                    self.masters[leader].step_down(&mut self.core, Some(node));
                }
            }
            Fault::Panic => {
                let leader = self.leader();
                let process = leader.and_then(|it| self.masters[it].process.as_mut());
                if let Some(process) = process {
                    process.thread.panics = true;
                }
            }
            Fault::Backup => self.back_up(),
            Fault::Restore { lasts } => self.restore(lasts),
            Fault::StepDown => {
                if let Some(leader) = self.leader() {
                    self.masters[leader].step_down(&mut self.core, None);
                }
            }
        }
    }

    fn hosts(&self, clients: bool) -> BTreeSet<Host> {
        let masters = (0..self.masters.len()).map(Host::Master);
        let agents = (0..self.agents.len()).map(Host::Agent);
        let frameworks = (0..self.frameworks.len()).map(Host::Framework);
        let keepers = (0..self.keepers.len()).map(Host::Keeper);
        match clients {
            false => masters.collect(),
            true => masters
                .chain(agents)
                .chain(frameworks)
                .chain(keepers)
                .chain([Host::Operator])
                .collect(),
        }
    }

    fn cut(&mut self, from: BTreeSet<Host>, to: BTreeSet<Host>, both_ways: bool, lasts: u64) {
        let number = self.core.net.cut(from, to, both_ways);
        self.core.after(lasts, Event::Mend(number));
    }

    /// A fault that lasts is over.
    pub(crate) fn pass(&mut self, number: usize) {
        match self.plan.parts.get(number).map(|it| it.1.clone()) {
            Some(Part::Fault(Fault::SlowReader { framework, .. })) => self.read_on(framework),
            Some(Part::Fault(Fault::SlowDisk { master, .. })) => self.masters[master].body.slow = 1,
            Some(Part::Fault(Fault::FullDisk { host, .. })) => self.empty_disk(host),
            _ => {}
        }
    }

    fn read_on(&mut self, framework: usize) {
        let it = &mut self.frameworks[framework];
        if it.slow {
            it.handle(&mut self.core, crate::framework::Event::ReadOn);
        }
    }

    fn empty_disk(&mut self, host: Host) {
        match host {
            Host::Master(number) => self.masters[number].body.full = false,
            Host::Agent(number) => self.agents[number].full = false,
            Host::Framework(_) | Host::Operator | Host::Keeper(_) => {}
        }
    }

    /// Everything that goes wrong is over; whoever is down comes up.
    pub(crate) fn heal(&mut self) {
        note!(self.core, "PLAN", "everything is mended");
        self.core.healed = true;
        self.core.mend_all();
        self.core.resume_all();
        self.core.net.quality = Quality::CALM;
        for number in 0..self.masters.len() {
            let master = &mut self.masters[number];
            master.body.slow = 1;
            master.body.full = false;
            master.body.fail_sync = None;
            if !master.is_up() {
                let delay = self.core.random.below(50 * MILLI);
                master.start_after(&mut self.core, delay);
            }
        }
        for number in 0..self.agents.len() {
            let agent = &mut self.agents[number];
            agent.full = false;
            if !agent.is_up() {
                let delay = self.core.random.below(50 * MILLI);
                agent.start_after(&mut self.core, delay);
            }
        }
        for number in 0..self.frameworks.len() {
            self.read_on(number);
            if !self.frameworks[number].is_up() {
                self.frameworks[number].start_after(&mut self.core, 10 * MILLI);
            }
        }
    }

    // ------------------------------------------------------------ members

    fn lose_disk(&mut self, master: usize, lasts: u64) {
        // One after the other: with more disks gone than a quorum can bear, data is gone.
        let down = self.masters.iter().filter(|it| !it.is_up()).count();
        if !self.replacing.is_empty() || down > 0 || self.masters.len() < 3 {
            return;
        }
        let Some(leader) = self.leader() else { return };
        let members = self.masters[leader]
            .process
            .as_ref()
            .map(|it| it.raft.node.members().clone());
        let Some(members) = members else { return };
        let old = self.masters[master].body.id;
        if !members.voters.contains(&old) || !members.voters_outgoing.is_empty() {
            return;
        }
        self.next_node += 1;
        let new = self.next_node;
        self.masters[master].crash(&mut self.core, false);
        self.masters[master].lose_disk(&mut self.core, new, members);
        self.masters[master].start_after(&mut self.core, lasts);
        let old = Some(old);
        self.replacing.push(Replacing { old, new });
    }

    // ------------------------------------------------------------ backups

    fn back_up(&mut self) {
        let leader = self
            .leader()
            .and_then(|it| self.masters[it].process.as_ref());
        if let Some(process) = leader {
            self.backup = Some(process.back_up());
            note!(self.core, Host::Operator, "makes a backup");
        }
    }

    /// What was decided since the backup is forgotten, and the checkers know it.
    fn restore(&mut self, lasts: u64) {
        let Some(backup) = self.backup.clone() else {
            return;
        };
        note!(self.core, Host::Operator, "restores the backup");
        let incarnation = self.masters[0].body.incarnation + 1;
        for master in &mut self.masters {
            master.crash(&mut self.core, false);
        }
        self.core.checkers.restored();
        self.replacing.clear();
        for number in 0..self.masters.len() {
            self.next_node += 1;
            let new = self.next_node;
            let first = self.masters[0].body.id;
            let master = &mut self.masters[number];
            match number {
                0 => master.restore(&mut self.core, new, &backup, incarnation),
                _ => {
                    master.lose_disk(&mut self.core, new, Members::voters([first]));
                    master.body.incarnation = incarnation;
                    self.replacing.push(Replacing { old: None, new });
                }
            }
            master.start_after(&mut self.core, lasts);
        }
    }

    /// The operator brings the members to what they should be, step by step.
    pub(crate) fn replace_members(&mut self) {
        let Some(Replacing { old, new }) = self.replacing.first().copied() else {
            return;
        };
        let Some(leader) = self.leader() else { return };
        let Some(process) = &self.masters[leader].process else {
            return;
        };
        let node = &process.raft.node;
        let members = node.members().clone();
        if !members.voters_outgoing.is_empty() {
            return;
        }
        let is_gone = old.is_none_or(|it| !members.voters.contains(&it));
        if members.voters.contains(&new) && is_gone {
            self.replacing.remove(0);
            return;
        }
        let changes = match members.learners.contains(&new) {
            false => vec![MemberChange::AddLearner(new)],
            true => {
                // It votes once it has nearly everything.
                let last = node.last_index();
                let learner = self
                    .core
                    .nodes
                    .get(&new)
                    .and_then(|it| self.masters.get(*it));
                let has = learner
                    .and_then(|it| it.process.as_ref())
                    .map_or(0, |it| it.raft.node.last_index());
                if has + 50 < last {
                    return;
                }
                let mut changes = vec![MemberChange::AddVoter(new)];
                changes.extend(old.map(MemberChange::Remove));
                changes
            }
        };
        note!(self.core, Host::Operator, "changes members: {changes:?}");
        self.masters[leader].change_members(&mut self.core, &changes);
    }

    // ------------------------------------------------------------ the operator

    pub(crate) fn act(&mut self, act: Act) {
        let request = match act {
            Act::RaiseVersion => {
                // As the shell does: only what every master knows.
                let versions = self.masters.iter().map(|it| it.body.supported);
                OperatorRequest::RaiseClusterVersion {
                    version: versions.min().unwrap_or(1),
                }
            }
            Act::Quota { role, cpus, force } => {
                let limits = cpus
                    .map(|it| ("cpus".to_owned(), wire::value::Scalar { value: it as f64 }))
                    .into_iter()
                    .collect();
                OperatorRequest::UpdateQuota {
                    force,
                    configs: vec![wire::quota::QuotaConfig {
                        role,
                        limits,
                        ..wire::quota::QuotaConfig::default()
                    }],
                }
            }
            Act::Reserve { agent, role } => {
                let Some(agent_id) = self.agent_id(agent) else {
                    return;
                };
                let reserve = wire::offer::operation::Reserve {
                    resources: vec![half_a_cpu(&role)],
                    ..wire::offer::operation::Reserve::default()
                };
                let operation = wire::offer::Operation {
                    r#type: Some(wire::offer::operation::Type::Reserve as i32),
                    reserve: Some(reserve),
                    ..wire::offer::Operation::default()
                };
                of_agent(agent_id, operation)
            }
            Act::Unreserve { agent, role } => {
                let Some(agent_id) = self.agent_id(agent) else {
                    return;
                };
                let resources = vec![half_a_cpu(&role)];
                let operation = wire::offer::Operation {
                    r#type: Some(wire::offer::operation::Type::Unreserve as i32),
                    unreserve: Some(wire::offer::operation::Unreserve { resources }),
                    ..wire::offer::Operation::default()
                };
                of_agent(agent_id, operation)
            }
            Act::Weight { role, micro } => OperatorRequest::UpdateWeights {
                weights: vec![(role, micro)],
            },
            Act::Schedule { agents } => {
                let machines: BTreeSet<usize> = agents;
                // The rule wants those that are down to stay in.
                let machines: BTreeSet<usize> =
                    machines.union(&self.operator.down).copied().collect();
                OperatorRequest::UpdateMaintenanceSchedule {
                    schedule: schedule(&machines),
                }
            }
            Act::MachineDown { agent } => {
                self.core.checkers.tasks.condemned(agent);
                self.operator.down.insert(agent);
                OperatorRequest::StartMaintenance {
                    machines: vec![machine(agent)],
                }
            }
            Act::MachineUp { agent } => {
                self.operator.down.remove(&agent);
                OperatorRequest::StopMaintenance {
                    machines: vec![machine(agent)],
                }
            }
            Act::Drain { agent, mark_gone } => {
                let Some(agent_id) = self.condemn(agent) else {
                    return;
                };
                OperatorRequest::DrainAgent {
                    agent_id,
                    max_grace_period_ns: Some(SECOND),
                    mark_gone,
                }
            }
            Act::Gone { agent } => {
                let Some(agent_id) = self.condemn(agent) else {
                    return;
                };
                OperatorRequest::MarkAgentGone { agent_id }
            }
            Act::Deactivate { agent } => {
                let Some(agent_id) = self.agent_id(agent) else {
                    return;
                };
                OperatorRequest::DeactivateAgent { agent_id }
            }
            Act::Reactivate { agent } => {
                let Some(agent_id) = self.agent_id(agent) else {
                    return;
                };
                OperatorRequest::ReactivateAgent { agent_id }
            }
            Act::Teardown { framework } => {
                let Some(id) = self.frameworks[framework].store.id.clone() else {
                    return;
                };
                self.core.checkers.frameworks.torn(&id);
                self.core.checkers.tasks.kill_all(framework);
                OperatorRequest::Teardown {
                    framework_id: id.as_str().into(),
                }
            }
            Act::Kill { framework } => {
                let it = &self.frameworks[framework];
                let (Some(id), Some(task)) = (it.store.id.clone(), it.store.tasks.keys().next())
                else {
                    return;
                };
                self.core.checkers.tasks.kill(task);
                OperatorRequest::KillTask {
                    framework_id: id.as_str().into(),
                    task_id: task.as_str().into(),
                }
            }
        };
        self.operator.order(&mut self.core, request);
    }

    /// At the end every machine is up and none is scheduled.
    pub(crate) fn lift_maintenance(&mut self) {
        if self.core.checkers.orders.open() > 0 {
            return;
        }
        let state = self.leading_state().and_then(|(_, it)| it.maintenance());
        let Some(maintenance) = state.cloned() else {
            return;
        };
        let down = maintenance
            .machines
            .iter()
            .filter(|it| it.mode == wire::machine_info::Mode::Down as i32)
            .map(|it| wire::MachineId {
                hostname: Some(it.hostname.clone()),
                ip: None,
            });
        let down: Vec<_> = down.collect();
        let request = if !down.is_empty() {
            OperatorRequest::StopMaintenance { machines: down }
        } else if maintenance
            .schedules
            .iter()
            .any(|it| !it.windows.is_empty())
        {
            let schedule = wire::maintenance::Schedule::default();
            OperatorRequest::UpdateMaintenanceSchedule { schedule }
        } else {
            return;
        };
        self.operator.order(&mut self.core, request);
    }

    fn agent_id(&self, agent: usize) -> Option<AgentId> {
        let id = self.agents[agent].id();
        (!id.is_empty()).then(|| id.as_str().into())
    }

    fn condemn(&mut self, agent: usize) -> Option<AgentId> {
        let id = self.agent_id(agent)?;
        self.core.checkers.tasks.condemned(agent);
        Some(id)
    }
}

fn of_agent(agent_id: AgentId, operation: wire::offer::Operation) -> OperatorRequest {
    let operation = Box::new(operation);
    OperatorRequest::AgentOperation {
        agent_id,
        operation,
    }
}

fn half_a_cpu(role: &str) -> wire::Resource {
    let reservation = Reservation::dynamic(Role::from(role), None);
    let cpus = Resource::scalar("cpus", Scalar::from_millis(500));
    cpus.with_reservation(reservation).to_wire()
}

/// The machine of an agent, by its name.
pub(crate) fn machine(agent: usize) -> wire::MachineId {
    wire::MachineId {
        hostname: Some(format!("host{agent}")),
        ip: None,
    }
}

fn schedule(agents: &BTreeSet<usize>) -> wire::maintenance::Schedule {
    let window = |agent: &usize| wire::maintenance::Window {
        machine_ids: vec![machine(*agent)],
        unavailability: wire::Unavailability {
            start: wire::TimeInfo {
                nanoseconds: 1_800_000_000_000_000_000,
            },
            duration: None,
        },
    };
    wire::maintenance::Schedule {
        windows: agents.iter().map(window).collect(),
    }
}
