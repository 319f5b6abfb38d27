//! Our answers beside those of a real Mesos, exchange by exchange.

use anyhow::Result;
use std::collections::BTreeMap;
use tepui_tests::{
    cluster::Cluster,
    golden::{self, Differences},
    scheduler::Scheduler,
};

/// What the recorded agent was started with.
const AGENT: &[&str] = &[
    "--resources=cpus:8;mem:8192;disk:20000;ports:[31000-32000]",
    "--attributes=rack:r1;zone:z2;cores:8",
    "--containerizers=process",
];

/// Ids in the recorded files.
const MASTER_ID: &str = "2ac423c5-14ad-4a7f-ac56-8fdfb83fb39a";
const STREAM_ID: &str = "c4547a6c-d835-4101-a661-6efd589d08be";

/// Repeats the exchanges of `files` and collects every difference that nobody meant.
fn replay(
    cluster: &Cluster,
    files: &[&str],
    replacements: &BTreeMap<String, String>,
) -> Result<Vec<String>> {
    let differences = Differences::load()?;
    let mut findings = Vec::new();
    for file in files {
        for exchange in golden::load(file, replacements)? {
            // The answer to a subscription is a stream; the stream tests repeat those.
            let streams = exchange.response["headers"]["Mesos-Stream-Id"].is_string();
            if streams || exchange.response["records"].is_array() {
                continue;
            }
            let address = match exchange.server.as_str() {
                "agent" => match cluster.agents.first() {
                    Some(agent) => agent.address,
                    None => continue,
                },
                _ => cluster.master.address,
            };
            let answer = golden::replay(&exchange, address)?;
            findings.extend(golden::check(&exchange, answer.as_ref(), &differences));
        }
    }
    Ok(findings)
}

fn assert_none(findings: &[String]) {
    assert!(
        findings.is_empty(),
        "{} differences from the recorded answers:\n{}",
        findings.len(),
        findings.join("\n")
    );
}

#[test]
fn a_master_alone_answers_as_recorded() -> Result<()> {
    let cluster = Cluster::start(&[])?;
    let files = ["0-master-alone-master-v0", "0-master-alone-master-v1"];
    assert_none(&replay(&cluster, &files, &BTreeMap::new())?);
    Ok(())
}

#[test]
fn a_master_and_an_agent_answer_as_recorded() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    let files = [
        "1-one-agent-master-v0",
        "1-one-agent-master-v1",
        "1-one-agent-agent-v0",
        "1-one-agent-agent-v1",
    ];
    assert_none(&replay(&cluster, &files, &BTreeMap::new())?);
    Ok(())
}

#[test]
fn malformed_requests_are_refused_as_recorded() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    let scheduler = Scheduler::plain(cluster.master.address, "golden-fw")?;
    let agent_id = cluster_agent_id(&cluster)?;
    let replacements = BTreeMap::from([
        (format!("{MASTER_ID}-0000"), scheduler.framework_id.clone()),
        (format!("{MASTER_ID}-S0"), agent_id),
        (STREAM_ID.to_owned(), scheduler.stream_id.clone()),
    ]);
    assert_none(&replay(&cluster, &["malformed"], &replacements)?);
    Ok(())
}

fn cluster_agent_id(cluster: &Cluster) -> Result<String> {
    let slaves = tepui_tests::http::get(cluster.master.address, "/slaves")?;
    let id = slaves["slaves"][0]["id"].as_str().unwrap_or_default();
    Ok(id.to_owned())
}
