//! The world: hosts, the network between them, and one loop that lets events happen.

use crate::{
    agent::{ANY_LIFE, Agent},
    clock::{MILLI, SECOND},
    core::{Core, Event, Thoroughness, Violation},
    framework::Framework,
    keeper::Keeper,
    master::Master,
    network::{Conn, End, Fate, Frame, Host, STALL_MAX, STALL_MIN},
    operator::Operator,
    plan::{Part, Plan},
    trace::Witness,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};
use tepui_replication_node::Members;

/// How a run is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Looking {
    /// Lines of text are kept.
    pub lines: bool,
    /// How often the machines check themselves.
    pub thoroughness: Thoroughness,
}

impl Looking {
    /// As many seeds as possible.
    pub const FAST: Looking = Looking {
        lines: false,
        thoroughness: Thoroughness::Sampled,
    };
}

/// What happened in a run, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Nanoseconds simulated.
    pub simulated: u64,
    /// Events.
    pub events: u64,
    /// Entries of the log.
    pub entries: usize,
    /// Terms with a leader.
    pub terms: usize,
    /// Tasks that were asked for.
    pub tasks: usize,
    /// Tasks that ran.
    pub lives: usize,
    /// Offers.
    pub offers: u64,
    /// Updates that frameworks heard.
    pub updates: u64,
}

/// The end of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Of everything that happened.
    pub hash: u64,
    /// What must never happen, and did.
    pub violation: Option<Violation>,
    /// How much happened.
    pub numbers: Numbers,
    /// What happened, if anybody reads it.
    pub lines: Vec<String>,
}

/// Everything that is simulated.
#[derive(Debug)]
pub struct World {
    /// What all of it shares.
    pub core: Core,
    /// The masters.
    pub masters: Vec<Master>,
    /// The agents.
    pub agents: Vec<Agent>,
    /// The frameworks.
    pub frameworks: Vec<Framework>,
    /// The clients of the state service.
    pub keepers: Vec<Keeper>,
    /// Who operates them.
    pub operator: Operator,
    pub(crate) plan: Plan,
    pub(crate) replacing: Vec<crate::faults::Replacing>,
    pub(crate) next_node: u64,
    pub(crate) backup: Option<crate::disk::RowStore>,
    witness: Rc<Witness>,
}

/// Runs a plan; a panic of whatever runs in it is a violation like any other.
pub fn run(plan: Plan, looking: Looking) -> Outcome {
    run_checked(plan, looking, |_| Ok(()))
}

/// Runs a plan, and looks at the world at its end.
pub fn run_checked(
    plan: Plan,
    looking: Looking,
    check: impl FnOnce(&World) -> Result<(), String>,
) -> Outcome {
    let witness = Rc::<Witness>::default();
    let inside = witness.clone();
    // Nothing of the world is looked at after a panic.
    let run = AssertUnwindSafe(move || {
        let mut world = World::witnessed(plan, looking, inside);
        world.play();
        if world.core.violation.is_none() {
            let verdict = check(&world);
            world.core.judge("scenario", verdict);
        }
        world.end()
    });
    match catch_unwind(run) {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
            Outcome {
                hash: 0,
                violation: Some(Violation {
                    at: witness.now.get(),
                    checker: "panic",
                    text: text.unwrap_or_default(),
                }),
                numbers: Numbers::default(),
                lines: witness.lines.take(),
            }
        }
    }
}

/// The number of the master at an address.
pub fn master_at(address: &str) -> Option<usize> {
    let rest = address.strip_prefix("10.0.0.")?;
    rest.split(':')
        .next()?
        .parse::<usize>()
        .ok()?
        .checked_sub(1)
}

/// The client address of a master.
pub fn address_of(master: usize) -> String {
    format!("10.0.0.{}:5050", master + 1)
}

impl World {
    /// A world that follows a plan, at time zero.
    pub fn new(plan: Plan, looking: Looking) -> World {
        World::witnessed(plan, looking, Rc::default())
    }

    fn witnessed(plan: Plan, looking: Looking, witness: Rc<Witness>) -> World {
        let shape = Rc::new(plan.shape.clone());
        let (lines, thoroughness) = (looking.lines, looking.thoroughness);
        let mut core = Core::new(shape.clone(), lines, thoroughness, witness.clone());
        let founders = Members::voters((1..=shape.masters).map(|it| it as u64));
        let masters: Vec<Master> = (0..shape.masters)
            .map(|number| {
                let mut master = Master::new(&mut core, number, founders.clone());
                let delay = core.random.below(100 * MILLI);
                master.start_after(&mut core, delay);
                master
            })
            .collect();
        let agents: Vec<Agent> = (0..shape.agents)
            .map(|number| {
                let mut agent = Agent::new(&mut core, number);
                let delay = core.random.below(SECOND);
                agent.start_after(&mut core, delay);
                agent
            })
            .collect();
        let mut frameworks = Vec::new();
        for (number, style) in shape.frameworks.iter().enumerate() {
            let mut framework = Framework::new(&core, number, style.clone());
            let delay = core.random.below(2 * SECOND);
            framework.start_after(&mut core, delay);
            frameworks.push(framework);
        }
        let mut keepers = Vec::new();
        for number in 0..shape.keepers {
            let mut keeper = Keeper::new(&core, number);
            let delay = core.random.below(2 * SECOND);
            keeper.start_after(&mut core, delay);
            keepers.push(keeper);
        }
        for (number, (at, _)) in plan.parts.iter().enumerate() {
            core.at(*at, Event::Planned(number));
        }
        if plan.parts.is_empty() {
            core.checkers.frameworks.undisturbed();
        }
        core.at(SECOND, Event::Look);
        World {
            core,
            masters,
            agents,
            frameworks,
            keepers,
            operator: Operator::default(),
            plan,
            replacing: Vec::new(),
            next_node: 100,
            backup: None,
            witness,
        }
    }

    /// Follows the plan to its end, or to the first violation.
    pub fn run(mut self) -> Outcome {
        self.play();
        self.end()
    }

    fn play(&mut self) {
        let length = self.plan.shape.length;
        if self.until(length) {
            self.settle();
        }
    }

    fn end(self) -> Outcome {
        let checkers = &self.core.checkers;
        let numbers = Numbers {
            simulated: self.core.now,
            events: self.core.trace.events(),
            entries: checkers.history.len(),
            terms: checkers.history.terms(),
            tasks: checkers.tasks.len(),
            lives: checkers.lives.len(),
            offers: checkers.offers.len(),
            updates: checkers.updates.len(),
        };
        Outcome {
            hash: self.core.trace.hash(),
            violation: self.core.violation,
            numbers,
            lines: self.witness.lines.take(),
        }
    }

    /// Lets events happen up to a time; false when something went wrong.
    pub fn until(&mut self, end: u64) -> bool {
        while self.core.violation.is_none() {
            let Some(event) = self.core.next(end) else {
                self.core.now = end;
                return true;
            };
            self.happen(event);
        }
        false
    }

    /// The number of whoever has a machine, the newest term first.
    pub fn leader(&self) -> Option<usize> {
        let leading = self.masters.iter().filter(|it| it.leads());
        let newest = leading.max_by_key(|it| it.leading_term())?;
        newest.leading_term().map(|_| newest.body.number)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Frame { conn, to, frame } => self.arrive(conn, to, frame),
            Event::Handed { host, conn, frame } => self.hand(host, conn, frame),
            Event::StallOver(conn) => {
                if self.core.net.is_stalled(conn) {
                    self.core.break_off(conn);
                }
            }
            Event::Raft {
                from,
                to,
                message,
                ticket,
            } => self.raft(from, to, message, ticket),
            Event::Master(number, life, event) => {
                let host = Host::Master(number);
                if self.masters[number].body.life != life {
                    return;
                }
                let event = Event::Master(number, life, event);
                if let Some(Event::Master(_, _, event)) = self.core.unless_paused(host, event) {
                    self.masters[number].handle(&mut self.core, event);
                }
            }
            Event::Agent(number, life, event) => {
                let host = Host::Agent(number);
                if life != ANY_LIFE && self.agents[number].life != life {
                    return;
                }
                let event = Event::Agent(number, life, event);
                // What a container does, it does also while its agent stands still; the agent
                // sees it later.
                if let Some(Event::Agent(_, _, event)) = self.core.unless_paused(host, event) {
                    self.agents[number].handle(&mut self.core, event);
                }
            }
            Event::Framework(number, life, event) => {
                let host = Host::Framework(number);
                if self.frameworks[number].life != life {
                    return;
                }
                let event = Event::Framework(number, life, event);
                if let Some(Event::Framework(_, _, event)) = self.core.unless_paused(host, event) {
                    self.frameworks[number].handle(&mut self.core, event);
                }
            }
            Event::Operator(event) => self.operator.handle(&mut self.core, event),
            Event::Keeper(number, event) => self.keepers[number].handle(&mut self.core, event),
            Event::Planned(number) => self.planned(number),
            Event::Mend(number) => self.core.mend(number),
            Event::Resume(host, _) => self.core.resume(host),
            Event::Pass(number) => self.pass(number),
            Event::Look => self.look(),
        }
    }

    fn planned(&mut self, number: usize) {
        match self.plan.parts.get(number).map(|it| it.1.clone()) {
            Some(Part::Fault(fault)) => self.fault(number, fault),
            Some(Part::Act(act)) => self.act(act),
            None => {}
        }
    }

    fn arrive(&mut self, conn: Conn, to: End, frame: Frame) {
        match self.core.net.arrive(conn, to, frame) {
            Fate::Deliver(host, frame) => self.hand(host, conn, frame),
            Fate::Stalled { first } => {
                if first {
                    let wait = self.core.net.draw().between(STALL_MIN, STALL_MAX);
                    self.core.after(wait, Event::StallOver(conn));
                }
            }
            Fate::Lost => {}
        }
    }

    fn hand(&mut self, host: Host, conn: Conn, frame: Frame) {
        if self.core.is_dark(host) {
            return;
        }
        let event = Event::Handed { host, conn, frame };
        let Some(Event::Handed { frame, .. }) = self.core.unless_paused(host, event) else {
            return;
        };
        match host {
            Host::Master(number) => self.masters[number].frame(&mut self.core, conn, frame),
            Host::Agent(number) => self.agents[number].frame(&mut self.core, conn, frame),
            Host::Framework(number) => self.frameworks[number].frame(&mut self.core, conn, frame),
            Host::Operator => {
                let taken = matches!(frame, Frame::Answer(status, _) if status < 300);
                self.operator.frame(&mut self.core, conn, frame);
                // Whoever leads has what the operator has just been promised; who led before may
                // not know it.
                let terms = self.masters.iter().filter_map(|it| it.process.as_ref());
                let newest = terms.map(|it| it.raft.node.term()).max();
                let leader = self.leader().and_then(|it| self.masters[it].leading_term());
                if taken
                    && leader == newest
                    && let Some((_, state)) = self.leading_state()
                {
                    let verdict = self.core.checkers.orders.kept(state);
                    self.core.judge("orders", verdict);
                }
            }
            Host::Keeper(number) => self.keepers[number].frame(&mut self.core, conn, frame),
        }
    }

    fn raft(
        &mut self,
        from: u64,
        to: u64,
        message: bytes::Bytes,
        ticket: Option<tepui_replication_node::Ticket>,
    ) {
        let (Some(source), Some(number)) = (
            self.core.nodes.get(&from).copied(),
            self.core.nodes.get(&to).copied(),
        ) else {
            return;
        };
        let host = Host::Master(number);
        let cut = self.core.net.is_cut(Host::Master(source), host);
        let there = self.masters[number].is_up() && self.masters[number].body.id == to;
        if cut || !there {
            if ticket.is_some() {
                let (life, event) = (
                    self.core.life(source),
                    crate::master::Event::RowsReport {
                        peer: to,
                        arrived: false,
                    },
                );
                self.core.after(SECOND, Event::Master(source, life, event));
            }
            return;
        }
        let event = Event::Raft {
            from,
            to,
            message,
            ticket,
        };
        if let Some(Event::Raft {
            message, ticket, ..
        }) = self.core.unless_paused(host, event)
        {
            self.masters[number].raft_message(&mut self.core, from, message, ticket);
        }
    }

    /// Now and then the checkers look at everything.
    fn look(&mut self) {
        let checkers = &mut self.core.checkers;
        let verdict = checkers.updates.look(&checkers.tasks);
        self.core.judge("updates", verdict);
        self.replace_members();
        self.core.after(SECOND / 2, Event::Look);
    }
}
