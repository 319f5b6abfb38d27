//! What survives `kill -9`.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tepui_tests::{
    cluster::{Cluster, wait_for},
    http,
    scheduler::{self, Scheduler},
};

const AGENT: &[&str] = &[
    "--containerizers=process",
    "--resources=cpus:8;mem:8192;disk:8192;ports:[31000-31999]",
];

fn durable(name: &str) -> serde_json::Value {
    json!({ "user": "root", "name": name, "failover_timeout": 600.0, "checkpoint": true })
}

/// Everything acknowledged is there again after the master's death: framework, task,
/// reservation, and the task was never disturbed.
#[test]
fn a_killed_master_comes_back_with_everything() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    let master = cluster.master.address;
    let mut scheduler = Scheduler::subscribe(master, durable("survivor"))?;
    let offer = scheduler.offer(|offer| scheduler::amount(offer, "cpus") >= 1.0)?;
    let task = scheduler::task("stays", &offer, 0.5, 64.0, "echo $$ > pid; exec sleep 1000");
    scheduler.launch(&offer, vec![task])?;
    scheduler.wait_for_state("stays", "TASK_RUNNING")?;
    let before = container_of(&cluster, "stays")?;

    cluster.restart_master()?;
    wait_for("the agent to come back", http::PATIENCE, || {
        let state = http::get(master, "/slaves")?;
        Ok((state["slaves"][0]["active"] == true).then_some(()))
    })?;
    let state = http::get(master, "/state")?;
    let framework = &state["frameworks"][0];
    ensure!(
        framework["id"] == scheduler.framework_id.as_str(),
        "{framework}"
    );
    ensure!(framework["tasks"][0]["id"] == "stays", "{framework}");
    ensure!(
        framework["tasks"][0]["state"] == "TASK_RUNNING",
        "{framework}"
    );

    // The framework subscribes again with its id and goes on where it was.
    let mut info = durable("survivor");
    info["id"] = json!({ "value": scheduler.framework_id });
    let mut again = Scheduler::subscribe(master, info)?;
    ensure!(again.framework_id == scheduler.framework_id);
    again.accepted(json!({ "type": "RECONCILE", "reconcile": { "tasks": [] } }))?;
    let status = again.update("stays", http::PATIENCE)?;
    ensure!(status["state"] == "TASK_RUNNING", "{status}");
    ensure!(
        container_of(&cluster, "stays")? == before,
        "another container"
    );
    again.accepted(json!({ "type": "KILL", "kill": { "task_id": { "value": "stays" } } }))?;
    again.wait_for_state("stays", "TASK_KILLED")?;
    Ok(())
}

fn container_of(cluster: &Cluster, task: &str) -> Result<String> {
    let tasks = http::get(cluster.master.address, "/tasks")?;
    let found = tasks["tasks"].as_array().into_iter().flatten();
    let found: Vec<_> = found.filter(|it| it["id"] == task).collect();
    let statuses = found.first().context("the task")?["statuses"].clone();
    let last = statuses
        .as_array()
        .and_then(|it| it.last())
        .context("a status")?;
    let id = &last["container_status"]["container_id"]["value"];
    Ok(id.as_str().context("a container")?.to_owned())
}

/// Tasks do not notice the death of their agent; one that ended meanwhile is reported
/// with its own exit status.
#[test]
fn a_killed_agent_finds_its_process_tasks_again() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    let mut scheduler = Scheduler::subscribe(cluster.master.address, durable("steady"))?;
    let offer = scheduler.offer(|offer| scheduler::amount(offer, "cpus") >= 4.0)?;
    let flag = cluster.folder().join("go");
    let mut tasks: Vec<_> = (0..20)
        .map(|n| scheduler::task(&format!("stays-{n}"), &offer, 0.1, 32.0, "sleep 1000"))
        .collect();
    let waits = format!(
        "while [ ! -e {} ]; do sleep 0.05; done; exit 7",
        flag.display()
    );
    tasks.push(scheduler::task("ends", &offer, 0.1, 32.0, &waits));
    scheduler.launch(&offer, tasks)?;
    for n in 0..20 {
        scheduler.wait_for_state(&format!("stays-{n}"), "TASK_RUNNING")?;
    }
    scheduler.wait_for_state("ends", "TASK_RUNNING")?;
    let before = containers(&cluster)?;

    cluster.agents[0].kill()?;
    std::fs::write(&flag, "")?;
    wait_for("the shell of the task to end", http::PATIENCE, || {
        Ok((!process_with(&flag.display().to_string())?).then_some(()))
    })?;
    cluster.restart_agent(0, AGENT)?;
    let ended = scheduler.wait_for_state("ends", "TASK_FAILED")?;
    let message = ended["message"].as_str().unwrap_or_default();
    ensure!(message.ends_with("status 7"), "{ended}");

    let after = containers(&cluster)?;
    for n in 0..20 {
        let id = format!("stays-{n}");
        ensure!(before[&id] == after[&id], "{id}: another container");
    }
    let kill = json!({ "type": "KILL", "kill": { "task_id": { "value": "stays-7" } } });
    scheduler.accepted(kill)?;
    scheduler.wait_for_state("stays-7", "TASK_KILLED")?;
    scheduler.accepted(json!({ "type": "TEARDOWN" }))?;
    wait_for("all tasks to be gone", Duration::from_secs(60), || {
        let agent = http::get(cluster.agents[0].address, "/state")?;
        let frameworks = agent["frameworks"].as_array().map_or(0, Vec::len);
        Ok((frameworks == 0).then_some(()))
    })
}

/// Container of each task that the master shows.
fn containers(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let tasks = http::get(cluster.master.address, "/tasks?limit=1000")?;
    let mut found = BTreeMap::new();
    for task in tasks["tasks"].as_array().context("tasks")? {
        let id = task["id"].as_str().context("an id")?.to_owned();
        let container = container_of(cluster, &id)?;
        found.insert(id, container);
    }
    Ok(found)
}

/// Whether a process has this text in its command line.
fn process_with(text: &str) -> Result<bool> {
    for process in procfs::process::all_processes()? {
        // A process may end while it is looked at.
        let words = process.and_then(|it| it.cmdline()).unwrap_or_default();
        if words.iter().any(|word| word.contains(text)) && words.iter().any(|it| it == "-c") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A work folder that was wiped is a new agent; the tasks of the old one are lost.
#[test]
fn a_wiped_agent_is_a_new_agent() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    let master = cluster.master.address;
    let first = http::get(master, "/slaves")?["slaves"][0]["id"].clone();
    let mut scheduler = Scheduler::subscribe(master, durable("unlucky"))?;
    let offer = scheduler.offer(|_| true)?;
    let task = scheduler::task("gone", &offer, 0.1, 32.0, "sleep 1000");
    scheduler.launch(&offer, vec![task])?;
    scheduler.wait_for_state("gone", "TASK_RUNNING")?;

    cluster.agents[0].kill()?;
    std::fs::remove_dir_all(&cluster.agents[0].work_dir)?;
    cluster.restart_agent(0, AGENT)?;
    let status = scheduler.update("gone", http::PATIENCE)?;
    ensure!(status["state"] == "TASK_LOST", "{status}");
    let second = http::get(master, "/slaves")?["slaves"][0]["id"].clone();
    ensure!(first != second, "{first} {second}");
    Ok(())
}
