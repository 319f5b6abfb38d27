//! Parameters of the workloads that run a trace.

use crate::harness::parameters::{Parameter, number, text};

pub(crate) const FILE: Parameter = text(
    "file",
    "a CSV file with the columns of docs/bench.md; drawn when empty",
);

pub(crate) const FULL_PERCENT: Parameter = number(
    "full_percent",
    70,
    1,
    300,
    "cpus that jobs want on average, of all, when they are drawn",
);

pub(crate) const fn jobs(default: u64) -> Parameter {
    number("jobs", default, 1, 1_000_000, "jobs, when they are drawn")
}

pub(crate) const fn users(default: u64) -> Parameter {
    number("users", default, 1, 2_000, "users, when jobs are drawn")
}

pub(crate) const fn longest(default: u64) -> Parameter {
    number(
        "longest_s",
        default,
        5,
        10_000_000,
        "seconds of the longest task, when jobs are drawn",
    )
}
