//! The agent's binary with real sockets and real processes, against a stand-in master.

mod world;

use serde_json::json;
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use tepui_agent_machine::model::{
    link::{self, agent_message, master_message},
    wire::{self, TaskState, task_status::Reason, task_status::Source},
};
use world::{Agent, FRAMEWORK, Master, PATIENCE, Task};

/// Polls a condition that no message tells of.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn executor_pid(status: &wire::TaskStatus) -> u32 {
    let container = status
        .container_status
        .as_ref()
        .expect("a container status");
    container.executor_pid.expect("a pid")
}

fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_and_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let mut master = Master::start().await;
    let agent = Agent::start(folder.path(), &master);
    let register = master.register().await;
    assert_eq!(register.agent_id, "");
    assert!(register.capabilities.iter().any(|it| it == "MULTI_ROLE"));

    master
        .run(Task::new("t", "echo hello; echo oops >&2; sleep 1000"))
        .await;
    let starting = master.update("t").await;
    assert_eq!(starting.state(), TaskState::TaskStarting);
    let running = master.update("t").await;
    assert_eq!(running.state(), TaskState::TaskRunning);
    assert_eq!(running.source(), Source::Executor);
    assert_eq!(running.executor_id.as_ref().unwrap().value, "t");
    let container = running.container_status.as_ref().unwrap();
    assert_eq!(
        container.container_id.as_ref().unwrap().value,
        "container-t"
    );
    let address = container.network_infos[0].ip_addresses[0]
        .ip_address
        .as_deref();
    assert_eq!(address, Some("127.0.0.1"));
    assert!(alive(executor_pid(&running)));

    let state = agent.get("/slave(1)/state");
    assert_eq!(state["id"], "agent-S0");
    let executor = &state["frameworks"][0]["executors"][0];
    assert_eq!(executor["tasks"][0]["state"], "TASK_RUNNING");
    assert_eq!(state["unreserved_resources_allocated"]["cpus"], 0.1);
    let directory = executor["directory"].as_str().unwrap().to_owned();
    eventually("its output in the sandbox", || {
        let read = agent.get(&format!("/files/read?path={directory}/stdout&offset=0"));
        read["data"] == "hello\n"
    })
    .await;
    let latest = format!("/frameworks/{FRAMEWORK}/executors/t/runs/latest");
    assert_eq!(
        agent.get(&format!("/files/read?path={latest}/stderr&offset=0"))["data"],
        "oops\n"
    );
    let statistics = agent.get("/monitor/statistics");
    assert_eq!(statistics[0]["source"], "t");
    assert_eq!(statistics[0]["statistics"]["cpus_soft_limit"], 0.1);
    assert_eq!(agent.get("/containers")[0]["container_id"], "container-t");
    let tasks = agent.call(r#"{"type":"GET_TASKS"}"#);
    assert_eq!(
        tasks["get_tasks"]["launched_tasks"][0]["task_id"]["value"],
        "t"
    );
    assert_eq!(tasks["get_tasks"]["queued_tasks"], json!([]));
    let listed = json!({"type": "LIST_FILES", "list_files": {"path": directory}});
    assert_eq!(
        agent.call(&listed.to_string())["list_files"]["file_infos"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    master.kill("t").await;
    let killed = master.until("t", TaskState::TaskKilled).await;
    assert!(killed.reason.is_none() && killed.source() == Source::Executor);
    eventually("the task is completed", || {
        let tasks = agent.call(r#"{"type":"GET_TASKS"}"#);
        tasks["get_tasks"]["completed_tasks"][0]["state"] == "TASK_KILLED"
    })
    .await;
    let metrics = agent.get("/metrics/snapshot");
    assert_eq!(metrics["slave/tasks_killed"], 1.0);
    assert_eq!(metrics["slave/registered"], 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_statuses_are_told_in_mesos_words() {
    let folder = tempfile::tempdir().unwrap();
    let mut master = Master::start().await;
    let _agent = Agent::start(folder.path(), &master);
    master.register().await;
    for (id, command, state, message) in [
        (
            "zero",
            "true",
            TaskState::TaskFinished,
            "Command exited with status 0",
        ),
        (
            "three",
            "exit 3",
            TaskState::TaskFailed,
            "Command exited with status 3",
        ),
        (
            "signal",
            "kill -9 $$",
            TaskState::TaskFailed,
            "Command terminated with signal Killed",
        ),
    ] {
        master.run(Task::new(id, command)).await;
        let status = master.until(id, state).await;
        assert_eq!(status.message(), message);
        assert_eq!(status.reason, None);
    }
    master
        .run(Task {
            edit: |info| {
                let uri = wire::command_info::Uri {
                    value: "file:///nowhere/at/all".into(),
                    ..Default::default()
                };
                info.command.as_mut().unwrap().uris.push(uri);
            },
            ..Task::new("uri", "true")
        })
        .await;
    let status = master.update("uri").await;
    assert_eq!(status.state(), TaskState::TaskFailed);
    assert_eq!(status.source(), Source::Agent);
    assert_eq!(status.reason(), Reason::ContainerLaunchFailed);
    assert!(
        status.message().contains("/nowhere/at/all"),
        "{}",
        status.message()
    );
    assert!(status.executor_id.is_some() && status.container_status.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_survive_the_death_of_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let mut master = Master::start().await;
    let mut agent = Agent::start(folder.path(), &master);
    master.register().await;
    let go = folder.path().join("go");
    let waiting = format!(
        "while [ ! -e {} ]; do sleep 0.05; done; exit 7",
        go.display()
    );
    master.run(Task::new("stays", "sleep 1000")).await;
    master.run(Task::new("ends", &waiting)).await;
    let stays = executor_pid(&master.until("stays", TaskState::TaskRunning).await);
    let ends = executor_pid(&master.until("ends", TaskState::TaskRunning).await);
    agent.crash();

    std::fs::write(&go, "").unwrap();
    eventually("the task ends without an agent", || !alive(ends)).await;
    assert!(alive(stays));
    let _agent = Agent::start(folder.path(), &master);
    let register = master.register().await;
    assert_eq!(register.agent_id, "agent-S0");
    let states: Vec<(String, i32)> = register
        .tasks
        .iter()
        .map(|it| (it.task_id.clone(), it.state))
        .collect();
    assert_eq!(
        states,
        [
            ("ends".to_owned(), TaskState::TaskFailed as i32),
            ("stays".to_owned(), TaskState::TaskRunning as i32)
        ]
    );
    // The acknowledgements of before may have come too late.
    let ended = master.until("ends", TaskState::TaskFailed).await;
    assert_eq!(ended.message(), "Command exited with status 7");
    assert!(alive(stays), "the same process");
    master.kill("stays").await;
    master.until("stays", TaskState::TaskKilled).await;
    eventually("the process is gone", || !alive(stays)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_are_sent_again_until_they_are_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut master = Master::start().await;
    let mut agent = Agent::start(folder.path(), &master);
    master.register().await;
    master.run(Task::new("t", "true")).await;
    let first = master.unacknowledged("t").await;
    agent.crash();
    let _agent = Agent::start(folder.path(), &master);
    let register = master.register().await;
    assert_eq!(Some(&register.tasks[0].update_uuid), first.uuid.as_ref());
    let again = master.unacknowledged("t").await;
    assert_eq!(again.uuid, first.uuid);
    assert_eq!(again.timestamp, first.timestamp);
    master.acknowledge(&again).await;
    master.until("t", TaskState::TaskFinished).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_agent_leaves_its_tasks_and_one_told_to_leave_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut master = Master::start().await;
    let mut agent = Agent::start(folder.path(), &master);
    master.register().await;
    master.run(Task::new("t", "sleep 1000")).await;
    let pid = executor_pid(&master.until("t", TaskState::TaskRunning).await);
    assert_eq!(agent.signal("-TERM"), Some(0));
    assert!(alive(pid));

    let mut agent = Agent::start(folder.path(), &master);
    let register = master.register().await;
    assert_eq!(register.tasks.len(), 1);
    eventually("the agent is registered", || {
        agent.get("/metrics/snapshot")["slave/registered"] == 1.0
    })
    .await;
    assert_eq!(agent.signal("-USR1"), Some(0));
    let unregistered = |it| matches!(it, agent_message::Kind::Unregister(_)).then_some(());
    master.next("farewell", unregistered).await;
    assert!(!alive(pid));
    let _agent = Agent::start(folder.path(), &master);
    assert_eq!(master.register().await.agent_id, "", "a new agent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_is_not_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let mut master = Master::start().await;
    let _agent = Agent::start(folder.path(), &master);
    master.term = 5;
    master.register().await;
    master.run(Task::new("t", "sleep 1000")).await;
    master.until("t", TaskState::TaskRunning).await;
    master.term = 4;
    master.kill("t").await;
    let refused = master
        .next("refusal", |it| match it {
            agent_message::Kind::FenceRefused(it) => it.seen,
            _ => None,
        })
        .await;
    assert_eq!(refused.term, 5);
    master.term = 5;
    master
        .send(master_message::Kind::KillUnknown(link::KillUnknown {
            framework_id: FRAMEWORK.into(),
            task_id: "t".into(),
        }))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_tasks_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
        .arg(folder.path())
        .status();
    if !mounted.is_ok_and(|it| it.success()) {
        eprintln!("not tried: a small file system can only be mounted by root");
        return;
    }
    let mut master = Master::start().await;
    let agent = Agent::start(folder.path(), &master);
    master.register().await;
    master.run(Task::new("before", "sleep 1000")).await;
    master.until("before", TaskState::TaskRunning).await;

    let filler = folder.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    drop(file);
    master.run(Task::new("refused", "true")).await;
    let refused = master.update("refused").await;
    assert_eq!(refused.source(), Source::Agent);
    assert!(
        matches!(refused.state(), TaskState::TaskLost | TaskState::TaskFailed),
        "{refused:?}"
    );
    let message = refused.message().to_lowercase();
    assert!(
        message.contains("disk") || message.contains("space"),
        "{message}"
    );
    assert_eq!(agent.request("GET", "/health", &[], "").0, 200);

    std::fs::remove_file(&filler).unwrap();
    let start = Instant::now();
    for attempt in 0.. {
        let id = format!("after-{attempt}");
        master.run(Task::new(&id, "true")).await;
        let status = master.update(&id).await;
        if status.state() == TaskState::TaskStarting {
            master.until(&id, TaskState::TaskFinished).await;
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{status:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    master.kill("before").await;
    master.until("before", TaskState::TaskKilled).await;
    drop(agent);
    let _ = Command::new("umount").arg("-l").arg(folder.path()).status();
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_and_executors_are_refused_as_by_mesos() {
    let folder = tempfile::tempdir().unwrap();
    let mut master = Master::start().await;
    let agent = Agent::start(folder.path(), &master);
    master.register().await;
    let json = &[("Content-Type", "application/json")][..];
    for (method, path, headers, body, status, text) in [
        ("PUT", "/api/v1", json, "", 405, "POST"),
        ("POST", "/api/v1", &[][..], "{}", 400, "Content-Type"),
        (
            "POST",
            "/api/v1",
            &[("Content-Type", "text/plain")][..],
            "{}",
            415,
            "Content-Type",
        ),
        ("POST", "/api/v1", json, "{", 400, ""),
        ("POST", "/api/v1", json, "{}", 400, "type"),
        ("POST", "/api/v1", json, r#"{"type":"UNKNOWN"}"#, 501, ""),
        (
            "POST",
            "/api/v1",
            json,
            r#"{"type":"READ_FILE"}"#,
            400,
            "read_file",
        ),
        (
            "POST",
            "/api/v1",
            json,
            r#"{"type":"PRUNE_IMAGES"}"#,
            200,
            "",
        ),
        (
            "POST",
            "/api/v1",
            json,
            r#"{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"x"}}}"#,
            404,
            "",
        ),
        (
            "POST",
            "/api/v1",
            &[("Content-Type", "application/recordio")][..],
            "2\n{}",
            400,
            "Message-Content-Type",
        ),
        ("GET", "/api/v1/executor", json, "", 405, "POST"),
        (
            "POST",
            "/api/v1/executor",
            json,
            r#"{"framework_id":{"value":"f"},"executor_id":{"value":"e"},"type":"SUBSCRIBE"}"#,
            400,
            "subscribe",
        ),
        ("GET", "/slave(1)", &[][..], "", 404, ""),
        ("GET", "/nope", &[][..], "", 404, ""),
        (
            "GET",
            "/files/read?path=/etc/passwd&offset=0",
            &[][..],
            "",
            404,
            "",
        ),
        ("GET", "/state.json", &[][..], "", 404, ""),
        ("GET", "//state", &[][..], "", 200, "slave(1)@"),
        (
            "DELETE",
            "/slave%281%29/state/",
            &[][..],
            "",
            200,
            "slave(1)@",
        ),
        (
            "GET",
            "/metrics/snapshot?timeout=x",
            &[][..],
            "",
            400,
            "timeout",
        ),
        (
            "GET",
            "/containers?executor_id=e",
            &[][..],
            "",
            400,
            "framework_id",
        ),
    ] {
        let (found, answer) = agent.request(method, path, headers, body);
        assert_eq!(found, status, "{method} {path} {body}: {answer}");
        assert!(answer.contains(text), "{method} {path} {body}: {answer}");
    }
    for call in [
        "GET_HEALTH",
        "GET_FLAGS",
        "GET_VERSION",
        "GET_LOGGING_LEVEL",
        "GET_STATE",
        "GET_AGENT",
        "GET_CONTAINERS",
        "GET_FRAMEWORKS",
        "GET_EXECUTORS",
        "GET_OPERATIONS",
        "GET_TASKS",
        "GET_RESOURCE_PROVIDERS",
    ] {
        assert_eq!(agent.call(&json!({"type": call}).to_string())["type"], call);
    }
}
