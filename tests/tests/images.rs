//! The container images, built from the binaries at hand and started once.

use anyhow::{Context, Result, ensure};
use std::{
    path::Path,
    process::{Command, Output},
};
use tepui_tests::{cluster, http};

fn docker(arguments: &[&str]) -> Result<Output> {
    Command::new("docker")
        .args(arguments)
        .output()
        .context("docker")
}

/// Removes containers at the end, whatever happened.
struct Containers(Vec<String>);

impl Drop for Containers {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = docker(&["rm", "-f", name]);
        }
    }
}

impl Containers {
    fn run(&mut self, name: &str, arguments: &[&str]) -> Result<()> {
        let name = format!("tepui-images-test-{}-{name}", std::process::id());
        let mut all = vec!["run", "-d", "--network", "host", "--name", &name];
        all.extend_from_slice(arguments);
        let output = docker(&all)?;
        self.0.push(name);
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

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

    let folder = tempfile::tempdir()?;
    let work = folder.path().join("agent");
    std::fs::create_dir(&work)?;
    let (port, raft, agent_port) = (
        cluster::free_port()?,
        cluster::free_port()?,
        cluster::free_port()?,
    );
    let mut containers = Containers(Vec::new());
    containers.run(
        "master",
        &[
            "tepui/master:latest",
            "--ip=127.0.0.1",
            &format!("--port={port}"),
            &format!("--raft_port={raft}"),
        ],
    )?;
    let mount = format!("{}:/var/lib/tepui-agent", work.display());
    containers.run(
        "agent",
        &[
            "-v",
            "/var/run/docker.sock:/var/run/docker.sock",
            "-v",
            &mount,
            "tepui/agent:latest",
            "--ip=127.0.0.1",
            &format!("--port={agent_port}"),
            &format!("--master=127.0.0.1:{port}"),
            "--containerizers=docker",
        ],
    )?;
    let master = ([127, 0, 0, 1], port).into();
    cluster::wait_for("the agent in its container", http::PATIENCE, || {
        let state = http::get(master, "/slaves")?;
        Ok((state["slaves"][0]["active"] == true).then_some(()))
    })?;
    let name = format!("--master=127.0.0.1:{port}");
    let listed = docker(&[
        "run",
        "--rm",
        "--network",
        "host",
        "tepui/cli:latest",
        &name,
        "agents",
    ])?;
    let text = String::from_utf8_lossy(&listed.stdout);
    ensure!(
        listed.status.success() && text.contains(&format!("127.0.0.1:{agent_port}")),
        "{text}{}",
        String::from_utf8_lossy(&listed.stderr)
    );
    Ok(())
}
