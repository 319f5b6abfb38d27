//! Process tasks under real shims.

mod world;

use std::time::Duration;
use tepui_containerizer::{
    ContainerEvent, Exit, FailureClass, Kind, Limitation, LogBounds, RecoveredState,
};
use tepui_model::wire;
use world::{World, eventually, is_running, read};

#[tokio::test]
async fn exit_states_and_words() {
    let mut world = World::new().await;
    for (id, command, exit, message) in [
        (
            "ok",
            "exit 0",
            Exit::Code(0),
            "Command exited with status 0",
        ),
        (
            "three",
            "exit 3",
            Exit::Code(3),
            "Command exited with status 3",
        ),
        (
            "killed",
            "kill -9 $$",
            Exit::Signal(9),
            "Command terminated with signal Killed",
        ),
    ] {
        let spec = world.spec(Kind::Process, id, command);
        let end = world.run(&spec).await;
        assert_eq!((end.exit, end.message.as_str()), (exit, message));
        assert!(!end.killed && end.limitation.is_none());
        world
            .containerizer
            .remove(&spec.container_id)
            .await
            .expect("remove");
        world
            .containerizer
            .remove(&spec.container_id)
            .await
            .expect("remove twice");
    }
    assert!(world.containerizer.containers().is_empty());
    let left = std::fs::read_dir(&world.config.runtime_dir)
        .expect("read")
        .count();
    assert_eq!(left, 0, "runtime files are left");
}

#[tokio::test]
async fn environment_directory_and_output() {
    let mut world = World::new().await;
    let mut spec = world.spec(
        Kind::Process,
        "env",
        "pwd; echo $FROM_AGENT $MINE $MESOS_SANDBOX; cat; echo oops >&2; umask",
    );
    spec.command.environment = Some(wire::Environment {
        variables: vec![wire::environment::Variable {
            name: "MINE".into(),
            value: Some("a b\nc".into()),
            ..Default::default()
        }],
    });
    world.run(&spec).await;
    let sandbox = spec.sandbox.to_string_lossy();
    assert_eq!(
        read(spec.sandbox.join("stdout")),
        format!("{sandbox}\nyes a b c {sandbox}\n0022\n")
    );
    assert_eq!(read(spec.sandbox.join("stderr")), "oops\n");
}

#[tokio::test]
async fn a_program_that_is_not_there_fails_the_launch() {
    let mut world = World::new().await;
    let mut spec = world.spec(Kind::Process, "none", "/no/such/program");
    spec.command.shell = Some(false);
    world
        .containerizer
        .launch(spec.clone())
        .await
        .expect("launch");
    match world.next().await {
        ContainerEvent::LaunchFailed { class, message, .. } => {
            assert_eq!(class, FailureClass::Runtime);
            assert!(
                message.contains("/no/such/program") && message.contains("No such file"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(world.containerizer.containers().is_empty());
}

#[tokio::test]
async fn the_task_runs_as_its_user() {
    let mut world = World::new().await;
    let mut spec = world.spec(Kind::Process, "user", "id -u; id -g; touch mine");
    spec.user = Some("nobody".into());
    let end = world.run(&spec).await;
    let lines = read(spec.sandbox.join("stdout"));
    assert_eq!(lines.lines().next(), Some("65534"), "{end:?}");
    use std::os::unix::fs::MetadataExt;
    for name in ["stdout", "mine", "."] {
        let owner = std::fs::metadata(spec.sandbox.join(name)).map(|it| it.uid());
        assert_eq!(owner.ok(), Some(65534), "{name}");
    }
    let mut spec = world.spec(Kind::Process, "nouser", "true");
    spec.user = Some("no-such-user".into());
    world.containerizer.launch(spec).await.expect("launch");
    let event = world.next().await;
    assert!(
        matches!(&event, ContainerEvent::LaunchFailed { class: FailureClass::Invalid, message, .. }
            if message.contains("no-such-user")),
        "{event:?}"
    );
}

/// A grandchild in a session of its own, its parent gone.
fn daemon(marker: &str) -> String {
    format!("setsid sh -c 'trap \"\" TERM; sleep {marker} & exec sleep {marker}' & sleep {marker}")
}

async fn grandchild_dies(namespaces: bool, marker: &str) {
    let mut world = World::with(|it| {
        let process = it.process.as_mut().expect("set");
        process.namespaces = namespaces;
    })
    .await;
    let spec = world.spec(Kind::Process, "tree", &daemon(marker));
    world.launch(&spec).await;
    eventually("the grandchild runs", || is_running(marker)).await;
    let grace = Duration::from_millis(100);
    world
        .containerizer
        .kill(&spec.container_id, Some(grace))
        .await
        .expect("kill");
    let end = world.exited().await;
    assert!(end.killed, "{end:?}");
    assert!(!is_running(marker), "a grandchild is left");
    // And without a kill: the end of the first process ends all.
    let marker = &format!("{marker}9");
    let command = format!("{} & sleep 0.2; exit 7", daemon(marker));
    let spec = world.spec(Kind::Process, "end", &command);
    let end = world.run(&spec).await;
    assert_eq!(end.exit, Exit::Code(7));
    assert!(!is_running(marker), "a grandchild is left");
}

#[tokio::test]
async fn grandchildren_die_in_namespaces() {
    grandchild_dies(true, "100111").await;
}

#[tokio::test]
async fn grandchildren_die_without_namespaces() {
    grandchild_dies(false, "100222").await;
}

#[tokio::test]
async fn grace_is_given_and_can_only_shrink() {
    let mut world = World::new().await;
    let polite = "trap 'echo bye; exit 5' TERM; echo up; while true; do sleep 0.05; done";
    let spec = world.spec(Kind::Process, "polite", polite);
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

    let stubborn = "trap '' TERM; echo up; while true; do sleep 0.05; done";
    let spec = world.spec(Kind::Process, "stubborn", stubborn);
    world.launch(&spec).await;
    eventually("it is up", || {
        read(spec.sandbox.join("stdout")).contains("up")
    })
    .await;
    let id = &spec.container_id;
    for grace in [3600, 7200] {
        let grace = Some(Duration::from_secs(grace));
        world.containerizer.kill(id, grace).await.expect("kill");
    }
    world
        .containerizer
        .kill(id, Some(Duration::from_millis(50)))
        .await
        .expect("kill");
    let end = world.exited().await;
    assert_eq!((end.exit, end.killed), (Exit::Signal(9), true));
}

#[tokio::test]
async fn the_completion_time_is_kept_by_the_shim() {
    let mut world = World::new().await;
    let mut spec = world.spec(Kind::Process, "late", "sleep 1000");
    spec.max_completion_time = Some(Duration::from_millis(100));
    let end = world.run(&spec).await;
    assert_eq!(end.limitation, Some(Limitation::CompletionTime));
    assert!(!end.killed, "{end:?}");
}

#[tokio::test]
async fn over_the_memory_limit() {
    let mut world = World::new().await;
    // The shell itself grows; and in the second case a child that the task does not mind.
    let hog = "x=x; while true; do x=$x$x; done";
    for (id, command) in [
        ("hog", hog.to_owned()),
        ("child", format!("sh -c '{hog}'; sleep 1000")),
    ] {
        let mut spec = world.spec(Kind::Process, id, &command);
        spec.amounts.mem = 32.0;
        let end = world.run(&spec).await;
        assert_eq!(
            end.limitation,
            Some(Limitation::Memory {
                limit_bytes: 32 << 20
            }),
            "{end:?}"
        );
        assert!(!end.killed && end.message.contains("32MB"), "{end:?}");
    }
}

#[tokio::test]
async fn half_a_processor_is_half_a_processor() {
    let mut world = World::new().await;
    let mut spec = world.spec(Kind::Process, "half", "while true; do :; done");
    spec.amounts.cpus = 0.5;
    world.launch(&spec).await;
    let id = spec.container_id.clone();
    // Not by the clock of a busy machine: in each period that it ran in, the task may have
    // used 50 ms at most (and one slice of a period more).
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
    assert!(
        used <= (periods + 1.0) * 0.05 * 1.15,
        "{used} s in {periods} periods"
    );
    assert_eq!(usage.cpus_limit, Some(0.5));
    assert_eq!(usage.mem_limit_bytes, Some(64 << 20));
    assert!(usage.processes.unwrap_or(0) >= 1 && usage.mem_total_bytes.unwrap_or(0) > 0);
    world.containerizer.destroy(&id).await.expect("destroy");
    world.exited().await;
}

#[tokio::test]
async fn tasks_survive_the_agent_and_their_ends_are_found() {
    let mut world = World::new().await;
    let lives = world.spec(Kind::Process, "lives", "while true; do sleep 0.05; done");
    let before = world.launch(&lives).await;
    let ends = world.spec(
        Kind::Process,
        "ends",
        "while [ ! -e stop ]; do sleep 0.02; done; exit 42",
    );
    world.launch(&ends).await;
    let orphan = world.spec(Kind::Process, "orphan", "sleep 100333");
    world.launch(&orphan).await;
    eventually("the orphan runs", || is_running("100333")).await;
    world.containerizer.detach();
    std::fs::write(ends.sandbox.join("stop"), "").expect("write");
    let exit = world
        .config
        .runtime_dir
        .join(&ends.container_id)
        .join("exit");
    eventually("the shim has written the status", || exit.exists()).await;
    world.restart().await;
    let ids = [
        lives.container_id.clone(),
        ends.container_id.clone(),
        "never-was".into(),
    ];
    let found = world.containerizer.recover(&ids).await.expect("recover");
    assert_eq!(found[0].state, RecoveredState::Running(before));
    assert_eq!(found[0].spec.as_ref(), Some(&lives));
    match &found[1].state {
        RecoveredState::Exited(end) => assert_eq!((end.exit, end.killed), (Exit::Code(42), false)),
        other => panic!("{other:?}"),
    }
    assert_eq!(found[2].state, RecoveredState::Gone);
    assert!(!is_running("100333"), "the orphan is left");
    // The living one is attached: a kill works and its end arrives.
    world
        .containerizer
        .kill(&lives.container_id, None)
        .await
        .expect("kill");
    let end = world.exited().await;
    assert!(end.killed, "{end:?}");
    // Until it is removed, its end is found again and again.
    world.restart().await;
    let found = world
        .containerizer
        .recover(&ids[..1])
        .await
        .expect("recover");
    assert_eq!(found[0].state, RecoveredState::Exited(end));
}

#[tokio::test]
async fn a_killed_shim_takes_the_task_along() {
    let mut world = World::new().await;
    let spec = world.spec(
        Kind::Process,
        "shimless",
        "setsid sleep 100444 & sleep 100444",
    );
    world.launch(&spec).await;
    eventually("it runs", || is_running("100444")).await;
    let state = read(
        world
            .config
            .runtime_dir
            .join(&spec.container_id)
            .join("state"),
    );
    let shim: i32 = state
        .lines()
        .find_map(|it| it.strip_prefix("shim=")?.split(' ').next()?.parse().ok())
        .expect("pid of the shim");
    // SAFETY: plain system call on a process of this test.
    unsafe { libc::kill(shim, libc::SIGKILL) };
    let end = world.exited().await;
    assert_eq!(end.exit, Exit::Unknown);
    eventually("all are dead", || !is_running("100444")).await;
}

#[tokio::test]
async fn an_endless_writer_is_bounded() {
    let mut world = World::with(|it| {
        it.logs = LogBounds {
            bytes: 100_000,
            rotated: 2,
        };
    })
    .await;
    let spec = world.spec(Kind::Process, "writer", "yes; true");
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
    assert!((200_000..=300_000).contains(&total), "{total} bytes");
}

#[tokio::test]
async fn a_kill_before_the_start_is_a_failed_launch() {
    let mut world = World::new().await;
    let mut spec = world.spec(Kind::Process, "early", "true");
    // A server that takes the connection and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    spec.command.uris = vec![wire::command_info::Uri {
        value: format!("http://{address}/file"),
        ..Default::default()
    }];
    world
        .containerizer
        .launch(spec.clone())
        .await
        .expect("launch");
    world
        .containerizer
        .kill(&spec.container_id, None)
        .await
        .expect("kill");
    match world.next().await {
        ContainerEvent::LaunchFailed { class, .. } => assert_eq!(class, FailureClass::Killed),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn commands_run_beside_the_task() {
    let mut world = World::new().await;
    let spec = world.spec(Kind::Process, "exec", "sleep 1000");
    let started = world.launch(&spec).await;
    let exec = |command: &str, timeout: u64| {
        let command = wire::CommandInfo {
            value: Some(command.into()),
            ..Default::default()
        };
        let (containerizer, id) = (world.containerizer.clone(), spec.container_id.clone());
        async move {
            let timeout = Some(Duration::from_millis(timeout));
            containerizer.exec(&id, &command, timeout).await
        }
    };
    assert_eq!(exec("exit 4", 20_000).await.expect("exec"), Exit::Code(4));
    // It sees the task's processes, and is in the task's sandbox.
    let look = "grep -q sleep /proc/2/cmdline && test -f stdout";
    assert_eq!(exec(look, 20_000).await.expect("exec"), Exit::Code(0));
    let error = exec("sleep 100555", 200).await.expect_err("too slow");
    assert!(error.to_string().contains("timed out"), "{error}");
    eventually("it was killed", || !is_running("100555")).await;
    assert!(started.pid > 0);
    world
        .containerizer
        .destroy(&spec.container_id)
        .await
        .expect("destroy");
    world.exited().await;
}

#[tokio::test]
async fn health_checks_kill_after_enough_failures() {
    let mut world = World::new().await;
    let mut spec = world.spec(Kind::Process, "health", "sleep 1000");
    spec.health_check = Some(wire::HealthCheck {
        command: Some(wire::CommandInfo {
            value: Some("test ! -e sick".into()),
            ..Default::default()
        }),
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.05),
        grace_period_seconds: Some(0.0),
        consecutive_failures: Some(2),
        ..Default::default()
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind");
    spec.check = Some(wire::CheckInfo {
        tcp: Some(wire::check_info::Tcp {
            port: u32::from(listener.local_addr().expect("address").port()),
        }),
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.05),
        ..Default::default()
    });
    world.launch(&spec).await;
    let (mut healthy_seen, mut check_seen, mut failures) = (false, false, Vec::new());
    while failures.last().is_none_or(|(_, kill)| !kill) {
        match world.next().await {
            ContainerEvent::Health { healthy: true, .. } => {
                healthy_seen = true;
                std::fs::write(spec.sandbox.join("sick"), "").expect("write");
            }
            ContainerEvent::Health {
                consecutive_failures,
                kill,
                ..
            } => failures.push((consecutive_failures, kill)),
            ContainerEvent::Check { status, .. } => {
                check_seen = true;
                assert_eq!(status.tcp.and_then(|it| it.succeeded), Some(true));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(healthy_seen && check_seen);
    assert_eq!(failures, [(1, false), (2, true)]);
    world
        .containerizer
        .destroy(&spec.container_id)
        .await
        .expect("destroy");
}

#[tokio::test]
async fn volumes_are_mounted() {
    let mut world = World::new().await;
    let host = world.work.path().join("data");
    std::fs::create_dir(&host).expect("create");
    std::fs::write(host.join("file"), "content").expect("write");
    let mut spec = world.spec(
        Kind::Process,
        "volumes",
        "cat vol/file; echo x > vol/new && echo written; echo x > ro/new || echo refused",
    );
    spec.volumes = vec![
        (host.clone(), "vol".into(), false),
        (host.clone(), "ro".into(), true),
    ];
    world.run(&spec).await;
    let output = read(spec.sandbox.join("stdout"));
    assert_eq!(output, "contentwritten\nrefused\n");
    assert!(host.join("new").exists());
    let mut spec = world.spec(Kind::Process, "escape", "true");
    spec.volumes = vec![(host, "../outside".into(), false)];
    world.containerizer.launch(spec).await.expect("launch");
    let event = world.next().await;
    assert!(matches!(
        event,
        ContainerEvent::LaunchFailed {
            class: FailureClass::Invalid,
            ..
        }
    ));
}

#[tokio::test]
async fn version_2_groups_are_killed_in_one_go() {
    let hierarchy = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .map(std::path::PathBuf::from)
        .find(|it| it.join("cgroup.controllers").exists())
        .expect("a cgroup version 2 mount");
    let mut world = World::with(|it| {
        let process = it.process.as_mut().expect("set");
        process.cgroups_hierarchy = Some(hierarchy.clone());
        process.namespaces = false;
    })
    .await;
    let group = |id: &str| {
        hierarchy
            .join("tepui-test")
            .join(&world.config.owner)
            .join(id)
    };
    let spec = world.spec(Kind::Process, "v2", &daemon("100777"));
    let group = group(&spec.container_id);
    world.launch(&spec).await;
    eventually("the grandchild runs", || is_running("100777")).await;
    assert!(read(group.join("cgroup.procs")).lines().count() >= 3);
    world
        .containerizer
        .destroy(&spec.container_id)
        .await
        .expect("destroy");
    assert!(world.exited().await.killed);
    assert!(!is_running("100777"), "a grandchild is left");
    world
        .containerizer
        .remove(&spec.container_id)
        .await
        .expect("remove");
    assert!(!group.exists(), "the group is left");
}

/// A bare shim, started by a parent that is killed with its whole process group.
#[test]
fn the_shim_outlives_its_parent() {
    use std::os::unix::process::CommandExt;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().to_string_lossy().into_owned();
    let command = "while [ ! -e stop ]; do sleep 0.02; done; echo done; exit 23";
    let spec = [
        "tepui-shim 1".to_owned(),
        "program=/bin/sh".into(),
        "arg=sh".into(),
        "arg=-c".into(),
        format!("arg={command}"),
        "env=PATH=/usr/bin:/bin".into(),
        format!("cwd={path}"),
        format!("log_dir={path}"),
        "end".into(),
    ];
    std::fs::write(folder.path().join("spec"), spec.join("\0") + "\0").expect("write");
    let mut parent = std::process::Command::new("sh")
        .args(["-c", "\"$0\" run \"$1\" & wait; sleep 1000"])
        .args([world::shim().as_os_str(), folder.path().as_os_str()])
        .stdout(std::process::Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("a parent");
    let mut line = String::new();
    let output = parent.stdout.take().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("a line");
    assert!(line.starts_with("started "), "{line}");
    // SAFETY: plain system call on the group that was made for this test.
    unsafe { libc::kill(-(parent.id() as i32), libc::SIGKILL) };
    parent.wait().expect("wait");
    assert!(!folder.path().join("exit").exists());
    std::fs::write(folder.path().join("stop"), "").expect("write");
    let wait = eventually("the status is on disk", || {
        folder.path().join("exit").exists()
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(wait);
    let exit = read(folder.path().join("exit"));
    assert!(exit.contains(&format!("status={}\n", 23 << 8)), "{exit}");
    assert_eq!(read(folder.path().join("stdout")), "done\n");
}

/// Unmounts when dropped.
struct Mounted(std::ffi::CString);

impl Drop for Mounted {
    fn drop(&mut self) {
        // SAFETY: the path ends in NUL.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

impl Mounted {
    /// A small disk at `path`; `options` as mount takes them.
    fn tmpfs(path: &std::path::Path, options: &std::ffi::CStr) -> Mounted {
        let path = std::ffi::CString::new(path.to_str().expect("text")).expect("no NUL");
        let kind = c"tmpfs".as_ptr();
        // SAFETY: all texts end in NUL.
        let mounted = unsafe { libc::mount(kind, path.as_ptr(), kind, 0, options.as_ptr().cast()) };
        assert_eq!(mounted, 0, "mount a small disk");
        Mounted(path)
    }
}

/// Writes until nothing fits any more.
fn fill(file: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(file).expect("create");
    let chunk = [b'x'; 512];
    let error = loop {
        if let Err(error) = file.write_all(&chunk) {
            break error;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

#[tokio::test]
async fn ends_are_told_on_a_full_disk() {
    let mut world = World::new().await;
    let runtime = world.config.runtime_dir.clone();
    let _mounted = Mounted::tmpfs(&runtime, c"size=1m");
    let go = world.spec(Kind::Process, "ends", "").sandbox.join("go");
    let ends = format!("until [ -e {} ]; do sleep 0.02; done; exit 6", go.display());
    let ends = world.spec(Kind::Process, "ends", &ends);
    let killed = world.spec(Kind::Process, "killed", "sleep 1000");
    world.launch(&ends).await;
    world.launch(&killed).await;

    let filler = runtime.join("filler");
    fill(&filler);
    std::fs::write(&go, "").expect("write");
    assert_eq!(world.exited().await.exit, Exit::Code(6));
    let kill = world.containerizer.kill(&killed.container_id, None).await;
    kill.expect("kill");
    let end = world.exited().await;
    assert!(end.killed && end.exit == Exit::Signal(15), "{end:?}");

    // What cannot be recorded is refused, and leaves nothing.
    let refused = world.spec(Kind::Process, "refused", "true");
    std::fs::create_dir_all(&refused.sandbox).expect("create");
    let error = world.containerizer.launch(refused.clone()).await;
    let error = error.expect_err("the disk is full").to_string();
    assert!(error.contains("launch.json"), "{error}");
    assert!(!runtime.join(&refused.container_id).exists());
    std::fs::remove_file(filler).expect("remove");
    assert_eq!(world.run(&refused).await.exit, Exit::Code(0));
}

#[tokio::test]
async fn a_full_disk_does_not_stop_the_task() {
    let mut world = World::new().await;
    let spec = world.spec(
        Kind::Process,
        "full",
        "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); printf '%0100d' $i; done; exit 6",
    );
    std::fs::create_dir_all(&spec.sandbox).expect("create");
    let _mounted = Mounted::tmpfs(&spec.sandbox, c"size=64k");
    let end = world.run(&spec).await;
    assert_eq!(end.exit, Exit::Code(6), "{end:?}");
    let size = std::fs::metadata(spec.sandbox.join("stdout"))
        .expect("stat")
        .len();
    assert!((1..=64 << 10).contains(&size), "{size} bytes");
}
