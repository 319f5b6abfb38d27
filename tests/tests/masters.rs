//! Several masters: they form a cluster, lose one after the other, and forget nothing.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tepui_tests::{
    cluster::wait_for,
    http,
    masters::{ELECTION_PATIENCE, Masters},
    scheduler::{self, Scheduler},
};

fn set_weight(masters: &Masters, leader: usize, role: &str, weight: f64) -> Result<()> {
    let body = json!([{ "role": role, "weight": weight }]);
    let headers = [("Content-Type", "application/json")];
    let bytes = body.to_string();
    let address = masters.address(leader);
    let answer = http::send(address, "PUT", "/weights", &headers, bytes.as_bytes())?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    Ok(())
}

fn weights(masters: &Masters, leader: usize) -> Result<Value> {
    http::get(masters.address(leader), "/weights")
}

/// All start at once; the leader is killed; what was written is there, at the next one and,
/// when it comes back, at the first.
#[test]
fn three_masters_form_and_survive_one_after_the_other() -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    for round in 0..4 {
        let leader = masters.leader()?;
        set_weight(&masters, leader, &format!("role-{round}"), 2.0)?;
        masters.kill(leader)?;
        let next = masters.leader()?;
        ensure!(next != leader, "a dead master leads");
        let kept = weights(&masters, next)?;
        let count = kept.as_array().map_or(0, Vec::len);
        ensure!(count == round + 1, "{kept}");
        masters.run(leader)?;
        wait_for("the old leader to follow", ELECTION_PATIENCE, || {
            let expected = masters.address(next).to_string();
            Ok((masters.redirect(leader)? == Some(expected)).then_some(()))
        })?;
    }
    Ok(())
}

/// Started one by one, in any order; nothing is founded before all are there.
#[test]
fn founders_wait_for_each_other() -> Result<()> {
    let mut masters = Masters::named(3, &[])?;
    masters.run(2)?;
    masters.run(0)?;
    wait_for(
        "the first two to say what they wait for",
        http::PATIENCE,
        || {
            let output = masters.process(0)?.output();
            let waits = output.contains(&format!("{} does not", masters.masters[1].raft_address));
            Ok(waits.then_some(()))
        },
    )?;
    let answer = http::send(masters.address(0), "GET", "/weights", &[], b"")?;
    ensure!(answer.status == 503, "{}", answer.status);
    masters.run(1)?;
    masters.leader()?;
    Ok(())
}

/// A master that lost its quorum answers nobody, in the same process; it follows when the
/// others are back.
#[test]
fn a_leader_without_a_quorum_stops_serving() -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    let leader = masters.leader()?;
    let pid = masters.process(leader)?.id();
    let others: Vec<usize> = (0..3).filter(|it| *it != leader).collect();
    for other in &others {
        masters.kill(*other)?;
    }
    wait_for("the leader to step down", ELECTION_PATIENCE, || {
        let answer = http::send(masters.address(leader), "GET", "/weights", &[], b"")?;
        Ok((answer.status == 503).then_some(()))
    })?;
    for other in &others {
        masters.run(*other)?;
    }
    let next = masters.leader()?;
    set_weight(&masters, next, "after", 2.0)?;
    ensure!(masters.process(leader)?.id() == pid, "it was restarted");
    Ok(())
}

/// A task outlives the leader that launched it, and its update arrives at the next one.
#[test]
fn a_task_outlives_its_masters() -> Result<()> {
    let mut masters = Masters::start(3, &[])?;
    masters.add_agent(&["--containerizers=process", "--resources=cpus:4;mem:1024"])?;
    let leader = masters.leader()?;
    let info = json!({
        "user": "root", "name": "survivor", "roles": ["*"], "failover_timeout": 3600.0,
        "id": { "value": "survivor" },
        "capabilities": [{ "type": "MULTI_ROLE" }],
    });
    let mut first = Scheduler::subscribe(masters.address(leader), info.clone())?;
    let offer = first.offer(|_| true)?;
    let task = scheduler::task("outlives", &offer, 0.5, 64.0, "sleep 1000");
    first.launch(&offer, vec![task])?;
    first.wait_for_state("outlives", "TASK_RUNNING")?;

    masters.kill(leader)?;
    let next = masters.leader()?;
    let tasks = http::get(masters.address(next), "/tasks")?;
    let found = tasks["tasks"].as_array().context("tasks")?;
    ensure!(
        found
            .iter()
            .any(|it| it["id"] == "outlives" && it["state"] == "TASK_RUNNING"),
        "{tasks}"
    );
    let mut again = Scheduler::subscribe(masters.address(next), info)?;
    masters.wait_for_agent(0)?;
    let kill = json!({ "type": "KILL", "kill": { "task_id": { "value": "outlives" } } });
    again.accepted(kill)?;
    again.wait_for_state("outlives", "TASK_KILLED")?;
    Ok(())
}
