//! A containerizer with real processes and the real engine, in a temporary work directory.
//!
//! Whatever a test made is removed when its world is dropped: processes, cgroups, containers.

#![allow(dead_code)]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};
use tepui_containerizer::{
    Amounts, Config, ContainerEvent, ContainerSpec, Containerizer, DockerConfig, Kind, LogBounds,
    ProcessConfig, Started, Termination, sandbox,
};
use tepui_model::wire;
use tokio::sync::mpsc;

/// Longest wait for anything; a condition that takes this long will not come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The shim, built once.
pub fn shim() -> PathBuf {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let test = std::env::current_exe().expect("path of this test");
        // <target>/<profile>/deps/<test>
        let profile = test.ancestors().nth(2).expect("profile directory");
        let target = profile.parent().expect("target directory");
        let mut build = Command::new(std::env::var("CARGO").unwrap_or("cargo".into()));
        build.args(["build", "-q", "-p", "tepui-shim", "--target-dir"]);
        build.arg(target);
        if profile.file_name().is_some_and(|it| it == "release") {
            build.arg("--release");
        }
        assert!(
            build.status().expect("run cargo").success(),
            "build the shim"
        );
        profile.join("tepui-shim")
    })
    .clone()
}

/// The test image, made once; fails loudly without an engine.
pub fn image() -> &'static str {
    static IMAGE: OnceLock<()> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/test-image.sh");
        let status = Command::new(script).arg("tepui-test:1").status();
        assert!(
            status.is_ok_and(|it| it.success()),
            "these tests need a Docker engine and busybox-static"
        );
    });
    "tepui-test:1"
}

pub struct World {
    pub work: tempfile::TempDir,
    pub config: Config,
    pub containerizer: Containerizer,
    pub events: mpsc::Receiver<ContainerEvent>,
}

impl World {
    pub async fn new() -> World {
        World::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> World {
        let work = tempfile::tempdir().expect("a temporary directory");
        // Task users have to get through to their sandboxes.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(work.path(), mode).expect("chmod");
        let runtime = work.path().join("containers");
        let owner = Containerizer::owner_of(work.path()).expect("owner");
        let mut config = Config::new(runtime, owner);
        config.process = Some(ProcessConfig {
            shim: shim(),
            cgroups_root: "tepui-test".into(),
            ..ProcessConfig::default()
        });
        config.docker = Some(DockerConfig::default());
        config.logs = LogBounds::default();
        change(&mut config);
        let (containerizer, events) = World::start(&config).await;
        World {
            work,
            config,
            containerizer,
            events,
        }
    }

    async fn start(config: &Config) -> (Containerizer, mpsc::Receiver<ContainerEvent>) {
        let (sender, events) = mpsc::channel(64);
        let containerizer = Containerizer::new(config.clone(), sender)
            .await
            .expect("a containerizer");
        (containerizer, events)
    }

    /// What `kill -9` of an agent and its restart come to, seen from here.
    pub async fn restart(&mut self) {
        self.containerizer.detach();
        let (containerizer, events) = World::start(&self.config).await;
        self.containerizer = containerizer;
        self.events = events;
    }

    pub fn spec(&self, kind: Kind, id: &str, command: &str) -> ContainerSpec {
        let container = (kind == Kind::Docker).then(|| wire::ContainerInfo {
            r#type: wire::container_info::Type::Docker as i32,
            docker: Some(wire::container_info::DockerInfo {
                image: image().into(),
                network: Some(wire::container_info::docker_info::Network::Host as i32),
                ..Default::default()
            }),
            ..Default::default()
        });
        // Docker container names are shared by all tests of this machine.
        let id = format!("{id}-{}", &self.config.owner[..8]);
        ContainerSpec {
            sandbox: sandbox::path(self.work.path(), "S0", "F0", &id, &id),
            container_id: id,
            framework_id: "F0".into(),
            executor_id: "t".into(),
            task_id: "t".into(),
            kind,
            command: wire::CommandInfo {
                value: Some(command.into()),
                ..Default::default()
            },
            container,
            amounts: Amounts {
                cpus: 1.0,
                mem: 64.0,
                ..Amounts::default()
            },
            user: None,
            environment: vec![("FROM_AGENT".into(), "yes".into())],
            volumes: Vec::new(),
            kill_grace: Duration::from_secs(5),
            max_completion_time: None,
            health_check: None,
            check: None,
            labels: Vec::new(),
        }
    }

    pub async fn next(&mut self) -> ContainerEvent {
        tokio::time::timeout(PATIENCE, self.events.recv())
            .await
            .expect("an event in time")
            .expect("the containerizer lives")
    }

    pub async fn started(&mut self) -> Started {
        match self.next().await {
            ContainerEvent::Started { started, .. } => started,
            other => panic!("not a start: {other:?}"),
        }
    }

    pub async fn exited(&mut self) -> Termination {
        match self.next().await {
            ContainerEvent::Exited { termination, .. } => termination,
            other => panic!("not an end: {other:?}"),
        }
    }

    /// Launches and waits for start and end.
    pub async fn run(&mut self, spec: &ContainerSpec) -> Termination {
        self.launch(spec).await;
        self.exited().await
    }

    pub async fn launch(&mut self, spec: &ContainerSpec) -> Started {
        self.containerizer
            .launch(spec.clone())
            .await
            .expect("launch");
        self.started().await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.containerizer.detach();
        let owner = self.config.owner.clone();
        let label = format!("label=tepui.owner={owner}");
        let list = Command::new("docker")
            .args(["ps", "-aq", "-f", &label])
            .output();
        if let Ok(list) = list {
            for id in String::from_utf8_lossy(&list.stdout).lines() {
                let _ = Command::new("docker").args(["rm", "-fv", id]).output();
            }
        }
        // A killed shim takes its task along.
        for entry in std::fs::read_dir(&self.config.runtime_dir)
            .into_iter()
            .flatten()
            .flatten()
        {
            let state = std::fs::read_to_string(entry.path().join("state")).unwrap_or_default();
            let shim = state.lines().find_map(|it| it.strip_prefix("shim="));
            if let Some(pid) = shim.and_then(|it| it.split(' ').next()?.parse::<i32>().ok())
                && !entry.path().join("exit").exists()
            {
                // SAFETY: plain system call; the shim is ours and has not ended.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        let root = Path::new("/sys/fs/cgroup");
        for controller in ["cpu", "cpuacct", "memory", "pids", "unified", "."] {
            let ours = root.join(controller).join("tepui-test").join(&owner);
            for group in std::fs::read_dir(&ours).into_iter().flatten().flatten() {
                let deadline = std::time::Instant::now() + Duration::from_secs(5);
                while group.path().is_dir()
                    && std::fs::remove_dir(group.path()).is_err()
                    && std::time::Instant::now() < deadline
                {
                    std::thread::yield_now();
                }
            }
            let _ = std::fs::remove_dir(ours);
        }
    }
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("never: {what}");
    }
}

pub fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Whether a process (not a zombie) of this command line is there.
pub fn is_running(marker: &str) -> bool {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|it| it.file_name().to_string_lossy().parse::<u32>().is_ok())
        .any(|it| {
            let line = std::fs::read(it.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line)
                .split('\0')
                .any(|word| word == marker)
        })
}
