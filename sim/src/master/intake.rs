//! Where inputs wait for the machine: a queue per connection, agents before clients, a quantum for
//! each turn, as the shell of the master has it.

use std::collections::{BTreeMap, VecDeque};
use tepui_master_machine::input::{ConnectionId, Input};

/// Inputs taken from one connection before the next one has its turn.
const QUANTUM: usize = 16;

/// Every so manieth turn is a client's, if one waits.
const CLIENTS_TURN: u64 = 8;

/// What a connection is, in order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Agent,
    Client,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Intake {
    queues: BTreeMap<ConnectionId, VecDeque<Input>>,
    rings: [VecDeque<ConnectionId>; 2],
    turns: u64,
}

impl Intake {
    pub(super) fn push(&mut self, class: Class, source: ConnectionId, input: Input) {
        let queue = self.queues.entry(source).or_default();
        if queue.is_empty() {
            self.rings[class as usize].push_back(source);
        }
        queue.push_back(input);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// One connection's turn.
    pub(super) fn turn(&mut self) -> Option<(ConnectionId, Vec<Input>)> {
        self.turns += 1;
        let clients_first = self.turns.is_multiple_of(CLIENTS_TURN);
        let [agents, clients] = &mut self.rings;
        let ring = match (agents.is_empty(), clients.is_empty()) {
            (true, true) => return None,
            (false, true) => agents,
            (false, false) if !clients_first => agents,
            _ => clients,
        };
        let source = ring.pop_front()?;
        let queue = self.queues.get_mut(&source)?;
        let count = queue.len().min(QUANTUM);
        let turn = queue.drain(..count).collect();
        match queue.is_empty() {
            true => {
                self.queues.remove(&source);
            }
            false => ring.push_back(source),
        }
        Some((source, turn))
    }

    /// Drops what waits of a connection.
    pub(super) fn discard(&mut self, source: ConnectionId) {
        self.queues.remove(&source);
        for ring in &mut self.rings {
            ring.retain(|it| *it != source);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Intake::default();
    }
}
