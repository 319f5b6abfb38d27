//! One resource of an agent: so much of what, reserved to whom, on which disk.

use super::{
    DiskInfo, Reservation,
    disk::same,
    ranges::Ranges,
    scalar::Scalar,
    value::{Set, Value},
};
use crate::Role;
use std::{
    fmt,
    sync::{Arc, LazyLock},
};

/// The names that every agent has, so that they are shared and compared by address.
static NAMES: LazyLock<[Arc<str>; 5]> =
    LazyLock::new(|| ["cpus", "mem", "disk", "gpus", "ports"].map(Arc::from));

/// The shared text of a resource's name.
pub(crate) fn intern(name: &str) -> Arc<str> {
    match NAMES.iter().find(|it| &***it == name) {
        Some(it) => it.clone(),
        None => name.into(),
    }
}

fn same_text(left: &Arc<str>, right: &Arc<str>) -> bool {
    Arc::ptr_eq(left, right) || left == right
}

/// So much of one kind. Plain data; [`super::Resources`] keeps lists of them normalised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// What it is: `cpus`, `mem`, `disk`, `gpus`, `ports`, or a name of the operator's choice.
    pub name: Arc<str>,
    /// How much or which.
    pub value: Value,
    /// Whom it is reserved to: a stack, the innermost (refined) reservation last.
    pub reservations: Vec<Reservation>,
    /// For disks: the source and the persistent volume.
    pub disk: Option<Arc<DiskInfo>>,
    /// Whether several tasks may use it at once (persistent volumes only).
    pub shared: bool,
    /// Whether it may be taken back at any time (oversubscription).
    pub revocable: bool,
    /// The resource provider it comes from; none for the agent itself.
    pub provider_id: Option<Arc<str>>,
    /// The role it is offered or allocated to.
    pub allocation_role: Option<Role>,
}

impl Resource {
    /// A plain resource: unreserved, not on a special disk, not allocated.
    pub fn new(name: &str, value: impl Into<Value>) -> Resource {
        Resource {
            name: intern(name),
            value: value.into(),
            reservations: Vec::new(),
            disk: None,
            shared: false,
            revocable: false,
            provider_id: None,
            allocation_role: None,
        }
    }

    /// A plain amount.
    pub fn scalar(name: &str, amount: Scalar) -> Resource {
        Resource::new(name, amount)
    }

    /// A plain set of numbers.
    pub fn ranges(name: &str, numbers: Ranges) -> Resource {
        Resource::new(name, numbers)
    }

    /// A plain set of words.
    pub fn set(name: &str, words: Set) -> Resource {
        Resource::new(name, words)
    }

    /// The same, reserved further.
    #[must_use]
    pub fn with_reservation(mut self, reservation: Reservation) -> Resource {
        self.reservations.push(reservation);
        self
    }

    /// The same, allocated to a role.
    #[must_use]
    pub fn with_allocation(mut self, role: Role) -> Resource {
        self.allocation_role = Some(role);
        self
    }

    /// The same, on a special disk.
    #[must_use]
    pub fn with_disk(mut self, disk: DiskInfo) -> Resource {
        self.disk = Some(Arc::new(disk));
        self
    }

    /// The role of the innermost reservation; none when unreserved.
    pub fn reservation_role(&self) -> Option<&Role> {
        self.reservations.last().map(|it| &it.role)
    }

    /// Whether it is not reserved.
    pub fn is_unreserved(&self) -> bool {
        self.reservations.is_empty()
    }

    /// Whether its innermost reservation is to exactly this role.
    pub fn is_reserved_to(&self, role: &Role) -> bool {
        self.reservation_role() == Some(role)
    }

    /// Whether the innermost reservation came by a call.
    pub fn is_dynamically_reserved(&self) -> bool {
        self.reservations
            .last()
            .is_some_and(Reservation::is_dynamic)
    }

    /// Whether it has more than one reservation, which only frameworks with
    /// RESERVATION_REFINEMENT understand.
    pub fn is_refined(&self) -> bool {
        self.reservations.len() > 1
    }

    /// Whether the role may be offered it: unreserved, or reserved to the role or an ancestor.
    pub fn is_allocatable_to(&self, role: &Role) -> bool {
        self.reservation_role().is_none_or(|it| role.is_within(it))
    }

    /// Whether it is a persistent volume.
    pub fn is_persistent_volume(&self) -> bool {
        self.disk
            .as_ref()
            .is_some_and(|it| it.persistence.is_some())
    }

    /// The id of the persistent volume, if it is one.
    pub fn persistence_id(&self) -> Option<&crate::PersistenceId> {
        self.disk.as_ref()?.persistence.as_ref().map(|it| &it.id)
    }

    /// Whether the disk's source is of the kind.
    pub fn is_disk(&self, kind: super::DiskKind) -> bool {
        let source = self.disk.as_ref().and_then(|it| it.source.as_ref());
        source.is_some_and(|it| it.kind() == kind)
    }

    /// Whether a part of it can be given away.
    pub fn is_divisible(&self) -> bool {
        !self.shared && self.disk.as_ref().is_none_or(|it| it.is_divisible())
    }

    /// The amount, if it is one.
    pub fn amount(&self) -> Option<Scalar> {
        self.value.as_scalar()
    }

    /// Whether there is nothing of it.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// Whether the two are alike in everything but the value: parts of one pool.
    pub fn is_same_kind(&self, other: &Resource) -> bool {
        same_text(&self.name, &other.name)
            && self.value.same_kind(&other.value)
            && self.shared == other.shared
            && self.revocable == other.revocable
            && self.allocation_role == other.allocation_role
            && self.provider_id == other.provider_id
            && self.reservations == other.reservations
            && same(&self.disk, &other.disk)
    }

    /// Whether the two can be one entry: alike, and divisible. Persistent volumes, shared
    /// resources and disks that are given away as a whole never merge.
    pub(crate) fn can_merge(&self, other: &Resource) -> bool {
        self.is_same_kind(other) && self.is_divisible()
    }

    /// Whether the two name the same indivisible thing.
    pub(crate) fn is_same_thing(&self, other: &Resource) -> bool {
        self.is_same_kind(other) && self.value == other.value
    }
}

impl fmt::Display for Resource {
    /// `name(role):value` for what the text form can say; otherwise what is special is added the
    /// way Mesos logs it, as in `disk(reservations: [(DYNAMIC,a,p)])[id:/path]{REV}<SHARED>:5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(role) = &self.allocation_role {
            write!(f, "(allocated: {role})")?;
        }
        match self.reservations.as_slice() {
            [] => {}
            [it] if !it.is_dynamic() && it.principal.is_none() && it.labels.is_none() => {
                write!(f, "({})", it.role)?;
            }
            stack => {
                f.write_str("(reservations: [")?;
                for (index, it) in stack.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    let kind = if it.is_dynamic() { "DYNAMIC" } else { "STATIC" };
                    write!(f, "{comma}({kind},{}", it.role)?;
                    if let Some(principal) = &it.principal {
                        write!(f, ",{principal}")?;
                    }
                    if let Some(labels) = &it.labels {
                        f.write_str(",{")?;
                        for (index, (key, value)) in labels.iter().enumerate() {
                            let comma = if index == 0 { "" } else { ", " };
                            write!(f, "{comma}{key}")?;
                            if let Some(value) = value {
                                write!(f, ": {value}")?;
                            }
                        }
                        f.write_str("}")?;
                    }
                    f.write_str(")")?;
                }
                f.write_str("])")?;
            }
        }
        if let Some(disk) = &self.disk {
            f.write_str("[")?;
            if let Some(source) = &disk.source {
                write!(f, "{:?}", source.kind())?;
                for part in [source.id(), source.profile(), source.root()] {
                    write!(f, ",{}", part.unwrap_or_default())?;
                }
                if disk.persistence.is_some() {
                    f.write_str(",")?;
                }
            }
            if let Some(volume) = &disk.persistence {
                write!(f, "{}", volume.id)?;
            }
            if let Some(volume) = &disk.volume {
                write!(f, ":{}", volume.container_path)?;
            }
            f.write_str("]")?;
        }
        if self.revocable {
            f.write_str("{REV}")?;
        }
        if self.shared {
            f.write_str("<SHARED>")?;
        }
        write!(f, ":{}", self.value)
    }
}
