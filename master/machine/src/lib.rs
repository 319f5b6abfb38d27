//! The master's machine: pure, synchronous, deterministic.
//!
//! [`Machine::step`] takes one [`Input`](input::Input) and answers with facts for
//! the log, messages that wait for them in the [`Outbox`](outbox::Outbox), and
//! changes for readers. The shell (`tepui-master`) owns every socket, clock and disk.
//!
//! # Invariants
//! - A step is total: refusals are outputs, nothing a client sends can panic.
//! - Replicated fields change only through `ClusterState::apply`; the tables here
//!   hold what dies with the term (connections, offers, timers).
//! - Same birth, same inputs at the same times: same outputs, byte for byte.
//! - No resource is offered or used twice.

pub use tepui_model as model;

pub mod config;
pub mod input;
pub mod outbox;
pub mod output;

// The machine itself (`machine.rs`), as the shell calls it:
//
// impl Machine {
//     /// Begins a term over the committed state: logs FormCluster (once in the cluster's
//     /// life) and BeginTerm. `wall` and `seed` come from the shell; `master_id` is a
//     /// fresh UUID, the prefix of every id that this term makes.
//     pub fn birth(state: ClusterState, term: u64, now: Instant, wall: WallTime, seed: u64,
//                  master_id: &str, config: Config) -> (Machine, Output);
//     pub fn step(&mut self, now: Instant, wall: WallTime, input: Input) -> Output;
//     /// When to step with `Input::Tick` at the latest.
//     pub fn next_deadline(&self) -> Option<Instant>;
//     /// The stamp for the entry that holds what was just stepped.
//     pub fn cluster_time(&self, now: Instant) -> ClusterTime;
//     pub fn counters(&self) -> &Counters;      // for /metrics/snapshot
//     pub fn state(&self) -> &ClusterState;
//     pub fn check_invariants(&self);
// }
