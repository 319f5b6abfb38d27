//! Frameworks: what they want, and what they can use.

use crate::{
    amounts::{Amounts, Dimensions},
    constraints::Constraints,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tepui_model::{
    FrameworkId, Quantities, Resource, Role,
    framework::{Capability, FrameworkCapabilities},
    wire,
};

/// What a framework is and wants.
#[derive(Clone, Debug, Default)]
pub struct FrameworkSpec {
    /// Roles that it subscribes to.
    pub roles: BTreeSet<Role>,
    /// Roles for which it wants no offers.
    pub suppressed: BTreeSet<Role>,
    /// What it understands.
    pub capabilities: FrameworkCapabilities,
    /// Smallest useful offers by role, alternatives; an empty list means that every offer is.
    /// Roles that are absent have [`crate::Options::min_allocatable`].
    pub offer_filters: BTreeMap<Role, Vec<Quantities>>,
    /// Which agents are of use, by role.
    pub constraints: wire::scheduler::OfferConstraints,
    /// Whether it gets offers at all.
    pub active: bool,
}

impl FrameworkSpec {
    /// Whether it wants offers for the role.
    pub(crate) fn wants(&self, role: &Role) -> bool {
        self.active && self.roles.contains(role) && !self.suppressed.contains(role)
    }
}

/// One framework.
#[derive(Clone, Debug)]
pub(crate) struct Framework {
    pub(crate) id: FrameworkId,
    /// None for one that is known only by what it holds.
    pub(crate) spec: Option<FrameworkSpec>,
    /// It is behind with reading: no offers until it has caught up.
    pub(crate) paused: bool,
    /// It lets offers lie: it is served after all others.
    pub(crate) dormant: bool,
    /// Its clients: roles that it subscribes to, and others in which it still holds something.
    pub(crate) clients: BTreeMap<Role, u32>,
}

/// Alternatives of which an allotment has at least one; empty for no minimum.
pub(crate) type Minimum = Arc<[Amounts]>;

pub(crate) fn minimum(dimensions: &mut Dimensions, all: &[Quantities]) -> Minimum {
    let amounts = all.iter().map(|it| dimensions.of_quantities(it));
    amounts.collect()
}

/// What one client can use.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) minimum: Minimum,
    pub(crate) needs_multi_role: bool,
    pub(crate) needs_hierarchical_role: bool,
    pub(crate) takes_gpus: bool,
    pub(crate) takes_remote: bool,
    pub(crate) sees: Sees,
    pub(crate) constraints: Option<Constraints>,
}

/// Resources that only frameworks with a capability understand; others do not see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sees {
    pub(crate) shared: bool,
    pub(crate) revocable: bool,
    pub(crate) refined: bool,
}

impl Sees {
    pub(crate) const EVERYTHING: Sees = Sees {
        shared: true,
        revocable: true,
        refined: true,
    };

    /// Whether a client of the role sees the resource.
    pub(crate) fn sees(self, it: &Resource, role: &Role) -> bool {
        (self.shared || !it.shared)
            && (self.revocable || !it.revocable)
            && (self.refined || !it.is_refined())
            && it.is_allocatable_to(role)
    }
}

impl Rules {
    pub(crate) fn new(
        dimensions: &mut Dimensions,
        spec: &FrameworkSpec,
        role: &Role,
        default: &Minimum,
    ) -> Rules {
        let can = |it| spec.capabilities.is(it);
        let own = spec.offer_filters.get(role);
        Rules {
            minimum: own.map_or_else(|| default.clone(), |it| minimum(dimensions, it)),
            needs_multi_role: can(Capability::MultiRole),
            needs_hierarchical_role: role.is_hierarchical(),
            takes_gpus: can(Capability::GpuResources),
            takes_remote: can(Capability::RegionAware),
            sees: Sees {
                shared: can(Capability::SharedResources),
                revocable: can(Capability::RevocableResources),
                refined: can(Capability::ReservationRefinement),
            },
            constraints: Constraints::of(&spec.constraints, role),
        }
    }

    pub(crate) fn is_enough(&self, amounts: &Amounts) -> bool {
        self.minimum.is_empty() || self.minimum.iter().any(|it| amounts.contains(it))
    }
}
