//! `tepui-bench`: what the system costs, measured over real sockets.
//!
//! Every benchmark measures a floor in the same run (bare engine, bare disk, loopback)
//! and reports ratios to it; absolute numbers depend on the machine. Progress goes to
//! standard error, the report as JSON to standard output.

mod ask;
mod cluster;
mod commit;
mod cpu;
mod docker;
mod failover;
mod floor;
mod launch;
mod noop_agent;

use clap::{Parser, Subcommand};

/// Benchmarks of Tepui over real sockets.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Accepted launches to acknowledged TASK_RUNNING, with agents that run nothing
    Launch(launch::Options),
    /// Death of the leader to the next offer, over the size of the cluster
    Failover(failover::Options),
    /// Writes that are durable on a majority of the masters, beside bare appends
    Commit(commit::Options),
    /// Launches through the agent beside bare create and start on the same engine
    Docker(docker::Options),
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(async {
        match Arguments::parse().command {
            Command::Launch(options) => launch::run(options).await,
            Command::Failover(options) => failover::run(options).await,
            Command::Commit(options) => commit::run(options).await,
            Command::Docker(options) => docker::run(options).await,
        }
    })?;
    println!("{report:#}");
    Ok(())
}
