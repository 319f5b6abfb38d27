//! Clients of the state service that meet at a few variables, and whether what they were told is
//! what registers tell.

use super::workload::Random;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tepui_scheduler_api::{
    Error, Result,
    state::{Expect, Options, State, Variable, Written},
};
use tepui_sim::checkers::registers::{Ask, Registers, Said};
use tokio::sync::watch;

/// Variables.
const NAMES: u64 = 4;
/// How long a call is tried until it counts as one without an answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// What all clients asked for and were told, a history for each variable: linearizability is a
/// property of each. The library does not say as of which revision it answers; a version says
/// as much of one variable that is never expunged.
#[derive(Debug)]
pub struct Calls {
    began: Instant,
    histories: Mutex<BTreeMap<String, Registers>>,
}

impl Default for Calls {
    fn default() -> Self {
        Calls {
            began: Instant::now(),
            histories: Mutex::default(),
        }
    }
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Registers>> {
        self.histories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    fn ask(&self, name: &str, ask: Ask) -> usize {
        let mut histories = self.lock();
        let history = histories.entry(name.to_owned());
        // Under the lock: the time is before the call is sent, and after those that it follows.
        history.or_default().ask(self.now(), ask)
    }

    fn said(&self, name: &str, number: usize, said: Said) {
        let now = self.now();
        if let Some(history) = self.lock().get_mut(name) {
            history.said(now, number, said);
        }
    }

    /// Calls that were answered.
    pub fn answered(&self) -> usize {
        self.lock().values().map(Registers::answered).sum()
    }

    /// What is wrong with them.
    pub fn check(&self) -> Vec<String> {
        let histories = self.lock();
        let judged = histories.iter().filter_map(|(name, history)| {
            let wrong = history.judge().err()?;
            Some(format!("variable {name} is no register: {wrong}"))
        });
        judged.collect()
    }
}

/// One client: call after call, until it is told to stop.
///
/// # Errors
/// The list of masters is no good.
pub async fn run(
    client: u64,
    masters: Vec<String>,
    seed: u64,
    calls: Arc<Calls>,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let state = State::with(Options::new(masters).patience(PATIENCE))?;
    let mut random = Random::new(seed ^ client << 40);
    let mut known: BTreeMap<String, Option<u64>> = BTreeMap::new();
    let mut made = 0;
    while !*stopped.borrow() {
        let name = format!("torture/x{}", random.below(NAMES));
        let version = known.get(&name).copied().flatten();
        let outcome = match random.below(5) {
            0 | 1 => {
                let number = calls.ask(&name, Ask::Get { name: name.clone() });
                (number, said(state.get(name.as_str()).await, found))
            }
            kind => {
                made += 1;
                let value = (client + 1) << 32 | made;
                let expected = (kind != 2).then(|| version.unwrap_or(0));
                let expect = match expected {
                    None => Expect::Any,
                    Some(0) => Expect::Absent,
                    Some(version) => Expect::Version(version),
                };
                let ask = Ask::Set {
                    name: name.clone(),
                    value,
                    expected,
                    lease: 0,
                };
                let number = calls.ask(&name, ask);
                let bytes = value.to_be_bytes().to_vec();
                let answer = state.set(name.as_str(), bytes, expect).await;
                (number, said(answer, written))
            }
        };
        let (number, answer) = outcome;
        if let Some(answer) = answer {
            let version = match &answer {
                Said::Found { variable, .. } | Said::Conflict { variable, .. } => {
                    variable.map(|it| it.0)
                }
                Said::Written { revision } => Some(*revision),
                _ => None,
            };
            known.insert(name.clone(), version);
            calls.said(&name, number, answer);
        }
        let pause = Duration::from_millis(5 + random.below(40));
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

/// What an answer is to the checker; `None` when it may have taken effect or not.
fn said<T>(answer: Result<T>, of: impl FnOnce(T) -> Said) -> Option<Said> {
    match answer {
        Ok(it) => Some(of(it)),
        Err(Error::Rejected { .. }) => Some(Said::Refused),
        Err(_) => None,
    }
}

fn pair(variable: Option<Variable>) -> Option<(u64, u64)> {
    let variable = variable?;
    let value = <[u8; 8]>::try_from(variable.value.as_ref());
    Some((variable.version, value.map_or(0, u64::from_be_bytes)))
}

fn found(variable: Option<Variable>) -> Said {
    let variable = pair(variable);
    let revision = variable.map_or(0, |it| it.0);
    Said::Found { variable, revision }
}

fn written(written: Written) -> Said {
    match written {
        Written::Done(revision) => Said::Written { revision },
        Written::Conflict(current) => {
            let variable = pair(current);
            let revision = variable.map_or(0, |it| it.0);
            Said::Conflict { variable, revision }
        }
    }
}
