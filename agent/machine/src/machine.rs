//! The machine: birth from the records, one step per input.

use crate::{
    input::{Input, Intervals, LinkId},
    knowledge::{Knowledge, TaskKey},
    output::{AgentView, ContainerCommand, Output, ProcessCommand},
};
use prost::Message;
use std::collections::BTreeMap;
use tepui_model::{
    Resources, Uuid,
    agent::{AgentInfo, ReconfigurationPolicy},
    link,
    link::record::Kind,
    time::{Instant, WallTime},
    wire,
};

/// What an agent is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Host name, port, resources, attributes, domain.
    pub info: wire::AgentInfo,
    /// `ip:port` of the agent's HTTP endpoint.
    pub address: String,
    /// As `/version` has it.
    pub version: String,
    /// Names of `mesos.v1.AgentInfo.Capability.Type`.
    pub capabilities: Vec<String>,
    /// Changes with every boot of the machine.
    pub boot_id: String,
    /// Clocks.
    pub intervals: Intervals,
    /// `--reconfiguration_policy=additive`: resources and attributes may be added.
    pub reconfiguration_additive: bool,
}

/// The machine; see the crate's documentation.
#[derive(Debug)]
pub struct Machine {
    pub(crate) options: Options,
    pub(crate) knowledge: Knowledge,
    pub(crate) seed: u64,
    pub(crate) drawn: u64,
    /// Open links and how far each has come.
    pub(crate) links: BTreeMap<LinkId, crate::registration::Link>,
    /// The link on which the agent is registered.
    pub(crate) registered: Option<LinkId>,
    pub(crate) registration: crate::registration::Registration,
    pub(crate) pings: crate::registration::Pings,
    /// Heads of streams and operations in flight: when to send again, and the wait after that.
    pub(crate) retries: BTreeMap<TaskKey, crate::streams::Retry>,
    pub(crate) operation_retries: BTreeMap<String, crate::streams::Retry>,
    /// What may be given away once more, as the estimator said last.
    pub(crate) oversubscribed: Resources,
    /// The containers of an earlier life have been looked for.
    pub(crate) recovered: bool,
    pub(crate) writable: bool,
    pub(crate) now: Instant,
    pub(crate) wall: WallTime,
    pub(crate) out: Output,
}

impl Machine {
    /// An agent from what it has on its disk; nothing for a new one.
    ///
    /// # Errors
    /// The agent is started with other resources, attributes, host name or port than it is
    /// registered with, and the policy does not allow that; the text says what to do.
    pub fn birth(
        records: Vec<link::Record>,
        options: Options,
        now: Instant,
        wall: WallTime,
        seed: u64,
    ) -> Result<(Machine, Output), String> {
        let mut knowledge = Knowledge::default();
        for record in &records {
            knowledge.apply(record);
        }
        let rebooted = !knowledge.boot_id.is_empty() && knowledge.boot_id != options.boot_id;
        if !knowledge.identity.agent_id.is_empty()
            && let Err(text) = check_info(&knowledge, &options)
        {
            // After a reboot nothing runs any more: the machine may become a new agent.
            if !rebooted {
                return Err(text);
            }
            knowledge = Knowledge::default();
        }
        let mut machine = Machine {
            options,
            knowledge,
            seed,
            drawn: 0,
            links: BTreeMap::new(),
            registered: None,
            registration: crate::registration::Registration::default(),
            pings: crate::registration::Pings::default(),
            retries: BTreeMap::new(),
            operation_retries: BTreeMap::new(),
            oversubscribed: Resources::new(),
            recovered: false,
            writable: true,
            now,
            wall,
            out: Output::default(),
        };
        if machine.knowledge.identity.agent_id.is_empty() {
            // A fold of nothing: what an incompatible earlier agent left is void.
            machine.record(Kind::Identity(link::Identity::default()));
        }
        if rebooted {
            machine.containers_died();
        }
        if machine.knowledge.boot_id != machine.options.boot_id {
            let boot_id = machine.options.boot_id.clone();
            machine.record(Kind::Boot(link::Boot { boot_id }));
        }
        let out = std::mem::take(&mut machine.out);
        Ok((machine, out))
    }

    /// The masters of the cluster as its leader named them last, `host:port` each.
    pub fn masters(&self) -> &[String] {
        &self.knowledge.masters
    }

    /// Containers that an earlier life may have left: those of tasks that have not ended.
    pub fn expected_containers(&self) -> Vec<String> {
        let live = self.knowledge.tasks.values().filter(|it| !it.is_terminal());
        live.map(|it| it.launched.container_id.clone()).collect()
    }

    /// Takes one input. Total: whatever a master sends, the answer is an output.
    pub fn step(&mut self, now: Instant, wall: WallTime, input: Input) -> Output {
        self.now = self.now.max(now);
        self.wall = wall;
        match input {
            Input::Tick => {}
            Input::LinkUp { link, term } => self.link_up(link, term),
            Input::LinkDown { link } => self.link_down(link),
            Input::Master { link, message } => self.master_message(link, *message),
            Input::Container {
                container_id,
                event,
            } => self.container_event(&container_id, event),
            Input::Recovered { containers } => self.containers_recovered(containers),
            Input::Disk { writable } => self.writable = writable,
            Input::Estimate(estimate) => self.estimated(estimate),
            Input::Unregister => self.unregister(),
        }
        self.tick();
        std::mem::take(&mut self.out)
    }

    fn tick(&mut self) {
        self.leave_if_silent();
        self.register_if_due();
        self.retry_if_due();
    }

    /// When to step with [`Input::Tick`] at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.registration_deadline()
            .into_iter()
            .chain(self.retry_deadline())
            .chain(self.ping_deadline())
            .min()
    }

    /// What endpoints show.
    pub fn view(&self) -> AgentView {
        crate::view::view(self)
    }

    /// Records with the same fold, for the compaction of the log.
    pub fn snapshot(&self) -> Vec<link::Record> {
        self.knowledge.snapshot()
    }

    /// Panics when what the machine holds contradicts itself.
    pub fn check_invariants(&self) {
        for (key, task) in &self.knowledge.tasks {
            assert_eq!(key.0, task.launched.framework_id);
            assert!(
                !task.updates.is_empty() || !task.is_terminal() || task.progress.silent,
                "{key:?} has ended, and nothing is left to be acknowledged"
            );
            assert_eq!(
                self.retries.contains_key(key),
                self.registered.is_some() && !task.updates.is_empty() && !task.progress.silent,
                "{key:?}: the head of its stream is in flight while registered"
            );
        }
        for key in self.retries.keys() {
            assert!(
                self.knowledge.tasks.contains_key(key),
                "{key:?} is sent and unknown"
            );
        }
        if let Some(link) = self.registered {
            assert!(
                self.links.contains_key(&link),
                "registered on a closed link"
            );
        }
    }

    // ------------------------------------------------------------ tools

    /// Applies a record and queues it for the disk.
    pub(crate) fn record(&mut self, kind: Kind) {
        let record = link::Record { kind: Some(kind) };
        self.knowledge.apply(&record);
        self.out.records.push(record);
    }

    pub(crate) fn send(&mut self, to: LinkId, kind: link::agent_message::Kind) {
        let message = link::AgentMessage { kind: Some(kind) };
        self.out.send.push((to, message));
    }

    pub(crate) fn container(&mut self, command: ContainerCommand) {
        self.out.containers.push(command);
    }

    pub(crate) fn process(&mut self, command: ProcessCommand) {
        self.out.process.push(command);
    }

    /// A number that looks random, from the seed and how many were drawn.
    pub(crate) fn draw(&mut self) -> u64 {
        self.drawn += 1;
        // SplitMix64 (Steele, Lea, Flood 2014): every input gives another output.
        let mut z = self
            .seed
            .wrapping_add(self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn uuid(&mut self) -> bytes::Bytes {
        let bits = u128::from(self.draw()) << 64 | u128::from(self.draw());
        Uuid::from_random_bits(bits).to_bytes()
    }
}

/// Compares what the agent is started with to what it is registered with.
fn check_info(knowledge: &Knowledge, options: &Options) -> Result<(), String> {
    let old = AgentInfo::from_payload(knowledge.identity.info_payload.clone());
    let new = AgentInfo::from_payload(options.info.encode_to_vec().into());
    let policy = match options.reconfiguration_additive {
        true => ReconfigurationPolicy::Additive,
        false => ReconfigurationPolicy::Equal,
    };
    old.check_reconfiguration(&new, policy).map_err(|error| {
        format!(
            "{error}; start it as before, or with --reconfiguration_policy=additive for \
                 additions, or remove the work folder to make it a new agent (its tasks are lost)"
        )
    })
}
