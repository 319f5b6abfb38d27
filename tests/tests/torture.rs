//! A short torture run: every kind of fault once, by the binary that runs it for minutes.

use anyhow::{Result, ensure};
use std::process::Command;
use tepui_tests::cluster::binary;

#[test]
fn nothing_is_lost_under_faults() -> Result<()> {
    let output = Command::new(binary("torture"))
        .args(["--seconds=1", "--masters=3", "--agents=2", "--seed=1"])
        .arg("--faults=kill-leader,part-leader,lose-quorum,fill-disk,roll-masters,replace-members,kill-agent")
        .output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
