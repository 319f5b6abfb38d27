//! `latency`: from an offer in hand to RUNNING, and from free resources to a new offer.

use super::{
    client::{Client, Heard},
    cluster::{self, Cluster, MASTER, MASTERS, TRANSPORT},
    load::{self, Counts, Limits, Pace},
};
use crate::{
    harness::{parameters::number, point::Measure, result::Unit, stop, workload::Workload},
    noop_agent::{Ending, Kind},
};
use anyhow::{Result, bail};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tepui_scheduler_api::{call, task, v1};
use tokio::task::JoinSet;

const UNLOADED: &str = "offer in hand to RUNNING, unloaded";
const LOADED: &str = "offer in hand to RUNNING, at half the peak";
const DECLINED: &str = "declined to offered again";
const FREED: &str = "end of a task to a new offer";
const PEAK: &str = "launches at the peak";

/// Of a task of the probe.
const CPUS: f64 = 0.1;

/// Nothing takes longer while all is well.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) static WORKLOAD: Workload = Workload {
    name: "latency",
    about: "one framework launches one task after the other and measures: alone, then beside \
            another one that launches at half of what it could",
    parameters: &[
        cluster::agents(200),
        number(
            "peak_seconds",
            5,
            1,
            600,
            "seconds in which the peak is found; the first does not count",
        ),
        cluster::tasks_per_accept("most tasks of one ACCEPT of the other framework"),
        TRANSPORT,
        MASTERS,
        MASTER,
    ],
    size: Some("agents"),
    sizes: &[],
    repeats: 300,
    goals: &[],
    memory: |values| cluster::memory(values, 50_000),
    run: |measure| cluster::block_on(run(measure)),
};

async fn run(measure: &mut Measure) -> Result<()> {
    let cluster = Cluster::start(measure, |_| Kind::ending(Ending::AtOnce)).await?;
    let transport = measure.values.text("transport").to_owned();
    let client = Client::subscribe(&cluster.masters, &transport, "probe", "probe").await?;
    let mut probe = Probe::new(client);
    measure.begin(UNLOADED, measure.repeats);
    for _ in 0..measure.repeats {
        let took = probe.launch(true).await?;
        measure.time(UNLOADED, took.running);
        measure.time(FREED, took.offered);
        let again = probe.decline().await?;
        measure.time(DECLINED, again);
        if !measure.step() {
            return Ok(());
        }
    }
    let (pace, counts) = (Arc::new(Pace::default()), Arc::new(Counts::default()));
    // What the probe holds would be missing.
    probe.give_back().await?;
    let mut other = JoinSet::new();
    let client = Client::subscribe(&cluster.masters, &transport, "load", "load").await?;
    let limits = Limits::of(&measure.values);
    other.spawn(load::launch(
        client,
        "load".into(),
        limits,
        pace.clone(),
        counts.clone(),
    ));
    let seconds = measure.number("peak_seconds");
    measure.begin(PEAK, seconds);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut peak = 0;
    for _ in 0..seconds {
        let before = counts.running.load(Ordering::Relaxed);
        // The probe's events are read, so that it is not behind.
        probe.idle(Duration::from_secs(1)).await?;
        let count = counts.running.load(Ordering::Relaxed) - before;
        measure.sample(PEAK, Unit::PerSecond, count as f64);
        peak = peak.max(count);
        if !measure.step() {
            return Ok(());
        }
    }
    if peak == 0 {
        bail!("nothing was launched within {seconds} s");
    }
    pace.set((peak / 2).max(1));
    probe.idle(Duration::from_secs(1)).await?;
    measure.begin(LOADED, measure.repeats);
    for _ in 0..measure.repeats {
        let took = probe.launch(false).await?;
        measure.time(LOADED, took.running);
        if let Some(ended) = other.try_join_next() {
            ended??;
        }
        if !measure.step() {
            break;
        }
    }
    measure.count(LOADED, "launches a second beside it", (peak / 2) as f64);
    other.shutdown().await;
    Ok(())
}

/// A framework that measures.
pub(super) struct Probe {
    client: Client,
    offers: VecDeque<v1::Offer>,
    next: u64,
}

/// What one launch took.
#[derive(Default)]
pub(super) struct Took {
    /// From the call to the update.
    running: Duration,
    /// From the last update to an offer of the agent.
    offered: Duration,
}

impl Probe {
    pub(super) fn new(client: Client) -> Probe {
        Probe {
            client,
            offers: VecDeque::new(),
            next: 0,
        }
    }

    /// What comes next; none when nothing did for a moment.
    async fn hear_soon(&mut self) -> Result<Option<Heard>> {
        const SOON: Duration = Duration::from_millis(500);
        if stop::asked() {
            bail!("interrupted while something was waited for");
        }
        match tokio::time::timeout(SOON, self.client.next()).await {
            Ok(heard) => heard.map(Some),
            Err(_) => Ok(None),
        }
    }

    async fn hear(&mut self) -> Result<Heard> {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(heard) = self.hear_soon().await? {
                return Ok(heard);
            }
        }
        bail!("nothing was heard for {PATIENCE:?}")
    }

    async fn offer(&mut self) -> Result<v1::Offer> {
        let fits = |it: &v1::Offer| task::amount(&it.resources, "cpus") >= CPUS;
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(it) = self.offers.pop_front() {
                if fits(&it) {
                    return Ok(it);
                }
                // With nothing that a task needs it would come back at once.
                self.client.calls.decline(vec![it.id], 1e6).await?;
                continue;
            }
            match self.hear_soon().await? {
                Some(heard) => self.keep_offers(heard),
                // It has declined too much.
                None => self.client.calls.call(call::revive(Vec::new())).await?,
            }
        }
        bail!("nothing that a task fits in was offered within {PATIENCE:?}")
    }

    fn keep_offers(&mut self, heard: Heard) {
        match heard {
            Heard::Offers(more) => self.offers.extend(more),
            Heard::Rescind(id) => self.offers.retain(|it| it.id != id),
            Heard::Update(_) | Heard::Other => {}
        }
    }

    /// Launches one task, and waits until it has ended; with `until_offered` also until what it
    /// used is offered again, which beside a busy framework may be to that one.
    pub(super) async fn launch(&mut self, until_offered: bool) -> Result<Took> {
        let offer = self.offer().await?;
        self.next += 1;
        let id = format!("probe-{}", self.next);
        let task = task::task(id.clone(), &offer, CPUS, 32.0, task::shell("true"));
        let since = Instant::now();
        self.client.calls.launch(&offer, vec![task]).await?;
        let mut took = Took::default();
        let (mut ended, mut offered) = (None, None);
        // The rest of the offer comes back before; what the task used is smaller.
        let is_freed = |it: &v1::Offer| {
            it.agent_id == offer.agent_id && task::amount(&it.resources, "cpus") < CPUS * 1.5
        };
        loop {
            match self.hear().await? {
                Heard::Update(it) if it.task_id.value == id => match it.state() {
                    v1::TaskState::TaskRunning => took.running = since.elapsed(),
                    v1::TaskState::TaskStarting | v1::TaskState::TaskStaging => {}
                    v1::TaskState::TaskFinished => ended = Some(Instant::now()),
                    other => bail!("a task of the probe became {}", other.as_str_name()),
                },
                Heard::Offers(more) => {
                    if !took.running.is_zero() && more.iter().any(is_freed) {
                        offered = Some(Instant::now());
                    }
                    self.offers.extend(more);
                }
                Heard::Rescind(id) => self.offers.retain(|it| it.id != id),
                Heard::Update(_) | Heard::Other => {}
            }
            match (ended, offered) {
                (Some(_), _) if !until_offered => return Ok(took),
                (Some(ended), Some(offered)) => {
                    // The offer may overtake the update.
                    took.offered = offered.saturating_duration_since(ended);
                    return Ok(took);
                }
                _ => {}
            }
        }
    }

    /// Declines one offer without a filter, and waits until its agent is offered again.
    pub(super) async fn decline(&mut self) -> Result<Duration> {
        let offer = self.offer().await?;
        let since = Instant::now();
        self.client.calls.decline(vec![offer.id], 0.0).await?;
        loop {
            if since.elapsed() > PATIENCE || stop::asked() {
                bail!("an agent was not offered again within {PATIENCE:?}");
            }
            match self.hear().await? {
                Heard::Offers(more) => {
                    let is_again = more.iter().any(|it| it.agent_id == offer.agent_id);
                    let took = since.elapsed();
                    self.offers.extend(more);
                    if is_again {
                        return Ok(took);
                    }
                }
                Heard::Rescind(id) => self.offers.retain(|it| it.id != id),
                Heard::Update(_) | Heard::Other => {}
            }
        }
    }

    /// Keeps a few offers and gives the others back for a while.
    pub(super) async fn give_back(&mut self) -> Result<()> {
        let rest = self.offers.split_off(self.offers.len().min(5));
        let ids: Vec<v1::OfferId> = rest.into_iter().map(|it| it.id).collect();
        match ids.is_empty() {
            true => Ok(()),
            false => self.client.calls.decline(ids, 1e6).await,
        }
    }

    /// Listens for a time.
    pub(super) async fn idle(&mut self, time: Duration) -> Result<()> {
        let until = tokio::time::Instant::now() + time;
        loop {
            match tokio::time::timeout_at(until, self.client.next()).await {
                Err(_) => return Ok(()),
                Ok(Ok(Heard::Offers(more))) => {
                    self.offers.extend(more);
                    self.give_back().await?;
                }
                Ok(Ok(Heard::Rescind(id))) => self.offers.retain(|it| it.id != id),
                Ok(heard) => drop(heard?),
            }
        }
    }
}
