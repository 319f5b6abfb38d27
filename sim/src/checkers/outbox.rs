//! Nothing leaves a master before what it rests on is durable on a quorum, nothing that rests on
//! absence once another leader has begun, and nothing overtakes what goes the same way.

use super::{durability::Durability, history::History};
use std::collections::{BTreeMap, VecDeque};
use tepui_master_machine::output::{Destination, Needs, Outgoing};

#[derive(Debug)]
struct Waiting {
    sequence: u64,
    needs: Needs,
    at: u64,
    // The debug text would be exact and slow; kinds are enough to see one overtake another.
    kind: std::mem::Discriminant<tepui_master_machine::output::Message>,
}

#[derive(Debug)]
struct Term {
    term: u64,
    waiting: BTreeMap<Destination, VecDeque<Waiting>>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Order {
    terms: BTreeMap<usize, Term>,
}

impl Order {
    /// A machine was born.
    pub fn birth(&mut self, _now: u64, master: usize, term: u64) {
        let waiting = BTreeMap::new();
        self.terms.insert(master, Term { term, waiting });
    }

    /// Its term is over for this master.
    pub fn death(&mut self, master: usize) {
        self.terms.remove(&master);
    }

    /// A drain wants to send; its operations, if any, are this decision of its term.
    pub fn pushed(&mut self, now: u64, master: usize, term: u64, sequence: u64, send: &[Outgoing]) {
        let Some(it) = self.terms.get_mut(&master).filter(|it| it.term == term) else {
            return;
        };
        for outgoing in send {
            let queue = it.waiting.entry(outgoing.to).or_default();
            queue.push_back(Waiting {
                sequence,
                needs: outgoing.needs,
                at: now,
                kind: std::mem::discriminant(&outgoing.message),
            });
        }
    }

    /// A message leaves.
    pub fn left(
        &mut self,
        now: u64,
        master: usize,
        outgoing: &Outgoing,
        durability: &Durability,
        history: &History,
    ) -> Result<(), String> {
        let Some(it) = self.terms.get_mut(&master) else {
            return Err(format!(
                "master {master} sends and does not lead: {outgoing:?}"
            ));
        };
        let queue = it.waiting.entry(outgoing.to).or_default();
        let Some(first) = queue.pop_front() else {
            return Err(format!("a message leaves that nobody pushed: {outgoing:?}"));
        };
        let term = it.term;
        if queue.is_empty() {
            it.waiting.remove(&outgoing.to);
        }
        let kind = std::mem::discriminant(&outgoing.message);
        if first.kind != kind || first.needs != outgoing.needs {
            return Err(format!(
                "a message to {:?} overtakes another one: {outgoing:?}",
                outgoing.to
            ));
        }
        if !durability.is_durable(term, first.sequence) {
            return Err(format!(
                "a message leaves before decision {} of term {term}, on which it rests, is \
                 durable on a quorum: {outgoing:?}",
                first.sequence
            ));
        }
        if first.needs == Needs::Leadership && history.newest_term(first.at) > term {
            return Err(format!(
                "an answer that rests on absence leaves the leader of term {term}, decided {} ns \
                 ago, when term {} had begun: {outgoing:?}",
                now - first.at,
                history.newest_term(first.at)
            ));
        }
        Ok(())
    }
}
