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

/// Starts a master with its files under `folder` and waits until it serves.
pub(crate) async fn start_master(folder: &Path) -> Result<Process> {
    let port = free_port()?;
    let work_dir = format!("--work_dir={}", folder.join("master").display());
    let raft = format!("--raft_port={}", free_port()?);
    start("tepui-master", folder, port, &[&work_dir, &raft]).await
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
    let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
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
            let log = std::fs::read_to_string(folder.join(format!("{name}.log")))?;
            bail!("{name} does not serve; it said:\n{log}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
