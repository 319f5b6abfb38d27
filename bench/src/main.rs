//! `tepui-bench`: what the system costs, measured.
//!
//! Workloads of the allocator run in this process; the others drive a cluster over real sockets.
//! Every one measures in the same run what the machine can do (bare loops, bare disk, loopback):
//! ratios to that say something, absolute numbers depend on the machine. `docs/bench.md` says how
//! to read the results.

mod allocator;
mod ask;
mod cluster;
mod commit;
mod cpu;
mod docker;
mod failover;
mod floor;
mod harness;
mod large_state;
mod launch;
mod live;
mod noop_agent;
mod replay;
mod snapshot;
mod tour;
mod trace;

use clap::{Parser, Subcommand};
use harness::{compare, memory, plot, report as page, runner, table, workload::Workload};
use std::process::exit;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Benchmarks of Tepui.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The workloads with their parameters and bounds
    List,
    /// Runs a workload
    Run(runner::Options),
    /// Says whether two results, or two binaries run in turn, differ by more than noise
    Compare(compare::Options),
    /// Draws results
    Plot(plot::Options),
    /// Writes a page of results, as HTML
    Report(page::Options),
    /// Runs the workloads for some minutes and writes a page of what they gave
    Tour(tour::Options),
    /// Draws a trace of jobs, for the workload `trace`
    GenerateTrace(trace::Options),
    /// Drives the allocator alone from JSON lines
    Replay(replay::Options),
    /// Accepted launches to acknowledged TASK_RUNNING, with agents that run nothing
    Launch(launch::Options),
    /// Death of the leader to the next offer, over the size of the cluster
    Failover(failover::Options),
    /// Writes that are durable on a majority of the masters, beside bare appends
    Commit(commit::Options),
    /// A master that joins a large cluster and is sent all of its state
    Snapshot(snapshot::Options),
    /// Launches through the agent beside bare create and start on the same engine
    Docker(docker::Options),
}

/// Everything that `run` can run.
fn workloads() -> Vec<&'static Workload> {
    [allocator::ALL, live::ALL].concat()
}

fn main() {
    match run() {
        Ok(status) => exit(status),
        Err(error) => {
            eprintln!("error: {error:#}");
            exit(1)
        }
    }
}

/// The status to end with.
fn run() -> anyhow::Result<i32> {
    Ok(match Arguments::parse().command {
        Command::List => {
            print!("{}", table::list(&workloads()));
            0
        }
        Command::Run(options) => runner::run(&workloads(), &options)?,
        Command::Compare(options) => compare::run(&options)?,
        Command::Plot(options) => {
            plot::run(&options)?;
            0
        }
        Command::Report(options) => {
            page::run(&options)?;
            0
        }
        Command::Tour(options) => tour::run(&workloads(), &options)?,
        Command::GenerateTrace(options) => {
            trace::generate(&options)?;
            0
        }
        Command::Replay(options) => {
            replay::run(&options)?;
            0
        }
        Command::Launch(options) => report(launch::run(options))?,
        Command::Failover(options) => report(failover::run(options))?,
        Command::Commit(options) => report(commit::run(options))?,
        Command::Snapshot(options) => report(snapshot::run(options))?,
        Command::Docker(options) => report(docker::run(options))?,
    })
}

/// Runs one of those that print a report as JSON.
fn report(run: impl Future<Output = anyhow::Result<serde_json::Value>>) -> anyhow::Result<i32> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    println!("{:#}", runtime.block_on(run)?);
    Ok(0)
}
