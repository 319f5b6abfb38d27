//! Who is offered what: hierarchical dominant resource fairness over roles and frameworks.
//!
//! # Rules
//!
//! The rules are Mesos' but for the deviations in `docs/allocator.md`, where ties, costs and the
//! map from Mesos' terms stand as well.
//!
//! - Roles form a tree. A node's share is the largest fraction of any cluster resource that its
//!   subtree holds, divided by its weight. Siblings go by rising share; the frameworks of a role
//!   that has roles below it compete with those as one more sibling, named `.`, of weight 1.
//!   Within a role frameworks go by rising share. Ties: who was given fewer allotments so far
//!   (since it subscribes or holds something), then the smaller name.
//! - Agents are visited in an order drawn anew for each cycle; the order of clients is taken when
//!   the visit begins. The first client that takes anything gets all that it can be given
//!   (unreserved resources, and what is reserved to its role or one above it); the others share
//!   the rest.
//! - A client is given nothing of an agent that it cannot use (capabilities, GPUs, region,
//!   constraints), that is not active or not on the whitelist, whose offer would be below the
//!   minimum, or contained in something that it refused before and whose time is not over.
//! - Shared, revocable and refined resources are left out for frameworks that do not understand
//!   them. Shared volumes are given even while in use, once per agent and cycle.
//! - Quotas, of roles at any level: in a first stage whoever may claim something of what
//!   guarantees lack gets it, where an agent has something of it. What guarantees still lack is
//!   kept free from everyone otherwise. Limits cut what is unreserved, never reservations; those
//!   of a role bind all roles below it.
//! - Frameworks that let offers lie are served after all others. An agent that is claimed for
//!   somebody is given to nobody else.
//!
//! # How it is made
//!
//! Work follows what changed. A call charges the difference to the nodes above a client, and
//! marks the agents concerned as pending; a cycle visits pending agents only. Each agent knows
//! which clients refuse what it has (one bit each), so that those are passed by without asking;
//! so are clients whose constraints do not suit its class. One function, `decide`, says what a
//! client takes of an agent: cycles, explanations and those who look for a taker ask it.
//! `tests/oracle` holds a second allocator that computes everything from scratch; the two
//! give the same to the bit.
//!
//! # Invariants
//!
//! - Per agent, what is allocated and what is available make the total.
//! - An allotment is taken from what is available when it is made; nothing is given twice.
//! - Amounts are integers; shares are compared exactly by cross-multiplication.
//! - Same calls at the same times, same seed: same allotments, however cycles are cut.
//! - A filter that has not expired keeps what was refused, or less, away from who refused it.
//! - An agent that is not pending has nothing that anybody would be given.
//! - No clock, no randomness, no I/O; no call panics, whatever a client made the caller say.

mod agents;
mod allocator;
mod amounts;
mod bits;
mod check;
mod classes;
mod constraints;
mod counts;
mod cycle;
mod decide;
mod explain;
mod filters;
mod frameworks;
mod holdings;
mod index;
mod labels;
mod options;
mod quota;
mod room;
mod share;
mod tree;
mod waiting;

pub use agents::AgentSpec;
pub use allocator::Allocator;
pub use constraints::{BadExpression, check_expressions};
pub use counts::Counts;
pub use cycle::{Allotment, Cycle, Place, Progress, place};
pub use explain::{AgentGroup, Explained, Explanation, Reason};
pub use frameworks::FrameworkSpec;
pub use holdings::{Parts, parts};
pub use options::{AgentOrder, Options, Quota};
pub use waiting::{LOOKS_PER_INTERVAL, Waiting};
