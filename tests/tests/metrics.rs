//! The names of the metrics: dashboards made for Mesos go on working.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use tepui_tests::{cluster::Cluster, golden, http};

const AGENT: &[&str] = &[
    "--containerizers=process",
    "--resources=cpus:4;mem:2048;disk:4096;ports:[31000-31099]",
];

/// What a recorded Mesos showed.
fn recorded(file: &str) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(golden::folder().join(file))?;
    let all: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let snapshot = all.iter().find(|it| it["name"] == "GET /metrics/snapshot");
    names(&snapshot.context("the recorded snapshot")?["response"]["json"])
}

fn names(snapshot: &Value) -> Result<BTreeSet<String>> {
    let metrics = snapshot.as_object().context("an object of metrics")?;
    Ok(metrics.keys().cloned().collect())
}

#[test]
fn they_have_the_names_of_mesos() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(AGENT)?;
    let listed = std::fs::read_to_string(golden::folder().join("metrics-missing.tsv"))?;
    let servers = [
        ("master", cluster.master.address),
        ("agent", cluster.agents[0].address),
    ];
    for (server, address) in servers {
        let rows = listed.lines().filter_map(|line| {
            let mut columns = line.split('\t');
            (columns.next() == Some(server)).then(|| columns.next())?
        });
        let mut rows: BTreeSet<&str> = rows.collect();
        let recorded = recorded(&format!("1-one-agent-{server}-v0.jsonl"))?;
        let ours = names(&http::get(address, "/metrics/snapshot")?)?;
        let missing: Vec<_> = recorded.difference(&ours).collect();
        let covers = |row: &str, name: &str| match row.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => name == row,
        };
        for name in &missing {
            ensure!(
                rows.iter().any(|row| covers(row, name)),
                "{server}: {name} is missing"
            );
        }
        // A row that is not needed any more is to be deleted.
        rows.retain(|row| !missing.iter().any(|name| covers(row, name)));
        ensure!(rows.is_empty(), "{server}: not missing: {rows:?}");
    }
    Ok(())
}
