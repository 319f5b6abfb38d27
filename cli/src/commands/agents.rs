//! `tepui agents`: the machines.

use crate::{
    Context,
    api::{self, Api, text},
    output::{self, Column},
};
use anyhow::Result;
use std::process::ExitCode;

/// Options of `tepui agents`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}

const COLUMNS: &[Column] = &[
    ("AGENT", |agent| text(agent, "id").to_owned()),
    ("ADDRESS", |agent| {
        let pid = text(agent, "pid");
        pid.split_once('@').map_or(pid, |(_, it)| it).to_owned()
    }),
    ("STATE", |agent| {
        let deactivated = agent["deactivated"].as_bool().unwrap_or_default();
        let active = agent["active"].as_bool().unwrap_or_default();
        match (deactivated, active) {
            (true, _) => "deactivated",
            (false, true) => "active",
            (false, false) => "disconnected",
        }
        .to_owned()
    }),
    ("USED", |agent| output::resources(&agent["used_resources"])),
    ("OFFERED", |agent| {
        output::resources(&agent["offered_resources"])
    }),
    ("TOTAL", |agent| output::resources(&agent["resources"])),
    ("ATTRIBUTES", |agent| {
        let attributes = agent["attributes"].as_object();
        let pairs = attributes.into_iter().flatten().map(|(name, value)| {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            format!("{name}={value}")
        });
        pairs.collect::<Vec<_>>().join(" ")
    }),
];

/// Lists the agents.
pub(crate) async fn run(context: &Context, _options: Options) -> Result<ExitCode> {
    let answer = Api::new(context)?.master("/slaves", &[]).await?;
    output::print(context, &api::list(answer, "slaves")?, COLUMNS)?;
    Ok(ExitCode::SUCCESS)
}
