//! What clients and agents see of several masters: where followers send them, what they may
//! read there, and how soon everything goes on after the end of a leader.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};
use tepui_scheduler_api::{Event, Events, Options, Session, Transport, task, v1};
use tepui_tests::{http, masters::Masters};

/// Nothing here takes longer on a machine that does anything at all.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn followers_send_clients_to_the_leader_and_show_the_past_when_asked() -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    masters.add_agent(&["--containerizers=process", "--resources=cpus:4;mem:1024"])?;
    let leader = masters.leader()?;
    let follower = (leader + 1) % 3;
    let (at, there) = (masters.address(follower), masters.address(leader));
    let follower_knows = || {
        Ok(masters
            .redirect(follower)?
            .filter(|it| *it == there.to_string()))
    };
    tepui_tests::cluster::wait_for("the leader's name", PATIENCE, follower_knows)?;

    for (method, path) in [
        ("GET", "/state?x=1"),
        ("POST", "/api/v1"),
        ("POST", "/master/api/v1/scheduler"),
        ("PUT", "/weights"),
        ("POST", "/master/teardown"),
        ("GET", "/master/slaves"),
        ("GET", "/allocator/explain?role=*"),
    ] {
        let answer = http::send(at, method, path, &[], b"")?;
        let location = format!("//{there}{path}");
        ensure!(
            answer.status == 307 && answer.header("location") == Some(&location),
            "{method} {path}: {} {:?}",
            answer.status,
            answer.header("location")
        );
    }
    for path in ["/health", "/version", "/flags", "/metrics/snapshot"] {
        let answer = http::send(at, "GET", path, &[], b"")?;
        ensure!(answer.status == 200, "{path}: {}", answer.status);
    }
    let metrics = http::get(at, "/metrics/snapshot")?;
    ensure!(
        metrics["master/elected"] == 0.0,
        "{}",
        metrics["master/elected"]
    );

    let stale = http::send(at, "GET", "/slaves?stale=true", &[], b"")?;
    ensure!(stale.status == 200 && stale.header("tepui-stale") == Some("true"));
    let agents: Value = stale.json()?;
    ensure!(agents["slaves"][0]["active"] == true, "{agents}");
    let by_header = http::send(at, "GET", "/state", &[("tepui-stale", "true")], b"")?;
    ensure!(by_header.status == 200);
    let fresh = http::send(there, "GET", "/slaves?stale=true", &[], b"")?;
    ensure!(fresh.status == 200 && fresh.header("tepui-stale").is_none());

    // Nobody leads without a majority: 503, at once or after the wait that was asked for.
    masters.kill(leader)?;
    masters.kill((leader + 2) % 3)?;
    let nobody = || {
        let answer = http::send(at, "GET", "/state", &[], b"")?;
        Ok((answer.status == 503).then_some(()))
    };
    tepui_tests::cluster::wait_for("no leader", PATIENCE, nobody)?;
    let began = Instant::now();
    let answer = http::send(at, "GET", "/state", &[("tepui-wait", "0.5")], b"")?;
    ensure!(answer.status == 503 && began.elapsed() >= Duration::from_millis(500));
    ensure!(http::send(at, "GET", "/master/redirect", &[], b"")?.status == 503);
    Ok(())
}

async fn next(events: &mut Events) -> Result<Event> {
    let event = tokio::time::timeout(PATIENCE, events.next()).await;
    Ok(event.context("no event")?.context("the session ended")??)
}

async fn offer(session: &mut Session) -> Result<v1::Offer> {
    loop {
        if let Event::Offers(mut offers) = next(&mut session.events).await? {
            return Ok(offers.remove(0));
        }
    }
}

/// Framework and agent were given one master alone, which is the first to die.
async fn goes_on(transport: Transport) -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    let leader = masters.leader()?;
    let first = masters.address(leader).to_string();
    masters.add_agent_of(
        &first,
        &["--containerizers=process", "--resources=cpus:4;mem:1024"],
    )?;
    let info = v1::FrameworkInfo {
        failover_timeout: Some(3600.0),
        ..task::framework("root", "survivor")
    };
    let options = Options::new([first], info).transport(transport);
    let mut session = Session::start(options)?;
    let used = offer(&mut session).await?;
    let sleeps = task::task("outlives", &used, 0.5, 64.0, task::shell("sleep 1000"));
    session.driver.launch(&used, vec![sleeps], None).await?;
    loop {
        if let Event::Update(status) = next(&mut session.events).await?
            && status.state() == v1::TaskState::TaskRunning
        {
            break;
        }
    }

    let mut leader = leader;
    for _ in 0..2 {
        let began = Instant::now();
        masters.kill(leader)?;
        let mut again = false;
        loop {
            match next(&mut session.events).await? {
                Event::Subscribed { again: it, .. } => again = it,
                Event::Offers(offers) if again => {
                    let gap = began.elapsed();
                    println!(
                        "{transport:?}: {} ms from kill -9 to the next offer",
                        gap.as_millis()
                    );
                    session.driver.decline(offers[0].id.clone(), None).await?;
                    break;
                }
                Event::Update(status) => ensure!(
                    !task::is_terminal(status.state()),
                    "{:?}: {:?}",
                    status.state(),
                    status.message
                ),
                _ => {}
            }
        }
        masters.restart(leader)?;
        leader = masters.leader()?;
    }
    session
        .driver
        .kill(v1::TaskId {
            value: "outlives".into(),
        })
        .await?;
    loop {
        if let Event::Update(status) = next(&mut session.events).await?
            && task::is_terminal(status.state())
        {
            ensure!(status.state() == v1::TaskState::TaskKilled, "{status:?}");
            return Ok(());
        }
    }
}

fn run<F: Future<Output = Result<()>>>(future: F) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(future)
}

#[test]
fn a_framework_on_grpc_goes_on_with_the_next_leader() -> Result<()> {
    run(goes_on(Transport::Grpc))
}

#[test]
fn a_framework_on_http_goes_on_with_the_next_leader() -> Result<()> {
    run(goes_on(Transport::Http))
}
