//! A cluster of the built binaries on loopback, in a temporary folder.

use crate::{http, leftovers};
use anyhow::{Context, Result, bail, ensure};
use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The folder of the built binaries: where cargo put this test's own.
///
/// # Panics
/// When the test does not lie in a target folder.
pub fn binaries() -> PathBuf {
    let mut folder = std::env::current_exe().expect("this test has a path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    folder
}

/// The path of one binary.
///
/// # Panics
/// When it was not built: `make test` builds all binaries before it runs the tests.
pub fn binary(name: &str) -> PathBuf {
    let path = binaries().join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace --bins` first",
        path.display()
    );
    path
}

/// The Python that has pymesos and kazoo as they are on PyPI; installs them when they are not
/// there.
///
/// # Errors
/// When they cannot be had.
pub fn pymesos() -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/pymesos.sh");
    let environment = binaries().join("pymesos-environment");
    let made = Command::new(script).arg(&environment).output()?;
    ensure!(
        made.status.success(),
        "pymesos cannot be installed: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    Ok(String::from_utf8(made.stdout)?.trim().to_owned())
}

/// Ports that the kernel gives to nobody by itself: a connection that some other test opens cannot
/// take the port between this moment and the one at which a process listens on it.
const PORTS: std::ops::Range<u16> = 11_000..31_000;

/// A port that was free a moment ago, and is given once by this process.
///
/// # Errors
/// When loopback has none.
pub fn free_port() -> Result<u16> {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let size = u32::from(PORTS.end - PORTS.start);
    // Tests are processes that run side by side: each begins somewhere else.
    let begin = std::process::id().wrapping_mul(7919);
    for _ in 0..size {
        let next = u32::from(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + (begin.wrapping_add(next) % size) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("loopback has no free port in {PORTS:?}")
}

/// Asks `condition` until it holds.
///
/// # Errors
/// With the last answer when it does not hold within `patience`.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        let answer = condition();
        if let Ok(Some(value)) = answer {
            return Ok(value);
        }
        if started.elapsed() > patience {
            return match answer {
                Err(error) => Err(error.context(format!("waited in vain for {what}"))),
                _ => bail!("waited in vain for {what}"),
            };
        }
        // The condition is asked again, not assumed, after this pause.
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A process that is ended with its test.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its `--work_dir`.
    pub work_dir: PathBuf,
    /// What it wrote.
    pub log: PathBuf,
}

impl Process {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        // Killing a process that has ended already is not an error here.
        let _ = self.child.kill();
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal by number.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// The last that it wrote, for who reads of a failed test.
    pub fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        let tail = lines[lines.len().saturating_sub(60)..].join("\n");
        format!("--- the end of {} ---\n{tail}", self.log.display())
    }

    /// What it wrote so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}

/// One master and some agents.
#[derive(Debug)]
pub struct Cluster {
    /// The master.
    pub master: Process,
    /// The agents, in the order in which they were started.
    pub agents: Vec<Process>,
    folder: TempDir,
    master_flags: Vec<String>,
}

impl Cluster {
    /// Starts a master with the flags given, and waits until it serves.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(master_flags: &[&str]) -> Result<Cluster> {
        let folder = tempfile::Builder::new().prefix("tepui-test-").tempdir()?;
        let flags: Vec<String> = master_flags.iter().map(|it| (*it).to_owned()).collect();
        let master = start_master(folder.path(), free_port()?, free_port()?, &flags)?;
        let cluster = Cluster {
            master,
            agents: Vec::new(),
            folder,
            master_flags: flags,
        };
        cluster.wait_for_master()?;
        Ok(cluster)
    }

    /// The folder of everything that the cluster writes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts an agent and waits until the master has it.
    ///
    /// # Errors
    /// When it does not register.
    pub fn add_agent(&mut self, flags: &[&str]) -> Result<usize> {
        let index = self.agents.len();
        let work_dir = self.folder.path().join(format!("agent-{index}"));
        let agent = start_agent(&work_dir, self.master.address, free_port()?, flags)?;
        let address = agent.address;
        self.agents.push(agent);
        self.wait_for_agent(address)?;
        Ok(index)
    }

    /// Starts the agent again that was killed, with the flags given.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn restart_agent(&mut self, index: usize, flags: &[&str]) -> Result<()> {
        let old = &mut self.agents[index];
        old.kill()?;
        let (work_dir, port) = (old.work_dir.clone(), old.address.port());
        let agent = start_agent(&work_dir, self.master.address, port, flags)?;
        let address = agent.address;
        self.agents[index] = agent;
        self.wait_for_agent(address)
    }

    /// Starts the master again that was killed, at the same address.
    ///
    /// # Errors
    /// When it does not serve again.
    pub fn restart_master(&mut self) -> Result<()> {
        self.master.kill()?;
        let port = self.master.address.port();
        self.master = start_master(self.folder.path(), port, free_port()?, &self.master_flags)?;
        self.wait_for_master()
    }

    fn wait_for_master(&self) -> Result<()> {
        let address = self.master.address;
        wait_for("the master", http::PATIENCE, || {
            let health = r#"{"type":"GET_HEALTH"}"#;
            let json = [("Content-Type", "application/json")];
            let answer = http::send(address, "POST", "/api/v1", &json, health.as_bytes())?;
            Ok((answer.status == 200).then_some(()))
        })
        .with_context(|| self.master.output())
    }

    /// Waits until the master has an active agent at `address`.
    ///
    /// # Errors
    /// When it does not come.
    pub fn wait_for_agent(&self, address: SocketAddr) -> Result<()> {
        let pid = format!("slave(1)@{address}");
        wait_for("the agent", http::PATIENCE, || {
            let state = http::get(self.master.address, "/slaves")?;
            let agents = state["slaves"].as_array().context("slaves")?;
            let found = agents
                .iter()
                .any(|agent| agent["pid"] == pid && agent["active"] == true);
            Ok(found.then_some(()))
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for agent in &mut self.agents {
            let _ = agent.kill();
        }
        leftovers::remove(self.folder.path());
    }
}

pub(crate) fn start(
    name: &str,
    folder: &Path,
    work_dir: PathBuf,
    address: SocketAddr,
    flags: &[String],
    environment: &[(String, String)],
) -> Result<Process> {
    std::fs::create_dir_all(folder)?;
    let log = folder.join(format!("{name}-{}.log", address.port()));
    let file = File::options().create(true).append(true).open(&log)?;
    let child = Command::new(binary(name))
        .args(flags)
        .envs(environment.iter().cloned())
        .arg(format!("--work_dir={}", work_dir.display()))
        .arg(format!("--ip={}", address.ip()))
        .arg(format!("--port={}", address.port()))
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    Ok(Process {
        child,
        address,
        work_dir,
        log,
    })
}

fn start_master(folder: &Path, port: u16, raft_port: u16, flags: &[String]) -> Result<Process> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut all = vec![format!("--raft_port={raft_port}")];
    all.extend_from_slice(flags);
    let work_dir = folder.join("master");
    start("tepui-master", folder, work_dir, address, &all, &[])
}

pub(crate) fn start_agent(
    work_dir: &Path,
    master: impl std::fmt::Display,
    port: u16,
    flags: &[&str],
) -> Result<Process> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut all = vec![format!("--master={master}")];
    all.extend(flags.iter().map(|it| (*it).to_owned()));
    let folder = work_dir.parent().context("a work folder lies somewhere")?;
    let work_dir = work_dir.to_owned();
    start("tepui-agent", folder, work_dir, address, &all, &[])
}
