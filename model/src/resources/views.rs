//! Parts and sums of resources.

use super::{
    DiskKind, Entry, Error, Quantities, Ranges, Reservation, Resource, Resources, Scalar, Value,
};
use crate::Role;
use std::collections::BTreeMap;

impl Resources {
    /// The sum of all amounts of the name; none when there is no such resource.
    pub fn scalar(&self, name: &str) -> Option<Scalar> {
        let mut amounts = self
            .iter()
            .filter(|it| &*it.name == name)
            .filter_map(Resource::amount)
            .peekable();
        amounts.peek()?;
        Some(amounts.sum())
    }

    /// Processors, in thousandths.
    pub fn cpus(&self) -> Option<Scalar> {
        self.scalar("cpus")
    }

    /// Memory in thousandths of a MB.
    pub fn mem(&self) -> Option<Scalar> {
        self.scalar("mem")
    }

    /// Disk in thousandths of a MB.
    pub fn disk(&self) -> Option<Scalar> {
        self.scalar("disk")
    }

    /// Graphics processors, in thousandths (always whole ones).
    pub fn gpus(&self) -> Option<Scalar> {
        self.scalar("gpus")
    }

    /// The numbers of all ranges of the name, whoever they are reserved to.
    pub fn ranges(&self, name: &str) -> Ranges {
        let mut all = Ranges::default();
        for it in self.iter().filter(|it| &*it.name == name) {
            if let Some(numbers) = it.value.as_ranges() {
                all.insert_all(numbers);
            }
        }
        all
    }

    /// The port numbers.
    pub fn ports(&self) -> Ranges {
        self.ranges("ports")
    }

    /// The names, in the order of first insertion, each once.
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for it in self.iter() {
            if !names.contains(&&*it.name) {
                names.push(&*it.name);
            }
        }
        names
    }

    /// What is not reserved.
    #[must_use]
    pub fn unreserved(&self) -> Resources {
        self.filter(Resource::is_unreserved)
    }

    /// What is reserved to exactly the role.
    #[must_use]
    pub fn reserved_to(&self, role: &Role) -> Resources {
        self.filter(|it| it.is_reserved_to(role))
    }

    /// What is reserved, by the role of the innermost reservation.
    pub fn reserved(&self) -> BTreeMap<Role, Resources> {
        self.group_by(Resource::reservation_role)
    }

    /// What the role may be offered: unreserved, or reserved to the role or an ancestor of it.
    #[must_use]
    pub fn allocatable_to(&self, role: &Role) -> Resources {
        self.filter(|it| it.is_allocatable_to(role))
    }

    /// What may be taken back at any time.
    #[must_use]
    pub fn revocable(&self) -> Resources {
        self.filter(|it| it.revocable)
    }

    /// What is not taken back.
    #[must_use]
    pub fn non_revocable(&self) -> Resources {
        self.filter(|it| !it.revocable)
    }

    /// Shared volumes.
    #[must_use]
    pub fn shared(&self) -> Resources {
        self.filter(|it| it.shared)
    }

    /// All but shared volumes.
    #[must_use]
    pub fn non_shared(&self) -> Resources {
        self.filter(|it| !it.shared)
    }

    /// Amounts.
    #[must_use]
    pub fn scalars(&self) -> Resources {
        self.filter(|it| matches!(it.value, Value::Scalar(_)))
    }

    /// Ranges and sets.
    #[must_use]
    pub fn non_scalars(&self) -> Resources {
        self.filter(|it| !matches!(it.value, Value::Scalar(_)))
    }

    /// Persistent volumes.
    #[must_use]
    pub fn persistent_volumes(&self) -> Resources {
        self.filter(Resource::is_persistent_volume)
    }

    /// Whether some resource has more than one reservation.
    pub fn has_refined_reservations(&self) -> bool {
        self.iter().any(Resource::is_refined)
    }

    /// The same, allocated to the role.
    #[must_use]
    pub fn allocate(&self, role: &Role) -> Resources {
        self.allocate_to(Some(role))
    }

    /// The same, allocated to nobody.
    #[must_use]
    pub fn unallocate(&self) -> Resources {
        self.allocate_to(None)
    }

    fn allocate_to(&self, role: Option<&Role>) -> Resources {
        let change = |mut it: Resource| {
            it.allocation_role = role.cloned();
            it
        };
        let mut roles = self.iter().map(|it| &it.allocation_role);
        let first = roles.next();
        if !roles.all(|it| Some(it) == first) {
            return self.map(change);
        }
        // What differed before differs still: nothing can be merged.
        let entries = self.entries.iter().map(|it| Entry {
            resource: change(it.resource.clone()),
            copies: it.copies,
        });
        Resources {
            entries: entries.collect(),
        }
    }

    /// What is allocated, by role. What is allocated to nobody is left out.
    pub fn allocations(&self) -> BTreeMap<Role, Resources> {
        self.group_by(|it| it.allocation_role.as_ref())
    }

    fn group_by(&self, key: impl Fn(&Resource) -> Option<&Role>) -> BTreeMap<Role, Resources> {
        let mut groups: BTreeMap<Role, Resources> = BTreeMap::new();
        for it in &self.entries {
            if let Some(role) = key(&it.resource) {
                // Entries of a normalised list stay normalised in any part of it.
                match groups.get_mut(role) {
                    Some(group) => group.entries.push(it.clone()),
                    None => {
                        let entries = vec![it.clone()];
                        groups.insert(role.clone(), Resources { entries });
                    }
                }
            }
        }
        groups
    }

    /// The amounts by name; a shared volume counts once.
    pub fn quantities(&self) -> Quantities {
        let mut all = Quantities::new();
        for it in self.iter() {
            if let Some(amount) = it.amount() {
                all.add_amount(&it.name, amount);
            }
        }
        all
    }

    /// Amounts cut down so that no name has more than `limits` says; a name that is absent there
    /// is not limited to begin with when `absent_is_unlimited`, and has nothing otherwise. What
    /// cannot be divided and does not fit is dropped whole. Ranges and sets stay.
    #[must_use]
    pub fn shrink(&self, limits: &Quantities, absent_is_unlimited: bool) -> Resources {
        let mut left = limits.clone();
        let mut kept = Resources::new();
        for it in &self.entries {
            let Some(amount) = it.resource.amount() else {
                kept.entries.push(it.clone());
                continue;
            };
            let limit = match left.0.get(&it.resource.name) {
                Some(limit) => *limit,
                None if absent_is_unlimited => Scalar::MAX,
                None => Scalar::ZERO,
            };
            let taken = if amount <= limit {
                amount
            } else if it.resource.is_divisible() {
                limit
            } else {
                Scalar::ZERO
            };
            if taken.is_zero() {
                continue;
            }
            if let Some(limit) = left.0.get_mut(&it.resource.name) {
                *limit = limit.saturating_sub(taken);
            }
            let mut entry = it.clone();
            entry.resource.value = Value::Scalar(taken);
            kept.entries.push(entry);
        }
        kept
    }

    /// [`Resources::shrink`] to the amounts named: a name that is absent has nothing.
    #[must_use]
    pub fn shrink_to(&self, quantities: &Quantities) -> Resources {
        self.shrink(quantities, false)
    }

    /// [`Resources::shrink`] to limits: a name that is absent is not limited.
    #[must_use]
    pub fn shrink_to_limits(&self, limits: &Quantities) -> Resources {
        self.shrink(limits, true)
    }

    /// The same, all reserved further.
    #[must_use]
    pub fn push_reservation(&self, reservation: &Reservation) -> Resources {
        self.map(|it| it.with_reservation(reservation.clone()))
    }

    /// The same without the innermost reservations.
    ///
    /// # Errors
    /// Something is not reserved.
    pub fn pop_reservation(&self) -> Result<Resources, Error> {
        if let Some(it) = self.iter().find(|it| it.is_unreserved()) {
            return Err(Error::Unreserved {
                name: it.name.as_ref().to_owned(),
            });
        }
        Ok(self.map(|mut it| {
            it.reservations.pop();
            it
        }))
    }

    /// The same without any reservation.
    #[must_use]
    pub fn to_unreserved(&self) -> Resources {
        self.map(|mut it| {
            it.reservations.clear();
            it
        })
    }

    /// The same as it was before persistent volumes were made of it: no volume, not shared. Disks
    /// of another source than the root disk keep that source.
    #[must_use]
    pub fn without_volumes(&self) -> Resources {
        self.map(|mut it| {
            it.shared = false;
            it.strip_volume();
            it
        })
    }

    /// The sums that summaries print (`/slaves`, `/frameworks`, metrics).
    pub fn summary(&self) -> Summary {
        let mut summary = Summary(
            ["cpus", "gpus", "mem", "disk"]
                .map(|it| (it.to_owned(), Value::Scalar(Scalar::ZERO)))
                .into(),
        );
        for it in self.iter() {
            let suffix = if it.revocable { "_revocable" } else { "" };
            let name = format!("{}{suffix}", it.name);
            match summary.0.get_mut(&name) {
                Some(sum) => sum.add(&it.value),
                None => {
                    summary.0.insert(name, it.value.clone());
                }
            }
        }
        summary
    }
}

impl Resource {
    /// Makes a piece of disk of a persistent volume.
    pub(crate) fn strip_volume(&mut self) {
        let Some(disk) = &self.disk else { return };
        if disk.persistence.is_none() {
            return;
        }
        self.disk = disk.source.clone().map(|source| {
            super::DiskInfo {
                persistence: None,
                volume: None,
                source: Some(source),
            }
            .into()
        });
    }

    /// Whether it is a disk that is given away as a whole.
    pub fn is_whole_disk(&self) -> bool {
        [DiskKind::Mount, DiskKind::Block, DiskKind::Raw]
            .iter()
            .any(|kind| self.is_disk(*kind))
            && !self.is_divisible()
    }
}

/// Sums by name, as Mesos' summaries print them: cpus, gpus, mem and disk always; other amounts,
/// ranges and sets when there are any (in the text form, such as `[31000-32000]`); revocable ones
/// apart, as `<name>_revocable`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary(pub BTreeMap<String, Value>);
