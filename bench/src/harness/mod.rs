//! The harness: workloads with parameters and bounds, measurements with what they are worth,
//! results as JSON, comparison that knows noise, plots.
//!
//! A [`workload::Workload`] is a row of a table. [`runner`] checks its parameters, refuses what
//! does not fit the memory, runs it once a size and writes a [`result::Results`] after each;
//! [`compare`], [`plot`] and the report read nothing but such files.

pub(crate) mod compare;
pub(crate) mod format;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod parameters;
pub(crate) mod plot;
pub(crate) mod point;
pub(crate) mod random;
pub(crate) mod report;
pub(crate) mod result;
pub(crate) mod runner;
pub(crate) mod statistics;
pub(crate) mod stop;
pub(crate) mod table;
pub(crate) mod workload;
