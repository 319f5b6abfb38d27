//! Framework ids as numbers in the same order, so that ties cost no comparison of texts.

use std::collections::BTreeMap;
use tepui_model::FrameworkId;

/// Numbers of ids that are in use. A new id gets one between those of its neighbours; when there
/// is none left, all are numbered anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels(BTreeMap<FrameworkId, (u64, u32)>);

impl Labels {
    /// One more use of the id: its number, and whether all numbers changed.
    pub(crate) fn acquire(&mut self, id: &FrameworkId) -> (u64, bool) {
        if let Some((label, uses)) = self.0.get_mut(id) {
            *uses += 1;
            return (*label, false);
        }
        let below = self.0.range(..id.clone()).next_back().map(|it| it.1.0);
        let above = self.0.range(id.clone()..).next().map(|it| it.1.0);
        let (low, high) = (below.unwrap_or(0), above.unwrap_or(u64::MAX));
        // Ids usually rise: little is taken from the space above the highest.
        let step = match above {
            None => ((high - low) / 2).min(1 << 40),
            Some(_) => (high - low) / 2,
        };
        self.0.insert(id.clone(), (low + step, 1));
        if step > 0 && below.is_none_or(|it| it < low + step) {
            return (low + step, false);
        }
        let distance = u64::MAX / (self.0.len() as u64 + 1);
        for (at, it) in self.0.values_mut().enumerate() {
            it.0 = distance * (at as u64 + 1);
        }
        (self.get(id), true)
    }

    pub(crate) fn get(&self, id: &FrameworkId) -> u64 {
        self.0.get(id).map_or(0, |it| it.0)
    }

    /// One use less.
    pub(crate) fn release(&mut self, id: &FrameworkId) {
        if let Some((_, uses)) = self.0.get_mut(id) {
            *uses -= 1;
            if *uses == 0 {
                self.0.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_the_order_of_ids_however_they_come() {
        let id = |it: u32| FrameworkId::from(format!("{it:06}"));
        let orders: [&dyn Fn(u32) -> u32; 3] = [&|it| it, &|it| 2000 - it, &|it| {
            it.wrapping_mul(7919) % 2003
        }];
        for order in orders {
            let mut labels = Labels::default();
            let mut given: BTreeMap<FrameworkId, u64> = BTreeMap::new();
            for it in 0..2000 {
                let id = id(order(it));
                let (label, anew) = labels.acquire(&id);
                given.insert(id, label);
                if anew {
                    for (id, label) in &mut given {
                        *label = labels.get(id);
                    }
                }
            }
            let in_order: Vec<u64> = given.values().copied().collect();
            assert!(in_order.is_sorted_by(|one, other| one < other));
            let some = id(order(5));
            assert!(!labels.acquire(&some).1);
            labels.release(&some);
            labels.release(&some);
            assert_eq!(labels.get(&some), 0);
        }
    }
}
