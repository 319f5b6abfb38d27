//! Where a piece of disk is, and which volume was made of it.

use crate::{PersistenceId, Principal, wire};
use std::sync::Arc;

/// A volume that outlives its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// Its id, unique per role on the agent.
    pub id: PersistenceId,
    /// Who made it.
    pub principal: Option<Principal>,
}

/// What kind of disk it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskKind {
    /// A kind this version does not know.
    Unknown,
    /// A directory on a shared disk; can be divided.
    Path,
    /// A mounted disk; only as a whole.
    Mount,
    /// A block device; only as a whole.
    Block,
    /// A disk before it is made into one of the others; only as a whole once it has an id.
    Raw,
}

/// The auxiliary disk that a resource is part of. Kept as received.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskSource(wire::resource::disk_info::Source);

impl DiskSource {
    /// From the message of the wire.
    pub fn from_wire(source: &wire::resource::disk_info::Source) -> DiskSource {
        DiskSource(source.clone())
    }

    /// The message of the wire.
    pub fn wire(&self) -> &wire::resource::disk_info::Source {
        &self.0
    }

    /// What kind of disk it is.
    pub fn kind(&self) -> DiskKind {
        use wire::resource::disk_info::source::Type;
        match Type::try_from(self.0.r#type) {
            Ok(Type::Path) => DiskKind::Path,
            Ok(Type::Mount) => DiskKind::Mount,
            Ok(Type::Block) => DiskKind::Block,
            Ok(Type::Raw) => DiskKind::Raw,
            Ok(Type::Unknown) | Err(_) => DiskKind::Unknown,
        }
    }

    /// Where it is mounted or which directory it is; relative to the agent's work directory.
    pub fn root(&self) -> Option<&str> {
        let path = self.0.path.as_ref().and_then(|it| it.root.as_deref());
        path.or_else(|| self.0.mount.as_ref().and_then(|it| it.root.as_deref()))
    }

    /// The provider's name for it.
    pub fn id(&self) -> Option<&str> {
        self.0.id.as_deref()
    }

    /// The provider's profile it was made by.
    pub fn profile(&self) -> Option<&str> {
        self.0.profile.as_deref()
    }

    /// Whether amounts of it can be split and merged.
    pub fn is_divisible(&self) -> bool {
        match self.kind() {
            DiskKind::Path => true,
            DiskKind::Raw => self.0.id.is_none(),
            DiskKind::Mount | DiskKind::Block | DiskKind::Unknown => false,
        }
    }
}

// The message holds no floating point.
impl Eq for DiskSource {}

/// What is special about a piece of disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DiskInfo {
    /// Set for a persistent volume.
    pub persistence: Option<Persistence>,
    /// Where a container sees the volume. Says how the resource is used, not which it is.
    pub volume: Option<wire::Volume>,
    /// The auxiliary disk; none for the agent's root disk.
    pub source: Option<DiskSource>,
}

// The messages in it hold no floating point.
impl Eq for DiskInfo {}

impl DiskInfo {
    /// From the message of the wire.
    pub fn from_wire(disk: &wire::resource::DiskInfo) -> DiskInfo {
        DiskInfo {
            persistence: disk.persistence.as_ref().map(|it| Persistence {
                id: it.id.as_str().into(),
                principal: it.principal.as_deref().map(Principal::from),
            }),
            volume: disk.volume.clone(),
            source: disk.source.as_ref().map(DiskSource::from_wire),
        }
    }

    /// The message of the wire.
    pub fn to_wire(&self) -> wire::resource::DiskInfo {
        let persistence = self.persistence.as_ref();
        wire::resource::DiskInfo {
            persistence: persistence.map(|it| wire::resource::disk_info::Persistence {
                id: it.id.as_str().to_owned(),
                principal: it.principal.as_ref().map(|it| it.as_str().to_owned()),
            }),
            volume: self.volume.clone(),
            source: self.source.as_ref().map(|it| it.0.clone()),
        }
    }

    /// Whether the two are the same piece of disk: same source, same persistent volume. Where a
    /// container sees it does not matter, since each task may say that anew, and neither does
    /// who made the volume (Mesos compares the volume's id alone).
    pub fn is_same(&self, other: &DiskInfo) -> bool {
        self.source == other.source && self.persistence_id() == other.persistence_id()
    }

    fn persistence_id(&self) -> Option<&PersistenceId> {
        self.persistence.as_ref().map(|it| &it.id)
    }

    /// Whether amounts of it can be split and merged: not a persistent volume, and not on a disk
    /// that is given away as a whole.
    pub fn is_divisible(&self) -> bool {
        self.persistence.is_none() && self.source.as_ref().is_none_or(DiskSource::is_divisible)
    }
}

/// As [`DiskInfo::is_same`], for what may be absent and is mostly shared.
pub(crate) fn same(left: &Option<Arc<DiskInfo>>, right: &Option<Arc<DiskInfo>>) -> bool {
    match (left, right) {
        (None, None) => true,
        (Some(left), Some(right)) => Arc::ptr_eq(left, right) || left.is_same(right),
        _ => false,
    }
}
