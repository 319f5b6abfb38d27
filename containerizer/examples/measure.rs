//! Measures process tasks: from `launch` to `Started`, tasks a second, memory of a shim.
//!
//! `cargo run --release -p tepui-containerizer --example measure -- <path of tepui-shim>`

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tepui_containerizer::{
    Amounts, Config, ContainerEvent, ContainerSpec, Containerizer, Kind, ProcessConfig, sandbox,
};
use tepui_model::wire;
use tokio::sync::mpsc;

const LATENCY_ROUNDS: usize = 300;
const RATE_TASKS: usize = 2000;
/// Tasks under way at the same time when the rate is measured.
const RATE_WINDOW: usize = 16;
const SLEEPERS: usize = 50;

#[tokio::main]
async fn main() {
    let shim = std::env::args()
        .nth(1)
        .map_or("tepui-shim".into(), PathBuf::from);
    for namespaces in [true, false] {
        for cgroups in [true, false] {
            println!("namespaces {namespaces}, cgroups {cgroups}:");
            measure(&shim, namespaces, cgroups).await;
        }
    }
}

async fn measure(shim: &std::path::Path, namespaces: bool, cgroups: bool) {
    let work = tempfile::tempdir().expect("a temporary directory");
    let owner = Containerizer::owner_of(work.path()).expect("owner");
    let mut config = Config::new(work.path().join("containers"), owner);
    config.docker = None;
    let mut process = ProcessConfig {
        shim: shim.to_owned(),
        cgroups_root: "tepui-measure".into(),
        namespaces,
        ..ProcessConfig::default()
    };
    if !cgroups {
        process.cgroups_hierarchy = None;
    }
    config.process = Some(process);
    let (sender, mut events) = mpsc::channel(256);
    let containerizer = Containerizer::new(config, sender).await.expect("start");
    let spec = |id: String, command: &str| ContainerSpec {
        sandbox: sandbox::path(work.path(), "S0", "F0", &id, &id),
        container_id: id,
        framework_id: "F0".into(),
        executor_id: "t".into(),
        task_id: "t".into(),
        kind: Kind::Process,
        command: wire::CommandInfo {
            value: Some(command.into()),
            ..Default::default()
        },
        container: None,
        amounts: Amounts {
            cpus: 0.1,
            mem: 32.0,
            ..Amounts::default()
        },
        user: None,
        environment: Vec::new(),
        volumes: Vec::new(),
        kill_grace: Duration::from_secs(3),
        max_completion_time: None,
        health_check: None,
        check: None,
        labels: Vec::new(),
    };

    let (mut started, mut ended) = (Vec::new(), Vec::new());
    for round in 0..LATENCY_ROUNDS {
        let spec = spec(format!("l{round}"), "true");
        let id = spec.container_id.clone();
        let begin = Instant::now();
        containerizer.launch(spec).await.expect("launch");
        loop {
            match events.recv().await.expect("an event") {
                ContainerEvent::Started { .. } => started.push(begin.elapsed()),
                ContainerEvent::Exited { .. } => break,
                other => panic!("{other:?}"),
            }
        }
        ended.push(begin.elapsed());
        containerizer.remove(&id).await.expect("remove");
    }
    print_percentiles("launch to Started", &mut started);
    print_percentiles("launch to Exited of `true`", &mut ended);

    let begin = Instant::now();
    let (mut next, mut done) = (0, 0);
    while done < RATE_TASKS {
        while next < RATE_TASKS && next - done < RATE_WINDOW {
            let spec = spec(format!("r{next}"), "true");
            containerizer.launch(spec).await.expect("launch");
            next += 1;
        }
        if let ContainerEvent::Exited { container_id, .. } = events.recv().await.expect("an event")
        {
            done += 1;
            let containerizer = containerizer.clone();
            tokio::spawn(async move { containerizer.remove(&container_id).await });
        }
    }
    println!(
        "  {:.0} tasks of `true` a second",
        RATE_TASKS as f64 / begin.elapsed().as_secs_f64()
    );

    let mut tasks = Vec::new();
    for number in 0..SLEEPERS {
        containerizer
            .launch(spec(format!("s{number}"), "exec sleep 1000"))
            .await
            .expect("launch");
        match events.recv().await.expect("an event") {
            ContainerEvent::Started { started, .. } => tasks.push(started.pid),
            other => panic!("{other:?}"),
        }
    }
    let mut sums = [0; 3];
    for number in 0..SLEEPERS {
        let file = work.path().join(format!("containers/s{number}/state"));
        let state = std::fs::read_to_string(file).expect("state");
        for (sum, key) in sums.iter_mut().zip(["shim=", "init=", "task="]) {
            let pid = state
                .lines()
                .find_map(|it| it.strip_prefix(key)?.split(' ').next());
            *sum += pid.map_or(0, private_kib);
        }
    }
    let [shim, init, task] = sums.map(|it| it / SLEEPERS as u64);
    println!("  private memory per task: shim {shim} KiB, init {init} KiB, sleep {task} KiB");
    for number in 0..SLEEPERS {
        containerizer
            .remove(&format!("s{number}"))
            .await
            .expect("remove");
    }
}

fn private_kib(pid: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines()
        .filter(|it| it.starts_with("Private_Clean") || it.starts_with("Private_Dirty"))
        .filter_map(|it| it.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

fn print_percentiles(what: &str, times: &mut [Duration]) {
    times.sort();
    let at =
        |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!("  {what}: p50 {:.2} ms, p99 {:.2} ms", at(50), at(99));
}
