//! The operator's command line against a real cluster.

use anyhow::{Context, Result, ensure};
use std::process::{Command, Output, Stdio};
use tepui_tests::cluster::{Cluster, binary};

const AGENT: &[&str] = &[
    "--containerizers=process",
    "--resources=cpus:4;mem:2048;disk:4096;ports:[31000-31099]",
];

fn tepui(cluster: &Cluster, arguments: &[&str]) -> Result<Output> {
    Command::new(binary("tepui"))
        .arg(format!("--master={}", cluster.master.address))
        .args(arguments)
        .output()
        .context("tepui")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn run_streams_and_returns_the_status() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    let script = "echo out; echo err >&2; exit 3";
    let output = tepui(&cluster, &["run", "--name=first", "--", "sh", "-c", script])?;
    ensure!(output.status.code() == Some(3), "{output:?}");
    ensure!(text(&output) == "out\n", "{output:?}");
    ensure!(
        String::from_utf8_lossy(&output.stderr).contains("err\n"),
        "{output:?}"
    );

    let logs = tepui(&cluster, &["logs", "first"])?;
    ensure!(text(&logs) == "out\n", "{logs:?}");
    let listed = tepui(&cluster, &["ps", "--all", "--json"])?;
    let tasks: serde_json::Value = serde_json::from_slice(&listed.stdout)?;
    ensure!(tasks[0]["state"] == "TASK_FAILED", "{tasks}");
    let agents = tepui(&cluster, &["agents"])?;
    ensure!(text(&agents).contains("active"), "{agents:?}");
    // A reader that goes away before the end is no error to speak of.
    let mut unread = Command::new(binary("tepui"))
        .arg(format!("--master={}", cluster.master.address))
        .args(["agents", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    drop(unread.stdout.take());
    let unread = unread.wait_with_output()?;
    ensure!(unread.status.code() == Some(141), "{unread:?}");
    ensure!(unread.stderr.is_empty(), "{unread:?}");
    let frameworks = tepui(&cluster, &["frameworks", "--all"])?;
    ensure!(
        text(&frameworks).contains("tepui run first"),
        "{frameworks:?}"
    );
    Ok(())
}

#[test]
fn kill_ends_a_task_of_another_framework() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    let mut running = Command::new(binary("tepui"))
        .arg(format!("--master={}", cluster.master.address))
        .args(["run", "--name=long", "--", "sleep", "1000"])
        .spawn()?;
    tepui_tests::cluster::wait_for("the task", tepui_tests::http::PATIENCE, || {
        Ok(text(&tepui(&cluster, &["ps"])?)
            .contains("RUNNING")
            .then_some(()))
    })?;
    let killed = tepui(&cluster, &["kill", "long"])?;
    ensure!(killed.status.success(), "{killed:?}");
    let status = running.wait()?;
    ensure!(!status.success(), "a killed task is no success: {status}");
    Ok(())
}

#[test]
fn errors_say_what_to_do_next() -> Result<()> {
    let port = tepui_tests::cluster::free_port()?;
    let output = Command::new(binary("tepui"))
        .arg(format!("--master=127.0.0.1:{port}"))
        .arg("ps")
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(error.contains("tepui local"), "{error}");
    for (arguments, names) in [
        (&["--prot=1"][..], "--port"),
        (&["--work_dir=/tmp/x", "--zk=zk://somewhere"], "--zk"),
        (&["--work_dir=/tmp/x", "--port=abc"], "--port"),
    ] {
        let output = Command::new(binary("tepui-master"))
            .args(arguments)
            .output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{output:?}");
        ensure!(error.contains(names), "{error}");
    }
    Ok(())
}
