//! When leases of the state service run out, by this leader's clock.

use core::time::Duration;

use tepui_model::{log, time::Instant};
use tepui_state::Owner;

use crate::timers::Timers;

/// Deadlines of all leases. They are not replicated: the next leader begins them anew.
#[derive(Debug)]
pub(crate) struct Leases(Timers<(Owner, u64)>);

impl Leases {
    pub(crate) fn new() -> Leases {
        Leases(Timers::new())
    }

    /// The lease lives for its whole time from now on.
    pub(crate) fn renew(&mut self, lease: &log::Lease, now: Instant) {
        let key = (lease.principal.as_str().into(), lease.lease_id);
        self.0.set(key, now + Duration::from_nanos(lease.ttl_ns));
    }

    pub(crate) fn forget(&mut self, owner: &Owner, lease_id: u64) {
        self.0.clear(&(owner.clone(), lease_id));
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.0.next()
    }

    /// Takes one that has run out.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(Owner, u64)> {
        self.0.pop_due(now)
    }

    pub(crate) fn check_invariants(&self, known: impl Iterator<Item = (Owner, u64)>) {
        self.0.check_invariants();
        let mut count = 0;
        for lease in known {
            assert!(
                self.0.get(&lease).is_some(),
                "{lease:?} would live for ever"
            );
            count += 1;
        }
        assert_eq!(self.0.len(), count, "a deadline of no lease");
    }
}
