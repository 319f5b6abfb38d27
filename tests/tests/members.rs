//! The masters change: joining, removal, lost disks, backups, a lost quorum. The commands are
//! those of the operator's page on high availability.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tepui_tests::{
    cluster::{free_port, wait_for},
    http,
    masters::{Masters, command},
    stores::{damage, newest},
};

/// From one master to three, without a stop; then the first goes.
#[test]
fn a_cluster_grows_by_joining() -> Result<()> {
    let mut masters = Masters::start(1, &[])?;
    masters.set_weight("first")?;
    let first = masters.masters[0].raft_address.clone();
    for count in 1..3 {
        let joined = masters.join(&first)?;
        let id = masters.wait_for_voter(joined)?;
        ensure!(id == count + 1, "{id}");
    }
    masters.kill(0)?;
    ensure!(masters.leader()? != 0);
    ensure!(masters.roles()? == ["first"]);
    masters.set_weight("second")?;
    masters.run(0)?;
    masters.wait_for_voter(0)?;
    Ok(())
}

/// One is added by command, leadership is handed to it, and the first is removed: what it says
/// then tells what to do.
#[test]
fn masters_are_added_and_removed_by_command() -> Result<()> {
    let mut masters = Masters::start(1, &[])?;
    for expected in ["2", "3"] {
        let new = masters.join("wait")?;
        let address = masters.masters[new].raft_address.clone();
        wait_for(
            "the new one to say what it waits for",
            http::PATIENCE,
            || {
                let output = masters.process(new)?.output();
                let told = output.contains(&format!("tepui master add {address}"));
                Ok(told.then_some(()))
            },
        )?;
        let told = command(&masters.addresses(), &["add", &address])?;
        ensure!(
            told.contains(&format!("master {expected} at {address} is a voter")),
            "{told}"
        );
        // Asked again it is no error.
        let told = command(&masters.addresses(), &["add", &address])?;
        ensure!(told.contains("is a voter"), "{told}");
    }
    let told = command(&masters.addresses(), &["transfer", "--to", "2"])?;
    ensure!(told.contains("master 2 leads"), "{told}");
    ensure!(masters.leader()? == 1);

    masters.kill(0)?;
    let told = command(&masters.addresses(), &["remove", "1"])?;
    ensure!(told.contains("master 1 is removed"), "{told}");
    let list = command(&masters.addresses(), &["list", "--json"])?;
    let list: Value = serde_json::from_str(&list)?;
    ensure!(
        list["masters"].as_array().map(Vec::len) == Some(2),
        "{list}"
    );
    // Comes back from the dead, and learns that it is gone.
    masters.run(0)?;
    await_removal(&mut masters, 0)?;
    // Removing the leader hands leadership over first. It lives, and learns it at once.
    let leader = masters.leader()?;
    let id = (leader + 1).to_string();
    command(&masters.addresses(), &["remove", &id])?;
    ensure!(masters.leader_but(leader)? != leader);
    await_removal(&mut masters, leader)?;
    Ok(())
}

/// A member that was removed says so and ends.
fn await_removal(masters: &mut Masters, index: usize) -> Result<()> {
    wait_for("the removed master to end", http::PATIENCE, || {
        let process = masters.masters[index].process.as_mut();
        Ok(process.context("process")?.ended()?.map(drop))
    })?;
    let process = masters.masters[index].process.as_ref();
    let output = process.context("process")?.output();
    ensure!(output.contains("was removed from the cluster"), "{output}");
    Ok(())
}

/// Followers, too, end when they are removed while they live; who is asked for the members is not
/// misled by them meanwhile.
#[test]
fn living_members_learn_that_they_are_removed() -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    let leader = masters.leader()?;
    let follower = (leader + 1) % 3;
    let id = masters.entry(follower)?.context("entry")?["id"].to_string();
    let told = command(&masters.addresses(), &["remove", &id])?;
    ensure!(told.contains("is removed"), "{told}");
    await_removal(&mut masters, follower)?;
    let list = command(&masters.addresses(), &["list", "--json"])?;
    let list: Value = serde_json::from_str(&list)?;
    let count = list["masters"].as_array().map(Vec::len);
    ensure!(count == Some(2), "{list}");
    Ok(())
}

/// What would leave no quorum is refused with the reason.
#[test]
fn commands_that_cannot_be_are_refused() -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    let leader = masters.leader()?;
    let others: Vec<usize> = (0..3).filter(|it| *it != leader).collect();
    masters.kill(others[0])?;
    let list = masters.list()?;
    let id = |index: usize| {
        let address = &masters.masters[index].raft_address;
        let found = list["masters"].as_array().into_iter().flatten();
        let mut found = found.filter(|it| it["raft_address"] == **address);
        found
            .next()
            .map(|it| it["id"].to_string())
            .unwrap_or_default()
    };
    wait_for("the dead one to be noticed", http::PATIENCE, || {
        let entry = masters.entry(others[0])?.context("entry")?;
        Ok((entry["connected"] == false).then_some(()))
    })?;
    let refused = |arguments: &[&str], reason: &str| -> Result<()> {
        let error = command(&masters.addresses(), arguments);
        let error = error.err().context("it was done")?.to_string();
        ensure!(error.contains(reason), "{error}");
        Ok(())
    };
    refused(&["remove", &id(others[1])], "nothing could be decided")?;
    refused(&["remove", "17"], "none of the masters")?;
    refused(&["transfer", "--to", &id(others[0])], "does not answer")?;
    refused(
        &["add", &format!("127.0.0.1:{}", free_port()?)],
        "cannot be reached",
    )?;
    Ok(())
}

/// A wiped master is another one: it learns, votes, and its old self is gone.
#[test]
fn a_lost_disk_is_replaced() -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    masters.set_weight("kept")?;
    let leader = masters.leader()?;
    let wiped = (0..3).find(|it| *it != leader).context("a follower")?;
    masters.wipe(wiped)?;
    masters.run(wiped)?;
    let id = masters.wait_for_voter(wiped)?;
    ensure!(id == 4, "{id}: an id was given twice");
    let list = masters.list()?;
    ensure!(
        list["masters"].as_array().map(Vec::len) == Some(3),
        "{list}"
    );
    // Its vote counts, and it has everything.
    let third = (0..3)
        .find(|it| *it != leader && *it != wiped)
        .context("third")?;
    masters.kill(third)?;
    masters.set_weight("with-the-new-one")?;
    masters.kill(leader)?;
    masters.run(third)?;
    ensure!(masters.roles()? == ["kept", "with-the-new-one"]);
    Ok(())
}

/// Every master is replaced, one after the other; nothing of the first ones is left.
#[test]
fn all_masters_are_replaced_one_by_one() -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    for old in 0..3 {
        masters.set_weight(&format!("before-{old}"))?;
        let leader = masters.leader()?;
        let through = masters.masters[leader].raft_address.clone();
        let new = masters.join(&through)?;
        masters.wait_for_voter(new)?;
        let address = masters.masters[old].raft_address.clone();
        let alive: Vec<String> = masters
            .masters
            .iter()
            .filter(|it| it.process.is_some())
            .map(|it| it.address.to_string())
            .collect();
        command(&alive.join(","), &["remove", &address])?;
        masters.kill(old)?;
    }
    ensure!(masters.roles()? == ["before-0", "before-1", "before-2"]);
    let list = masters.list()?;
    let ids: Vec<u64> = list["masters"]
        .as_array()
        .context("masters")?
        .iter()
        .filter_map(|it| it["id"].as_u64())
        .collect();
    ensure!(ids == [4, 5, 6], "{list}");
    Ok(())
}

/// A backup of a running cluster makes a new one, of the next incarnation; masters of the old one
/// are refused there.
#[test]
fn a_backup_makes_a_new_incarnation() -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    masters.set_weight("saved")?;
    let file = masters.folder().join("backup").display().to_string();
    let told = command(&masters.addresses(), &["backup", "--output", &file])?;
    ensure!(told.contains("bytes are in"), "{told}");
    masters.set_weight("after")?;
    let old = masters.list()?;
    for index in 0..3 {
        masters.kill(index)?;
    }

    let cut = masters.folder().join("cut");
    let bytes = std::fs::read(&file)?;
    std::fs::write(&cut, &bytes[..bytes.len() - 5])?;
    let mut restored = Masters::named(1, &[])?;
    let work_dir = restored.masters[0].work_dir.display().to_string();
    // In what says of when it is.
    let mut changed = bytes.clone();
    changed[40] ^= 1;
    let damaged = masters.folder().join("damaged");
    std::fs::write(&damaged, &changed)?;
    for bad in [cut, damaged] {
        let bad = bad.display().to_string();
        let error = command("", &["restore", "--input", &bad, "--work-dir", &work_dir]);
        let error = error.err().context("a bad backup was taken")?.to_string();
        ensure!(error.contains("cut off or damaged"), "{error}");
    }

    let told = command("", &["restore", "--input", &file, "--work-dir", &work_dir])?;
    ensure!(told.contains("is the whole of cluster"), "{told}");
    let again = command("", &["restore", "--input", &file, "--work-dir", &work_dir]);
    let again = again.err().context("restored twice")?.to_string();
    ensure!(again.contains("has state already"), "{again}");
    restored.run(0)?;
    ensure!(restored.roles()? == ["saved"]);
    let first = restored.masters[0].raft_address.clone();
    let new = restored.join(&first)?;
    restored.wait_for_voter(new)?;
    let list = restored.list()?;
    ensure!(list["cluster_id"] == old["cluster_id"], "{list}");
    ensure!(
        list["incarnation"].as_u64() > old["incarnation"].as_u64(),
        "{list}"
    );
    Ok(())
}

/// Two of three masters are gone for good: the third becomes the cluster by an explicit command,
/// with everything it had, and the dead are refused should they come back.
#[test]
fn a_lost_quorum_is_recovered() -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    masters.set_weight("kept")?;
    let leader = masters.leader()?;
    let survivor = (0..3).find(|it| *it != leader).context("a follower")?;
    let last = (0..3)
        .find(|it| *it != leader && *it != survivor)
        .context("third")?;
    masters.kill(leader)?;
    masters.kill(last)?;
    let work_dir = masters.masters[survivor].work_dir.display().to_string();
    let error = command("", &["recover", "--work-dir", &work_dir]);
    let error = error.err().context("done without being asked")?.to_string();
    ensure!(error.contains("--others-are-gone"), "{error}");
    let error = command(
        "",
        &["recover", "--others-are-gone", "--work-dir", &work_dir],
    );
    let error = error
        .err()
        .context("done under a running master")?
        .to_string();
    ensure!(error.contains("in use"), "{error}");
    masters.kill(survivor)?;
    command(
        "",
        &["recover", "--others-are-gone", "--work-dir", &work_dir],
    )?;
    masters.run(survivor)?;
    ensure!(masters.leader()? == survivor);
    ensure!(masters.roles()? == ["kept"]);
    // The former leader does not know that it was given up.
    masters.run(leader)?;
    wait_for("the old incarnation to be refused", http::PATIENCE, || {
        let output = masters.process(leader)?.output();
        Ok(output.contains("incarnation").then_some(()))
    })?;
    masters.set_weight("after")?;
    masters.wipe(last)?;
    let through = masters.masters[survivor].raft_address.clone();
    masters.set_flags(last, |flags| {
        flags.retain(|it| !it.starts_with("--peers"));
        flags.push(format!("--join={through}"));
    });
    masters.run(last)?;
    masters.wait_for_voter(last)?;
    Ok(())
}

/// Masters of two clusters do not speak to each other, and say why.
#[test]
fn clusters_that_meet_refuse_each_other() -> Result<()> {
    let one = Masters::start(1, &[])?;
    let mut other = Masters::start(3, &[])?;
    let stranger = &one.masters[0];
    let error = command(&other.addresses(), &["add", &stranger.raft_address]);
    let error = error.err().context("it was added")?.to_string();
    ensure!(error.contains("belongs to cluster"), "{error}");
    // A master of the one cluster starts at the address of a member of the other.
    let leader = other.leader()?;
    let taken = (0..3).find(|it| *it != leader).context("a follower")?;
    other.kill(taken)?;
    let mut thief = Masters::named(1, &[])?;
    let port = other.masters[taken]
        .raft_address
        .rsplit_once(':')
        .context("port")?
        .1;
    thief.set_flags(0, |flags| *flags = vec![format!("--raft_port={port}")]);
    thief.run(0)?;
    thief.leader()?;
    wait_for("the others to say so", http::PATIENCE, || {
        let output = other.process(leader)?.output();
        Ok(output
            .contains("masters of different clusters do not speak")
            .then_some(()))
    })?;
    ensure!(other.leader()? == leader || other.leader_now().is_some());
    Ok(())
}

/// With a key only those that know it take part; without one a port for others is not opened.
#[test]
fn a_cluster_key_keeps_strangers_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let key = |name: &str, text: &str| -> Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(format!("--cluster_key_file={}", path.display()))
    };
    let right = key("right", "0123456789abcdef0123456789abcdef\n")?;
    let wrong = key("wrong", "fedcba9876543210fedcba9876543210\n")?;
    let mut masters = Masters::start(3, &[&right])?;
    let through = masters.masters[masters.leader()?].raft_address.clone();
    for (flag, reason) in [
        (vec![wrong], "its cluster key is another one"),
        (vec![], "closed the connection"),
    ] {
        let mut stranger = Masters::named(0, &[])?;
        let index = stranger.join(&through)?;
        stranger.kill(index)?;
        stranger.set_flags(index, |flags| flags.extend(flag.clone()));
        stranger.run(index)?;
        wait_for("the stranger to be told", http::PATIENCE, || {
            let output = stranger.process(index)?.output();
            Ok(output.contains(reason).then_some(()))
        })?;
    }
    let list = masters.list()?;
    ensure!(
        list["masters"].as_array().map(Vec::len) == Some(3),
        "{list}"
    );
    let leader = masters.leader()?;
    masters.kill(leader)?;
    masters.leader()?;
    Ok(())
}

/// A master that was away for longer than the log is kept gets all rows, while the leader goes on.
#[test]
fn a_master_that_lags_too_far_gets_all_rows() -> Result<()> {
    let mut masters = Masters::start(3, &["--raft_log_keep=0"])?;
    let leader = masters.leader()?;
    let away = (0..3).find(|it| *it != leader).context("a follower")?;
    masters.kill(away)?;
    // The log is cut by 64 KiB.
    let long = "x".repeat(900);
    for round in 0..120 {
        masters.set_weight(&format!("{long}-{round}"))?;
    }
    wait_for("the log to be cut", http::PATIENCE, || {
        let cut = masters.list()?["cut"].as_u64();
        Ok(cut.is_some_and(|it| it > 50).then_some(()))
    })?;
    masters.run(away)?;
    wait_for("the rows to be in place", http::PATIENCE, || {
        let output = masters.process(away)?.output();
        Ok(output.contains("in place of ours").then_some(()))
    })?;
    // It has everything: with it as the only other voter, and after a restart.
    let third = (0..3)
        .find(|it| *it != leader && *it != away)
        .context("third")?;
    masters.kill(third)?;
    masters.set_weight("with-rows")?;
    masters.restart(away)?;
    masters.set_weight("again")?;
    masters.kill(leader)?;
    masters.run(third)?;
    ensure!(masters.roles()?.len() == 122);
    Ok(())
}

/// Damaged rows are fetched anew, since the log has forgotten nothing; a damaged log is told, and
/// nothing is served from it.
#[test]
fn damaged_disks_are_told_and_refilled() -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    let leader = masters.leader()?;
    let victim = (0..3).find(|it| *it != leader).context("a follower")?;
    let third = (0..3)
        .find(|it| *it != leader && *it != victim)
        .context("third")?;
    let store = masters.masters[victim].work_dir.join("replica");
    let mut round = 0;
    // Several flushes, of one a second.
    wait_for("rows to be written", http::PATIENCE, || {
        masters.set_weight(&format!("role-{}", round % 20))?;
        round += 1;
        let size = std::fs::metadata(newest(&store.join("rows"), "log")?)?.len();
        Ok((size > 1500 && round > 20).then_some(()))
    })?;
    masters.kill(victim)?;
    damage(&newest(&store.join("rows"), "log")?)?;
    masters.run(victim)?;
    wait_for("the rows of another master", http::PATIENCE, || {
        let output = masters.process(victim)?.output();
        Ok(output
            .contains("take the place of those that were lost")
            .then_some(()))
    })?;
    masters.kill(third)?;
    masters.set_weight("with-the-repaired")?;
    masters.kill(leader)?;
    masters.run(third)?;
    ensure!(masters.roles()?.len() == 21);
    masters.run(leader)?;
    masters.leader()?;

    masters.kill(victim)?;
    damage(&newest(&store.join("log"), "log")?)?;
    masters.run(victim)?;
    wait_for("the damaged log to be told", http::PATIENCE, || {
        let process = masters.masters[victim]
            .process
            .as_mut()
            .context("process")?;
        Ok(process.ended()?.map(drop))
    })?;
    let process = masters.masters[victim].process.take().context("process")?;
    ensure!(
        process.output().contains("is damaged"),
        "{}",
        process.output()
    );
    drop(process);
    // As it says: without its folder, the same flags make it a new member.
    std::fs::rename(&store, store.with_extension("damaged"))?;
    masters.run(victim)?;
    masters.wait_for_voter(victim)?;
    Ok(())
}

/// A small disk of its own, taken away at the end.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// Nothing where this process may not mount.
    fn mount(path: &std::path::Path) -> Result<Option<SmallDisk>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        std::fs::create_dir_all(path)?;
        let disk = SmallDisk(path.to_owned());
        disk.run("mount", &["-t", "tmpfs", "-o", "size=8M", "tmpfs"])?;
        Ok(Some(disk))
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let status = std::process::Command::new(program)
            .args(arguments)
            .arg(&self.0)
            .status()?;
        ensure!(status.success(), "{program} {arguments:?}: {status}");
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.run("umount", &["-l"]);
    }
}

/// A full disk ends its master, with the reason, and nobody else's; with room it goes on.
#[test]
fn a_full_disk_ends_its_master_alone() -> Result<()> {
    let mut masters = Masters::named(3, &[])?;
    let Some(disk) = SmallDisk::mount(&masters.masters[2].work_dir)? else {
        eprintln!("not run: only root may mount a small disk");
        return Ok(());
    };
    for index in 0..3 {
        masters.run(index)?;
    }
    masters.leader()?;
    let long = "x".repeat(4000);
    let mut round = 0;
    wait_for("the disk to be full", http::PATIENCE, || {
        round += 1;
        masters.set_weight(&format!("{}-{long}", round % 20))?;
        let process = masters.masters[2].process.as_mut().context("process")?;
        Ok(process.ended()?.map(drop))
    })?;
    let process = masters.masters[2].process.take().context("process")?;
    let output = process.output();
    // Which of the two comes last is a matter of luck: see `Room` in `replication`.
    let told = ["No space left on device", "the disk is nearly full"];
    ensure!(told.iter().any(|it| output.contains(it)), "{output}");
    masters.set_weight("without-it")?;
    disk.run("mount", &["-o", "remount,size=256M"])?;
    masters.run(2)?;
    wait_for("it to follow", http::PATIENCE, || {
        let entry = masters.entry(2)?.context("entry")?;
        Ok((entry["connected"] == true && entry["entries_behind"] == 0).then_some(()))
    })?;
    masters.kill(2)?;
    Ok(())
}

/// Leadership goes round while somebody writes: what was acknowledged is there.
#[test]
fn leadership_is_handed_over_under_load() -> Result<()> {
    let masters = Masters::start(3, &[])?;
    masters.leader()?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let written = std::thread::scope(|scope| -> Result<Vec<String>> {
        let writer = scope.spawn(|| {
            let mut written = Vec::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let role = format!("role-{}", written.len());
                if masters.set_weight(&role).is_err() {
                    break;
                }
                written.push(role);
            }
            written
        });
        let handed = (0..6).try_for_each(|_| {
            command(&masters.addresses(), &["transfer"])?;
            masters.leader().map(drop)
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let written = writer
            .join()
            .map_err(|_| anyhow::anyhow!("the writer panicked"))?;
        handed.map(|()| written)
    })?;
    ensure!(!written.is_empty(), "nothing was written");
    let found = masters.roles()?;
    for role in &written {
        ensure!(found.contains(role), "{role} was acknowledged and is gone");
    }
    Ok(())
}
