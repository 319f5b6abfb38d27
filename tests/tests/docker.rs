//! Tasks as containers of a real engine.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path, process::Command, sync::Once, time::Duration};
use tepui_tests::{
    cluster::{Cluster, wait_for},
    http,
    scheduler::{self, Scheduler},
};

const AGENT: &[&str] = &[
    "--containerizers=docker",
    "--resources=cpus:8;mem:8192;disk:8192;ports:[31000-31999]",
];

/// The image of the tests, made once from busybox.
const IMAGE: &str = "tepui-test:1";

/// Fails loudly when there is no engine: these tests are never skipped.
fn image() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the root");
        for script in ["docker.sh", "test-image.sh"] {
            let output = Command::new(root.join("scripts").join(script))
                .output()
                .expect("the script runs");
            assert!(
                output.status.success(),
                "scripts/{script}: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
    });
}

fn started(name: &str) -> Result<(Cluster, Scheduler, Value)> {
    image();
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    let info = json!({ "user": "root", "name": name, "failover_timeout": 600.0 });
    let mut scheduler = Scheduler::subscribe(cluster.master.address, info)?;
    let offer = scheduler.offer(|offer| scheduler::amount(offer, "cpus") >= 4.0)?;
    Ok((cluster, scheduler, offer))
}

fn container(mut task: Value, docker: Value) -> Value {
    let mut info = json!({ "image": IMAGE });
    for (name, value) in docker.as_object().into_iter().flatten() {
        info[name.as_str()] = value.clone();
    }
    task["container"] = json!({ "type": "DOCKER", "docker": info });
    task
}

/// Waits until nothing that this cluster started is left in the engine.
fn assert_clean(scheduler: &Scheduler, names: &[String]) -> Result<()> {
    scheduler.accepted(json!({ "type": "TEARDOWN" }))?;
    wait_for("the containers to be gone", Duration::from_secs(60), || {
        let output = Command::new("docker")
            .args(["ps", "--format", "{{.Names}}"])
            .output()
            .context("docker ps")?;
        let running = String::from_utf8(output.stdout)?;
        let left = names.iter().any(|name| running.contains(name.as_str()));
        Ok((!left).then_some(()))
    })
}

#[test]
fn commands_environment_and_exit_status() -> Result<()> {
    let (cluster, mut scheduler, offer) = started("docker")?;
    let mut echo = container(
        scheduler::task(
            "echo",
            &offer,
            0.1,
            64.0,
            "echo $GREETING; echo oops >&2; exit 3",
        ),
        json!({}),
    );
    echo["command"]["environment"] =
        json!({ "variables": [{ "name": "GREETING", "value": "hello there" }] });
    let mut argv = container(
        scheduler::task("argv", &offer, 0.1, 64.0, "echo"),
        json!({}),
    );
    argv["command"] = json!({ "shell": false, "value": "echo", "arguments": ["a  b", "$HOME"] });
    let missing = {
        let mut task = container(
            scheduler::task("missing", &offer, 0.1, 64.0, "true"),
            json!({}),
        );
        task["container"]["docker"]["image"] = json!("127.0.0.1:1/not/there:1");
        task
    };
    scheduler.launch(&offer, vec![echo, argv, missing])?;
    let failed = scheduler.wait_for_state("echo", "TASK_FAILED")?;
    ensure!(
        failed["message"]
            .as_str()
            .is_some_and(|it| it.ends_with("status 3")),
        "{failed}"
    );
    scheduler.wait_for_state("argv", "TASK_FINISHED")?;
    let missing = scheduler.wait_for_state("missing", "TASK_FAILED")?;
    ensure!(
        missing["reason"] == "REASON_CONTAINER_LAUNCH_FAILED",
        "{missing}"
    );
    ensure!(
        missing["message"]
            .as_str()
            .is_some_and(|it| it.contains("127.0.0.1:1")),
        "{missing}"
    );
    let agent = cluster.agents[0].address;
    for (task, file, text) in [
        ("echo", "stdout", "hello there\n"),
        ("echo", "stderr", "oops\n"),
        ("argv", "stdout", "a  b $HOME\n"),
    ] {
        let framework = &scheduler.framework_id;
        let path = format!("/frameworks/{framework}/executors/{task}/runs/latest/{file}");
        let read = http::get(agent, &format!("/files/read?path={path}&offset=0"))?;
        ensure!(read["data"] == text, "{task} {file}: {read}");
    }
    scheduler.accepted(json!({ "type": "TEARDOWN" }))
}

#[test]
fn a_container_over_its_memory_limit_says_so() -> Result<()> {
    let (_cluster, mut scheduler, offer) = started("greedy")?;
    // tail keeps its whole input in memory to find the last line.
    let greedy = container(
        scheduler::task("greedy", &offer, 0.5, 32.0, "tail /dev/zero"),
        json!({}),
    );
    scheduler.launch(&offer, vec![greedy])?;
    let status = scheduler.wait_for_state("greedy", "TASK_FAILED")?;
    ensure!(
        status["reason"] == "REASON_CONTAINER_LIMITATION_MEMORY",
        "{status}"
    );
    scheduler.accepted(json!({ "type": "TEARDOWN" }))
}

#[test]
fn containers_survive_the_agent() -> Result<()> {
    let (mut cluster, mut scheduler, offer) = started("steady")?;
    let flag = cluster.folder().join("go");
    let count = 6;
    let mut tasks: Vec<Value> = (0..count)
        .map(|n| {
            let task = scheduler::task(&format!("stays-{n}"), &offer, 0.1, 32.0, "exec sleep 1000");
            container(task, json!({}))
        })
        .collect();
    let waits = "while [ ! -e /flags/go ]; do sleep 0.1; done; exit 7";
    let mut ends = container(scheduler::task("ends", &offer, 0.1, 32.0, waits), json!({}));
    ends["container"]["volumes"] = json!([{
        "container_path": "/flags", "host_path": cluster.folder(), "mode": "RO"
    }]);
    tasks.push(ends);
    scheduler.launch(&offer, tasks)?;
    for n in 0..count {
        scheduler.wait_for_state(&format!("stays-{n}"), "TASK_RUNNING")?;
    }
    let ends = scheduler.wait_for_state("ends", "TASK_RUNNING")?;
    let name = format!(
        "mesos-{}",
        ends["container_status"]["container_id"]["value"]
            .as_str()
            .context("a container")?
    );
    let before = pids()?;

    cluster.agents[0].kill()?;
    std::fs::write(&flag, "")?;
    wait_for("the container to end", Duration::from_secs(60), || {
        Ok((!pids()?.contains_key(&name)).then_some(()))
    })?;
    cluster.restart_agent(0, AGENT)?;
    let ended = scheduler.wait_for_state("ends", "TASK_FAILED")?;
    ensure!(
        ended["message"]
            .as_str()
            .is_some_and(|it| it.ends_with("status 7")),
        "{ended}"
    );
    let after = pids()?;
    let ours: Vec<String> = before.keys().filter(|it| **it != name).cloned().collect();
    let same = ours
        .iter()
        .filter(|it| after.get(*it) == before.get(*it))
        .count();
    ensure!(
        same >= count,
        "{same} of {count} containers are the same: {before:?} {after:?}"
    );
    assert_clean(&scheduler, &[name])
}

/// Process id of every running container whose name is ours, by name.
fn pids() -> Result<BTreeMap<String, String>> {
    let list = Command::new("docker")
        .args(["ps", "-q", "--filter", "name=mesos-"])
        .output()?;
    let ids = String::from_utf8(list.stdout)?;
    let mut found = BTreeMap::new();
    for id in ids.split_whitespace() {
        let inspect = Command::new("docker")
            .args(["inspect", "--format", "{{.Name}} {{.State.Pid}}", id])
            .output()?;
        let line = String::from_utf8(inspect.stdout)?;
        // It may have ended in between.
        if let Some((name, pid)) = line.trim().split_once(' ') {
            found.insert(name.trim_start_matches('/').to_owned(), pid.to_owned());
        }
    }
    Ok(found)
}
