//! `tepui state`: variables that frameworks keep in the masters' log.

use crate::{
    Context,
    output::{self, Column},
};
use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    process::ExitCode,
};
use tepui_scheduler_api::state::{self, Change, Expect, State, Variable, Written};

/// Options of `tepui state`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Whose variables, where frameworks need credentials
    #[arg(long, global = true, env = "TEPUI_PRINCIPAL", requires = "secret")]
    principal: Option<String>,
    /// The principal's secret; others on this machine see it unless it is in the environment
    #[arg(
        long,
        global = true,
        env = "TEPUI_SECRET",
        hide_env_values = true,
        requires = "principal"
    )]
    secret: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the value of a variable, byte for byte
    Get {
        /// Its name
        name: String,
    },
    /// Set a variable and print its new version
    Set {
        /// Its name
        name: String,
        /// Its value; `-` reads it from standard input
        value: String,
        #[command(flatten)]
        condition: Condition,
    },
    /// List variables
    List {
        /// Only those whose names begin with this
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Print what is there and then every change, a line each
    Watch {
        /// Only of variables whose names begin with this
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Delete a variable
    Delete {
        /// Its name
        name: String,
        /// Only if it is in this version
        #[arg(long, value_name = "VERSION")]
        if_version: Option<u64>,
    },
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Condition {
    /// Only if it is in this version
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    /// Only if there is none of that name
    #[arg(long)]
    if_absent: bool,
}

const COLUMNS: &[Column] = &[
    ("NAME", |it| crate::api::text(it, "name").to_owned()),
    ("VERSION", |it| it["version"].to_string()),
    ("BYTES", |it| it["bytes"].to_string()),
    ("LEASE", |it| match &it["lease"] {
        Value::Null => String::new(),
        lease => lease.to_string(),
    }),
];

/// Runs the command.
pub(crate) async fn run(context: &Context, options: Options) -> Result<ExitCode> {
    let mut given = state::Options::new(context.masters());
    if let (Some(principal), Some(secret)) = (options.principal, options.secret) {
        given = given.credentials(principal, secret);
    }
    let state = State::with(given)?;
    match options.command {
        Command::Get { name } => get(context, &state, &name).await?,
        Command::Set {
            name,
            value,
            condition,
        } => {
            let value = match value.as_str() {
                "-" => standard_input().await?,
                _ => value.into_bytes(),
            };
            let expect = match (condition.if_version, condition.if_absent) {
                (Some(version), _) => Expect::Version(version),
                (None, true) => Expect::Absent,
                (None, false) => Expect::Any,
            };
            let written = state.set(&name, value, expect).await?;
            let version = done(&name, written)?;
            let answer = json!({ "name": name, "version": version });
            let sentence = format!("{name} is at version {version}");
            output::tell_answer(context, &answer, &sentence)?;
        }
        Command::List { prefix } => {
            let variables = state.list(prefix).await?;
            let rows: Vec<Value> = variables.iter().map(describe).collect();
            output::print(context, &rows, COLUMNS)?;
        }
        Command::Watch { prefix } => watch(context, &state, prefix).await?,
        Command::Delete { name, if_version } => {
            let expect = if_version.map_or(Expect::Any, Expect::Version);
            let version = done(&name, state.expunge(&name, expect).await?)?;
            let answer = json!({ "name": name, "deleted_at": version });
            output::tell_answer(context, &answer, &format!("{name} is deleted"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn standard_input() -> Result<Vec<u8>> {
    let read = tokio::task::spawn_blocking(|| {
        let mut value = Vec::new();
        std::io::stdin().lock().read_to_end(&mut value)?;
        Ok::<_, std::io::Error>(value)
    });
    read.await?.context("standard input")
}

async fn get(context: &Context, state: &State, name: &str) -> Result<()> {
    let variable = state.get(name).await?;
    let variable = variable.with_context(|| format!("there is no variable {name:?}"))?;
    if context.json {
        return Ok(output::line(format_args!("{:#}", shown(&variable)))?);
    }
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&variable.value)?;
    Ok(stdout.flush()?)
}

/// The version that a write has made.
fn done(name: &str, written: Written) -> Result<u64> {
    match written {
        Written::Done(version) => Ok(version),
        Written::Conflict(Some(there)) => {
            bail!(
                "nothing was changed: {name} is there in version {}",
                there.version
            )
        }
        Written::Conflict(None) => bail!("nothing was changed: there is no variable {name:?}"),
    }
}

fn describe(variable: &Variable) -> Value {
    json!({
        "name": variable.name,
        "version": variable.version,
        "bytes": variable.value.len(),
        "lease": variable.lease,
    })
}

/// With the value: as text where it is text, otherwise as bytes in hexadecimal.
fn shown(variable: &Variable) -> Value {
    let mut all = describe(variable);
    match std::str::from_utf8(&variable.value) {
        Ok(text) => all["value"] = json!(text),
        Err(_) => all["value_hex"] = json!(format!("{:x}", variable.value)),
    }
    all
}

async fn watch(context: &Context, state: &State, prefix: String) -> Result<()> {
    let mut watch = state.watch(prefix);
    loop {
        let change = watch.next().await?;
        if context.json {
            let line = match change {
                Change::Set(variable) => json!({ "set": shown(&variable) }),
                Change::Expunged(name) => json!({ "deleted": { "name": name } }),
                Change::Current(revision) => json!({ "current": { "revision": revision } }),
                // Of a later release.
                _ => continue,
            };
            output::line(format_args!("{line}"))?;
            continue;
        }
        match change {
            Change::Set(it) => {
                let (name, version) = (&it.name, it.version);
                let value = String::from_utf8_lossy(&it.value);
                // A line each, whatever is in the value.
                output::line(format_args!(
                    "set {name} {version} {}",
                    value.escape_debug()
                ))?;
            }
            Change::Expunged(name) => output::line(format_args!("deleted {name}"))?,
            // For programs: people see that nothing more comes.
            _ => {}
        }
    }
}
