//! Frameworks that go: disconnection, the failover time-out, removal (behaviour
//! section 2.3). Clocks are in cluster time and advance only while a leader leads.

use std::collections::BTreeSet;

use tepui_model::id::{AgentId, FrameworkId};
use tepui_model::log;
use tepui_model::log::operation::Kind;
use tepui_model::resources::Resources;

use crate::counters::Counter;
use crate::input::ConnectionId;
use crate::machine::{Machine, holds_resources};
use crate::output::{Destination, Status, ViewChange};

impl Machine {
    /// A subscription's stream broke.
    pub(crate) fn scheduler_disconnected(&mut self, connection: ConnectionId) {
        if let Some(framework_id) = self.frameworks.of_connection(connection).cloned() {
            self.disconnect_framework(&framework_id);
        }
    }

    /// Offers come back, filters are dropped, the failover clock starts; with a time-out
    /// of 0 (the default of Mesos) the framework is removed at once.
    fn disconnect_framework(&mut self, framework_id: &FrameworkId) {
        if self.frameworks.close(framework_id).is_none() {
            return;
        }
        self.take_back_offers(framework_id);
        self.take_back_inverse_offers(framework_id);
        self.allocator.deactivate_framework(framework_id);
        self.log(Kind::FrameworkDisconnected(log::FrameworkDisconnected {
            framework_id: framework_id.as_str().to_owned(),
            cluster_time_ns: self.cluster_time(self.now).as_nanos(),
            wall_time: self.wall.as_secs(),
        }));
        self.out.view.push(ViewChange::Framework {
            framework_id: framework_id.clone(),
            connected: false,
            active: false,
            transport: None,
        });
        let timeout = self
            .framework_infos
            .get(framework_id)
            .map_or_else(Default::default, |info| info.failover_timeout);
        if timeout.is_zero() {
            self.remove_framework(framework_id);
        } else {
            self.frameworks
                .set_failover(framework_id, self.now + timeout);
        }
        self.allocation.trigger(self.now);
    }

    /// Frameworks that did not come back in time.
    pub(crate) fn expire_frameworks(&mut self) {
        while let Some(framework_id) = self.frameworks.pop_failover(self.now) {
            if !self.frameworks.is_connected(&framework_id) {
                self.remove_framework(&framework_id);
            }
        }
    }

    /// Removal, by TEARDOWN or time-out: agents shut the framework down, its tasks are
    /// over (KILLED, FRAMEWORK_REMOVED; nobody is told), its id is refused from now on.
    pub(crate) fn remove_framework(&mut self, framework_id: &FrameworkId) {
        if !self.is_live(framework_id) {
            return;
        }
        self.counters.add(Counter::MessagesUnregisterFramework);
        self.take_back_offers(framework_id);
        self.take_back_inverse_offers(framework_id);
        let session = self.frameworks.close(framework_id);
        self.frameworks.forget(framework_id);

        let mut agents: BTreeSet<AgentId> = BTreeSet::new();
        let mut used: Vec<(AgentId, Resources)> = Vec::new();
        for (_, task) in self.state.tasks_of_framework(framework_id) {
            let agent_id = AgentId::from(task.agent_id.as_str());
            if holds_resources(task) {
                let resources = Resources::from_wire(&task.resources).unwrap_or_default();
                used.push((agent_id.clone(), resources));
            }
            agents.insert(agent_id);
        }
        for executor in self.state.executors_of_framework(framework_id) {
            let agent_id = AgentId::from(executor.agent_id.as_str());
            let resources = Resources::from_wire(&executor.resources).unwrap_or_default();
            used.push((agent_id.clone(), resources));
            agents.insert(agent_id);
        }
        for agent_id in &agents {
            // An unreachable one is told when it comes back: the log knows its tasks no more.
            if self.agents.get(agent_id).is_some() {
                self.order(
                    agent_id,
                    log::command::Kind::ShutdownFramework(log::ShutdownFramework {
                        framework_id: framework_id.as_str().to_owned(),
                    }),
                );
            }
        }
        for (agent_id, resources) in used {
            self.release(framework_id, &agent_id, &resources);
        }
        let operations = self.state.operations_of_framework(framework_id);
        agents.extend(operations.map(|it| AgentId::from(it.agent_id.as_str())));
        self.log(Kind::RemoveFramework(log::RemoveFramework {
            framework_id: framework_id.as_str().to_owned(),
            wall_time: self.wall.as_secs(),
        }));
        self.allocator.remove_framework(framework_id);
        self.framework_infos.remove(framework_id);
        self.out
            .view
            .push(ViewChange::FrameworkRemoved(framework_id.clone()));
        if let Some(session) = session {
            self.close(
                Destination::Scheduler(session.connection),
                Status::Ok,
                "the framework was removed",
            );
        }
        // What it had there may have been all that was left.
        for agent_id in &agents {
            self.check_drained(agent_id);
        }
        self.allocation.trigger(self.now);
    }
}
