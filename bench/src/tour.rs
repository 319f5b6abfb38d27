//! `tour`: the workloads with sizes that fit into some minutes, and a page of what they gave.

use crate::harness::{report, result::Results, runner, stop, table, workload::Workload};
use anyhow::{Context, Result};
use std::{path::PathBuf, time::Instant};

/// Options of `tepui-bench tour`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The folder for the page and the results
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Smaller sizes, for a look at the page: half a minute
    #[arg(long)]
    quick: bool,
    /// Only workloads whose name contains one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// One run of the tour.
struct Leg {
    workload: &'static str,
    parameters: &'static [&'static str],
    sizes: &'static [&'static str],
    /// When it is to be quick.
    quick: &'static [&'static str],
}

impl Leg {
    /// Whether its samples take a second each.
    fn is_long(&self) -> bool {
        matches!(self.workload, "offers" | "launch")
    }
}

const LEGS: &[Leg] = &[
    Leg {
        workload: "decline",
        parameters: &[],
        sizes: &["10000"],
        quick: &["300"],
    },
    Leg {
        workload: "decline",
        parameters: &["rounds=5"],
        sizes: &["1000", "10000", "100000"],
        quick: &["100", "1000"],
    },
    Leg {
        workload: "incremental",
        parameters: &[],
        sizes: &["1000", "10000", "100000"],
        quick: &["200", "1000"],
    },
    Leg {
        workload: "churn",
        parameters: &[],
        sizes: &["1000", "10000", "100000"],
        quick: &["200", "1000"],
    },
    Leg {
        workload: "suppress-revive",
        parameters: &[],
        sizes: &["10000"],
        quick: &["500"],
    },
    Leg {
        workload: "reservations",
        parameters: &[],
        sizes: &["400", "1600", "6400"],
        quick: &["100", "400"],
    },
    Leg {
        workload: "quota",
        parameters: &[],
        sizes: &["1000", "10000"],
        quick: &["200", "1000"],
    },
    Leg {
        workload: "multi-framework",
        parameters: &[],
        sizes: &["80"],
        quick: &["80"],
    },
    Leg {
        workload: "picky",
        parameters: &[],
        sizes: &["10000"],
        quick: &["500"],
    },
    Leg {
        workload: "hoarders",
        parameters: &[],
        sizes: &["1000"],
        quick: &["1000"],
    },
    Leg {
        workload: "cell",
        parameters: &[],
        sizes: &["12500"],
        quick: &["500"],
    },
    Leg {
        workload: "trace-allocator",
        parameters: &[],
        sizes: &["500"],
        quick: &["100"],
    },
    Leg {
        workload: "scale",
        parameters: &[],
        sizes: &["10000", "100000"],
        quick: &["1000", "10000"],
    },
    Leg {
        workload: "offers",
        parameters: &[],
        sizes: &["1000"],
        quick: &["20"],
    },
    Leg {
        workload: "launch",
        parameters: &[],
        sizes: &["1000"],
        quick: &["20"],
    },
    Leg {
        workload: "trace",
        parameters: &["longest_s=600"],
        sizes: &["50"],
        quick: &["50"],
    },
    Leg {
        workload: "latency",
        parameters: &[],
        sizes: &["200"],
        quick: &["20"],
    },
];

/// Runs the tour: the status to end with.
///
/// # Errors
/// The folder cannot be written. A workload that fails is named on the page.
pub(crate) fn run(workloads: &[&'static Workload], options: &Options) -> Result<i32> {
    let folder = &options.out;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let page = folder.join("index.html");
    let mut all: Vec<Results> = Vec::new();
    let mut failures = Vec::new();
    let wanted = |name: &str| {
        options.only.is_empty() || options.only.iter().any(|it| name.contains(it.as_str()))
    };
    let legs: Vec<&Leg> = LEGS.iter().filter(|it| wanted(it.workload)).collect();
    let started = Instant::now();
    for (at, leg) in legs.iter().enumerate() {
        let Some(workload) = workloads.iter().find(|it| it.name == leg.workload) else {
            continue;
        };
        eprintln!(
            "{:4.0} s  {} of {}: {} {}",
            started.elapsed().as_secs_f64(),
            at + 1,
            legs.len(),
            leg.workload,
            leg.parameters.join(" "),
        );
        let sizes = if options.quick { leg.quick } else { leg.sizes };
        let repeats = options.quick.then_some(3).filter(|_| leg.is_long());
        match runner::run_with(workload, leg.parameters, sizes, repeats) {
            Ok(results) => {
                let file = format!("{:02}-{}.json", at + 1, leg.workload);
                results.write(&folder.join(file))?;
                all.push(results);
            }
            Err(error) => failures.push((leg.workload.to_owned(), format!("{error:#}"))),
        }
        report::write(&page, &all, &failures)?;
        if stop::asked() {
            break;
        }
    }
    print!("{}", table::verdicts(&all));
    for (name, error) in &failures {
        println!("{name} was not measured: {error}");
    }
    println!("{}", page.display());
    Ok(match stop::asked() {
        true => stop::INTERRUPTED,
        false => i32::from(!failures.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leg_is_a_workload_with_parameters_that_it_takes() {
        let workloads = crate::workloads();
        for leg in LEGS {
            let found = workloads.iter().find(|it| it.name == leg.workload);
            let workload = found.unwrap_or_else(|| panic!("no workload {}", leg.workload));
            for sizes in [leg.sizes, leg.quick] {
                let fits = runner::check(workload, leg.parameters, sizes);
                assert!(fits.is_ok(), "{}: {fits:?}", leg.workload);
            }
        }
    }
}
