//! `torture`: real masters, agents and frameworks under faults; see `tepui_tests::torture`.

use anyhow::{Context, Result, bail};
use clap::Parser;
use std::{path::PathBuf, process::ExitCode};
use tepui_tests::torture::{self, faults::Fault, net};

/// Kills, pauses, cuts off and fills up a cluster under load, and checks what its clients saw.
/// Needs root, for network namespaces of its own.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds of faults
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Masters
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    masters: u8,
    /// Agents
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    agents: u8,
    /// Frameworks; every other one speaks HTTP
    #[arg(long, default_value_t = 2)]
    frameworks: usize,
    /// Tasks that each framework keeps going
    #[arg(long, default_value_t = 20)]
    tasks: usize,
    /// Tasks of a hundred that run in Docker
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=100))]
    docker: u64,
    /// Frameworks that are not ours, with commas between them: http, pymesos, none
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAMES",
        default_value = "http,pymesos"
    )]
    foreign: Vec<String>,
    /// Clients of the state service
    #[arg(long, default_value_t = 5)]
    registers: u64,
    /// Kinds of faults, with commas between them (default: all)
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    faults: Vec<String>,
    /// Seed of the choices (default: by chance)
    #[arg(long)]
    seed: Option<u64>,
    /// Keep state and logs in this folder
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut faults = Vec::new();
    for name in &arguments.faults {
        let all: Vec<&str> = Fault::ALL.iter().map(|it| it.name()).collect();
        let known = || format!("no fault is called {name:?}; there are {}", all.join(", "));
        faults.push(Fault::parse(name).with_context(known)?);
    }
    if faults.is_empty() {
        faults.extend(Fault::ALL);
    }
    let foreign = foreign(&arguments.foreign)?;
    if arguments.docker > 0 {
        prepare_docker()?;
    }
    if let Some(status) = net::enter()? {
        return match status.code() {
            Some(code) => Ok(ExitCode::from(u8::try_from(code)?)),
            None => bail!("ended by a signal: {status}"),
        };
    }
    let seed = arguments.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |it| u64::from(it.subsec_nanos()))
    });
    println!("==> seed {seed}");
    let temporary = tempfile::Builder::new()
        .prefix("tepui-torture-")
        .tempdir()?;
    let folder = match &arguments.keep {
        Some(folder) => std::path::absolute(folder)?,
        None => temporary.path().to_owned(),
    };
    let report = torture::run(torture::Options {
        seconds: arguments.seconds,
        masters: arguments.masters.into(),
        agents: arguments.agents.into(),
        frameworks: arguments.frameworks,
        tasks: arguments.tasks,
        docker: arguments.docker,
        foreign,
        registers: arguments.registers,
        faults,
        seed,
        folder: folder.clone(),
    })
    .await;
    // The mounts below the folder end with this process; it can be removed when they are gone.
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            println!("==> {error:#}");
            println!("    state and logs: {}", temporary.keep().display());
            return Ok(ExitCode::FAILURE);
        }
    };
    for (name, (count, gap)) in &report.faults {
        println!("    {name:18} {count:4} times, {gap:.2} s without offers at most");
    }
    for (state, count) in &report.tasks {
        println!("    {state:18} {count:6} tasks");
    }
    println!("    {:6} calls to the state service", report.calls);
    if report.violations.is_empty() {
        println!("==> nothing was lost, doubled or forgotten");
        return Ok(ExitCode::SUCCESS);
    }
    for violation in &report.violations {
        println!("!!! {violation}");
    }
    println!("    state and logs: {}", temporary.keep().display());
    Ok(ExitCode::FAILURE)
}

/// What runs the frameworks that are not ours.
fn foreign(names: &[String]) -> Result<Vec<(&'static str, String)>> {
    let mut all = Vec::new();
    for name in names {
        match name.as_str() {
            "http" => all.push(("http", "python3".to_owned())),
            "pymesos" => all.push(("pymesos", tepui_tests::cluster::pymesos()?)),
            "none" => {}
            _ => bail!("no framework is called {name:?}; there are http and pymesos"),
        }
    }
    Ok(all)
}

/// The engine runs and has the image, before the network of the run hides the world.
fn prepare_docker() -> Result<()> {
    let scripts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
    for script in ["docker.sh", "test-image.sh"] {
        let status = std::process::Command::new(scripts.join(script)).status()?;
        if !status.success() {
            bail!("scripts/{script} ended with {status}; --docker=0 does without");
        }
    }
    Ok(())
}
