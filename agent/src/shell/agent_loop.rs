//! The thread that owns the machine and its log.
//!
//! It takes all inputs that wait, steps the machine with each, writes the records of all of
//! them with one sync, and only then lets anything out. On a full disk a reserve holds the
//! refusals of tasks and the updates of those that run. When that is used up, too, everything
//! is held back and tried again, but for the answers to pings, which promise nothing.

use crate::{
    checkpoint::Log,
    http::metrics::Counters,
    shell::{clock::Clock, containers::Containers, master_links::Links, volumes::Volumes},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tepui_agent_machine::{
    Machine,
    input::{Input, LinkId},
    model::link::{AgentMessage, agent_message},
    output::{AgentView, Output, ProcessCommand},
};
use tokio::sync::{oneshot, watch};

/// Inputs that wait: as many as a master can have under way on one link, with room for the
/// events of containers. Whoever sends more waits.
const INPUTS: usize = 4096;
/// Inputs stepped before their records are written, so that nobody waits for long.
const BATCH: usize = 1024;
/// Between two tries to write to a disk that refuses.
const RETRY: Duration = Duration::from_secs(1);
/// Records held back for a disk that refuses before inputs wait, too.
const HELD: usize = 100_000;

/// What the thread is told.
enum Event {
    Input(Input),
    View(oneshot::Sender<AgentView>),
    Stop,
}

/// Reaches the thread. Clones are one.
#[derive(Clone)]
pub(crate) struct Inbox {
    events: flume::Sender<Event>,
}

impl Inbox {
    /// Hands in an input; waits while too many do.
    pub(crate) async fn input(&self, input: Input) {
        // An agent that has ended takes no inputs.
        let _ = self.events.send_async(Event::Input(input)).await;
    }

    /// A copy of what endpoints show; nothing when the agent has ended.
    pub(crate) async fn view(&self) -> Option<AgentView> {
        let (answer, answered) = oneshot::channel();
        self.events.send_async(Event::View(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Ends the thread behind what was handed in before.
    pub(crate) async fn stop(&self) {
        let _ = self.events.send_async(Event::Stop).await;
    }
}

/// Where outputs go.
pub(crate) struct Outlets {
    pub(crate) links: Arc<Links>,
    pub(crate) containers: Arc<Containers>,
    /// Why the agent has to end.
    pub(crate) exit: watch::Sender<Option<String>>,
    /// Done by the thread itself, for they come before the records.
    pub(crate) volumes: Volumes,
    /// For the metrics.
    pub(crate) counters: Arc<Counters>,
}

/// The other end of [`Inbox`].
pub(crate) struct Outbox {
    events: flume::Receiver<Event>,
}

/// The channel of inputs.
pub(crate) fn channel() -> (Inbox, Outbox) {
    let (sender, receiver) = flume::bounded(INPUTS);
    (Inbox { events: sender }, Outbox { events: receiver })
}

struct Loop {
    machine: Machine,
    log: Log,
    clock: Clock,
    outlets: Outlets,
    /// What the disk refused, or is about to get.
    held: Output,
    /// When the disk refused last.
    refused: Option<Instant>,
    /// Since when the machine knows of a full disk, or when the reserve was tried last.
    scarce: Option<Instant>,
}

/// Starts the thread; `birth` is what the machine said first.
///
/// # Errors
/// The system has no more threads.
pub(crate) fn start(
    machine: Machine,
    log: Log,
    clock: Clock,
    outbox: Outbox,
    outlets: Outlets,
    birth: Output,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let mut it = Loop {
        machine,
        log,
        clock,
        outlets,
        held: birth,
        refused: None,
        scarce: None,
    };
    let thread = std::thread::Builder::new().name("agent".to_owned());
    thread.spawn(move || it.run(&outbox.events))
}

impl Loop {
    fn run(&mut self, events: &flume::Receiver<Event>) {
        self.commit();
        loop {
            let mut stop = false;
            let mut views = Vec::new();
            let mut taken = 0;
            let full = self.held.records.len() >= HELD;
            match self.wait(events, full) {
                Ok(Some(event)) => {
                    let mut next = Some(event);
                    while let Some(event) = next.take() {
                        match event {
                            Event::Input(input) => self.step(input),
                            Event::View(answer) => views.push(answer),
                            Event::Stop => stop = true,
                        }
                        taken += 1;
                        if taken < BATCH && !stop {
                            next = events.try_recv().ok();
                        }
                    }
                }
                Ok(None) => self.step(Input::Tick),
                // Nobody is left to hand anything in.
                Err(()) => stop = true,
            }
            self.commit();
            for answer in views {
                // Who asked may have gone.
                let _ = answer.send(self.machine.view());
            }
            if stop {
                return;
            }
        }
    }

    /// The next event, or nothing when something is due.
    fn wait(&self, events: &flume::Receiver<Event>, full: bool) -> Result<Option<Event>, ()> {
        let due = self.machine.next_deadline().map(|it| self.clock.until(it));
        let tried = self.refused.or(self.scarce);
        let retry = tried.map(|it| RETRY.saturating_sub(it.elapsed()));
        let patience = [due, retry].into_iter().flatten().min();
        if full {
            std::thread::sleep(retry.unwrap_or(RETRY));
            return Ok(None);
        }
        let result = match patience {
            Some(patience) => events.recv_timeout(patience),
            None => return events.recv().map(Some).map_err(drop),
        };
        match result {
            Ok(event) => Ok(Some(event)),
            Err(flume::RecvTimeoutError::Timeout) => Ok(None),
            Err(flume::RecvTimeoutError::Disconnected) => Err(()),
        }
    }

    fn step(&mut self, input: Input) {
        let output = self
            .machine
            .step(self.clock.now(), self.clock.wall(), input);
        self.held.records.extend(output.records);
        self.held.volumes.extend(output.volumes);
        if self.refused.is_some() {
            let (pongs, rest): (Vec<_>, Vec<_>) = output.send.into_iter().partition(is_pong);
            self.held.send.extend(rest);
            self.send(pongs);
        } else {
            self.held.send.extend(output.send);
        }
        self.held.containers.extend(output.containers);
        self.held.process.extend(output.process);
    }

    /// Writes what is held and lets it out, unless the disk refuses.
    fn commit(&mut self) {
        loop {
            if self.refused.is_some_and(|it| it.elapsed() < RETRY) {
                return;
            }
            for command in std::mem::take(&mut self.held.volumes) {
                self.outlets.volumes.obey(&command);
            }
            if let Err(error) = self.append() {
                if self.refused.replace(Instant::now()).is_none() {
                    tracing::error!(
                        %error,
                        "the checkpoints cannot be written: nothing leaves until they can"
                    );
                }
                self.note_disk();
                return;
            }
            if self.refused.take().is_some() {
                tracing::info!("the checkpoints can be written again");
            }
            self.let_out();
            if !self.note_disk() {
                break;
            }
        }
        if self.log.wants_compaction()
            && let Err(error) = self.log.compact(&self.machine.snapshot())
        {
            tracing::warn!(%error, "the checkpoint log cannot be made shorter: it grows on");
        }
    }

    /// Writes the records, at last into the reserve.
    fn append(&mut self) -> std::io::Result<()> {
        let first = self.log.append(&self.held.records);
        match first {
            Err(_) if self.log.use_reserve() => self.log.append(&self.held.records),
            result => result,
        }
    }

    /// Tells the machine when the disk becomes full and when it has room again, by the
    /// reserve. True when there is something new to commit.
    fn note_disk(&mut self) -> bool {
        match self.scarce {
            None if !self.log.has_reserve() => {
                tracing::error!(
                    "the disk of the work folder is full: no new tasks until it is not"
                );
                self.scarce = Some(Instant::now());
                self.step(Input::Disk { writable: false });
                true
            }
            Some(since) if since.elapsed() >= RETRY && self.refused.is_none() => {
                if self.log.reserve().is_err() {
                    self.scarce = Some(Instant::now());
                    return false;
                }
                tracing::info!("the disk of the work folder has room again");
                self.scarce = None;
                self.step(Input::Disk { writable: true });
                true
            }
            _ => false,
        }
    }

    fn let_out(&mut self) {
        let output = std::mem::take(&mut self.held);
        self.outlets.counters.observe(&output.records);
        self.send(output.send);
        for command in output.containers {
            self.outlets.containers.order(command);
        }
        for command in output.process {
            match command {
                ProcessCommand::Reconnect { link, after } => self.outlets.links.close(link, after),
                ProcessCommand::FollowLeader(address) => self.outlets.links.follow(&address),
                ProcessCommand::Exit(reason) => {
                    // It would only register again, as somebody new.
                    self.outlets.links.open_no_more();
                    self.outlets.exit.send_if_modified(|it| {
                        let first = it.is_none();
                        it.get_or_insert(reason);
                        first
                    });
                }
            }
        }
    }

    fn send(&self, frames: Vec<(LinkId, AgentMessage)>) {
        for (link, frame) in frames {
            self.outlets.links.send(link, frame);
        }
    }
}

fn is_pong((_, message): &(LinkId, AgentMessage)) -> bool {
    matches!(message.kind, Some(agent_message::Kind::Pong(_)))
}
