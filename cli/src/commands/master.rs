//! `tepui master`: the masters themselves.
//!
//! `list`, `add`, `remove`, `transfer` and `backup` ask the leader; `restore` and `recover` work
//! on the folder of a master that does not run.

use crate::{
    Context,
    api::{self, Api, text},
    output::{self, Column},
};
use anyhow::{Context as _, Result, bail, ensure};
use clap::Subcommand;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};
use tokio::io::AsyncWriteExt;

/// Options of `tepui master`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the masters: who leads, who votes, who lags behind
    List,
    /// Add a master that was started with an empty work folder and --join=wait (or any --join):
    /// it learns first, then votes
    Add {
        /// Where masters reach the new one
        #[arg(value_name = "HOST:RAFT_PORT")]
        address: String,
        /// Do not wait until it votes
        #[arg(long)]
        no_wait: bool,
    },
    /// Remove a master for good, dead or alive
    Remove {
        /// Its id or one of its addresses, as `tepui master list` shows them
        #[arg(value_name = "ID|ADDRESS")]
        member: String,
        /// Even if the rest has no quorum at the moment
        #[arg(long)]
        force: bool,
    },
    /// Hand leadership to another master
    Transfer {
        /// Id or address of the next leader; the one that lags least when not given
        #[arg(long, value_name = "ID|ADDRESS")]
        to: Option<String>,
    },
    /// Let the cluster use what the newest release brings, once every voter is of it; masters of
    /// older releases cannot follow any more
    Upgrade {
        /// The version of log and rows; the newest that the leader knows when not given
        #[arg(long, value_name = "VERSION")]
        to: Option<u64>,
    },
    /// Write everything that the masters know into a file
    Backup {
        /// The file, which must not exist
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Make the first master of a new incarnation of the cluster from a backup; no master may
    /// run on the folder
    Restore {
        /// What `tepui master backup` wrote
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
        /// The --work_dir that the master will be started with; without state
        #[arg(long, alias = "work_dir", value_name = "DIR")]
        work_dir: PathBuf,
    },
    /// Make one surviving master the whole cluster when most voters are gone for good; no
    /// master may run on the folder
    Recover {
        /// The --work_dir of the surviving master
        #[arg(long, alias = "work_dir", value_name = "DIR")]
        work_dir: PathBuf,
        /// That the other masters' processes will never run again with their present folders
        #[arg(long)]
        others_are_gone: bool,
    },
}

/// How long a new master may take to get a vote.
const CATCH_UP: Duration = Duration::from_secs(300);

const COLUMNS: &[Column] = &[
    ("ID", |it| it["id"].to_string()),
    ("ROLE", |it| text(it, "role").to_owned()),
    ("STATE", |it| {
        let connected = it["connected"].as_bool().unwrap_or_default();
        let fetches = it["fetches_rows"].as_bool().unwrap_or_default();
        match (connected, fetches) {
            (false, _) => "unreachable",
            (true, true) => "fetching",
            (true, false) => "connected",
        }
        .to_owned()
    }),
    ("BEHIND", |it| {
        it["entries_behind"]
            .as_u64()
            .map_or_else(|| "?".to_owned(), |it| it.to_string())
    }),
    ("ADDRESS", |it| text(it, "address").to_owned()),
    ("RAFT ADDRESS", |it| text(it, "raft_address").to_owned()),
    ("VERSION", |it| text(it, "version").to_owned()),
];

/// Runs one of them.
pub(crate) async fn run(context: &Context, options: Options) -> Result<ExitCode> {
    match options.command {
        Command::List => list(context).await?,
        Command::Add { address, no_wait } => add(context, &address, no_wait).await?,
        Command::Remove { member, force } => remove(context, &member, force).await?,
        Command::Transfer { to } => {
            let answer = ask(context, "transfer", &json!({ "to": to })).await?;
            output::tell_answer(
                context,
                &answer,
                &format!("master {} leads", answer["leader"]),
            )?;
        }
        Command::Upgrade { to } => {
            let answer = ask(context, "upgrade", &json!({ "version": to })).await?;
            let version = &answer["cluster_version"];
            output::tell_answer(
                context,
                &answer,
                &format!("the cluster is at version {version}"),
            )?;
        }
        Command::Backup { output } => backup(context, &output).await?,
        Command::Restore { input, work_dir } => {
            let done = offline(move || tepui_master::offline::restore(&input, &work_dir)).await?;
            let next = "start it with --work_dir as given; others join it with an empty --work_dir \
                        and --join";
            tell_done(context, &done, next)?;
        }
        Command::Recover {
            work_dir,
            others_are_gone,
        } => {
            if !others_are_gone {
                bail!(
                    "what only the other masters have is lost by this, and they may never run \
                     again with their present folders: say --others-are-gone if that is so"
                );
            }
            let done = offline(move || tepui_master::offline::recover(&work_dir)).await?;
            let next = "start it as before; others join it with an empty --work_dir and --join";
            tell_done(context, &done, next)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn offline(
    work: impl FnOnce() -> Result<tepui_master::offline::Done> + Send + 'static,
) -> Result<tepui_master::offline::Done> {
    tokio::task::spawn_blocking(work).await?
}

fn tell_done(context: &Context, done: &tepui_master::offline::Done, next: &str) -> Result<()> {
    let answer = json!({
        "cluster_id": done.cluster_id,
        "incarnation": done.incarnation,
        "id": done.node_id,
        "rows": done.rows,
    });
    let sentence = format!(
        "master {} is the whole of cluster {} now, incarnation {}, with {} rows on its disk; {next}",
        done.node_id, done.cluster_id, done.incarnation, done.rows
    );
    output::tell_answer(context, &answer, &sentence)
}

async fn ask(context: &Context, what: &str, body: &Value) -> Result<Value> {
    let path = format!("/tepui/v1/masters/{what}");
    let answer = Api::new(context)?.post(&path, body).await?;
    serde_json::from_str(&answer).context("the master did not answer JSON")
}

async fn masters(context: &Context) -> Result<Value> {
    Api::new(context)?.members().await
}

async fn list(context: &Context) -> Result<()> {
    let answer = masters(context).await?;
    if context.json {
        return Ok(output::line(format_args!("{answer:#}"))?);
    }
    let leaderless = answer["leader"].is_null();
    output::print(context, &api::list(answer, "masters")?, COLUMNS)?;
    if leaderless {
        bail!("no master leads: a majority of those that vote must be connected");
    }
    Ok(())
}

async fn add(context: &Context, address: &str, no_wait: bool) -> Result<()> {
    let mut answer = ask(context, "add", &json!({ "address": address })).await?;
    let id = answer["id"].clone();
    let began = Instant::now();
    while !no_wait && answer["role"] == "learner" {
        if began.elapsed() > CATCH_UP {
            bail!(
                "master {id} is a learner and has not caught up yet; `tepui master list` shows it"
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        // Leadership may change meanwhile.
        let Ok(now) = masters(context).await else {
            continue;
        };
        let found = api::list(now, "masters")?
            .into_iter()
            .find(|it| it["id"] == id);
        let found =
            found.with_context(|| format!("master {id} is none of the masters any more"))?;
        if found["votes"] == true {
            answer["role"] = json!("voter");
        }
    }
    let sentence = format!("master {id} at {address} is a {}", text(&answer, "role"));
    output::tell_answer(context, &answer, &sentence)
}

/// Whatever a member may be called.
fn names(it: &Value) -> [String; 3] {
    [
        it["id"].to_string(),
        text(it, "address").to_owned(),
        text(it, "raft_address").to_owned(),
    ]
}

async fn remove(context: &Context, member: &str, force: bool) -> Result<()> {
    let list = api::list(masters(context).await?, "masters")?;
    if list.iter().filter(|it| it["votes"] == true).count() == 1 && !force {
        let only = list.iter().find(|it| it["votes"] == true);
        let only = only.map(names).unwrap_or_default();
        ensure!(
            only.iter().all(|it| it != member),
            "it is the only master that votes: without it there is no cluster; add others first"
        );
    }
    let is_leader = list
        .iter()
        .any(|it| it["role"] == "leader" && names(it).iter().any(|it| it == member));
    if is_leader {
        ask(context, "transfer", &json!({})).await?;
    }
    let answer = ask(
        context,
        "remove",
        &json!({ "master": member, "force": force }),
    )
    .await?;
    let sentence = format!("master {} is removed", answer["removed"]);
    output::tell_answer(context, &answer, &sentence)
}

async fn backup(context: &Context, path: &Path) -> Result<()> {
    let mut response = Api::new(context)?.stream("/tepui/v1/backup").await?;
    let mut file = tokio::fs::File::options()
        .write(true)
        .create_new(true)
        .open(path)
        .await
        .with_context(|| format!("{} cannot be made", path.display()))?;
    let written = async {
        let mut bytes = 0;
        while let Some(chunk) = response.chunk().await? {
            bytes += chunk.len();
            file.write_all(&chunk).await?;
        }
        file.sync_all().await?;
        anyhow::Ok(bytes)
    };
    match written.await {
        Ok(bytes) => {
            let answer = json!({ "file": path.display().to_string(), "bytes": bytes });
            let sentence = format!("{bytes} bytes are in {}", path.display());
            output::tell_answer(context, &answer, &sentence)
        }
        Err(error) => {
            // Half of a backup is none.
            let _ = tokio::fs::remove_file(path).await;
            Err(error.context("the backup was cut off"))
        }
    }
}
