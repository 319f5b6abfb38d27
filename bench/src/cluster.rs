//! Starts the real binaries beside this one.

use anyhow::{Context, Result, bail};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A started binary, ended when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The path of a binary built together with this one.
fn binary(name: &str) -> Result<PathBuf> {
    let mut path = std::env::current_exe()?;
    path.set_file_name(name);
    if !path.exists() {
        bail!(
            "{} is missing: build all binaries first (`make bench` does)",
            path.display()
        );
    }
    Ok(path)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// Masters of one cluster, on loopback.
#[derive(Debug)]
pub(crate) struct Masters {
    /// In order of their addresses; `None` while one is dead.
    processes: Vec<Option<Process>>,
    addresses: Vec<SocketAddr>,
    raft: Vec<SocketAddr>,
    folder: PathBuf,
}

impl Masters {
    /// Starts so many masters with their files under `folder` and waits until they serve.
    pub(crate) async fn start(folder: &Path, count: usize) -> Result<Masters> {
        let mut masters = Masters {
            processes: Vec::new(),
            addresses: Vec::new(),
            raft: Vec::new(),
            folder: folder.to_owned(),
        };
        for _ in 0..count {
            let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            masters.addresses.push(address(free_port()?));
            masters.raft.push(address(free_port()?));
            masters.processes.push(None);
        }
        for index in 0..count {
            masters.restart(index).await?;
        }
        Ok(masters)
    }

    /// Starts one that is dead.
    pub(crate) async fn restart(&mut self, index: usize) -> Result<()> {
        let work_dir = self.folder.join(format!("master-{index}"));
        let mut flags = Vec::new();
        if self.raft.len() > 1 {
            let peers: Vec<String> = self.raft.iter().map(SocketAddr::to_string).collect();
            flags.push(format!("--peers={}", peers.join(",")));
        }
        let (port, raft) = (self.addresses[index].port(), self.raft[index]);
        let process = start_master_at(port, &self.folder, &work_dir, raft, &flags).await?;
        self.processes[index] = Some(process);
        Ok(())
    }

    /// Ends one with SIGKILL.
    pub(crate) fn kill(&mut self, index: usize) {
        self.processes[index] = None;
    }

    /// Where they listen.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The process id of one, while it lives.
    pub(crate) fn id(&self, index: usize) -> Option<u32> {
        self.processes[index].as_ref().map(Process::id)
    }

    /// Process ids of those that live.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().flatten().map(Process::id)
    }
}

/// An address of loopback where nobody listens.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}

/// Starts one master on its own folder, with flags of its own, and waits until it serves.
pub(crate) async fn start_master(
    folder: &Path,
    work_dir: &Path,
    raft: SocketAddr,
    flags: &[String],
) -> Result<Process> {
    start_master_at(free_port()?, folder, work_dir, raft, flags).await
}

async fn start_master_at(
    port: u16,
    folder: &Path,
    work_dir: &Path,
    raft: SocketAddr,
    flags: &[String],
) -> Result<Process> {
    let work_dir = format!("--work_dir={}", work_dir.display());
    let raft = format!("--raft_port={}", raft.port());
    let mut all = vec![work_dir.as_str(), raft.as_str()];
    all.extend(flags.iter().map(String::as_str));
    start("tepui-master", folder, port, &all).await
}

/// Starts an agent with its files under `folder` and waits until it serves.
pub(crate) async fn start_agent(
    folder: &Path,
    master: SocketAddr,
    flags: &[&str],
) -> Result<Process> {
    let port = free_port()?;
    let work_dir = format!("--work_dir={}", folder.join("agent").display());
    let master = format!("--master={master}");
    let mut all = vec![work_dir.as_str(), master.as_str()];
    all.extend_from_slice(flags);
    start("tepui-agent", folder, port, &all).await
}

async fn start(name: &str, folder: &Path, port: u16, flags: &[&str]) -> Result<Process> {
    let path = folder.join(format!("{name}-{port}.log"));
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&path)?;
    let child = Command::new(binary(name)?)
        .args(flags)
        .arg("--ip=127.0.0.1")
        .arg(format!("--port={port}"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let process = Process {
        child,
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
    };
    let started = Instant::now();
    loop {
        if tokio::net::TcpStream::connect(process.address)
            .await
            .is_ok()
        {
            return Ok(process);
        }
        if started.elapsed() > Duration::from_secs(30) {
            let log = std::fs::read_to_string(&path)?;
            bail!("{name} does not serve; it said:\n{log}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
