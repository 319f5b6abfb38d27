//! How much of the machine may be given away once more, to tasks that bear losing it
//! (`--resource_estimator`, `docs/oversubscription.md`).
//!
//! `fixed:cpus:4;mem:1024` always says the same. `usage` says how many of the cpus that tasks
//! hold they did not use: for each, what it holds less the most that it used in one of the
//! last intervals. Only cpus: they can be taken back at any time, by shares; memory cannot.

use crate::{
    endpoints::{containers::running, values},
    http::app::statistics,
    shell::agent_loop::Inbox,
};
use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt, stream};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use tepui_agent_machine::{
    input::Input,
    model::{Resource, Resources, Scalar, wire},
    output::AgentView,
};
use tepui_containerizer::Containerizer;

/// Intervals looked back on: two minutes at the default.
const WINDOW: usize = 8;
/// Intervals after which a container is known well enough; before, it counts as using all.
const KNOWN: usize = 4;
/// Estimates are cut to tenths of a cpu: each change takes offers back.
const STEP: f64 = 10.0;
/// Containers asked at the same time.
const ASKED_AT_ONCE: usize = 4;

/// What `--resource_estimator` asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Estimator {
    /// Always this, all of it revocable.
    Fixed(Resources),
    /// The cpus that tasks hold and do not use.
    Usage,
}

impl Estimator {
    /// Reads the flag.
    ///
    /// # Errors
    /// It is neither form, or not resources that can be oversubscribed.
    pub(crate) fn parse(text: &str) -> Result<Estimator> {
        let Some(resources) = text.strip_prefix("fixed:") else {
            ensure!(
                text == "usage",
                "--resource_estimator: {text:?} is neither usage nor fixed:RESOURCES, such as \
                 fixed:cpus:4;mem:1024"
            );
            return Ok(Estimator::Usage);
        };
        let resources =
            Resources::parse(resources, "*").context("--resource_estimator=fixed:RESOURCES")?;
        ensure!(
            !resources.is_empty(),
            "--resource_estimator=fixed:RESOURCES: expected resources, such as cpus:4;mem:1024"
        );
        for it in resources.iter() {
            if !it.is_unreserved() || it.disk.is_some() {
                bail!("--resource_estimator: {it} is reserved or a disk of its own");
            }
        }
        Ok(Estimator::Fixed(revocable(&resources)))
    }
}

fn revocable(resources: &Resources) -> Resources {
    let all = resources.iter().map(|it| Resource {
        revocable: true,
        ..it.clone()
    });
    all.collect()
}

/// Tells the machine what may be oversubscribed, for as long as the agent lives.
pub(crate) async fn run(
    estimator: Estimator,
    interval: Duration,
    inbox: Inbox,
    containerizer: Containerizer,
) {
    if let Estimator::Fixed(resources) = estimator {
        inbox.input(Input::Estimate(resources)).await;
        return;
    }
    let mut slack = Slack::default();
    let mut due = tokio::time::interval(interval);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let Some(view) = inbox.view().await else {
            return;
        };
        let cpus = slack.observe(samples(&view, &containerizer).await);
        let mut estimate = Resources::new();
        // A sum that is no amount would be a fault of the statistics: then there is nothing.
        if let Ok(amount) = Scalar::from_f64("cpus", cpus)
            && !amount.is_zero()
        {
            estimate = revocable(&Resource::scalar("cpus", amount).into());
        }
        inbox.input(Input::Estimate(estimate)).await;
    }
}

/// What one container holds and has used.
#[derive(Debug, Clone)]
struct Sample {
    container_id: String,
    /// That are its own for good.
    cpus: f64,
    /// Seconds since the epoch, and of cpu time since its start.
    at: f64,
    used: f64,
}

/// The running containers with cpus that are not revocable. One that does not answer is left out.
async fn samples(view: &AgentView, containerizer: &Containerizer) -> Vec<Sample> {
    let held = running(view).map(|it| {
        let resources = values::resources(&it.task.resources).non_revocable();
        let cpus = resources.cpus().map_or(0.0, |it| it.as_f64());
        (it.task.container_id.clone(), cpus)
    });
    let held: Vec<_> = held.filter(|(_, cpus)| *cpus > 0.0).collect();
    let asked = held.into_iter().map(|(container_id, cpus)| async move {
        let found = statistics(containerizer, &container_id).await?;
        let (at, used) = cpu_time(&found)?;
        Some(Sample {
            container_id,
            cpus,
            at,
            used,
        })
    });
    let answers = stream::iter(asked).buffered(ASKED_AT_ONCE);
    answers.filter_map(|it| async { it }).collect().await
}

fn cpu_time(of: &wire::ResourceStatistics) -> Option<(f64, f64)> {
    let used = of.cpus_user_time_secs? + of.cpus_system_time_secs?;
    Some((of.timestamp, used))
}

/// What was seen of the containers that run.
#[derive(Debug, Default)]
struct Slack {
    seen: BTreeMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    last: Sample,
    /// Cpus used in the last intervals.
    rates: VecDeque<f64>,
}

impl Slack {
    /// Takes one round of samples; the cpus that are held and were not used lately.
    fn observe(&mut self, samples: Vec<Sample>) -> f64 {
        let mut before = std::mem::take(&mut self.seen);
        for sample in samples {
            let mut rates = VecDeque::new();
            if let Some(seen) = before.remove(&sample.container_id) {
                let elapsed = sample.at - seen.last.at;
                let rate = (sample.used - seen.last.used) / elapsed;
                // Clocks that stand or go back, and counters that began anew, say nothing.
                if elapsed > 0.0 && rate >= 0.0 {
                    rates = seen.rates;
                    rates.push_back(rate);
                    if rates.len() > WINDOW {
                        rates.pop_front();
                    }
                }
            }
            let id = sample.container_id.clone();
            let last = sample;
            self.seen.insert(id, Seen { last, rates });
        }
        let slack: f64 = self.seen.values().map(Seen::slack).sum();
        (slack * STEP).floor() / STEP
    }
}

impl Seen {
    fn slack(&self) -> f64 {
        if self.rates.len() < KNOWN {
            return 0.0;
        }
        let most = self.rates.iter().copied().fold(0.0, f64::max);
        (self.last.cpus - most).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(id: &str, cpus: f64, at: f64, used: f64) -> Sample {
        Sample {
            container_id: id.to_owned(),
            cpus,
            at,
            used,
        }
    }

    #[test]
    fn the_flag_has_two_forms() {
        assert_eq!(Estimator::parse("usage").unwrap(), Estimator::Usage);
        let Estimator::Fixed(it) = Estimator::parse("fixed:cpus:4;mem:1024").unwrap() else {
            panic!("not fixed");
        };
        assert!(it.iter().all(|it| it.revocable));
        assert_eq!(it.cpus().unwrap().as_f64(), 4.0);
        assert_eq!(it.mem().unwrap().as_f64(), 1024.0);
        for wrong in [
            "",
            "fixed",
            "fixed:",
            "fixed:cpus",
            "fixed:cpus(web):1",
            "org_apache_mesos_FixedResourceEstimator",
        ] {
            let error = Estimator::parse(wrong).unwrap_err();
            let text = format!("{error:#}");
            assert!(text.contains("--resource_estimator"), "{wrong}: {text}");
        }
    }

    #[test]
    fn slack_is_what_even_the_busiest_interval_left() {
        let mut slack = Slack::default();
        // Half a cpu of two, but for one interval with one and a quarter.
        let mut used = 0.0;
        let mut found = Vec::new();
        for round in 0..16 {
            let at = f64::from(round) * 15.0;
            found.push(slack.observe(vec![sample("a", 2.0, at, used)]));
            used += 15.0 * if round == 5 { 1.25 } else { 0.5 };
        }
        assert_eq!(found[..4], [0.0; 4], "not known yet");
        assert_eq!(found[4..6], [1.5; 2]);
        assert_eq!(found[6..14], [0.7; 8], "the burst counts for the window");
        assert_eq!(found[14..], [1.5; 2]);
    }

    #[test]
    fn tasks_beyond_what_they_hold_take_nothing_from_others() {
        let mut slack = Slack::default();
        let mut found = 0.0;
        for round in 0..8 {
            let at = f64::from(round);
            let busy = sample("busy", 1.0, at, at * 3.0);
            let idle = sample("idle", 1.0, at, 0.0);
            found = slack.observe(vec![busy, idle]);
        }
        assert_eq!(found, 1.0);
        // One that ended, or does not answer any more, gives nothing; it has to be known anew.
        assert_eq!(slack.observe(Vec::new()), 0.0);
        assert_eq!(slack.observe(vec![sample("idle", 1.0, 99.0, 0.0)]), 0.0);
    }

    #[test]
    fn a_counter_that_began_anew_is_no_rate() {
        let mut slack = Slack::default();
        for round in 0..6 {
            slack.observe(vec![sample("a", 1.0, f64::from(round), 50.0)]);
        }
        assert_eq!(slack.observe(vec![sample("a", 1.0, 7.0, 50.0)]), 1.0);
        assert_eq!(slack.observe(vec![sample("a", 1.0, 8.0, 1.0)]), 0.0);
    }
}
