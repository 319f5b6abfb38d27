//! Whom a resource is reserved to, and by whom.

use crate::{Principal, Role, label::Labels, wire};
use wire::resource::{ReservationInfo, reservation_info};

/// How a reservation came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReservationKind {
    /// By the agent's configuration: cannot be undone by a call.
    Static,
    /// By a call of a framework or an operator.
    Dynamic,
}

/// One reservation; a resource has a stack of them, each to a role strictly below the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// How it came to be.
    pub kind: ReservationKind,
    /// Whom the resource is reserved to.
    pub role: Role,
    /// Who reserved it.
    pub principal: Option<Principal>,
    /// What the one who reserved it attached; an empty list is not the same as none.
    pub labels: Option<Labels>,
}

impl Reservation {
    /// A reservation by configuration.
    pub fn fixed(role: Role) -> Reservation {
        Reservation {
            kind: ReservationKind::Static,
            role,
            principal: None,
            labels: None,
        }
    }

    /// A reservation by a call.
    pub fn dynamic(role: Role, principal: Option<Principal>) -> Reservation {
        Reservation {
            kind: ReservationKind::Dynamic,
            role,
            principal,
            labels: None,
        }
    }

    /// Whether it came by a call.
    pub fn is_dynamic(&self) -> bool {
        self.kind == ReservationKind::Dynamic
    }

    /// The message of the wire, as an element of `reservations`.
    pub fn to_wire(&self) -> ReservationInfo {
        let kind = match self.kind {
            ReservationKind::Static => reservation_info::Type::Static,
            ReservationKind::Dynamic => reservation_info::Type::Dynamic,
        };
        ReservationInfo {
            r#type: Some(kind.into()),
            role: Some(self.role.as_str().to_owned()),
            ..self.to_wire_old()
        }
    }

    /// The message of the wire, as the field `reservation` of the older format: the role stands
    /// in the resource.
    pub(crate) fn to_wire_old(&self) -> ReservationInfo {
        ReservationInfo {
            r#type: None,
            role: None,
            principal: self.principal.as_ref().map(|it| it.as_str().to_owned()),
            labels: self.labels.as_ref().map(Labels::to_wire),
        }
    }
}
