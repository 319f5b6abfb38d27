//! Variables, leases and watches in the masters' log, through the death of masters and of
//! clients.

use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeSet,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tepui_scheduler_api::{
    Error,
    state::{Change, Expect, Options, State, Variable, Watch, Written},
};
use tepui_tests::{
    cluster::{binaries, binary, wait_for},
    masters::Masters,
};
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(40);

fn run<F: Future<Output = Result<()>>>(future: F) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(future)
}

fn state(masters: &Masters) -> Result<State> {
    Ok(State::new(masters.addresses().split(','))?)
}

/// What the watch shows until it has shown everything that there is.
async fn current(watch: &mut Watch) -> Result<Vec<Change>> {
    let mut seen = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, watch.next()).await?? {
            Change::Current(_) => return Ok(seen),
            change => seen.push(change),
        }
    }
}

fn named(changes: &[Change]) -> Vec<String> {
    let name = |it: &Change| match it {
        Change::Set(it) => format!("{}={}", it.name, String::from_utf8_lossy(&it.value)),
        Change::Expunged(name) => format!("-{name}"),
        other => format!("{other:?}"),
    };
    changes.iter().map(name).collect()
}

/// One instance of `examples/elect.rs`.
struct Candidate {
    child: Child,
    log: PathBuf,
}

impl Drop for Candidate {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Candidate {
    fn start(name: &str, masters: &str, folder: &Path) -> Result<Candidate> {
        let example = binaries().join("examples/elect");
        ensure!(
            example.exists(),
            "{} is missing: run `cargo build --workspace --bins --examples` first",
            example.display()
        );
        let log = folder.join(format!("candidate-{name}"));
        let file = File::create(&log)?;
        let child = Command::new(example)
            .args([masters, name])
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Candidate { child, log })
    }

    fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// The token of the leadership that it has now, as far as it has said.
    fn token(&self) -> Option<u64> {
        let output = self.output();
        let said = |it: &&str| it.contains("leads with token") || it.contains("not lead any more");
        let last = output.lines().rfind(said)?;
        last.rsplit_once("token ")?.1.parse().ok()
    }

    fn counts(&self) -> Vec<u64> {
        let output = self.output();
        let count = |it: &str| it.split_once(" counts ")?.1.parse().ok();
        output.lines().filter_map(count).collect()
    }
}

/// The candidate that leads, other than those in `but`, and its token.
fn leader(candidates: &[Candidate], but: &[usize]) -> Result<(usize, u64)> {
    wait_for("a candidate to lead", PATIENCE, || {
        let leads = |index: usize| Some((index, candidates[index].token()?));
        let others = (0..candidates.len()).filter(|it| !but.contains(it));
        Ok(others.filter_map(leads).max_by_key(|(_, token)| *token))
    })
}

fn goes_on(candidate: &Candidate) -> Result<()> {
    let before = candidate.counts().len();
    wait_for("the leader to go on", PATIENCE, || {
        Ok((candidate.counts().len() > before + 3).then_some(()))
    })
}

/// No number was counted twice: there never were two who could act.
fn check_counts(candidates: &[Candidate]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for candidate in candidates {
        for count in candidate.counts() {
            ensure!(seen.insert(count), "{count} was counted twice");
        }
        let output = candidate.output();
        ensure!(!output.contains("Error"), "{output}");
    }
    Ok(())
}

#[test]
fn three_processes_elect_one_through_every_death() -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    let addresses = masters.addresses();
    let start = |name: &str| Candidate::start(name, &addresses, masters.folder());
    let mut candidates = vec![start("one")?, start("two")?, start("three")?];
    let (first, token) = leader(&candidates, &[])?;
    goes_on(&candidates[first])?;

    // The leading master dies: the elected one stays.
    let master = masters.leader()?;
    masters.kill(master)?;
    goes_on(&candidates[first])?;
    ensure!(candidates[first].token() == Some(token), "it was not kept");
    masters.run(master)?;

    // The elected one dies.
    candidates[first].child.kill()?;
    let (second, next) = leader(&candidates, &[first])?;
    ensure!(next > token, "token {next} after {token}");
    goes_on(&candidates[second])?;

    // The next one is stopped for a while: it knows when it wakes up.
    candidates[second].signal(rustix::process::Signal::STOP)?;
    let (third, last) = leader(&candidates, &[first, second])?;
    ensure!(last > next, "token {last} after {next}");
    goes_on(&candidates[third])?;
    candidates[second].signal(rustix::process::Signal::CONT)?;
    wait_for("the second to know", PATIENCE, || {
        Ok(candidates[second].token().is_none().then_some(()))
    })?;
    goes_on(&candidates[third])?;
    ensure!(candidates[third].token() == Some(last), "it was disturbed");
    check_counts(&candidates)
}

/// The same with one master, which is killed and comes back.
#[test]
fn one_master_forgets_no_election() -> Result<()> {
    let mut masters = Masters::start(1, &[])?;
    let addresses = masters.addresses();
    let start = |name: &str| Candidate::start(name, &addresses, masters.folder());
    let candidates = vec![start("one")?, start("two")?];
    let (first, token) = leader(&candidates, &[])?;
    goes_on(&candidates[first])?;
    masters.restart(0)?;
    let (second, next) = leader(&candidates, &[])?;
    goes_on(&candidates[second])?;
    ensure!(second == first && next == token || next > token);
    check_counts(&candidates)
}

/// Clients count together while leaders are killed: what was acknowledged is there once,
/// and so are writes whose answers were lost.
#[test]
fn no_write_is_lost_or_done_twice() -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    run(async {
        let stop = Arc::new(AtomicBool::new(false));
        // Writes of all clients that were answered.
        let (answered, mut writes) = watch::channel(0_u64);
        let answered = Arc::new(answered);
        let mut clients = Vec::new();
        for _ in 0..4 {
            let state = state(&masters)?;
            let (stop, answered) = (stop.clone(), answered.clone());
            clients.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let was = state.get("count").await?;
                    let next = number(was.as_ref()) + 1;
                    let expect = Expect::what_was(&was);
                    match state.set("count", next.to_string(), expect).await? {
                        Written::Done(_) => answered.send_modify(|it| *it += 1),
                        Written::Conflict(_) => {}
                    }
                }
                Ok::<_, Error>(())
            }));
        }
        for _ in 0..3 {
            // Each leader has done some, and is amid others.
            let enough = *writes.borrow() + 20;
            let written = writes.wait_for(|it| *it >= enough);
            tokio::time::timeout(PATIENCE, written).await??;
            let leader = masters.leader()?;
            masters.kill(leader)?;
            masters.leader()?;
            masters.run(leader)?;
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await??;
        }
        let done = *writes.borrow();
        let count = state(&masters)?.get("count").await?;
        ensure!(number(count.as_ref()) == done, "{count:?} after {done}");
        ensure!(done >= 60, "only {done} writes");
        Ok(())
    })
}

fn number(variable: Option<&Variable>) -> u64 {
    let text = variable.and_then(|it| std::str::from_utf8(&it.value).ok());
    text.and_then(|it| it.parse().ok()).unwrap_or_default()
}

#[test]
fn watches_go_on_over_a_change_of_leader() -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    run(async {
        let state = state(&masters)?;
        let _ = state.set("a/1", "x", Expect::Absent).await?;
        let _ = state.set("b", "x", Expect::Absent).await?;
        let mut watch = state.watch("a/");
        ensure!(named(&current(&mut watch).await?) == ["a/1=x"]);
        let _ = state.set("a/2", "y", Expect::Any).await?;
        let _ = state.expunge("b", Expect::Any).await?;
        let _ = state.expunge("a/1", Expect::Any).await?;
        let mut seen = Vec::new();
        for _ in 0..2 {
            seen.push(tokio::time::timeout(PATIENCE, watch.next()).await??);
        }
        ensure!(named(&seen) == ["a/2=y", "-a/1"], "{seen:?}");

        let leader = masters.leader()?;
        masters.kill(leader)?;
        let _ = state.expunge("a/2", Expect::Any).await?;
        let _ = state.set("a/3", "z", Expect::Absent).await?;
        // In the snapshot of the new watch or behind it.
        let mut seen = BTreeSet::new();
        while seen.len() < 2 {
            match tokio::time::timeout(PATIENCE, watch.next()).await?? {
                Change::Current(_) => {}
                change => seen.extend(named(&[change])),
            }
        }
        ensure!(
            seen == ["-a/2", "a/3=z"].map(str::to_owned).into(),
            "{seen:?}"
        );
        Ok(())
    })
}

/// A reader that stops for a while neither stops the master nor misses the end.
#[test]
fn a_slow_watch_begins_anew() -> Result<()> {
    let masters = Masters::start(1, &[])?;
    run(async {
        let state = state(&masters)?;
        let mut watch = state.watch("");
        ensure!(current(&mut watch).await?.is_empty());
        let mut last = 0;
        for round in 0..120_u8 {
            let value = vec![round; 1 << 20];
            let Written::Done(version) = state.set("large", value, Expect::Any).await? else {
                anyhow::bail!("refused");
            };
            last = version;
        }
        let (mut shown, mut count) = (0, 0);
        loop {
            match tokio::time::timeout(PATIENCE, watch.next()).await?? {
                Change::Set(variable) => {
                    ensure!(variable.version > shown, "out of order");
                    shown = variable.version;
                    count += 1;
                    if shown == last {
                        ensure!(count < 120, "everything was kept for a reader that slept");
                        return Ok(());
                    }
                }
                Change::Current(_) => {}
                other => anyhow::bail!("{other:?}"),
            }
        }
    })
}

#[test]
fn refusals_name_the_field_and_principals_are_apart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let credentials = folder.path().join("credentials");
    std::fs::write(&credentials, "one secret1\ntwo secret2\n")?;
    let credentials = format!("--credentials={}", credentials.display());
    let flags = [
        "--authenticate_http_frameworks",
        &credentials,
        "--state_quota=64KB",
    ];
    let masters = Masters::start(1, &flags)?;
    run(async {
        let of = |principal: &str, secret: &str| {
            let options = Options::new([masters.addresses()]).credentials(principal, secret);
            State::with(options.patience(PATIENCE))
        };
        let (one, two) = (of("one", "secret1")?, of("two", "secret2")?);
        let Written::Done(version) = one.set("name", "1", Expect::Absent).await? else {
            anyhow::bail!("refused");
        };
        ensure!(two.get("name").await?.is_none());
        ensure!(two.list("").await?.is_empty());
        let variable = one.get("name").await?.context("name")?;
        ensure!(variable.version == version && variable.value == "1");
        let conflict = one.set("name", "2", Expect::Absent).await?;
        ensure!(
            conflict == Written::Conflict(Some(variable)),
            "{conflict:?}"
        );
        let conflict = one.expunge("other", Expect::Version(9)).await?;
        ensure!(conflict == Written::Conflict(None), "{conflict:?}");

        let large = vec![0; 40_000];
        let _ = one.set("large", large.clone(), Expect::Any).await?;
        let _ = two.set("large", large.clone(), Expect::Any).await?;
        let mut wrong = vec![
            ("value: ", 429, one.set("more", large, Expect::Any).await),
            (
                "value: ",
                400,
                one.set("v", vec![0; (1 << 20) + 1], Expect::Any).await,
            ),
            ("name: ", 400, one.set("", "x", Expect::Any).await),
            ("name: ", 400, one.set("a\0b", "x", Expect::Any).await),
        ];
        let lease = two.lease(Duration::from_secs(30)).await?;
        wrong.push((
            "lease_id: ",
            404,
            one.set_leased("name", "x", Expect::Any, &lease).await,
        ));
        let short = one.lease(Duration::from_millis(10)).await;
        wrong.push(("ttl_seconds: ", 400, short.map(|_| Written::Done(0))));
        let nobody = of("one", "secret2")?.get("name").await;
        wrong.push(("the principal", 401, nobody.map(|_| Written::Done(0))));
        for (text, code, result) in wrong {
            match result {
                Err(Error::Rejected { status, message }) => {
                    ensure!(
                        status == code && message.starts_with(text),
                        "{status}: {message}"
                    );
                }
                other => anyhow::bail!("{text}: {other:?}"),
            }
        }

        // What hangs on a lease goes with it.
        let _ = two.set_leased("hung", "x", Expect::Absent, &lease).await?;
        let _ = two.expunge("large", Expect::Any).await?;
        lease.revoke().await?;
        ensure!(two.list("").await?.is_empty());
        // Pages.
        for number in 0..20 {
            let _ = two
                .set(format!("p/{number:02}"), vec![1; 2000], Expect::Any)
                .await?;
        }
        ensure!(two.list("p/").await?.len() == 20);
        Ok(())
    })
}

/// `tepui state ...`: what it wrote, or what it said when it failed.
fn command(masters: &Masters, arguments: &[&str]) -> Result<String> {
    let output = Command::new(binary("tepui"))
        .args(["--master", &masters.addresses(), "state"])
        .args(arguments)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", said.trim());
    Ok(String::from_utf8(output.stdout)?)
}

fn refused(masters: &Masters, arguments: &[&str], reason: &str) -> Result<()> {
    let error = command(masters, arguments).err().context("it was done")?;
    ensure!(error.to_string().contains(reason), "{error}");
    Ok(())
}

#[test]
fn the_command_line_reads_and_writes() -> Result<()> {
    let masters = Masters::start(1, &[])?;
    let told = command(&masters, &["set", "plan", "two of each", "--if-absent"])?;
    ensure!(told == "plan is at version 1\n", "{told}");
    refused(
        &masters,
        &["set", "plan", "x", "--if-absent"],
        "there in version 1",
    )?;
    ensure!(command(&masters, &["get", "plan"])? == "two of each");
    refused(&masters, &["get", "nothing"], "there is no variable")?;

    // Bytes from standard input, and back as they were.
    let mut set = Command::new(binary("tepui"))
        .args(["--master", &masters.addresses(), "state", "set"])
        .args(["bytes/1", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    set.stdin
        .take()
        .context("stdin")?
        .write_all(&[0, 255, 10])?;
    ensure!(set.wait()?.success());
    let got = command(&masters, &["get", "bytes/1", "--json"])?;
    let got: serde_json::Value = serde_json::from_str(&got)?;
    ensure!(got["value_hex"] == "00ff0a" && got["version"] == 2, "{got}");
    let list = command(&masters, &["list"])?;
    ensure!(list.lines().count() == 3 && list.contains("plan"), "{list}");
    let list = command(&masters, &["list", "bytes/"])?;
    ensure!(!list.contains("plan"), "{list}");

    let log = masters.folder().join("watch");
    let mut watch = Command::new(binary("tepui"))
        .args(["--master", &masters.addresses(), "state", "watch"])
        .stdout(File::create(&log)?)
        .spawn()?;
    let shows = |text: &str| {
        wait_for(text, PATIENCE, || {
            Ok(std::fs::read_to_string(&log)?.contains(text).then_some(()))
        })
    };
    let watched = shows("set plan 1 two of each\n").and_then(|()| {
        command(
            &masters,
            &["set", "plan", "line\nline", "--if-version", "1"],
        )?;
        shows("set plan 3 line\\nline\n")?;
        refused(
            &masters,
            &["delete", "plan", "--if-version", "1"],
            "in version 3",
        )?;
        command(&masters, &["delete", "plan"])?;
        shows("deleted plan\n")
    });
    watch.kill()?;
    watch.wait()?;
    watched
}
