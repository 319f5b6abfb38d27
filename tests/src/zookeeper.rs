//! Debian's ZooKeeper server on loopback, and an old client that looks for masters in it.

use crate::cluster::{free_port, pymesos, wait_for};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A server, with a disk of its own.
#[derive(Debug)]
pub struct ZooKeeper {
    child: Option<Child>,
    /// Where it listens.
    pub port: u16,
    folder: TempDir,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/zookeeper.sh")
}

/// The Python that has kazoo. Installs both it and the server when they are not there.
///
/// # Errors
/// When they cannot be had.
pub fn python() -> Result<String> {
    let output = Command::new(script()).stderr(Stdio::inherit()).output()?;
    ensure!(
        output.status.success(),
        "scripts/zookeeper.sh cannot install Debian's ZooKeeper and kazoo: see above"
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

impl ZooKeeper {
    /// A server that does not run yet.
    ///
    /// # Errors
    /// When it cannot be installed.
    pub fn named() -> Result<ZooKeeper> {
        python()?;
        Ok(ZooKeeper {
            child: None,
            port: free_port()?,
            folder: tempfile::Builder::new().prefix("tepui-zk-").tempdir()?,
        })
    }

    /// A server that answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn start() -> Result<ZooKeeper> {
        let mut zookeeper = ZooKeeper::named()?;
        zookeeper.run()?;
        Ok(zookeeper)
    }

    /// Starts it with what its disk holds, and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn run(&mut self) -> Result<()> {
        let folder = self.folder.path();
        let data = folder.join("data");
        std::fs::create_dir_all(&data)?;
        let config = folder.join("zoo.cfg");
        let settings = format!(
            "tickTime=1000\ndataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\n\
             admin.enableServer=false\n4lw.commands.whitelist=ruok\nmaxClientCnxns=0\n",
            data.display(),
            self.port
        );
        std::fs::write(&config, settings)?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))?;
        let child = Command::new("java")
            .args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg("/usr/share/java/zookeeper.jar")
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("java")?;
        self.child = Some(child);
        let port = self.port;
        wait_for("ZooKeeper", Duration::from_secs(60), || {
            let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            // One that has only begun takes the question and never answers it.
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            socket.write_all(b"ruok")?;
            socket.shutdown(Shutdown::Write)?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            Ok((answer == "imok").then_some(()))
        })
        .with_context(|| std::fs::read_to_string(folder.join("log")).unwrap_or_default())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            child.wait()?;
        }
        Ok(())
    }

    /// Takes its disk: nobody's session is known any more.
    ///
    /// # Errors
    /// When it runs, or the disk cannot be taken.
    pub fn wipe(&self) -> Result<()> {
        ensure!(self.child.is_none(), "it runs");
        Ok(std::fs::remove_dir_all(self.folder.path().join("data"))?)
    }

    /// `zk://` with this path, such as `/mesos`; `user` is `user:password@` or nothing.
    pub fn url(&self, user: &str, path: &str) -> String {
        format!("zk://{user}127.0.0.1:{}{path}", self.port)
    }

    /// Runs a command of the old client, and what it says last.
    ///
    /// # Errors
    /// When it fails.
    pub fn old_client(&self, command: &str, path: &str) -> Result<Value> {
        let output = self.client(command, path)?.output()?;
        ensure!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout)?;
        let last = text.lines().last().context("it says nothing")?;
        Ok(serde_json::from_str(last)?)
    }

    fn client(&self, command: &str, path: &str) -> Result<Command> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/old_zookeeper_client.py");
        let mut client = Command::new(python()?);
        client
            .arg(script)
            .args([command, &format!("127.0.0.1:{}", self.port), path])
            .stdin(Stdio::null());
        Ok(client)
    }

    /// An old client that watches who leads.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn watch(&self, path: &str) -> Result<OldClient> {
        self.spawn(self.client("watch", path)?)
    }

    /// A framework with pymesos that finds its masters here.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn framework(&self, path: &str) -> Result<OldClient> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/zookeeper_framework.py");
        let mut framework = Command::new(pymesos()?);
        framework.arg(script).arg(self.url("", path));
        self.spawn(framework)
    }

    fn spawn(&self, mut client: Command) -> Result<OldClient> {
        let log = self.folder.path().join(format!("client-{}", free_port()?));
        let file = File::create(&log)?;
        let client = client.stdin(Stdio::null()).stdout(file.try_clone()?);
        let child = client.stderr(file).spawn()?;
        Ok(OldClient { child, log })
    }
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// A client that runs and writes down what it sees.
#[derive(Debug)]
pub struct OldClient {
    child: Child,
    log: PathBuf,
}

impl OldClient {
    /// What it has seen, oldest first.
    pub fn seen(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines()
            .filter_map(|it| serde_json::from_str(it).ok())
            .collect()
    }

    /// What it wrote, as it is.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it finds the master that listens on this port alone; the node's name, its
    /// content, and how long that took.
    ///
    /// # Errors
    /// When it does not.
    pub fn finds(&self, port: u16, patience: Duration) -> Result<(String, Value, Duration)> {
        let started = Instant::now();
        let what = format!("an old client to find the master on {port}");
        let found = wait_for(&what, patience, || {
            let seen = self.seen();
            let last = seen.last().context("it has seen nothing")?;
            let nodes = last["nodes"].as_array().cloned().unwrap_or_default();
            let one = nodes.len() == 1 && last["info"]["port"] == port;
            let name = nodes.first().and_then(Value::as_str).unwrap_or_default();
            Ok(one.then(|| (name.to_owned(), last["info"].clone())))
        });
        let (name, info) = found.with_context(|| format!("{:?}", self.seen().last()))?;
        Ok((name, info, started.elapsed()))
    }

    /// Waits until it finds nobody.
    ///
    /// # Errors
    /// When it does not.
    pub fn finds_nobody(&self, patience: Duration) -> Result<Duration> {
        let started = Instant::now();
        wait_for("an old client to find nobody", patience, || {
            let seen = self.seen();
            let last = seen.last().context("it has seen nothing")?;
            Ok((last["nodes"].as_array().is_some_and(Vec::is_empty)).then_some(()))
        })?;
        Ok(started.elapsed())
    }
}

impl Drop for OldClient {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
