//! Workloads of the allocator alone: calls and cycles in this process, no sockets, no disk.
//!
//! Each measures [`bare`] in the same run: the loop that every allocator of this kind contains,
//! and nothing else.

mod bare;
mod cell;
mod churn;
mod decline;
mod hoarders;
mod incremental;
mod multi_framework;
mod picky;
mod quota;
mod reservations;
mod suppress_revive;
mod trace_allocator;
mod world;

use crate::harness::workload::Workload;

/// All of them.
pub(crate) static ALL: &[&Workload] = &[
    &decline::WORKLOAD,
    &incremental::WORKLOAD,
    &suppress_revive::WORKLOAD,
    &churn::WORKLOAD,
    &reservations::WORKLOAD,
    &quota::WORKLOAD,
    &multi_framework::WORKLOAD,
    &picky::WORKLOAD,
    &hoarders::WORKLOAD,
    &cell::WORKLOAD,
    &trace_allocator::WORKLOAD,
];
