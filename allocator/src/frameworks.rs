//! Frameworks as the allocator sees them.

use std::collections::{BTreeMap, BTreeSet};
use tepui_model::{Quantities, Role, framework::FrameworkCapabilities, wire};

/// What a framework is and wants.
#[derive(Clone, Debug, Default)]
pub struct FrameworkSpec {
    /// Roles that it subscribes to.
    pub roles: BTreeSet<Role>,
    /// Roles for which it wants no offers.
    pub suppressed: BTreeSet<Role>,
    /// What it understands.
    pub capabilities: FrameworkCapabilities,
    /// Smallest useful offers by role; an empty list means that every offer is.
    pub offer_filters: BTreeMap<Role, Vec<Quantities>>,
    /// Which agents are of use, by role.
    pub constraints: wire::scheduler::OfferConstraints,
    /// Whether it gets offers at all.
    pub active: bool,
}

/// One framework with what it has been given.
#[derive(Clone, Debug)]
pub(crate) struct Framework {
    pub(crate) spec: FrameworkSpec,
    /// Amounts allocated by role, over all agents.
    pub(crate) allocated: BTreeMap<Role, Quantities>,
    /// Allotments given by role, for ties.
    pub(crate) given: BTreeMap<Role, u64>,
}

impl Framework {
    pub(crate) fn new(spec: FrameworkSpec) -> Framework {
        Framework {
            spec,
            allocated: BTreeMap::new(),
            given: BTreeMap::new(),
        }
    }

    /// Whether it wants offers for the role.
    pub(crate) fn wants(&self, role: &Role) -> bool {
        self.spec.active && self.spec.roles.contains(role) && !self.spec.suppressed.contains(role)
    }
}
