//! The machine's own thread: inputs in, log entries and messages out.
//!
//! One drain of the intake becomes one entry: every operation of its steps, never half of a
//! step. What the steps want to send waits in the [`Outbox`] under the entry's sequence
//! number; when the replica says that the entry is committed, first the view gets it, then
//! the messages leave. A master that does not lead has no machine: its thread waits.
//!
//! A panic inside a step takes nothing down: nothing of that step has left. What earlier
//! steps decided is committed, the machine is born again from the committed state with the
//! connections and offers that it had, and only the connection that caused the panic is
//! closed and its principal held off for a while.

use crate::shell::{
    destinations::Destinations,
    intake::{Control, Delivery, Intake, Taken},
    view_thread::{ViewHandle, ViewMessage},
};
use bytes::Bytes;
use prost::Message as _;
use std::{
    any::Any,
    cell::Cell,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant as SystemInstant, SystemTime, UNIX_EPOCH},
};
use tepui_master_machine::{
    Machine,
    config::Config,
    counters::{Counter, Counters},
    input::{ConnectionId, Input},
    model::{
        link, log,
        time::{Instant, WallTime},
        wire,
    },
    outbox::{Outbox, Ticket},
    output::{Destination, Outgoing, Output, ViewChange},
    survivors::Survivors,
};
use tepui_server::metrics::Timer;
use tepui_state::ClusterState;
use tokio::sync::watch;

/// What the replica tells the machine's thread.
#[derive(Debug)]
pub(crate) enum ReplicaEvent {
    /// This master leads, and everything up to now is in the committed state.
    Elected { term: u64 },
    /// It does not lead this term any more.
    Deposed { term: u64 },
    /// The entry with this sequence number of this term is committed.
    Committed { term: u64, sequence: u64 },
    /// A confirmation of leadership came back.
    Confirmed { term: u64, ticket: Ticket },
    /// The committed state that was asked for.
    State { term: u64, state: Box<ClusterState> },
}

/// What the machine's thread asks of the replica. Nothing here waits.
pub(crate) trait Replica: Send {
    /// Appends an entry; its fate arrives as [`ReplicaEvent`].
    fn propose(&self, term: u64, sequence: u64, entry: Bytes);
    /// Confirms that this master still leads.
    fn confirm(&self, term: u64, ticket: Ticket);
    /// The committed state as of now.
    fn committed(&self) -> Box<ClusterState>;
    /// Asks for the committed state, with every entry up to now that is committed.
    fn ask_state(&self, term: u64);
    /// The state of the machine after the newest entry that was proposed: the committed state is
    /// to hold the same rows once it has come to that entry.
    fn share(&self, term: u64, sequence: u64, state: Box<ClusterState>);
}

/// Entries after which one carries the hash of the state, and changed rows after which it
/// does: what is compared at once must not keep a replica from its other work for long.
const HASH_ENTRIES: u32 = 1024;
const HASH_ROWS: usize = 16_384;
/// The machine's state, the committed one and the view's hold each row once: what entries made
/// three of is shared again so often. A row that lives shorter is never shared, and its changes
/// cost no copy.
const SHARE: Duration = Duration::from_secs(1);
/// Steps of one drain at most; an entry should not grow beyond what one sync carries.
const STEPS: usize = 512;
/// Encoded operations of one drain at most, approximately.
const BYTES: usize = 1 << 20;

/// Number of the field `operations` of [`log::Entry`].
const OPERATIONS: u32 = 3;
/// Bytes proposed and not committed before stepping pauses.
const IN_FLIGHT: usize = 16 << 20;
/// Entries proposed and not committed before stepping pauses: fewer than the log's threads take
/// without making anybody wait, so that a stalled disk refuses no proposal.
const ENTRIES_IN_FLIGHT: usize = 512;
/// Ticks that may panic one after the other.
const FAILED_TICKS: u32 = 3;
/// Inputs that caused a panic and are kept: one that comes again and again must not fill
/// the disk.
const DUMPS: usize = 100;
/// How long the principal of a connection that caused a panic is refused.
const HOLD_OFF: Duration = Duration::from_secs(30);

/// What others may know of the thread.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    leading: AtomicBool,
    /// Signs what the machine that serves says to agents; nothing without one.
    born: watch::Sender<Option<link::Fence>>,
    status: Mutex<Status>,
    held_off: Mutex<Vec<(Option<String>, SystemInstant)>>,
    timers: Mutex<Timers>,
}

/// How long things take.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timers {
    /// From the proposal of an entry until it is committed.
    pub(crate) commits: Timer,
    /// Steps that ran a cycle of allocation.
    pub(crate) allocations: Timer,
}

/// The parts of [`Shared`] that change together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    /// As SUBSCRIBED shows it, with the id of the term.
    pub(crate) master_info: wire::MasterInfo,
    /// Seconds since the epoch at which the term began.
    pub(crate) elected_time: f64,
    /// Of the machine, sampled after a drain.
    pub(crate) counters: Option<Counters>,
    /// Panics that were survived.
    pub(crate) panics: u64,
}

impl Shared {
    /// Changes when a machine begins to serve and when it ends: its fence.
    pub(crate) fn born(&self) -> watch::Receiver<Option<link::Fence>> {
        self.born.subscribe()
    }

    /// Whether this master leads and serves.
    pub(crate) fn is_leading(&self) -> bool {
        self.leading.load(Ordering::Acquire)
    }

    /// A copy of the status.
    pub(crate) fn status(&self) -> Status {
        self.status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A copy of the timers.
    pub(crate) fn timers(&self) -> Timers {
        self.lock_timers().clone()
    }

    /// Locked for one sample or one copy.
    fn lock_timers(&self) -> MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_status(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether this principal is refused because it caused a panic a short while ago.
    /// Without principals nobody can be told apart, and nobody is refused.
    pub(crate) fn is_held_off(&self, principal: Option<&str>) -> bool {
        let Some(principal) = principal else {
            return false;
        };
        let mut held = self.held_off.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|(_, until)| *until > SystemInstant::now());
        held.iter().any(|(it, _)| it.as_deref() == Some(principal))
    }
}

/// Everything that the thread needs to begin.
pub(crate) struct Parts<R> {
    pub(crate) config: Config,
    pub(crate) intake: Arc<Intake<ReplicaEvent>>,
    pub(crate) destinations: Arc<Destinations>,
    pub(crate) view: ViewHandle,
    pub(crate) replica: R,
    pub(crate) shared: Arc<Shared>,
    /// Where inputs that caused a panic are written.
    pub(crate) panic_folder: PathBuf,
}

/// Seconds since the epoch.
pub(crate) fn wall_now() -> WallTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    WallTime(now.map_or(0.0, |it| it.as_secs_f64()))
}

/// The clock of the machine: nanoseconds since the thread began.
#[derive(Debug, Clone, Copy)]
struct Clock {
    began: SystemInstant,
}

impl Clock {
    fn now(self) -> Instant {
        Instant(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn system(self, at: Instant) -> SystemInstant {
        self.began + Duration::from_nanos(at.0)
    }
}

/// A machine with what belongs to its term.
struct Leadership {
    term: u64,
    machine: Machine,
    outbox: Outbox,
    /// Of the newest entry proposed.
    sequence: u64,
    /// Entries on their way, oldest first.
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    survivors: Survivors,
    /// Of the state before the next entry, when that is to carry it.
    hash: Option<u64>,
    /// Since the last one that did.
    entries_unhashed: u32,
    /// The newest entry after which the state was shared, and when.
    shared: (u64, Instant),
}

impl Leadership {
    /// When the rows are to be shared again, if any changed since they were.
    fn share_at(&self) -> Option<Instant> {
        let (sequence, at) = self.shared;
        (sequence != self.sequence).then_some(at + SHARE)
    }

    /// Before the steps of an entry: its hash is that of the state before it.
    fn look_at_hash(&mut self) {
        let due = self.entries_unhashed >= HASH_ENTRIES
            || self.machine.state().unhashed_len() >= HASH_ROWS;
        if due && self.hash.is_none() {
            self.hash = Some(self.machine.state_hash());
        }
    }
}

/// What happens when an entry is committed, besides the outbox.
struct InFlight {
    sequence: u64,
    proposed: SystemInstant,
    bytes: usize,
    entry: Arc<log::Entry>,
    changes: Vec<ViewChange>,
    /// The state after it, for the view to share its rows.
    state: Option<Box<ClusterState>>,
}

/// What one drain collects.
#[derive(Default)]
struct Drain {
    operations: Vec<log::Operation>,
    /// The same as fields of an entry, encoded as they come: what is left to add to an entry is
    /// little, and how long it gets is known.
    encoded: Vec<u8>,
    send: Vec<Outgoing>,
    changes: Vec<ViewChange>,
    stamp: bool,
    steps: usize,
}

impl Drain {
    fn add(&mut self, output: Output) {
        for operation in &output.log {
            prost::encoding::message::encode(OPERATIONS, operation, &mut self.encoded);
        }
        self.operations.extend(output.log);
        self.send.extend(output.send);
        self.changes.extend(output.view);
        self.stamp |= output.stamp;
        self.steps += 1;
    }

    fn is_full(&self) -> bool {
        self.steps >= STEPS || self.encoded.len() >= BYTES
    }
}

/// The thread's main function; returns when told to stop.
pub(crate) fn run<R: Replica>(parts: Parts<R>) {
    let clock = Clock {
        began: SystemInstant::now(),
    };
    let mut leadership: Option<Leadership> = None;
    let core = Core {
        parts,
        clock,
        failed_ticks: Cell::new(0),
    };
    loop {
        let stopped = match &mut leadership {
            None => core.follow(&mut leadership),
            Some(_) => core.lead(&mut leadership),
        };
        if stopped {
            return;
        }
    }
}

struct Core<R> {
    parts: Parts<R>,
    clock: Clock,
    /// Ticks that panicked, one after the other.
    failed_ticks: Cell<u32>,
}

impl<R: Replica> Core<R> {
    /// Without a machine: waits for an election and drops what clients send, whose
    /// connections were closed when the leadership ended. True to stop.
    fn follow(&self, leadership: &mut Option<Leadership>) -> bool {
        match self.parts.intake.take(None) {
            Taken::Control(Control::Stop) => return true,
            Taken::Control(Control::Replica(ReplicaEvent::Elected { term })) => {
                *leadership = Some(self.begin_term(term));
            }
            Taken::Control(Control::Replica(_)) | Taken::Timeout => {}
            Taken::Inputs(inputs) => {
                for Delivery { source, input } in inputs {
                    self.refuse(source, &input);
                }
            }
        }
        false
    }

    /// With a machine: one wait, one drain. True to stop.
    fn lead(&self, slot: &mut Option<Leadership>) -> bool {
        let Some(leadership) = slot.as_mut() else {
            return false;
        };
        leadership.look_at_hash();
        let deadlines = [leadership.machine.next_deadline(), leadership.share_at()];
        let deadline = deadlines.into_iter().flatten().min();
        let deadline = deadline.map(|at| self.clock.system(at));
        // Too much on its way to the disk: no step until some of it is durable.
        let held_back = leadership.in_flight_bytes > IN_FLIGHT
            || leadership.in_flight.len() >= ENTRIES_IN_FLIGHT;
        let first = match held_back {
            true => self.parts.intake.take_control(None).map(Taken::Control),
            false => Some(self.parts.intake.take(deadline)),
        };
        let mut drain = Drain::default();
        let mut next = first;
        while let Some(taken) = next.take() {
            match taken {
                Taken::Control(Control::Stop) => return true,
                Taken::Control(Control::Replica(event)) => {
                    if self.replica_event(slot, event) {
                        return false;
                    }
                }
                Taken::Timeout => {
                    if self.tick(slot, &mut drain) {
                        return false;
                    }
                }
                Taken::Inputs(inputs) => {
                    if self.step_all(slot, &mut drain, inputs) {
                        return false;
                    }
                }
            }
            if !held_back && !drain.is_full() {
                next = self.parts.intake.try_take();
            }
        }
        if self.tick_if_due(slot, &mut drain) {
            return false;
        }
        if let Some(leadership) = slot.as_mut() {
            self.flush(leadership, drain);
            self.share_if_due(leadership);
            self.sample(leadership);
        }
        false
    }

    /// Lets the committed state and the view hold the rows that the machine holds. Between two
    /// drains alone: the state is that after the newest entry.
    fn share_if_due(&self, leadership: &mut Leadership) {
        let now = self.clock.now();
        if leadership.share_at().is_none_or(|at| at > now) {
            return;
        }
        let (term, sequence) = (leadership.term, leadership.sequence);
        leadership.shared = (sequence, now);
        // Hashed first: what one copy hashes later, the others would have to copy. Followers hash
        // with the next entry, before much has come together.
        leadership.hash = Some(leadership.machine.state_hash());
        let state = Box::new(leadership.machine.state().clone());
        self.parts.replica.share(term, sequence, state.clone());
        match leadership.in_flight.back_mut() {
            Some(last) => last.state = Some(state),
            None => self.parts.view.send(ViewMessage::Share(state)),
        }
    }

    /// A busy intake must not starve the machine's own deadlines. True when the machine
    /// had to be born again.
    fn tick_if_due(&self, slot: &mut Option<Leadership>, drain: &mut Drain) -> bool {
        let deadline = slot.as_ref().and_then(|it| it.machine.next_deadline());
        deadline.is_some_and(|at| at <= self.clock.now()) && self.tick(slot, drain)
    }

    fn tick(&self, slot: &mut Option<Leadership>, drain: &mut Drain) -> bool {
        let tick = Delivery {
            source: ConnectionId(u64::MAX),
            input: Input::Tick,
        };
        let reborn = self.step_all(slot, drain, vec![tick]);
        let failed = if reborn {
            self.failed_ticks.get() + 1
        } else {
            0
        };
        self.failed_ticks.set(failed);
        if failed >= FAILED_TICKS {
            // Nobody is to blame, and a machine born again fails again.
            tracing::error!(failed, "the machine's clockwork panics: the process ends");
            std::process::abort();
        }
        reborn
    }

    /// True when the leadership ended.
    fn replica_event(&self, slot: &mut Option<Leadership>, event: ReplicaEvent) -> bool {
        match event {
            ReplicaEvent::Elected { term } => {
                // A leadership that follows on another without a word in between.
                self.end_term(slot);
                *slot = Some(self.begin_term(term));
                true
            }
            ReplicaEvent::Deposed { term } => {
                // One that comes late says nothing about the next leadership.
                let current = slot.as_ref().is_some_and(|it| it.term == term);
                if current {
                    self.end_term(slot);
                }
                current
            }
            ReplicaEvent::Committed { term, sequence } => {
                if let Some(it) = slot.as_mut().filter(|it| it.term == term) {
                    self.committed(it, sequence);
                }
                false
            }
            ReplicaEvent::Confirmed { term, ticket } => {
                if let Some(it) = slot.as_mut().filter(|it| it.term == term) {
                    let leaving = it.outbox.confirmed(ticket);
                    self.deliver(it, leaving);
                }
                false
            }
            ReplicaEvent::State { .. } => false,
        }
    }

    fn begin_term(&self, term: u64) -> Leadership {
        // Copied here: the raft thread has peers to answer.
        let state = *self.parts.replica.committed();
        tracing::info!(term, "this master leads");
        let outbox = Outbox::new(0);
        let mut leadership = self.birth(term, 0, state, Survivors::default(), outbox);
        leadership.survivors = Survivors::default();
        self.parts.shared.leading.store(true, Ordering::Release);
        let cluster = leadership.machine.state().cluster();
        let fence = link::Fence {
            cluster_id: cluster.cluster_id.clone(),
            incarnation: cluster.incarnation,
            term,
        };
        self.parts.shared.born.send_replace(Some(fence));
        leadership
    }

    /// Makes a machine from a committed state and proposes what its birth decides.
    fn birth(
        &self,
        term: u64,
        sequence: u64,
        state: ClusterState,
        mut survivors: Survivors,
        outbox: Outbox,
    ) -> Leadership {
        let now = self.clock.now();
        let wall = wall_now();
        let master_id = uuid::Uuid::new_v4().to_string();
        self.parts.view.send(ViewMessage::Birth {
            state: Box::new(state.clone()),
            again: sequence != 0,
        });
        let (mut machine, output) = Machine::birth(
            state,
            term,
            now,
            wall,
            rand::random(),
            &master_id,
            self.parts.config.clone(),
        );
        let restored = survivors.restore(&mut machine, now, wall);
        // Watches are begun again by their clients.
        self.parts.destinations.close_watches();
        // From here on it has what this machine took over, no more.
        survivors.forget_offers();
        survivors.observe_output(&output);
        survivors.observe_output(&restored);
        self.parts.shared.with_status(|status| {
            status.master_info = self.parts.config.master_info.clone();
            status.master_info.id = master_id;
            if sequence == 0 {
                // A machine that is born again goes on with its term.
                status.elected_time = wall.0;
            }
        });
        let mut leadership = Leadership {
            term,
            machine,
            outbox,
            sequence,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            survivors,
            hash: None,
            entries_unhashed: 0,
            shared: (sequence, now),
        };
        let mut drain = Drain::default();
        drain.add(output);
        drain.add(restored);
        self.flush(&mut leadership, drain);
        leadership
    }

    fn end_term(&self, slot: &mut Option<Leadership>) {
        if let Some(leadership) = slot.take() {
            tracing::warn!(term = leadership.term, "this master does not lead any more");
        }
        self.parts.shared.leading.store(false, Ordering::Release);
        // Before the streams close: who finds its own closed sees why.
        self.parts.shared.born.send_replace(None);
        self.parts.view.send(ViewMessage::Lost);
        self.parts.destinations.close_all();
    }

    /// Steps through inputs. True when the machine had to be born again; the drain was
    /// flushed then.
    fn step_all(
        &self,
        slot: &mut Option<Leadership>,
        drain: &mut Drain,
        inputs: Vec<Delivery>,
    ) -> bool {
        let mut inputs = inputs.into_iter();
        while let Some(Delivery { source, input }) = inputs.next() {
            let Some(leadership) = slot.as_mut() else {
                return true;
            };
            leadership.survivors.observe_input(&input);
            let (now, wall) = (self.clock.now(), wall_now());
            // Kept for the case of a panic; inputs share their payloads.
            let kept = input.clone();
            let machine = &mut leadership.machine;
            let runs = machine.counters().get(Counter::AllocationRuns);
            let result = catch_unwind(AssertUnwindSafe(|| machine.step(now, wall, input)));
            match result {
                Ok(output) => {
                    if leadership.machine.counters().get(Counter::AllocationRuns) != runs {
                        let took = self.clock.now().saturating_since(now);
                        self.parts.shared.lock_timers().allocations.record(took);
                    }
                    leadership.survivors.observe_output(&output);
                    drain.add(output);
                }
                Err(panic) => {
                    self.survive(slot, std::mem::take(drain), source, &kept, panic.as_ref());
                    // Those behind it in the same turn are of the connection to blame.
                    for Delivery { source, input } in inputs {
                        self.refuse(source, &input);
                    }
                    return true;
                }
            }
        }
        false
    }

    /// After a panic: commits what was decided before, and goes on with a new machine.
    fn survive(
        &self,
        slot: &mut Option<Leadership>,
        drain: Drain,
        source: ConnectionId,
        input: &Input,
        panic: &(dyn Any + Send),
    ) {
        let Some(mut leadership) = slot.take() else {
            return;
        };
        let text = panic_text(panic);
        tracing::error!(?source, text, "a step panicked; its connection is closed");
        self.dump(source, input, &text);
        for input in self.parts.intake.discard(source) {
            self.refuse(source, &input);
        }
        self.refuse(source, input);
        let principal = leadership.survivors.blame(source, input);
        if let Some(principal) = principal {
            let until = SystemInstant::now() + HOLD_OFF;
            let mut held = self
                .parts
                .shared
                .held_off
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            held.push((Some(principal), until));
        }
        self.parts.shared.with_status(|status| status.panics += 1);
        self.flush(&mut leadership, drain);
        let term = leadership.term;
        // The state that the new machine begins with must have everything that the old
        // one decided: it is asked for when that is committed.
        let mut asked = false;
        loop {
            if leadership.in_flight.is_empty() && !asked {
                self.parts.replica.ask_state(term);
                asked = true;
            }
            match self.parts.intake.take_control(None) {
                None => {}
                Some(Control::Stop) => {
                    self.parts.intake.control(Control::Stop);
                    return;
                }
                Some(Control::Replica(ReplicaEvent::State { term: of, state })) if of == term => {
                    let survivors = std::mem::take(&mut leadership.survivors);
                    // What waits for a confirmation was decided before, and still leaves.
                    let (sequence, outbox) = (leadership.sequence, leadership.outbox);
                    *slot = Some(self.birth(term, sequence, *state, survivors, outbox));
                    return;
                }
                Some(Control::Replica(event)) => {
                    let mut current = Some(leadership);
                    if self.replica_event(&mut current, event) {
                        *slot = current;
                        return;
                    }
                    match current {
                        Some(it) => leadership = it,
                        None => return,
                    }
                }
            }
        }
    }

    /// Ends what hangs on an input that will not be stepped.
    fn refuse(&self, source: ConnectionId, input: &Input) {
        let destinations = &self.parts.destinations;
        destinations.close(source);
        match input {
            Input::SchedulerCall(call) => {
                if let Some(reply) = call.reply {
                    destinations.forget_request(reply);
                }
            }
            Input::Operator(it) => destinations.forget_request(it.reply),
            Input::State(it) => destinations.forget_request(it.reply),
            Input::StateWatch { connection, .. } => destinations.close(*connection),
            _ => {}
        }
    }

    fn dump(&self, source: ConnectionId, input: &Input, text: &str) {
        let folder = &self.parts.panic_folder;
        if std::fs::read_dir(folder).is_ok_and(|it| it.count() >= DUMPS) {
            tracing::error!("the panics folder is full: the input is not written");
            return;
        }
        let name = format!("{:.6}-{}.txt", wall_now().0, source.0);
        let content = format!("{text}\n\n{input:#?}\n");
        let written = std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(folder.join(&name), content));
        match written {
            Ok(()) => tracing::error!(file = name, "the input was written to the panics folder"),
            Err(error) => tracing::error!(%error, "the input could not be written"),
        }
    }

    /// Proposes the drain's operations as one entry and queues what depends on them.
    fn flush(&self, leadership: &mut Leadership, drain: Drain) {
        let now = self.clock.now();
        if drain.operations.is_empty() && !drain.stamp {
            if !drain.changes.is_empty() {
                self.show(leadership, None, drain.changes);
            }
            let leaving = leadership.outbox.push(leadership.sequence, drain.send);
            self.deliver(leadership, leaving);
        } else {
            leadership.sequence += 1;
            let sequence = leadership.sequence;
            let stamp = leadership.machine.cluster_time(now);
            // The machine's own state moves its clock as every replica will.
            leadership.machine.advance(stamp);
            let mut entry = log::Entry {
                decided_term: leadership.term,
                cluster_time_ns: stamp.0,
                operations: Vec::new(),
                state_hash: leadership.hash.take(),
            };
            // Behind the operations: the order of fields means nothing to who reads them.
            let mut bytes = drain.encoded;
            entry
                .encode(&mut bytes)
                .expect("a vector has room for everything");
            // It waits in the log's tail, whose bounds count what it says.
            bytes.shrink_to_fit();
            let bytes = Bytes::from(bytes);
            entry.operations = drain.operations;
            leadership.entries_unhashed = match entry.state_hash {
                Some(_) => 0,
                None => leadership.entries_unhashed + 1,
            };
            leadership.in_flight_bytes += bytes.len();
            leadership.in_flight.push_back(InFlight {
                sequence,
                proposed: SystemInstant::now(),
                bytes: bytes.len(),
                entry: Arc::new(entry),
                changes: drain.changes,
                state: None,
            });
            self.parts.replica.propose(leadership.term, sequence, bytes);
            let leaving = leadership.outbox.push(sequence, drain.send);
            self.deliver(leadership, leaving);
        }
        if let Some(ticket) = leadership.outbox.ask_confirmation() {
            self.parts.replica.confirm(leadership.term, ticket);
        }
    }

    /// Shows changes that no entry belongs to: behind the entries on their way.
    fn show(
        &self,
        leadership: &mut Leadership,
        entry: Option<Arc<log::Entry>>,
        changes: Vec<ViewChange>,
    ) {
        match leadership.in_flight.back_mut() {
            Some(last) => last.changes.extend(changes),
            None => self.parts.view.send(ViewMessage::Update { entry, changes }),
        }
    }

    fn committed(&self, leadership: &mut Leadership, sequence: u64) {
        while let Some(first) = leadership.in_flight.front() {
            if first.sequence > sequence {
                break;
            }
            if let Some(first) = leadership.in_flight.pop_front() {
                leadership.in_flight_bytes -= first.bytes;
                let mut timers = self.parts.shared.lock_timers();
                timers.commits.record(first.proposed.elapsed());
                drop(timers);
                // Before the messages leave: a client that was answered sees its write.
                self.parts.view.send(ViewMessage::Update {
                    entry: Some(first.entry),
                    changes: first.changes,
                });
                if let Some(state) = first.state {
                    self.parts.view.send(ViewMessage::Share(state));
                }
            }
        }
        let leaving = leadership.outbox.committed(sequence);
        self.deliver(leadership, leaving);
    }

    fn deliver(&self, leadership: &mut Leadership, messages: Vec<Outgoing>) {
        for slow in self.parts.destinations.deliver(messages) {
            // Its connection may hang in a write for a while: the machine is told now.
            let (connection, input) = match slow {
                Destination::Scheduler(connection) => {
                    (connection, Input::SchedulerDisconnected { connection })
                }
                Destination::Agent(connection) => {
                    (connection, Input::AgentDisconnected { connection })
                }
                Destination::Watch(connection) => {
                    (connection, Input::StateWatchClosed { connection })
                }
                Destination::Reply(_) => continue,
            };
            tracing::warn!(?slow, "a reader is too slow and is disconnected");
            leadership.survivors.forget(connection);
            self.parts.intake.interject(connection, input);
        }
    }

    fn sample(&self, leadership: &Leadership) {
        let counters = leadership.machine.counters().clone();
        self.parts
            .shared
            .with_status(|status| status.counters = Some(counters));
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|it| (*it).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}
