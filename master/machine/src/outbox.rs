//! Where messages wait until what they rely on is durable (output commit).
//!
//! Pure and the same in production and in simulation. The shell pushes what each
//! step wants to send with the index of the log entry that will hold the step's
//! operations (or, when the step logged nothing, of the last entry that holds any
//! earlier step's), and drains when the node tells that an index is committed or
//! that a read index came back.
//!
//! # Invariants
//! - Nothing leaves before its index is committed, and nothing that needs
//!   leadership before a confirmation that was asked for after it was pushed.
//! - Messages of one destination leave in the order in which they were pushed, whatever
//!   they need: one that waits holds back those behind it.

use std::collections::{BTreeMap, VecDeque};

use crate::output::{Destination, Needs, Outgoing};

/// Names a confirmation of leadership: one covers every message with its own or a
/// smaller ticket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Ticket(pub u64);

#[derive(Debug)]
struct Waiting {
    index: u64,
    // `None` when only the commit counts.
    ticket: Option<Ticket>,
    outgoing: Outgoing,
}

/// Messages on their way out; see the module's documentation.
#[derive(Debug, Default)]
pub struct Outbox {
    // In the order pushed; indices never fall.
    waiting: VecDeque<Waiting>,
    // Committed, but the first of each destination waits for its ticket.
    held: BTreeMap<Destination, VecDeque<Waiting>>,
    committed: u64,
    confirmed: Ticket,
    // Ticket of the confirmation asked for last.
    asked: Ticket,
    // Highest ticket given to a message.
    newest: Ticket,
    last_index: u64,
}

impl Outbox {
    /// An empty outbox for a new term; everything up to `committed` counts as durable.
    pub fn new(committed: u64) -> Outbox {
        Outbox {
            committed,
            last_index: committed,
            ..Outbox::default()
        }
    }

    /// Takes the messages of one step. `index` is that of the entry which makes the
    /// step durable; a smaller one than before is raised to it, since a step relies
    /// on everything before it. What may leave at once is returned.
    pub fn push(&mut self, index: u64, send: Vec<Outgoing>) -> Vec<Outgoing> {
        self.last_index = self.last_index.max(index);
        for outgoing in send {
            let ticket = match outgoing.needs {
                Needs::Committed => None,
                // One that has been asked for may have begun before this step.
                Needs::Leadership => {
                    self.newest = Ticket(self.asked.0 + 1);
                    Some(self.newest)
                }
            };
            self.waiting.push_back(Waiting {
                index: self.last_index,
                ticket,
                outgoing,
            });
        }
        self.drain()
    }

    /// The node committed everything up to `index`: returns what may leave now.
    pub fn committed(&mut self, index: u64) -> Vec<Outgoing> {
        self.committed = self.committed.max(index);
        self.drain()
    }

    /// The ticket of a confirmation to begin now, when messages wait for one that
    /// has not been asked for. Asking marks it as begun.
    pub fn ask_confirmation(&mut self) -> Option<Ticket> {
        if self.newest <= self.asked {
            return None;
        }
        self.asked = self.newest;
        Some(self.asked)
    }

    /// A read index begun at [`ask_confirmation`](Outbox::ask_confirmation) came
    /// back: returns what may leave now. Unknown (never asked) tickets count only
    /// as far as was asked.
    pub fn confirmed(&mut self, ticket: Ticket) -> Vec<Outgoing> {
        self.confirmed = self.confirmed.max(ticket.min(self.asked));
        let mut out = Vec::new();
        let confirmed = self.confirmed;
        self.held.retain(|_, queue| {
            while queue
                .front()
                .is_some_and(|first| first.ticket.is_none_or(|ticket| ticket <= confirmed))
            {
                out.extend(queue.pop_front().map(|first| first.outgoing));
            }
            !queue.is_empty()
        });
        out
    }

    /// Messages that wait, for back-pressure and metrics.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.held.values().map(VecDeque::len).sum::<usize>()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.held.is_empty()
    }

    fn drain(&mut self) -> Vec<Outgoing> {
        let mut out = Vec::new();
        while self
            .waiting
            .front()
            .is_some_and(|first| first.index <= self.committed)
        {
            let Some(first) = self.waiting.pop_front() else {
                break;
            };
            let to = first.outgoing.to;
            let waits = first.ticket.is_some_and(|ticket| ticket > self.confirmed);
            match self.held.get_mut(&to) {
                Some(queue) => queue.push_back(first),
                None if waits => {
                    self.held.insert(to, VecDeque::from([first]));
                }
                None => out.push(first.outgoing),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{ConnectionId, Message, RequestId, Status};

    fn message(to: Destination, needs: Needs, text: &str) -> Outgoing {
        Outgoing {
            to,
            needs,
            message: Message::Answer {
                status: Status::Ok,
                message: text.to_owned(),
            },
        }
    }

    fn texts(sent: Vec<Outgoing>) -> Vec<String> {
        sent.into_iter()
            .map(|outgoing| match outgoing.message {
                Message::Answer { message, .. } => message,
                other => format!("{other:?}"),
            })
            .collect()
    }

    const A: Destination = Destination::Scheduler(ConnectionId(1));
    const B: Destination = Destination::Reply(RequestId(1));

    #[test]
    fn nothing_leaves_before_its_commit() {
        let mut outbox = Outbox::new(4);
        assert!(
            outbox
                .push(5, vec![message(A, Needs::Committed, "one")])
                .is_empty()
        );
        assert!(
            outbox
                .push(6, vec![message(B, Needs::Committed, "two")])
                .is_empty()
        );
        assert!(outbox.committed(4).is_empty());
        assert_eq!(texts(outbox.committed(5)), ["one"]);
        assert_eq!(texts(outbox.committed(9)), ["two"]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_step_without_log_relies_on_the_steps_before_it() {
        let mut outbox = Outbox::new(0);
        assert!(outbox.push(7, vec![]).is_empty());
        // The shell gives the last index it knows of; a stale one changes nothing.
        assert!(
            outbox
                .push(3, vec![message(A, Needs::Committed, "late")])
                .is_empty()
        );
        assert!(outbox.committed(6).is_empty());
        assert_eq!(texts(outbox.committed(7)), ["late"]);
    }

    #[test]
    fn what_is_durable_already_leaves_at_once() {
        let mut outbox = Outbox::new(3);
        assert_eq!(
            texts(outbox.push(3, vec![message(A, Needs::Committed, "now")])),
            ["now"]
        );
    }

    #[test]
    fn leadership_holds_back_its_own_destination_only() {
        let mut outbox = Outbox::new(3);
        let sent = outbox.push(
            3,
            vec![
                message(A, Needs::Leadership, "read"),
                message(A, Needs::Committed, "behind"),
                message(B, Needs::Committed, "other"),
            ],
        );
        assert_eq!(texts(sent), ["other"]);
        assert_eq!(outbox.len(), 2);
        let ticket = outbox.ask_confirmation().expect("something waits");
        assert_eq!(outbox.ask_confirmation(), None);
        assert_eq!(texts(outbox.confirmed(ticket)), ["read", "behind"]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_confirmation_begun_earlier_does_not_count() {
        let mut outbox = Outbox::new(3);
        assert!(
            outbox
                .push(3, vec![message(A, Needs::Leadership, "first")])
                .is_empty()
        );
        let earlier = outbox.ask_confirmation().expect("something waits");
        assert!(
            outbox
                .push(3, vec![message(B, Needs::Leadership, "second")])
                .is_empty()
        );
        assert_eq!(texts(outbox.confirmed(earlier)), ["first"]);
        let later = outbox.ask_confirmation().expect("the second waits");
        assert_eq!(texts(outbox.confirmed(later)), ["second"]);
    }

    #[test]
    fn leadership_needs_the_commit_too() {
        let mut outbox = Outbox::new(3);
        assert!(
            outbox
                .push(4, vec![message(A, Needs::Leadership, "both")])
                .is_empty()
        );
        let ticket = outbox.ask_confirmation().expect("something waits");
        assert!(outbox.confirmed(ticket).is_empty());
        assert_eq!(texts(outbox.committed(4)), ["both"]);
    }
}
