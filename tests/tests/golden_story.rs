//! The life of a framework as a real Mesos saw it, call by call and event by event.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tepui_tests::{
    cluster::Cluster,
    golden::{self, Exchange},
    story::Story,
};

/// What the recorded agent was started with.
const AGENT: &[&str] = &[
    "--resources=cpus:8;mem:8192;disk:20000;ports:[31000-32000]",
    "--attributes=rack:r1;zone:z2;cores:8",
    "--containerizers=process",
];

/// Recorded while one task ran and two had ended.
const RUNNING: &[&str] = &[
    "3-running-master-v0",
    "3-running-master-v1",
    "3-running-agent-v0",
    "3-running-agent-v1",
    "3-running-agent-files",
    "3-running-queries",
];

/// Recorded after the second subscription, when all tasks but one had ended.
const OVER: &[&str] = &[
    "4-all-tasks-over-master-v0",
    "4-all-tasks-over-master-v1",
    "4-all-tasks-over-agent-v0",
    "4-all-tasks-over-agent-v1",
];

/// Method, path and body of a write.
type Write = (&'static str, &'static str, &'static str);

/// Writes that `writes.jsonl` shows only by their effect: before which exchange, and what.
const WRITES: &[(&str, &[Write])] = &[
    (
        "GET /quota",
        &[
            ("PUT", "/weights", r#"[{"role":"w2","weight":3}]"#),
            (
                "POST",
                "/quota",
                r#"{"role":"q1","guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}}]}"#,
            ),
        ],
    ),
    ("UPDATE_QUOTA", &[("DELETE", "/quota/q1", "")]),
    (
        "GET_QUOTA empty",
        &[(
            "POST",
            "/api/v1",
            r#"{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"q3"}]}}"#,
        )],
    ),
    (
        "GET /maintenance/schedule",
        &[("POST", "/maintenance/schedule", SCHEDULE)],
    ),
    (
        "POST /machine/up again",
        &[("POST", "/machine/up", MACHINES)],
    ),
    (
        "POST /reserve",
        &[
            ("POST", "/machine/up", MACHINES),
            ("POST", "/maintenance/schedule", "{}"),
        ],
    ),
    ("POST /unreserve again", &[("POST", "/unreserve", RESERVED)]),
];

const MACHINES: &str = r#"[{"hostname":"nowhere.example","ip":"10.9.9.9"}]"#;
const SCHEDULE: &str = r#"{"windows":[{"machine_ids":[{"hostname":"nowhere.example","ip":"10.9.9.9"}],"unavailability":{"start":{"nanoseconds":2000000000000000000},"duration":{"nanoseconds":3600000000000}}}]}"#;
const RESERVED: &str = "slaveId=2ac423c5-14ad-4a7f-ac56-8fdfb83fb39a-S0&resources=%5B%7B%22name%22%3A%20%22cpus%22%2C%20%22type%22%3A%20%22SCALAR%22%2C%20%22scalar%22%3A%20%7B%22value%22%3A%201%7D%2C%20%22reservations%22%3A%20%5B%7B%22type%22%3A%20%22DYNAMIC%22%2C%20%22role%22%3A%20%22resv%22%2C%20%22principal%22%3A%20%22p%22%7D%5D%7D%5D";

/// The exchanges of a file up to the one of this name, and those from it on.
fn split(exchanges: &[Exchange], name: &str) -> Result<(Vec<Exchange>, Vec<Exchange>)> {
    let position = exchanges.iter().position(|it| it.name == name);
    let (before, after) = exchanges.split_at(position.with_context(|| name.to_owned())?);
    Ok((before.to_vec(), after.to_vec()))
}

#[test]
fn a_framework_lives_as_recorded() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    let mut story = Story::start(&cluster)?;
    let none = BTreeMap::new();
    let calls = golden::load("scheduler-calls", &none)?;

    let (launch, calls) = split(&calls, "revive")?;
    story.replay(&launch)?;
    story.await_offer()?;
    for file in RUNNING {
        story.replay(&golden::load(file, &none)?)?;
    }

    // Recorded among the malformed calls, which a test of their own repeats.
    let task = |id: &str| json!({ "name": id, "task_id": { "value": id }, "agent_id": { "value": "2ac423c5-14ad-4a7f-ac56-8fdfb83fb39a-S0" } });
    story.call(
        &json!({ "type": "ACCEPT", "accept": { "offer_ids": [], "operations": [
        { "type": "LAUNCH", "launch": { "task_infos": [task("g-noffer")] } }] } }),
    )?;
    story.call(&json!({ "type": "KILL", "kill": { "task_id": { "value": "g-unknown" } } }))?;
    story.call(&json!({ "type": "SUPPRESS" }))?;
    for id in ["g-sleep", "g-never", "g-sleep"] {
        let tasks = json!([{ "task_id": { "value": id } }]);
        story.call(&json!({ "type": "RECONCILE", "reconcile": { "tasks": tasks } }))?;
    }

    for (user, failover_timeout) in [("root", -1.0), ("", 0.0)] {
        let info = json!({ "name": "e", "user": user, "failover_timeout": failover_timeout });
        story.visit(&info)?;
    }

    for exchange in golden::load("writes", &none)? {
        let (_, writes) = WRITES
            .iter()
            .find(|(name, _)| *name == exchange.name)
            .unwrap_or(&("", &[]));
        for (method, path, body) in *writes {
            story.write(method, path, body)?;
        }
        story.replay(&[exchange])?;
    }

    let (life, end) = split(&calls, "teardown")?;
    story.replay(&life)?;
    let first = story.fail_over()?;
    story.compare_stream("streams-scheduler-json", &first.seen)?;

    story.await_offer()?;
    story.learn_containers(&golden::load("4-all-tasks-over-agent-v0", &none)?)?;
    for file in OVER {
        story.replay(&golden::load(file, &none)?)?;
    }
    story.replay(&end)?;
    story.scheduler.read_to_end()?;
    let second = std::mem::take(&mut story.scheduler.seen);
    story.compare_stream("streams-scheduler-json-failed-over", &second)?;
    let refused = story.whole_stream("streams-scheduler-json-after-teardown")?;
    story.compare_stream("streams-scheduler-json-after-teardown", &refused)?;

    let capabilities = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| json!({ "type": name })).collect()
    };
    for (name, roles, last) in [
        ("golden-pb", &["r/a"][..], "GPU_RESOURCES"),
        ("golden-multirole", &["r/a", "r/b"], "TASK_KILLING_STATE"),
    ] {
        let names = [
            "MULTI_ROLE",
            "RESERVATION_REFINEMENT",
            "PARTITION_AWARE",
            last,
        ];
        story.visit(&json!({ "name": name, "user": "root", "roles": roles,
            "capabilities": capabilities(&names) }))?;
    }
    let told = story.operator_events("golden-multirole")?;
    story.compare_stream("streams-operator-json", &told)?;

    story.replay(&golden::load("agent-gone", &none)?)?;

    let findings = &story.findings;
    assert!(
        findings.is_empty(),
        "{} differences from the recorded answers:\n{}",
        findings.len(),
        findings.join("\n")
    );
    Ok(())
}
