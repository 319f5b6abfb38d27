//! Variables of the state service are linearizable registers, and leases live as long as they say.
//!
//! The service numbers the writes of an account, and says with every answer where it stands. So
//! nobody has to search for an order in which the calls may have happened: the numbers are one.
//! What is checked is that this order is legal (every answer is what the writes before it make of
//! the variable), and that it agrees with real time (who begins after another one has its answer
//! comes behind it). A write without an answer may have taken effect at any later time or never;
//! its value, which no other write has, says when somebody sees it.

use std::collections::BTreeMap;

/// What a client asks for. Values are unique among the writes of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A variable.
    Get {
        /// Its name.
        name: String,
    },
    /// That it be this.
    Set {
        /// Its name.
        name: String,
        /// What.
        value: u64,
        /// Only if this version is there; 0 for none.
        expected: Option<u64>,
        /// It goes with this lease; 0 for none.
        lease: u64,
    },
    /// That it be gone.
    Expunge {
        /// Its name.
        name: String,
        /// Only if this version is there; 0 for none.
        expected: Option<u64>,
    },
    /// A new lease.
    Grant {
        /// How long it lives without renewal, in nanoseconds.
        ttl: u64,
    },
    /// That it live for its whole time again.
    Renew {
        /// Which.
        lease: u64,
    },
    /// That it end, and what hangs on it.
    Revoke {
        /// Which.
        lease: u64,
    },
}

/// What a client is told. Revisions are those of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// To a GET: version and value, when there is one.
    Found {
        /// Of the variable.
        variable: Option<(u64, u64)>,
        /// Of the account.
        revision: u64,
    },
    /// The write took effect as this revision.
    Written {
        /// Version of the variable, id of the lease.
        revision: u64,
    },
    /// Something else was there than was expected.
    Conflict {
        /// Version and value, when there is one.
        variable: Option<(u64, u64)>,
        /// Of the account.
        revision: u64,
    },
    /// The lease lives on, or there was none to end.
    Renewed {
        /// Of the account.
        revision: u64,
    },
    /// It took no effect and never will.
    Refused,
}

#[derive(Clone, Debug)]
struct Call {
    ask: Ask,
    from: u64,
    // `u64::MAX` without an answer.
    to: u64,
    said: Option<Said>,
}

/// A history of calls on one account.
#[derive(Clone, Debug, Default)]
pub struct Registers {
    calls: Vec<Call>,
    // Nanoseconds a second by which clocks of the service may be wrong, and how far they leap.
    drift: u64,
    leaps: u64,
}

// What a write made of its variable.
#[derive(Clone, Copy, Debug)]
enum Made {
    Value { lease: u64 },
    Nothing,
}

type Facts<'a> = BTreeMap<&'a str, BTreeMap<u64, Made>>;

impl Ask {
    fn name(&self) -> Option<&str> {
        match self {
            Ask::Get { name } | Ask::Set { name, .. } | Ask::Expunge { name, .. } => Some(name),
            Ask::Grant { .. } | Ask::Renew { .. } | Ask::Revoke { .. } => None,
        }
    }

    fn expected(&self) -> Option<u64> {
        match self {
            Ask::Set { expected, .. } | Ask::Expunge { expected, .. } => *expected,
            _ => None,
        }
    }
}

impl Registers {
    /// Clocks of the service run wrong by up to `drift` nanoseconds a second, and may leap by
    /// `leaps` in all.
    pub fn new(drift: u64, leaps: u64) -> Registers {
        Registers {
            calls: Vec::new(),
            drift,
            leaps,
        }
    }

    /// A client begins a call; its number.
    pub fn ask(&mut self, now: u64, ask: Ask) -> usize {
        self.calls.push(Call {
            ask,
            from: now,
            to: u64::MAX,
            said: None,
        });
        self.calls.len() - 1
    }

    /// What was asked for under a number.
    pub fn asked(&self, number: usize) -> Option<&Ask> {
        self.calls.get(number).map(|it| &it.ask)
    }

    /// ... and has its answer.
    pub fn said(&mut self, now: u64, number: usize, said: Said) {
        if let Some(call) = self.calls.get_mut(number).filter(|it| it.said.is_none()) {
            call.to = now;
            call.said = Some(said);
        }
    }

    /// Calls that were answered.
    pub fn answered(&self) -> usize {
        self.calls.iter().filter(|it| it.said.is_some()).count()
    }

    /// Whether the answers are those of registers.
    ///
    /// # Errors
    /// What is not.
    pub fn judge(&self) -> Result<(), String> {
        let revisions = self.revisions()?;
        let facts = self.facts(&revisions)?;
        for call in &self.calls {
            self.legal(call, &facts)?;
        }
        for (number, call) in self.calls.iter().enumerate() {
            self.expected(call, revisions[number], &facts)?;
        }
        self.real_time(&revisions)
    }

    /// The revision of each write that is known to have taken effect.
    fn revisions(&self) -> Result<Vec<Option<u64>>, String> {
        let mut revisions = vec![None; self.calls.len()];
        let mut writers = BTreeMap::new();
        for (number, call) in self.calls.iter().enumerate() {
            if let Ask::Set { value, .. } = call.ask {
                writers.insert(value, number);
            }
            if let Some(Said::Written { revision }) = call.said {
                revisions[number] = Some(revision);
            }
        }
        for reader in &self.calls {
            let Some(
                Said::Found {
                    variable: Some((version, value)),
                    ..
                }
                | Said::Conflict {
                    variable: Some((version, value)),
                    ..
                },
            ) = reader.said
            else {
                continue;
            };
            let Some(number) = writers.get(&value).copied() else {
                return Err(format!("{reader:?}: nobody wrote that"));
            };
            let writer = &self.calls[number];
            let taken = matches!(writer.said, None | Some(Said::Written { .. }));
            let known = revisions[number].get_or_insert(version);
            if !taken
                || *known != version
                || writer.from > reader.to
                || writer.ask.name() != reader.ask.name()
            {
                return Err(format!("{reader:?}: that was written by {writer:?}"));
            }
        }
        Ok(revisions)
    }

    fn facts(&self, revisions: &[Option<u64>]) -> Result<Facts<'_>, String> {
        let mut facts = Facts::new();
        let mut seen: BTreeMap<u64, &Call> = BTreeMap::new();
        for (call, revision) in self.calls.iter().zip(revisions) {
            let Some(revision) = *revision else { continue };
            if let Some(other) = seen.insert(revision, call) {
                return Err(format!(
                    "revision {revision} was given to {other:?} and to {call:?}"
                ));
            }
            let made = match call.ask {
                Ask::Set { lease, .. } => Made::Value { lease },
                Ask::Expunge { .. } => Made::Nothing,
                _ => continue,
            };
            if let Some(name) = call.ask.name() {
                facts.entry(name).or_default().insert(revision, made);
            }
        }
        Ok(facts)
    }

    /// What a call saw is what the writes before it had made.
    fn legal(&self, call: &Call, facts: &Facts) -> Result<(), String> {
        let (Some(name), Some(said)) = (call.ask.name(), &call.said) else {
            return Ok(());
        };
        let (variable, revision) = match said {
            Said::Found { variable, revision } | Said::Conflict { variable, revision } => {
                (variable.map(|it| it.0), *revision)
            }
            _ => return Ok(()),
        };
        self.was_there(call, name, variable, revision, facts)?;
        let conflict = matches!(said, Said::Conflict { .. });
        match conflict && call.ask.expected() == Some(variable.unwrap_or(0)) {
            true => Err(format!("{call:?}: it was as expected")),
            false => Ok(()),
        }
    }

    /// A write that took effect on a condition found it fulfilled.
    fn expected(&self, call: &Call, revision: Option<u64>, facts: &Facts) -> Result<(), String> {
        let (Some(name), Some(expected), Some(revision)) =
            (call.ask.name(), call.ask.expected(), revision)
        else {
            return Ok(());
        };
        let version = (expected != 0).then_some(expected);
        self.was_there(call, name, version, revision.saturating_sub(1), facts)
    }

    /// Whether this version of a variable (none) can be the one as of a revision.
    fn was_there(
        &self,
        call: &Call,
        name: &str,
        version: Option<u64>,
        revision: u64,
        facts: &Facts,
    ) -> Result<(), String> {
        let of_name = facts.get(name);
        let newest = of_name.and_then(|it| it.range(..=revision).next_back());
        let right = match (version, newest) {
            (None, None | Some((_, Made::Nothing))) => true,
            (None, Some((newest, Made::Value { lease }))) => {
                self.may_be_gone(call, name, *newest, *lease)
            }
            // Who expects what nobody ever saw, and is told that it was there, saw it first.
            (Some(version), Some((newest, Made::Value { .. }))) => *newest == version,
            (Some(_), None | Some((_, Made::Nothing))) => false,
        };
        match right {
            true => Ok(()),
            false => Err(format!(
                "{call:?}: {name} was version {version:?} as of revision {revision}, and the \
                 newest write before that is {newest:?}"
            )),
        }
    }

    /// A value that nobody is known to have expunged is gone with its lease, or by a write
    /// without an answer.
    fn may_be_gone(&self, call: &Call, name: &str, version: u64, lease: u64) -> bool {
        let before = |it: &&Call| it.from < call.to;
        let unanswered = self.calls.iter().filter(before).any(|it| {
            it.said.is_none()
                && match &it.ask {
                    Ask::Expunge { name: of, expected } => {
                        of == name && expected.is_none_or(|it| it == version)
                    }
                    // It may have taken the place, and gone with its lease.
                    Ask::Set {
                        name: of, lease, ..
                    } => of == name && *lease != 0,
                    _ => false,
                }
        });
        unanswered || lease != 0 && self.may_have_ended(call, lease)
    }

    fn may_have_ended(&self, call: &Call, lease: u64) -> bool {
        let mut ttl = 0;
        let mut renewed = 0;
        for it in &self.calls {
            let is_granted = it.said == Some(Said::Written { revision: lease });
            match it.ask {
                Ask::Revoke { lease: of }
                    if of == lease && it.from < call.to && it.said != Some(Said::Refused) =>
                {
                    return true;
                }
                Ask::Grant { ttl: of } if is_granted => {
                    ttl = of;
                    renewed = renewed.max(it.from);
                }
                Ask::Renew { lease: of }
                    if of == lease
                        && it.to <= call.from
                        && matches!(it.said, Some(Said::Renewed { .. })) =>
                {
                    renewed = renewed.max(it.from);
                }
                _ => {}
            }
        }
        let wrong = u128::from(ttl) * u128::from(self.drift) / 1_000_000_000;
        let least = ttl.saturating_sub(wrong as u64).saturating_sub(self.leaps);
        call.to >= renewed.saturating_add(least)
    }

    /// Who begins after another one has its answer comes behind it.
    fn real_time(&self, revisions: &[Option<u64>]) -> Result<(), String> {
        let place = |number: usize| match (&self.calls[number].said, revisions[number]) {
            (_, Some(revision)) => Some((revision, true)),
            (
                Some(
                    Said::Found { revision, .. }
                    | Said::Conflict { revision, .. }
                    | Said::Renewed { revision },
                ),
                None,
            ) => Some((*revision, false)),
            _ => None,
        };
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (number, call) in self.calls.iter().enumerate() {
            if place(number).is_some() {
                moments.push((call.from, false, number));
                if call.to != u64::MAX {
                    moments.push((call.to, true, number));
                }
            }
        }
        // What begins at the moment of an answer may still be beside it.
        moments.sort_unstable();
        let mut floor: Option<(u64, usize)> = None;
        for (_, is_answer, number) in moments {
            let Some((at, writes)) = place(number) else {
                continue;
            };
            if is_answer {
                floor = floor.max(Some((at, number)));
            } else if let Some((least, before)) = floor
                && (at < least || writes && at == least)
            {
                return Err(format!(
                    "{:?} is as of revision {at}, and began after {:?} had its answer",
                    self.calls[number], self.calls[before]
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(value: u64, expected: Option<u64>) -> Ask {
        Ask::Set {
            name: "x".to_owned(),
            value,
            expected,
            lease: 0,
        }
    }

    fn get() -> Ask {
        Ask::Get {
            name: "x".to_owned(),
        }
    }

    fn found(variable: Option<(u64, u64)>, revision: u64) -> Said {
        Said::Found { variable, revision }
    }

    /// A call with its beginning, and its end and answer if it has one.
    type Called = (u64, Ask, Option<(u64, Said)>);

    fn history(calls: Vec<Called>) -> Registers {
        let mut registers = Registers::new(0, 0);
        for (from, ask, end) in calls {
            let number = registers.ask(from, ask);
            if let Some((to, said)) = end {
                registers.said(to, number, said);
            }
        }
        registers
    }

    fn written(revision: u64) -> Said {
        Said::Written { revision }
    }

    #[test]
    fn writes_are_seen_by_who_comes_later() {
        let good = history(vec![
            (1, set(10, None), Some((2, written(1)))),
            (3, get(), Some((4, found(Some((1, 10)), 1)))),
            (3, set(11, Some(1)), Some((6, written(2)))),
            (7, get(), Some((8, found(Some((2, 11)), 2)))),
        ]);
        assert_eq!(good.judge(), Ok(()));
        let stale = history(vec![
            (1, set(10, None), Some((2, written(1)))),
            (3, set(11, None), Some((4, written(2)))),
            (5, get(), Some((6, found(Some((1, 10)), 1)))),
        ]);
        assert!(stale.judge().is_err(), "a read of the past");
        let lost = history(vec![
            (1, set(10, None), Some((2, written(1)))),
            (5, get(), Some((6, found(None, 1)))),
        ]);
        assert!(lost.judge().is_err(), "a lost write");
    }

    #[test]
    fn a_write_without_an_answer_may_take_effect_later() {
        let later = history(vec![
            (1, set(10, None), None),
            (2, get(), Some((3, found(None, 0)))),
            (4, get(), Some((5, found(Some((1, 10)), 1)))),
        ]);
        assert_eq!(later.judge(), Ok(()));
        let twice = history(vec![
            (1, set(10, None), None),
            (4, get(), Some((5, found(Some((1, 10)), 1)))),
            (6, get(), Some((7, found(Some((2, 10)), 2)))),
        ]);
        assert!(twice.judge().is_err(), "it took effect twice");
        let back = history(vec![
            (1, set(10, None), None),
            (4, get(), Some((5, found(Some((1, 10)), 1)))),
            (6, get(), Some((7, found(None, 1)))),
        ]);
        assert!(back.judge().is_err(), "it was seen and is gone");
    }

    #[test]
    fn conditions_hold_when_a_write_takes_effect() {
        let both = history(vec![
            (1, set(10, None), Some((2, written(1)))),
            (3, set(11, Some(1)), Some((9, written(2)))),
            (3, set(12, Some(1)), Some((9, written(3)))),
        ]);
        assert!(both.judge().is_err(), "two took the place of version 1");
        let refused = history(vec![
            (1, set(10, None), Some((2, written(1)))),
            (
                3,
                set(11, Some(1)),
                Some((
                    9,
                    Said::Conflict {
                        variable: Some((1, 10)),
                        revision: 1,
                    },
                )),
            ),
        ]);
        assert!(refused.judge().is_err(), "it was as expected");
        let same = history(vec![
            (1, set(10, None), Some((9, written(1)))),
            (1, set(11, None), Some((9, written(1)))),
        ]);
        assert!(same.judge().is_err(), "one revision twice");
    }

    #[test]
    fn leases_live_as_long_as_they_say() {
        let leased = |at: u64| {
            let held = Ask::Set {
                name: "x".to_owned(),
                value: 10,
                expected: None,
                lease: 1,
            };
            history(vec![
                (1, Ask::Grant { ttl: 100 }, Some((2, written(1)))),
                (3, held, Some((4, written(2)))),
                (
                    50,
                    Ask::Renew { lease: 1 },
                    Some((60, Said::Renewed { revision: 2 })),
                ),
                (at, get(), Some((at + 1, found(None, 3)))),
            ])
        };
        assert!(leased(120).judge().is_err(), "it had been renewed");
        assert_eq!(leased(150).judge(), Ok(()));
    }
}
