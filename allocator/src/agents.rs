//! Agents as the allocator sees them.

use std::{collections::BTreeMap, sync::Arc};
use tepui_model::{
    FrameworkId, Resources,
    agent::{AgentCapabilities, FaultDomain},
    attribute::Attributes,
    wire,
};

/// What an agent is and has.
#[derive(Clone, Debug)]
pub struct AgentSpec {
    /// For `--whitelist` and the HOSTNAME constraint.
    pub hostname: Arc<str>,
    /// For offer constraints.
    pub attributes: Attributes,
    /// For region awareness and the REGION and ZONE constraints.
    pub domain: Option<FaultDomain>,
    /// Which frameworks and roles it can serve.
    pub capabilities: AgentCapabilities,
    /// Everything that it has, reservations and volumes included, allocated to nobody.
    pub total: Resources,
}

/// One agent with what is given away of it.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) spec: AgentSpec,
    pub(crate) active: bool,
    /// By framework; each resource is allocated to a role.
    pub(crate) allocated: BTreeMap<FrameworkId, Resources>,
    /// Total without what is allocated; shared resources stay.
    pub(crate) available: Resources,
    pub(crate) unavailability: Option<wire::Unavailability>,
}

impl Agent {
    pub(crate) fn new(spec: AgentSpec, active: bool) -> Agent {
        let available = spec.total.clone();
        Agent {
            spec,
            active,
            allocated: BTreeMap::new(),
            available,
            unavailability: None,
        }
    }

    /// Computes what is available anew, from the total and everything allocated. More
    /// may be allocated than there is when a total shrank: then there is nothing.
    pub(crate) fn refresh(&mut self) {
        let mut available = self.spec.total.clone();
        for resources in self.allocated.values() {
            available.saturating_sub(&resources.unallocate().non_shared());
        }
        self.available = available;
    }
}
