//! The master's machine: pure, synchronous, deterministic.
//!
//! [`Machine::step`] takes one [`Input`](input::Input) and answers with facts for
//! the log, messages that wait for them in the [`Outbox`](outbox::Outbox), and
//! changes for readers. The shell (`tepui-master`) owns every socket, clock and disk.
//!
//! Tables, one file each, hold what dies with the term: `agents` (links, pings),
//! `frameworks` (subscriptions, failover clocks), `offers`, `inverse_offers`, `leases`,
//! `watches`.
//! Coordinators are `impl Machine` blocks, one concern a file: `calls` is the door of
//! scheduler calls, `attach` that of agents (`reattach` of those that have not changed), `operator` that of operators; behind them
//! `subscribe`, `accept`, `launch`, `offer_operations`, `kill`, `reconcile`, `updates`,
//! `tasks`, `operations`, `unreachable`, `failover`, `drain`, `maintenance`, `settings`, `gc`,
//! `allocation`, `hoarding` (offers that lie), `preemption`, `oversubscription`,
//! `explain`, `variables` (the state service), `adopt` (after a panic), and `heartbeat` for what time
//! alone does.
//!
//! # Invariants
//! - A step is total: refusals are outputs, nothing a client sends can panic.
//! - Replicated fields change only through `ClusterState::apply`; the tables here
//!   hold what dies with the term, or a parsed copy of a row's payload.
//! - Same birth, same inputs at the same times: same outputs, byte for byte.
//! - No resource is offered or used twice.
//! - A task that was accepted ends in a launch command or in a status update.
//! - No removal is decided from a clock that another leader started.

pub use tepui_model as model;

mod accept;
pub mod adopt;
mod agents;
mod allocation;
mod attach;
mod calls;
mod clock;
pub mod config;
pub mod counters;
mod drain;
mod explain;
mod failover;
mod frameworks;
mod gc;
mod heartbeat;
mod hoarding;
mod ids;
pub mod input;
mod inverse_offers;
mod kill;
mod launch;
mod leases;
mod machine;
mod maintenance;
mod offer_operations;
mod offers;
mod operations;
mod operator;
pub mod outbox;
pub mod output;
mod oversubscription;
mod preemption;
mod reattach;
mod reconcile;
mod settings;
mod statuses;
mod subscribe;
pub mod survivors;
mod tasks;
mod timers;
mod unreachable;
mod updates;
pub mod variables;
mod watches;

pub use config::Config;
pub use machine::Machine;
