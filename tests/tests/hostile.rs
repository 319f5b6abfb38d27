//! Malformed, oversized and hostile clients: a clear refusal, and nobody else notices.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};
use tepui_tests::{
    cluster::{Cluster, wait_for},
    http::{self, Stream},
    scheduler::{self, Scheduler},
};

const AGENT: &[&str] = &[
    "--containerizers=process",
    "--resources=cpus:4;mem:2048;disk:4096;ports:[31000-31099]",
];

/// A framework that works goes on working: it gets an offer and runs a task.
fn still_serves(cluster: &Cluster, name: &str) -> Result<()> {
    let mut scheduler = Scheduler::plain(cluster.master.address, name)?;
    let offer = scheduler.offer(|offer| scheduler::amount(offer, "cpus") >= 0.5)?;
    let task = scheduler::task(name, &offer, 0.1, 32.0, "true");
    scheduler.launch(&offer, vec![task])?;
    scheduler.wait_for_state(name, "TASK_FINISHED")?;
    scheduler.accepted(json!({ "type": "TEARDOWN" }))
}

/// Sends bytes, closes the sending half, and reads what comes.
fn raw(address: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(http::PATIENCE))?;
    // The server may refuse before it has read everything.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    Ok(answer)
}

#[test]
fn garbage_on_every_port_changes_nothing() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    let addresses = [cluster.master.address, cluster.agents[0].address];
    // A cheap generator is enough: what matters is that it is not HTTP.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for address in addresses {
        for length in [1, 10, 1000, 100_000] {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })
                .collect();
            raw(address, &bytes)?;
        }
        // The preface of HTTP/2 and then nothing sensible.
        raw(
            address,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense that is no frame",
        )?;
        raw(address, b"GET / HTTP/9.9\r\n\r\n")?;
        raw(
            address,
            b"POST /api/v1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        )?;
    }
    still_serves(&cluster, "after-garbage")
}

#[test]
fn bad_bodies_are_refused_by_name() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    let master = cluster.master.address;
    let json = [("Content-Type", "application/json")];
    let deep = format!(
        r#"{{"type":"SUBSCRIBE","subscribe":{}"#,
        "{\"framework_info\":".repeat(10_000)
    );
    let infinite = r#"{"type":"KILL","framework_id":{"value":"x"},"kill":{"task_id":{"value":7}}}"#;
    for (body, names) in [
        (deep.as_str(), "JSON"),
        (infinite, "kill.task_id.value"),
        (
            r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"name":"x"}}}"#,
            "subscribe.framework_info.user",
        ),
        (
            r#"{"type":"ACCEPT","framework_id":{"value":"x"},"accept":{"operations":[{"type":"LAUNCH","launch":{"task_infos":[{"name":"a"}]}}]}}"#,
            "accept.operations[0].launch.task_infos[0]",
        ),
        ("[1,2,3]", "object"),
        ("", ""),
    ] {
        let answer = http::send(master, "POST", "/api/v1/scheduler", &json, body.as_bytes())?;
        ensure!(answer.status == 400, "{}: {}", answer.status, answer.text());
        ensure!(
            answer.text().contains(names),
            "{:?} does not name {names}",
            answer.text()
        );
    }
    let protobuf = [("Content-Type", "application/x-protobuf")];
    for body in [&b"\xff\xff\xff\xff"[..], &[0x0a; 1000], b"\x22\x02\x0a\x00"] {
        let answer = http::send(master, "POST", "/api/v1/scheduler", &protobuf, body)?;
        ensure!(answer.status == 400, "{}: {}", answer.status, answer.text());
        ensure!(!answer.text().is_empty());
    }
    still_serves(&cluster, "after-bad-bodies")
}

#[test]
fn oversized_bodies_are_refused_without_being_read() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    for address in [cluster.master.address, cluster.agents[0].address] {
        let head = "POST /api/v1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                    Content-Length: 1000000000000\r\n\r\n";
        let answer = raw(address, head.as_bytes())?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
    still_serves(&cluster, "after-large-bodies")
}

/// Tasks that a framework must not be able to have: each gets a status that says why.
#[test]
fn absurd_tasks_are_refused_one_by_one() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    let mut scheduler = Scheduler::plain(cluster.master.address, "absurd")?;
    let mut absurd = Vec::new();
    let offer = scheduler.offer(|offer| scheduler::amount(offer, "cpus") >= 1.0)?;
    for (id, change) in [
        ("../../etc", json!({})),
        (
            "too-much",
            json!({ "resources": [{ "name": "cpus", "type": "SCALAR", "scalar": { "value": 1e9 } }] }),
        ),
        ("no-resources", json!({ "resources": [] })),
        (
            "both",
            json!({ "executor": { "executor_id": { "value": "e" }, "command": { "value": "true" } } }),
        ),
        (
            "other-agent",
            json!({ "agent_id": { "value": "somewhere-else" } }),
        ),
        ("health", json!({ "health_check": { "type": "HTTP" } })),
    ] {
        let mut task = scheduler::task(id, &offer, 0.1, 32.0, "true");
        for (name, value) in change.as_object().into_iter().flatten() {
            task[name.as_str()] = value.clone();
        }
        absurd.push((id, task));
    }
    let good = scheduler::task("good", &offer, 0.1, 32.0, "true");
    let tasks = absurd.iter().map(|(_, task)| task.clone());
    scheduler.launch(&offer, tasks.chain([good]).collect())?;
    for (id, _) in &absurd {
        let status = scheduler.update(id, http::PATIENCE)?;
        ensure!(status["state"] == "TASK_ERROR", "{id}: {status}");
        let message = status["message"].as_str().unwrap_or_default();
        ensure!(message.len() > 10, "{id}: {status}");
    }
    scheduler.wait_for_state("good", "TASK_FINISHED")?;

    // Resources that cannot be read spoil the whole launch, as with Mesos, and nothing else.
    let offer = scheduler.offer(|offer| scheduler::amount(offer, "cpus") >= 1.0)?;
    let mut backward = scheduler::task("backward", &offer, 0.1, 32.0, "true");
    backward["resources"] = json!([{ "name": "ports", "type": "RANGES", "ranges": { "range": [{ "begin": 9, "end": 1 }] } }]);
    let beside = scheduler::task("beside", &offer, 0.1, 32.0, "true");
    scheduler.launch(&offer, vec![backward, beside])?;
    for id in ["backward", "beside"] {
        let status = scheduler.wait_for_state(id, "TASK_ERROR")?;
        let message = status["message"].as_str().unwrap_or_default();
        ensure!(message.contains("9-1"), "{id}: {status}");
    }
    let offer = scheduler.offer(|offer| scheduler::amount(offer, "cpus") >= 1.0)?;
    let last = scheduler::task("last", &offer, 0.1, 32.0, "true");
    scheduler.launch(&offer, vec![last])?;
    scheduler.wait_for_state("last", "TASK_FINISHED")?;
    Ok(())
}

/// A scheduler that never reads is disconnected, and everybody else goes on meanwhile.
#[test]
fn a_reader_that_stands_still_is_left_behind() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    let master = cluster.master.address;
    let call = json!({
        "type": "SUBSCRIBE",
        "subscribe": { "framework_info": { "user": "root", "name": "asleep", "failover_timeout": 100.0 } }
    });
    let headers = [
        ("Content-Type", "application/json"),
        ("Accept", "application/json"),
    ];
    let body = call.to_string();
    let request = http::request_bytes("POST", "/api/v1/scheduler", &headers, body.as_bytes());
    let mut asleep = Stream::open(master, &request)?;
    let first = asleep.record()?.context("SUBSCRIBED")?;
    let first: serde_json::Value = serde_json::from_slice(&first)?;
    let id = first["subscribed"]["framework_id"].clone();
    let stream_id = asleep
        .header("mesos-stream-id")
        .context("a stream id")?
        .to_owned();
    let stream = [("Mesos-Stream-Id", stream_id.as_str())];
    let named = |kind: &str| -> Vec<_> {
        let value = |n| format!("{n}-{}", "x".repeat(200));
        (0..2000)
            .map(|n| json!({ kind: { "value": value(n) } }))
            .collect()
    };
    // Reconciliation of tasks waits for its reader, however much is asked.
    let tasks = json!({
        "type": "RECONCILE", "framework_id": id, "reconcile": { "tasks": named("task_id") }
    });
    for _ in 0..30 {
        let answer = http::post(master, "/api/v1/scheduler", &stream, &tasks)?;
        ensure!(answer.status == 202, "{answer:?}");
    }
    // That of operations answers an event each at once: more than sockets and queue hold.
    let operations = named("operation_id");
    let reconcile = json!({
        "type": "RECONCILE_OPERATIONS", "framework_id": id,
        "reconcile_operations": { "operations": operations }
    });
    wait_for(
        "the sleeper to be disconnected",
        Duration::from_secs(60),
        || {
            let answer = http::post(master, "/api/v1/scheduler", &stream, &reconcile)?;
            // 403: the framework is not subscribed any more.
            Ok((answer.status == 403).then_some(()))
        },
    )?;
    still_serves(&cluster, "beside-a-sleeper")
}

/// What a panic inside a step costs: the connection that caused it, and nothing else.
#[test]
fn a_panic_disturbs_only_its_connection() -> Result<()> {
    let mut cluster = Cluster::start(&["--inject_panics"])?;
    cluster.add_agent(AGENT)?;
    let master = cluster.master.address;
    let mut scheduler = Scheduler::plain(master, "bystander")?;
    let offer = scheduler.offer(|offer| scheduler::amount(offer, "cpus") >= 1.0)?;
    let task = scheduler::task("before", &offer, 0.1, 32.0, "sleep 1000");
    scheduler.launch(&offer, vec![task])?;
    scheduler.wait_for_state("before", "TASK_RUNNING")?;

    // A step over a call of another framework panics.
    let culprit = Scheduler::plain(master, "culprit")?;
    let headers = [("Mesos-Stream-Id", culprit.stream_id.as_str())];
    let answer = http::post(master, "/tepui/v1/panic", &headers, &json!({}))?;
    ensure!(answer.status == 202, "{answer:?}");
    wait_for("the culprit's stream to be closed", http::PATIENCE, || {
        let frameworks = http::get(master, "/frameworks")?;
        let frameworks = frameworks["frameworks"].as_array().context("frameworks")?;
        let culprit = frameworks.iter().find(|it| it["name"] == "culprit");
        Ok(culprit
            .is_none_or(|it| it["connected"] == false)
            .then_some(()))
    })?;
    ensure!(cluster.master.output().contains("a step panicked"));

    // The same stream and the same agent link go on, without a new SUBSCRIBED.
    let kill = json!({ "type": "KILL", "kill": { "task_id": { "value": "before" } } });
    scheduler.accepted(kill)?;
    scheduler.wait_for_state("before", "TASK_KILLED")?;
    let offer = scheduler.offer(|offer| scheduler::amount(offer, "cpus") >= 1.0)?;
    let task = scheduler::task("after", &offer, 0.1, 32.0, "true");
    scheduler.launch(&offer, vec![task])?;
    scheduler.wait_for_state("after", "TASK_FINISHED")?;
    Ok(())
}

/// A task that writes without end fills its sandbox to a bound, not the disk.
#[test]
fn an_endless_writer_is_bounded() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    let mut scheduler = Scheduler::plain(cluster.master.address, "writer")?;
    let offer = scheduler.offer(|offer| scheduler::amount(offer, "cpus") >= 1.0)?;
    let task = scheduler::task("writer", &offer, 0.5, 64.0, "exec cat /dev/zero");
    scheduler.launch(&offer, vec![task])?;
    scheduler.wait_for_state("writer", "TASK_RUNNING")?;
    let sandboxes = cluster.agents[0].work_dir.clone();
    // Once it has rotated, the total cannot grow further.
    wait_for("the output to rotate", http::PATIENCE, || {
        let rotated = files(&sandboxes)?
            .iter()
            .any(|(name, _)| name.starts_with("stdout."));
        Ok(rotated.then_some(()))
    })?;
    let total: u64 = files(&sandboxes)?
        .iter()
        .filter(|(name, _)| name.starts_with("stdout"))
        .map(|(_, size)| size)
        .sum();
    ensure!(total < 200 << 20, "{total} bytes of output are kept");
    scheduler.accepted(json!({ "type": "TEARDOWN" }))
}

/// Every file below a folder, by name, with its size.
fn files(folder: &std::path::Path) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // Folders come and go while the agent works.
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.path().symlink_metadata() else {
                continue;
            };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                found.push((
                    entry.file_name().to_string_lossy().into_owned(),
                    metadata.len(),
                ));
            }
        }
    }
    Ok(found)
}
