//! `readers`: what those who only look cost those who work.

use super::{
    client::Client,
    cluster::{self, Cluster, MASTER, MASTERS, TRANSPORT},
    flatness::filled,
    latency::Probe,
    load::{self, Counts, Limits, Pace},
};
use crate::harness::{parameters::number, point::Measure, result::Unit, workload::Workload};
use anyhow::{Context, Result, bail};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

const ANSWERS: &str = "answers to /state";

pub(super) static WORKLOAD: Workload = Workload {
    name: "readers",
    about: "the rate of launches and the time until declined resources are offered again, alone, \
            beside pollers of /state, and beside readers of the event stream that are stuck; the \
            masters keep many tasks meanwhile",
    parameters: &[
        cluster::agents(1_000),
        number(
            "tasks_per_agent",
            250,
            1,
            1_000,
            "tasks that stay on each full agent",
        ),
        number(
            "full_percent",
            80,
            1,
            95,
            "agents that are full of tasks that stay, of a hundred",
        ),
        number(
            "pollers",
            20,
            1,
            1_000,
            "connections that ask for /state again and again",
        ),
        number(
            "stuck",
            20,
            1,
            1_000,
            "connections that subscribe to events and read nothing",
        ),
        cluster::tasks_per_accept("most tasks of one ACCEPT of the load"),
        TRANSPORT,
        MASTERS,
        MASTER,
    ],
    size: Some("agents"),
    sizes: &[],
    repeats: 10,
    goals: &[],
    memory: |values| {
        let tasks = values.number("agents") * values.number("tasks_per_agent");
        // An answer is about 700 bytes a task; a few are made at a time.
        cluster::memory(values, tasks + 50_000) + tasks * 700 * 4
    },
    run: |measure| cluster::block_on(run(measure)),
};

/// What readers got.
#[derive(Debug, Default)]
struct Got {
    answers: AtomicU64,
    bytes: AtomicU64,
}

async fn run(measure: &mut Measure) -> Result<()> {
    if !measure.values.text("master").is_empty() {
        bail!("readers fills agents of its own; run it without master");
    }
    let full = (measure.number("agents") * measure.number("full_percent") / 100).max(1);
    let (cluster, filler) = filled(measure, full).await?;
    let transport = measure.values.text("transport").to_owned();
    let mut frameworks = JoinSet::new();
    frameworks.spawn(load::keep(filler));
    let client = Client::subscribe(&cluster.masters, &transport, "load", "load").await?;
    let counts = Arc::new(Counts::default());
    let limits = Limits::of(&measure.values);
    let pace = Arc::new(Pace::default());
    frameworks.spawn(load::launch(
        client,
        "load".into(),
        limits,
        pace,
        counts.clone(),
    ));
    let leader = leader(&cluster).await?;
    prefer(leader, "probe").await?;
    let client = Client::subscribe(&cluster.masters, &transport, "probe", "probe").await?;
    let mut probe = Probe::new(client);
    probe.idle(Duration::from_secs(2)).await?;
    let got = Arc::new(Got::default());
    for (name, kind) in [
        ("alone", None),
        ("beside pollers", Some(false)),
        ("beside stuck streams", Some(true)),
    ] {
        let mut readers = JoinSet::new();
        let count = match kind {
            None => 0,
            Some(true) => measure.number("stuck"),
            Some(false) => measure.number("pollers"),
        };
        for _ in 0..count {
            match kind {
                Some(true) => readers.spawn(stuck(leader)),
                _ => readers.spawn(poll(leader, got.clone())),
            };
        }
        let rate = format!("launches, {name}");
        let offered = format!("declined to offered again, {name}");
        measure.begin(&rate, measure.repeats);
        for _ in 0..measure.repeats {
            let (since, before) = (Instant::now(), counts.running.load(Ordering::Relaxed));
            let (answers, bytes) = (
                got.answers.load(Ordering::Relaxed),
                got.bytes.load(Ordering::Relaxed),
            );
            // As many as fit into a second; at least one.
            loop {
                let took = probe.decline().await?;
                measure.time(&offered, took);
                probe.give_back().await?;
                if since.elapsed() >= Duration::from_secs(1) {
                    break;
                }
            }
            let seconds = since.elapsed().as_secs_f64();
            let running = counts.running.load(Ordering::Relaxed) - before;
            measure.sample(&rate, Unit::PerSecond, running as f64 / seconds);
            if kind == Some(false) {
                let answers = got.answers.load(Ordering::Relaxed) - answers;
                let bytes = got.bytes.load(Ordering::Relaxed) - bytes;
                measure.sample(ANSWERS, Unit::PerSecond, answers as f64 / seconds);
                let each = bytes as f64 / (answers as f64).max(1.0);
                measure.count(ANSWERS, "bytes an answer", each);
            }
            let of_frameworks = frameworks.try_join_next();
            let of_readers = readers.try_join_next();
            if let Some(ended) = of_frameworks.or(of_readers) {
                ended??;
            }
            if !measure.step() {
                return Ok(());
            }
        }
        let stay = full * measure.number("tasks_per_agent");
        measure.count(&rate, "tasks that stay", stay as f64);
        readers.shutdown().await;
    }
    frameworks.shutdown().await;
    Ok(())
}

/// Gives a role so much weight that it is always the next to be served: what it gives back comes
/// back, whatever others want.
async fn prefer(master: SocketAddr, role: &str) -> Result<()> {
    let body = format!(
        r#"{{"type":"UPDATE_WEIGHTS","update_weights":{{"weight_infos":[{{"role":"{role}","weight":1000000}}]}}}}"#
    );
    let (status, answer) = crate::ask::request(master, "POST", "/api/v1", &body).await?;
    if !(200..300).contains(&status) {
        bail!("a weight for {role} was answered by {status}: {answer}");
    }
    Ok(())
}

async fn leader(cluster: &Cluster) -> Result<SocketAddr> {
    let addresses: Result<Vec<SocketAddr>, _> =
        cluster.masters.iter().map(|it| it.parse()).collect();
    let addresses = addresses?;
    let at = crate::ask::leader(&addresses).await?;
    addresses.get(at).copied().context("no leader")
}

/// Asks for the state, and throws the answer away, again and again.
async fn poll(master: SocketAddr, got: Arc<Got>) -> Result<()> {
    let request = format!("GET /state HTTP/1.0\r\nHost: {master}\r\n\r\n");
    let mut buffer = vec![0; 256 << 10];
    loop {
        let mut stream = TcpStream::connect(master).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut first = true;
        loop {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                break;
            }
            if first
                && !buffer[..count].starts_with(b"HTTP/1.0 200")
                && !buffer[..count].starts_with(b"HTTP/1.1 200")
            {
                bail!(
                    "/state was answered by {}",
                    String::from_utf8_lossy(&buffer[..count.min(200)])
                );
            }
            first = false;
            got.bytes.fetch_add(count as u64, Ordering::Relaxed);
        }
        got.answers.fetch_add(1, Ordering::Relaxed);
    }
}

/// Subscribes to all events, and reads none of them.
async fn stuck(master: SocketAddr) -> Result<()> {
    let body = r#"{"type":"SUBSCRIBE"}"#;
    let request = format!(
        "POST /api/v1 HTTP/1.1\r\nHost: {master}\r\nContent-Type: application/json\r\n\
         Accept: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(master).await?;
    stream.write_all(request.as_bytes()).await?;
    std::future::pending::<()>().await;
    Ok(())
}
