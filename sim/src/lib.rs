//! The whole cluster in one thread and one seed: masters, agents, frameworks and an operator on a
//! network, disks and clocks that go wrong.
//!
//! The machines, the allocator, the state, the replicated log's node, the outbox and every encoding
//! are those of production. Simulated is what the shells do around them: sockets, disks, clocks,
//! containers. A run follows a [`plan::Plan`], drawn from a seed before the first event, through a
//! queue of events ordered by time and number. It ends with the first thing that must never happen
//! ([`core::Violation`]) or, after everything was mended, when all is as it should be (`settle`).
//!
//! Where is what:
//! - [`world`] lets events happen; [`core`] is what all hosts share; [`network`], [`disk`] and
//!   [`clock`] go wrong; `faults` is how.
//! - [`master`], [`agent`] (with [`containers`]), [`framework`] (with [`choices`] and
//!   [`workload`]), [`keeper`] and [`operator`] are the hosts.
//! - [`checkers`] judge; [`shrink`] looks for the shortest history that fails.
//!
//! # Invariants
//! - No clock, file, thread, socket or chance but the seed's: equal plans have equal traces.
//! - No checker believes a machine: it believes what was asked for, what containers did, and what
//!   is on the disks.
//! - Nothing that is simulated reaches into a machine past its inputs and outputs; checkers may
//!   read the state of one.

pub mod agent;
pub mod checkers;
pub mod choices;
pub mod clock;
pub mod containers;
pub mod core;
pub mod disk;
mod faults;
pub mod framework;
pub mod generate;
pub mod keeper;
pub mod master;
pub mod network;
pub mod operator;
pub mod plan;
pub mod random;
pub mod scenarios;
mod settle;
pub mod shrink;
pub mod trace;
pub mod workload;
pub mod world;
