//! The processes of a run: masters and agents in their places.

use super::{Options, net, net::Place};
use crate::{cluster::binary, http};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

const PORT: u16 = 5050;
const RAFT_PORT: u16 = 5052;
const AGENT_PORT: u16 = 5051;
/// Room of a master's state: little, so that it can be filled up.
const DISK_MB: u64 = 512;
/// How long a master that is asked something may take.
const ANSWER: Duration = Duration::from_millis(500);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// One process that can be started again.
#[derive(Debug)]
pub struct Node {
    /// Where it is.
    pub place: Place,
    /// How it is called in reports.
    pub name: String,
    program: PathBuf,
    flags: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    /// Its state.
    pub work_dir: PathBuf,
}

impl Node {
    /// Starts it, if it does not run.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self) -> Result<()> {
        if self.is_running()? {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = self
            .place
            .command(&self.program)
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn is_running(&mut self) -> Result<bool> {
        match &mut self.child {
            None => Ok(false),
            Some(child) => Ok(child.try_wait()?.is_none()),
        }
    }

    /// Sends a signal, if it runs.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.is_running()?
            && let Some(child) = &self.child
        {
            kill_process(Pid::from_child(child), signal)?;
        }
        Ok(())
    }

    /// Waits until it has ended, which it was told to.
    ///
    /// # Errors
    /// It does not end.
    pub async fn ended(&mut self, patience: Duration) -> Result<()> {
        let started = Instant::now();
        while self.is_running()? {
            if started.elapsed() > patience {
                bail!("{} does not end", self.name);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            child.wait()?;
        }
        Ok(())
    }

    fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// All of them.
#[derive(Debug)]
pub struct Nodes {
    /// The masters.
    pub masters: Vec<Node>,
    /// The agents.
    pub agents: Vec<Node>,
    folder: PathBuf,
}

impl Nodes {
    /// Starts everything, without waiting for anything.
    ///
    /// # Errors
    /// A namespace or a process cannot be made.
    pub async fn start(options: &Options) -> Result<Nodes> {
        net::start()?;
        let mut places = Vec::new();
        for index in 0..options.masters {
            places.push(Place::new(11 + u8::try_from(index)?)?);
        }
        let list = |port: u16| {
            let all: Vec<String> = places
                .iter()
                .map(|it| format!("{}:{port}", it.address()))
                .collect();
            all.join(",")
        };
        let (peers, api) = (list(RAFT_PORT), list(PORT));
        let mut masters = Vec::new();
        for (index, place) in places.iter().enumerate() {
            let work_dir = options.folder.join(format!("master-{index}"));
            std::fs::create_dir_all(&work_dir)?;
            net::command(&format!(
                "mount -t tmpfs -o size={DISK_MB}m tmpfs {}",
                work_dir.display()
            ))?;
            let mut flags = vec![
                format!("--ip={}", place.address()),
                format!("--port={PORT}"),
                format!("--raft_port={RAFT_PORT}"),
                format!("--work_dir={}", work_dir.display()),
            ];
            if options.masters > 1 {
                flags.push(format!("--peers={peers}"));
                flags.push("--insecure_peers".to_owned());
            }
            masters.push(Node {
                place: *place,
                name: format!("m{index}"),
                program: binary("tepui-master"),
                flags,
                log: options.folder.join(format!("master-{index}.log")),
                child: None,
                work_dir,
            });
        }
        let mut agents = Vec::new();
        for index in 0..options.agents {
            let place = Place::new(31 + u8::try_from(index)?)?;
            let work_dir = options.folder.join(format!("agent-{index}"));
            agents.push(Node {
                place,
                name: format!("a{index}"),
                program: binary("tepui-agent"),
                flags: vec![
                    format!("--ip={}", place.address()),
                    format!("--port={AGENT_PORT}"),
                    format!("--master={api}"),
                    format!("--work_dir={}", work_dir.display()),
                    match options.docker {
                        0 => "--containerizers=process".to_owned(),
                        _ => "--containerizers=docker,process".to_owned(),
                    },
                    "--resources=cpus:8;mem:4096;disk:4096;ports:[31000-32000]".to_owned(),
                ],
                log: options.folder.join(format!("agent-{index}.log")),
                child: None,
                work_dir,
            });
        }
        let mut nodes = Nodes {
            masters,
            agents,
            folder: options.folder.clone(),
        };
        for node in nodes.masters.iter_mut().chain(&mut nodes.agents) {
            node.start()?;
        }
        Ok(nodes)
    }

    /// `host:port` of the masters' APIs.
    pub fn master_addresses(&self) -> Vec<String> {
        let all = self.masters.iter();
        all.map(|it| format!("{}:{PORT}", it.place.address()))
            .collect()
    }

    async fn get(&self, master: usize, path: &str) -> Result<Value> {
        let address = SocketAddr::from((self.masters[master].place.address(), PORT));
        let path = path.to_owned();
        // Of one that stands still the thread is left behind until its own patience ends.
        let answer = tokio::task::spawn_blocking(move || http::get(address, &path));
        tokio::time::timeout(ANSWER, answer).await??
    }

    /// The master that says that it leads; none when nobody or more than one does.
    pub async fn current_leader(&self) -> Option<usize> {
        let mut leaders = Vec::new();
        for index in 0..self.masters.len() {
            if let Ok(metrics) = self.get(index, "/metrics/snapshot").await
                && metrics["master/elected"].as_f64() == Some(1.0)
            {
                leaders.push(index);
            }
        }
        match leaders.as_slice() {
            [leader] => Some(*leader),
            _ => None,
        }
    }

    /// Takes away everything that a master had, which does not run.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn wipe(&mut self, master: usize) -> Result<()> {
        // The folder itself is a mount.
        for entry in std::fs::read_dir(&self.masters[master].work_dir)? {
            let path = entry?.path();
            match path.is_dir() {
                true => std::fs::remove_dir_all(path)?,
                false => std::fs::remove_file(path)?,
            }
        }
        Ok(())
    }

    /// Waits until the member at a master's place has a vote, and has another id than `old`; its
    /// id.
    ///
    /// # Errors
    /// It does not come.
    pub async fn voter_but(
        &self,
        master: usize,
        old: Option<u64>,
        patience: Duration,
    ) -> Result<u64> {
        let place = format!("{}:{RAFT_PORT}", self.masters[master].place.address());
        let started = Instant::now();
        loop {
            if let Some(leader) = self.current_leader().await
                && let Ok(list) = self.get(leader, "/tepui/v1/masters").await
            {
                let mut members = list["masters"].as_array().into_iter().flatten();
                let voter = members.find_map(|it| {
                    let votes = it["raft_address"] == *place && it["votes"] == true;
                    votes.then_some(it["id"].as_u64()).flatten()
                });
                if let Some(id) = voter.filter(|it| Some(*it) != old) {
                    return Ok(id);
                }
            }
            if started.elapsed() > patience {
                bail!("no new member at {place} has a vote");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits for a leader.
    ///
    /// # Errors
    /// None comes.
    pub async fn leader(&self, patience: Duration) -> Result<usize> {
        let started = Instant::now();
        loop {
            if let Some(leader) = self.current_leader().await {
                return Ok(leader);
            }
            if started.elapsed() > patience {
                bail!("no master leads after {} s", patience.as_secs());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until the leader has every agent attached.
    ///
    /// # Errors
    /// Some do not come.
    pub async fn attached(&self, patience: Duration) -> Result<()> {
        let wanted = self.agents.len() as f64;
        let what = format!("{wanted} agents attached");
        self.metrics(patience, &what, |it| {
            it["master/slaves_active"].as_f64() == Some(wanted)
        })
        .await
    }

    async fn metrics(
        &self,
        patience: Duration,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        let started = Instant::now();
        let mut last = Value::Null;
        loop {
            if let Some(leader) = self.current_leader().await
                && let Ok(metrics) = self.get(leader, "/metrics/snapshot").await
            {
                if condition(&metrics) {
                    return Ok(());
                }
                last = metrics;
            }
            if started.elapsed() > patience {
                let tasks: Vec<String> = ["slaves_active", "tasks_running", "tasks_staging"]
                    .iter()
                    .map(|it| format!("{it} {}", last[format!("master/{it}")]))
                    .collect();
                bail!(
                    "not within {} s: {what} ({})",
                    patience.as_secs(),
                    tasks.join(", ")
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until nothing is used any more, and checks that no process of a task is left.
    ///
    /// # Errors
    /// Something is.
    pub async fn at_rest(&self, patience: Duration) -> Result<()> {
        self.metrics(patience, "nothing is used", |it| {
            it["master/cpus_used"].as_f64() == Some(0.0)
                && it["master/tasks_running"].as_f64() == Some(0.0)
                && it["master/tasks_staging"].as_f64() == Some(0.0)
        })
        .await?;
        let marker = self.folder.join("lives");
        let started = Instant::now();
        loop {
            let left = processes_with(&marker)?;
            if left.is_empty() {
                return Ok(());
            }
            if started.elapsed() > patience {
                bail!("processes of tasks are left: {left:?}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Panics and aborts that the processes wrote about, which no fault excuses.
    pub fn panics(&self) -> Vec<String> {
        let mut found = Vec::new();
        for node in self.masters.iter().chain(&self.agents) {
            for line in node.log_text().lines() {
                if line.contains("panicked at") {
                    found.push(format!("{}: {line}", node.name));
                }
            }
        }
        found
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in self.agents.iter_mut().chain(&mut self.masters) {
            let _ = node.kill();
        }
        crate::leftovers::remove(&self.folder);
    }
}

/// Processes whose command line names the path.
fn processes_with(path: &Path) -> Result<Vec<i32>> {
    let wanted = path.display().to_string();
    let mut found = Vec::new();
    for process in procfs::process::all_processes()?.flatten() {
        if process.pid() as u32 == std::process::id() {
            continue;
        }
        let line = process.cmdline().unwrap_or_default();
        if line.iter().any(|it| it.contains(&wanted)) {
            found.push(process.pid());
        }
    }
    Ok(found)
}
