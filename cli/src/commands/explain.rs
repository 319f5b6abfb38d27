//! `tepui explain`: why a framework or a role is offered what it is offered now.

use crate::{
    Context,
    api::{Api, text},
    output,
};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::process::ExitCode;
use tepui_model::{
    Resources,
    operator::{Explanation, explanation::Client},
};
use tepui_proto::json;

/// Options of `tepui explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The framework's id, or an unambiguous beginning or end of it, or its name
    #[arg(required_unless_present = "role")]
    framework: Option<String>,
    /// A role: the framework in it, or all frameworks in it and below it
    #[arg(long)]
    role: Option<String>,
}

/// Asks the master, and prints one line for each group of agents.
pub(crate) async fn run(context: &Context, options: Options) -> Result<ExitCode> {
    let api = Api::new(context)?;
    let framework = match &options.framework {
        Some(wanted) => Some(find(&api, wanted).await?),
        None => None,
    };
    let mut query = Vec::new();
    if let Some(id) = &framework {
        query.push(("framework", id.as_str()));
    }
    if let Some(role) = &options.role {
        query.push(("role", role.as_str()));
    }
    let answer = api.master("/allocator/explain", &query).await?;
    if context.json {
        output::line(format_args!("{answer:#}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let answer: Explanation =
        json::from_value(&answer).context("/allocator/explain is of another release")?;
    if answer.clients.is_empty() {
        output::line(format_args!("nobody is subscribed there"))?;
    }
    for it in &answer.clients {
        client(it)?;
    }
    let (agents, looked_at) = (answer.agents, answer.agents_looked_at);
    if looked_at < agents {
        output::line(format_args!(
            "{looked_at} of {agents} agents were looked at"
        ))?;
    }
    if !answer.complete {
        output::line(format_args!(
            "a cycle is under way: some of this may be about to change"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn client(client: &Client) -> Result<()> {
    let place = match client.place {
        Some(place) => format!("served as number {place}"),
        None => "not served".to_owned(),
    };
    let (id, role) = (&client.framework_id.value, &client.role);
    output::line(format_args!("{id} in role {role}: {place}"))?;
    if client.dormant {
        output::line(format_args!(
            "  it let offers lie that others could use, and is served after all others"
        ))?;
    }
    if let Some(silent) = &client.silent {
        output::line(format_args!("  gets nothing: {silent}"))?;
    }
    for it in &client.gets {
        let agent = &it.agent_id.value;
        let resources = Resources::from_wire(&it.resources)?;
        output::line(format_args!("  gets of {agent} now: {resources}"))?;
    }
    for it in &client.reasons {
        let until = it.last_ends_in_seconds.map_or(String::new(), |last| {
            let first = it.first_ends_in_seconds.unwrap_or(last);
            format!(", for {first:.1} to {last:.1} s more")
        });
        let (agents, example) = (it.agents, &it.example.value);
        let (reason, message) = (&it.reason, &it.message);
        output::line(format_args!(
            "  {agents:>7} agents  {reason:<22} {message}{until} (such as {example})"
        ))?;
    }
    Ok(())
}

/// The id of the framework that is meant.
async fn find(api: &Api, wanted: &str) -> Result<String> {
    let answer = api.master("/frameworks", &[]).await?;
    let none = Vec::new();
    let all = answer["frameworks"].as_array().unwrap_or(&none);
    let of = |is: &dyn Fn(&Value) -> bool| -> Vec<String> {
        let found = all.iter().filter(|it| is(it));
        found.map(|it| text(it, "id").to_owned()).collect()
    };
    let mut found = of(&|it| text(it, "id") == wanted);
    if found.is_empty() {
        found = of(&|it| {
            let id = text(it, "id");
            text(it, "name") == wanted || id.starts_with(wanted) || id.ends_with(wanted)
        });
    }
    match found.as_slice() {
        [] => bail!("no framework {wanted:?}; `tepui frameworks` lists them"),
        [id] => Ok(id.clone()),
        several => bail!("{wanted:?} may be any of {}", several.join(", ")),
    }
}
