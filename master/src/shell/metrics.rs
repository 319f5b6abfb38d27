//! Metrics by Mesos' names: gauges of the view, counters of the machine.

use crate::{
    shell::door::App,
    view::{View, totals},
};
use std::{collections::BTreeMap, sync::atomic::Ordering};
use tepui_master_machine::model::{
    Quantities, log,
    wire::{TaskState, task_status::Reason, task_status::Source},
};
use tepui_server::system;

/// Every metric, by name.
pub(crate) async fn collect(app: &App) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    system::metrics(&mut metrics);
    let status = app.shared.status();
    let leading = app.shared.is_leading();
    let mut put = |name: &str, value: f64| {
        metrics.insert(name.to_owned(), value);
    };
    put("master/elected", f64::from(u8::from(leading)));
    let uptime = crate::shell::core::wall_now().0 - app.start_time;
    put("master/uptime_secs", uptime.max(0.0));
    let subscribers = app.subscribers.load(Ordering::Relaxed);
    put(
        "master/operator_event_stream_subscribers",
        subscribers as f64,
    );
    put("master/event_queue_messages", 0.0);
    put("master/event_queue_dispatches", app.intake.waiting() as f64);
    put("master/event_queue_http_requests", 0.0);
    put("master/panics_survived", status.panics as f64);
    if let Some(counters) = &status.counters {
        for (name, value) in counters.iter() {
            match name.strip_prefix("allocator/") {
                Some(name) => put(&format!("allocator/mesos/{name}"), value as f64),
                None => put(&format!("master/{name}"), value as f64),
            }
        }
        for (state, source, reason, count) in counters.terminal() {
            let lower = |name: &str, prefix: &str| {
                name.strip_prefix(prefix)
                    .unwrap_or(name)
                    .to_ascii_lowercase()
            };
            let (Ok(state), Ok(source)) = (TaskState::try_from(state), Source::try_from(source))
            else {
                continue;
            };
            let state = state.as_str_name().to_ascii_lowercase();
            let source = source.as_str_name().to_ascii_lowercase();
            let reason = reason.and_then(|it| Reason::try_from(it).ok());
            let name = match reason {
                Some(reason) => {
                    let reason = lower(reason.as_str_name(), "");
                    format!("master/{state}/{source}/{reason}")
                }
                None => format!("master/{state}/{source}"),
            };
            put(&name, count as f64);
        }
    }
    // A master that does not lead has nothing to count: its gauges are zero.
    if let Ok(view) = app.snapshot().await {
        gauges(&view, &mut put);
    }
    metrics
}

fn gauges(view: &View, put: &mut impl FnMut(&str, f64)) {
    let state = view.state();
    let (mut total, mut used, mut offered) =
        (Quantities::new(), Quantities::new(), Quantities::new());
    let (mut revocable, mut revocable_used) = (Quantities::new(), Quantities::new());
    let mut agents = [0u32; 4];
    for (id, row, link) in view.registered_agents() {
        agents[if link.connected { 0 } else { 1 }] += 1;
        agents[if link.active { 2 } else { 3 }] += 1;
        let resources = totals::resources(&row.total);
        total.add(&resources.non_revocable().quantities());
        revocable.add(&resources.revocable().quantities());
        let sum = totals::of_agent(view, id);
        used.add(&sum.used.non_revocable().quantities());
        revocable_used.add(&sum.used.revocable().quantities());
        offered.add(&sum.offered.quantities());
    }
    let names = [
        "slaves_connected",
        "slaves_disconnected",
        "slaves_active",
        "slaves_inactive",
    ];
    for (name, count) in names.iter().zip(agents) {
        put(&format!("master/{name}"), count.into());
    }
    let unreachable = log::AgentState::Unreachable as i32;
    let unreachable = state
        .agents()
        .filter(|(_, it)| it.state == unreachable)
        .count();
    put("master/slaves_unreachable", unreachable as f64);
    let mut frameworks = [0u32; 4];
    for (id, _) in state.frameworks() {
        let link = view.framework_link(id);
        frameworks[if link.connected { 0 } else { 1 }] += 1;
        frameworks[if link.active { 2 } else { 3 }] += 1;
    }
    for (name, count) in ["connected", "disconnected", "active", "inactive"]
        .iter()
        .zip(frameworks)
    {
        put(&format!("master/frameworks_{name}"), count.into());
    }
    put("master/outstanding_offers", view.offers().len() as f64);
    let mut tasks = [0u32; 5];
    for (_, _, task) in state.tasks() {
        let index = match TaskState::try_from(task.state) {
            _ if task.unreachable => 4,
            Ok(TaskState::TaskStaging) => 0,
            Ok(TaskState::TaskStarting) => 1,
            Ok(TaskState::TaskRunning) => 2,
            Ok(TaskState::TaskKilling) => 3,
            _ => continue,
        };
        tasks[index] += 1;
    }
    for (name, count) in ["staging", "starting", "running", "killing", "unreachable"]
        .iter()
        .zip(tasks)
    {
        put(&format!("master/tasks_{name}"), count.into());
    }
    put("master/operations/pending", state.operations().len() as f64);
    let percent = |used: f64, total: f64| if total > 0.0 { used / total } else { 0.0 };
    for name in ["cpus", "gpus", "mem", "disk"] {
        for (kind, all, used) in [
            ("", &total, &used),
            ("revocable_", &revocable, &revocable_used),
        ] {
            let (all, used) = (all.get(name).as_f64(), used.get(name).as_f64());
            put(&format!("master/{name}_{kind}total"), all);
            put(&format!("master/{name}_{kind}used"), used);
            put(&format!("master/{name}_{kind}percent"), percent(used, all));
        }
        if name != "gpus" {
            let prefix = format!("allocator/mesos/resources/{name}");
            put(&format!("{prefix}/total"), total.get(name).as_f64());
            let both = used.get(name).as_f64() + offered.get(name).as_f64();
            put(&format!("{prefix}/offered_or_allocated"), both);
        }
    }
}
