//! Metrics by Mesos' names: gauges of the view, counters of the machine, timers of the shell.
//!
//! Gauges are counted from a [`View`], so that they and `/state` never disagree. What a
//! name of Mesos counts and does not exist here is zero, so that dashboards find it.

use crate::{
    shell::{
        core::{Status, Timers, wall_now},
        door::App,
    },
    view::{View, totals},
};
use prost::Message as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};
use tepui_master_machine::{
    counters::{Counter, Counters},
    model::{
        Quantities, Role,
        id::FrameworkId,
        log,
        wire::{self, OperationState, TaskState, task_status},
    },
};
use tepui_server::{metrics::escape, system};

/// What the shell itself knows.
#[derive(Debug, Clone, Copy, Default)]
struct Gauges {
    /// Seconds since the process began to serve.
    uptime: f64,
    /// Whether this master leads.
    leading: bool,
    /// Open subscriptions of operators.
    subscribers: usize,
    /// Inputs that wait for the machine.
    waiting: usize,
}

/// Resources of which totals are shown.
const KINDS: [&str; 4] = ["cpus", "gpus", "mem", "disk"];

/// States that a task is in while it has not ended, with the names of their metrics.
const ALIVE: [(TaskState, &str); 5] = [
    (TaskState::TaskStaging, "staging"),
    (TaskState::TaskStarting, "starting"),
    (TaskState::TaskRunning, "running"),
    (TaskState::TaskKilling, "killing"),
    (TaskState::TaskUnreachable, "unreachable"),
];

/// What operations on offers do.
const OPERATIONS: [&str; 8] = [
    "reserve",
    "unreserve",
    "create",
    "destroy",
    "grow_volume",
    "shrink_volume",
    "create_disk",
    "destroy_disk",
];

/// States of operations that are not over; the machine counts those that are.
const OPERATION_STATES: [(OperationState, &str); 3] = [
    (OperationState::OperationPending, "pending"),
    (OperationState::OperationRecovering, "recovering"),
    (OperationState::OperationUnreachable, "unreachable"),
];

/// Agents are never shut down for being away, nothing waits in actors, v0 is not spoken.
const ALWAYS_ZERO: [&str; 10] = [
    "allocator/event_queue_dispatches",
    "allocator/mesos/event_queue_dispatches",
    "master/dropped_messages",
    "master/event_queue_http_requests",
    "master/event_queue_messages",
    "master/messages_authenticate",
    "master/messages_update_slave",
    "master/slave_shutdowns_canceled",
    "master/slave_shutdowns_completed",
    "master/slave_shutdowns_scheduled",
];

/// Every metric, by name.
pub(crate) async fn collect(app: &App) -> BTreeMap<String, f64> {
    // A master that does not lead has nothing to count: its gauges are zero.
    let view = app.snapshot().await.ok();
    let gauges = Gauges {
        uptime: (wall_now().as_secs() - app.start_time).max(0.0),
        leading: app.shared.is_leading(),
        subscribers: app.subscribers.load(Ordering::Relaxed),
        waiting: app.intake.waiting(),
    };
    let mut metrics = snapshot(view.as_deref(), &app.shared.status(), gauges);
    let Timers {
        commits,
        allocations,
    } = app.shared.timers();
    commits.put("registrar/state_store", &mut metrics);
    allocations.put("allocator/mesos/allocation_run", &mut metrics);
    if let Some(replica) = app.replica.get() {
        let written = replica.written();
        metrics.insert("tepui/log/writes".into(), written.writes as f64);
        metrics.insert("tepui/log/entries".into(), written.entries as f64);
        metrics.insert("tepui/log/bytes".into(), written.bytes as f64);
    }
    metrics.insert(
        "tepui/raft/term".into(),
        app.leadership.borrow().term as f64,
    );
    metrics
}

fn snapshot(view: Option<&View>, status: &Status, gauges: Gauges) -> BTreeMap<String, f64> {
    let mut metrics = Metrics(BTreeMap::new());
    metrics.set("master/uptime_secs", gauges.uptime);
    metrics.count("master/elected", usize::from(gauges.leading));
    metrics.count("registrar/log/recovered", usize::from(gauges.leading));
    metrics.count(
        "master/operator_event_stream_subscribers",
        gauges.subscribers,
    );
    metrics.count("master/event_queue_dispatches", gauges.waiting);
    metrics.set("master/panics_survived", status.panics as f64);
    for name in ALWAYS_ZERO {
        metrics.set(name, 0.0);
    }
    counters(
        &mut metrics,
        status.counters.as_ref().unwrap_or(&Counters::default()),
    );
    let empty = View::birth(tepui_state::ClusterState::new());
    let view = view.unwrap_or(&empty);
    agents(&mut metrics, view);
    frameworks(&mut metrics, view);
    tasks(&mut metrics, view);
    operations(&mut metrics, view);
    quotas(&mut metrics, view);
    system::metrics(&mut metrics.0);
    metrics.0
}

struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn set(&mut self, name: impl Into<String>, value: f64) {
        self.0.insert(name.into(), value);
    }

    fn count(&mut self, name: impl Into<String>, count: usize) {
        self.set(name, count as f64);
    }

    fn add(&mut self, name: impl Into<String>, value: f64) {
        *self.0.entry(name.into()).or_default() += value;
    }
}

fn counters(metrics: &mut Metrics, counters: &Counters) {
    for (name, value) in counters.iter() {
        // Counted by the machine, but no part of `master/`.
        if !name.starts_with("allocator/") {
            metrics.set(format!("master/{name}"), value as f64);
        }
    }
    let runs = counters.get(Counter::AllocationRuns) as f64;
    metrics.set("allocator/mesos/allocation_runs", runs);
    for (state, source, reason, count) in counters.terminal() {
        let state = TaskState::try_from(state);
        let source = task_status::Source::try_from(source);
        let reason = reason.and_then(|it| task_status::Reason::try_from(it).ok());
        // Without a reason it is counted by its state alone, as in Mesos.
        if let (Ok(state), Ok(source), Some(reason)) = (state, source, reason) {
            let (state, source, reason) = (
                state.as_str_name(),
                source.as_str_name(),
                reason.as_str_name(),
            );
            let name = format!("master/{state}/{source}/{reason}");
            metrics.add(name.to_ascii_lowercase(), count as f64);
        }
    }
}

/// Agents by connection, and the sums of their resources.
fn agents(metrics: &mut Metrics, view: &View) {
    let (mut connected, mut active, mut registered) = (0, 0, 0);
    // Of all resources, and of the revocable ones.
    let mut total = [Quantities::new(), Quantities::new()];
    let mut used = [Quantities::new(), Quantities::new()];
    let mut offered = Quantities::new();
    for (id, row, link) in view.registered_agents() {
        registered += 1;
        connected += usize::from(link.connected);
        active += usize::from(link.active);
        let resources = view.total(id, row);
        total[0].add(&resources.non_revocable().quantities());
        total[1].add(&resources.revocable().quantities());
        let sum = totals::of_agent(view, id);
        used[0].add(&sum.used.non_revocable().quantities());
        used[1].add(&sum.used.revocable().quantities());
        offered.add(&sum.offered.quantities());
    }
    let unreachable = log::AgentState::Unreachable as i32;
    let unreachable = view
        .state()
        .agents()
        .filter(|(_, it)| it.state == unreachable)
        .count();
    metrics.count("master/slaves_connected", connected);
    metrics.count("master/slaves_disconnected", registered - connected);
    metrics.count("master/slaves_active", active);
    metrics.count("master/slaves_inactive", registered - active);
    metrics.count("master/slaves_unreachable", unreachable);
    metrics.count("master/outstanding_offers", view.offers().len());
    for (index, infix) in ["", "_revocable"].into_iter().enumerate() {
        for kind in KINDS {
            let total = total[index].get(kind).as_f64();
            let used = used[index].get(kind).as_f64();
            let share = if total > 0.0 { used / total } else { 0.0 };
            metrics.set(format!("master/{kind}{infix}_total"), total);
            metrics.set(format!("master/{kind}{infix}_used"), used);
            metrics.set(format!("master/{kind}{infix}_percent"), share);
        }
    }
    for kind in ["cpus", "mem", "disk"] {
        let name = format!("allocator/mesos/resources/{kind}");
        let sum = |all: &[Quantities; 2]| all[0].get(kind).as_f64() + all[1].get(kind).as_f64();
        metrics.set(format!("{name}/total"), sum(&total));
        let taken = sum(&used) + offered.get(kind).as_f64();
        metrics.set(format!("{name}/offered_or_allocated"), taken);
    }
}

/// Frameworks by connection, and what each of them has.
fn frameworks(metrics: &mut Metrics, view: &View) {
    let (mut connected, mut active, mut known) = (0, 0, 0);
    for (id, row) in view.state().frameworks() {
        let link = view.framework_link(id);
        known += 1;
        connected += usize::from(link.connected);
        active += usize::from(link.active);
        framework(metrics, view, id, row);
    }
    metrics.count("master/frameworks_connected", connected);
    metrics.count("master/frameworks_disconnected", known - connected);
    metrics.count("master/frameworks_active", active);
    metrics.count("master/frameworks_inactive", known - active);
}

fn framework(metrics: &mut Metrics, view: &View, id: &FrameworkId, row: &log::Framework) {
    let name = crate::endpoints::frameworks::info(row).name;
    let prefix = format!("master/frameworks/{}/{id}", escape(&name));
    let subscribed = usize::from(view.framework_link(id).connected);
    metrics.count(format!("{prefix}/subscribed"), subscribed);
    for (_, name) in ALIVE {
        metrics.set(format!("{prefix}/tasks/active/task_{name}"), 0.0);
    }
    for (_, task) in view.state().tasks_of_framework(id) {
        if let Some(name) = alive(task) {
            metrics.add(format!("{prefix}/tasks/active/task_{name}"), 1.0);
        }
    }
    let suppressed: BTreeSet<&str> = row.suppressed_roles.iter().map(String::as_str).collect();
    for role in crate::endpoints::frameworks::roles(row) {
        let is_suppressed = usize::from(suppressed.contains(role.as_str()));
        let role = escape(role.as_str());
        metrics.count(format!("{prefix}/roles/{role}/suppressed"), is_suppressed);
    }
}

/// The state in which a task counts, when it has not ended.
fn alive(task: &log::Task) -> Option<&'static str> {
    let state = match task.unreachable {
        true => TaskState::TaskUnreachable as i32,
        false => task.state,
    };
    let found = ALIVE.iter().find(|(alive, _)| *alive as i32 == state);
    found.map(|(_, name)| *name)
}

fn tasks(metrics: &mut Metrics, view: &View) {
    for (_, name) in ALIVE {
        metrics.set(format!("master/tasks_{name}"), 0.0);
    }
    for (_, _, task) in view.state().tasks() {
        if let Some(name) = alive(task) {
            metrics.add(format!("master/tasks_{name}"), 1.0);
        }
    }
}

fn operations(metrics: &mut Metrics, view: &View) {
    for (_, state) in OPERATION_STATES {
        metrics.set(format!("master/operations/{state}"), 0.0);
        for kind in OPERATIONS {
            metrics.set(format!("master/operations/{kind}/{state}"), 0.0);
        }
    }
    for kind in OPERATIONS {
        metrics.set(format!("master/operations/{kind}/total"), 0.0);
    }
    for row in view.state().operations() {
        let info = wire::offer::Operation::decode(row.info_payload.clone()).unwrap_or_default();
        let kind = info.r#type().as_str_name().to_ascii_lowercase();
        metrics.add(format!("master/operations/{kind}/total"), 1.0);
        let state = OPERATION_STATES
            .iter()
            .find(|(state, _)| *state as i32 == row.state);
        if let Some((_, state)) = state {
            metrics.add(format!("master/operations/{state}"), 1.0);
            metrics.add(format!("master/operations/{kind}/{state}"), 1.0);
        }
    }
}

fn quotas(metrics: &mut Metrics, view: &View) {
    let roles = totals::by_role(view);
    let prefix = |role: &str| format!("allocator/mesos/quota/roles/{}/resources", escape(role));
    for (role, figures) in &roles {
        for (name, amount) in figures.consumed().iter() {
            let name = format!("{}/{name}/consumed", prefix(role.as_str()));
            metrics.set(name, amount.as_f64());
        }
    }
    for (role, quota) in view.state().quotas() {
        let prefix = prefix(role);
        for (name, amount) in &quota.guarantees {
            metrics.set(format!("{prefix}/{name}/guarantee"), amount.value);
        }
        for (name, amount) in &quota.limits {
            metrics.set(format!("{prefix}/{name}/limit"), amount.value);
        }
        let figures = roles.get(&Role::from(role));
        for (name, amount) in figures.map(|it| it.in_use()).unwrap_or_default().iter() {
            let name = format!("{prefix}/{name}/offered_or_allocated");
            metrics.set(name, amount.as_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_master_machine::output::ViewChange;
    use tepui_state::ClusterState;

    #[test]
    fn a_master_without_anything_has_the_names_that_never_change() {
        let metrics = snapshot(None, &Status::default(), Gauges::default());
        for name in [
            "master/cpus_total",
            "master/disk_revocable_percent",
            "master/frameworks_connected",
            "master/messages_kill_task",
            "master/operations/grow_volume/pending",
            "master/outstanding_offers",
            "master/slave_removals/reason_unhealthy",
            "master/slaves_connected",
            "master/tasks_running",
            "master/tasks_gone_by_operator",
            "master/uptime_secs",
            "allocator/mesos/allocation_runs",
            "allocator/mesos/resources/mem/offered_or_allocated",
            "system/mem_total_bytes",
        ] {
            assert!(metrics.contains_key(name), "{name}");
        }
        assert!(!metrics.contains_key("master/allocator/allocation_runs"));
        assert_eq!(metrics["master/elected"], 0.0);
    }

    #[test]
    fn frameworks_and_their_tasks_are_counted() {
        use log::operation::Kind;
        let info = wire::FrameworkInfo {
            user: "u".into(),
            name: "a name/1".into(),
            ..Default::default()
        };
        let framework = log::Framework {
            framework_id: "F".into(),
            info_payload: info.encode_to_vec().into(),
            suppressed_roles: vec!["*".into()],
            ..Default::default()
        };
        let task = |id: &str, state: TaskState| {
            Kind::LaunchTask(log::LaunchTask {
                task: Some(log::Task {
                    framework_id: "F".into(),
                    task_id: id.into(),
                    agent_id: "S".into(),
                    state: state as i32,
                    ..Default::default()
                }),
                ..Default::default()
            })
        };
        let put = Kind::PutFramework(log::PutFramework {
            framework: Some(framework),
        });
        let kinds = [
            put,
            task("1", TaskState::TaskRunning),
            task("2", TaskState::TaskRunning),
            task("3", TaskState::TaskStaging),
        ];
        let entry = log::Entry {
            operations: kinds
                .map(|kind| log::Operation { kind: Some(kind) })
                .to_vec(),
            ..Default::default()
        };
        let mut state = ClusterState::new();
        state.apply_entry(&entry).unwrap();
        let mut view = View::birth(state);
        view.apply_change(&ViewChange::Framework {
            framework_id: "F".into(),
            connected: true,
            active: false,
            transport: None,
        });
        let metrics = snapshot(Some(&view), &Status::default(), Gauges::default());
        assert_eq!(metrics["master/tasks_running"], 2.0);
        assert_eq!(metrics["master/tasks_staging"], 1.0);
        assert_eq!(metrics["master/frameworks_connected"], 1.0);
        assert_eq!(metrics["master/frameworks_inactive"], 1.0);
        let prefix = "master/frameworks/a%20name%2F1/F";
        assert_eq!(metrics[&format!("{prefix}/subscribed")], 1.0);
        assert_eq!(metrics[&format!("{prefix}/tasks/active/task_running")], 2.0);
        assert_eq!(metrics[&format!("{prefix}/roles/%2A/suppressed")], 1.0);
    }
}
