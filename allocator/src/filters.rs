//! Declined offers: what a client refused of an agent, and until when.
//!
//! A filter keeps away what is contained in what was refused; one unit more of anything passes.
//! Each agent has its own list, ordered by client; one heap knows when the next filter ends.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};
use tepui_model::{Resources, time::Instant};

#[derive(Clone, Debug)]
struct Filter {
    client: u32,
    /// Holds before this time.
    until: Instant,
    refused: Arc<Resources>,
}

/// The filters on one agent.
#[derive(Debug, Default)]
pub(crate) struct AgentFilters(Vec<Filter>);

impl AgentFilters {
    fn range(&self, client: u32) -> core::ops::Range<usize> {
        let from = self.0.partition_point(|it| it.client < client);
        let behind = self.0[from..].iter().take_while(|it| it.client == client);
        from..from + behind.count()
    }

    /// Adds a filter, unless another of the client says as much already; those that say less
    /// than the new one go, so that a client has few however often it declines.
    pub(crate) fn add(&mut self, client: u32, refused: &Arc<Resources>, until: Instant) -> bool {
        let range = self.range(client);
        let covers = |more: &Arc<Resources>, less: &Arc<Resources>| {
            Arc::ptr_eq(more, less) || more.contains(less)
        };
        let mut of_client = self.0[range.clone()].iter();
        if of_client.any(|it| it.until >= until && covers(&it.refused, refused)) {
            return false;
        }
        let mut at = range.start;
        for _ in range {
            if self.0[at].until <= until && covers(refused, &self.0[at].refused) {
                self.0.remove(at);
            } else {
                at += 1;
            }
        }
        let filter = Filter {
            client,
            until,
            refused: refused.clone(),
        };
        self.0.insert(at, filter);
        true
    }

    /// Whether the client refused `resources`, or more.
    pub(crate) fn block(&self, client: u32, resources: &Arc<Resources>) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let mut of_client = self.0[self.range(client)].iter();
        of_client.any(|it| Arc::ptr_eq(&it.refused, resources) || it.refused.contains(resources))
    }

    /// Drops all filters of the client; whether there were any.
    pub(crate) fn remove(&mut self, client: u32) -> bool {
        let range = self.range(client);
        let any = !range.is_empty();
        self.0.drain(range);
        any
    }

    /// Drops what has ended of the client's filters; whether any did.
    pub(crate) fn expire(&mut self, client: u32, now: Instant) -> bool {
        let mut any = false;
        let range = self.range(client);
        let mut at = range.start;
        for _ in range {
            if self.0[at].until <= now {
                self.0.remove(at);
                any = true;
            } else {
                at += 1;
            }
        }
        any
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Clients with filters, rising; several times those with several.
    pub(crate) fn clients(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().map(|it| it.client)
    }
}

/// When filters end. Entries outlive filters that were dropped before; such an entry says
/// nothing more than that it is worth looking.
#[derive(Debug, Default)]
pub(crate) struct Expiry(BinaryHeap<Reverse<(Instant, u32, u32)>>);

impl Expiry {
    pub(crate) fn add(&mut self, until: Instant, agent: u32, client: u32) {
        self.0.push(Reverse((until, agent, client)));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((until, _, _))| *until)
    }

    /// The agent and client of an entry that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(u32, u32)> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, agent, client)) = self.0.pop()?;
        Some((agent, client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Arc<Resources> {
        Arc::new(Resources::parse(text, "*").unwrap())
    }

    #[test]
    fn what_is_contained_is_blocked_until_its_time() {
        let mut filters = AgentFilters::default();
        assert!(filters.add(1, &some("cpus:4;mem:10"), Instant(5)));
        assert!(filters.block(1, &some("cpus:4")));
        assert!(!filters.block(1, &some("cpus:4.001")));
        assert!(!filters.block(0, &some("cpus:1")) && !filters.block(2, &some("cpus:1")));
        assert!(!filters.expire(1, Instant(4)));
        assert!(filters.expire(1, Instant(5)) && !filters.block(1, &some("cpus:4")));
    }

    #[test]
    fn filters_that_say_nothing_new_are_not_kept() {
        let mut filters = AgentFilters::default();
        assert!(filters.add(1, &some("cpus:4"), Instant(5)));
        assert!(!filters.add(1, &some("cpus:3"), Instant(4)));
        assert!(filters.add(1, &some("cpus:3"), Instant(6)));
        assert!(filters.add(1, &some("mem:3"), Instant(6)));
        assert_eq!(filters.clients().count(), 3);
        assert!(filters.add(1, &some("cpus:4;mem:3"), Instant(6)));
        assert_eq!(filters.clients().count(), 1);
        assert!(filters.remove(1) && !filters.remove(1));
    }
}
