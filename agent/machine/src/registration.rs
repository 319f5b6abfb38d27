//! Links to masters, registration, fences and pings.

use crate::{
    input::LinkId,
    machine::Machine,
    output::{ContainerCommand, ProcessCommand},
    streams::Retry,
};
use core::time::Duration;
use prost::Message;
use tepui_model::{
    digest::{Digest, Head},
    link,
    link::{agent_message, master_message::Kind as From, record::Kind},
    time::Instant,
    wire,
};

/// How far a link has come.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// That its master leads; 0 when it did not say.
    term: u64,
}

/// When to register again.
#[derive(Debug, Default)]
pub(crate) struct Registration {
    /// Bound of the next wait; doubles with each try that is not answered.
    bound: Duration,
    due: Option<Instant>,
}

/// How long a registered link lives without a word of the master.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    /// As the master said; zero when it did not.
    timeout: Duration,
    due: Option<Instant>,
}

impl Machine {
    pub(crate) fn link_up(&mut self, link: LinkId, term: u64) {
        self.links.insert(link, Link { term });
        if let Some(current) = self.registered.filter(|_| term != 0) {
            // One leader may be reached by several links: by several of its names, or while
            // the end of an older link is not known yet. An older leader may think that it
            // still is one.
            if term <= self.term_of(current) {
                return;
            }
            self.lose_registration();
        }
        if self.recovered {
            if term != 0 {
                // Invited by somebody who has not refused to answer yet.
                self.registration = Registration::default();
            }
            self.register(link);
        }
    }

    pub(crate) fn link_down(&mut self, link: LinkId) {
        self.links.remove(&link);
        if self.registered == Some(link) {
            self.lose_registration();
            if let Some(other) = self.best_link() {
                self.register(other);
            }
        }
    }

    fn term_of(&self, link: LinkId) -> u64 {
        self.links.get(&link).map_or(0, |it| it.term)
    }

    /// A link to the newest leader.
    fn best_link(&self) -> Option<LinkId> {
        let newest = self.links.iter().max_by_key(|(_, it)| it.term);
        newest.map(|(link, _)| *link)
    }

    fn lose_registration(&mut self) {
        self.registered = None;
        self.pings.due = None;
        self.retries.clear();
        self.operation_retries.clear();
    }

    /// The containers of an earlier life are known: now the agent can say what it has.
    pub(crate) fn register_everywhere(&mut self) {
        let newest = self.best_link().map(|it| self.term_of(it));
        let leaders = self.links.iter().filter(|(_, it)| Some(it.term) == newest);
        let links: Vec<LinkId> = leaders.map(|(link, _)| *link).collect();
        for link in links {
            self.register(link);
        }
    }

    fn register(&mut self, to: LinkId) {
        let first = self.registration.bound.is_zero();
        let factor = self.options.intervals.registration_backoff;
        let longest = self.options.intervals.registration_backoff_max;
        self.registration.bound = match self.registration.bound {
            Duration::ZERO => factor * 2,
            bound => (bound * 2).min(longest),
        };
        // Full jitter spreads the agents of a cluster.
        let wait = self
            .registration
            .bound
            .mul_f64(self.draw() as f64 / u64::MAX as f64);
        self.registration.due = Some(self.now + wait.max(factor));
        let term = self.term_of(to);
        let known = !self.knowledge.identity.agent_id.is_empty()
            && !self.knowledge.fence.cluster_id.is_empty();
        // Once: a master that does not answer to a digest is told everything.
        if first && known && term != 0 {
            let attach = self.attach_message(term);
            self.send(to, agent_message::Kind::Attach(attach));
        } else {
            self.register_fully(to);
        }
    }

    fn register_fully(&mut self, to: LinkId) {
        let register = link::Register {
            term: self.term_of(to),
            ..self.register_message()
        };
        self.send(to, agent_message::Kind::Register(register));
    }

    fn attach_message(&self, term: u64) -> link::Attach {
        let knowledge = &self.knowledge;
        let total = self.total();
        let mut digest = Digest::new(Head {
            cluster_id: &knowledge.fence.cluster_id,
            incarnation: knowledge.fence.incarnation,
            info_payload: &self.options.info.encode_to_vec(),
            address: &self.options.address,
            version: &self.options.version,
            capabilities: &self.options.capabilities,
            boot_id: &self.options.boot_id,
            total: &total,
        });
        for task in knowledge.tasks.values().filter(|it| !it.progress.silent) {
            let launched = &task.launched;
            digest.task(
                &launched.framework_id,
                &launched.task_id,
                &launched.container_id,
                task.is_terminal(),
            );
        }
        link::Attach {
            agent_id: knowledge.identity.agent_id.clone(),
            digest: digest.finish(),
            commands_done: knowledge.commands_done,
            term,
        }
    }

    fn register_message(&self) -> link::Register {
        let knowledge = &self.knowledge;
        let tasks = knowledge.tasks.values().filter(|it| !it.progress.silent);
        let update = |payload: Option<&bytes::Bytes>| {
            let status = payload.map(|it| wire::TaskStatus::decode(it.clone()).unwrap_or_default());
            let state = status.as_ref().map_or(0, |it| it.state);
            (status.and_then(|it| it.uuid).unwrap_or_default(), state)
        };
        link::Register {
            agent_id: knowledge.identity.agent_id.clone(),
            info_payload: self.options.info.encode_to_vec().into(),
            address: self.options.address.clone(),
            version: self.options.version.clone(),
            capabilities: self.options.capabilities.clone(),
            boot_id: self.options.boot_id.clone(),
            total: self.total(),
            commands_done: knowledge.commands_done,
            fence: (!knowledge.fence.cluster_id.is_empty()).then(|| knowledge.fence.clone()),
            tasks: tasks
                .map(|task| {
                    let (update_uuid, update_state) = update(task.updates.front());
                    link::AgentTask {
                        framework_id: task.launched.framework_id.clone(),
                        task_id: task.launched.task_id.clone(),
                        container_id: task.launched.container_id.clone(),
                        state: task.progress.state,
                        executor_id: String::new(),
                        update_uuid,
                        update_state,
                        task_info_payload: task.launched.task_info_payload.clone(),
                        resources: task.launched.resources.clone(),
                    }
                })
                .collect(),
            executors: Vec::new(),
            resource_version_uuid: String::new(),
            framework_info_payloads: knowledge.framework_payloads.values().cloned().collect(),
            operations: knowledge
                .operations
                .values()
                .map(|it| link::AgentOperation {
                    uuid: it.operation_uuid.clone(),
                    state: wire::OperationState::OperationFinished as i32,
                })
                .collect(),
            principal: String::new(),
            term: 0,
        }
    }

    /// Totals after reservations and volumes; those it was started with at first.
    pub(crate) fn total(&self) -> Vec<wire::Resource> {
        let known = self.knowledge.total.clone();
        known.unwrap_or_else(|| self.options.info.resources.clone())
    }

    pub(crate) fn registration_deadline(&self) -> Option<Instant> {
        let open = self.registered.is_none() && self.recovered && !self.links.is_empty();
        self.registration.due.filter(|_| open)
    }

    pub(crate) fn register_if_due(&mut self) {
        if self
            .registration_deadline()
            .is_some_and(|at| at <= self.now)
        {
            self.registration.due = None;
            self.register_everywhere();
        }
    }

    pub(crate) fn ping_deadline(&self) -> Option<Instant> {
        self.pings.due
    }

    /// A master that has fallen silent is looked for anew.
    pub(crate) fn leave_if_silent(&mut self) {
        let Some(link) = self.registered else { return };
        if self.pings.due.is_some_and(|at| at <= self.now) {
            self.lose_registration();
            self.links.remove(&link);
            let after = Duration::ZERO;
            self.process(ProcessCommand::Reconnect { link, after });
        }
    }

    /// Any word of the leader counts: it is there.
    fn heard_from(&mut self, from: LinkId) {
        if self.registered == Some(from) && !self.pings.timeout.is_zero() {
            self.pings.due = Some(self.now + self.pings.timeout);
        }
    }

    // ------------------------------------------------------------ frames of masters

    pub(crate) fn master_message(&mut self, from: LinkId, message: link::MasterMessage) {
        if !self.links.contains_key(&from) {
            return;
        }
        let Some(kind) = message.kind else { return };
        // What only informs needs no fence.
        match kind {
            From::Leader(leader) => {
                self.leader_is(message.fence, leader);
                return;
            }
            From::Refused(refused) => {
                self.refused(from, refused);
                return;
            }
            From::RegisterAgain(_) => {
                self.register_fully(from);
                return;
            }
            _ => {}
        }
        if !self.obey_fence(from, message.fence) {
            return;
        }
        self.heard_from(from);
        match kind {
            From::Registered(it) => self.registered(from, it),
            From::Ping(it) => self.ping(from, it.connected),
            From::Command(it) => self.command(from, it),
            From::AcknowledgeUpdate(it) => {
                self.acknowledged(&(it.framework_id, it.task_id), &it.uuid);
            }
            From::AcknowledgeOperation(it) => self.operation_acknowledged(&it.operation_uuid),
            From::UpdateFramework(it) => {
                if self.knowledge.frameworks.contains_key(&it.framework_id) {
                    let framework_id = it.framework_id.clone();
                    self.record(Kind::Framework(link::KnownFramework {
                        framework_id: it.framework_id,
                        info_payload: it.framework_info_payload,
                    }));
                    // It subscribed again: what it has not acknowledged comes at once.
                    self.resend_framework(&framework_id);
                }
            }
            From::KillUnknown(it) => self.kill_silently(&(it.framework_id, it.task_id)),
            // Nobody listens: there are no executors that take messages.
            From::SchedulerMessage(_) => {}
            From::Shutdown(it) => self.shut_down(it.message),
            From::Leader(_) | From::Refused(_) | From::RegisterAgain(_) => {}
        }
    }

    /// A follower names the leader, or a leader the masters, which are kept for the next
    /// start. A leader of the past may name masters that are none any more.
    fn leader_is(&mut self, fence: Option<link::Fence>, leader: link::Leader) {
        if !leader.here {
            self.process(ProcessCommand::FollowLeader(leader.address));
            return;
        }
        let seen = &self.knowledge.fence;
        let rank = |it: &link::Fence| (it.incarnation, it.term);
        let current = fence.is_some_and(|it| {
            seen.cluster_id.is_empty()
                || (it.cluster_id == seen.cluster_id && rank(&it) >= rank(seen))
        });
        if current && !leader.masters.is_empty() && leader.masters != self.knowledge.masters {
            let address = leader.masters;
            self.record(Kind::Masters(link::Masters { address }));
        }
    }

    /// Remembers the highest fence and refuses lower ones of the same cluster. A frame
    /// without fence comes from a master that does not know its cluster yet.
    fn obey_fence(&mut self, from: LinkId, fence: Option<link::Fence>) -> bool {
        let Some(fence) = fence else { return true };
        let seen = &self.knowledge.fence;
        let rank = |it: &link::Fence| (it.incarnation, it.term);
        let known = !seen.cluster_id.is_empty();
        if known && seen.cluster_id != fence.cluster_id && self.has_tasks() {
            let text = format!(
                "this agent belongs to cluster {}, the master to {}: start the agent with another \
                 work folder, or point it to its own masters",
                seen.cluster_id, fence.cluster_id
            );
            self.process(ProcessCommand::Exit(text));
            return false;
        }
        if known && seen.cluster_id == fence.cluster_id && rank(&fence) < rank(seen) {
            let seen = Some(seen.clone());
            self.send(
                from,
                agent_message::Kind::FenceRefused(link::FenceRefused { seen }),
            );
            return false;
        }
        if *seen != fence {
            self.record(Kind::Fence(fence));
        }
        true
    }

    fn has_tasks(&self) -> bool {
        !self.knowledge.tasks.is_empty()
    }

    fn refused(&mut self, from: LinkId, refused: link::Refused) {
        if refused.shutdown {
            self.shut_down(refused.message);
            return;
        }
        let after = self.options.intervals.registration_backoff;
        self.process(ProcessCommand::Reconnect { link: from, after });
    }

    fn registered(&mut self, from: LinkId, it: link::Registered) {
        let known = &self.knowledge.identity.agent_id;
        if !known.is_empty() && *known != it.agent_id {
            // A new id: the master has forgotten the old one, its tasks are lost there.
            let tasks: Vec<_> = self.knowledge.tasks.keys().cloned().collect();
            for key in tasks {
                self.kill_silently(&key);
            }
        }
        let identity = link::Identity {
            agent_id: it.agent_id,
            info_payload: self.options.info.encode_to_vec().into(),
        };
        if self.knowledge.identity != identity {
            self.take_identity(identity);
        }
        if !it.total.is_empty() && self.knowledge.total.as_ref() != Some(&it.total) {
            self.record(Kind::Totals(link::Totals { total: it.total }));
        }
        self.registered = Some(from);
        self.registration = Registration::default();
        self.pings.timeout = Duration::from_nanos(it.total_ping_timeout_ns);
        self.heard_from(from);
        self.resend_everything();
        self.repeat_oversubscribed();
    }

    fn ping(&mut self, from: LinkId, connected: bool) {
        let ours = self.registered == Some(from);
        self.send(
            from,
            agent_message::Kind::Pong(link::Pong { connected: ours }),
        );
        if ours && !connected {
            // The master has given this link up.
            self.lose_registration();
            self.register(from);
        }
    }

    // ------------------------------------------------------------ the end

    /// SIGUSR1: everything ends, and the master forgets the agent.
    pub(crate) fn unregister(&mut self) {
        if let Some(link) = self.registered {
            self.send(link, agent_message::Kind::Unregister(link::Unregister {}));
        }
        self.shut_down("the agent was asked to leave".to_owned());
    }

    /// Kills everything and ends the process. The id is not used again.
    pub(crate) fn shut_down(&mut self, reason: String) {
        let tasks: Vec<_> = self.knowledge.tasks.keys().cloned().collect();
        for key in tasks {
            self.kill_silently(&key);
        }
        self.take_identity(link::Identity::default());
        self.process(ProcessCommand::Exit(reason));
    }

    /// Takes another identity. With another id come other commands: they are counted anew, and that
    /// the agent of before was to be emptied is over.
    fn take_identity(&mut self, identity: link::Identity) {
        if self.knowledge.identity.agent_id != identity.agent_id {
            self.record(Kind::CommandsDone(link::CommandsDone { up_to: 0 }));
            if self.knowledge.draining.is_some() {
                self.record(Kind::Draining(link::Draining::default()));
            }
        }
        self.record(Kind::Identity(identity));
    }

    /// Ends a task of which nobody wants to hear.
    pub(crate) fn kill_silently(&mut self, key: &(String, String)) {
        let Some(task) = self.knowledge.tasks.get(key) else {
            return;
        };
        let container_id = task.launched.container_id.clone();
        let over = task.is_terminal();
        let mut progress = task.progress.clone();
        progress.silent = true;
        progress.kill_ordered = true;
        self.record(Kind::Progress(progress));
        self.retries.remove(key);
        if over {
            self.forget_task(key);
        } else {
            let grace = Some(Duration::ZERO);
            self.container(ContainerCommand::Kill {
                container_id,
                grace,
            });
        }
    }
}

impl Retry {
    /// Just sent.
    pub(crate) fn begin(now: Instant, interval: Duration) -> Retry {
        Retry {
            at: now + interval,
            interval,
        }
    }
}
