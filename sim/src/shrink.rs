//! The shortest history that still fails: a plan with fewer parts, less time, a better network.

use crate::{clock::SECOND, core::Violation, plan::Plan};

/// What is left of a plan; enough to make it again from its seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Shortest {
    /// Numbers of the parts of the whole plan that are needed.
    pub kept: Vec<usize>,
    /// When faults end, in nanoseconds.
    pub length: u64,
    /// It fails on a good network, too.
    pub calm: bool,
    /// How it fails.
    pub violation: Violation,
    /// Runs that the search took.
    pub runs: usize,
}

impl Shortest {
    /// Makes the short plan from the whole one.
    pub fn of(&self, plan: Plan) -> Plan {
        let plan = plan.keep(&self.kept).until(self.length);
        match self.calm {
            true => plan.calm(),
            false => plan,
        }
    }
}

struct Search<F> {
    whole: Plan,
    best: Shortest,
    most: usize,
    fails: F,
}

impl<F: Fn(&Plan) -> Option<Violation>> Search<F> {
    /// Whether a shorter plan fails the same checker; it is the best one then.
    fn attempt(&mut self, kept: Vec<usize>, length: u64, calm: bool) -> bool {
        if self.best.runs >= self.most {
            return false;
        }
        self.best.runs += 1;
        let candidate = Shortest {
            kept,
            length,
            calm,
            ..self.best.clone()
        };
        match (self.fails)(&candidate.of(self.whole.clone())) {
            Some(violation) if violation.checker == self.best.violation.checker => {
                self.best = Shortest {
                    violation,
                    ..candidate
                };
                true
            }
            _ => false,
        }
    }

    /// Leaves out one run of parts after the other, longer ones first.
    fn drop_parts(&mut self) {
        let mut size = self.best.kept.len().div_ceil(2).max(1);
        loop {
            let mut from = 0;
            let mut dropped = false;
            while from < self.best.kept.len() {
                let mut kept = self.best.kept.clone();
                kept.drain(from..(from + size).min(kept.len()));
                let (length, calm) = (self.best.length, self.best.calm);
                match self.attempt(kept, length, calm) {
                    true => dropped = true,
                    false => from += size,
                }
            }
            match (size, dropped) {
                (1, false) => return,
                (1, true) if self.best.runs >= self.most => return,
                (1, true) => {}
                _ => size = size.div_ceil(2),
            }
        }
    }
}

/// Looks for the shortest history of those that fail the same checker, in at most so many runs.
pub fn shrink(
    whole: &Plan,
    violation: Violation,
    most: usize,
    fails: impl Fn(&Plan) -> Option<Violation>,
) -> Shortest {
    let length = whole.shape.length;
    let mut search = Search {
        whole: whole.clone(),
        best: Shortest {
            kept: (0..whole.parts.len()).collect(),
            length,
            calm: false,
            violation: violation.clone(),
            runs: 0,
        },
        most,
        fails,
    };
    // What comes after the failure is not needed, if it did not take the end to see it.
    if violation.at < length {
        let parts = whole.parts.iter().enumerate();
        let before = parts.filter(|(_, (at, _))| *at <= violation.at);
        let kept = before.map(|(number, _)| number).collect();
        search.attempt(kept, violation.at + SECOND / 1000, false);
    }
    let (kept, length) = (search.best.kept.clone(), search.best.length);
    search.attempt(kept, length, true);
    search.drop_parts();
    // Less time behind the last part.
    for _ in 0..6 {
        let last = search.best.kept.last().and_then(|it| whole.parts.get(*it));
        let least = last.map_or(SECOND, |(at, _)| at + SECOND / 10);
        let (kept, calm) = (search.best.kept.clone(), search.best.calm);
        let length = least + search.best.length.saturating_sub(least) / 2;
        if !search.attempt(kept, length, calm) {
            break;
        }
    }
    search.best
}
