//! What the machine can do: the denominators of the ratios.

use crate::harness::point::{Measure, take};
use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    hint::black_box,
};

/// The metric of the bare loop.
pub(crate) const LOOP: &str = "bare loop";
/// The metric of the copy.
pub(crate) const COPY: &str = "memcpy";

/// Samples of each: they are short.
const SAMPLES: u64 = 30;

/// A dominant share, ordered.
#[derive(Clone, Copy, PartialEq)]
struct Share(f64);

impl Eq for Share {}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Share) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Share {
    fn cmp(&self, other: &Share) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Measures the least that dominant resource fairness can take, with cpus, mem and disk in bare
/// arrays: for each agent the framework with the smallest dominant share is taken from a binary
/// heap, is given the whole agent, and is put back. No roles, filters, resources with names, order
/// of agents or answers: nothing that can be right may be faster. Beside it the same arrays copied.
pub(crate) fn measure(measure: &mut Measure, agents: u64, frameworks: u64) {
    measure.begin(LOOP, SAMPLES);
    let mut random = measure.random(1);
    let free: Vec<[f64; 3]> = (0..agents)
        .map(|_| [8.0 + random.below(2) as f64, 4096.0, 4096.0])
        .collect();
    let mut copy = free.clone();
    for _ in 0..SAMPLES {
        let (took, operations) = take(|| grant(&free, frameworks as usize));
        measure.each(LOOP, took, 1);
        measure.count(LOOP, "heap operations", operations as f64);
        let (took, ()) = take(|| black_box(&mut copy).copy_from_slice(black_box(&free)));
        measure.each(COPY, took, 1);
        measure.count(COPY, "bytes", std::mem::size_of_val(&free[..]) as f64);
        if !measure.step() {
            break;
        }
    }
    measure.is_denominator(LOOP);
    measure.is_denominator(COPY);
}

fn grant(free: &[[f64; 3]], frameworks: usize) -> u64 {
    let mut total = [0.0; 3];
    for it in free {
        for (sum, part) in total.iter_mut().zip(it) {
            *sum += part;
        }
    }
    let mut held = vec![[0.0; 3]; frameworks];
    let mut given = Vec::with_capacity(free.len());
    let all = (0..frameworks as u32).map(|it| Reverse((Share(0.0), it)));
    let mut heap: BinaryHeap<_> = all.collect();
    let mut operations = 0;
    for (agent, it) in free.iter().enumerate() {
        let Some(mut top) = heap.peek_mut() else {
            break;
        };
        let framework = top.0.1;
        given.push((framework, agent as u32));
        let held = &mut held[framework as usize];
        let mut share = 0.0;
        for at in 0..3 {
            held[at] += it[at];
            share = f64::max(share, held[at] / total[at]);
        }
        // Sinks to its place when the borrow ends.
        top.0.0 = Share(share);
        operations += 2;
    }
    black_box(given);
    operations
}
