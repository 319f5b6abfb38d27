//! The cluster's version is raised when every voter knows it, and then binds all. The next release
//! is this one that pretends to be it.

use anyhow::{Context, Result, ensure};
use tepui_tests::masters::{Masters, command};

/// Installs the pretended release on a master that runs, and waits until it follows.
fn install(masters: &mut Masters, index: usize) -> Result<()> {
    masters.set_environment(
        index,
        &[("TEPUI_TEST", "1"), ("TEPUI_TEST_CLUSTER_VERSION", "2")],
    );
    masters.restart(index)?;
    masters.wait_for_follower(index)
}

fn refused(masters: &Masters, reason: &str) -> Result<()> {
    let error = command(&masters.addresses(), &["upgrade", "--to", "2"]);
    let error = error.err().context("it was done")?.to_string();
    ensure!(error.contains(reason), "{error}");
    Ok(())
}

#[test]
fn a_cluster_is_upgraded_one_by_one() -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    masters.set_weight("before")?;
    refused(&masters, "knows versions up to 1")?;
    let leader = masters.leader()?;
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    install(&mut masters, followers[0])?;
    refused(&masters, "knows versions up to 1")?;
    install(&mut masters, followers[1])?;
    // The leader last, and only it is of the old release now.
    refused(&masters, "version")?;
    masters.set_weight("amid")?;
    command(&masters.addresses(), &["transfer"])?;
    install(&mut masters, leader)?;
    let told = command(&masters.addresses(), &["upgrade"])?;
    ensure!(told.contains("the cluster is at version 2"), "{told}");
    // Every birth logs what only the new release knows; all go on.
    for round in 0..2 {
        command(&masters.addresses(), &["transfer"])?;
        masters.set_weight(&format!("after-{round}"))?;
    }
    let now = masters.leader()?;

    // An older release ends, and says why; its store stays what it is.
    let back = (now + 1) % 3;
    masters.set_environment(back, &[("TEPUI_TEST", "1")]);
    masters.restart(back)?;
    let output = masters.wait_for_end(back)?;
    ensure!(output.contains("newer release"), "{output}");
    ensure!(!output.contains("the rows are lost"), "{output}");
    install(&mut masters, back)?;
    let third = (now + 2) % 3;
    masters.kill(third)?;
    masters.set_weight("end")?;
    let roles = masters.roles()?;
    ensure!(
        roles == ["after-0", "after-1", "amid", "before", "end"],
        "{roles:?}"
    );
    Ok(())
}
