//! Declined offers: what a client refused of an agent, and until when.
//!
//! A filter keeps away what is contained in what was refused; one unit more of anything passes.
//! Each agent has its own list of 16 bytes a filter; what was refused stands once for all who
//! refused the same. One heap knows which agent's next filter ends when.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};
use tepui_model::{Resources, time::Instant};

/// A filter.
#[derive(Clone, Copy, Debug)]
struct Filter {
    client: u32,
    /// Place in [`AgentFilters::refused`].
    refused: u32,
    /// Holds before this time.
    until: Instant,
}

/// New filters stand behind the ordered ones until there are so many of them: an insertion costs
/// a part of a merge then, and a search looks through few.
const LATELY: usize = 32;

/// How many of those who refused something last are looked at for the same.
const ALIKE: usize = 4;

/// The filters on one agent.
#[derive(Clone, Debug)]
pub(crate) struct AgentFilters {
    /// Ordered by client up to `ordered`.
    filters: Vec<Filter>,
    ordered: u32,
    /// What was refused, and by how many filters; nobody's when that is 0.
    refused: Vec<(Arc<Resources>, u32)>,
    /// Places in `refused` that are nobody's.
    unused: Vec<u32>,
    /// When the next one ends, or earlier.
    first: Instant,
}

impl Default for AgentFilters {
    fn default() -> AgentFilters {
        AgentFilters {
            filters: Vec::new(),
            ordered: 0,
            refused: Vec::new(),
            unused: Vec::new(),
            first: NEVER,
        }
    }
}

const NEVER: Instant = Instant(u64::MAX);

/// The place of the first filter of this client or a later one. When many clients refuse, theirs
/// are nearly all numbers there are, so that the place can be guessed: a search by halves would
/// wait for memory at each step.
fn first_of(ordered: &[Filter], client: u32) -> usize {
    let (Some(first), Some(last)) = (ordered.first(), ordered.last()) else {
        return 0;
    };
    if client <= first.client {
        return 0;
    }
    if client > last.client {
        return ordered.len();
    }
    let (all, part) = (last.client - first.client, client - first.client);
    let guess = u64::from(part) * (ordered.len() as u64 - 1) / u64::from(all);
    let (mut low, mut high) = (guess as usize, guess as usize + 1);
    let mut step = 1;
    while low > 0 && ordered[low].client >= client {
        low = low.saturating_sub(step);
        step *= 2;
    }
    step = 1;
    while high < ordered.len() && ordered[high - 1].client < client {
        high = (high + step).min(ordered.len());
        step *= 2;
    }
    low + ordered[low..high].partition_point(|it| it.client < client)
}

fn covers(more: &Arc<Resources>, less: &Arc<Resources>) -> bool {
    Arc::ptr_eq(more, less) || more.contains(less)
}

impl AgentFilters {
    fn of(&self, client: u32) -> impl Iterator<Item = &Filter> {
        let (ordered, lately) = self.filters.split_at(self.ordered as usize);
        let from = first_of(ordered, client);
        let ordered = ordered[from..]
            .iter()
            .take_while(move |it| it.client == client);
        ordered.chain(lately.iter().filter(move |it| it.client == client))
    }

    /// Adds a filter, unless another of the client says as much already; those that say less
    /// than the new one go, so that a client has few however often it declines. When the agent
    /// must be looked at earlier than before, says when; whether it was added.
    pub(crate) fn add(
        &mut self,
        client: u32,
        refused: &Arc<Resources>,
        until: Instant,
    ) -> (bool, Option<Instant>) {
        let (mut any, mut less) = (false, false);
        for it in self.of(client) {
            any = true;
            let before = &self.refused[it.refused as usize].0;
            if it.until >= until && covers(before, refused) {
                return (false, None);
            }
            less |= it.until <= until && covers(refused, before);
        }
        if any && less {
            let goes: Vec<bool> = self
                .refused
                .iter()
                .map(|(before, count)| *count > 0 && covers(refused, before))
                .collect();
            self.retain(|it| it.client != client || it.until > until || !goes[it.refused as usize]);
        }
        let refused = self.intern(refused);
        if self.filters.len() == self.filters.capacity() {
            // Doubling would leave half of a long list empty.
            self.filters.reserve_exact(self.filters.len() / 8 + 4);
        }
        self.filters.push(Filter {
            client,
            refused,
            until,
        });
        if self.filters.len() - self.ordered as usize > LATELY {
            self.filters.sort_by_key(|it| it.client);
            self.ordered = self.filters.len() as u32;
        }
        if until >= self.first {
            return (true, None);
        }
        self.first = until;
        (true, Some(until))
    }

    /// The place of what was refused; one for all who refused the same, as far as is found soon.
    fn intern(&mut self, refused: &Arc<Resources>) -> u32 {
        let lately = self.refused.len().saturating_sub(ALIKE);
        let same = |it: &(Arc<Resources>, u32), deep: bool| {
            it.1 > 0 && (Arc::ptr_eq(&it.0, refused) || deep && it.0 == *refused)
        };
        let found = self.refused[lately..].iter().position(|it| same(it, true));
        if let Some(at) = found {
            self.refused[lately + at].1 += 1;
            return (lately + at) as u32;
        }
        match self.unused.pop() {
            Some(at) => {
                self.refused[at as usize] = (refused.clone(), 1);
                at
            }
            None => {
                self.refused.push((refused.clone(), 1));
                self.refused.len() as u32 - 1
            }
        }
    }

    fn retain(&mut self, keep: impl Fn(&Filter) -> bool) {
        let (mut at, mut ordered) = (0, 0);
        let (refused, unused, before) = (&mut self.refused, &mut self.unused, self.ordered);
        self.filters.retain(|it| {
            let kept = keep(it);
            if kept {
                ordered += u32::from(at < before);
            } else {
                let slot = &mut refused[it.refused as usize];
                slot.1 -= 1;
                if slot.1 == 0 {
                    slot.0 = Arc::default();
                    unused.push(it.refused);
                }
            }
            at += 1;
            kept
        });
        self.ordered = ordered;
        if self.filters.is_empty() {
            // Keep no memory of busier times.
            let first = self.first;
            *self = AgentFilters {
                first,
                ..AgentFilters::default()
            };
        }
    }

    /// Whether the client refused `resources`, or more: until when.
    pub(crate) fn block(&self, client: u32, resources: &Arc<Resources>) -> Option<Instant> {
        if self.filters.is_empty() {
            return None;
        }
        let blocks = self
            .of(client)
            .filter(|it| covers(&self.refused[it.refused as usize].0, resources));
        blocks.map(|it| it.until).max()
    }

    /// Drops all filters of the client.
    pub(crate) fn remove(&mut self, client: u32) {
        if self.of(client).next().is_some() {
            self.retain(|it| it.client != client);
        }
    }

    /// Drops what has ended: whose filters did, and when the next one ends.
    pub(crate) fn expire(&mut self, now: Instant) -> (Vec<u32>, Option<Instant>) {
        let ended = self.filters.iter().filter(|it| it.until <= now);
        let ended: Vec<u32> = ended.map(|it| it.client).collect();
        self.retain(|it| it.until > now);
        let next = self.filters.iter().map(|it| it.until).min();
        self.first = next.unwrap_or(NEVER);
        (ended, next)
    }

    /// When the next one ends, or earlier.
    pub(crate) fn first(&self) -> Instant {
        self.first
    }

    pub(crate) fn clear(&mut self) {
        *self = AgentFilters::default();
    }

    /// Clients with filters; several times those with several.
    pub(crate) fn clients(&self) -> impl Iterator<Item = u32> + '_ {
        self.filters.iter().map(|it| it.client)
    }
}

/// When agents must be looked at because a filter or a claim ends there. Entries outlive what was
/// dropped before; such an entry says nothing more than that it is worth looking.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expiry(BinaryHeap<Reverse<(Instant, u32)>>);

impl Expiry {
    pub(crate) fn add(&mut self, until: Instant, agent: u32) {
        self.0.push(Reverse((until, agent)));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((until, _))| *until)
    }

    /// The agent of an entry that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<u32> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, agent))| agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Arc<Resources> {
        Arc::new(Resources::parse(text, "*").unwrap())
    }

    #[test]
    fn a_filter_is_sixteen_bytes() {
        assert_eq!(size_of::<Filter>(), 16);
        let mut filters = AgentFilters::default();
        for client in 0..1000 {
            filters.add(client, &some("cpus:4;mem:10"), Instant(5));
        }
        // What all refused stands once, and the list has little to spare.
        assert_eq!(filters.refused.len(), 1);
        assert!(filters.filters.capacity() * 16 <= 1000 * 18 + 64);
    }

    #[test]
    fn what_is_contained_is_blocked_until_its_time() {
        let mut filters = AgentFilters::default();
        let (added, earlier) = filters.add(1, &some("cpus:4;mem:10"), Instant(5));
        assert!(added && earlier == Some(Instant(5)));
        assert_eq!(filters.block(1, &some("cpus:4")), Some(Instant(5)));
        assert_eq!(filters.block(1, &some("cpus:4.001")), None);
        assert_eq!(filters.block(0, &some("cpus:1")), None);
        assert_eq!(filters.block(2, &some("cpus:1")), None);
        assert_eq!(filters.expire(Instant(4)), (vec![], Some(Instant(5))));
        assert_eq!(filters.expire(Instant(5)), (vec![1], None));
        assert_eq!(filters.block(1, &some("cpus:4")), None);
    }

    #[test]
    fn filters_that_say_nothing_new_are_not_kept() {
        let mut filters = AgentFilters::default();
        assert!(filters.add(1, &some("cpus:4"), Instant(5)).0);
        assert!(!filters.add(1, &some("cpus:3"), Instant(4)).0);
        assert!(filters.add(1, &some("cpus:3"), Instant(6)).0);
        assert!(filters.add(1, &some("mem:3"), Instant(6)).0);
        assert_eq!(filters.clients().count(), 3);
        assert!(filters.add(1, &some("cpus:4;mem:3"), Instant(6)).0);
        assert_eq!(filters.clients().count(), 1);
        filters.remove(1);
        assert_eq!(filters.clients().count(), 0);
    }

    #[test]
    fn a_guessed_place_is_the_searched_one() {
        let filter = |client| Filter {
            client,
            refused: 0,
            until: Instant(0),
        };
        let dense = |it: u32| it + 3;
        let sparse = |it: u32| it * it * 7;
        let doubled = |it: u32| it / 3 + 1;
        let odd = |it: u32| if it < 20 { it } else { 100_000 + it };
        for client_of in [dense, sparse, doubled, odd] {
            for count in [0, 1, 2, 3, 10, 100] {
                let filters: Vec<_> = (0..count).map(client_of).map(filter).collect();
                let asked = (0..110)
                    .chain(0..110)
                    .map(client_of)
                    .flat_map(|it| [it, it + 1]);
                for client in asked.chain([0, u32::MAX]) {
                    let expected = filters.partition_point(|it| it.client < client);
                    assert_eq!(first_of(&filters, client), expected, "{client} of {count}");
                }
            }
        }
    }

    #[test]
    fn many_are_found_whether_ordered_or_not() {
        let mut filters = AgentFilters::default();
        for client in (0..500).rev() {
            let cpus = some(&format!("cpus:{}", client + 1));
            assert!(
                filters
                    .add(client, &cpus, Instant(u64::from(client) + 10))
                    .0
            );
        }
        for client in 0..500 {
            let (as_much, more) = (client + 1, client + 2);
            assert!(
                filters
                    .block(client, &some(&format!("cpus:{as_much}")))
                    .is_some()
            );
            assert!(
                filters
                    .block(client, &some(&format!("cpus:{more}")))
                    .is_none()
            );
        }
        let (ended, next) = filters.expire(Instant(259));
        assert_eq!((ended.len(), next), (250, Some(Instant(260))));
        assert!(filters.block(249, &some("cpus:1")).is_none());
        assert!(filters.block(250, &some("cpus:1")).is_some());
        filters.remove(300);
        assert!(filters.block(300, &some("cpus:1")).is_none());
        assert_eq!(filters.clients().count(), 249);
    }
}
