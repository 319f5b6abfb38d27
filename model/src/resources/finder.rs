//! Finding entries of long lists.
//!
//! Lists of resources are short as a rule, and are gone through. An agent with thousands of
//! reservations has long ones: there entries are found by a hash of what tells kinds apart.

use super::{Entry, Resource, Resources};
use std::collections::BTreeSet;

/// Lists longer than this are worth an index, when many entries are looked for.
pub(super) const LONG: usize = 64;

/// Places of entries by a hash of their kind. Different kinds may have the same hash.
#[derive(Debug, Default)]
pub(super) struct Finder(BTreeSet<(u64, u32)>);

/// FNV-1a.
fn fold(hash: u64, text: &str) -> u64 {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().chain([0]).fold(hash, fold)
}

/// Over what tells kinds apart most: name, volume, roles, principals and labels of the
/// reservations. Labels are the same in any order.
fn hash(resource: &Resource) -> u64 {
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    let mut hash = fold(START, &resource.name);
    hash = fold(hash, resource.persistence_id().map_or("", |it| it.as_str()));
    for it in &resource.reservations {
        hash = fold(hash, it.role.as_str());
        hash = fold(hash, it.principal.as_ref().map_or("", |it| it.as_str()));
        for (key, value) in it.labels.iter().flat_map(|it| it.iter()) {
            hash = hash.wrapping_add(fold(fold(START, key), value.unwrap_or("")));
        }
    }
    hash
}

impl Finder {
    pub(super) fn of(entries: &[Entry]) -> Finder {
        let places = entries.iter().enumerate();
        Finder(
            places
                .map(|(at, it)| (hash(&it.resource), at as u32))
                .collect(),
        )
    }

    pub(super) fn insert(&mut self, resource: &Resource, at: usize) {
        self.0.insert((hash(resource), at as u32));
    }

    /// Places of entries that may be of this kind, rising.
    pub(super) fn places(&self, resource: &Resource) -> impl Iterator<Item = usize> + '_ {
        let hash = hash(resource);
        let found = self.0.range((hash, 0)..=(hash, u32::MAX));
        found.map(|(_, at)| *at as usize)
    }
}

/// A list that is put together entry by entry.
#[derive(Debug, Default)]
pub(super) struct Builder {
    list: Resources,
    finder: Option<Finder>,
}

impl Builder {
    pub(super) fn from(list: Resources) -> Builder {
        Builder { list, finder: None }
    }

    pub(super) fn push(&mut self, resource: Resource, copies: u32) {
        if resource.is_empty() || copies == 0 {
            return;
        }
        let entries = &mut self.list.entries;
        if self.finder.is_none() && entries.len() > LONG {
            self.finder = Some(Finder::of(entries));
        }
        let found = match &self.finder {
            None => entries.iter().position(|it| it.absorbs(&resource)),
            Some(finder) => finder
                .places(&resource)
                .find(|at| entries[*at].absorbs(&resource)),
        };
        match found {
            Some(at) => entries[at].take_in(&resource, copies),
            None => {
                if let Some(finder) = &mut self.finder {
                    finder.insert(&resource, entries.len());
                }
                entries.push(Entry { resource, copies });
            }
        }
    }

    pub(super) fn finish(self) -> Resources {
        self.list
    }
}

impl Resources {
    /// [`Resources::saturating_sub`] of a long list from a long one.
    pub(super) fn subtract_long(&mut self, other: &Resources) {
        let finder = Finder::of(&self.entries);
        for part in &other.entries {
            let divisible = part.resource.is_divisible();
            let at = finder.places(&part.resource).find(|at| {
                let it = &self.entries[*at];
                it.copies > 0
                    && match divisible {
                        true => it.resource.can_merge(&part.resource) && !it.resource.is_empty(),
                        false => it.resource.is_same_thing(&part.resource),
                    }
            });
            let Some(at) = at else { continue };
            let entry = &mut self.entries[at];
            match divisible {
                true => entry.resource.value.subtract(&part.resource.value),
                false => entry.copies = entry.copies.saturating_sub(part.copies),
            }
        }
        self.entries
            .retain(|it| it.copies > 0 && !it.resource.is_empty());
    }

    /// [`Resources::contains`] of a long list in a long one.
    pub(super) fn contains_long(&self, other: &Resources) -> bool {
        let (here, there) = (Finder::of(&self.entries), Finder::of(&other.entries));
        other.entries.iter().all(|it| {
            let part = &it.resource;
            if part.is_divisible() {
                return here.places(part).any(|at| {
                    let it = &self.entries[at].resource;
                    it.can_merge(part) && it.value.contains(&part.value)
                });
            }
            let copies = |finder: &Finder, entries: &[Entry]| -> u64 {
                let equal = finder.places(part).map(|at| &entries[at]);
                let equal = equal.filter(|it| it.resource.is_same_thing(part));
                equal.map(|it| u64::from(it.copies)).sum()
            };
            copies(&here, &self.entries) >= copies(&there, &other.entries)
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{Resources, Role, resources::Reservation};

    /// As many lists as numbers, each with the same name reserved for another role.
    fn reserved(from: u32, to: u32, cpus: u32) -> Resources {
        let one = |at: u32| {
            let plain = Resources::parse(&format!("cpus:{cpus};ports:[{at}-{}]", at + 1), "*");
            let reservation = Reservation::fixed(Role::from(format!("r{at}")));
            plain.expect("resources").push_reservation(&reservation)
        };
        let mut sum = Resources::new();
        for it in (from..to).map(one) {
            for entry in it.iter() {
                sum.push(entry.clone());
            }
        }
        sum
    }

    #[test]
    fn long_lists_give_what_short_ones_give() {
        let (all, part) = (reserved(0, 400, 3), reserved(100, 300, 1));
        assert!(all.contains(&part) && !part.contains(&all));
        let rest = all.difference(&part);
        // The same, entry by entry.
        let mut slow = all.clone();
        for it in part.iter() {
            slow.saturating_sub(&Resources::from(it.clone()));
        }
        assert_eq!(rest, slow);
        let mut again = rest.clone();
        again.add(&part);
        assert!(again.is_equivalent(&all));
        assert!(!rest.contains(&part));
        let collected: Resources = all.iter().chain(all.iter()).cloned().collect();
        assert_eq!(collected, all.union(&all));
        assert_eq!(all.allocate(&"x".into()).unallocate(), all);
    }

    #[test]
    fn ten_thousand_reservations_are_no_matter() {
        // Quadratic work would take minutes here.
        let all: Resources = reserved(0, 5_000, 1).iter().cloned().collect();
        let mut rest = all.clone();
        rest.saturating_sub(&all);
        assert!(rest.is_empty());
    }
}
