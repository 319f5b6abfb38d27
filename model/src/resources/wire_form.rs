//! Resources as messages: three formats out, every one of them in.
//!
//! The stack of reservations is the only form inside. Mesos had an older one (`role` and
//! `reservation` in the resource itself), which frameworks without RESERVATION_REFINEMENT still
//! get and send.

use super::{
    DiskInfo, Entry, Error, Ranges, Reservation, ReservationKind, Resource, Resources, Scalar, Set,
    Value, finder::Builder, resource::intern,
};
use crate::{Principal, Role, label::Labels, role, wire};
use std::sync::Arc;
use wire::resource::{ReservationInfo, reservation_info};

/// Most resources taken from one list of an input.
pub const MAX_RESOURCES: usize = 10_000;

/// Deepest stack of reservations taken from an input.
const MAX_RESERVATIONS: usize = 64;

/// How reservations are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceFormat {
    /// `reservations` alone: for frameworks with RESERVATION_REFINEMENT, agents and the log.
    PostRefinement,
    /// `role` (`*` when unreserved) and `reservation`: for other frameworks. A refined resource
    /// cannot be said that way and keeps its stack; such frameworks are never offered one.
    PreRefinement,
    /// Both: for operators. A refined resource has its stack alone.
    Endpoint,
}

impl Resources {
    /// Reads resources of any format, with all checks that Mesos makes.
    ///
    /// # Errors
    /// The first thing that is wrong, naming the resource and the field.
    pub fn from_wire(resources: &[wire::Resource]) -> Result<Resources, Error> {
        Resources::from_wire_with_role(resources, "*")
    }

    /// [`Resources::from_wire`] for the JSON array of a flag: what is not reserved is reserved
    /// to `default_role`, unless that is `*`.
    ///
    /// # Errors
    /// As [`Resources::from_wire`].
    pub fn from_wire_with_role(
        resources: &[wire::Resource],
        default_role: &str,
    ) -> Result<Resources, Error> {
        if resources.len() > MAX_RESOURCES {
            return Err(Error::TooMany { max: MAX_RESOURCES });
        }
        let mut all = Builder::default();
        for it in resources {
            let mut resource = Resource::from_wire(it)?;
            if resource.is_unreserved() && default_role != "*" {
                let role = valid_role(&resource.name, default_role)?;
                resource.reservations.push(Reservation::fixed(role));
            }
            all.push(resource, 1);
        }
        Ok(all.finish())
    }

    /// The messages with the stack of reservations. A shared resource comes once, however often
    /// it is held.
    pub fn to_wire(&self) -> Vec<wire::Resource> {
        self.to_wire_for(ResourceFormat::PostRefinement)
    }

    /// The messages in a format.
    pub fn to_wire_for(&self, format: ResourceFormat) -> Vec<wire::Resource> {
        let resources = self.entries.iter();
        resources
            .map(|Entry { resource, .. }| resource.to_wire_for(format))
            .collect()
    }
}

impl Resource {
    /// Reads one resource of any format.
    ///
    /// # Errors
    /// The first thing that is wrong, naming the resource and the field.
    pub fn from_wire(resource: &wire::Resource) -> Result<Resource, Error> {
        if resource.name.is_empty() {
            return Err(Error::EmptyName);
        }
        let disk = resource
            .disk
            .as_ref()
            .map(|it| DiskInfo::from_wire(it).into());
        let provider = resource.provider_id.as_ref();
        let allocation = resource.allocation_info.as_ref();
        let result = Resource {
            name: intern(&resource.name),
            value: read_value(resource)?,
            reservations: read_reservations(resource)?,
            disk,
            shared: resource.shared.is_some(),
            revocable: resource.revocable.is_some(),
            provider_id: provider.map(|it| Arc::from(it.value.as_str())),
            allocation_role: match allocation.and_then(|it| it.role.as_deref()) {
                Some(role) => Some(valid_role(&resource.name, role)?),
                None => None,
            },
        };
        result.check()?;
        Ok(result)
    }

    /// What Mesos demands of the combination of the fields.
    fn check(&self) -> Result<(), Error> {
        let name = || self.name.as_ref().to_owned();
        if let Some(disk) = &self.disk {
            let bad = |field, fault| Error::Disk {
                name: name(),
                field,
                fault,
            };
            if &*self.name != "disk" {
                return Err(bad(
                    "disk",
                    "is set, which only resources named \"disk\" have",
                ));
            }
            if disk.persistence.is_none() && disk.volume.is_some() {
                return Err(bad(
                    "disk.volume",
                    "is set without disk.persistence; only persistent volumes have one",
                ));
            }
            if self.revocable && disk.persistence.is_some() {
                return Err(Error::Revocable {
                    name: name(),
                    fault: "persistent volumes are never revocable",
                });
            }
        }
        if self.shared && !self.is_persistent_volume() {
            return Err(Error::Shared { name: name() });
        }
        Ok(())
    }

    /// The message with the stack of reservations.
    pub fn to_wire(&self) -> wire::Resource {
        self.to_wire_for(ResourceFormat::PostRefinement)
    }

    /// The message in a format.
    pub fn to_wire_for(&self, format: ResourceFormat) -> wire::Resource {
        let (old, new) = match format {
            ResourceFormat::PostRefinement => (false, true),
            ResourceFormat::PreRefinement => (!self.is_refined(), self.is_refined()),
            ResourceFormat::Endpoint => (!self.is_refined(), true),
        };
        let (scalar, ranges, set) = match &self.value {
            Value::Scalar(it) => (Some(it.to_wire()), None, None),
            Value::Ranges(it) => (None, Some(it.to_wire()), None),
            Value::Set(it) => {
                let item = it.iter().map(str::to_owned).collect();
                (None, None, Some(wire::value::Set { item }))
            }
        };
        let role = || self.reservation_role().map_or("*", Role::as_str).to_owned();
        let dynamic = self.reservations.last().filter(|it| it.is_dynamic());
        #[allow(deprecated)] // `role`: the older format.
        wire::Resource {
            provider_id: self
                .provider_id
                .as_ref()
                .map(|it| wire::ResourceProviderId {
                    value: it.as_ref().to_owned(),
                }),
            name: self.name.as_ref().to_owned(),
            r#type: self.value.kind().into(),
            scalar,
            ranges,
            set,
            role: old.then(role),
            allocation_info: self.allocation_role.as_ref().map(allocation_info),
            reservation: dynamic.filter(|_| old).map(|it| Box::new(it.to_wire_old())),
            reservations: match new {
                true => self.reservations.iter().map(Reservation::to_wire).collect(),
                false => Vec::new(),
            },
            disk: self.disk.as_ref().map(|it| Box::new(it.to_wire())),
            revocable: self.revocable.then_some(wire::resource::RevocableInfo {}),
            shared: self.shared.then_some(wire::resource::SharedInfo {}),
        }
    }
}

/// The message that says to which role something is allocated.
pub(crate) fn allocation_info(role: &Role) -> wire::resource::AllocationInfo {
    wire::resource::AllocationInfo {
        role: Some(role.as_str().to_owned()),
    }
}

fn read_value(resource: &wire::Resource) -> Result<Value, Error> {
    use wire::value::Type;
    let name = resource.name.as_str();
    let kind = Type::try_from(resource.r#type);
    let fields = (&resource.scalar, &resource.ranges, &resource.set);
    let (value, kind) = match (kind, fields) {
        (Ok(Type::Scalar), (Some(it), None, None)) => {
            return Ok(Scalar::from_f64(name, it.value)?.into());
        }
        (Ok(Type::Ranges), (None, Some(it), None)) => {
            return Ok(Ranges::from_wire(name, it)?.into());
        }
        (Ok(Type::Set), (None, None, Some(it))) => {
            return Ok(Set::new(name, it.item.iter().map(String::as_str))?.into());
        }
        (Ok(Type::Scalar), _) => (true, "scalar"),
        (Ok(Type::Ranges), _) => (true, "ranges"),
        (Ok(Type::Set), _) => (true, "set"),
        (Ok(Type::Text), _) => (false, "TEXT"),
        (Err(_), _) => (false, "unknown"),
    };
    let name = name.to_owned();
    Err(match value {
        true => Error::ValueField { name, kind },
        false => Error::Kind {
            name,
            kind: kind.to_owned(),
        },
    })
}

fn valid_role(name: &str, text: &str) -> Result<Role, Error> {
    Role::new(text).map_err(|source| Error::Role {
        name: name.to_owned(),
        source,
    })
}

#[allow(deprecated)] // `role`: the older format.
fn read_reservations(resource: &wire::Resource) -> Result<Vec<Reservation>, Error> {
    let bad = |field, fault: &str| Error::Reservation {
        name: resource.name.clone(),
        field,
        fault: fault.to_owned(),
    };
    let Some(innermost) = resource.reservations.last() else {
        return read_old_reservation(resource);
    };
    if resource.reservations.len() > MAX_RESERVATIONS {
        return Err(bad("reservations", "has more than 64 elements"));
    }
    let refined = resource.reservations.len() > 1;
    // The older fields may come along when they say the same (the format of the endpoints).
    if let Some(role) = &resource.role
        && (refined || innermost.role.as_ref() != Some(role))
    {
        return Err(bad(
            "role",
            "contradicts reservations; expected it unset, or equal to the role of the only reservation",
        ));
    }
    if let Some(old) = &resource.reservation
        && (refined
            || innermost.r#type() != reservation_info::Type::Dynamic
            || old.principal != innermost.principal
            || old.labels != innermost.labels)
    {
        return Err(bad(
            "reservation",
            "contradicts reservations; expected it unset, or equal to the only dynamic reservation",
        ));
    }
    let mut stack: Vec<Reservation> = Vec::with_capacity(resource.reservations.len());
    for it in &resource.reservations {
        let kind = match it.r#type() {
            reservation_info::Type::Static => ReservationKind::Static,
            reservation_info::Type::Dynamic => ReservationKind::Dynamic,
            reservation_info::Type::Unknown => {
                return Err(bad("reservations.type", "is not STATIC or DYNAMIC"));
            }
        };
        let role = match it.role.as_deref() {
            None => return Err(bad("reservations.role", "is missing")),
            Some("*") => {
                return Err(bad(
                    "reservations.role",
                    "is *, which nothing is reserved to",
                ));
            }
            Some(role) => valid_role(&resource.name, role)?,
        };
        if let Some(outer) = stack.last() {
            if kind == ReservationKind::Static {
                let fault = "is STATIC inside another reservation; a refinement is DYNAMIC";
                return Err(bad("reservations.type", fault));
            }
            if !role.is_strict_subrole_of(&outer.role) {
                let fault = format!("{role} does not lie below {}, which it refines", outer.role);
                return Err(bad("reservations.role", &fault));
            }
        }
        stack.push(reservation(kind, role, it));
    }
    Ok(stack)
}

#[allow(deprecated)] // `role`: the older format.
fn read_old_reservation(resource: &wire::Resource) -> Result<Vec<Reservation>, Error> {
    let bad = |field, fault: &str| Error::Reservation {
        name: resource.name.clone(),
        field,
        fault: fault.to_owned(),
    };
    let role = resource.role.as_deref().unwrap_or("*");
    role::validate(role).map_err(|source| Error::Role {
        name: resource.name.clone(),
        source,
    })?;
    let Some(info) = &resource.reservation else {
        let fixed = (role != "*").then(|| Reservation::fixed(role.into()));
        return Ok(fixed.into_iter().collect());
    };
    if info.r#type.is_some() {
        let fault = "is set; it belongs into an element of reservations";
        return Err(bad("reservation.type", fault));
    }
    if info.role.is_some() {
        let fault = "is set; it belongs into an element of reservations, or into role";
        return Err(bad("reservation.role", fault));
    }
    if role == "*" {
        return Err(bad(
            "role",
            "is * with reservation set; nothing is reserved to *",
        ));
    }
    Ok(vec![reservation(
        ReservationKind::Dynamic,
        role.into(),
        info,
    )])
}

fn reservation(kind: ReservationKind, role: Role, info: &ReservationInfo) -> Reservation {
    Reservation {
        kind,
        role,
        principal: info.principal.as_deref().map(Principal::from),
        labels: info.labels.as_ref().map(Labels::from_wire),
    }
}
