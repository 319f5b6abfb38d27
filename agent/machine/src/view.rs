//! What endpoints show of an agent.

use crate::{
    knowledge::Task,
    machine::Machine,
    output::{AgentView, FrameworkView, TaskView},
};
use std::collections::BTreeMap;
use tepui_model::{log, wire};

/// A copy for readers.
pub(crate) fn view(machine: &Machine) -> AgentView {
    let knowledge = &machine.knowledge;
    let show = |task: &Task, completed: bool| TaskView {
        task: task.launched.clone(),
        state: task.progress.state,
        statuses: task.statuses.clone(),
        completed,
    };
    let mut tasks: BTreeMap<&str, Vec<TaskView>> = BTreeMap::new();
    let completed = knowledge.completed.iter().map(|task| (task, true));
    let live = knowledge.tasks.values().map(|task| (task, false));
    for (task, completed) in completed.chain(live) {
        let of = tasks
            .entry(task.launched.framework_id.as_str())
            .or_default();
        of.push(show(task, completed));
    }
    let frameworks = tasks.into_iter().map(|(id, tasks)| FrameworkView {
        framework_id: id.to_owned(),
        info: machine.framework_seen(id),
        completed: tasks.iter().all(|task| task.completed),
        tasks,
    });
    AgentView {
        agent_id: knowledge.identity.agent_id.clone(),
        registered: machine.registered.is_some(),
        total: machine.total(),
        oversubscribed: machine.oversubscribed.to_wire(),
        frameworks: frameworks.collect(),
        drain: knowledge.draining.as_ref().map(|it| log::Drain {
            max_grace_period_ns: it.max_grace_period_ns,
            mark_gone: it.mark_gone,
            cancel: false,
        }),
        operations: knowledge.operations.values().cloned().collect(),
    }
}

impl Machine {
    /// A framework's info, also of one that is forgotten but for its completed tasks.
    fn framework_seen(&self, id: &str) -> wire::FrameworkInfo {
        let last = self.knowledge.seen_frameworks.get(id);
        last.cloned().unwrap_or_default()
    }
}
