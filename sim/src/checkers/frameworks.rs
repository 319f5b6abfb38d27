//! A framework is forgotten when it was away for as long as it said, or when somebody removed it,
//! and never before.

use crate::clock::SECOND;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    heard: u64,
    offers: u64,
    offered_at: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Frameworks {
    seen: BTreeMap<usize, Seen>,
    // Seconds that each may be away.
    failover: BTreeMap<usize, u64>,
    // Ids that somebody asked to be removed.
    torn: BTreeSet<String>,
    ids: BTreeMap<String, usize>,
    drift: u64,
}

impl Frameworks {
    pub(super) fn new(shape: &crate::plan::Shape) -> Frameworks {
        let failover = shape.frameworks.iter().map(|it| it.failover).enumerate();
        Frameworks {
            failover: failover.collect(),
            drift: shape.drift.unsigned_abs(),
            ..Frameworks::default()
        }
    }

    /// A master says something to it.
    pub fn heard(&mut self, now: u64, number: usize) {
        self.seen.entry(number).or_default().heard = now;
    }

    /// It is subscribed under this id.
    pub fn subscribed(&mut self, now: u64, number: usize, id: &str) {
        self.heard(now, number);
        self.ids.insert(id.to_owned(), number);
    }

    /// Somebody asks for its removal.
    pub fn torn(&mut self, id: &str) {
        self.torn.insert(id.to_owned());
    }

    /// It is told that it was removed.
    pub fn removed(&mut self, now: u64, number: usize, id: &str) -> Result<(), String> {
        let seen = self.seen.get(&number).copied().unwrap_or_default();
        let away = now.saturating_sub(seen.heard);
        let failover = self.failover.get(&number).copied().unwrap_or(0) * SECOND;
        let least = failover - (failover as u128 * self.drift as u128 / SECOND as u128) as u64;
        if !self.torn.contains(id) && away + SECOND < least {
            return Err(format!(
                "framework {id} was away for {:.1} s and may be for {} s, and is removed",
                away as f64 / SECOND as f64,
                failover / SECOND
            ));
        }
        Ok(())
    }

    /// It gets offers.
    pub fn offered(&mut self, now: u64, number: usize, count: usize) {
        let seen = self.seen.entry(number).or_default();
        seen.offers += count as u64;
        seen.offered_at = now;
    }

    /// Offers that it got so far.
    pub fn offers(&self, number: usize) -> u64 {
        self.seen.get(&number).map_or(0, |it| it.offers)
    }
}
