//! The first workload of `tepui local --demo`: counts the primes below a bound in shards,
//! as tasks of a framework that speaks the public scheduler API.
//!
//! The sum is checked, so that a success means that every shard ran and that its output
//! could be read back from the sandbox.

use crate::{
    Context,
    api::{Api, text},
    output::{self, tell},
    sandbox::Follower,
};
use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};
use tepui_scheduler_api::{Event, Options, Session, task, v1};

/// The primes below this are counted.
const BOUND: u32 = 24_000;
/// How many there are.
const PRIMES: u32 = 2_668;
/// In so many tasks.
const SHARDS: u32 = 12;
/// Room of one task.
const CPUS: f64 = 0.5;
const MEM_MB: f64 = 64.0;
/// How long the whole may take before something is wrong.
const PATIENCE: Duration = Duration::from_secs(180);

/// One task of the workload.
#[derive(Debug, Default)]
struct Shard {
    command: String,
    agent: String,
    address: String,
    launched: Option<Instant>,
    seconds: f64,
    state: Option<v1::TaskState>,
    message: String,
    count: Option<u32>,
    in_docker: bool,
}

fn shards() -> BTreeMap<String, Shard> {
    let each = BOUND / SHARDS;
    (0..SHARDS)
        .map(|index| {
            let (low, high) = ((index * each).max(2), (index + 1) * each);
            // Portable shell arithmetic: busybox in a container, any sh in a process.
            let command = format!(
                "n={low}; c=0; while [ $n -lt {high} ]; do d=2; p=1; \
                 while [ $((d*d)) -le $n ]; do [ $((n%d)) -eq 0 ] && {{ p=0; break; }}; \
                 d=$((d+1)); done; c=$((c+p)); n=$((n+1)); done; echo $c"
            );
            let shard = Shard {
                command,
                ..Shard::default()
            };
            (format!("primes-{index:02}"), shard)
        })
        .collect()
}

/// Runs the workload and prints what ran where with what result. With `image` every other
/// task is a Docker container.
pub(crate) async fn run(context: &Context, image: Option<&str>) -> Result<ExitCode> {
    tell!(
        "==> counting the primes below {BOUND} in {SHARDS} tasks{}",
        match image {
            Some(image) => format!(", every other one in a container of {image}"),
            None => String::new(),
        }
    );
    let mut shards = shards();
    let options = Options::new(context.masters(), task::framework("", "demo"));
    let Session { driver, mut events } = Session::start(options)?;
    let progress = ProgressBar::new(SHARDS.into());
    progress.set_style(ProgressStyle::with_template(
        "    {bar:30} {pos}/{len} {msg}",
    )?);
    progress.set_draw_target(ProgressDrawTarget::stderr());
    progress.tick();

    let started = Instant::now();
    let mut framework_id = String::new();
    while shards.values().any(|shard| !shard.ended()) {
        let left = PATIENCE.saturating_sub(started.elapsed());
        let event = tokio::time::timeout(left, events.next())
            .await
            .context("the workload takes too long")?
            .context("the session ended")??;
        match event {
            Event::Subscribed {
                framework_id: id, ..
            } => framework_id = id.value,
            Event::Offers(offers) => {
                for offer in offers {
                    let tasks = fill(&offer, &mut shards, image);
                    if tasks.is_empty() {
                        driver
                            .decline(offer.id, Some(Duration::from_secs(1)))
                            .await?;
                    } else {
                        driver.launch(&offer, tasks, None).await?;
                    }
                }
            }
            Event::Update(status) => {
                let Some(shard) = shards.get_mut(&status.task_id.value) else {
                    continue;
                };
                progress.set_message(format!("{} {:?}", status.task_id.value, status.state()));
                if task::is_terminal(status.state()) {
                    let launched = shard.launched.unwrap_or(started);
                    shard.seconds = launched.elapsed().as_secs_f64();
                    shard.state = Some(status.state());
                    shard.message = status.message.clone().unwrap_or_default();
                    progress.inc(1);
                }
            }
            _ => {}
        }
    }
    progress.finish_and_clear();

    let api = Api::new(context)?;
    for (id, shard) in &mut shards {
        let mut text = Vec::new();
        let mut stdout = Follower::new(&shard.address, &framework_id, id, "stdout");
        if stdout.copy(&api, &mut text).await.is_ok() {
            shard.count = String::from_utf8_lossy(&text).trim().parse().ok();
        }
    }
    driver.teardown().await?;
    print(context, &shards);
    let sum: u32 = shards.values().filter_map(|shard| shard.count).sum();
    let seconds = started.elapsed().as_secs_f64();
    if sum != PRIMES {
        bail!("the tasks counted {sum} primes below {BOUND}, but there are {PRIMES}");
    }
    tell!("==> {sum} primes, as there should be, in {seconds:.1} s");
    Ok(ExitCode::SUCCESS)
}

impl Shard {
    fn ended(&self) -> bool {
        self.state.is_some()
    }
}

/// Tasks for the shards that still wait, as many as the offer has room for, but not more
/// than an even share: the workload should be seen on every agent.
fn fill(
    offer: &v1::Offer,
    shards: &mut BTreeMap<String, Shard>,
    image: Option<&str>,
) -> Vec<v1::TaskInfo> {
    let room = |name, each| (task::amount(&offer.resources, name) / each) as usize;
    let most = room("cpus", CPUS).min(room("mem", MEM_MB)).min(4);
    let waiting = shards
        .iter_mut()
        .enumerate()
        .filter(|(_, (_, shard))| shard.launched.is_none());
    let mut tasks = Vec::new();
    for (index, (id, shard)) in waiting.take(most) {
        let mut task = task::task(id, offer, CPUS, MEM_MB, task::shell(&shard.command));
        if let Some(image) = image.filter(|_| index % 2 == 0) {
            task.container = Some(task::docker(image));
            shard.in_docker = true;
        }
        if let Some(url) = &offer.url {
            let host = url.address.ip.clone().unwrap_or_default();
            shard.address = format!("{host}:{}", url.address.port);
        }
        shard.agent.clone_from(&offer.agent_id.value);
        shard.launched = Some(Instant::now());
        tasks.push(task);
    }
    tasks
}

fn print(context: &Context, shards: &BTreeMap<String, Shard>) {
    let rows: Vec<serde_json::Value> = shards
        .iter()
        .map(|(id, shard)| {
            let state = shard.state.map_or("", |it| it.as_str_name());
            serde_json::json!({
                "task": id,
                "agent": shard.agent,
                "runs_as": if shard.in_docker { "container" } else { "process" },
                "state": state,
                "seconds": format!("{:.2}", shard.seconds),
                "primes": shard.count,
                "message": shard.message,
            })
        })
        .collect();
    // Whoever stopped reading does not want to know.
    drop(output::print(
        context,
        &rows,
        &[
            ("TASK", |row| text(row, "task").to_owned()),
            ("AGENT", |row| text(row, "agent").to_owned()),
            ("RUNS AS", |row| text(row, "runs_as").to_owned()),
            ("STATE", output::state),
            ("SECONDS", |row| text(row, "seconds").to_owned()),
            ("PRIMES", |row| row["primes"].to_string()),
            ("MESSAGE", |row| text(row, "message").to_owned()),
        ],
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_sum_is_right() {
        let is_prime = |n: u32| {
            (2..)
                .take_while(|d| d * d <= n)
                .all(|d| !n.is_multiple_of(d))
        };
        let count = (2..BOUND).filter(|n| is_prime(*n)).count();
        assert_eq!(count, PRIMES as usize);
        assert_eq!(BOUND % SHARDS, 0);
    }
}
