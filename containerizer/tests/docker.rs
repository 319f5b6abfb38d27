//! Docker tasks on the real engine.

mod registry;
mod world;

use std::{process::Command, time::Duration};
use tepui_containerizer::{
    ContainerEvent, ContainerSpec, DockerConfig, Exit, FailureClass, Kind, Limitation, LogBounds,
    RecoveredState, Termination,
};
use tepui_model::wire::{self, container_info::docker_info::Network};
use world::{World, eventually, image, is_running, read};

fn docker_info(spec: &mut ContainerSpec) -> &mut wire::container_info::DockerInfo {
    spec.container
        .as_mut()
        .and_then(|it| it.docker.as_mut())
        .expect("a Docker spec")
}

fn exists(name: &str) -> bool {
    Command::new("docker")
        .args(["inspect", name])
        .output()
        .is_ok_and(|it| it.status.success())
}

#[tokio::test]
async fn exit_states_output_and_inspection() {
    let mut world = World::new().await;
    let spec = world.spec(
        Kind::Docker,
        "three",
        "echo out $FROM_AGENT $MESOS_CONTAINER_NAME; echo err >&2; touch $MESOS_SANDBOX/mine; exit 3",
    );
    let started = world.launch(&spec).await;
    let end = world.exited().await;
    assert_eq!(
        (end.exit, end.message.as_str(), end.killed),
        (Exit::Code(3), "Container exited with status 3", false)
    );
    assert_eq!(
        read(spec.sandbox.join("stdout")),
        format!("out yes {}\n", spec.docker_name())
    );
    assert_eq!(read(spec.sandbox.join("stderr")), "err\n");
    assert!(spec.sandbox.join("mine").exists());
    let inspect = started.inspect.expect("the engine's answer");
    assert!(inspect.starts_with("[{") && inspect.contains(&spec.docker_name()));
    world
        .containerizer
        .remove(&spec.container_id)
        .await
        .expect("remove");
    assert!(!exists(&spec.docker_name()));
}

#[tokio::test]
async fn over_the_memory_limit() {
    let mut world = World::new().await;
    let mut spec = world.spec(Kind::Docker, "hog", "x=x; while true; do x=$x$x; done");
    spec.amounts.mem = 32.0;
    let end = world.run(&spec).await;
    let limit_bytes = 32 << 20;
    assert_eq!(
        end.limitation,
        Some(Limitation::Memory { limit_bytes }),
        "{end:?}"
    );
    assert!(!end.killed && end.message.contains("32MB"), "{end:?}");
}

#[tokio::test]
async fn half_a_processor_is_half_a_processor() {
    let mut world = World::new().await;
    let mut spec = world.spec(Kind::Docker, "half", "while true; do :; done");
    spec.amounts.cpus = 0.5;
    world.launch(&spec).await;
    let id = spec.container_id.clone();
    let usage = loop {
        let usage = world
            .containerizer
            .statistics(&id)
            .await
            .expect("statistics");
        if usage.cpus_nr_throttled.unwrap_or(0) >= 10 {
            break usage;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let used =
        usage.cpus_user_time_secs.unwrap_or(0.0) + usage.cpus_system_time_secs.unwrap_or(0.0);
    let periods = f64::from(usage.cpus_nr_periods.unwrap_or(0));
    // What the engine itself runs in the group before the quota is set is not ours.
    assert!(
        used <= (periods + 1.0) * 0.05 * 1.15 + 0.1,
        "{used} s in {periods} periods"
    );
    assert_eq!(usage.mem_limit_bytes, Some(64 << 20));
    world.containerizer.destroy(&id).await.expect("destroy");
    assert!(world.exited().await.killed);
}

#[tokio::test]
async fn stop_signal_then_grace_then_kill() {
    let mut world = World::new().await;
    let polite = "trap 'echo bye; exit 5' TERM; echo up; while true; do sleep 0.05; done";
    let spec = world.spec(Kind::Docker, "polite", polite);
    world.launch(&spec).await;
    eventually("it is up", || {
        read(spec.sandbox.join("stdout")).contains("up")
    })
    .await;
    world
        .containerizer
        .kill(&spec.container_id, None)
        .await
        .expect("kill");
    let end = world.exited().await;
    assert_eq!((end.exit, end.killed), (Exit::Code(5), true));
    assert_eq!(read(spec.sandbox.join("stdout")), "up\nbye\n");

    // Process 1 of a container ignores TERM by itself; its daemons do not survive it.
    let spec = world.spec(
        Kind::Docker,
        "stubborn",
        "setsid sleep 100666 & echo up; sleep 100666",
    );
    world.launch(&spec).await;
    eventually("the grandchild runs", || is_running("100666")).await;
    let id = &spec.container_id;
    for grace in [Duration::from_secs(3600), Duration::from_millis(50)] {
        world
            .containerizer
            .kill(id, Some(grace))
            .await
            .expect("kill");
    }
    let end = world.exited().await;
    assert_eq!((end.exit, end.killed), (Exit::Code(137), true));
    assert!(!is_running("100666"), "a grandchild is left");
}

#[tokio::test]
async fn the_completion_time_is_kept() {
    let mut world = World::new().await;
    let mut spec = world.spec(Kind::Docker, "late", "sleep 1000");
    spec.max_completion_time = Some(Duration::from_millis(200));
    let end = world.run(&spec).await;
    assert_eq!(end.limitation, Some(Limitation::CompletionTime));
    assert!(!end.killed, "{end:?}");
}

#[tokio::test]
async fn orphans_stay_where_the_operator_says_so() {
    let keep = |config: &mut tepui_containerizer::Config| {
        if let Some(docker) = &mut config.docker {
            docker.kill_orphans = false;
        }
    };
    let mut world = World::with(keep).await;
    let orphan = world.spec(Kind::Docker, "kept", "sleep 1000");
    world.launch(&orphan).await;
    let process = world.spec(Kind::Process, "removed", "sleep 100444");
    world.launch(&process).await;
    world.restart().await;
    world.containerizer.recover(&[]).await.expect("recover");
    eventually("the orphaned process is gone", || !is_running("100444")).await;
    assert!(
        exists(&orphan.docker_name()),
        "removed in spite of the flag"
    );
}

/// Lines `1` to `count`, with pauses, until the file `stop` is there.
const COUNTER: &str = "i=0; while [ ! -e $MESOS_SANDBOX/stop ]; do i=$((i+1)); echo $i; \
                       [ $((i % 50)) = 0 ] && sleep 0.02; done; exit 42";

#[tokio::test]
async fn containers_survive_the_agent_and_no_line_is_lost_or_doubled() {
    let mut world = World::new().await;
    let counter = world.spec(Kind::Docker, "counter", COUNTER);
    let before = world.launch(&counter).await;
    let ends = world.spec(Kind::Docker, "ends", COUNTER);
    world.launch(&ends).await;
    let orphan = world.spec(Kind::Docker, "orphan", "sleep 1000");
    world.launch(&orphan).await;
    let lines = |spec: &ContainerSpec| read(spec.sandbox.join("stdout")).lines().count();
    for round in 1..=3 {
        let had = lines(&counter);
        eventually("more lines", || lines(&counter) > had + 100).await;
        world.containerizer.detach();
        if round == 3 {
            std::fs::write(ends.sandbox.join("stop"), "").expect("write");
            let name = ends.docker_name();
            eventually("it has ended", || {
                let output = Command::new("docker")
                    .args(["inspect", "-f", "{{.State.Status}}", &name])
                    .output();
                output.is_ok_and(|it| it.stdout.starts_with(b"exited"))
            })
            .await;
        }
        world.restart().await;
        let ids = [counter.container_id.clone(), ends.container_id.clone()];
        let found = world.containerizer.recover(&ids).await.expect("recover");
        match &found[0].state {
            RecoveredState::Running(now) => {
                assert_eq!((now.pid, now.started_ms), (before.pid, before.started_ms));
            }
            other => panic!("{other:?}"),
        }
        match &found[1].state {
            RecoveredState::Running(_) if round < 3 => {}
            RecoveredState::Exited(end) if round == 3 => {
                assert_eq!((end.exit, end.killed), (Exit::Code(42), false));
            }
            other => panic!("round {round}: {other:?}"),
        }
    }
    let name = orphan.docker_name();
    eventually("the orphan is removed", || !exists(&name)).await;
    std::fs::write(counter.sandbox.join("stop"), "").expect("write");
    let end = world.exited().await;
    assert_eq!(end.exit, Exit::Code(42));
    for spec in [&counter, &ends] {
        let text = read(spec.sandbox.join("stdout"));
        let count = text.lines().count();
        assert!(count > 100);
        let wanted: String = (1..=count).map(|it| format!("{it}\n")).collect();
        let first = text
            .lines()
            .zip(wanted.lines())
            .find(|(one, other)| one != other);
        assert!(
            text == wanted,
            "{}: {first:?} of {count}",
            spec.container_id
        );
        // And the engine has no more than that.
        let log = Command::new("docker")
            .args(["logs", &spec.docker_name()])
            .output();
        assert_eq!(log.map(|it| it.stdout.len()).ok(), Some(text.len()));
    }
}

#[tokio::test]
async fn an_endless_writer_is_bounded() {
    let mut world = World::with(|it| {
        it.logs = LogBounds {
            bytes: 20_000,
            rotated: 2,
        };
    })
    .await;
    let spec = world.spec(Kind::Docker, "writer", "yes");
    world.launch(&spec).await;
    let third = spec.sandbox.join("stdout.2");
    eventually("it was rotated twice", || third.exists()).await;
    world
        .containerizer
        .destroy(&spec.container_id)
        .await
        .expect("destroy");
    world.exited().await;
    let total: u64 = std::fs::read_dir(&spec.sandbox)
        .expect("read")
        .flatten()
        .map(|it| it.metadata().map_or(0, |it| it.len()))
        .sum();
    assert!((40_000..=60_000).contains(&total), "{total} bytes");
}

async fn failure(world: &mut World, spec: &ContainerSpec) -> (FailureClass, String) {
    world
        .containerizer
        .launch(spec.clone())
        .await
        .expect("launch");
    match world.next().await {
        ContainerEvent::LaunchFailed { class, message, .. } => (class, message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn refusals_are_told_in_the_words_of_who_refused() {
    let mut world = World::new().await;
    let mut spec = world.spec(Kind::Docker, "noimage", "true");
    docker_info(&mut spec).image = "127.0.0.1:1/none:1".into();
    let (class, message) = failure(&mut world, &spec).await;
    assert_eq!(class, FailureClass::Image);
    assert!(
        message.contains("127.0.0.1:1") && message.contains("refused"),
        "{message}"
    );

    let mut spec = world.spec(Kind::Docker, "noprogram", "");
    spec.command.shell = Some(false);
    spec.command.value = Some("/no/such/program".into());
    let (class, message) = failure(&mut world, &spec).await;
    assert_eq!(class, FailureClass::Runtime);
    assert!(message.contains("no such file"), "{message}");
    assert!(!exists(&spec.docker_name()), "a failed container is left");

    let mut spec = world.spec(Kind::Docker, "badport", "true");
    docker_info(&mut spec).network = Some(Network::Bridge as i32);
    docker_info(&mut spec).port_mappings = vec![wire::container_info::docker_info::PortMapping {
        host_port: 80,
        container_port: 80,
        protocol: None,
    }];
    let (class, message) = failure(&mut world, &spec).await;
    assert_eq!(class, FailureClass::Invalid);
    assert!(message.contains("host_port 80"), "{message}");
}

#[tokio::test]
async fn private_registries_want_credentials() {
    let registry = registry::start(image()).await;
    let auth = registry.config();
    let remove = Command::new("docker")
        .args(["rmi", "-f", &registry.image])
        .output();
    assert!(remove.is_ok());

    let mut world = World::new().await;
    let mut spec = world.spec(Kind::Docker, "anonymous", "true");
    docker_info(&mut spec).image = registry.image.clone();
    let (class, message) = failure(&mut world, &spec).await;
    assert_eq!(class, FailureClass::Image);
    assert!(
        message.contains(registry::REFUSAL) || message.contains("no basic auth"),
        "{message}"
    );

    // By the task: a file that it fetches into its sandbox.
    let file = world.work.path().join("config.json");
    std::fs::write(&file, &auth).expect("write");
    let mut spec = world.spec(Kind::Docker, "own", "echo pulled");
    docker_info(&mut spec).image = registry.image.clone();
    spec.command.uris = vec![wire::command_info::Uri {
        value: file.to_string_lossy().into_owned(),
        output_file: Some(".docker/config.json".into()),
        ..Default::default()
    }];
    let end: Termination = world.run(&spec).await;
    assert!(end.exit.is_success(), "{end:?}");
    assert_eq!(read(spec.sandbox.join("stdout")), "pulled\n");

    // By the agent's flag; the image is here now, so force the pull.
    let pulls = registry.pulls();
    let mut world = World::with(|it| {
        it.docker = Some(DockerConfig {
            registry_config: Some(auth),
            ..DockerConfig::default()
        });
    })
    .await;
    let mut spec = world.spec(Kind::Docker, "flag", "true");
    docker_info(&mut spec).image = registry.image.clone();
    assert!(world.run(&spec).await.exit.is_success());
    assert_eq!(registry.pulls(), pulls, "an image that is here was pulled");
    let mut spec = world.spec(Kind::Docker, "force", "true");
    docker_info(&mut spec).image = registry.image.clone();
    docker_info(&mut spec).force_pull_image = Some(true);
    assert!(world.run(&spec).await.exit.is_success());
    assert!(registry.pulls() > pulls, "force_pull_image did not pull");
    drop(world);
    let _ = Command::new("docker")
        .args(["rmi", "-f", &registry.image])
        .output();
}

#[tokio::test]
async fn checks_reach_into_the_containers_network() {
    let mut world = World::new().await;
    let mut spec = world.spec(
        Kind::Docker,
        "http",
        "mkdir /www; echo hi > /www/index.html; httpd -f -p 8080 -h /www",
    );
    docker_info(&mut spec).network = Some(Network::Bridge as i32);
    spec.health_check = Some(wire::HealthCheck {
        http: Some(wire::health_check::HttpCheckInfo {
            port: 8080,
            path: Some("/index.html".into()),
            ..Default::default()
        }),
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.1),
        ..Default::default()
    });
    let started = world.launch(&spec).await;
    assert_eq!(started.ip_addresses.len(), 1, "{:?}", started.ip_addresses);
    let status = world
        .containerizer
        .status(&spec.container_id)
        .await
        .expect("status");
    assert_eq!(status.executor_pid, Some(started.pid));
    match world.next().await {
        ContainerEvent::Health { healthy: true, .. } => {}
        other => panic!("{other:?}"),
    }
    let command = wire::CommandInfo {
        value: Some("exit 9".into()),
        ..Default::default()
    };
    let limit = Some(Duration::from_secs(20));
    let exit = world
        .containerizer
        .exec(&spec.container_id, &command, limit)
        .await;
    assert_eq!(exit.expect("exec"), Exit::Code(9));
    world
        .containerizer
        .destroy(&spec.container_id)
        .await
        .expect("destroy");
    assert!(world.exited().await.killed);
}

#[tokio::test]
async fn an_engine_that_does_not_answer_hangs_nobody() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let socket = folder.path().join("docker.sock");
    // Takes connections, reads nothing, says nothing.
    let listener = tokio::net::UnixListener::bind(&socket).expect("bind");
    let silent = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let mut world = World::with(|it| {
        it.docker = Some(DockerConfig {
            socket: socket.clone(),
            call_timeout: Duration::from_millis(300),
            ..DockerConfig::default()
        });
    })
    .await;
    assert!(world.containerizer.unavailable(Kind::Docker).is_some());
    let spec = world.spec(Kind::Docker, "silent", "true");
    let (class, message) = failure(&mut world, &spec).await;
    assert_eq!(class, FailureClass::Runtime);
    assert!(message.contains("did not answer"), "{message}");
    // Processes go on as if nothing were.
    let spec = world.spec(Kind::Process, "beside", "exit 0");
    assert!(world.run(&spec).await.exit.is_success());
    silent.abort();
}

/// Passes connections on to the engine while its switch is on, and cuts them when it goes off.
async fn proxy(socket: &std::path::Path) -> tokio::sync::watch::Sender<bool> {
    let listener = tokio::net::UnixListener::bind(socket).expect("bind");
    let (switch, on) = tokio::sync::watch::channel(true);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut on = on.clone();
            tokio::spawn(async move {
                if !*on.borrow() {
                    return;
                }
                let engine = DockerConfig::default().socket;
                let Ok(mut engine) = tokio::net::UnixStream::connect(engine).await else {
                    return;
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut engine) => {}
                    _ = on.wait_for(|it| !it) => {}
                }
            });
        }
    });
    switch
}

#[tokio::test]
async fn an_end_during_a_broken_connection_is_found() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let socket = folder.path().join("docker.sock");
    let switch = proxy(&socket).await;
    let mut world = World::with(|it| {
        it.docker = Some(DockerConfig {
            socket: socket.clone(),
            call_timeout: Duration::from_secs(20),
            ..DockerConfig::default()
        });
    })
    .await;
    let spec = world.spec(Kind::Docker, "cut", COUNTER);
    world.launch(&spec).await;
    let lines = || read(spec.sandbox.join("stdout")).lines().count();
    eventually("lines", || lines() > 100).await;
    switch.send_replace(false);
    // The end falls into the time without a connection.
    std::fs::write(spec.sandbox.join("stop"), "").expect("write");
    let name = spec.docker_name();
    eventually("it has ended", || {
        let output = Command::new("docker")
            .args(["inspect", "-f", "{{.State.Status}}", &name])
            .output();
        output.is_ok_and(|it| it.stdout.starts_with(b"exited"))
    })
    .await;
    switch.send_replace(true);
    let end = world.exited().await;
    assert_eq!(end.exit, Exit::Code(42));
    let count = lines();
    let wanted: String = (1..=count).map(|it| format!("{it}\n")).collect();
    assert!(read(spec.sandbox.join("stdout")) == wanted);
    let log = Command::new("docker").args(["logs", &name]).output();
    assert_eq!(log.map(|it| it.stdout.len()).ok(), Some(wanted.len()));
}

/// Passes connections on to the engine; those that come while it is frozen are carried out when
/// it thaws, when nobody waits for the answer any more.
async fn freezer(socket: &std::path::Path) -> tokio::sync::watch::Sender<bool> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::UnixListener::bind(socket).expect("bind");
    let (switch, frozen) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut frozen = frozen.clone();
            tokio::spawn(async move {
                let engine = DockerConfig::default().socket;
                let Ok(mut engine) = tokio::net::UnixStream::connect(engine).await else {
                    return;
                };
                if !*frozen.borrow() {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut engine).await;
                    return;
                }
                // All that the client said until it gave up.
                let mut request = Vec::new();
                let _ = client.read_to_end(&mut request).await;
                // Carried out before the creation, it would find nothing.
                if request.starts_with(b"DELETE") {
                    return;
                }
                let _ = frozen.wait_for(|it| !it).await;
                let _ = engine.write_all(&request).await;
                let _ = engine.read(&mut [0; 1024]).await;
            });
        }
    });
    switch
}

#[tokio::test]
async fn a_container_made_by_an_engine_that_thaws_is_removed() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let socket = folder.path().join("docker.sock");
    let switch = freezer(&socket).await;
    let mut world = World::with(|it| {
        it.docker = Some(DockerConfig {
            socket: socket.clone(),
            call_timeout: Duration::from_secs(1),
            ..DockerConfig::default()
        });
    })
    .await;
    let spec = world.spec(Kind::Docker, "thawed", "true");
    let is_there = || {
        let output = Command::new("docker")
            .args(["inspect", "-f", "{{.State.Status}}", &spec.docker_name()])
            .output();
        output.is_ok_and(|it| it.status.success())
    };
    switch.send_replace(true);
    let (_, message) = failure(&mut world, &spec).await;
    assert!(message.contains("did not answer"), "{message}");
    assert!(!is_there());
    switch.send_replace(false);
    eventually("it is made", is_there).await;
    eventually("it is removed", || !is_there()).await;
}
