//! Who is offered what: hierarchical dominant resource fairness over roles and frameworks.
//!
//! The rules are Mesos' (roles form a tree, a node's share is its largest fraction of any
//! cluster resource divided by its weight, whoever has the smallest share goes first and gets
//! everything allocatable of an agent in one go), with declined offers remembered as filters,
//! reservations for a role and its descendants, quota guarantees and limits on top-level roles.
//!
//! # Invariants
//! - Per agent, what is allocated and what is available add up to the total.
//! - An allotment is taken from what is available when it is made; nothing is given twice.
//! - Amounts are integers; shares are compared exactly by cross-multiplication.
//! - Same calls at the same times, same seed: same allotments. Ties go to whoever was given
//!   fewer allotments so far, then to the smaller name.
//! - A filter that has not expired keeps what was refused, or less, away from who refused it.

mod agents;
mod allocator;
mod constraints;
mod cycle;
mod filters;
mod frameworks;
mod share;
mod tree;

pub use agents::AgentSpec;
pub use allocator::{Allocator, Options, Quota};
pub use cycle::{Allotment, Cycle};
pub use frameworks::FrameworkSpec;
