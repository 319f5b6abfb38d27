//! Several masters on loopback, each a process that can be killed, paused, restarted or wiped.

use crate::{
    cluster::{self, Process, free_port, start_agent, wait_for},
    http, leftovers,
};
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

/// How long a cluster may take to have a leader that everybody knows.
pub const ELECTION_PATIENCE: Duration = Duration::from_secs(20);

/// One master of several.
#[derive(Debug)]
pub struct Master {
    /// While it runs.
    pub process: Option<Process>,
    /// Where clients reach it.
    pub address: SocketAddr,
    /// Where masters reach it, as host:port.
    pub raft_address: String,
    /// Its `--work_dir`.
    pub work_dir: PathBuf,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
}

/// Several masters and some agents. Masters keep their ports for life.
#[derive(Debug)]
pub struct Masters {
    /// In the order in which they were named or joined.
    pub masters: Vec<Master>,
    /// The agents, in the order in which they were started.
    pub agents: Vec<Process>,
    folder: TempDir,
    flags: Vec<String>,
}

impl Masters {
    /// Founds a cluster of `count` masters, each with the flags given, and waits for a leader.
    ///
    /// # Errors
    /// When there is none.
    pub fn start(count: usize, flags: &[&str]) -> Result<Masters> {
        let mut masters = Masters::named(count, flags)?;
        for index in 0..count {
            masters.run(index)?;
        }
        masters.leader()?;
        Ok(masters)
    }

    /// Chooses ports for `count` masters and starts none of them.
    ///
    /// # Errors
    /// When there are no ports or no folder.
    pub fn named(count: usize, flags: &[&str]) -> Result<Masters> {
        let folder = tempfile::Builder::new().prefix("tepui-test-").tempdir()?;
        let mut masters = Masters {
            masters: Vec::new(),
            agents: Vec::new(),
            folder,
            flags: flags.iter().map(|it| (*it).to_owned()).collect(),
        };
        for _ in 0..count {
            masters.name(&[])?;
        }
        let all: Vec<&str> = masters.masters.iter().map(|it| &*it.raft_address).collect();
        let peers = format!("--peers={}", all.join(","));
        for master in &mut masters.masters {
            master.flags.push(peers.clone());
        }
        Ok(masters)
    }

    fn name(&mut self, flags: &[&str]) -> Result<usize> {
        let index = self.masters.len();
        let raft_port = free_port()?;
        let mut all = vec![format!("--raft_port={raft_port}")];
        all.extend_from_slice(&self.flags);
        all.extend(flags.iter().map(|it| (*it).to_owned()));
        self.masters.push(Master {
            process: None,
            address: (Ipv4Addr::LOCALHOST, free_port()?).into(),
            raft_address: format!("127.0.0.1:{raft_port}"),
            work_dir: self.folder.path().join(format!("master-{index}")),
            flags: all,
            environment: Vec::new(),
        });
        Ok(index)
    }

    /// Starts a master that joins the others, or waits to be invited; returns at once.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn join(&mut self, join: &str) -> Result<usize> {
        let index = self.name(&[&format!("--join={join}")])?;
        self.run(index)?;
        Ok(index)
    }

    /// Starts a master that does not run, with what its disk holds; returns at once.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&mut self, index: usize) -> Result<()> {
        let folder = self.folder.path().to_owned();
        let master = &mut self.masters[index];
        ensure!(master.process.is_none(), "master {index} runs already");
        let process = cluster::start(
            "tepui-master",
            &folder,
            master.work_dir.clone(),
            master.address,
            &master.flags,
            &master.environment,
        )?;
        master.process = Some(process);
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self, index: usize) -> Result<()> {
        match self.masters[index].process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Kills a master if it runs, and starts it again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        self.kill(index)?;
        self.run(index)
    }

    /// Kills a master and takes its disk.
    ///
    /// # Errors
    /// When the disk cannot be taken.
    pub fn wipe(&mut self, index: usize) -> Result<()> {
        self.kill(index)?;
        Ok(std::fs::remove_dir_all(&self.masters[index].work_dir)?)
    }

    /// `SIGSTOP`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, index: usize) -> Result<()> {
        self.process(index)?.signal(Signal::STOP)
    }

    /// `SIGCONT`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, index: usize) -> Result<()> {
        self.process(index)?.signal(Signal::CONT)
    }

    /// The process of a master that runs.
    ///
    /// # Errors
    /// When it does not.
    pub fn process(&self, index: usize) -> Result<&Process> {
        let process = self.masters[index].process.as_ref();
        process.with_context(|| format!("master {index} does not run"))
    }

    /// Replaces the flags with which a master starts next time.
    pub fn set_flags(&mut self, index: usize, change: impl FnOnce(&mut Vec<String>)) {
        change(&mut self.masters[index].flags);
    }

    /// Replaces what a master finds in its environment next time, beside what is there.
    pub fn set_environment(&mut self, index: usize, variables: &[(&str, &str)]) {
        let owned = |it: &(&str, &str)| (it.0.to_owned(), it.1.to_owned());
        self.masters[index].environment = variables.iter().map(owned).collect();
    }

    /// Client address of one.
    pub fn address(&self, index: usize) -> SocketAddr {
        self.masters[index].address
    }

    /// Client addresses of all, as `--master` takes them.
    pub fn addresses(&self) -> String {
        let all: Vec<String> = self
            .masters
            .iter()
            .map(|it| it.address.to_string())
            .collect();
        all.join(",")
    }

    /// The folder of everything that the cluster writes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The master that serves at this moment, if any does.
    pub fn leader_now(&self) -> Option<usize> {
        let serves = |index: &usize| {
            let answer = http::send(self.address(*index), "GET", "/weights", &[], b"");
            answer.is_ok_and(|it| it.status == 200)
        };
        let running = |index: &usize| self.masters[*index].process.is_some();
        (0..self.masters.len()).filter(running).find(serves)
    }

    /// Waits until one of the masters serves.
    ///
    /// # Errors
    /// When none does.
    pub fn leader(&self) -> Result<usize> {
        let found = wait_for("a leader", ELECTION_PATIENCE, || Ok(self.leader_now()));
        found.with_context(|| self.tails())
    }

    /// The last that each of them wrote, and how it stands.
    fn tails(&self) -> String {
        let tails = self.masters.iter().map(|it| match &it.process {
            Some(process) => {
                let list = http::send(it.address, "GET", "/tepui/v1/masters?stale=true", &[], b"");
                let list = list.map(|it| String::from_utf8_lossy(&it.body).into_owned());
                format!("{}\n{list:?}", process.tail())
            }
            None => format!("{} does not run", it.address),
        });
        tails.collect::<Vec<_>>().join("\n")
    }

    /// Waits until one of the masters serves that is not `old`.
    ///
    /// # Errors
    /// When none does.
    pub fn leader_but(&self, old: usize) -> Result<usize> {
        wait_for("another leader", ELECTION_PATIENCE, || {
            Ok(self.leader_now().filter(|it| *it != old))
        })
    }

    /// Where a master sends clients: the address in its redirect, if it knows a leader.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn redirect(&self, index: usize) -> Result<Option<String>> {
        let answer = http::send(self.address(index), "GET", "/master/redirect", &[], b"")?;
        let location = answer
            .header("location")
            .map(|it| it.trim_matches('/').to_owned());
        Ok(location.filter(|_| answer.status == 307))
    }

    /// The leader's list of masters.
    ///
    /// # Errors
    /// When nobody has it.
    pub fn list(&self) -> Result<Value> {
        let leader = self.leader()?;
        http::get(self.address(leader), "/tepui/v1/masters")
    }

    /// Something that is in the log, under a name of its own: a weight of 2 for a role.
    ///
    /// # Errors
    /// When nobody takes it.
    pub fn set_weight(&self, role: &str) -> Result<()> {
        let body = json!([{ "role": role, "weight": 2.0 }]).to_string();
        let headers = [("Content-Type", "application/json")];
        wait_for("a write", ELECTION_PATIENCE, || {
            let Some(leader) = self.leader_now() else {
                return Ok(None);
            };
            let address = self.address(leader);
            let answer = http::send(address, "PUT", "/weights", &headers, body.as_bytes())?;
            Ok((answer.status == 200).then_some(()))
        })
    }

    /// The roles that have weights, as the leader knows them.
    ///
    /// # Errors
    /// When there is no leader.
    pub fn roles(&self) -> Result<Vec<String>> {
        let leader = self.leader()?;
        let weights = http::get(self.address(leader), "/weights")?;
        let roles = weights.as_array().context("weights")?.iter();
        Ok(roles
            .filter_map(|it| it["role"].as_str().map(str::to_owned))
            .collect())
    }

    /// The leader's entry for the master with this index, if it has one.
    ///
    /// # Errors
    /// When there is no leader.
    pub fn entry(&self, index: usize) -> Result<Option<Value>> {
        let list = self.list()?;
        let raft_address = &self.masters[index].raft_address;
        let mut found = list["masters"].as_array().context("masters")?.iter();
        let newest = found.rfind(|it| it["raft_address"] == **raft_address);
        Ok(newest.cloned())
    }

    /// Waits until a master votes and is connected; its id.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn wait_for_voter(&self, index: usize) -> Result<u64> {
        wait_for("a vote for the new master", http::PATIENCE, || {
            let entry = self.entry(index)?.context("not a member yet")?;
            let votes = entry["votes"] == true && entry["connected"] == true;
            Ok(votes.then_some(entry["id"].as_u64()).flatten())
        })
    }

    /// Waits until a master has everything that the leader has.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn wait_for_follower(&self, index: usize) -> Result<()> {
        wait_for("it to follow", http::PATIENCE, || {
            let entry = self.entry(index)?.context("entry")?;
            let follows = entry["connected"] == true && entry["entries_behind"] == 0;
            Ok(follows.then_some(()))
        })
    }

    /// Waits until a master that runs has written `text` to its log.
    ///
    /// # Errors
    /// When it does not run, or does not.
    pub fn wait_for_word(&self, index: usize, text: &str) -> Result<()> {
        wait_for(text, http::PATIENCE, || {
            let output = self.process(index)?.output();
            Ok(output.contains(text).then_some(()))
        })
    }

    /// Waits until a master ends by itself; what it wrote.
    ///
    /// # Errors
    /// When it does not run, or goes on.
    pub fn wait_for_end(&mut self, index: usize) -> Result<String> {
        wait_for("a master to end", http::PATIENCE, || {
            let process = self.masters[index].process.as_mut().context("process")?;
            Ok(process.ended()?.map(drop))
        })?;
        let process = self.masters[index].process.take().context("process")?;
        Ok(process.output())
    }

    /// Starts an agent that knows all masters, and waits until the leader has it.
    ///
    /// # Errors
    /// When it does not register.
    pub fn add_agent(&mut self, flags: &[&str]) -> Result<usize> {
        self.add_agent_of(&self.addresses(), flags)
    }

    /// The same with a `--master` of its own.
    ///
    /// # Errors
    /// When it does not register.
    pub fn add_agent_of(&mut self, master: &str, flags: &[&str]) -> Result<usize> {
        let index = self.agents.len();
        let work_dir = self.folder.path().join(format!("agent-{index}"));
        let agent = start_agent(&work_dir, master, free_port()?, flags)?;
        self.agents.push(agent);
        self.wait_for_agent(index)?;
        Ok(index)
    }

    /// Waits until the leader has the agent as active.
    ///
    /// # Errors
    /// When it does not come.
    pub fn wait_for_agent(&self, index: usize) -> Result<()> {
        let pid = format!("slave(1)@{}", self.agents[index].address);
        wait_for("the agent", http::PATIENCE, || {
            let Some(leader) = self.leader_now() else {
                return Ok(None);
            };
            let state = http::get(self.address(leader), "/slaves")?;
            let agents = state["slaves"].as_array().context("slaves")?;
            let found = agents
                .iter()
                .any(|agent| agent["pid"] == pid && agent["active"] == true);
            Ok(found.then_some(()))
        })
    }
}

impl Drop for Masters {
    fn drop(&mut self) {
        for agent in &mut self.agents {
            let _ = agent.kill();
        }
        // Tests return their failures: what the masters said would be lost.
        if std::env::var_os("TEPUI_KEEP").is_some() {
            for master in &self.masters {
                if let Some(process) = &master.process {
                    eprintln!("--- {} ---\n{}", process.log.display(), process.output());
                }
            }
        }
        leftovers::remove(self.folder.path());
    }
}

/// What a command of `tepui master` answered: standard output, or standard error of a failure.
///
/// # Errors
/// The command cannot be run, or failed.
pub fn command(masters: &str, arguments: &[&str]) -> Result<String> {
    let output = std::process::Command::new(cluster::binary("tepui"))
        .args(["--master", masters, "master"])
        .args(arguments)
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}
