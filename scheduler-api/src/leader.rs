//! Which master to try next.

use crate::error::{Error, Result};

/// The masters known to a session and the one to try now.
#[derive(Debug)]
pub(crate) struct Masters {
    known: Vec<String>,
    position: usize,
    /// Named by another master as the leader; tried first, once.
    leader: Option<String>,
}

impl Masters {
    /// Checks the list: at least one, each `host:port`.
    pub(crate) fn new(masters: &[String]) -> Result<Self> {
        if masters.is_empty() {
            return Err(Error::InvalidMaster(String::new()));
        }
        let mut known = Vec::with_capacity(masters.len());
        for master in masters {
            let address = master.strip_prefix("http://").unwrap_or(master);
            let valid = address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
            if !valid {
                return Err(Error::InvalidMaster(master.clone()));
            }
            known.push(address.to_owned());
        }
        Ok(Self {
            known,
            position: 0,
            leader: None,
        })
    }

    /// The master to try now.
    pub(crate) fn current(&self) -> &str {
        self.leader
            .as_deref()
            .unwrap_or(&self.known[self.position % self.known.len()])
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

    /// The current one did not work.
    pub(crate) fn next(&mut self) {
        if self.leader.take().is_none() {
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
        masters.next();
        assert_eq!(masters.current(), "a:1");
        masters.next();
        assert_eq!(masters.current(), "b:2");
        masters.next();
        assert_eq!(masters.current(), "a:1");
    }
}
