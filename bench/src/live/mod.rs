//! Workloads of a whole cluster, over real sockets.
//!
//! Masters are the binaries beside this one, agents are [`crate::noop_agent`]s: they run nothing,
//! so what is left is the cost of masters, links and frameworks. Frameworks speak the public v1
//! API and nothing else, so that `-p master=HOST:PORT` measures any Mesos v1 master with the
//! agents that it has.

mod client;
mod cluster;
mod flatness;
mod latency;
mod launch;
mod load;
mod offers;
mod readers;
mod scale;
mod trace;

use crate::harness::workload::Workload;

/// All of them.
pub(crate) static ALL: &[&Workload] = &[
    &offers::WORKLOAD,
    &launch::WORKLOAD,
    &latency::WORKLOAD,
    &flatness::WORKLOAD,
    &readers::WORKLOAD,
    &scale::WORKLOAD,
    &trace::WORKLOAD,
];
