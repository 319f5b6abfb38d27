//! Who operates the cluster: one order after the other, to whoever leads.

use crate::{
    checkers::orders::Outcome,
    clock::{MILLI, SECOND},
    core::{Core, Event as WorldEvent},
    network::{Conn, End, Frame, Hello, Host},
    trace::note,
};
use std::collections::{BTreeSet, VecDeque};
use tepui_master_machine::input::OperatorRequest;

/// A master has this long to answer.
const PATIENCE: u64 = 5 * SECOND;

/// What the operator waits for.
#[derive(Debug)]
pub enum Event {
    /// The next order, or the same one again.
    Next,
    /// The answer has had its time.
    Impatient(Conn),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Operator {
    /// Agents whose machines it believes to be down.
    pub(crate) down: BTreeSet<usize>,
    waiting: VecDeque<usize>,
    asking: Option<(usize, Conn)>,
    target: usize,
}

impl Operator {
    /// Something is to be done.
    pub fn order(&mut self, core: &mut Core, request: OperatorRequest) {
        note!(core, Host::Operator, "wants {request:?}");
        let number = core.checkers.orders.ask(request);
        self.waiting.push_back(number);
        if self.waiting.len() == 1 && self.asking.is_none() {
            self.next(core);
        }
    }

    fn next(&mut self, core: &mut Core) {
        if self.asking.is_some() {
            return;
        }
        if let Some(number) = self.waiting.front().copied() {
            let conn = core.open(Host::Operator, self.target, Hello::Operate(number));
            self.asking = Some((number, conn));
            core.after(PATIENCE, WorldEvent::Operator(Event::Impatient(conn)));
        }
    }

    /// Something that it waited for.
    pub fn handle(&mut self, core: &mut Core, event: Event) {
        match event {
            Event::Next => self.next(core),
            Event::Impatient(conn) => {
                if self.asking.is_some_and(|it| it.1 == conn) {
                    core.send(conn, End::Server, Frame::Closed);
                    self.ended(core, Outcome::Unknown);
                }
            }
        }
    }

    fn ended(&mut self, core: &mut Core, outcome: Outcome) {
        if let Some((number, _)) = self.asking.take() {
            note!(core, Host::Operator, "order {number} is {outcome:?}");
            core.checkers.orders.ended(number, outcome);
            self.waiting.pop_front();
            core.after(MILLI, WorldEvent::Operator(Event::Next));
        }
    }

    /// A frame of a master.
    pub fn frame(&mut self, core: &mut Core, conn: Conn, frame: Frame) {
        core.net.read(conn, End::Client);
        if self.asking.is_none_or(|it| it.1 != conn) {
            return;
        }
        match frame {
            Frame::Answer(status, _) if status < 300 => self.ended(core, Outcome::Taken),
            Frame::Answer(..) => self.ended(core, Outcome::Refused),
            Frame::Refused(leader) => {
                // It was not taken: the same again, elsewhere.
                self.asking = None;
                let masters = core.shape.masters;
                self.target = leader.unwrap_or((self.target + 1) % masters);
                core.after(200 * MILLI, WorldEvent::Operator(Event::Next));
            }
            Frame::Closed => {
                self.target = (self.target + 1) % core.shape.masters;
                self.ended(core, Outcome::Unknown);
            }
            _ => {}
        }
    }
}
