//! The machine's thread: inputs in, log entries and messages out.
//!
//! What stands here is what `master/src/shell/core.rs` does: one drain of the intake is one entry,
//! what its steps want to send waits in the [`Outbox`] under the entry's sequence number, and a
//! deposed leader throws everything away.

use super::{
    Body, Event, Fatal, Process,
    intake::{Class, Intake},
};
use crate::{
    core::{Core, Event as WorldEvent},
    trace::{bytes_hash, note},
};
use bytes::Bytes;
use prost::Message as _;
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
};
use tepui_allocator::Options as AllocatorOptions;
use tepui_master_machine::{
    Config, Machine,
    input::{ConnectionId, Input},
    model::{log, wire},
    outbox::{Outbox, Ticket},
    output::{Outgoing, Output},
    survivors::Survivors,
};
use tepui_state::ClusterState;

/// What the raft thread tells this one.
#[derive(Debug)]
pub(super) enum Control {
    Elected { term: u64, state: Box<ClusterState> },
    Deposed,
    Committed { term: u64, sequence: u64 },
    Confirmed { term: u64, ticket: u64 },
}

/// A machine with what belongs to its term.
#[derive(Debug)]
pub struct Leadership {
    /// Its term.
    pub term: u64,
    /// The machine.
    pub machine: Machine,
    outbox: Outbox,
    sequence: u64,
    in_flight: VecDeque<(u64, usize)>,
    in_flight_bytes: usize,
    survivors: Survivors,
    // It panicked: another one takes its place once what it decided is committed.
    over: bool,
    // Of the state before the next entry, when that is to carry it.
    hash: Option<u64>,
}

/// What the thread owns.
#[derive(Debug, Default)]
pub struct Thread {
    control: VecDeque<Control>,
    pub(super) intake: Intake,
    /// `None` while this master does not lead.
    pub leadership: Option<Leadership>,
    /// The next step panics.
    pub(crate) panics: bool,
    // A run is on its way.
    woken: bool,
    generation: u64,
}

/// What one drain collects.
#[derive(Default)]
struct Drain {
    operations: Vec<log::Operation>,
    send: Vec<Outgoing>,
    stamp: bool,
    steps: usize,
}

impl Drain {
    fn add(&mut self, output: Output) {
        self.operations.extend(output.log);
        self.send.extend(output.send);
        self.stamp |= output.stamp;
        self.steps += 1;
    }
}

/// Entries between two that carry the hash of the state, as one in a thousand does in production.
const HASH_EVERY: u64 = 16;

fn config(core: &Core, body: &Body) -> Config {
    let number = body.number;
    let timing = core.shape.timing;
    let span = core::time::Duration::from_nanos;
    Config {
        cluster_id: "simulated".to_owned(),
        incarnation: body.incarnation,
        master_info: wire::MasterInfo {
            hostname: Some(format!("master{number}")),
            port: 5050,
            ..wire::MasterInfo::default()
        },
        heartbeat_interval: span(timing.heartbeat),
        agent_ping_timeout: span(timing.ping),
        max_agent_ping_timeouts: timing.pings,
        agent_reregister_timeout: span(timing.reregister),
        offer_timeout: timing.offer_timeout.map(span),
        allocator: AllocatorOptions {
            allocation_interval: span(timing.allocation),
            ..AllocatorOptions::default()
        },
        ..Config::default()
    }
}

impl Process {
    /// The raft thread says something; the machine's thread hears it in its own time.
    pub(super) fn control(&mut self, body: &mut Body, core: &mut Core, control: Control) {
        self.thread.control.push_back(control);
        self.awake(body, core);
    }

    /// A connection says something.
    pub(super) fn input(
        &mut self,
        body: &mut Body,
        core: &mut Core,
        class: Class,
        source: ConnectionId,
        input: Input,
    ) {
        self.thread.intake.push(class, source, input);
        self.awake(body, core);
    }

    fn awake(&mut self, body: &mut Body, core: &mut Core) {
        if !self.thread.woken {
            self.thread.woken = true;
            // Another thread: what comes meanwhile is in the same drain.
            let delay = core.random.between(5_000, 200_000);
            body.later(core, delay, Event::Run);
        }
    }

    pub(super) fn wake(
        &mut self,
        generation: u64,
        body: &mut Body,
        core: &mut Core,
    ) -> Result<(), Fatal> {
        match generation == self.thread.generation && !self.thread.woken {
            true => self.run(body, core),
            false => Ok(()),
        }
    }

    /// One wait, one drain.
    pub(super) fn run(&mut self, body: &mut Body, core: &mut Core) -> Result<(), Fatal> {
        self.thread.woken = false;
        match self.thread.leadership {
            None => self.follow(body, core)?,
            Some(_) => self.lead(body, core)?,
        }
        let held_back = self.is_held_back(core);
        if !self.thread.control.is_empty() || (!held_back && !self.thread.intake.is_empty()) {
            self.awake(body, core);
        }
        let deadline = self.thread.leadership.as_ref().filter(|it| !it.over);
        if let Some(at) = deadline.and_then(|it| it.machine.next_deadline())
            && !held_back
        {
            self.thread.generation += 1;
            // Not at once: a thread that wakes for a time wakes a little later.
            let due = body.clock.true_time(core.now, at).max(core.now + 1_000);
            let event = Event::Wake(self.thread.generation);
            core.at(due, WorldEvent::Master(body.number, body.life, event));
        }
        Ok(())
    }

    fn is_held_back(&self, core: &Core) -> bool {
        let bytes = self.thread.leadership.as_ref();
        bytes.is_some_and(|it| it.over || it.in_flight_bytes > core.shape.limits.in_flight)
    }

    /// Without a machine: waits for an election, and drops what clients say.
    fn follow(&mut self, body: &mut Body, core: &mut Core) -> Result<(), Fatal> {
        while let Some(control) = self.thread.control.pop_front() {
            if let Control::Elected { term, state } = control {
                return self.begin_term(body, core, term, *state);
            }
        }
        self.thread.intake.clear();
        Ok(())
    }

    /// With a machine: everything that waits, up to a limit, as one entry.
    fn lead(&mut self, body: &mut Body, core: &mut Core) -> Result<(), Fatal> {
        let held_back = self.is_held_back(core);
        let mut drain = Drain::default();
        loop {
            if let Some(control) = self.thread.control.pop_front() {
                if self.obey(body, core, control)? {
                    return Ok(());
                }
                continue;
            }
            if held_back || drain.steps >= core.shape.limits.drain_steps {
                break;
            }
            let Some((source, inputs)) = self.thread.intake.turn() else {
                break;
            };
            if std::mem::take(&mut self.thread.panics) {
                return self.survive(body, core, drain, source);
            }
            for input in inputs {
                self.step(body, core, &mut drain, input);
            }
        }
        if self.thread.leadership.as_ref().is_some_and(|it| it.over) {
            return self.born_again(body, core);
        }
        let now = body.clock.now(core.now);
        let leadership = self.thread.leadership.as_ref();
        let deadline = leadership.and_then(|it| it.machine.next_deadline());
        if !held_back && deadline.is_some_and(|at| at <= now) {
            self.step(body, core, &mut drain, Input::Tick);
        }
        self.flush_drain(body, core, drain)
    }

    /// True when the leadership ended, and the drain with it.
    fn obey(&mut self, body: &mut Body, core: &mut Core, control: Control) -> Result<bool, Fatal> {
        match control {
            Control::Elected { term, state } => {
                self.end_term(body, core);
                self.begin_term(body, core, term, *state)?;
                return Ok(true);
            }
            Control::Deposed => {
                self.end_term(body, core);
                return Ok(true);
            }
            Control::Committed { term, sequence } => {
                if let Some(it) = self.thread.leadership.as_mut().filter(|it| it.term == term) {
                    while let Some((first, bytes)) = it.in_flight.front().copied()
                        && first <= sequence
                    {
                        it.in_flight.pop_front();
                        it.in_flight_bytes -= bytes;
                    }
                    let leaving = it.outbox.committed(sequence);
                    self.leave(body, core, leaving);
                }
            }
            Control::Confirmed { term, ticket } => {
                if let Some(it) = self.thread.leadership.as_mut().filter(|it| it.term == term) {
                    let leaving = it.outbox.confirmed(Ticket(ticket));
                    self.leave(body, core, leaving);
                }
            }
        }
        Ok(false)
    }

    fn begin_term(
        &mut self,
        body: &mut Body,
        core: &mut Core,
        term: u64,
        state: ClusterState,
    ) -> Result<(), Fatal> {
        let now = body.clock.now(core.now);
        let (seed, master_id) = (core.random.next(), core.random.next());
        let (machine, output) = Machine::birth(
            state,
            term,
            now,
            body.clock.wall(core.now),
            seed,
            &format!("m{master_id:016x}"),
            config(core, body),
        );
        note!(core, body.host(), "leads term {term}");
        machine.check_invariants();
        core.checkers.birth(core.now, body.number, term, &machine);
        self.thread.leadership = Some(Leadership {
            term,
            machine,
            outbox: Outbox::new(0),
            sequence: 0,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            survivors: Survivors::default(),
            over: false,
            hash: None,
        });
        let mut drain = Drain::default();
        self.observe(body, core, &output);
        drain.add(output);
        self.flush_drain(body, core, drain)?;
        self.born(body, core);
        self.awake(body, core);
        Ok(())
    }

    fn end_term(&mut self, body: &mut Body, core: &mut Core) {
        if self.thread.leadership.take().is_some() {
            note!(core, body.host(), "throws its machine away");
        }
        core.checkers.death(body.number);
        self.unborn(body, core);
        self.close_all(core);
    }

    fn step(&mut self, body: &mut Body, core: &mut Core, drain: &mut Drain, input: Input) {
        let Some(leadership) = &mut self.thread.leadership else {
            return;
        };
        let (now, wall) = (body.clock.now(core.now), body.clock.wall(core.now));
        leadership.survivors.observe_input(&input);
        let output = leadership.machine.step(now, wall, input);
        if core.is_sample() {
            leadership.machine.check_invariants();
        }
        leadership.survivors.observe_output(&output);
        self.observe(body, core, &output);
        drain.add(output);
    }

    /// A step panics: nothing of it has left. What was decided before is committed, the
    /// connection that it came on is closed, and no step is made until a new machine is there.
    fn survive(
        &mut self,
        body: &mut Body,
        core: &mut Core,
        drain: Drain,
        source: ConnectionId,
    ) -> Result<(), Fatal> {
        let Some(leadership) = &mut self.thread.leadership else {
            return Ok(());
        };
        note!(core, body.host(), "panics in a step of {source:?}");
        let (now, wall) = (body.clock.now(core.now), body.clock.wall(core.now));
        let injected = Input::InjectPanic {
            connection: Some(source),
        };
        let machine = &mut leadership.machine;
        let stepped = catch_unwind(AssertUnwindSafe(|| machine.step(now, wall, injected)));
        if stepped.is_ok() {
            core.violate("panic", "an injected panic is none".to_owned());
        }
        leadership.survivors.forget(source);
        self.thread.intake.discard(source);
        self.refuse(body, core, source);
        self.flush_drain(body, core, drain)?;
        if let Some(leadership) = &mut self.thread.leadership {
            leadership.over = true;
        }
        self.awake(body, core);
        Ok(())
    }

    /// Makes a machine from the committed state in place of one that panicked.
    fn born_again(&mut self, body: &mut Body, core: &mut Core) -> Result<(), Fatal> {
        let ready = |it: &mut Leadership| it.in_flight.is_empty();
        let Some(mut leadership) = self.thread.leadership.take_if(ready) else {
            return Ok(());
        };
        let (now, wall) = (body.clock.now(core.now), body.clock.wall(core.now));
        let (seed, master_id) = (core.random.next(), core.random.next());
        let (mut machine, output) = Machine::birth(
            self.committed.clone(),
            leadership.term,
            now,
            wall,
            seed,
            &format!("m{master_id:016x}"),
            config(core, body),
        );
        note!(core, body.host(), "is born again");
        let mut survivors = leadership.survivors;
        let restored = survivors.restore(&mut machine, now, wall);
        machine.check_invariants();
        // Watches are begun again by their clients.
        self.close_watches(core);
        survivors.forget_offers();
        core.checkers.offers.birth(body.number);
        let mut drain = Drain::default();
        for output in [&output, &restored] {
            survivors.observe_output(output);
        }
        leadership.machine = machine;
        leadership.survivors = survivors;
        leadership.over = false;
        leadership.hash = None;
        self.thread.leadership = Some(leadership);
        for output in [output, restored] {
            self.observe(body, core, &output);
            drain.add(output);
        }
        self.flush_drain(body, core, drain)?;
        self.awake(body, core);
        Ok(())
    }

    /// The checkers see what a step decided, and the state after it.
    fn observe(&mut self, body: &Body, core: &mut Core, output: &Output) {
        if let Some(leadership) = &self.thread.leadership {
            for (checker, text) in
                core.checkers
                    .decided(core.now, body.number, &leadership.machine, output)
            {
                core.violate(checker, text);
            }
        }
    }

    /// Proposes the drain's operations as one entry, and queues what depends on them.
    fn flush_drain(&mut self, body: &mut Body, core: &mut Core, drain: Drain) -> Result<(), Fatal> {
        let Some(leadership) = &mut self.thread.leadership else {
            return Ok(());
        };
        let term = leadership.term;
        let mut proposal = None;
        if core.trace.is_read() {
            let text: Vec<String> = drain.operations.iter().map(describe).collect();
            if !text.is_empty() {
                note!(core, body.host(), "decides {}", text.join("; "));
            }
        }
        if !drain.operations.is_empty() || drain.stamp {
            leadership.sequence += 1;
            let now = body.clock.now(core.now);
            let stamp = leadership.machine.cluster_time(now);
            leadership.machine.advance(stamp);
            let entry = log::Entry {
                decided_term: term,
                cluster_time_ns: stamp.0,
                operations: drain.operations,
                state_hash: leadership.hash.take(),
            };
            let bytes = Bytes::from(entry.encode_to_vec());
            leadership
                .in_flight
                .push_back((leadership.sequence, bytes.len()));
            leadership.in_flight_bytes += bytes.len();
            core.trace.word(bytes_hash(&bytes));
            if leadership.sequence.is_multiple_of(HASH_EVERY) {
                // Nothing is stepped between this entry and the next one.
                let hash = leadership.machine.state_hash();
                leadership.hash = Some(hash);
                core.checkers
                    .history
                    .decided((term, leadership.sequence), hash);
            }
            proposal = Some((leadership.sequence, bytes));
        }
        let sequence = leadership.sequence;
        core.checkers
            .outbox
            .pushed(core.now, body.number, term, sequence, &drain.send);
        if let Some((sequence, bytes)) = proposal {
            self.propose(body, core, term, sequence, bytes)?;
        }
        let Some(leadership) = &mut self.thread.leadership else {
            return Ok(());
        };
        let leaving = leadership.outbox.push(sequence, drain.send);
        self.leave(body, core, leaving);
        let ticket = self
            .thread
            .leadership
            .as_mut()
            .and_then(|it| it.outbox.ask_confirmation());
        match ticket {
            Some(ticket) => self.confirm(body, core, ticket.0),
            None => Ok(()),
        }
    }

    fn leave(&mut self, body: &mut Body, core: &mut Core, leaving: Vec<Outgoing>) {
        for outgoing in &leaving {
            let verdict = core.checkers.left(core.now, body.number, outgoing);
            core.judge("outbox", verdict);
        }
        self.deliver(body, core, leaving);
    }
}

/// An operation in a line: its name and what it is about.
fn describe(operation: &log::Operation) -> String {
    let Some(kind) = &operation.kind else {
        return "nothing".to_owned();
    };
    let text = format!("{kind:?}");
    let name = text.split(['(', ' ']).next().unwrap_or_default();
    let mut about = Vec::new();
    for field in [
        "framework_id: \"",
        "agent_id: \"",
        "task_id: \"",
        "state: ",
        "up_to: ",
        "sequence: ",
    ] {
        if let Some(rest) = text.split(field).nth(1) {
            about.extend(rest.split(['"', ',', ' ']).next());
        }
    }
    format!("{name} {}", about.join(" "))
}
