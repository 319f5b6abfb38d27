//! Agents: what they say of themselves, and which changes of it keep their id.

use crate::{
    AgentId, Resources,
    attribute::{Attribute, AttributeValue, Attributes},
    payload, resources, wire,
};
use bytes::Bytes;
use prost::Message;
use std::{fmt, sync::Arc};

/// A capability of an agent.
pub type Capability = wire::agent_info::capability::Type;

/// The capabilities of an agent.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentCapabilities(u32);

impl AgentCapabilities {
    /// Everything that this version knows.
    pub fn all() -> AgentCapabilities {
        // Zero is UNKNOWN.
        (1..32)
            .filter_map(|it| Capability::try_from(it).ok())
            .collect()
    }

    /// Whether the agent has it.
    pub fn is(self, capability: Capability) -> bool {
        self.0 & 1 << (capability as i32) != 0
    }

    /// The same with one more.
    #[must_use]
    pub fn with(self, capability: Capability) -> AgentCapabilities {
        AgentCapabilities(self.0 | 1 << (capability as i32))
    }

    /// The same with one less.
    #[must_use]
    pub fn without(self, capability: Capability) -> AgentCapabilities {
        AgentCapabilities(self.0 & !(1 << (capability as i32)))
    }

    /// All it has, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        (0..32)
            .filter_map(|it| Capability::try_from(it).ok())
            .filter(move |it| self.is(*it))
    }

    /// From their names on the wire; names that are not known are left out.
    pub fn from_names<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> AgentCapabilities {
        names
            .into_iter()
            .filter_map(|it| Capability::from_str_name(it.as_ref()))
            .collect()
    }

    /// Their names on the wire.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.iter().map(|it| it.as_str_name())
    }
}

impl FromIterator<Capability> for AgentCapabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(all: I) -> AgentCapabilities {
        all.into_iter()
            .fold(Default::default(), |sum, it| sum.with(it))
    }
}

impl fmt::Debug for AgentCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Where a machine stands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FaultDomain {
    /// The region; frameworks without REGION_AWARE get only agents of the master's.
    pub region: Arc<str>,
    /// The zone in the region.
    pub zone: Arc<str>,
}

impl FaultDomain {
    /// From the message of the wire; none when it holds no fault domain.
    pub fn from_wire(domain: &wire::DomainInfo) -> Option<FaultDomain> {
        let domain = domain.fault_domain.as_ref()?;
        Some(FaultDomain {
            region: domain.region.name.as_str().into(),
            zone: domain.zone.name.as_str().into(),
        })
    }

    /// The message of the wire.
    pub fn to_wire(&self) -> wire::DomainInfo {
        use wire::domain_info::{
            FaultDomain as Wire, fault_domain::RegionInfo, fault_domain::ZoneInfo,
        };
        wire::DomainInfo {
            fault_domain: Some(Wire {
                region: RegionInfo {
                    name: self.region.as_ref().to_owned(),
                },
                zone: ZoneInfo {
                    name: self.zone.as_ref().to_owned(),
                },
            }),
        }
    }
}

/// What offers say of an agent's host. Read without the rest of the agent's description, of
/// which there are as many as agents at the birth of a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// The name of the host.
    pub hostname: Arc<str>,
    /// What its operator says of it.
    pub attributes: Attributes,
    /// Where it stands.
    pub domain: Option<FaultDomain>,
}

/// The fields of `mesos.v1.AgentInfo` that [`Host`] is made of.
#[derive(Clone, PartialEq, Message)]
struct HostFields {
    #[prost(string, tag = "1")]
    hostname: String,
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<wire::Attribute>,
    #[prost(message, optional, tag = "10")]
    domain: Option<wire::DomainInfo>,
}

impl Host {
    /// Reads the payload of an [`AgentInfo`]; what cannot be read is empty, as there.
    pub fn from_payload(payload: &Bytes) -> Host {
        let fields = HostFields::decode(payload.clone()).unwrap_or_default();
        Host {
            hostname: fields.hostname.into(),
            attributes: Attributes::from_wire(&fields.attributes).unwrap_or_default(),
            domain: fields.domain.as_ref().and_then(FaultDomain::from_wire),
        }
    }
}

/// What an agent says of itself. Reading it never fails; [`AgentInfo::validate`] says what is
/// wrong about it.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentInfo {
    /// Its id, if it has one already.
    pub id: Option<AgentId>,
    /// The name of its host.
    pub hostname: String,
    /// The port of its HTTP endpoint.
    pub port: u16,
    /// What its operator says of it.
    pub attributes: Attributes,
    /// Where it stands.
    pub domain: Option<FaultDomain>,
    /// What it was started with: neither dynamic reservations nor volumes.
    pub resources: Resources,
    /// What cannot be read of resources and attributes, which are empty then.
    pub fault: Option<resources::Error>,
    /// `mesos.v1.AgentInfo` as it came.
    pub payload: Bytes,
    /// The same, decoded.
    pub wire: Arc<wire::AgentInfo>,
}

impl AgentInfo {
    /// Reads the message; `raw` is what it was decoded from, if it came as protobuf.
    pub fn from_wire(info: wire::AgentInfo, raw: Option<Bytes>) -> AgentInfo {
        let payload = payload::or_encoded(raw, &info);
        let (resources, bad_resources) = or_default(Resources::from_wire(&info.resources));
        let (attributes, bad_attributes) = or_default(Attributes::from_wire(&info.attributes));
        let id = info.id.as_ref().filter(|it| !it.value.is_empty());
        AgentInfo {
            id: id.map(AgentId::from_wire),
            hostname: info.hostname.clone(),
            port: u16::try_from(info.port()).unwrap_or_default(),
            attributes,
            domain: info.domain.as_ref().and_then(FaultDomain::from_wire),
            resources,
            fault: bad_resources.or(bad_attributes),
            payload,
            wire: Arc::new(info),
        }
    }

    /// Reads what was kept. Bytes that are not such a message read as an empty one; none are kept
    /// that were not decoded before.
    pub fn from_payload(payload: Bytes) -> AgentInfo {
        let info = wire::AgentInfo::decode(payload.clone()).unwrap_or_default();
        AgentInfo::from_wire(info, Some(payload))
    }

    /// The message of the wire.
    pub fn to_wire(&self) -> wire::AgentInfo {
        (*self.wire).clone()
    }

    /// The same with an id.
    #[must_use]
    pub fn with_id(&self, id: &AgentId) -> AgentInfo {
        if self.id.as_ref() == Some(id) {
            return self.clone();
        }
        let change = Override {
            id: Some(payload::Id {
                value: id.as_str().to_owned(),
            }),
        };
        AgentInfo::from_payload(payload::overridden(&self.payload, &change))
    }

    /// Whether resources and attributes can be read, and the resources are such as an agent is
    /// started with: neither dynamically reserved, nor persistent volumes, nor allocated, with
    /// whole gpus.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        if let Some(fault) = &self.fault {
            return Err(Invalid::Unreadable(fault.clone()));
        }
        for it in self.resources.iter() {
            let fault = if it.reservations.iter().any(|it| it.is_dynamic()) {
                "is dynamically reserved; an agent is started with static reservations only"
            } else if it.is_persistent_volume() {
                "is a persistent volume; volumes are created by calls"
            } else if it.allocation_role.is_some() {
                "has allocation_info"
            } else if &*it.name == "gpus" && it.amount().is_some_and(|it| !it.is_integral()) {
                "is not a whole number"
            } else {
                continue;
            };
            return Err(Invalid::Resource {
                resource: it.to_string(),
                fault,
            });
        }
        Ok(())
    }

    /// Whether an agent that was known by `self` may go on with its id as `new`
    /// (`--reconfiguration_policy`). The id itself is not compared.
    ///
    /// # Errors
    /// What changed in a way that the policy does not allow.
    pub fn check_reconfiguration(
        &self,
        new: &AgentInfo,
        policy: ReconfigurationPolicy,
    ) -> Result<(), Incompatible> {
        let changed = |field, from: &dyn fmt::Display, to: &dyn fmt::Display| Incompatible {
            field,
            from: from.to_string(),
            to: to.to_string(),
            policy,
        };
        if self.hostname != new.hostname {
            return Err(changed("hostname", &self.hostname, &new.hostname));
        }
        if self.port != new.port {
            return Err(changed("port", &self.port, &new.port));
        }
        let additive = policy == ReconfigurationPolicy::Additive;
        let domain_added = additive && self.domain.is_none();
        if self.domain != new.domain && !domain_added {
            let text = |it: &Option<FaultDomain>| match it {
                None => "none".to_owned(),
                Some(it) => format!("{}/{}", it.region, it.zone),
            };
            return Err(changed("domain", &text(&self.domain), &text(&new.domain)));
        }
        let resources_fit = match policy {
            ReconfigurationPolicy::Equal => self.resources.is_equivalent(&new.resources),
            ReconfigurationPolicy::Additive => new.resources.contains(&self.resources),
        };
        if !resources_fit {
            return Err(changed("resources", &self.resources, &new.resources));
        }
        let attributes_fit = match policy {
            ReconfigurationPolicy::Equal => self.attributes == new.attributes,
            ReconfigurationPolicy::Additive => self
                .attributes
                .iter()
                .all(|it| new.attributes.iter().any(|new| grown(it, new))),
        };
        if !attributes_fit {
            return Err(changed("attributes", &self.attributes, &new.attributes));
        }
        Ok(())
    }
}

/// Whether an attribute is the old one or more of it: numbers and texts are equal, ranges and
/// sets hold at least what they held.
fn grown(old: &Attribute, new: &Attribute) -> bool {
    old.name == new.name
        && match (&old.value, &new.value) {
            (AttributeValue::Ranges(old), AttributeValue::Ranges(new)) => new.contains(old),
            (AttributeValue::Set(old), AttributeValue::Set(new)) => new.contains(old),
            (old, new) => old == new,
        }
}

fn or_default<T: Default, E>(result: Result<T, E>) -> (T, Option<E>) {
    match result {
        Ok(it) => (it, None),
        Err(error) => (T::default(), Some(error)),
    }
}

/// The field of `AgentInfo` that the master sets; number as there.
#[derive(Clone, PartialEq, Message)]
struct Override {
    #[prost(message, optional, tag = "6")]
    id: Option<payload::Id>,
}

/// Why an agent's description is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// Resources or attributes.
    #[error("agent_info: {0}")]
    Unreadable(resources::Error),
    /// A resource that no agent is started with.
    #[error("agent_info.resources: {resource} {fault}")]
    Resource {
        /// The resource.
        resource: String,
        /// What is wrong, as a predicate.
        fault: &'static str,
    },
}

/// What may change while an agent keeps its id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReconfigurationPolicy {
    /// Nothing.
    Equal,
    /// Resources and attributes may be added or grow; a domain may be added.
    Additive,
}

/// A change that the policy does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{field} changed from \"{from}\" to \"{to}\", which reconfiguration_policy {policy} does not allow"
)]
pub struct Incompatible {
    /// What changed.
    pub field: &'static str,
    /// What it was.
    pub from: String,
    /// What it is.
    pub to: String,
    /// The policy.
    pub policy: ReconfigurationPolicy,
}

impl fmt::Display for ReconfigurationPolicy {
    /// The flag's value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReconfigurationPolicy::Equal => "equal",
            ReconfigurationPolicy::Additive => "additive",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(resources: &str, attributes: &str) -> AgentInfo {
        let info = wire::AgentInfo {
            hostname: "h".into(),
            resources: Resources::parse(resources, "*").unwrap().to_wire(),
            attributes: Attributes::parse(attributes).unwrap().to_wire(),
            ..Default::default()
        };
        AgentInfo::from_wire(info, None)
    }

    #[test]
    fn policies_allow_what_they_say() {
        let old = info("cpus:4;ports:[1-10]", "rack:r1;level:1;r:[1-5]");
        // New resources, new attributes, fits equal, fits additive.
        let cases = [
            ("ports:[1-10];cpus:4", "rack:r1;level:1;r:[1-5]", true, true),
            (
                "cpus:5;ports:[1-10]",
                "rack:r1;level:1;r:[1-5]",
                false,
                true,
            ),
            (
                "cpus:4;ports:[1-11];mem:1",
                "rack:r1;level:1;r:[1-6];n:2",
                false,
                true,
            ),
            (
                "cpus:3;ports:[1-10]",
                "rack:r1;level:1;r:[1-5]",
                false,
                false,
            ),
            (
                "cpus:4;ports:[2-10]",
                "rack:r1;level:1;r:[1-5]",
                false,
                false,
            ),
            (
                "cpus:4;ports:[1-10]",
                "rack:r2;level:1;r:[1-5]",
                false,
                false,
            ),
            (
                "cpus:4;ports:[1-10]",
                "rack:r1;level:2;r:[1-5]",
                false,
                false,
            ),
            ("cpus:4;ports:[1-10]", "rack:r1;r:[1-5]", false, false),
            (
                "cpus(a):4;ports:[1-10]",
                "rack:r1;level:1;r:[1-5]",
                false,
                false,
            ),
        ];
        for (resources, attributes, equal, additive) in cases {
            let new = info(resources, attributes);
            let check = |policy| old.check_reconfiguration(&new, policy);
            let text = format!("{resources} {attributes}");
            assert_eq!(check(ReconfigurationPolicy::Equal).is_ok(), equal, "{text}");
            assert_eq!(
                check(ReconfigurationPolicy::Additive).is_ok(),
                additive,
                "{text}"
            );
        }
    }

    #[test]
    fn a_domain_may_be_added_but_not_changed() {
        let with = |zone: &str| {
            let domain = FaultDomain {
                region: "r".into(),
                zone: zone.into(),
            };
            let info = wire::AgentInfo {
                domain: Some(domain.to_wire()),
                ..info("cpus:1", "").to_wire()
            };
            AgentInfo::from_wire(info, None)
        };
        let without = info("cpus:1", "");
        let additive = ReconfigurationPolicy::Additive;
        assert!(without.check_reconfiguration(&with("a"), additive).is_ok());
        assert!(
            with("a")
                .check_reconfiguration(&with("b"), additive)
                .is_err()
        );
        assert!(with("a").check_reconfiguration(&without, additive).is_err());
        let equal = ReconfigurationPolicy::Equal;
        assert!(without.check_reconfiguration(&with("a"), equal).is_err());
    }

    #[test]
    fn agents_start_without_volumes_and_dynamic_reservations() {
        assert!(info("cpus(a):4;gpus:2", "").validate().is_ok());
        assert!(info("gpus:1.5", "").validate().is_err());
        let mut reserved = Resources::parse("cpus:1", "*").unwrap();
        let reservation = crate::resources::Reservation::dynamic("a".into(), None);
        reserved = reserved.push_reservation(&reservation);
        let info = wire::AgentInfo {
            resources: reserved.to_wire(),
            ..Default::default()
        };
        assert!(AgentInfo::from_wire(info, None).validate().is_err());
    }

    #[test]
    fn capabilities_have_names() {
        let all = AgentCapabilities::all();
        assert_eq!(AgentCapabilities::from_names(all.names()), all);
        assert_eq!(all.iter().count(), 8);
        assert!(
            !all.without(Capability::ResizeVolume)
                .is(Capability::ResizeVolume)
        );
    }
}
