//! Reading a cluster by the names that clients use for its endpoints.

use anyhow::{Context, Result, ensure};
use tepui_tests::{cluster::Cluster, http};

/// Agents are called `slaves` by old clients and `agents` by new ones, with the prefix of
/// the master and without.
#[test]
fn agents_have_two_names() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    for _ in 0..2 {
        cluster.add_agent(&["--containerizers=process"])?;
    }
    let master = cluster.master.address;
    let known = http::get(master, "/slaves")?;
    let ids: Vec<&str> = known["slaves"]
        .as_array()
        .context("slaves")?
        .iter()
        .filter_map(|it| it["id"].as_str())
        .collect();
    ensure!(ids.len() == 2, "{known}");
    for path in ["/agents", "/master/agents", "/master/slaves"] {
        ensure!(http::get(master, path)? == known, "{path}");
        let one = http::get(master, &format!("{path}?slave_id={}", ids[1]))?;
        ensure!(one["slaves"][0]["id"] == ids[1], "{path}: {one}");
        ensure!(
            one["slaves"].as_array().map(Vec::len) == Some(1),
            "{path}: {one}"
        );
        let padded = http::get(master, &format!("{path}?jsonp=call"));
        ensure!(padded.is_err(), "{path}: JSONP is no JSON");
    }
    Ok(())
}
