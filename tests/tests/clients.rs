//! Clients that we did not write.

use anyhow::{Context, Result, ensure};
use std::{path::Path, process::Command};
use tepui_tests::cluster::{self, Cluster};

/// pymesos as it is on PyPI: tasks with every kind of end, kill, reconciliation, failover
/// of the scheduler, and all resources free at the end.
#[test]
fn pymesos_runs_unmodified() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the root")?;
    let python = cluster::pymesos()?;

    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(&[
        "--containerizers=process",
        "--resources=cpus:4;mem:2048;disk:1024;ports:[31000-31100]",
    ])?;
    let output = Command::new(python)
        .arg(root.join("tests/python/first_tasks.py"))
        .arg(cluster.master.address.to_string())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && text.contains("everything is free again"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
