//! Which master to try next.
//!
//! A master that does not lead names the one that does, or - asked to wait - answers as soon
//! as there is one. So after the end of a leader one question to one of the others is enough,
//! and nobody asks again and again.

use crate::error::{Error, Result};
use std::time::Duration;

/// How long a master is asked to wait for a leader before it says that it knows of none.
/// Longer than an election, short enough to leave a master that is cut off from the others.
pub(crate) const WAIT: Duration = Duration::from_secs(2);

/// The masters known to a session and the one to try now.
#[derive(Debug)]
pub(crate) struct Masters {
    /// Those that the framework was given.
    given: Vec<String>,
    /// Those and what a leader named since.
    known: Vec<String>,
    position: usize,
    /// Named by another master as the leader; tried first, once.
    leader: Option<String>,
    /// Where the last leader was that broke or could not be reached.
    dead: Option<String>,
}

fn check(master: &str) -> Result<String> {
    let address = master.strip_prefix("http://").unwrap_or(master);
    let valid = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    match valid {
        true => Ok(address.to_owned()),
        false => Err(Error::InvalidMaster(master.to_owned())),
    }
}

impl Masters {
    /// Checks the list: at least one, each `host:port`.
    pub(crate) fn new(masters: &[String]) -> Result<Self> {
        if masters.is_empty() {
            return Err(Error::InvalidMaster(String::new()));
        }
        let given: Vec<String> = masters.iter().map(|it| check(it)).collect::<Result<_>>()?;
        Ok(Self {
            known: given.clone(),
            given,
            position: 0,
            leader: None,
            dead: None,
        })
    }

    /// The master to try now.
    pub(crate) fn current(&self) -> &str {
        self.leader
            .as_deref()
            .unwrap_or(&self.known[self.position % self.known.len()])
    }

    /// A leader that is none any more: not worth being sent to.
    pub(crate) fn dead(&self) -> Option<&str> {
        self.dead.as_deref().filter(|it| *it != self.current())
    }

    /// A leader named every master.
    pub(crate) fn learn(&mut self, masters: &[String]) {
        let here = self.current().to_owned();
        self.known.clone_from(&self.given);
        for master in masters.iter().filter_map(|it| check(it).ok()) {
            if !self.known.contains(&master) {
                self.known.push(master);
            }
        }
        self.position = self.known.iter().position(|it| *it == here).unwrap_or(0);
        self.leader = Some(here);
        self.dead = None;
    }

    /// A master named `leader`. False when that is the one that was just tried, so that
    /// two masters that name each other do not make a busy loop.
    pub(crate) fn follow(&mut self, leader: &str) -> bool {
        if self.leader.is_some() || self.current() == leader {
            return false;
        }
        self.leader = Some(leader.to_owned());
        true
    }

    /// The current one did not work; `dead` when it could not be reached or broke.
    pub(crate) fn next(&mut self, dead: bool) {
        // Once: it may be back before anybody else leads.
        self.dead = dead.then(|| self.current().to_owned());
        let tried = self.leader.take();
        let at_position = &self.known[self.position % self.known.len()];
        if tried.is_none_or(|tried| tried == *at_position) {
            self.position = (self.position + 1) % self.known.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masters(list: &[&str]) -> Result<Masters> {
        Masters::new(&list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn refuses_what_is_not_an_address() {
        for bad in [
            &[][..],
            &["host"],
            &["host:"],
            &[":5050"],
            &["h:1", "h:70000"],
        ] {
            assert!(masters(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn goes_round_and_follows_a_leader_once() {
        let mut masters = masters(&["a:1", "http://b:2"]).unwrap();
        assert_eq!(masters.current(), "a:1");
        assert!(masters.follow("c:3"));
        assert_eq!(masters.current(), "c:3");
        assert!(!masters.follow("a:1"), "one hop, then wait");
        masters.next(false);
        assert_eq!(masters.current(), "a:1");
        masters.next(false);
        assert_eq!(masters.current(), "b:2");
        masters.next(false);
        assert_eq!(masters.current(), "a:1");
    }

    #[test]
    fn a_leader_that_broke_is_named_to_the_others() {
        let mut masters = masters(&["a:1"]).unwrap();
        masters.learn(&["b:2".into(), "a:1".into(), "nonsense".into()]);
        assert_eq!((masters.current(), masters.dead()), ("a:1", None));
        masters.next(true);
        assert_eq!((masters.current(), masters.dead()), ("b:2", Some("a:1")));
        masters.next(false);
        // It may be back.
        assert_eq!((masters.current(), masters.dead()), ("a:1", None));
        masters.next(false);
        assert!(masters.follow("a:1"));
        masters.learn(&["a:1".into(), "b:2".into()]);
        assert_eq!((masters.current(), masters.dead()), ("a:1", None));
        masters.next(true);
        assert_eq!(masters.current(), "b:2");
    }
}
