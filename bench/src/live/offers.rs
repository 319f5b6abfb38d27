//! `offers`: how many offers a second reach frameworks that decline each of them.

use super::{
    client::{Client, Heard, TRANSPORTS},
    cluster::{self, Cluster, MASTER, MASTERS},
};
use crate::{
    cpu,
    harness::{parameters::number, point::Measure, result::Unit, workload::Workload},
    noop_agent::{Ending, Kind},
};
use anyhow::Result;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;

pub(super) static WORKLOAD: Workload = Workload {
    name: "offers",
    about: "frameworks decline every offer at once and are offered it again: offers decoded a \
            second, by each protocol in turn",
    parameters: &[
        cluster::agents(1_000),
        number(
            "frameworks",
            1,
            1,
            1_000,
            "frameworks, on a connection each",
        ),
        cluster::transport(&["all", "grpc", "http", "json"]),
        MASTERS,
        MASTER,
    ],
    size: Some("agents"),
    sizes: &[],
    repeats: 10,
    goals: &[],
    memory: |values| cluster::memory(values, 0),
    run: |measure| cluster::block_on(run(measure)),
};

async fn run(measure: &mut Measure) -> Result<()> {
    let cluster = Cluster::start(measure, |_| Kind::ending(Ending::AtOnce)).await?;
    let wanted = measure.values.text("transport").to_owned();
    for transport in TRANSPORTS
        .iter()
        .filter(|it| wanted == "all" || wanted == **it)
    {
        if !one(measure, &cluster, transport).await? {
            break;
        }
    }
    Ok(())
}

async fn one(measure: &mut Measure, cluster: &Cluster, transport: &str) -> Result<bool> {
    let offers = Arc::new(AtomicU64::new(0));
    let mut frameworks = JoinSet::new();
    for at in 0..measure.number("frameworks") {
        let name = format!("offers-{at}");
        let client = Client::subscribe(&cluster.masters, transport, &name, "*").await?;
        frameworks.spawn(decline(client, offers.clone()));
    }
    let metric = format!("offers by {transport}");
    measure.begin(&metric, measure.repeats + 1);
    let mut ended: Result<bool> = Ok(true);
    let mut before = (0, Vec::new(), Duration::ZERO);
    for second in 0..=measure.repeats {
        let now = (
            offers.load(Ordering::Relaxed),
            cluster.cpu()?,
            cpu::used(std::process::id())?,
        );
        // The first second is for getting there.
        if second > 0 {
            let count = now.0 - before.0;
            measure.sample(&metric, Unit::PerSecond, count as f64);
            let each = |used: Duration| used.as_secs_f64() * 1e6 / (count as f64).max(1.0);
            let busiest = now
                .1
                .iter()
                .zip(&before.1)
                .map(|(after, before)| *after - *before)
                .max();
            if let Some(busiest) = busiest {
                measure.count(&metric, "us of the leader's CPU an offer", each(busiest));
            }
            let own = now.2.saturating_sub(before.2);
            measure.count(
                &metric,
                "us of CPU of agents and frameworks an offer",
                each(own),
            );
        }
        before = now;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            Some(it) = frameworks.join_next() => {
                ended = it?.map(|()| false);
                break;
            }
        }
        if !measure.step() {
            ended = Ok(false);
            break;
        }
    }
    frameworks.shutdown().await;
    ended
}

async fn decline(mut client: Client, count: Arc<AtomicU64>) -> Result<()> {
    loop {
        if let Heard::Offers(offers) = client.next().await? {
            count.fetch_add(offers.len() as u64, Ordering::Relaxed);
            let ids = offers.into_iter().map(|it| it.id).collect();
            client.calls.decline(ids, 0.0).await?;
        }
    }
}
