//! Offers that lie while somebody else could use them.
//!
//! A framework may hold an offer for as long as it likes as long as nobody else has a use for it.
//! When a framework that wants offers has none, offers that lie are looked through, the oldest
//! first: one that somebody who waits would take is rescinded, and who held it is **dormant** from
//! then on - served after all others - until it answers an offer, or a while has passed. So
//! frameworks that neither accept nor decline hold what nobody else wants, and no more.
//! (`docs/decisions/0007-offers-that-lie.md`; `--offer_timeout` rescinds by age alone, as in
//! Mesos.)

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use tepui_allocator::LOOKS_PER_INTERVAL;
use tepui_model::id::FrameworkId;
use tepui_model::time::Instant;

use crate::counters::Counter;
use crate::machine::Machine;

/// Offers looked at in one look; the next one goes on behind them.
const OFFERS_PER_LOOK: usize = 1024;

/// Frameworks asked in one look whether they would take something: about a millisecond.
const ASKED_PER_LOOK: usize = 2048;

/// How long a framework is dormant that does not answer; twice as long each further time.
const DORMANT: Duration = Duration::from_secs(60);

/// Doublings of that.
const MAX_DOUBLINGS: u32 = 6;

/// Who lets offers lie.
#[derive(Debug)]
pub(crate) struct Hoarding {
    /// Not before.
    look_at: Instant,
    /// Somebody waited at the last look, or something happened since: another one is due then.
    is_watching: bool,
    /// The last offer that was looked at, when there were too many for one look.
    cursor: u64,
    /// Until when, and how often in a row.
    dormant: BTreeMap<FrameworkId, (Instant, u32)>,
    /// Frameworks that answered an offer since they were last dormant.
    answered: BTreeSet<FrameworkId>,
}

impl Hoarding {
    pub(crate) fn new(now: Instant) -> Hoarding {
        Hoarding {
            look_at: now,
            is_watching: false,
            cursor: 0,
            dormant: BTreeMap::new(),
            answered: BTreeSet::new(),
        }
    }

    /// When to look again; none while nobody waits.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.is_watching.then_some(self.look_at)
    }
}

impl Machine {
    /// The framework answered an offer, in time or not.
    pub(crate) fn offer_answered(&mut self, framework_id: &FrameworkId) {
        if self.hoarding.dormant.remove(framework_id).is_some() {
            self.allocator.set_dormant(framework_id, false);
            self.allocation.trigger(self.now);
        }
        if !self.hoarding.answered.contains(framework_id) {
            self.hoarding.answered.insert(framework_id.clone());
        }
    }

    /// After a cycle: rescinds what lies and somebody who waits would take.
    pub(crate) fn rescind_hoarded(&mut self) {
        if self.now < self.hoarding.look_at {
            self.hoarding.is_watching = !self.offers.is_empty();
            return;
        }
        self.forgive();
        self.hoarding.is_watching = false;
        if self.offers.is_empty() || !self.allocator.is_anybody_awake() {
            return;
        }
        let interval = self.config.allocator.allocation_interval;
        self.hoarding.look_at = self.now + interval / LOOKS_PER_INTERVAL;
        let offers = &self.offers;
        let mut waiting = self.allocator.waiting(|id| !offers.has_any(id));
        if waiting.is_empty() {
            return;
        }
        self.hoarding.is_watching = true;
        // Who is known to answer has a whole interval.
        let turn = waiting.patience(interval, self.offers.len());
        let numbers = self.offers.after(self.hoarding.cursor, OFFERS_PER_LOOK);
        self.hoarding.cursor = match numbers.len() {
            OFFERS_PER_LOOK => numbers.last().copied().unwrap_or(0),
            _ => 0,
        };
        let mut budget = ASKED_PER_LOOK;
        for number in numbers {
            if waiting.is_empty() || budget == 0 {
                break;
            }
            let Some(offer) = self.offers.get(number) else {
                continue;
            };
            let patience = match self.hoarding.answered.contains(&offer.framework_id) {
                true => interval,
                false => turn,
            };
            if self.now < offer.made_at + patience {
                continue;
            }
            let taker = self.allocator.find_taker(
                self.now,
                &offer.agent_id,
                (&offer.framework_id, &offer.role),
                &offer.resources,
                &mut waiting,
                &mut budget,
            );
            if taker.is_some() {
                let holder = offer.framework_id.clone();
                self.counters.add(Counter::OffersRescindedHoarded);
                self.rescind(number);
                self.make_dormant(&holder);
            }
        }
    }

    fn make_dormant(&mut self, framework_id: &FrameworkId) {
        self.hoarding.answered.remove(framework_id);
        let before = self.hoarding.dormant.get(framework_id);
        if before.is_some_and(|(until, _)| *until > self.now) {
            return;
        }
        let times = before.map_or(0, |(_, times)| (times + 1).min(MAX_DOUBLINGS));
        let until = self.now + DORMANT * (1 << times);
        self.hoarding
            .dormant
            .insert(framework_id.clone(), (until, times));
        self.allocator.set_dormant(framework_id, true);
    }

    /// Those whose time is over have another chance, but are remembered for as long again.
    fn forgive(&mut self) {
        let (now, state) = (self.now, &self.state);
        let mut awake = Vec::new();
        self.hoarding
            .dormant
            .retain(|framework_id, (until, times)| {
                let lives = state
                    .framework(framework_id)
                    .is_some_and(|row| !row.completed);
                if lives && *until <= now {
                    awake.push(framework_id.clone());
                }
                lives && *until + DORMANT * (1 << *times) > now
            });
        self.hoarding
            .answered
            .retain(|it| state.framework(it).is_some_and(|row| !row.completed));
        for framework_id in awake {
            self.allocator.set_dormant(&framework_id, false);
        }
    }
}
