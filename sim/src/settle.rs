//! The end of a run: everything is mended, and everything must come to what it should be.

use crate::{
    checkers::updates::ends,
    clock::SECOND,
    framework::Framework,
    keeper::ACCOUNT,
    master::ELECTION,
    network::Host,
    trace::note,
    workload::{Kind, Style},
    world::World,
};
use std::collections::{BTreeMap, BTreeSet};
use tepui_model::{
    Resources,
    wire::{DrainState, TaskState},
};
use tepui_state::ClusterState;

/// After everything is mended, somebody leads within two election time-outs and what processes
/// need to start.
const LEADER_BOUND: u64 = 2 * ELECTION + SECOND;

impl World {
    /// Mends everything and waits for what must become true.
    pub(crate) fn settle(&mut self) {
        self.heal();
        let healed = self.core.now;
        // A disk that was slow may still be at it.
        let busy = self.masters.iter().map(|it| it.body.busy_until).max();
        let idle = busy.unwrap_or(0).max(healed);
        while self.leader().is_none() {
            if self.core.now > idle + LEADER_BOUND {
                let text = format!(
                    "nobody leads {} ms after the end of all faults",
                    LEADER_BOUND / 1_000_000
                );
                self.core.violate("election", text);
                return;
            }
            let next = self.core.now + SECOND / 20;
            if !self.until(next) {
                return;
            }
        }
        // Those who can still begin something new do so for a while.
        if !self.until(self.core.now + 3 * SECOND) {
            return;
        }
        self.core.quiet = true;
        let end = healed + self.plan.shape.settle;
        loop {
            let next = self.core.now + SECOND;
            if !self.until(next) {
                return;
            }
            self.lift_maintenance();
            match self.unsettled() {
                None => break,
                Some(text) if self.core.now >= end => {
                    let seconds = (self.core.now - healed) / SECOND;
                    let text = format!("{seconds} s after the end of all faults, {text}");
                    self.core.violate("settle", text);
                    return;
                }
                Some(_) => {}
            }
        }
        let verdict = self.core.checkers.registers.judge();
        self.core.judge("registers", verdict);
        note!(self.core, "CHECKER", "all is settled");
        self.probe();
    }

    pub(crate) fn leading_state(&self) -> Option<(usize, &ClusterState)> {
        let leader = self.leader()?;
        let process = self.masters[leader].process.as_ref()?;
        let leadership = process.thread.leadership.as_ref()?;
        Some((leader, leadership.machine.state()))
    }

    /// What is not yet as it must become.
    fn unsettled(&self) -> Option<String> {
        let Some((leader, state)) = self.leading_state() else {
            return Some("nobody leads".to_owned());
        };
        self.unsettled_masters(leader)
            .or_else(|| self.unsettled_clients(state))
            .or_else(|| self.unsettled_tasks(state))
            .or_else(|| self.unsettled_agents(state))
            .or_else(|| self.unsettled_operations(state))
            .or_else(|| self.unsettled_keepers(state))
            .or_else(|| self.core.checkers.orders.kept(state).err())
    }

    fn unsettled_masters(&self, leader: usize) -> Option<String> {
        if !self.replacing.is_empty() {
            return Some(format!("members are not replaced: {:?}", self.replacing));
        }
        let of = |number: usize| self.masters[number].process.as_ref();
        let newest = of(leader)?.raft.node.committed();
        for number in 0..self.masters.len() {
            let Some(process) = of(number) else {
                return Some(format!("master {number} is down"));
            };
            if process.raft.node.committed() != newest {
                return Some(format!(
                    "master {number} has {:?} and the leader {newest:?}",
                    process.raft.node.committed()
                ));
            }
        }
        let first = of(leader)?;
        let rows =
            |state: &ClusterState| state.rows().collect::<std::collections::BTreeMap<_, _>>();
        let expected = rows(&first.committed);
        for number in 0..self.masters.len() {
            if rows(&of(number)?.committed) != expected {
                return Some(format!("master {number} has other rows than the leader"));
            }
        }
        None
    }

    fn unsettled_clients(&self, state: &ClusterState) -> Option<String> {
        for agent in &self.agents {
            let id = agent.id();
            let row = state.agent(&id.as_str().into());
            let attached = row.is_some_and(|it| it.disconnected_at_ns.is_none());
            if !agent.is_up() || !attached {
                return Some(format!("agent {} ({id}) is not attached", agent.number));
            }
            if state.pending_command_count(&id.as_str().into()) > 0 {
                return Some(format!(
                    "agent {} has not confirmed all commands",
                    agent.number
                ));
            }
        }
        for framework in self.frameworks.iter().filter(|it| !it.retired) {
            if !framework.is_subscribed() {
                return Some(format!("framework {} is not subscribed", framework.number));
            }
        }
        match self.core.checkers.orders.open() {
            0 => None,
            open => Some(format!("{open} orders of the operator are not answered")),
        }
    }

    fn unsettled_tasks(&self, state: &ClusterState) -> Option<String> {
        let checkers = &self.core.checkers;
        for asked in checkers.tasks.iter() {
            let id = &asked.plan.id;
            let life = checkers.lives.get(id);
            let lives = life.is_some_and(|it| it.ended.is_none());
            let heard = checkers.updates.newest(id);
            let framework = &self.frameworks[asked.plan.framework];
            let removed = framework.store.id.as_ref() != Some(&asked.framework_id);
            if removed {
                if lives {
                    return Some(format!("task {id} lives and its framework does not"));
                }
                continue;
            }
            let row = state.task(&asked.framework_id.as_str().into(), &id.as_str().into());
            let held = row.is_some_and(|it| {
                let state = TaskState::try_from(it.state);
                !it.unreachable && !state.is_ok_and(ends)
            });
            if lives != held {
                return Some(format!(
                    "task {id} {}, and the master says {:?}; its framework heard {heard:?}",
                    if lives { "lives" } else { "does not live" },
                    row.map(|it| TaskState::try_from(it.state))
                ));
            }
            let known = framework.store.tasks.get(id);
            match known {
                // An agent that never comes back under this name is unreachable for ever.
                Some(it)
                    if heard == Some(TaskState::TaskUnreachable)
                        && self.agents.iter().all(|agent| agent.id() != it.agent) => {}
                Some(_) if !lives || heard != Some(TaskState::TaskRunning) => {
                    return Some(format!(
                        "framework {} waits for task {id}, of which it heard {heard:?}; it {}",
                        framework.number,
                        if lives { "lives" } else { "does not live" },
                    ));
                }
                None if lives => {
                    return Some(format!(
                        "task {id} lives, and its framework believes that it has ended: {heard:?}"
                    ));
                }
                _ => {}
            }
            if asked.kill_taken && lives {
                return Some(format!("task {id} lives on, and a KILL was taken"));
            }
            if lives && asked.plan.runs_for.is_some() {
                return Some(format!("task {id} has not done its work"));
            }
        }
        None
    }

    fn unsettled_agents(&self, state: &ClusterState) -> Option<String> {
        for agent in &self.agents {
            let id = agent.id();
            let row = state.agent(&id.as_str().into())?;
            if let Some(text) = agent.waits_for() {
                return Some(format!("agent {} keeps {text}", agent.number));
            }
            if agent.drains() != row.drain.is_some() {
                return Some(format!(
                    "agent {} drains: {}, and the log says {:?}",
                    agent.number,
                    agent.drains(),
                    row.drain
                ));
            }
            let draining = DrainState::Draining as i32;
            if row.drain.as_ref().is_some_and(|it| it.state == draining) {
                return Some(format!("agent {} is not empty yet", agent.number));
            }
            let rows = state.executors_of_agent(&id.as_str().into());
            let rows = rows.map(|(_, it, _)| it.as_str().to_owned());
            let rows: BTreeSet<String> = rows.collect();
            let living = self.core.checkers.lives.executors_on(agent.number);
            let living: BTreeSet<String> = living.into_keys().collect();
            if rows != living {
                return Some(format!(
                    "agent {} runs the executors {living:?}, and the log says {rows:?}",
                    agent.number
                ));
            }
            let theirs = Resources::from_wire(&agent.total()).unwrap_or_default();
            let ours = Resources::from_wire(&row.total).unwrap_or_default();
            if !ours.is_equivalent(&theirs) {
                return Some(format!(
                    "agent {} has {theirs} on its disk, and the log says {ours}",
                    agent.number
                ));
            }
            let volumes: BTreeSet<String> = row
                .total
                .iter()
                .filter_map(|it| Some(it.disk.as_ref()?.persistence.as_ref()?.id.clone()))
                .collect();
            let folders: BTreeSet<String> = self
                .core
                .checkers
                .volumes
                .on(agent.number)
                .into_iter()
                .collect();
            // Data of an agent that is no more is not destroyed either.
            let renamed = self.core.checkers.tasks.was_renamed(agent.number);
            if !(volumes == folders || renamed && volumes.is_subset(&folders)) {
                return Some(format!(
                    "agent {} has the volumes {folders:?}, and the log says {volumes:?}",
                    agent.number
                ));
            }
        }
        None
    }

    /// Every operation has an id, so that its framework hears of its end and says so.
    fn unsettled_operations(&self, state: &ClusterState) -> Option<String> {
        let here = |agent: &str| self.agents.iter().any(|it| it.id() == agent);
        let mut left = state.operations().filter(|it| here(&it.agent_id));
        let left = left.next()?;
        Some(format!(
            "operation {} of framework {} is kept in state {}",
            left.operation_id, left.framework_id, left.state
        ))
    }

    fn unsettled_keepers(&self, state: &ClusterState) -> Option<String> {
        if let Some(lease) = state.leases().next() {
            return Some(format!(
                "lease {} is there and nobody renews it",
                lease.lease_id
            ));
        }
        for (number, keeper) in self.keepers.iter().enumerate() {
            if keeper.is_calling() || !keeper.is_watching() {
                return Some(format!("keeper {number} waits for an answer"));
            }
            let variables = state.variables(ACCOUNT, "", None);
            let there = variables.map(|it| (it.name.clone(), it.version));
            let there: BTreeMap<String, u64> = there.collect();
            if there != keeper.mirror {
                return Some(format!(
                    "keeper {number} has watched {:?}, and there is {there:?}",
                    keeper.mirror
                ));
            }
        }
        None
    }

    /// Somebody new who takes whatever there is must be offered everything that is free.
    fn probe(&mut self) {
        let number = self.frameworks.len();
        let style = Style {
            role: "probe".to_owned(),
            ..Style::of(Kind::Silent)
        };
        let mut probe = Framework::new(&self.core, number, style);
        probe.start_after(&mut self.core, 0);
        self.frameworks.push(probe);
        let begun = self.core.now;
        let allocation = self.plan.shape.timing.allocation;
        let end = begun + 2 * ELECTION + 2 * allocation + 5 * SECOND;
        loop {
            let next = self.core.now + SECOND / 4;
            if !self.until(next) {
                return;
            }
            let idle = self.idle();
            match idle {
                None => return,
                Some(text) if self.core.now >= end => {
                    self.core.violate("offers", text);
                    return;
                }
                Some(_) => {}
            }
        }
    }

    /// What nobody uses and nobody is offered.
    fn idle(&self) -> Option<String> {
        let Some((leader, state)) = self.leading_state() else {
            return Some("nobody leads".to_owned());
        };
        for (id, row) in state.agents() {
            let attached = row.state() == tepui_model::log::AgentState::Admitted
                && row.disconnected_at_ns.is_none();
            if !attached || row.deactivated || row.drain.is_some() {
                continue;
            }
            let offers = &self.core.checkers.offers;
            // What Mesos takes for too little to be offered is left out.
            let least = [("cpus", 10), ("mem", 32_000)];
            // Disks and ports come with cpus and memory.
            let least = match offers.is_offered_to(leader, id, "probe") {
                true => &[("cpus", 10), ("mem", 32_000), ("disk", 1_000), ("ports", 1)][..],
                false => &least[..],
            };
            let idle = |(name, least): &(&str, i64)| {
                let idle = offers.idle(leader, state, id, name);
                (idle >= *least).then(|| {
                    format!("{idle} (thousandths) of {name} of agent {id} are offered to nobody")
                })
            };
            if let Some(text) = least.iter().find_map(idle) {
                return Some(text);
            }
        }
        let probe = self.frameworks.len() - 1;
        match self
            .core
            .net
            .is_cut(Host::Framework(probe), Host::Master(leader))
        {
            true => Some("the probe is cut off".to_owned()),
            false => None,
        }
    }
}
