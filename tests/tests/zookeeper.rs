//! Old clients find the leader in ZooKeeper: Debian's server, kazoo as it is on PyPI.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::time::Duration;
use tepui_tests::{
    cluster::wait_for,
    http,
    masters::{ELECTION_PATIENCE, Masters, command},
    zookeeper::ZooKeeper,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// Of a session; what has to happen at once happens in less.
const SESSION: Duration = Duration::from_secs(15);

fn flags(zookeeper: &ZooKeeper) -> [String; 2] {
    [
        format!("--zk={}", zookeeper.url("", "/some/mesos")),
        format!("--zk_session_timeout={}secs", SESSION.as_secs()),
    ]
}

fn masters(count: usize, zookeeper: &ZooKeeper) -> Result<Masters> {
    let flags = flags(zookeeper);
    Masters::start(count, &flags.each_ref().map(String::as_str))
}

/// Through the death, the pause and the orderly end of leaders: the one node is the leader's,
/// long before the session of the one before has ended.
#[test]
fn the_one_node_is_the_leaders() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let mut masters = masters(3, &zookeeper)?;
    let client = zookeeper.watch("/some/mesos")?;
    let first = masters.leader()?;
    let port = masters.address(first).port();
    let (node, info, _) = client.finds(port, PATIENCE)?;
    ensure!(node.len() == "json.info_".len() + 10, "{node}");
    let state = http::get(masters.address(first), "/state")?;
    let address = json!({ "hostname": "127.0.0.1", "ip": "127.0.0.1", "port": port });
    ensure!(info["address"] == address, "{info}");
    ensure!(info["id"] == state["id"], "{info}");
    ensure!(info["pid"] == format!("master@127.0.0.1:{port}"), "{info}");
    ensure!(info["ip"] == 16_777_343, "{info}");
    ensure!(info["hostname"] == "127.0.0.1", "{info}");
    ensure!(info["version"] == state["version"], "{info}");
    ensure!(info["capabilities"][0]["type"].is_string(), "{info}");

    // Killed: the next leader takes the node away.
    masters.kill(first)?;
    let second = masters.leader()?;
    let (_, _, took) = client.finds(masters.address(second).port(), PATIENCE)?;
    ensure!(took < SESSION / 2, "{took:?}");
    masters.run(first)?;
    wait_for("the first to follow", ELECTION_PATIENCE, || {
        let leader = masters.address(second).to_string();
        Ok((masters.redirect(first)? == Some(leader)).then_some(()))
    })?;

    // Paused: it comes back while its session lives, and changes nothing.
    masters.pause(second)?;
    let third = masters.leader_but(second)?;
    let port = masters.address(third).port();
    let (node, _, took) = client.finds(port, PATIENCE)?;
    ensure!(took < SESSION / 2, "{took:?}");
    masters.resume(second)?;
    wait_for("the second to follow", ELECTION_PATIENCE, || {
        let leader = masters.address(third).to_string();
        Ok((masters.redirect(second)? == Some(leader)).then_some(()))
    })?;
    let (after, _, _) = client.finds(port, PATIENCE)?;
    ensure!(after == node, "{after} instead of {node}");

    // Stopped in order: the node goes with it.
    for index in 0..3 {
        let process = masters.process(index)?;
        process.signal(rustix::process::Signal::TERM)?;
    }
    let took = client.finds_nobody(PATIENCE)?;
    ensure!(took < SESSION / 2, "{took:?}");
    // Never two at a time.
    for seen in client.seen() {
        let nodes = seen["nodes"].as_array().map_or(0, Vec::len);
        ensure!(nodes <= 1, "{seen}");
    }
    Ok(())
}

/// ZooKeeper comes late, goes, comes back with and without its memory: the master serves all
/// the while, and is published whenever it can be.
#[test]
fn zookeeper_may_come_and_go() -> Result<()> {
    let mut zookeeper = ZooKeeper::named()?;
    let masters = masters(1, &zookeeper)?;
    let (address, port) = (masters.address(0), masters.address(0).port());
    zookeeper.run()?;
    let client = zookeeper.watch("/some/mesos")?;
    let (node, info, _) = client.finds(port, PATIENCE)?;

    zookeeper.kill()?;
    ensure!(http::get(address, "/state")?["id"] == info["id"]);
    zookeeper.run()?;
    // The session goes on, and the node with it.
    wait_for("the master to be connected again", PATIENCE, || {
        let output = masters.process(0)?.output();
        Ok((output.matches("connected to ZooKeeper").count() == 2).then_some(()))
    })?;
    let (again, _, _) = client.finds(port, PATIENCE)?;
    ensure!(again == node, "{again} instead of {node}");

    zookeeper.kill()?;
    zookeeper.wipe()?;
    ensure!(http::get(address, "/state")?["id"] == info["id"]);
    zookeeper.run()?;
    wait_for("the old session to be over", PATIENCE, || {
        let output = masters.process(0)?.output();
        Ok(output.contains("session has expired").then_some(()))
    })?;
    // A client of its own: one that has seen more than the server knows keeps away from it.
    let client = zookeeper.watch("/some/mesos")?;
    let (_, again, _) = client.finds(port, PATIENCE)?;
    ensure!(again["id"] == info["id"], "{again}");
    Ok(())
}

/// With credentials nobody else may touch the node; an agent finds the leader by it and goes
/// with the leaders.
#[test]
fn agents_find_masters_behind_credentials() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let url = zookeeper.url("who:pass@word@", "/mesos");
    let zk = format!("--zk={url}");
    let mut masters = Masters::start(3, &[&zk])?;
    let leader = masters.leader()?;
    let client = zookeeper.watch("/mesos")?;
    client.finds(masters.address(leader).port(), PATIENCE)?;
    let acl = zookeeper.old_client("acl", "/mesos")?;
    ensure!(acl["deleted"] == false, "{acl}");
    ensure!(acl["acls"][0][0] == "digest", "{acl}");
    ensure!(acl["acls"][0][2] == 31, "{acl}");
    ensure!(acl["acls"][1] == json!(["world", "anyone", 1]), "{acl}");
    let flags = http::get(masters.address(leader), "/flags")?;
    ensure!(!flags.to_string().contains("pass"), "{flags}");

    let agent_flags = ["--containerizers=process", "--resources=cpus:1;mem:64"];
    masters.add_agent_of(&url, &agent_flags)?;

    // One that it has not heard of yet: all its links are to masters that are gone.
    masters.kill(leader)?;
    let next = masters.leader()?;
    client.finds(masters.address(next).port(), PATIENCE)?;
    masters.wait_for_agent(0)
}

/// pymesos follows the leader through ZooKeeper; its tasks do not notice.
#[test]
fn a_framework_of_pymesos_follows_the_leader() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let mut masters = masters(3, &zookeeper)?;
    masters.add_agent(&[
        "--containerizers=process",
        "--resources=cpus:4;mem:1024;disk:1024;ports:[31000-31100]",
    ])?;
    let mut leader = masters.leader()?;
    // pymesos gives up looking, and says nothing, where the path does not exist yet.
    let port = masters.address(leader).port();
    zookeeper.watch("/some/mesos")?.finds(port, PATIENCE)?;
    let framework = zookeeper.framework("/some/mesos")?;
    for round in 0..3 {
        let port = masters.address(leader).port();
        let ended = json!({ "task": format!("ends-{round}"), "state": "TASK_FINISHED" });
        // pymesos sleeps between its tries at a master that is gone.
        wait_for("a task at this leader", PATIENCE * 3, || {
            let seen = framework.seen();
            let subscribed = seen.iter().any(|it| it["master"] == port);
            Ok((subscribed && seen.contains(&ended)).then_some(()))
        })
        .with_context(|| format!("round {round}, master {port}: {}", framework.output()))?;
        // Once it dies, once it is stopped in order. (One that is only frozen holds pymesos as
        // long as a call to it waits, with Mesos too.)
        match round {
            0 => masters.kill(leader)?,
            1 => {
                let process = masters.process(leader)?;
                process.signal(rustix::process::Signal::TERM)?;
            }
            _ => break,
        }
        let gone = leader;
        leader = masters.leader_but(gone)?;
        masters.restart(gone)?;
    }
    wait_for("the one task that stays", PATIENCE, || {
        let state = http::get(masters.address(leader), "/state")?;
        let tasks = &state["frameworks"][0]["tasks"];
        let one = tasks.as_array().is_some_and(|it| it.len() == 1);
        Ok((one && tasks[0]["state"] == "TASK_RUNNING").then_some(()))
    })?;
    for seen in framework.seen() {
        let bad = seen["error"].is_string() || seen["state"] == "TASK_LOST";
        ensure!(!bad, "{seen}");
    }
    Ok(())
}

/// The command line finds the leader there, as the agents do.
#[test]
fn the_command_line_finds_the_leader() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let url = zookeeper.url("", "/some/mesos");
    let mut masters = masters(3, &zookeeper)?;
    for _ in 0..2 {
        let leader = masters.leader()?;
        let address = masters.address(leader).to_string();
        wait_for("the leader to be published", PATIENCE, || {
            let list = command(&url, &["list"])?;
            let leads = |it: &str| it.contains(" leader ") && it.contains(&address);
            Ok(list.lines().any(leads).then_some(()))
        })?;
        masters.kill(leader)?;
    }
    let error = command(&zookeeper.url("", "/nobody"), &["list"]);
    let error = error.err().context("found")?.to_string();
    ensure!(error.contains("names no master that leads"), "{error}");
    Ok(())
}
