//! The operator's command line: try a cluster, run tasks, look at what runs.
//!
//! One file a command under `commands/`. What several share: `api` reads a master's or
//! an agent's HTTP endpoints, `output` prints tables or JSON, `sandbox` follows a task's
//! files.
//!
//! # Invariants
//!
//! - Commands speak only the public HTTP and gRPC interfaces; `local` alone starts
//!   masters and agents, and then uses them through their sockets too; `master restore` and
//!   `master recover` work on the folder of a master that does not run.
//! - Exit status: 0 success, 1 a failure with a reason on standard error, 2 wrong usage;
//!   `run` returns its task's own status.
//! - Standard output carries results only, so that `--json` can be piped.

mod api;
mod commands;
mod output;
mod sandbox;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Talk to a Tepui cluster, or start one.
#[derive(Debug, Parser)]
#[command(name = "tepui", version, about, max_term_width = 100)]
struct Arguments {
    /// Masters to talk to, separated by commas; any one of the cluster will do, more keep the
    /// command going when one is down. Or zk://[USER:PASSWORD@]HOST:PORT,.../PATH, where they
    /// publish the one that leads
    #[arg(
        long,
        global = true,
        env = "TEPUI_MASTER",
        default_value = "127.0.0.1:5050",
        value_name = "HOST:PORT,..."
    )]
    master: String,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a whole cluster in this process, for trying things out
    Local(commands::local::Options),
    /// Run a task now, stream its output, return its exit status
    Run(commands::run::Options),
    /// List tasks
    Ps(commands::ps::Options),
    /// List agents
    Agents(commands::agents::Options),
    /// List frameworks
    Frameworks(commands::frameworks::Options),
    /// Print what a task wrote
    Logs(commands::logs::Options),
    /// Say why a framework or a role is offered what it is offered
    Explain(commands::explain::Options),
    /// Kill a task of any framework
    Kill(commands::kill::Options),
    /// See, add, remove, back up and restore masters
    Master(commands::master::Options),
    /// Read and write variables that frameworks keep in the masters' log
    State(commands::state::Options),
}

/// What every command gets besides its own options.
#[derive(Debug, Clone)]
struct Context {
    master: String,
    json: bool,
}

/// How long ZooKeeper may take to name a leader.
const PUBLISHED: std::time::Duration = std::time::Duration::from_secs(10);

impl Context {
    /// Looks up who leads, where ZooKeeper knows it.
    async fn find(mut self) -> anyhow::Result<Context> {
        if self.master.starts_with("zk://") {
            let leader = tepui_master::published_leader(&self.master, PUBLISHED).await;
            self.master = leader.context("--master")?;
        }
        Ok(self)
    }

    /// The masters to talk to, `host:port` each.
    fn masters(&self) -> Vec<String> {
        let parts = self.master.split(',').map(str::trim);
        parts
            .filter(|it| !it.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

/// Parses the command line, runs the command, prints its error.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let context = Context {
        master: arguments.master,
        json: arguments.json,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tepui: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let context = context.find().await?;
        match arguments.command {
            Command::Local(options) => commands::local::run(&context, options).await,
            Command::Run(options) => commands::run::run(&context, options).await,
            Command::Ps(options) => commands::ps::run(&context, options).await,
            Command::Agents(options) => commands::agents::run(&context, options).await,
            Command::Frameworks(options) => commands::frameworks::run(&context, options).await,
            Command::Logs(options) => commands::logs::run(&context, options).await,
            Command::Explain(options) => commands::explain::run(&context, options).await,
            Command::Kill(options) => commands::kill::run(&context, options).await,
            Command::Master(options) => commands::master::run(&context, options).await,
            Command::State(options) => commands::state::run(&context, options).await,
        }
    });
    // A task that ignores the end of the program must not hold it up.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match result {
        Ok(code) => code,
        Err(error) if is_unread(&error) => ExitCode::from(UNREAD),
        Err(error) => {
            eprintln!("tepui: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What a shell shows for a program that SIGPIPE ended.
const UNREAD: u8 = 128 + 13;

/// Whether nobody reads our output any more.
fn is_unread(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|it| it.kind() == std::io::ErrorKind::BrokenPipe)
}
