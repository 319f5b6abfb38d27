//! Settings, validated by the agent's flags before they come here.

use std::{path::PathBuf, time::Duration};

/// Bounds of one output file of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// Bytes after which `stdout` becomes `stdout.1`, `stdout.1` becomes `stdout.2` and so on.
    pub bytes: u64,
    /// How many rotated files are kept beside the current one; older ones are deleted.
    pub rotated: u32,
}

impl Default for LogBounds {
    /// 10 MiB, the default of Mesos' logrotate logger, with four rotated files: a task that
    /// writes without end holds at most 100 MiB of disk in both streams together. A Docker task
    /// holds another 30 MB in the engine, whose log is only a buffer on the way to the sandbox:
    /// what is written while no agent reads, beyond that, is lost from its beginning.
    fn default() -> LogBounds {
        LogBounds {
            bytes: 10 << 20,
            rotated: 4,
        }
    }
}

/// Settings of the Docker side.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    /// The engine's socket (`--docker_socket`).
    pub socket: PathBuf,
    /// Time limit of one call that should be quick; pulls have [`DockerConfig::pull_idle`].
    pub call_timeout: Duration,
    /// A pull that makes no progress for this long is given up.
    pub pull_idle: Duration,
    /// Path of the sandbox inside containers (`--sandbox_directory`).
    pub sandbox_directory: String,
    /// Content of `--docker_config`: a Docker `config.json` with `auths`, as text.
    pub registry_config: Option<String>,
    /// `--cgroups_enable_cfs`: without a cpu limit of its own a task gets its request as quota.
    pub enable_cfs: bool,
    /// `--docker_kill_orphans`: whether containers that the agent does not know any more are
    /// removed when it recovers.
    pub kill_orphans: bool,
    /// `--default_container_dns`, already cut down to the Docker entries: for bridge and user
    /// networks.
    pub dns: Vec<DockerDns>,
}

/// One entry of `--default_container_dns` for Docker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerDns {
    /// `Some(name)` for one user network, `None` for the bridge.
    pub network: Option<String>,
    /// Servers.
    pub nameservers: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

impl Default for DockerConfig {
    fn default() -> DockerConfig {
        DockerConfig {
            socket: PathBuf::from("/var/run/docker.sock"),
            call_timeout: Duration::from_secs(30),
            pull_idle: Duration::from_secs(60),
            sandbox_directory: "/mnt/mesos/sandbox".into(),
            registry_config: None,
            enable_cfs: true,
            kill_orphans: true,
            dns: Vec::new(),
        }
    }
}

/// Settings of the process side.
#[derive(Clone, Debug)]
pub struct ProcessConfig {
    /// Path of the `tepui-shim` binary; by default beside the running program, else in `PATH`.
    pub shim: PathBuf,
    /// Where the cgroup hierarchies are mounted; `None` runs tasks without cgroups (no limits,
    /// usage by process only).
    pub cgroups_hierarchy: Option<PathBuf>,
    /// Name of our folder in each hierarchy (`--cgroups_root`).
    pub cgroups_root: String,
    /// `--cgroups_enable_cfs`, see [`DockerConfig::enable_cfs`].
    pub enable_cfs: bool,
    /// `--cgroups_limit_swap`: the limit covers memory and swap together.
    pub limit_swap: bool,
    /// Most processes and threads in one container; `None` for no limit.
    pub pids_limit: Option<u64>,
    /// Own pid and mount namespaces where the kernel allows it; `false` never.
    pub namespaces: bool,
    /// `--switch_user`: run as the task's user when the agent may.
    pub switch_user: bool,
}

impl Default for ProcessConfig {
    fn default() -> ProcessConfig {
        ProcessConfig {
            shim: crate::process::default_shim(),
            cgroups_hierarchy: Some(PathBuf::from("/sys/fs/cgroup")),
            cgroups_root: "tepui".into(),
            enable_cfs: true,
            limit_swap: false,
            // More than any sane task, less than the kernel's table of a small machine.
            pids_limit: Some(16_384),
            namespaces: true,
            switch_user: true,
        }
    }
}

/// All settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our own files, a folder per container; on a disk that lives as long as the agent's
    /// work directory, so `<work_dir>/containers` is a good place.
    pub runtime_dir: PathBuf,
    /// Unique and permanent name of this agent's work directory. It labels Docker containers
    /// and names the cgroup, so that agents sharing a machine leave each other's alone.
    /// See [`crate::Containerizer::owner_of`].
    pub owner: String,
    /// Docker, when wanted.
    pub docker: Option<DockerConfig>,
    /// Processes, when wanted.
    pub process: Option<ProcessConfig>,
    /// Bounds of `stdout` and of `stderr` in each sandbox.
    pub logs: LogBounds,
    /// `--frameworks_home`: base of relative local URIs.
    pub frameworks_home: Option<PathBuf>,
    /// Bounds of the fetcher.
    pub fetch: crate::fetcher::Bounds,
    /// `--enforce_container_disk_quota`: the period of looking (`--container_disk_watch_interval`).
    pub disk_watch: Option<Duration>,
}

impl Config {
    /// Everything at its default: processes and Docker both wanted.
    pub fn new(runtime_dir: impl Into<PathBuf>, owner: impl Into<String>) -> Config {
        Config {
            runtime_dir: runtime_dir.into(),
            owner: owner.into(),
            docker: Some(DockerConfig::default()),
            process: Some(ProcessConfig::default()),
            logs: LogBounds::default(),
            frameworks_home: None,
            fetch: crate::fetcher::Bounds::default(),
            disk_watch: None,
        }
    }
}
