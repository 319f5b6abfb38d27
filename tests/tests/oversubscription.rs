//! Resources that are given away once more: from the agent's estimator to a task on them.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use tepui_tests::{
    cluster::{Cluster, wait_for},
    http,
    scheduler::{self, Scheduler},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until these metrics have these values.
fn wait_for_metrics(address: SocketAddr, wanted: &[(&str, f64)]) -> Result<()> {
    wait_for(&format!("{wanted:?}"), PATIENCE, || {
        let metrics = http::get(address, "/metrics/snapshot")?;
        let is = |(name, value): &(&str, f64)| metrics[*name] == *value;
        Ok(wanted.iter().all(is).then_some(()))
    })
}

fn revocable(offer: &Value) -> Vec<&Value> {
    let all = offer["resources"].as_array().into_iter().flatten();
    all.filter(|it| it["revocable"].is_object()).collect()
}

#[test]
fn a_task_runs_on_what_is_oversubscribed() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    let agent = cluster.add_agent(&[
        "--containerizers=process",
        "--resources=cpus:1;mem:256;disk:64",
        "--resource_estimator=fixed:cpus:4",
    ])?;
    let master = cluster.master.address;
    let at_agent = cluster.agents[agent].address;
    let total = |used: f64| {
        [
            ("master/cpus_total", 1.0),
            ("master/cpus_used", 0.0),
            ("master/cpus_revocable_total", 4.0),
            ("master/cpus_revocable_used", used),
            ("master/cpus_revocable_percent", used / 4.0),
        ]
    };
    wait_for_metrics(master, &total(0.0))?;
    wait_for_metrics(at_agent, &[("slave/cpus_revocable_total", 4.0)])?;
    let agents = http::get(master, "/slaves")?;
    let resources = &agents["slaves"][0]["resources"];
    ensure!(
        resources["cpus"] == 1.0 && resources["cpus_revocable"] == 4.0,
        "{agents}"
    );

    // Who does not bear losing them does not see them.
    let mut plain = Scheduler::plain(master, "plain")?;
    let offer = plain.offer(|_| true)?;
    ensure!(revocable(&offer).is_empty(), "{offer}");
    ensure!(scheduler::amount(&offer, "cpus") == 1.0, "{offer}");
    plain.decline(&offer, 3600.0)?;

    let capabilities = json!([{ "type": "REVOCABLE_RESOURCES" }, { "type": "PARTITION_AWARE" }]);
    let info = json!({
        "user": "root", "name": "bears", "failover_timeout": 600.0, "capabilities": capabilities
    });
    let mut bears = Scheduler::subscribe(master, info.clone())?;
    let mut offer =
        bears.offer(|it| !revocable(it).is_empty() && scheduler::amount(it, "mem") > 0.0)?;
    let cpus = revocable(&offer);
    ensure!(cpus.len() == 1 && cpus[0]["name"] == "cpus", "{offer}");
    ensure!(cpus[0]["scalar"]["value"] == 4.0, "{offer}");

    // Two of them and some memory that is the agent's own. The task tells its shares, and stays.
    let shares = "p=$(grep -E '^[0-9]+:([a-z_]+,)*cpu(,[a-z_]+)*:' /proc/self/cgroup | cut -d: -f3); \
                  if [ -n \"$p\" ]; then cat /sys/fs/cgroup/cpu$p/cpu.shares > shares; \
                  else cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/cpu.weight > shares; fi; \
                  sleep 1000";
    let mut task = scheduler::task("t", &offer, 2.0, 64.0, shares);
    for it in task["resources"].as_array_mut().context("resources")? {
        if it["name"] == "cpus" {
            it["revocable"] = json!({});
        }
    }
    bears.launch(&offer, vec![task])?;
    bears.wait_for_state("t", "TASK_RUNNING")?;
    wait_for_metrics(master, &total(2.0))?;
    wait_for_metrics(at_agent, &[("slave/cpus_revocable_used", 2.0)])?;
    let state = http::get(master, "/tasks")?;
    let resources = &state["tasks"][0]["resources"];
    ensure!(resources["cpus_revocable"] == 2.0, "{state}");
    let sandbox =
        http::get(at_agent, "/state")?["frameworks"][0]["executors"][0]["directory"].clone();
    let sandbox = sandbox.as_str().context("directory")?;
    let told = wait_for("the task's shares", PATIENCE, || {
        let text = std::fs::read_to_string(format!("{sandbox}/shares"))?;
        Ok(text.trim().parse::<u64>().ok())
    })?;
    // Ten a cpu; a weight, in cgroups of version 2, is a shadow of that.
    ensure!(told == 20 || told == 1, "{told}");

    // Another leader hears of it from the agent, and goes on where the one before was.
    cluster.restart_master()?;
    wait_for_metrics(master, &total(2.0))?;
    let mut again = info;
    again["id"] = json!({ "value": bears.framework_id });
    bears = Scheduler::subscribe(master, again)?;
    offer = bears.offer(|it| !revocable(it).is_empty())?;
    ensure!(revocable(&offer)[0]["scalar"]["value"] == 2.0, "{offer}");
    bears.accepted(json!({ "type": "KILL", "kill": { "task_id": { "value": "t" } } }))?;
    bears.wait_for_state("t", "TASK_KILLED")?;
    wait_for_metrics(master, &total(0.0))?;

    // Without an estimator there is nothing: the offers that were made of it come back.
    cluster.restart_agent(
        agent,
        &[
            "--containerizers=process",
            "--resources=cpus:1;mem:256;disk:64",
        ],
    )?;
    wait_for_metrics(master, &[("master/cpus_revocable_total", 0.0)])
}

#[test]
fn cpus_that_a_task_does_not_use_are_given_away_once_more() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    let agent = cluster.add_agent(&[
        "--containerizers=process",
        "--resources=cpus:2;mem:256",
        "--resource_estimator=usage",
        "--oversubscribed_resources_interval=200ms",
    ])?;
    let at_agent = cluster.agents[agent].address;
    let mut scheduler = Scheduler::plain(cluster.master.address, "sleeps")?;
    let offer = scheduler.offer(|_| true)?;
    let task = scheduler::task("t", &offer, 2.0, 64.0, "sleep 1000");
    scheduler.launch(&offer, vec![task])?;
    scheduler.wait_for_state("t", "TASK_RUNNING")?;
    for (address, metric) in [
        (at_agent, "slave/cpus_revocable_total"),
        (cluster.master.address, "master/cpus_revocable_total"),
    ] {
        wait_for(metric, PATIENCE, || {
            let total = http::get(address, "/metrics/snapshot")?[metric].clone();
            let idle = total.as_f64().is_some_and(|it| (1.0..=2.0).contains(&it));
            Ok(idle.then_some(()))
        })?;
    }
    scheduler.accepted(json!({ "type": "KILL", "kill": { "task_id": { "value": "t" } } }))?;
    scheduler.wait_for_state("t", "TASK_KILLED")?;
    wait_for_metrics(
        cluster.master.address,
        &[("master/cpus_revocable_total", 0.0)],
    )
}

#[test]
fn estimators_that_are_none_are_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (flag, names) in [
        ("fixed", "fixed:RESOURCES"),
        ("fixed:cpus(web):1", "reserved"),
        (
            "org_apache_mesos_FixedResourceEstimator",
            "neither usage nor",
        ),
    ] {
        let output = std::process::Command::new(tepui_tests::cluster::binary("tepui-agent"))
            .arg("--master=127.0.0.1:1")
            .arg(format!("--work_dir={}", folder.path().display()))
            .arg(format!("--resource_estimator={flag}"))
            .output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{output:?}");
        ensure!(
            error.contains(names) && error.contains("--resource_estimator"),
            "{error}"
        );
    }
    Ok(())
}
