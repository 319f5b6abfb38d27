//! Settings of the allocator and quotas of roles.

use core::time::Duration;
use std::collections::BTreeSet;
use tepui_model::{Quantities, Scalar};

/// Settings, after the Mesos flags of the same names.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--allocation_interval`: the shortest time that a refusal holds.
    pub allocation_interval: Duration,
    /// `--fair_sharing_excluded_resource_names`: they count in no share.
    pub fair_sharing_excluded: BTreeSet<String>,
    /// `--min_allocatable_resources`: an allotment has at least one of these; empty for no
    /// minimum. A framework's own filters replace it, role by role.
    pub min_allocatable: Vec<Quantities>,
    /// `--filter_gpu_resources`: agents with GPUs are only for frameworks with GPU_RESOURCES.
    pub filter_gpu_resources: bool,
    /// The region of the master, when it has a domain: agents of other regions are only for
    /// frameworks with REGION_AWARE.
    pub region: Option<String>,
    /// In which order a cycle visits agents.
    pub agent_order: AgentOrder,
}

/// In which order a cycle visits agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgentOrder {
    /// Drawn anew for each cycle from the seed, the round and the agent's id, so that no agent
    /// and no framework is preferred for its name.
    #[default]
    Hashed,
    /// By rising id: for comparisons with other allocators.
    Id,
}

impl Default for Options {
    /// Mesos' defaults: 1 s, 0.01 cpus or 32 MB.
    fn default() -> Options {
        let only = |name: &str, amount| {
            let mut quantities = Quantities::new();
            quantities.insert(name, amount);
            quantities
        };
        let cpus = only("cpus", Scalar::from_millis(10));
        let mem = only("mem", Scalar::from_units(32));
        Options {
            allocation_interval: Duration::from_secs(1),
            fair_sharing_excluded: BTreeSet::new(),
            min_allocatable: vec![cpus, mem],
            filter_gpu_resources: true,
            region: None,
            agent_order: AgentOrder::Hashed,
        }
    }
}

/// Guarantees and limits of a top-level role, in amounts of unreserved resources; see
/// [`crate::Allocator::set_quota`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Kept free for the role until it has them.
    pub guarantees: Quantities,
    /// Never exceeded by an allotment to the role itself; an absent name is not limited, a zero
    /// is a limit of nothing.
    pub limits: Quantities,
}
