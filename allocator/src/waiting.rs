//! Who waits for what others let lie.

use crate::{
    allocator::Allocator,
    bits::Bits,
    decide::{Lot, NoReport, Verdict},
    holdings::Change,
    quota,
};
use core::time::Duration;
use tepui_model::{AgentId, FrameworkId, Resources, Role, time::Instant};

/// Frameworks that want offers and have none; see [`Allocator::waiting`].
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    clients: Bits,
    frameworks: usize,
}

/// Looks for offers that lie in one allocation interval, at most.
pub const LOOKS_PER_INTERVAL: u32 = 50;

impl Waiting {
    /// How long an offer may lie that somebody would take. With more who wait than there are
    /// offers, less, so that everybody has had a turn within two intervals: the turns of a
    /// shrinking crowd add up to a part of one, and the last takes a whole one.
    pub fn patience(&self, interval: Duration, outstanding: usize) -> Duration {
        let count = |it: usize| u32::try_from(it).unwrap_or(u32::MAX);
        let (crowd, outstanding) = (count(self.frameworks), count(outstanding));
        let turn = match crowd <= outstanding {
            true => interval,
            false => interval.saturating_mul(outstanding) / crowd.saturating_mul(8),
        };
        turn.clamp(interval / LOOKS_PER_INTERVAL, interval)
    }

    /// How many frameworks wait.
    pub fn len(&self) -> usize {
        self.frameworks
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.frameworks == 0
    }
}

impl Allocator {
    /// Whether somebody who wants offers can be told to wait: whether there are frameworks, not
    /// dormant, that want any. Costs a few bits.
    pub fn is_anybody_awake(&self) -> bool {
        let mut awake = self.tree.listed.iter_besides(&self.tree.dormant);
        awake.next().is_some()
    }

    /// The frameworks that want offers, are not dormant, and have none, as `has_none` says.
    pub fn waiting(&self, has_none: impl Fn(&FrameworkId) -> bool) -> Waiting {
        let mut waiting = Waiting::default();
        for framework in self.frameworks.iter().flatten() {
            let mut clients = framework.clients.values().copied();
            let wants = |it: u32| self.tree.listed.get(it) && !self.tree.dormant.get(it);
            if clients.any(wants) && has_none(&framework.id) {
                waiting.frameworks += 1;
                for client in framework.clients.values().copied().filter(|it| wants(*it)) {
                    waiting.clients.set(client);
                }
            }
        }
        waiting
    }

    /// Whether one of those who wait would take something of the agent if `offered`, which is
    /// held now by `holder` in `role`, were free; it waits no longer then. Those who are known to
    /// refuse cost a bit; at most `budget` others are asked, each of which is taken from it.
    pub fn find_taker(
        &mut self,
        now: Instant,
        agent: &AgentId,
        (holder, role): (&FrameworkId, &Role),
        offered: &Resources,
        waiting: &mut Waiting,
        budget: &mut usize,
    ) -> Option<FrameworkId> {
        let agent = self.find_agent(agent)?;
        if !self.agent(agent).is_eligible() {
            return None;
        }
        self.refresh(agent);
        let it = self.agent(agent);
        let holder = self.find_client(holder, role);
        let then = it.available_without(holder, &offered.unallocate().non_shared());
        // What is known of those who refuse is known of what was available lately, or less.
        let mut skip = match it.refusals.top().contains(&then) {
            true => it.refusals.at_top().clone(),
            false => Bits::default(),
        };
        self.add_unsuited(agent, &mut skip);
        let claimant = self.claimant(agent, now);
        let stock = self.stock(&then);
        // As if it were free.
        let used = self.dimensions.amounts(offered, quota::is_free);
        let before = self.agent(agent).stock.clone();
        let (nearest, version) = (self.quotas.nearest(role.as_str()), self.quotas.version);
        self.quotas.consume(nearest, &used, Change::Back);
        self.quotas.free_changed(&before.free, &stock.free);
        let (mut taker, mut lot) = (None, Lot::default());
        for client in waiting.clients.iter_besides(&skip) {
            if claimant.is_some_and(|it| it != client) {
                continue;
            }
            if *budget == 0 {
                break;
            }
            *budget -= 1;
            let it = self.agent(agent);
            lot.begin_with(then.clone(), stock.is_plain, it.shared_given == self.round);
            let verdict = self.decide(it, client, false, &mut lot, &mut NoReport);
            if matches!(verdict, Verdict::Takes { .. }) {
                taker = Some(self.tree.client(client).framework);
                break;
            }
        }
        self.quotas.free_changed(&stock.free, &before.free);
        self.quotas.consume(nearest, &used, Change::Told);
        self.quotas.version = version;
        let framework = self.framework(taker?);
        waiting.frameworks -= 1;
        for client in framework.clients.values() {
            waiting.clients.unset(*client);
        }
        Some(framework.id.clone())
    }
}
