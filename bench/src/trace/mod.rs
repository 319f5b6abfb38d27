//! Traces of jobs: a CSV format, and traces drawn from a seed.

pub(crate) mod omniscient;
pub(crate) mod parameters;

use crate::harness::{point::Measure, random::Random, result::Unit};
use anyhow::{Context, Result, bail};
use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use omniscient::{Ran, Size};

/// The header of a file.
pub(crate) const COLUMNS: &str = "submit_s,job,user,tier,tasks,cpus,mem_mb,duration_s";

/// Larger files are refused: about ten million jobs.
const MAX_BYTES: u64 = 1 << 30;
const MAX_JOBS: usize = 10_000_000;

/// Tasks of one kind that come together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    /// Seconds from the beginning of the trace.
    pub(crate) submit: f64,
    /// Its name.
    pub(crate) name: String,
    /// Whose.
    pub(crate) user: String,
    /// A role; those of [`TIERS`] have weights.
    pub(crate) tier: String,
    /// How many.
    pub(crate) tasks: u64,
    /// Of each task, in thousandths.
    pub(crate) cpus_millis: u64,
    /// Of each task.
    pub(crate) mem_mb: u64,
    /// Of each task, seconds.
    pub(crate) duration: f64,
}

/// Work of one importance, as it is drawn.
pub(crate) struct Tier {
    /// Its role.
    pub(crate) name: &'static str,
    /// Weight of the role in millionths.
    pub(crate) weight: u64,
    /// Of a hundred jobs.
    jobs: u64,
    /// Typical seconds of a task, and how widely they are spread.
    duration: (f64, f64),
}

/// The tiers of the public cluster traces, whose papers agree on this much: most jobs are small,
/// short and of little importance; few are long, and those hold most of the machines.
pub(crate) const TIERS: [Tier; 4] = [
    Tier {
        name: "production",
        weight: 8_000_000,
        jobs: 8,
        duration: (7_200.0, 1.2),
    },
    Tier {
        name: "mid",
        weight: 4_000_000,
        jobs: 12,
        duration: (900.0, 1.4),
    },
    Tier {
        name: "batch",
        weight: 2_000_000,
        jobs: 45,
        duration: (240.0, 1.5),
    },
    Tier {
        name: "free",
        weight: 1_000_000,
        jobs: 35,
        duration: (90.0, 1.5),
    },
];

/// Options of `tepui-bench generate-trace`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What is drawn is drawn from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Jobs
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    jobs: u64,
    /// Users
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=2_000))]
    users: u64,
    /// Cpus that all jobs want together on average; they come so far apart that they do
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    cpus: u64,
    /// Seconds of the longest task
    #[arg(long, default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(5..=10_000_000))]
    longest_s: u64,
    /// Where the trace goes
    #[arg(long, value_name = "FILE.csv")]
    out: PathBuf,
}

/// Writes a trace.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn generate(options: &Options) -> Result<()> {
    let jobs = draw(&Drawn {
        seed: options.seed,
        jobs: options.jobs,
        users: options.users,
        cpus: options.cpus,
        longest: options.longest_s,
    });
    crate::harness::result::write_whole(&options.out, &write(&jobs))
}

/// What a trace is drawn for.
pub(crate) struct Drawn {
    pub(crate) seed: u64,
    pub(crate) jobs: u64,
    pub(crate) users: u64,
    /// Wanted on average.
    pub(crate) cpus: u64,
    /// Seconds of the longest task, at least 5.
    pub(crate) longest: u64,
}

/// The metrics of a scheduler that sees everything: wait and response.
pub(crate) const OMNISCIENT: (&str, &str) =
    ("wait of a job, omniscient", "response of a job, omniscient");

/// The jobs that the parameters ask for, each of which fits on a machine.
///
/// # Errors
/// A file that is none, or tasks that are larger than machines.
pub(crate) fn jobs(measure: &Measure, machine: Size, agents: u64) -> Result<Vec<Job>> {
    let file = measure.values.text("file");
    let jobs = match file.is_empty() {
        false => read(Path::new(file))?,
        true => draw(&Drawn {
            seed: measure.seed,
            jobs: measure.number("jobs"),
            users: measure.number("users"),
            cpus: (agents * machine.cpus as u64 * measure.number("full_percent") / 100_000).max(1),
            longest: measure.number("longest_s"),
        }),
    };
    if let Some(it) = jobs.iter().find(|it| !machine.holds(Size::of(it))) {
        bail!(
            "tasks of job {:?} take {} cpus and {} MB; machines have {} and {}",
            it.name,
            it.cpus_millis as f64 / 1e3,
            it.mem_mb,
            machine.cpus / 1_000,
            machine.mem,
        );
    }
    Ok(jobs)
}

/// Adds a sample for each job that ran: from its submission to its first task's start, and to its
/// last task's end.
pub(crate) fn measure_responses(
    measure: &mut Measure,
    jobs: &[Job],
    (wait, response): (&str, &str),
    ran: &[Ran],
) {
    for (job, it) in jobs.iter().zip(ran).filter(|it| it.1.ended > 0.0) {
        measure.sample(wait, Unit::Seconds, it.started - job.submit);
        measure.sample(response, Unit::Seconds, it.ended - job.submit);
    }
}

/// Draws a trace. Three quarters of the jobs have one task, the others are spread as by Pareto up
/// to thousands; sizes and durations are log-normal, arrivals come at random; few users submit
/// most jobs.
pub(crate) fn draw(drawn: &Drawn) -> Vec<Job> {
    let mut random = Random::new(drawn.seed, 6);
    let mut jobs = Vec::new();
    let mut work = 0.0;
    for at in 0..drawn.jobs {
        let mut place = random.below(100);
        let tier = TIERS.iter().find(|it| match place.checked_sub(it.jobs) {
            Some(rest) => {
                place = rest;
                false
            }
            None => true,
        });
        let tier = tier.unwrap_or(&TIERS[2]);
        let tasks = match random.below(4) {
            0 => (2.0 / (1.0 - random.unit()).powf(1.0 / 1.1)).min(2_000.0) as u64,
            _ => 1,
        };
        // A tenth of the users submit half of the jobs.
        let few = drawn.users.div_ceil(10);
        let user = match random.below(2) {
            0 => random.below(few),
            _ => random.below(drawn.users),
        };
        let cpus = random.log_normal(600.0, 0.9).clamp(50.0, 8_000.0) as u64;
        let mem_mb = random.log_normal(1_500.0, 1.0).clamp(32.0, 16_000.0) as u64;
        let (typical, spread) = tier.duration;
        let duration = random
            .log_normal(typical, spread)
            .clamp(5.0, drawn.longest as f64)
            .round();
        work += tasks as f64 * cpus as f64 / 1e3 * duration;
        jobs.push(Job {
            submit: 0.0,
            name: format!("job-{at}"),
            user: format!("user-{user}"),
            tier: tier.name.to_owned(),
            tasks,
            cpus_millis: cpus,
            mem_mb,
            duration,
        });
    }
    // So far apart that they want as much as they are to, on average.
    let apart = work / drawn.cpus.max(1) as f64 / drawn.jobs.max(1) as f64;
    let mut now = 0.0;
    for it in &mut jobs {
        now += random.exponential(apart);
        it.submit = (now * 1e3).round() / 1e3;
    }
    jobs
}

/// As a file.
fn write(jobs: &[Job]) -> String {
    let mut text = format!("{COLUMNS}\n");
    for it in jobs {
        let cpus = it.cpus_millis as f64 / 1e3;
        let _ = writeln!(
            text,
            "{},{},{},{},{},{cpus},{},{}",
            it.submit, it.name, it.user, it.tier, it.tasks, it.mem_mb, it.duration
        );
    }
    text
}

/// Reads a file; jobs by rising time.
///
/// # Errors
/// A line that is not of the form, with its number.
pub(crate) fn read(path: &Path) -> Result<Vec<Job>> {
    let name = path.display();
    let size = std::fs::metadata(path)
        .with_context(|| format!("reading {name}"))?
        .len();
    if size > MAX_BYTES {
        bail!("{name} has {size} bytes; traces have at most {MAX_BYTES}");
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
    parse(&text).with_context(|| format!("{name} is no trace"))
}

fn parse(text: &str) -> Result<Vec<Job>> {
    let mut lines = text.lines().zip(1..);
    match lines.next() {
        Some((header, _)) if header.trim() == COLUMNS => {}
        _ => bail!("line 1: expected the columns {COLUMNS}"),
    }
    let mut jobs = Vec::new();
    for (line, number) in lines.filter(|it| !it.0.trim().is_empty()) {
        let job = parse_line(line).map_err(|error| anyhow::anyhow!("line {number}: {error}"))?;
        if jobs.len() == MAX_JOBS {
            bail!("line {number}: more than {MAX_JOBS} jobs");
        }
        jobs.push(job);
    }
    if jobs.is_empty() {
        bail!("no job in it");
    }
    jobs.sort_by(|a: &Job, b: &Job| a.submit.total_cmp(&b.submit));
    Ok(jobs)
}

fn parse_line(line: &str) -> Result<Job, String> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [submit, name, user, tier, tasks, cpus, mem, duration] = fields[..] else {
        return Err(format!("{} columns; expected {COLUMNS}", fields.len()));
    };
    let number = |what: &str, text: &str, least: f64, most: f64| match text.parse::<f64>() {
        Ok(it) if (least..=most).contains(&it) => Ok(it),
        _ => Err(format!(
            "{what} is {text:?}; expected a number from {least} to {most}"
        )),
    };
    tepui_model::role::validate(tier).map_err(|error| format!("tier: {error}"))?;
    if name.is_empty() || user.is_empty() {
        return Err("job and user cannot be empty".to_owned());
    }
    Ok(Job {
        submit: number("submit_s", submit, 0.0, 1e9)?,
        name: name.to_owned(),
        user: user.to_owned(),
        tier: tier.to_owned(),
        tasks: number("tasks", tasks, 1.0, 1e6)? as u64,
        cpus_millis: (number("cpus", cpus, 0.001, 1e4)? * 1e3).round() as u64,
        mem_mb: number("mem_mb", mem, 1.0, 1e8)? as u64,
        duration: number("duration_s", duration, 0.001, 1e8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<Job> {
        draw(&Drawn {
            seed: 1,
            jobs: 2_000,
            users: 20,
            cpus: 1_000,
            longest: 86_400,
        })
    }

    #[test]
    fn what_is_drawn_is_read_again_and_repeats_with_the_seed() {
        let jobs = some();
        assert_eq!(parse(&write(&jobs)).unwrap(), jobs);
        assert_eq!(some(), jobs);
        // It wants what it was drawn for.
        let work: f64 = jobs
            .iter()
            .map(|it| it.tasks as f64 * it.cpus_millis as f64 / 1e3 * it.duration)
            .sum();
        let wanted = work / jobs.last().unwrap().submit;
        assert!((800.0..1_250.0).contains(&wanted), "{wanted}");
        let single = jobs.iter().filter(|it| it.tasks == 1).count();
        assert!((1_350..1_650).contains(&single), "{single}");
    }

    #[test]
    fn bad_lines_are_named() {
        for (line, says) in [
            ("", "no job"),
            ("1,j,u,free,1,1,1", "7 columns"),
            ("-1,j,u,free,1,1,1,1", "line 2: submit_s is \"-1\""),
            ("1,j,u,free,0,1,1,1", "tasks"),
            ("1,j,u,free,1,NaN,1,1", "cpus is \"NaN\""),
            ("1,j,u,free,1,1,1e18,1", "mem_mb"),
            ("1,j,u,/free,1,1,1,1", "tier"),
            ("1,j,,free,1,1,1,1", "empty"),
        ] {
            let error = parse(&format!("{COLUMNS}\n{line}\n"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(says), "{line}: {error}");
        }
        assert!(parse("a,b\n").unwrap_err().to_string().contains("columns"));
    }
}
