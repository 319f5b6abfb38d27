//! Frameworks: who they are, what they can, and what a description of one must obey.

use crate::{FrameworkId, Principal, Quantities, Role, id, payload, resources, role, time, wire};
use bytes::Bytes;
use core::time::Duration;
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

/// A capability of a framework.
pub type Capability = wire::framework_info::capability::Type;

/// The capabilities of a framework.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameworkCapabilities(u32);

impl FrameworkCapabilities {
    /// Whether the framework has it.
    pub fn is(self, capability: Capability) -> bool {
        self.0 & 1 << (capability as i32) != 0
    }

    /// The same with one more.
    #[must_use]
    pub fn with(self, capability: Capability) -> FrameworkCapabilities {
        FrameworkCapabilities(self.0 | 1 << (capability as i32))
    }

    /// All it has, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        (0..32)
            .filter_map(|it| Capability::try_from(it).ok())
            .filter(move |it| self.is(*it))
    }
}

impl FromIterator<Capability> for FrameworkCapabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(all: I) -> FrameworkCapabilities {
        all.into_iter()
            .fold(Default::default(), |sum, it| sum.with(it))
    }
}

impl fmt::Debug for FrameworkCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Why a framework's description is refused. The text goes into the ERROR event, or into the
/// answer to UPDATE_FRAMEWORK.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// A role's name.
    #[error("framework_info.{field}: {source}")]
    Role {
        /// `role` or `roles`.
        field: &'static str,
        /// What is wrong.
        source: role::Error,
    },
    /// The combination of `role`, `roles` and MULTI_ROLE.
    #[error("framework_info.{0}")]
    Roles(String),
    /// The id.
    #[error(transparent)]
    Id(#[from] id::Error),
    /// A duration that does not fit.
    #[error(
        "framework_info.failover_timeout is {0:e} seconds; expected what fits 64 bits of nanoseconds (about 292 years)"
    )]
    FailoverTimeout(f64),
    /// Offer filters.
    #[error("framework_info.offer_filters[{role:?}]: {fault}")]
    OfferFilters {
        /// The role.
        role: String,
        /// What is wrong.
        fault: String,
    },
    /// Suppressed roles.
    #[error("suppressed_roles: {0:?} is not among the framework's roles")]
    SuppressedRole(String),
    /// Offer constraints.
    #[error("offer_constraints.role_constraints[{role:?}] {fault}")]
    OfferConstraints {
        /// The role.
        role: String,
        /// What is wrong, as a predicate.
        fault: String,
    },
    /// A change that is not allowed.
    #[error(
        "framework_info.{field} changed from {from:?} to {to:?}; it stays for the framework's life"
    )]
    Changed {
        /// The field.
        field: &'static str,
        /// What it was.
        from: String,
        /// What it would be.
        to: String,
    },
}

/// What a framework says of itself. Reading it never fails; [`FrameworkInfo::validate`] says what
/// is wrong about it.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameworkInfo {
    /// Its id; none before it has one (an empty id counts as none).
    pub id: Option<FrameworkId>,
    /// Its name.
    pub name: String,
    /// Whom its tasks run as.
    pub user: String,
    /// Whom it claims to be.
    pub principal: Option<Principal>,
    /// Its roles: `roles` with MULTI_ROLE, otherwise the single `role` (default `*`).
    pub roles: BTreeSet<Role>,
    /// Whether it has MULTI_ROLE.
    pub multi_role: bool,
    /// How long it may be away before it is removed. Negative ones are taken as zero.
    pub failover_timeout: Duration,
    /// Whether its tasks outlive an agent's restart.
    pub checkpoint: bool,
    /// What it can.
    pub capabilities: FrameworkCapabilities,
    /// Where it runs.
    pub hostname: Option<String>,
    /// Where its user interface is.
    pub webui_url: Option<String>,
    /// Per role: an offer is worth making when it has at least one of these. Roles that are
    /// absent have the master's default; an empty list means no minimum.
    pub offer_filters: BTreeMap<Role, Vec<Quantities>>,
    /// `mesos.v1.FrameworkInfo` as it came.
    pub payload: Bytes,
    /// The same, decoded.
    pub wire: Arc<wire::FrameworkInfo>,
}

impl FrameworkInfo {
    /// Reads the message; `raw` is what it was decoded from, if it came as protobuf.
    pub fn from_wire(info: wire::FrameworkInfo, raw: Option<Bytes>) -> FrameworkInfo {
        let payload = payload::or_encoded(raw, &info);
        let capabilities: FrameworkCapabilities =
            info.capabilities.iter().map(|it| it.r#type()).collect();
        let multi_role = capabilities.is(Capability::MultiRole);
        let id = info.id.as_ref().filter(|it| !it.value.is_empty());
        let principal = info.principal.as_deref().filter(|it| !it.is_empty());
        let offer_filters = info.offer_filters.iter().filter_map(|(role, filters)| {
            // Invalid quantities are left out here and refused by `validate`.
            let minimum = filters.min_allocatable_resources.as_ref()?;
            let all = minimum.quantities.iter().map(quantities);
            Some((Role::from(role.as_str()), all.flatten().collect()))
        });
        #[allow(deprecated)] // `role` is how frameworks without MULTI_ROLE say it.
        let roles = if multi_role {
            info.roles.iter().map(|it| it.as_str().into()).collect()
        } else {
            BTreeSet::from([info.role.as_deref().unwrap_or("*").into()])
        };
        FrameworkInfo {
            id: id.map(FrameworkId::from_wire),
            name: info.name.clone(),
            user: info.user.clone(),
            principal: principal.map(Principal::from),
            roles,
            multi_role,
            failover_timeout: failover_timeout(&info),
            checkpoint: info.checkpoint(),
            capabilities,
            hostname: info.hostname.clone(),
            webui_url: info.webui_url.clone(),
            offer_filters: offer_filters.collect(),
            payload,
            wire: Arc::new(info),
        }
    }

    /// Reads what was kept. Bytes that are not such a message read as an empty one; none are kept
    /// that were not decoded before.
    pub fn from_payload(payload: Bytes) -> FrameworkInfo {
        let info = wire::FrameworkInfo::decode(payload.clone()).unwrap_or_default();
        FrameworkInfo::from_wire(info, Some(payload))
    }

    /// The message of the wire.
    pub fn to_wire(&self) -> wire::FrameworkInfo {
        (*self.wire).clone()
    }

    /// Whether the framework has the capability.
    pub fn is(&self, capability: Capability) -> bool {
        self.capabilities.is(capability)
    }

    /// Whether it understands DROPPED, UNREACHABLE, GONE and so on.
    pub fn is_partition_aware(&self) -> bool {
        self.is(Capability::PartitionAware)
    }

    /// The checks of a subscription and of UPDATE_FRAMEWORK: roles, id, offer filters, time-out.
    /// An empty user and a negative time-out are fine.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.validate_roles()?;
        if let Some(id) = &self.id {
            id::validate("framework_info.id", id.as_str())?;
        }
        for (role, filters) in &self.wire.offer_filters {
            let bad = |fault: String| Invalid::OfferFilters {
                role: role.clone(),
                fault,
            };
            role::validate(role).map_err(|it| bad(it.to_string()))?;
            let Some(minimum) = &filters.min_allocatable_resources else {
                continue;
            };
            for it in &minimum.quantities {
                if it.quantities.is_empty() {
                    return Err(bad("min_allocatable_resources has empty quantities".into()));
                }
                quantities(it).map_err(|it| bad(it.to_string()))?;
            }
        }
        match time::nanos_from_secs(self.wire.failover_timeout()) {
            Some(_) => Ok(()),
            None => Err(Invalid::FailoverTimeout(self.wire.failover_timeout())),
        }
    }

    #[allow(deprecated)] // `role` is how frameworks without MULTI_ROLE say it.
    fn validate_roles(&self) -> Result<(), Invalid> {
        let roles = &self.wire.roles;
        if !self.multi_role {
            if !roles.is_empty() {
                let text = "roles is set without the capability MULTI_ROLE; expected role";
                return Err(Invalid::Roles(text.into()));
            }
            let role = self.wire.role.as_deref().unwrap_or("*");
            return role::validate(role).map_err(|source| Invalid::Role {
                field: "role",
                source,
            });
        }
        if self.wire.role.is_some() {
            let text = "role is set with the capability MULTI_ROLE; expected roles";
            return Err(Invalid::Roles(text.into()));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = roles.iter().find(|it| !seen.insert(it.as_str())) {
            return Err(Invalid::Roles(format!("roles has {twice:?} twice")));
        }
        for it in roles {
            role::validate(it).map_err(|source| Invalid::Role {
                field: "roles",
                source,
            })?;
        }
        Ok(())
    }

    /// Whether the suppressed roles are roles of the framework.
    ///
    /// # Errors
    /// The first one that is not.
    pub fn validate_suppressed(&self, suppressed: &[Role]) -> Result<(), Invalid> {
        match suppressed.iter().find(|it| !self.roles.contains(*it)) {
            None => Ok(()),
            Some(it) => Err(Invalid::SuppressedRole(it.as_str().to_owned())),
        }
    }

    /// Whether offer constraints have the right form: their roles are the framework's, no role is
    /// without groups, no group without constraints, every constraint has a selector and exactly
    /// one predicate. Regular expressions are compiled where they are used.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate_constraints(
        &self,
        constraints: &wire::scheduler::OfferConstraints,
    ) -> Result<(), Invalid> {
        for (role, constraints) in &constraints.role_constraints {
            let bad = |fault: &str| {
                Err(Invalid::OfferConstraints {
                    role: role.clone(),
                    fault: fault.to_owned(),
                })
            };
            if !self.roles.contains(role.as_str()) {
                return bad("is not for a role of the framework");
            }
            if constraints.groups.is_empty() {
                return bad("has no groups; leave the role out for no constraints");
            }
            for group in &constraints.groups {
                if group.attribute_constraints.is_empty() {
                    return bad("has a group without attribute_constraints");
                }
                for it in &group.attribute_constraints {
                    use wire::scheduler::attribute_constraint::selector::Selector;
                    match &it.selector.selector {
                        None => return bad("has a constraint without a selector"),
                        Some(Selector::PseudoattributeType(0)) => {
                            return bad("has a selector with an unknown pseudoattribute_type");
                        }
                        Some(_) => {}
                    }
                    if it.predicate.predicate.is_none() {
                        return bad("has a constraint without a predicate this version knows");
                    }
                }
            }
        }
        Ok(())
    }

    /// What a new description may not change: the principal; with `strict` (UPDATE_FRAMEWORK)
    /// also user and checkpoint, which a new subscription silently keeps.
    ///
    /// # Errors
    /// The first field that would change.
    pub fn validate_update(&self, new: &FrameworkInfo, strict: bool) -> Result<(), Invalid> {
        let text = |it: &Option<Principal>| it.as_ref().map_or("", Principal::as_str).to_owned();
        let changed = |field, from: String, to: String| Invalid::Changed { field, from, to };
        if self.principal != new.principal {
            let (from, to) = (text(&self.principal), text(&new.principal));
            return Err(changed("principal", from, to));
        }
        if strict && self.user != new.user {
            return Err(changed("user", self.user.clone(), new.user.clone()));
        }
        if strict && self.checkpoint != new.checkpoint {
            let (from, to) = (self.checkpoint.to_string(), new.checkpoint.to_string());
            return Err(changed("checkpoint", from, to));
        }
        Ok(())
    }

    /// The new description with user and checkpoint of this one, as a new subscription has it.
    #[must_use]
    pub fn updated(&self, new: &FrameworkInfo) -> FrameworkInfo {
        if self.user == new.user && self.checkpoint == new.checkpoint {
            return new.clone();
        }
        new.overridden(&Override {
            user: Some(self.user.clone()),
            checkpoint: Some(self.checkpoint),
            ..Override::default()
        })
    }

    /// The same with an id.
    #[must_use]
    pub fn with_id(&self, id: &FrameworkId) -> FrameworkInfo {
        if self.id.as_ref() == Some(id) {
            return self.clone();
        }
        self.overridden(&Override {
            id: Some(payload::Id {
                value: id.as_str().to_owned(),
            }),
            ..Override::default()
        })
    }

    /// The same with a principal: the master fills in who authenticated.
    #[must_use]
    pub fn with_principal(&self, principal: &Principal) -> FrameworkInfo {
        if self.principal.as_ref() == Some(principal) {
            return self.clone();
        }
        self.overridden(&Override {
            principal: Some(principal.as_str().to_owned()),
            ..Override::default()
        })
    }

    fn overridden(&self, change: &Override) -> FrameworkInfo {
        FrameworkInfo::from_payload(payload::overridden(&self.payload, change))
    }
}

/// The fields of `FrameworkInfo` that the master sets; numbers as there.
#[derive(Clone, PartialEq, Message)]
struct Override {
    #[prost(string, optional, tag = "1")]
    user: Option<String>,
    #[prost(message, optional, tag = "3")]
    id: Option<payload::Id>,
    #[prost(bool, optional, tag = "5")]
    checkpoint: Option<bool>,
    #[prost(string, optional, tag = "8")]
    principal: Option<String>,
}

fn quantities(
    quantities: &wire::offer_filters::ResourceQuantities,
) -> Result<Quantities, resources::Error> {
    let pairs = quantities.quantities.iter();
    Quantities::from_pairs(pairs.map(|(name, it)| (name.as_str(), it.value)))
}

fn failover_timeout(info: &wire::FrameworkInfo) -> Duration {
    let seconds = info.failover_timeout();
    match time::duration_from_secs(seconds) {
        Some(it) => it,
        // Refused by `validate`; long rather than short where it is not asked.
        None if seconds > 0.0 => Duration::MAX,
        None => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> wire::FrameworkInfo {
        wire::FrameworkInfo {
            user: "root".into(),
            name: "f".into(),
            ..Default::default()
        }
    }

    fn multi_role(roles: &[&str]) -> wire::FrameworkInfo {
        let capability = wire::framework_info::Capability {
            r#type: Some(Capability::MultiRole.into()),
        };
        wire::FrameworkInfo {
            capabilities: vec![capability],
            roles: roles.iter().map(|it| (*it).to_owned()).collect(),
            ..info()
        }
    }

    fn validate(info: wire::FrameworkInfo) -> Result<(), Invalid> {
        FrameworkInfo::from_wire(info, None).validate()
    }

    #[test]
    #[allow(deprecated)]
    fn roles_follow_the_capability() {
        let role = |it: &str| wire::FrameworkInfo {
            role: Some(it.into()),
            ..info()
        };
        assert!(validate(info()).is_ok());
        assert!(validate(role("a")).is_ok());
        assert!(validate(role("a b")).is_err());
        assert!(validate(role("-x")).is_err());
        assert!(validate(multi_role(&["a", "b"])).is_ok());
        assert!(validate(multi_role(&[])).is_ok());
        assert!(validate(multi_role(&["a", "a"])).is_err());
        assert!(validate(multi_role(&["/"])).is_err());
        let both = wire::FrameworkInfo {
            role: Some("a".into()),
            ..multi_role(&["a"])
        };
        assert!(validate(both).is_err());
        let without = wire::FrameworkInfo {
            roles: vec!["a".into()],
            ..info()
        };
        assert!(validate(without).is_err());
        let roles = FrameworkInfo::from_wire(info(), None).roles;
        assert_eq!(roles, BTreeSet::from([Role::star()]));
    }

    #[test]
    fn time_outs_that_do_not_fit_are_refused_and_negative_ones_are_not() {
        let time_out = |it| wire::FrameworkInfo {
            failover_timeout: Some(it),
            ..info()
        };
        assert!(validate(time_out(1e300)).is_err());
        assert!(validate(time_out(f64::NAN)).is_err());
        assert!(validate(time_out(-1.0)).is_ok());
        let negative = FrameworkInfo::from_wire(time_out(-1.0), None);
        assert_eq!(negative.failover_timeout, Duration::ZERO);
    }

    #[test]
    fn ids_and_filters_are_checked() {
        let mut it = info();
        it.id = Some(FrameworkId::from("a/b").to_wire());
        assert!(validate(it).is_err());
        for (amount, good) in [(1.0, true), (-1.0, false), (f64::NAN, false)] {
            let mut it = info();
            let quantities = wire::offer_filters::ResourceQuantities {
                quantities: [("cpus".to_owned(), wire::value::Scalar { value: amount })].into(),
            };
            let minimum = wire::offer_filters::MinAllocatableResources {
                quantities: vec![quantities],
            };
            let filters = wire::OfferFilters {
                min_allocatable_resources: Some(minimum),
            };
            it.offer_filters = [("*".to_owned(), filters)].into();
            assert_eq!(validate(it).is_ok(), good, "{amount}");
        }
    }

    #[test]
    fn changes_keep_fields_that_are_not_known() {
        // Field 1000 with the text "new".
        let mut raw = info().encode_to_vec();
        raw.extend_from_slice(&[0xc2, 0x3e, 3, b'n', b'e', b'w']);
        let raw = Bytes::from(raw);
        let first = FrameworkInfo::from_payload(raw.clone());
        let id = FrameworkId::from("m-0001");
        let with = first.with_id(&id).with_principal(&"p".into());
        assert_eq!(with.id, Some(id.clone()));
        assert_eq!(with.with_id(&"m-0002".into()).id, Some("m-0002".into()));
        assert_eq!(with.principal, Some("p".into()));
        let unknown = payload::fields(&with.payload, 1000);
        assert_eq!(unknown, ["new"]);

        let mut other = info();
        other.user = "other".into();
        other.checkpoint = Some(true);
        other.name = "renamed".into();
        let other = FrameworkInfo::from_wire(other, None);
        assert!(first.validate_update(&other, false).is_ok());
        assert!(first.validate_update(&other, true).is_err());
        assert!(first.validate_update(&with, false).is_err());
        let updated = first.updated(&other);
        assert_eq!((&*updated.user, updated.checkpoint), ("root", false));
        assert_eq!(updated.name, "renamed");
        assert_eq!(
            FrameworkInfo::from_payload(updated.payload.clone()),
            updated
        );
    }
}
