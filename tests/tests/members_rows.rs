//! Rows that are damaged, and rows on their way to a master that lags: whatever is interrupted
//! leaves no half of anything.

use anyhow::{Result, ensure};
use std::path::PathBuf;
use tepui_scheduler_api::state::{Expect, State};
use tepui_tests::{
    cluster::wait_for,
    http,
    masters::Masters,
    stores::{damage, largest, peak_memory, rows_folders},
};

fn run<F: Future<Output = Result<()>>>(future: F) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(future)
}

/// Rows in blocks of a table, of which one in the middle is damaged: the disk says so when the
/// block is read and not before.
fn damage_a_block(masters: &mut Masters, victim: usize) -> Result<()> {
    let long = "x".repeat(900);
    for round in 0..60 {
        masters.set_weight(&format!("{long}-{round}"))?;
    }
    // In order, which writes the rows; the next start makes a table of what was written.
    let opened = "the store is open";
    let process = masters.process(victim)?;
    process.signal(rustix::process::Signal::TERM)?;
    let before = masters.wait_for_end(victim)?.matches(opened).count();
    masters.run(victim)?;
    wait_for(opened, http::PATIENCE, || {
        let output = masters.process(victim)?.output();
        Ok((output.matches(opened).count() > before).then_some(()))
    })?;
    masters.kill(victim)?;
    let folders = rows_folders(&masters.masters[victim].work_dir)?;
    damage(&largest(&folders[0], "sst")?)
}

#[test]
fn a_damaged_block_of_rows_is_fetched_again() -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    let leader = masters.leader()?;
    let victim = (leader + 1) % 3;
    let third = (leader + 2) % 3;
    damage_a_block(&mut masters, victim)?;
    masters.run(victim)?;
    masters.wait_for_word(victim, "take the place of those that were lost")?;
    // It is as good as before: with it as the only other one.
    masters.wait_for_follower(victim)?;
    masters.kill(third)?;
    masters.set_weight("with-the-repaired")?;
    masters.restart(victim)?;
    masters.set_weight("again")?;
    ensure!(masters.roles()?.len() == 62);
    Ok(())
}

#[test]
fn a_lone_master_says_that_its_rows_are_damaged() -> Result<()> {
    let mut masters = Masters::start(1, &[])?;
    damage_a_block(&mut masters, 0)?;
    masters.run(0)?;
    let output = masters.wait_for_end(0)?;
    let (_, said) = output.rsplit_once("cannot be used").unwrap_or_default();
    for part in ["are damaged", "block checksum mismatch", "from a backup"] {
        ensure!(said.contains(part), "{part}: {output}");
    }
    // Asked again it does not guess either.
    masters.run(0)?;
    masters.wait_for_end(0)?;
    Ok(())
}

/// Rows of 40 MiB.
const VARIABLES: usize = 40;

/// Writes the same variables again, with other values.
fn write(masters: &Masters, round: usize) -> Result<()> {
    run(async {
        let state = State::new(masters.addresses().split(','))?;
        for number in 0..VARIABLES {
            let value = vec![u8::try_from((round + number) % 251)?; 1 << 20];
            let _ = state
                .set(format!("large/{number}"), value, Expect::Any)
                .await?;
        }
        Ok(())
    })
}

/// Everything is there, as it was written last.
fn check_values(masters: &Masters, round: usize) -> Result<()> {
    run(async {
        let state = State::new(masters.addresses().split(','))?;
        for number in 0..VARIABLES {
            let value = state.get(format!("large/{number}")).await?;
            let expected = u8::try_from((round + number) % 251)?;
            let found = value.map(|it| it.value).unwrap_or_default();
            ensure!(found.len() == 1 << 20 && found.iter().all(|it| *it == expected));
        }
        Ok(())
    })
}

/// Three masters, one of which is away and needs all rows.
struct Lagging {
    masters: Masters,
    leader: usize,
    away: usize,
    third: usize,
    round: usize,
}

impl Lagging {
    fn start() -> Result<Lagging> {
        let mut masters = Masters::start(3, &["--raft_log_keep=0"])?;
        let leader = masters.leader()?;
        let (away, third) = ((leader + 1) % 3, (leader + 2) % 3);
        masters.kill(away)?;
        let mut lagging = Lagging {
            masters,
            leader,
            away,
            third,
            round: 0,
        };
        lagging.fall_behind()?;
        Ok(lagging)
    }

    /// Nothing of what is written here is in the logs when this returns.
    fn fall_behind(&mut self) -> Result<()> {
        self.round += 1;
        write(&self.masters, self.round)?;
        self.leader = self.masters.leader()?;
        let last = self.masters.list()?["applied"].as_u64().unwrap_or_default();
        wait_for("the logs to be cut", http::PATIENCE, || {
            // An entry and a while: rows are written after entries.
            self.masters.set_weight("tick")?;
            for index in [self.leader, self.third] {
                let list = http::get(self.masters.address(index), "/tepui/v1/masters");
                // Followers send on to the leader, whose word must do for both.
                let cut = list.ok().and_then(|it| it["cut"].as_u64());
                if cut.is_some_and(|it| it + 2 < last) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
    }

    fn new_rows(&self) -> Result<Vec<PathBuf>> {
        let folders = rows_folders(&self.masters.masters[self.away].work_dir)?;
        // Files beside them name the folder in use.
        Ok(folders.into_iter().filter(|it| it.is_dir()).collect())
    }

    fn is_restored(&self, before: usize) -> Result<bool> {
        let output = self.masters.process(self.away)?.output();
        Ok(output.matches("in place of ours").count() > before)
    }

    /// Starts the one that is away and returns amid the transfer of the rows: it is stopped.
    fn stop_amid_rows(&mut self) -> Result<()> {
        for _ in 0..5 {
            self.masters.run(self.away)?;
            let before = self.masters.process(self.away)?.output();
            let before = before.matches("in place of ours").count();
            let old = self.new_rows()?;
            wait_for("rows to arrive", http::PATIENCE, || {
                let arriving = self.new_rows()?.into_iter().any(|it| !old.contains(&it));
                Ok(arriving.then_some(()))
            })?;
            self.masters.pause(self.away)?;
            let folders = self.new_rows()?;
            if folders.len() == 2 && !self.is_restored(before)? {
                return Ok(());
            }
            // Too late.
            self.masters.kill(self.away)?;
            self.fall_behind()?;
        }
        anyhow::bail!("the transfer was never seen under way")
    }

    /// It follows, with all rows and one folder of them.
    fn check(mut self) -> Result<()> {
        self.masters.wait_for_follower(self.away)?;
        // The folder before a swap goes when rows are next written.
        wait_for("one folder of rows", http::PATIENCE, || {
            self.masters.set_weight("tick")?;
            Ok((self.new_rows()?.len() == 1).then_some(()))
        })?;
        self.masters.restart(self.away)?;
        self.masters.wait_for_follower(self.away)?;
        let third = self.third;
        if self.masters.masters[third].process.is_some() {
            self.masters.kill(third)?;
        }
        check_values(&self.masters, self.round)
    }
}

/// A receiver that takes nothing costs its sender no memory and nobody's time; killed and started
/// again it begins anew, and nothing of the first attempt is left.
#[test]
fn a_receiver_that_dies_amid_rows_begins_anew() -> Result<()> {
    let mut lagging = Lagging::start()?;
    let sender = lagging.masters.process(lagging.leader)?.id();
    let before = peak_memory(sender)?;
    lagging.stop_amid_rows()?;
    for round in 0..10 {
        // Of the leader alone: the one that is stopped answers nobody.
        let body = format!(r#"[{{"role":"amid-{round}","weight":2.0}}]"#);
        let headers = [("Content-Type", "application/json")];
        let address = lagging.masters.address(lagging.leader);
        let answer = http::send(address, "PUT", "/weights", &headers, body.as_bytes())?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    }
    ensure!(lagging.masters.process(lagging.leader)?.id() == sender);
    let grown = peak_memory(sender)?.saturating_sub(before);
    println!("the sender's memory grew by {} KiB", grown >> 10);
    ensure!(grown < 24 << 20, "{grown} bytes for a reader that sleeps");
    lagging.masters.kill(lagging.away)?;
    let half = lagging.new_rows()?;
    ensure!(half.len() == 2, "{half:?}");
    lagging.masters.run(lagging.away)?;
    wait_for("half of the rows to go", http::PATIENCE, || {
        let left = lagging.new_rows()?;
        Ok((!left.contains(&half[1]) || !left.contains(&half[0])).then_some(()))
    })?;
    lagging.check()
}

/// The sender dies: what it sent goes with it, without a restart, and the next leader sends all.
#[test]
fn a_sender_that_dies_amid_rows_is_replaced() -> Result<()> {
    let mut lagging = Lagging::start()?;
    lagging.stop_amid_rows()?;
    let half = lagging.new_rows()?;
    let dead = lagging.leader;
    lagging.masters.kill(dead)?;
    lagging.masters.resume(lagging.away)?;
    lagging
        .masters
        .wait_for_word(lagging.away, "rows were not fetched")?;
    wait_for("half of the rows to go", http::PATIENCE, || {
        let left = lagging.new_rows()?;
        Ok((!half.iter().all(|it| left.contains(it))).then_some(()))
    })?;
    // Only who has everything can lead now, and it sends its rows.
    lagging.leader = lagging.masters.leader()?;
    ensure!(lagging.leader == lagging.third);
    lagging
        .masters
        .wait_for_word(lagging.away, "in place of ours")?;
    lagging.masters.run(dead)?;
    lagging.third = dead;
    lagging.check()
}
