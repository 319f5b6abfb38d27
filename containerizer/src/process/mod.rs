//! Tasks as processes: a shim each, in a cgroup and in namespaces where the kernel allows it.
//!
//! The agent makes the cgroup and writes the spec; the shim does the rest and needs no agent to
//! live. An agent under systemd therefore needs `KillMode=process`, or stopping the service
//! ends the shims too.

mod command;
pub(crate) use command::variables as protocol_variables;
pub(crate) mod protocol;
mod shim;
mod volumes;

use crate::{
    cgroups::{self, Group, Limits, Tree, Usage},
    config::{LogBounds, ProcessConfig},
    event::{Exit, FailureClass, Limitation, Started, Termination},
    runtime::{Folder, now_ms},
    spec::{Amounts, ContainerSpec, Limit},
    users::{self, User},
};
use protocol::SpecWriter;
pub(crate) use shim::{End, Found, Shim};
use std::{path::PathBuf, process::Stdio, time::Duration};
use tepui_model::wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Where executables are looked for when the task's environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A launch that went wrong, for the task's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub class: FailureClass,
    pub message: String,
}

impl Failure {
    pub fn new(class: FailureClass, message: impl Into<String>) -> Failure {
        Failure {
            class,
            message: message.into(),
        }
    }

    pub fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(FailureClass::Invalid, message)
    }

    pub fn runtime(message: impl Into<String>) -> Failure {
        Failure::new(FailureClass::Runtime, message)
    }
}

/// Launches and finds process tasks.
pub(crate) struct Launcher {
    config: ProcessConfig,
    tree: Option<Tree>,
    pid_namespace: bool,
    mount_namespace: bool,
    logs: LogBounds,
}

impl Launcher {
    /// Looks what the machine offers.
    pub async fn new(
        config: &ProcessConfig,
        owner: &str,
        logs: LogBounds,
    ) -> Result<Launcher, String> {
        let output = tokio::process::Command::new(&config.shim)
            .arg("probe")
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|error| format!("cannot run the shim {}: {error}", config.shim.display()))?;
        let offered = String::from_utf8_lossy(&output.stdout).into_owned();
        let offers = |name| config.namespaces && offered.split_whitespace().any(|it| it == name);
        let root = format!("{}/{owner}", config.cgroups_root);
        let tree = match &config.cgroups_hierarchy {
            None => None,
            Some(hierarchy) => match Tree::open(hierarchy, &root) {
                Ok(tree) => Some(tree),
                Err(error) => {
                    tracing::warn!(%error, "process tasks run without resource limits");
                    None
                }
            },
        };
        let launcher = Launcher {
            config: config.clone(),
            tree,
            pid_namespace: offers("pid"),
            mount_namespace: offers("mount"),
            logs,
        };
        tracing::info!(
            cgroups = launcher.tree.as_ref().map(Tree::describe),
            pid_namespace = launcher.pid_namespace,
            mount_namespace = launcher.mount_namespace,
            "process containerizer ready"
        );
        Ok(launcher)
    }

    /// The user that the task runs as; `None` is ours.
    pub fn user(&self, spec: &ContainerSpec) -> Result<Option<User>, Failure> {
        let name = spec.command.user.as_deref().or(spec.user.as_deref());
        let switch = |name: &&str| !name.is_empty() && self.config.switch_user && users::is_root();
        let Some(name) = name.filter(switch) else {
            return Ok(None);
        };
        match users::find(name) {
            Ok(Some(user)) => Ok(Some(user)),
            Ok(None) => Err(Failure::invalid(format!(
                "user '{name}' does not exist on this agent"
            ))),
            Err(error) => Err(Failure::runtime(format!("look up user '{name}': {error}"))),
        }
    }

    fn group(&self, id: &str) -> Option<Group> {
        self.tree.as_ref().map(|it| it.group(id))
    }

    /// Makes the cgroup, writes the shim's spec, and starts it.
    pub async fn start(
        &self,
        spec: &ContainerSpec,
        folder: &Folder,
        user: Option<&User>,
    ) -> Result<Shim, Failure> {
        let group = self.group(&spec.container_id);
        if let Some(group) = &group {
            group.create(&self.limits(&spec.amounts)).map_err(|error| {
                Failure::runtime(format!("Failed to set up the container's cgroup: {error}"))
            })?;
        }
        let content = self.shim_spec(spec, user, group.as_ref())?;
        let file = folder.file("spec");
        std::fs::write(&file, content)
            .map_err(|error| Failure::runtime(format!("write {}: {error}", file.display())))?;
        let started = Shim::start(&self.config.shim, folder, group.clone()).await;
        started.map_err(|message| {
            Failure::runtime(format!("Failed to launch the container: {message}"))
        })
    }

    fn limits(&self, amounts: &Amounts) -> Limits {
        let quota = match amounts.cpus_limit {
            Some(Limit::At(cpus)) => Some(cpus),
            Some(Limit::Infinite) => None,
            None => Some(amounts.cpus).filter(|it| self.config.enable_cfs && *it > 0.0),
        };
        let memory = match amounts.mem_limit {
            Some(Limit::At(mem)) => Some(mem),
            Some(Limit::Infinite) => None,
            None => Some(amounts.mem).filter(|it| *it > 0.0),
        };
        Limits {
            cpu_shares: Some(cgroups::shares(amounts.cpus, amounts.comes_last)),
            cpu_quota_us: quota.map(cgroups::quota_us),
            memory: memory.map(cgroups::memory_bytes),
            memory_reservation: (amounts.mem_limit.is_some() && amounts.mem > 0.0)
                .then(|| cgroups::memory_bytes(amounts.mem)),
            limit_swap: self.config.limit_swap,
            pids: self.config.pids_limit,
        }
    }

    fn shim_spec(
        &self,
        spec: &ContainerSpec,
        user: Option<&User>,
        group: Option<&Group>,
    ) -> Result<Vec<u8>, Failure> {
        let mut out = SpecWriter::new();
        command::put(&mut out, &spec.command)?;
        for (name, value) in command::environment(spec, &spec.command)? {
            out.put("env", format!("{name}={value}"));
        }
        out.put("cwd", &spec.sandbox).put("log_dir", &spec.sandbox);
        out.put("log_bytes", self.logs.bytes.to_string());
        out.put("log_rotated", self.logs.rotated.to_string());
        put_user(&mut out, user);
        put_group(&mut out, group);
        if let Some(file) = group.and_then(Group::kill_file) {
            out.put("cgroup_kill", file);
        }
        if self.pid_namespace {
            out.put("pid_namespace", "1");
        }
        if self.mount_namespace {
            out.put("mount_namespace", "1");
        }
        volumes::put(&mut out, spec, user, self.mount_namespace)?;
        command::put_rlimits(&mut out, spec)?;
        out.put("grace_ms", spec.kill_grace.as_millis().to_string());
        if let Some(time) = spec.max_completion_time {
            out.put("completion_ms", time.as_millis().to_string());
        }
        out.finish().map_err(Failure::invalid)
    }

    /// Looks for the task of an earlier agent. Blocks for file reads.
    pub fn find(&self, spec: &ContainerSpec, folder: &Folder) -> std::io::Result<Found> {
        Shim::find(folder, self.group(&spec.container_id))
    }

    /// Kills and removes what is left of a container: processes, cgroup. May run twice. The
    /// shim must have ended.
    pub async fn cleanup(&self, id: &str) -> Result<(), String> {
        let Some(group) = self.group(id) else {
            return Ok(());
        };
        // A killed process leaves its cgroup a moment later; the kernel has no event for that
        // in version 1, so this looks again a few times. It gives up in about two seconds.
        let mut pause = Duration::from_millis(1);
        loop {
            match group.remove() {
                Ok(()) => return Ok(()),
                Err(error) if pause > Duration::from_secs(1) => {
                    return Err(format!("remove the cgroup of container {id}: {error}"));
                }
                Err(_) => {
                    group.kill();
                    tokio::time::sleep(pause).await;
                }
            }
            pause *= 2;
        }
    }

    /// Names of containers that have a cgroup.
    pub fn groups(&self) -> Vec<String> {
        self.tree.as_ref().map(Tree::list).unwrap_or_default()
    }

    pub fn usage(&self, id: &str, task: i32) -> Usage {
        match self.group(id) {
            Some(group) => group.usage(),
            None => process_usage(task),
        }
    }

    /// Builds the one end of a container from the shim's account and the cgroup's.
    pub fn termination(
        &self,
        spec: &ContainerSpec,
        end: &End,
        noticed: Option<Limitation>,
        killed_before: bool,
    ) -> Termination {
        let (exit, core, killed, completion, finished_ms) = match end {
            End::Known(file) => {
                let (exit, core) = match &file.status {
                    Ok(status) => shim::split_status(*status),
                    Err(_) => (Exit::Unknown, false),
                };
                (exit, core, file.killed, file.completion, file.finished_ms)
            }
            End::Lost => (Exit::Unknown, false, false, false, now_ms()),
        };
        let group = self.group(&spec.container_id);
        let out_of_memory = group.as_ref().is_some_and(|it| it.oom_kills() > 0);
        let noticed_none = noticed.is_none();
        let limitation = match noticed {
            Some(it) if !exit.is_success() => Some(it),
            _ if completion => Some(Limitation::CompletionTime),
            // A kill inside of a task that went on to succeed has limited nothing.
            _ if out_of_memory && !exit.is_success() => Some(memory_limitation(group.as_ref())),
            _ => None,
        };
        // Our own kill for a limit is not the framework's kill.
        let killed = (killed && noticed_none && !completion) || killed_before;
        Termination {
            exit,
            killed,
            message: Termination::describe("Command", exit, limitation.as_ref(), core),
            limitation,
            finished_ms,
        }
    }

    /// Runs a command beside the task; `Err` when it could not be run or took too long.
    pub async fn exec(
        &self,
        spec: &ContainerSpec,
        shim_task: i32,
        command: &wire::CommandInfo,
        timeout: Option<Duration>,
    ) -> Result<Exit, String> {
        let user = self.user(spec).map_err(|it| it.message)?;
        let mut out = SpecWriter::new();
        command::put(&mut out, command).map_err(|it| it.message)?;
        let environment = command::environment(spec, command).map_err(|it| it.message)?;
        for (name, value) in environment {
            out.put("env", format!("{name}={value}"));
        }
        out.put("cwd", &spec.sandbox);
        put_user(&mut out, user.as_ref());
        put_group(&mut out, self.group(&spec.container_id).as_ref());
        if self.mount_namespace || self.pid_namespace {
            out.put("join", shim_task.to_string());
        }
        let content = out.finish()?;
        let mut child = tokio::process::Command::new(&self.config.shim)
            .arg("exec")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .env_clear()
            .current_dir("/")
            // Dropping this future closes the pipe, on which the helper kills the command;
            // it must not be killed itself before it has done so.
            .kill_on_drop(false)
            .spawn()
            .map_err(|error| format!("start {}: {error}", self.config.shim.display()))?;
        let (mut stdin, mut stdout) = child
            .stdin
            .take()
            .zip(child.stdout.take())
            .ok_or("no pipes")?;
        let conversation = async {
            let mut message = format!("{}\n", content.len()).into_bytes();
            message.extend_from_slice(&content);
            stdin.write_all(&message).await?;
            let mut answer = String::new();
            stdout.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = match timeout {
            Some(limit) => match tokio::time::timeout(limit, conversation).await {
                Ok(answer) => answer,
                Err(_) => {
                    drop(stdin);
                    return Err(format!("timed out after {} ms", limit.as_millis()));
                }
            },
            None => conversation.await,
        };
        drop(stdin);
        let _ = child.wait().await;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.trim_end().split_once(' ') {
            Some(("status", status)) => match status.parse() {
                Ok(status) => Ok(shim::split_status(status).0),
                Err(_) => Err(format!("the shim answered {answer:?}")),
            },
            Some(("failed", text)) => Err(text.to_owned()),
            _ => Err("the shim died".into()),
        }
    }
}

/// The limitation to report for a group that ran out of memory.
pub(crate) fn memory_limitation(group: Option<&Group>) -> Limitation {
    Limitation::Memory {
        limit_bytes: group.and_then(|it| it.usage().memory_limit).unwrap_or(0),
    }
}

fn put_user(out: &mut SpecWriter, user: Option<&User>) {
    if let Some(user) = user {
        out.put("user", format!("{}:{}", user.uid, user.gid));
        for group in &user.groups {
            out.put("group", group.to_string());
        }
    }
}

fn put_group(out: &mut SpecWriter, group: Option<&Group>) {
    for file in group.map(Group::procs).unwrap_or_default() {
        out.put("cgroup", file);
    }
}

/// Usage of one process alone, for agents without cgroups.
fn process_usage(pid: i32) -> Usage {
    let Ok(stat) = procfs::process::Process::new(pid).and_then(|it| it.stat()) else {
        return Usage::default();
    };
    let tick = Duration::from_millis(1000 / procfs::ticks_per_second().max(1));
    let ticks = |count: u64| tick * count.min(u64::from(u32::MAX)) as u32;
    Usage {
        cpu_user: ticks(stat.utime),
        cpu_system: ticks(stat.stime),
        memory_rss: Some(stat.rss * procfs::page_size()),
        memory_total: Some(stat.rss * procfs::page_size()),
        processes: Some(1),
        threads: u32::try_from(stat.num_threads).ok(),
        ..Usage::default()
    }
}

/// `Started` of a running shim.
pub(crate) fn started(shim: &Shim) -> Started {
    Started {
        pid: shim.state.task.pid as u32,
        ip_addresses: Vec::new(),
        inspect: None,
        started_ms: shim.state.started_ms,
    }
}

/// The `PATH` that tasks get when nobody says otherwise.
pub(crate) fn default_path() -> (String, String) {
    ("PATH".into(), DEFAULT_PATH.into())
}

/// Default place of the shim: beside the running program.
pub fn default_shim() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|it| Some(it.parent()?.join("tepui-shim")))
        .filter(|it| it.exists())
        .unwrap_or_else(|| PathBuf::from("tepui-shim"))
}
