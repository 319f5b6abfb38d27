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
use tepui_model::wire;
use tepui_replication_node::{MemberChange, NodeId};

/// A node whose disk is gone, and the one that takes its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replacing {
    old: NodeId,
    new: NodeId,
}

impl World {
    fn clock_of(&mut self, host: Host) -> Option<&mut crate::clock::Clock> {
        match host {
            Host::Master(number) => Some(&mut self.masters.get_mut(number)?.body.clock),
            Host::Agent(number) => Some(&mut self.agents.get_mut(number)?.clock),
            Host::Framework(_) | Host::Operator => None,
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
                    Host::Framework(_) | Host::Operator => {}
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
        match clients {
            false => masters.collect(),
            true => masters
                .chain(agents)
                .chain(frameworks)
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
            Host::Framework(_) | Host::Operator => {}
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
        self.replacing.push(Replacing { old, new });
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
        if members.voters.contains(&new) && !members.voters.contains(&old) {
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
                vec![MemberChange::AddVoter(new), MemberChange::Remove(old)]
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
            Act::Quota { role, cpus } => {
                let limits = cpus
                    .map(|it| ("cpus".to_owned(), wire::value::Scalar { value: it as f64 }))
                    .into_iter()
                    .collect();
                OperatorRequest::UpdateQuota {
                    force: true,
                    configs: vec![wire::quota::QuotaConfig {
                        role,
                        limits,
                        ..wire::quota::QuotaConfig::default()
                    }],
                }
            }
            Act::Weight { role, micro } => OperatorRequest::UpdateWeights {
                weights: vec![(role, micro)],
            },
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

    fn agent_id(&self, agent: usize) -> Option<tepui_model::AgentId> {
        let id = self.agents[agent].id();
        (!id.is_empty()).then(|| id.as_str().into())
    }

    fn condemn(&mut self, agent: usize) -> Option<tepui_model::AgentId> {
        let id = self.agent_id(agent)?;
        self.core.checkers.tasks.condemned(agent);
        Some(id)
    }
}
