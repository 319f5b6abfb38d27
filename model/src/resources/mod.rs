//! The algebra of resources: what an agent has, what is offered, used, reserved.
//!
//! A [`Resource`] is so much of one kind; [`Resources`] is a normalised list of them with sums,
//! differences and containment by Mesos' rules:
//!
//! - two entries are one when they agree in name, type, reservations, disk, revocability,
//!   provider, allocation and sharing;
//! - persistent volumes and disks that are given away as a whole (MOUNT, BLOCK, RAW with an id)
//!   never merge and are only taken away whole;
//! - shared volumes are counted: the same volume used by two tasks is one entry with two copies,
//!   which is one volume in every quantity.
//!
//! The formats of the wire are in [`ResourceFormat`], the text form in [`Resources::parse`].

mod conversion;
mod disk;
mod error;
mod finder;
mod quantities;
mod ranges;
mod reservation;
mod resource;
mod scalar;
mod text;
mod value;
mod views;
mod wire_form;

pub use conversion::Conversion;
pub use disk::{DiskInfo, DiskKind, DiskSource, Persistence};
pub use error::Error;
pub use quantities::Quantities;
pub use ranges::{MAX_RANGES, Range, Ranges};
pub use reservation::{Reservation, ReservationKind};
pub use resource::Resource;
pub use scalar::Scalar;
pub(crate) use text::parse_value;
pub use value::{MAX_ITEMS, Set, Value};
pub use views::Summary;
pub(crate) use wire_form::allocation_info;
pub use wire_form::{MAX_RESOURCES, ResourceFormat};

use finder::{Builder, LONG};
use std::{fmt, ops};

/// One entry and how often a shared one is held; one otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    resource: Resource,
    copies: u32,
}

/// A normalised list: what can be merged is merged, nothing is empty, first come stays first.
///
/// `==` compares the lists as they stand; [`Resources::is_equivalent`] disregards the order.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Resources {
    entries: Vec<Entry>,
}

impl Resources {
    /// Nothing.
    pub const fn new() -> Resources {
        Resources {
            entries: Vec::new(),
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries in the order of first insertion; a shared one once, however often it is held.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Resource> + Clone {
        self.entries.iter().map(|it| &it.resource)
    }

    /// The entries with the number of copies held (more than one only for shared ones).
    pub fn iter_counted(&self) -> impl ExactSizeIterator<Item = (&Resource, u32)> + Clone {
        self.entries.iter().map(|it| (&it.resource, it.copies))
    }

    /// The entry at a place in the list.
    pub fn get(&self, at: usize) -> Option<&Resource> {
        self.entries.get(at).map(|it| &it.resource)
    }

    /// The entries at these places, which rise; places behind the end are left out. Any part of a
    /// normalised list is one.
    #[must_use]
    pub fn select(&self, places: impl IntoIterator<Item = u32>) -> Resources {
        let entries = places
            .into_iter()
            .filter_map(|at| self.entries.get(at as usize).cloned());
        Resources {
            entries: entries.collect(),
        }
    }

    /// Adds one resource.
    pub fn push(&mut self, resource: Resource) {
        self.push_counted(resource, 1);
    }

    fn push_counted(&mut self, resource: Resource, copies: u32) {
        if resource.is_empty() || copies == 0 {
            return;
        }
        match self.merge_slot(&resource) {
            Some(it) => it.take_in(&resource, copies),
            None => self.entries.push(Entry { resource, copies }),
        }
    }

    fn push_ref(&mut self, resource: &Resource, copies: u32) {
        if resource.is_empty() || copies == 0 {
            return;
        }
        match self.merge_slot(resource) {
            Some(it) => it.take_in(resource, copies),
            None => self.entries.push(Entry {
                resource: resource.clone(),
                copies,
            }),
        }
    }

    fn merge_slot(&mut self, resource: &Resource) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|it| it.absorbs(resource))
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Resources) {
        if self.entries.len() > LONG && other.entries.len() > LONG {
            let mut builder = Builder::from(std::mem::take(self));
            for it in &other.entries {
                builder.push(it.resource.clone(), it.copies);
            }
            *self = builder.finish();
            return;
        }
        for it in &other.entries {
            self.push_ref(&it.resource, it.copies);
        }
    }

    /// Whether all of `other` is in this.
    pub fn contains(&self, other: &Resources) -> bool {
        if self.entries.len() > LONG && other.entries.len() > LONG {
            return self.contains_long(other);
        }
        other.entries.iter().enumerate().all(|(index, it)| {
            if it.resource.is_divisible() {
                // Both sides are normalised: at most one entry of each kind.
                self.contains_part(&it.resource)
            } else {
                // Equal things may stand several times; each needs a counterpart. An earlier
                // equal one has already been counted together with this one.
                let equal = |other: &&Entry| other.resource.is_same_thing(&it.resource);
                other.entries[..index].iter().any(|it| equal(&it))
                    || copies(&self.entries, equal) >= copies(&other.entries, equal)
            }
        })
    }

    /// Whether the one resource is in this.
    pub fn contains_resource(&self, resource: &Resource) -> bool {
        resource.is_empty()
            || if resource.is_divisible() {
                self.contains_part(resource)
            } else {
                self.iter().any(|it| it.is_same_thing(resource))
            }
    }

    fn contains_part(&self, part: &Resource) -> bool {
        self.iter()
            .any(|it| it.can_merge(part) && it.value.contains(&part.value))
    }

    /// Whether the two hold the same, in whatever order.
    pub fn is_equivalent(&self, other: &Resources) -> bool {
        self == other || self.contains(other) && other.contains(self)
    }

    /// Takes `other` away if all of it is there; says whether it was. When not, nothing changes.
    #[must_use = "false means that nothing was taken away"]
    pub fn try_sub(&mut self, other: &Resources) -> bool {
        if !self.contains(other) {
            return false;
        }
        self.saturating_sub(other);
        true
    }

    /// Takes away what is there of `other`, and leaves the rest of `other` aside. Things that are
    /// only given away whole go when they are equal.
    pub fn saturating_sub(&mut self, other: &Resources) {
        if self.entries.len() > LONG && other.entries.len() > LONG {
            return self.subtract_long(other);
        }
        for it in &other.entries {
            self.remove_part(&it.resource, it.copies);
        }
    }

    fn remove_part(&mut self, part: &Resource, copies: u32) {
        let divisible = part.is_divisible();
        let at = self.entries.iter().position(|it| {
            if divisible {
                it.resource.can_merge(part)
            } else {
                it.resource.is_same_thing(part)
            }
        });
        let Some(at) = at else { return };
        let entry = &mut self.entries[at];
        if divisible {
            entry.resource.value.subtract(&part.value);
        } else {
            entry.copies = entry.copies.saturating_sub(copies);
        }
        if entry.copies == 0 || entry.resource.is_empty() {
            self.entries.remove(at);
        }
    }

    /// The sum of both.
    #[must_use]
    pub fn union(&self, other: &Resources) -> Resources {
        let mut sum = self.clone();
        sum.add(other);
        sum
    }

    /// What is left of this without `other`; see [`Resources::saturating_sub`].
    #[must_use]
    pub fn difference(&self, other: &Resources) -> Resources {
        let mut rest = self.clone();
        rest.saturating_sub(other);
        rest
    }

    /// The entries that satisfy the condition, copies kept.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(&Resource) -> bool) -> Resources {
        Resources {
            entries: self
                .entries
                .iter()
                .filter(|it| keep(&it.resource))
                .cloned()
                .collect(),
        }
    }

    /// Every entry changed; the result is normalised anew.
    #[must_use]
    pub fn map(&self, change: impl Fn(Resource) -> Resource) -> Resources {
        let mut all = Builder::default();
        for it in &self.entries {
            all.push(change(it.resource.clone()), it.copies);
        }
        all.finish()
    }
}

/// How many equal things there are, copies included.
fn copies(entries: &[Entry], equal: impl Fn(&&Entry) -> bool) -> u64 {
    entries
        .iter()
        .filter(equal)
        .map(|it| u64::from(it.copies))
        .sum()
}

impl Entry {
    /// Whether the resource becomes a part or a further copy of this entry.
    fn absorbs(&self, resource: &Resource) -> bool {
        if resource.shared {
            self.resource.is_same_thing(resource)
        } else {
            self.resource.can_merge(resource)
        }
    }

    fn take_in(&mut self, resource: &Resource, copies: u32) {
        if resource.shared {
            self.copies = self.copies.saturating_add(copies);
        } else {
            self.resource.value.add(&resource.value);
        }
    }
}

impl From<Resource> for Resources {
    fn from(resource: Resource) -> Resources {
        std::iter::once(resource).collect()
    }
}

impl FromIterator<Resource> for Resources {
    fn from_iter<I: IntoIterator<Item = Resource>>(all: I) -> Resources {
        let mut sum = Resources::new();
        sum.extend(all);
        sum
    }
}

impl Extend<Resource> for Resources {
    fn extend<I: IntoIterator<Item = Resource>>(&mut self, all: I) {
        let mut builder = Builder::from(std::mem::take(self));
        for it in all {
            builder.push(it, 1);
        }
        *self = builder.finish();
    }
}

impl<'a> std::iter::Sum<&'a Resources> for Resources {
    fn sum<I: Iterator<Item = &'a Resources>>(all: I) -> Resources {
        let mut sum = Resources::new();
        for it in all {
            sum.add(it);
        }
        sum
    }
}

impl ops::AddAssign<&Resources> for Resources {
    fn add_assign(&mut self, other: &Resources) {
        self.add(other);
    }
}

impl ops::AddAssign<Resources> for Resources {
    fn add_assign(&mut self, other: Resources) {
        if self.is_empty() {
            *self = other;
        } else {
            self.add(&other);
        }
    }
}

impl ops::AddAssign<Resource> for Resources {
    fn add_assign(&mut self, resource: Resource) {
        self.push(resource);
    }
}

impl ops::Add<&Resources> for &Resources {
    type Output = Resources;

    fn add(self, other: &Resources) -> Resources {
        self.union(other)
    }
}

/// As [`Resources::saturating_sub`]; use [`Resources::try_sub`] where the rest matters.
impl ops::SubAssign<&Resources> for Resources {
    fn sub_assign(&mut self, other: &Resources) {
        self.saturating_sub(other);
    }
}

impl ops::Sub<&Resources> for &Resources {
    type Output = Resources;

    fn sub(self, other: &Resources) -> Resources {
        self.difference(other)
    }
}

impl fmt::Display for Resources {
    /// The text form: `cpus:4; mem(role):1024; ports:[31000-32000]`; `{}` for nothing, as Mesos
    /// logs it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("{}");
        }
        for (index, it) in self.iter().enumerate() {
            let semicolon = if index == 0 { "" } else { "; " };
            write!(f, "{semicolon}{it}")?;
        }
        Ok(())
    }
}
