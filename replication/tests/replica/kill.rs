//! A process killed amid its proposals: whatever it had acknowledged is found again.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use tepui_replication::{Options, ProposeError};

use crate::owner::{Event, Running, options};

const DIR: &str = "TEPUI_TEST_KILL_DIR";
const ROUND: &str = "TEPUI_TEST_KILL_ROUND";
const OWN_END: &str = "TEPUI_TEST_KILL_OWN_END";

fn child_options(dir: &Path) -> Options {
    Options {
        // Rows are written and the log is cut all the time, so that kills meet that too.
        flush_interval: Duration::from_millis(5),
        keep_log_bytes: 0,
        ..options(dir)
    }
}

/// The child: proposes without end and tells what was committed. Does nothing when it is not
/// started by one of the tests below.
#[test]
#[ignore = "a process that the other tests start"]
fn child() {
    let (Ok(dir), Ok(round)) = (std::env::var(DIR), std::env::var(ROUND)) else {
        return;
    };
    let options = child_options(Path::new(&dir));
    // With the callback that a master has, which aborts.
    let start = match std::env::var_os(OWN_END) {
        Some(_) => Running::start_mortal,
        None => Running::start,
    };
    let mut running = start(&options).expect("start");
    let mut out = std::io::stdout().lock();
    for n in 0_u64.. {
        let data = format!("{round}:{n}:{}", "x".repeat(200));
        match running.handle.propose(running.term, Bytes::from(data)) {
            Ok(_) if n % 16 != 0 => continue,
            Ok(_) | Err(ProposeError::Full) => {}
            Err(error) => panic!("{error}"),
        }
        // Wait for one, so that there is always something acknowledged and something not.
        if let Event::Committed(it) = running.event() {
            let text = std::str::from_utf8(&it.data).expect("text");
            let name = text.rsplit_once(':').expect("padded").0;
            writeln!(out, "acknowledged {name}").expect("parent");
            out.flush().expect("parent");
        }
    }
}

#[test]
fn acknowledged_entries_survive_kill() {
    let dir = tempfile::tempdir().expect("folder");
    let mut acknowledged = BTreeSet::new();
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "kill::child", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("child");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let mut heard = 0;
        for line in out.lines() {
            // The last line may be cut off.
            let Ok(line) = line else { break };
            let Some((_, name)) = line.split_once("acknowledged ") else {
                continue;
            };
            acknowledged.insert(name.to_owned());
            heard += 1;
            if heard == 50 + 37 * round {
                child.kill().expect("kill");
            }
        }
        let status = child.wait().expect("child");
        assert!(!status.success() && heard >= 50, "{status} after {heard}");
    }
    check(dir.path(), &acknowledged);
}

/// Everything acknowledged is found again, once.
fn check(dir: &Path, acknowledged: &BTreeSet<String>) {
    let running = Running::start(&child_options(dir)).expect("start");
    let found: BTreeSet<_> = running
        .seen
        .values()
        .map(|it| std::str::from_utf8(it).expect("text"))
        .map(|it| it.rsplit_once(':').expect("padded").0.to_owned())
        .collect();
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "of {}: {lost:?}", acknowledged.len());
    assert_eq!(found.len(), running.seen.len(), "an entry is there twice");
}

#[test]
fn a_disk_that_fails_ends_the_process() {
    let dir = tempfile::tempdir().expect("folder");
    // No file may grow beyond a few hundred kilobytes: soon a write to the log fails.
    let limited = r#"ulimit -f 512; trap "" XFSZ; exec "$0" "$@""#;
    let output = Command::new("sh")
        .args(["-c", limited])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "kill::child", "--ignored", "--nocapture"])
        .env(DIR, dir.path())
        .env(ROUND, "0")
        .env(OWN_END, "yes")
        .output()
        .expect("child");
    assert_eq!(output.status.signal(), Some(SIGABRT), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let acknowledged: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.split_once("acknowledged "))
        .map(|(_, name)| name.to_owned())
        .collect();
    assert!(acknowledged.len() > 50, "{}", acknowledged.len());
    check(dir.path(), &acknowledged);
}

/// What `abort` sends.
const SIGABRT: i32 = 6;
