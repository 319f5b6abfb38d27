//! The container images, built from the binaries at hand, and the cluster of the compose
//! file, which survives the death of a master.

use anyhow::{Context, Result, ensure};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tepui_scheduler_api::{Event, Options, Session, task, v1};
use tepui_tests::{cluster, http};

#[test]
fn images_build_without_a_registry_and_start() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the root")?;
    let target = cluster::binaries()
        .parent()
        .context("the target folder")?
        .to_owned();
    let made = Command::new(root.join("scripts/images.sh"))
        .env("PROFILE", "dev")
        .env("SKIP_BUILD", "1")
        .env("CARGO_TARGET_DIR", &target)
        .output()?;
    ensure!(
        made.status.success(),
        "{}{}",
        String::from_utf8_lossy(&made.stdout),
        String::from_utf8_lossy(&made.stderr)
    );

    compose_survives_a_master(root)
}

/// The compose file's own cluster: one of its masters is killed while a task runs.
fn compose_survives_a_master(root: &Path) -> Result<()> {
    let install = root.join("scripts/compose.sh");
    let installed = Command::new(install).status()?;
    ensure!(installed.success(), "docker-compose cannot be had");
    let mut compose = Compose::new(root)?;
    compose.run(&["up", "-d"])?;
    let masters = compose.masters.clone();
    let leader = |masters: &[SocketAddr]| -> Result<Option<usize>> {
        for (index, master) in masters.iter().enumerate() {
            let metrics = http::get(*master, "/metrics/snapshot")?;
            if metrics["master/elected"] == 1.0 && metrics["master/slaves_active"] == 3.0 {
                return Ok(Some(index));
            }
        }
        Ok(None)
    };
    let first = cluster::wait_for("three agents in containers", http::PATIENCE, || {
        leader(&masters)
    })
    .with_context(|| compose.logs())?;

    let listed = compose.run(&["run", "--rm", "-T", "cli"])?;
    ensure!(listed.matches("active").count() == 3, "{listed}");

    // A task through the failover, for a framework that knows every master.
    let runtime = tokio::runtime::Runtime::new()?;
    let mut task = runtime.block_on(LongTask::start(&masters))?;
    compose.run(&["kill", &format!("master-{}", first + 1)])?;
    runtime
        .block_on(task.finish())
        .with_context(|| compose.logs())?;
    let others: Vec<SocketAddr> = masters
        .iter()
        .enumerate()
        .filter_map(|(index, it)| (index != first).then_some(*it))
        .collect();
    cluster::wait_for("another leader", http::PATIENCE, || leader(&others))?;
    Ok(())
}

/// A container that runs until a file appears in its sandbox, and its framework.
struct LongTask {
    session: Session,
    stop: tempfile::TempDir,
}

impl LongTask {
    async fn start(masters: &[SocketAddr]) -> Result<LongTask> {
        let stop = tempfile::tempdir()?;
        let mut info = task::framework("root", "images");
        info.failover_timeout = Some(600.0);
        let addresses = masters.iter().map(SocketAddr::to_string);
        let mut session = Session::start(Options::new(addresses, info))?;
        let mut launched = false;
        loop {
            let event = tokio::time::timeout(http::PATIENCE, session.events.next()).await?;
            match event.context("the session")?? {
                Event::Offers(offers) if !launched => {
                    let offer = offers.first().context("an offer")?;
                    let line = "until [ -e /stop/now ]; do sleep 0.1; done";
                    let mut long = task::task("long", offer, 0.1, 32.0, task::shell(line));
                    let mut container = task::docker("tepui/cli:latest");
                    container.volumes.push(v1::Volume {
                        mode: v1::volume::Mode::Rw as i32,
                        container_path: "/stop".into(),
                        host_path: Some(stop.path().display().to_string()),
                        ..Default::default()
                    });
                    long.container = Some(container);
                    session.driver.launch(offer, vec![long], None).await?;
                    launched = true;
                }
                Event::Update(status) => {
                    let state = status.state();
                    ensure!(!task::is_terminal(state), "{status:?}");
                    if state == v1::TaskState::TaskRunning {
                        return Ok(LongTask { session, stop });
                    }
                }
                _ => {}
            }
        }
    }

    /// Waits for the next leader, then lets the task end and waits for its end.
    async fn finish(&mut self) -> Result<()> {
        loop {
            let event = tokio::time::timeout(http::PATIENCE, self.session.events.next()).await?;
            match event.context("the session")?? {
                Event::Subscribed { again: true, .. } => {
                    std::fs::write(self.stop.path().join("now"), "")?;
                }
                Event::Update(status) if task::is_terminal(status.state()) => {
                    let finished = status.state() == v1::TaskState::TaskFinished;
                    ensure!(finished, "{status:?}");
                    return Ok(());
                }
                _ => {}
            }
        }
    }
}

/// A project of the compose file, with ports and folders of its own.
struct Compose {
    file: PathBuf,
    project: String,
    environment: Vec<(String, String)>,
    masters: Vec<SocketAddr>,
    _folder: tempfile::TempDir,
}

impl Compose {
    fn new(root: &Path) -> Result<Compose> {
        let folder = tempfile::tempdir()?;
        let mut environment = vec![(
            "TEPUI_AGENTS".to_owned(),
            folder.path().display().to_string(),
        )];
        let mut masters = Vec::new();
        for number in 1..=3 {
            let port = cluster::free_port()?;
            masters.push(SocketAddr::from(([127, 0, 0, 1], port)));
            environment.push((format!("TEPUI_MASTER_{number}"), port.to_string()));
            for name in ["RAFT", "AGENT"] {
                let port = cluster::free_port()?;
                environment.push((format!("TEPUI_{name}_{number}"), port.to_string()));
            }
        }
        Ok(Compose {
            file: root.join("docker/compose.yaml"),
            project: format!("tepui-test-{}", std::process::id()),
            environment,
            masters,
            _folder: folder,
        })
    }

    fn run(&mut self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "docker-compose {}: {text}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(text)
    }

    fn output(&self, arguments: &[&str]) -> Result<Output> {
        Command::new("docker-compose")
            .arg("-f")
            .arg(&self.file)
            .args(["-p", &self.project])
            .args(arguments)
            .envs(self.environment.iter().cloned())
            .output()
            .context("docker-compose")
    }

    fn logs(&self) -> String {
        let output = self.output(&["logs", "--no-color", "--tail=30"]);
        output.map_or_else(
            |error| error.to_string(),
            |it| String::from_utf8_lossy(&it.stdout).into_owned(),
        )
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        let _ = self.output(&["down", "-v", "-t", "1"]);
    }
}
