//! What a workload is: a row of the table that `list` prints.

use super::{
    parameters::{Kind, Parameter, Values},
    point::Measure,
};
use anyhow::Result;

/// A number that a workload is to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    /// Of which metric.
    pub(crate) metric: &'static str,
    /// As what.
    pub(crate) by: By,
    /// What it must be.
    pub(crate) must: f64,
    /// What is aimed at.
    pub(crate) aim: f64,
    /// For which sizes; the demand says nothing about others.
    pub(crate) sizes: (u64, u64),
}

/// Which number of a metric is meant.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By {
    /// Its median.
    Value,
    /// Its median over that of another one.
    Ratio(&'static str),
    /// Its growth over the sizes.
    Exponent,
}

/// For a number that must be nothing in particular.
pub(crate) const NO_BOUND: f64 = f64::MAX;

/// Goals without a bound for the size.
pub(crate) const ANY: (u64, u64) = (0, u64::MAX);

/// One workload.
pub(crate) struct Workload {
    /// As in `run NAME`.
    pub(crate) name: &'static str,
    /// What it does, in a sentence.
    pub(crate) about: &'static str,
    /// What can be set.
    pub(crate) parameters: &'static [Parameter],
    /// The parameter that `--sizes` sets.
    pub(crate) size: Option<&'static str>,
    /// Its values when none are given; empty for its default alone.
    pub(crate) sizes: &'static [u64],
    /// Samples when no number is given.
    pub(crate) repeats: u64,
    /// What is demanded.
    pub(crate) goals: &'static [Goal],
    /// About how many bytes it takes at most.
    pub(crate) memory: fn(&Values) -> u64,
    /// Measures one size.
    pub(crate) run: fn(&mut Measure) -> Result<()>,
}

impl Workload {
    /// The parameter that makes the size.
    pub(crate) fn size_parameter(&self) -> Option<&'static Parameter> {
        let name = self.size?;
        self.parameters.iter().find(|it| it.name == name)
    }

    /// The sizes that are measured when none are given.
    pub(crate) fn default_sizes(&self) -> Vec<u64> {
        match self.size_parameter().map(|it| it.kind) {
            Some(Kind::Number { default, .. }) if self.sizes.is_empty() => vec![default],
            _ => self.sizes.to_vec(),
        }
    }
}

impl Goal {
    /// What the number is called.
    pub(crate) fn name(&self) -> String {
        match self.by {
            By::Value => self.metric.to_owned(),
            By::Ratio(other) => format!("{} / {other}", self.metric),
            By::Exponent => format!("growth of {}", self.metric),
        }
    }
}
