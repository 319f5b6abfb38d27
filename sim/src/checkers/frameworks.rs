//! A framework is forgotten when it was away for as long as it said, or when somebody removed it,
//! and never before.

use crate::clock::SECOND;
use std::collections::{BTreeMap, BTreeSet};
use tepui_model::wire;

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
    // Nothing goes wrong in this run, so that refusals last as long as they say.
    undisturbed: bool,
    // What a framework refused of an agent, and from when that holds.
    refused: BTreeMap<(usize, String), (u64, Amounts)>,
}

/// Thousandths of cpus, memory and disk, and ports.
type Amounts = ([i64; 3], BTreeSet<u64>);

fn amounts(offer: &wire::Offer) -> Amounts {
    let scalars = ["cpus", "mem", "disk"].map(|name| {
        let named = offer.resources.iter().filter(|it| it.name == name);
        let values = named.filter_map(|it| it.scalar);
        values.map(|it| (it.value * 1000.0).round() as i64).sum()
    });
    let ranges = offer.resources.iter().flat_map(|it| &it.ranges);
    let ports = ranges.flat_map(|it| &it.range);
    (scalars, ports.flat_map(|it| it.begin..=it.end).collect())
}

/// An offer may have been on its way when the refusal was answered.
const ON_ITS_WAY: u64 = 2 * SECOND;

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

    /// Nothing goes wrong in this run.
    pub fn undisturbed(&mut self) {
        self.undisturbed = true;
    }

    /// It was told that its refusal of an offer, for an hour, was taken.
    pub fn refused(&mut self, now: u64, number: usize, offer: &wire::Offer) {
        let key = (number, offer.agent_id.value.clone());
        self.refused.insert(key, (now + ON_ITS_WAY, amounts(offer)));
    }

    /// Whether an offer is one that it refused.
    pub fn may_offer(&self, now: u64, number: usize, offer: &wire::Offer) -> Result<(), String> {
        let key = (number, offer.agent_id.value.clone());
        let Some((from, refused)) = self.refused.get(&key).filter(|_| self.undisturbed) else {
            return Ok(());
        };
        let offered = amounts(offer);
        // One unit more of anything is another offer.
        let mut pairs = offered.0.iter().zip(refused.0);
        let less = pairs.all(|(now, before)| *now <= before);
        match less && offered.1.is_subset(&refused.1) && now >= *from {
            true => Err(format!(
                "framework {number} is offered {offered:?} of agent {} and refused {refused:?} for \
                 an hour",
                key.1
            )),
            false => Ok(()),
        }
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
