//! A framework that launches as fast as it can, or at a given rate, and one that fills agents.

use super::client::{Client, Heard};
use crate::harness::{parameters::Values, stop};
use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tepui_scheduler_api::{call, task, v1};

/// Resources of one task of the load.
const CPUS: f64 = 0.1;
const MEM_MB: f64 = 32.0;

/// What frameworks of a run count together.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Tasks in ACCEPT calls.
    pub(super) launched: AtomicU64,
    /// ACCEPT calls.
    pub(super) accepts: AtomicU64,
    /// Tasks whose RUNNING was received and acknowledged.
    pub(super) running: AtomicU64,
    /// Updates that say that a task never ran.
    pub(super) failed: AtomicU64,
}

/// Tasks a second that a framework may launch; none for as many as it can.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU64);

impl Pace {
    /// At most so many a second from now on; zero for no bound.
    pub(super) fn set(&self, tasks_a_second: u64) {
        self.0.store(tasks_a_second, Ordering::Relaxed);
    }
}

/// ACCEPT calls that wait for their answers: events are read meanwhile, and offers do not wait for
/// each other's.
const CALLS: usize = 16;

/// What a framework does at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Tasks of one ACCEPT.
    pub(super) tasks_per_accept: u64,
    /// Tasks that have been launched and have not ended: a framework that launches faster than its
    /// tasks end has ever more of them, until every agent is full.
    pub(super) alive: u64,
}

impl Limits {
    /// Tasks that have not ended, when nothing else is said.
    pub(super) const ALIVE: u64 = 1_000;

    /// Those of a run that says how many tasks an ACCEPT has.
    pub(super) fn of(values: &Values) -> Limits {
        Limits {
            tasks_per_accept: values.number("tasks_per_accept"),
            alive: Limits::ALIVE,
        }
    }
}

/// Takes every offer for tasks that end by themselves, for ever.
pub(super) async fn launch(
    mut client: Client,
    name: String,
    limits: Limits,
    pace: Arc<Pace>,
    counts: Arc<Counts>,
) -> Result<()> {
    let mut offers: VecDeque<v1::Offer> = VecDeque::new();
    let mut calls = FuturesUnordered::new();
    let (mut next, mut alive, mut allowed) = (0_u64, 0_u64, 0.0_f64);
    let most = limits.tasks_per_accept;
    let mut last = Instant::now();
    loop {
        let bound = pace.0.load(Ordering::Relaxed);
        allowed = match bound {
            0 => most as f64,
            // No more than a tenth of a second's at once.
            _ => (allowed + last.elapsed().as_secs_f64() * bound as f64)
                .min((bound as f64 / 10.0).max(1.0)),
        };
        last = Instant::now();
        while allowed >= 1.0
            && calls.len() < CALLS
            && alive + most <= limits.alive.max(most)
            && let Some(offer) = offers.pop_front()
        {
            let most = most.min(allowed as u64);
            let tasks = fill(&offer, &name, most, &mut next);
            let count = tasks.len() as u64;
            alive += count;
            let driver = client.calls.clone();
            calls.push(async move { driver.launch(&offer, tasks).await });
            counts.launched.fetch_add(count, Ordering::Relaxed);
            counts.accepts.fetch_add(1, Ordering::Relaxed);
            if bound > 0 {
                allowed -= count as f64;
            }
        }
        // With offers in hand it looks again when there is something to launch.
        let patience = match offers.is_empty() || bound == 0 {
            true => Duration::from_secs(3600),
            false => Duration::from_millis(2),
        };
        let heard = tokio::select! {
            heard = client.next() => heard?,
            Some(answered) = calls.next() => {
                answered?;
                continue;
            }
            () = tokio::time::sleep(patience) => continue,
        };
        match heard {
            Heard::Offers(more) => offers.extend(more),
            Heard::Rescind(id) => offers.retain(|it| it.id != id),
            Heard::Update(status) => {
                let state = status.state();
                alive = alive.saturating_sub(u64::from(task::is_terminal(state)));
                let count = match state {
                    v1::TaskState::TaskRunning => &counts.running,
                    v1::TaskState::TaskFinished => continue,
                    _ => &counts.failed,
                };
                count.fetch_add(1, Ordering::Relaxed);
            }
            Heard::Other => {}
        }
    }
}

/// Tasks that fill an offer.
fn fill(offer: &v1::Offer, name: &str, most: u64, next: &mut u64) -> Vec<v1::TaskInfo> {
    let room = |name: &str, each: f64| (task::amount(&offer.resources, name) / each).floor() as u64;
    let count = room("cpus", CPUS).min(room("mem", MEM_MB)).min(most);
    let mut tasks = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let id = format!("{name}-{next}");
        *next += 1;
        tasks.push(task::task(id, offer, CPUS, MEM_MB, task::shell("true")));
    }
    tasks
}

/// Bytes of one task of the load.
pub(super) fn task_bytes() -> usize {
    let offer = v1::Offer {
        agent_id: v1::AgentId {
            value: format!("{}-S100", uuid::Uuid::nil()),
        },
        ..Default::default()
    };
    let task = task::task("load-0-1000000", &offer, CPUS, MEM_MB, task::shell("true"));
    prost::Message::encoded_len(&task)
}

/// Launches tasks that stay, so many on each of the first agents, which are full then; returns the
/// subscription, which keeps them, when all of them run.
pub(super) async fn fill_agents(
    mut client: Client,
    agents: u64,
    tasks_per_agent: u64,
    progress: impl Fn(u64),
) -> Result<Client> {
    const PATIENCE: Duration = Duration::from_secs(300);
    let wanted = agents * tasks_per_agent;
    let (mut launched, mut running) = (0, 0);
    let since = Instant::now();
    while running < wanted {
        if since.elapsed() > PATIENCE || stop::asked() {
            bail!(
                "only {running} of {wanted} tasks ran within {:?}",
                since.elapsed()
            );
        }
        let heard = tokio::time::timeout(PATIENCE, client.next()).await;
        match heard.context("nothing was heard while agents were filled")?? {
            Heard::Offers(offers) => {
                let (ours, others): (Vec<_>, Vec<_>) =
                    offers.into_iter().partition(|it| is_first(it, agents));
                let others: Vec<v1::OfferId> = others.into_iter().map(|it| it.id).collect();
                if !others.is_empty() {
                    client.calls.decline(others, 1e6).await?;
                }
                for offer in ours {
                    let cpus = task::amount(&offer.resources, "cpus");
                    let each = (cpus / tasks_per_agent as f64 * 1000.0).floor() / 1000.0;
                    let task = |it: u64| {
                        let id = format!("filler-{}", launched + it);
                        task::task(id, &offer, each, 1.0, task::shell("sleep 1000000"))
                    };
                    let tasks: Vec<_> = (0..tasks_per_agent).map(task).collect();
                    launched += tasks_per_agent;
                    client.calls.launch(&offer, tasks).await?;
                }
            }
            Heard::Update(status) => match status.state() {
                v1::TaskState::TaskRunning => {
                    running += 1;
                    progress(running);
                }
                other => bail!("a task that fills an agent became {}", other.as_str_name()),
            },
            Heard::Rescind(_) | Heard::Other => {}
        }
        if launched >= wanted {
            client.calls.call(call::suppress(Vec::new())).await?;
        }
    }
    Ok(client)
}

/// Whether the offer is of one of the agents with the smallest numbers.
fn is_first(offer: &v1::Offer, agents: u64) -> bool {
    let number = offer
        .hostname
        .rsplit('-')
        .next()
        .and_then(|it| it.parse::<u64>().ok());
    number.is_some_and(|it| it < agents)
}

/// Reads a subscription so that its master does not think it is stuck.
pub(super) async fn keep(mut client: Client) -> Result<()> {
    loop {
        match client.next().await? {
            Heard::Offers(offers) => {
                let ids = offers.into_iter().map(|it| it.id).collect();
                client.calls.decline(ids, 1e6).await?;
            }
            Heard::Rescind(_) | Heard::Update(_) | Heard::Other => {}
        }
    }
}
