//! Tasks as processes: limits, kills, output.

use anyhow::{Result, ensure};
use serde_json::json;
use std::time::Duration;
use tepui_tests::{
    cluster::{Cluster, wait_for},
    http,
    scheduler::{self, Scheduler},
};

const AGENT: &[&str] = &[
    "--containerizers=process",
    "--cgroups_enable_cfs",
    "--resources=cpus:4;mem:4096;disk:4096;ports:[31000-31099]",
];

fn started(name: &str) -> Result<(Cluster, Scheduler, serde_json::Value)> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    let mut scheduler = Scheduler::plain(cluster.master.address, name)?;
    let offer = scheduler.offer(|offer| scheduler::amount(offer, "cpus") >= 2.0)?;
    Ok((cluster, scheduler, offer))
}

#[test]
fn a_process_over_its_memory_limit_says_so() -> Result<()> {
    let (_cluster, mut scheduler, offer) = started("greedy")?;
    let task = scheduler::task("greedy", &offer, 0.5, 32.0, "tail /dev/zero");
    scheduler.launch(&offer, vec![task])?;
    let status = scheduler.wait_for_state("greedy", "TASK_FAILED")?;
    ensure!(
        status["reason"] == "REASON_CONTAINER_LIMITATION_MEMORY",
        "{status}"
    );
    Ok(())
}

/// A grandchild that has left the session of its task dies with it.
#[test]
fn nothing_of_a_killed_task_is_left() -> Result<()> {
    let (cluster, mut scheduler, offer) = started("family")?;
    let mark = format!("{}.25", 100_000 + std::process::id());
    let line = format!("setsid sh -c 'sleep {mark} & exec sleep {mark}' & exec sleep {mark}");
    let task = scheduler::task("family", &offer, 0.5, 64.0, &line);
    scheduler.launch(&offer, vec![task])?;
    scheduler.wait_for_state("family", "TASK_RUNNING")?;
    wait_for("the family", http::PATIENCE, || {
        Ok((count(&mark)? >= 3).then_some(()))
    })?;
    scheduler.accepted(json!({ "type": "KILL", "kill": { "task_id": { "value": "family" } } }))?;
    scheduler.wait_for_state("family", "TASK_KILLED")?;
    wait_for("the end of the family", Duration::from_secs(10), || {
        Ok((count(&mark)? == 0).then_some(()))
    })?;
    drop(cluster);
    Ok(())
}

/// Processes that sleep for exactly this long.
fn count(mark: &str) -> Result<usize> {
    let mut found = 0;
    for process in procfs::process::all_processes()? {
        // A process may end while it is looked at.
        let words = process.and_then(|it| it.cmdline()).unwrap_or_default();
        if words.len() == 2 && words[0] == "sleep" && words[1] == mark {
            found += 1;
        }
    }
    Ok(found)
}

#[test]
fn a_kill_has_a_grace_and_then_none() -> Result<()> {
    let (_cluster, mut scheduler, offer) = started("stubborn")?;
    let polite = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let stubborn = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    let mut tasks = vec![
        scheduler::task("polite", &offer, 0.2, 32.0, polite),
        scheduler::task("stubborn", &offer, 0.2, 32.0, stubborn),
    ];
    tasks[1]["kill_policy"] = json!({ "grace_period": { "nanoseconds": 200_000_000 } });
    scheduler.launch(&offer, tasks)?;
    for id in ["polite", "stubborn"] {
        scheduler.wait_for_state(id, "TASK_RUNNING")?;
        scheduler.accepted(json!({ "type": "KILL", "kill": { "task_id": { "value": id } } }))?;
        scheduler.wait_for_state(id, "TASK_KILLED")?;
    }
    Ok(())
}

/// What a task uses is what it was given: cpu time against the periods in which it was
/// throttled, not against a clock.
#[test]
fn half_a_cpu_is_half_a_cpu() -> Result<()> {
    let (cluster, mut scheduler, offer) = started("spinner")?;
    let task = scheduler::task("spinner", &offer, 0.5, 32.0, "while :; do :; done");
    scheduler.launch(&offer, vec![task])?;
    scheduler.wait_for_state("spinner", "TASK_RUNNING")?;
    let sample = || -> Result<(f64, f64)> {
        let all = http::get(cluster.agents[0].address, "/monitor/statistics")?;
        let statistics = all[0]["statistics"].clone();
        let number = |name: &str| statistics[name].as_f64().unwrap_or(0.0);
        let cpu = number("cpus_user_time_secs") + number("cpus_system_time_secs");
        Ok((cpu, number("cpus_nr_periods")))
    };
    let (cpu, periods) = wait_for("statistics", http::PATIENCE, || {
        let (cpu, periods) = sample()?;
        Ok((periods > 0.0).then_some((cpu, periods)))
    })?;
    // Twenty periods of 100 ms later it has had half of each, give or take one.
    let (cpu_later, periods_later) = wait_for("periods to pass", http::PATIENCE, || {
        let (later, now) = sample()?;
        Ok((now >= periods + 20.0).then_some((later, now)))
    })?;
    let share = (cpu_later - cpu) / ((periods_later - periods) * 0.1);
    ensure!(
        (0.30..0.62).contains(&share),
        "a share of {share} instead of 0.5"
    );
    Ok(())
}

#[test]
fn health_checks_are_told_and_kill() -> Result<()> {
    let (_cluster, mut scheduler, offer) = started("patient")?;
    let mut task = scheduler::task("patient", &offer, 0.2, 32.0, "touch well; sleep 1000");
    task["health_check"] = json!({
        "type": "COMMAND", "command": { "value": "test -e well" },
        "delay_seconds": 0, "interval_seconds": 0.2, "timeout_seconds": 5,
        "grace_period_seconds": 0, "consecutive_failures": 2
    });
    let mut sick = scheduler::task("sick", &offer, 0.2, 32.0, "sleep 1000");
    sick["health_check"] = json!({
        "type": "COMMAND", "command": { "value": "false" },
        "delay_seconds": 0, "interval_seconds": 0.2, "timeout_seconds": 5,
        "grace_period_seconds": 0, "consecutive_failures": 2
    });
    scheduler.launch(&offer, vec![task, sick])?;
    loop {
        let status = scheduler.update("patient", http::PATIENCE)?;
        if status["healthy"] == true {
            ensure!(
                status["reason"] == "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED",
                "{status}"
            );
            break;
        }
    }
    let killed = scheduler.wait_for_state("sick", "TASK_KILLED")?;
    ensure!(killed["healthy"] == false, "{killed}");
    scheduler.accepted(json!({ "type": "TEARDOWN" }))
}

#[test]
fn uris_are_fetched_and_failures_name_them() -> Result<()> {
    let (cluster, mut scheduler, offer) = started("fetcher")?;
    let file = cluster.folder().join("input.txt");
    std::fs::write(&file, "content\n")?;
    let mut good = scheduler::task("good", &offer, 0.2, 32.0, "cat input.txt");
    good["command"]["uris"] = json!([{ "value": format!("file://{}", file.display()) }]);
    let mut bad = scheduler::task("bad", &offer, 0.2, 32.0, "true");
    bad["command"]["uris"] = json!([{ "value": "file:///not/there.tar.gz" }]);
    scheduler.launch(&offer, vec![good, bad])?;
    scheduler.wait_for_state("good", "TASK_FINISHED")?;
    let failed = scheduler.wait_for_state("bad", "TASK_FAILED")?;
    ensure!(
        failed["reason"] == "REASON_CONTAINER_LAUNCH_FAILED",
        "{failed}"
    );
    let message = failed["message"].as_str().unwrap_or_default();
    ensure!(message.contains("/not/there.tar.gz"), "{message}");
    let path = format!(
        "/frameworks/{}/executors/good/runs/latest/stdout",
        scheduler.framework_id
    );
    let read = http::get(
        cluster.agents[0].address,
        &format!("/files/read?path={path}&offset=0"),
    )?;
    ensure!(read["data"] == "content\n", "{read}");
    Ok(())
}
