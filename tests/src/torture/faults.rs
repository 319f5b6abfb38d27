//! What is done to a cluster, one at a time.

use super::{nodes::Nodes, workload::Random};
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::{fs::File, io::Write, time::Duration};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of the leader, which is started again after a while.
    KillLeader,
    /// The same with a follower.
    KillFollower,
    /// The leader stands still for a while, and goes on as if nothing had been.
    PauseLeader,
    /// The leader is cut off from the other masters, not from agents and frameworks.
    PartLeader,
    /// The leader is cut off from everybody.
    IsolateLeader,
    /// The leader reaches the others and does not hear them.
    DeafLeader,
    /// A follower is cut off from everybody.
    IsolateFollower,
    /// All masters but the leader are killed: nobody has a quorum for a while.
    LoseQuorum,
    /// Every master is killed at once.
    KillMasters,
    /// `SIGTERM` and a new start of every master, one after the other.
    RollMasters,
    /// The leader's disk is full for a while.
    FillDisk,
    /// One master after the other loses its disk and comes back as another member, until none of
    /// those of before is left.
    ReplaceMembers,
    /// `kill -9` of an agent, which is started again.
    KillAgent,
    /// An agent stands still for a while.
    PauseAgent,
    /// An agent is cut off from everybody for a while.
    IsolateAgent,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Fault; 15] = [
        Fault::KillLeader,
        Fault::KillFollower,
        Fault::PauseLeader,
        Fault::PartLeader,
        Fault::IsolateLeader,
        Fault::DeafLeader,
        Fault::IsolateFollower,
        Fault::LoseQuorum,
        Fault::KillMasters,
        Fault::RollMasters,
        Fault::FillDisk,
        Fault::ReplaceMembers,
        Fault::KillAgent,
        Fault::PauseAgent,
        Fault::IsolateAgent,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::KillLeader => "kill-leader",
            Fault::KillFollower => "kill-follower",
            Fault::PauseLeader => "pause-leader",
            Fault::PartLeader => "part-leader",
            Fault::IsolateLeader => "isolate-leader",
            Fault::DeafLeader => "deaf-leader",
            Fault::IsolateFollower => "isolate-follower",
            Fault::LoseQuorum => "lose-quorum",
            Fault::KillMasters => "kill-masters",
            Fault::RollMasters => "roll-masters",
            Fault::FillDisk => "fill-disk",
            Fault::ReplaceMembers => "replace-members",
            Fault::KillAgent => "kill-agent",
            Fault::PauseAgent => "pause-agent",
            Fault::IsolateAgent => "isolate-agent",
        }
    }

    /// By its name.
    pub fn parse(name: &str) -> Option<Fault> {
        Fault::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// How long a master that was told to end may take.
const END: Duration = Duration::from_secs(20);
/// How long the next one waits for the cluster during a rolling restart.
const SETTLE: Duration = Duration::from_secs(60);

/// Injects a fault, lets it last, and heals it; returns the victim's name.
///
/// # Errors
/// What could not be done.
pub async fn inject(fault: Fault, nodes: &mut Nodes, random: &mut Random) -> Result<String> {
    let leader = nodes.leader(SETTLE).await?;
    let masters = nodes.masters.len() as u64;
    let follower = match masters {
        1 => leader,
        _ => (leader + 1 + random.below(masters - 1) as usize) % nodes.masters.len(),
    };
    let agent = random.below(nodes.agents.len() as u64) as usize;
    let last = Duration::from_millis(1000 + random.below(3000));
    let pause = || tokio::time::sleep(last);
    match fault {
        Fault::KillLeader | Fault::KillFollower => {
            let victim = if fault == Fault::KillLeader {
                leader
            } else {
                follower
            };
            let node = &mut nodes.masters[victim];
            node.kill()?;
            pause().await;
            node.start()?;
            Ok(node.name.clone())
        }
        Fault::PauseLeader => {
            let node = &mut nodes.masters[leader];
            node.signal(Signal::STOP)?;
            pause().await;
            node.signal(Signal::CONT)?;
            Ok(node.name.clone())
        }
        Fault::PartLeader | Fault::DeafLeader => {
            let place = nodes.masters[leader].place;
            for (index, other) in nodes.masters.iter().enumerate() {
                if index == leader {
                    continue;
                }
                match fault {
                    Fault::PartLeader => place.cut_off_from(other.place.address())?,
                    _ => place.deafen_to(other.place.address())?,
                }
            }
            pause().await;
            place.heal()?;
            Ok(nodes.masters[leader].name.clone())
        }
        Fault::IsolateLeader | Fault::IsolateFollower | Fault::IsolateAgent => {
            let node = match fault {
                Fault::IsolateLeader => &nodes.masters[leader],
                Fault::IsolateFollower => &nodes.masters[follower],
                _ => &nodes.agents[agent],
            };
            node.place.cut_off()?;
            pause().await;
            node.place.heal()?;
            Ok(node.name.clone())
        }
        Fault::LoseQuorum | Fault::KillMasters => {
            let spared = (fault == Fault::LoseQuorum).then_some(leader);
            for (index, node) in nodes.masters.iter_mut().enumerate() {
                if Some(index) != spared {
                    node.kill()?;
                }
            }
            pause().await;
            for node in &mut nodes.masters {
                node.start()?;
            }
            Ok("all".to_owned())
        }
        Fault::RollMasters => {
            for index in 0..nodes.masters.len() {
                nodes.masters[index].signal(Signal::TERM)?;
                nodes.masters[index].ended(END).await?;
                nodes.masters[index].start()?;
                nodes.leader(SETTLE).await?;
                nodes.attached(SETTLE).await?;
            }
            Ok("all".to_owned())
        }
        // Whoever is alone has no disk to lose.
        Fault::ReplaceMembers if masters < 3 => Ok("none".to_owned()),
        Fault::ReplaceMembers => {
            for index in 0..nodes.masters.len() {
                let old = nodes.voter_but(index, None, SETTLE).await?;
                nodes.masters[index].kill()?;
                nodes.wipe(index)?;
                nodes.masters[index].start()?;
                nodes.voter_but(index, Some(old), SETTLE).await?;
                nodes.attached(SETTLE).await?;
            }
            Ok("all".to_owned())
        }
        Fault::FillDisk => {
            let node = &mut nodes.masters[leader];
            let filler = node.work_dir.join("filler");
            fill(&filler).context("filling the disk")?;
            pause().await;
            std::fs::remove_file(&filler)?;
            // It may have ended, saying why, or not have needed room meanwhile.
            node.start()?;
            Ok(node.name.clone())
        }
        Fault::KillAgent => {
            let node = &mut nodes.agents[agent];
            node.kill()?;
            pause().await;
            node.start()?;
            Ok(node.name.clone())
        }
        Fault::PauseAgent => {
            let node = &mut nodes.agents[agent];
            node.signal(Signal::STOP)?;
            pause().await;
            node.signal(Signal::CONT)?;
            Ok(node.name.clone())
        }
    }
}

/// Writes until there is no room left.
fn fill(path: &std::path::Path) -> Result<()> {
    let mut file = File::create(path)?;
    let mut size = 1 << 20;
    while size > 0 {
        match file.write(&vec![0; size]) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => size /= 2,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
