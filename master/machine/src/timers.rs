//! Deadlines by key: one per key, the next due first.

use std::collections::{BTreeMap, BTreeSet};

use tepui_model::time::Instant;

/// At most one deadline per key.
#[derive(Clone, Debug)]
pub(crate) struct Timers<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
}

impl<K: Ord + Clone> Timers<K> {
    pub(crate) fn new() -> Timers<K> {
        Timers {
            by_time: BTreeSet::new(),
            by_key: BTreeMap::new(),
        }
    }

    /// All at once; keys are distinct and rising.
    pub(crate) fn of(deadlines: Vec<(K, Instant)>) -> Timers<K> {
        let mut by_time: Vec<_> = deadlines
            .iter()
            .map(|(key, at)| (*at, key.clone()))
            .collect();
        by_time.sort();
        Timers {
            by_time: by_time.into_iter().collect(),
            by_key: deadlines.into_iter().collect(),
        }
    }

    /// Sets or moves the deadline of `key`.
    pub(crate) fn set(&mut self, key: K, at: Instant) {
        if let Some(before) = self.by_key.insert(key.clone(), at) {
            self.by_time.remove(&(before, key.clone()));
        }
        self.by_time.insert((at, key));
    }

    /// Drops the deadline of `key`, if any.
    pub(crate) fn clear(&mut self, key: &K) {
        if let Some(at) = self.by_key.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// The next deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes one that is due, earliest first.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    /// When `key` is due.
    pub(crate) fn get(&self, key: &K) -> Option<Instant> {
        self.by_key.get(key).copied()
    }

    /// Every key that has one, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.by_key.keys()
    }

    /// Number of keys that have one.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Both indexes tell the same.
    pub(crate) fn check_invariants(&self) {
        assert_eq!(
            self.by_time.len(),
            self.by_key.len(),
            "timers: indexes differ"
        );
        for (at, key) in &self.by_time {
            assert!(
                self.by_key.get(key) == Some(at),
                "timers: a key is indexed at another time"
            );
        }
    }
}
