//! `/state` and `/state-summary`, and GET_STATE: everything at once.

use super::{agents, frameworks, json::Writer, tasks};
use crate::view::{View, totals};
use std::collections::{BTreeMap, BTreeSet};
use tepui_master_machine::model::{
    id::{AgentId, FrameworkId},
    log,
    time::WallTime,
    wire::{self, TaskState},
};
use tepui_server::proto::json;

/// Who this master is; the same in every answer until the next term.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    /// As in SUBSCRIBED; `id` is the master id of the term.
    pub(crate) info: wire::MasterInfo,
    /// Seconds since the epoch at which the process started.
    pub(crate) start_time: f64,
    /// Seconds since the epoch at which the term began; zero before.
    pub(crate) elected_time: f64,
    /// `--cluster`.
    pub(crate) cluster: Option<String>,
    /// `--log_dir`.
    pub(crate) log_dir: Option<String>,
    /// All flags that have a value, as text.
    pub(crate) flags: BTreeMap<String, String>,
    /// Version fields, ready to be spliced: name and JSON.
    pub(crate) version: Vec<(String, String)>,
}

/// Seconds as the message of the v1 API.
pub(crate) fn time(seconds: f64) -> wire::TimeInfo {
    WallTime(seconds).to_wire()
}

/// `/state`.
pub(crate) fn state(view: &View, identity: &Identity) -> String {
    let info = &identity.info;
    let mut writer = Writer::new();
    writer.object(|it| {
        for (name, value) in &identity.version {
            it.key(name).raw(value);
        }
        it.double_field("start_time", identity.start_time);
        if identity.elected_time > 0.0 {
            it.double_field("elected_time", identity.elected_time);
        }
        it.string_field("id", &info.id);
        it.string_field("pid", info.pid());
        it.string_field("hostname", info.hostname());
        it.array_field("capabilities", |it| {
            for capability in &info.capabilities {
                it.string(capability.r#type().as_str_name());
            }
        });
        let (mut activated, mut deactivated) = (0u32, 0u32);
        for (.., link) in view.registered_agents() {
            match link.active {
                true => activated += 1,
                false => deactivated += 1,
            }
        }
        let unreachable = log::AgentState::Unreachable as i32;
        let unreachable = view
            .state()
            .agents()
            .filter(|(_, it)| it.state == unreachable)
            .count();
        it.double_field("activated_slaves", f64::from(activated));
        it.double_field("deactivated_slaves", f64::from(deactivated));
        it.double_field("unreachable_slaves", unreachable as f64);
        if let Some(domain) = &info.domain {
            it.key("domain").raw(&json::encode(domain));
        }
        it.string_field("leader", info.pid());
        it.object_field("leader_info", |it| {
            it.string_field("id", &info.id);
            it.string_field("pid", info.pid());
            it.integer_field("port", info.port.into());
            it.string_field("hostname", info.hostname());
            if let Some(domain) = &info.domain {
                it.key("domain").raw(&json::encode(domain));
            }
        });
        if let Some(cluster) = &identity.cluster {
            it.string_field("cluster", cluster);
        }
        if let Some(folder) = &identity.log_dir {
            it.string_field("log_dir", folder);
        }
        it.object_field("flags", |it| {
            for (name, value) in &identity.flags {
                it.string_field(name, value);
            }
        });
        it.array_field("slaves", |it| {
            for (id, row, link) in view.registered_agents() {
                it.object(|it| agents::agent(it, view, id, row, link, agents::Detail::Plain));
            }
        });
        it.array_field("recovered_slaves", |it| {
            for (_, row) in view.recovered_agents() {
                agents::recovered(it, row);
            }
        });
        frameworks::lists(it, view, None);
        it.array_field("orphan_tasks", |_| {});
        it.array_field("unregistered_frameworks", |_| {});
    });
    writer.finish()
}

/// The states that summaries count.
const COUNTED: [TaskState; 10] = [
    TaskState::TaskStaging,
    TaskState::TaskStarting,
    TaskState::TaskRunning,
    TaskState::TaskKilling,
    TaskState::TaskFinished,
    TaskState::TaskKilled,
    TaskState::TaskFailed,
    TaskState::TaskLost,
    TaskState::TaskError,
    TaskState::TaskUnreachable,
];

/// Tasks by state, and who they belong to.
#[derive(Debug, Default)]
struct Counts {
    states: BTreeMap<i32, u64>,
    frameworks: BTreeSet<FrameworkId>,
    agents: BTreeSet<AgentId>,
}

impl Counts {
    fn add(&mut self, row: &log::Task) {
        let state = match row.unreachable {
            true => TaskState::TaskUnreachable as i32,
            false => row.state,
        };
        *self.states.entry(state).or_default() += 1;
        self.frameworks.insert(row.framework_id.as_str().into());
        self.agents.insert(row.agent_id.as_str().into());
    }

    fn write(&self, it: &mut Writer) {
        for state in COUNTED {
            let count = self.states.get(&(state as i32)).copied().unwrap_or(0);
            it.integer_field(state.as_str_name(), count);
        }
    }
}

/// `/state-summary`: agents and frameworks with counts instead of tasks.
pub(crate) fn summary(view: &View, identity: &Identity) -> String {
    let mut by_agent: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut by_framework: BTreeMap<&str, Counts> = BTreeMap::new();
    for (id, _) in view.state().frameworks() {
        let live = view.state().tasks_of_framework(id).map(|(_, row)| row);
        for row in live.chain(view.state().completed_tasks(id)) {
            by_agent.entry(&row.agent_id).or_default().add(row);
            by_framework.entry(&row.framework_id).or_default().add(row);
        }
    }
    let none = Counts::default();
    let mut writer = Writer::new();
    writer.object(|it| {
        it.string_field("hostname", identity.info.hostname());
        if let Some(cluster) = &identity.cluster {
            it.string_field("cluster", cluster);
        }
        it.array_field("slaves", |it| {
            for (id, row, link) in view.registered_agents() {
                let counts = by_agent.get(id.as_str()).unwrap_or(&none);
                it.object(|it| {
                    agents::agent(it, view, id, row, link, agents::Detail::Plain);
                    counts.write(it);
                    it.array_field("framework_ids", |it| {
                        counts
                            .frameworks
                            .iter()
                            .for_each(|id| it.string(id.as_str()));
                    });
                });
            }
        });
        it.array_field("frameworks", |it| {
            for (id, row) in view.state().frameworks() {
                let counts = by_framework.get(id.as_str()).unwrap_or(&none);
                it.object(|it| {
                    frameworks::outline(
                        it,
                        row,
                        &frameworks::info(row),
                        view.framework_link(id),
                        frameworks::is_recovered(view, id, row),
                        &totals::of_framework(view, id),
                    );
                    counts.write(it);
                    it.array_field("slave_ids", |it| {
                        counts.agents.iter().for_each(|id| it.string(id.as_str()));
                    });
                });
            }
        });
    });
    writer.finish()
}

/// GET_STATE, also the first event of an operator's subscription.
pub(crate) fn get_state(view: &View) -> wire::master::response::GetState {
    wire::master::response::GetState {
        get_tasks: Some(tasks::get_tasks(view)),
        get_executors: Some(frameworks::get_executors(view)),
        get_frameworks: Some(frameworks::get_frameworks(view)),
        get_agents: Some(agents::get_agents(view)),
    }
}
