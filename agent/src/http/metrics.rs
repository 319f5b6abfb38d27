//! Metrics by Mesos' names: gauges of the view, counters of what the machine put out.

use super::app::{App, now};
use crate::endpoints::{
    state::used,
    tasks::{self, Stage},
    values,
};
use prost::Message;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tepui_agent_machine::{
    model::{Resources, link, link::record::Kind, task::is_terminal, wire, wire::TaskState},
    output::AgentView,
};
use tepui_server::system;

/// Terminal states that have a counter of their own, with its name.
const ENDED: &[(TaskState, &str)] = &[
    (TaskState::TaskFailed, "tasks_failed"),
    (TaskState::TaskFinished, "tasks_finished"),
    (TaskState::TaskGone, "tasks_gone"),
    (TaskState::TaskKilled, "tasks_killed"),
    (TaskState::TaskLost, "tasks_lost"),
];

/// What has happened since the agent started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Status updates made.
    updates: AtomicU64,
    /// Tasks by terminal state.
    ended: Mutex<BTreeMap<i32, u64>>,
    launch_errors: AtomicU64,
    /// Microseconds that the recovery at the start took.
    pub(crate) recovery_us: AtomicU64,
}

fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// Counts what the machine put on record.
    pub(crate) fn observe(&self, records: &[link::Record]) {
        for record in records {
            let Some(Kind::AppendUpdate(update)) = &record.kind else {
                continue;
            };
            bump(&self.updates);
            let status =
                wire::TaskStatus::decode(update.status_payload.clone()).unwrap_or_default();
            if !is_terminal(status.state()) {
                continue;
            }
            *self
                .ended
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(status.state)
                .or_default() += 1;
            if status.reason() == wire::task_status::Reason::ContainerLaunchFailed {
                bump(&self.launch_errors);
            }
        }
    }
}

/// Every metric, by name.
pub(crate) fn collect(app: &App, view: &AgentView) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    system::metrics(&mut metrics);
    let mut put = |name: &str, value: f64| {
        metrics.insert(name.to_owned(), value);
    };
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let counters = &app.counters;
    put("slave/registered", f64::from(u8::from(view.registered)));
    put("slave/uptime_secs", (now() - app.start_time).max(0.0));
    put("slave/recovery_errors", 0.0);
    put(
        "slave/recovery_time_secs",
        read(&counters.recovery_us) / 1e6,
    );
    let mut total = values::resources(&view.total);
    total.add(&values::resources(&view.oversubscribed));
    resources(&mut put, &total, &used(view));

    let live = view.frameworks.iter().filter(|it| !it.completed);
    put("slave/frameworks_active", live.count() as f64);
    let all = || view.frameworks.iter().flat_map(|it| &it.tasks);
    let launched = |state: TaskState| {
        let of = all().filter(|it| it.state == state as i32 && !it.completed);
        of.count() as f64
    };
    put("slave/tasks_staging", launched(TaskState::TaskStaging));
    put("slave/tasks_starting", launched(TaskState::TaskStarting));
    put("slave/tasks_running", launched(TaskState::TaskRunning));
    put("slave/tasks_killing", launched(TaskState::TaskKilling));
    let in_stage = |stage: Stage| all().filter(|it| tasks::stage(it) == stage).count() as f64;
    put("slave/executors_registering", in_stage(Stage::Queued));
    put("slave/executors_running", in_stage(Stage::Launched));
    put("slave/executors_terminating", 0.0);
    put("slave/executors_preempted", 0.0);
    {
        let ended = counters
            .ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (state, name) in ENDED {
            let count = ended.get(&(*state as i32)).copied().unwrap_or(0);
            put(&format!("slave/{name}"), count as f64);
        }
        put(
            "slave/executors_terminated",
            ended.values().sum::<u64>() as f64,
        );
    }
    put(
        "slave/container_launch_errors",
        read(&counters.launch_errors),
    );
    put("slave/valid_status_updates", read(&counters.updates));
    for name in [
        "slave/invalid_status_updates",
        "slave/valid_framework_messages",
        "slave/invalid_framework_messages",
        "containerizer/mesos/container_destroy_errors",
        "resource_provider_manager/subscribed",
        "resource_provider_manager/events/subscribe",
        "resource_provider_manager/events/disconnect",
    ] {
        put(name, 0.0);
    }
    let collector = &app.collector;
    let age = collector.allowed_age().as_secs_f64();
    put("slave/executor_directory_max_allowed_age_secs", age);
    put("gc/path_removals_pending", collector.pending() as f64);
    put("gc/path_removals_succeeded", read(&collector.succeeded));
    put("gc/path_removals_failed", read(&collector.failed));
    metrics
}

fn resources(put: &mut impl FnMut(&str, f64), total: &Resources, used: &Resources) {
    let amount = |of: &Resources, name: &str| of.scalar(name).map_or(0.0, |it| it.as_f64());
    for (suffix, total, used) in [
        ("", total.non_revocable(), used.non_revocable()),
        ("_revocable", total.revocable(), used.revocable()),
    ] {
        for name in ["cpus", "gpus", "mem", "disk"] {
            let (total, used) = (amount(&total, name), amount(&used, name));
            let percent = if total > 0.0 { used / total } else { 0.0 };
            put(&format!("slave/{name}{suffix}_total"), total);
            put(&format!("slave/{name}{suffix}_used"), used);
            put(&format!("slave/{name}{suffix}_percent"), percent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_updates_are_counted_by_state() {
        let counters = Counters::default();
        let update = |state: TaskState| link::Record {
            kind: Some(Kind::AppendUpdate(link::AppendUpdate {
                status_payload: wire::TaskStatus {
                    state: state as i32,
                    ..Default::default()
                }
                .encode_to_vec()
                .into(),
                ..Default::default()
            })),
        };
        counters.observe(&[
            update(TaskState::TaskRunning),
            update(TaskState::TaskFailed),
            link::Record { kind: None },
        ]);
        counters.observe(&[update(TaskState::TaskFailed)]);
        assert_eq!(counters.updates.load(Ordering::Relaxed), 3);
        let ended = counters.ended.lock().unwrap();
        assert_eq!(ended.get(&(TaskState::TaskFailed as i32)), Some(&2));
        assert_eq!(ended.len(), 1);
    }

    #[test]
    fn percents_of_nothing_are_zero() {
        let mut found = BTreeMap::new();
        let total = Resources::parse("cpus:4;mem:100", "*").unwrap();
        let used = Resources::parse("cpus:1", "*").unwrap();
        let mut put = |name: &str, value| {
            found.insert(name.to_owned(), value);
        };
        resources(&mut put, &total, &used);
        assert_eq!(found["slave/cpus_percent"], 0.25);
        assert_eq!(found["slave/gpus_percent"], 0.0);
        assert_eq!(found["slave/cpus_revocable_total"], 0.0);
        assert_eq!(found.len(), 24);
    }

    #[test]
    fn revocable_resources_have_figures_of_their_own() {
        let mut found = BTreeMap::new();
        let revocable = |text| -> Resources {
            let all = Resources::parse(text, "*").unwrap();
            let it = all.iter().map(|it| tepui_agent_machine::model::Resource {
                revocable: true,
                ..it.clone()
            });
            it.collect()
        };
        let mut total = Resources::parse("cpus:4;mem:100", "*").unwrap();
        total.add(&revocable("cpus:2"));
        let mut put = |name: &str, value| {
            found.insert(name.to_owned(), value);
        };
        resources(&mut put, &total, &revocable("cpus:0.5"));
        assert_eq!(found["slave/cpus_total"], 4.0);
        assert_eq!(found["slave/cpus_used"], 0.0);
        assert_eq!(found["slave/cpus_revocable_total"], 2.0);
        assert_eq!(found["slave/cpus_revocable_used"], 0.5);
        assert_eq!(found["slave/cpus_revocable_percent"], 0.25);
    }
}
