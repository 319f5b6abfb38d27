//! Offers: what a framework may use on an agent.

use crate::{
    AgentId, ExecutorId, FrameworkId, OfferId, Resources, Role, agent::FaultDomain,
    attribute::Attributes, framework, resources::ResourceFormat, time, wire,
};
use core::time::Duration;
use std::sync::Arc;

/// How messages are written for a framework, by what it can.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FrameworkFormat {
    /// MULTI_ROLE: resources and offers say to which role they are allocated.
    pub multi_role: bool,
    /// RESERVATION_REFINEMENT: resources have a stack of reservations.
    pub refinement: bool,
}

impl FrameworkFormat {
    /// The format that a framework understands.
    pub fn of(framework: &framework::FrameworkInfo) -> FrameworkFormat {
        FrameworkFormat {
            multi_role: framework.multi_role,
            refinement: framework.is(framework::Capability::ReservationRefinement),
        }
    }

    /// The format of its resources.
    pub fn resources(self) -> ResourceFormat {
        match self.refinement {
            true => ResourceFormat::PostRefinement,
            false => ResourceFormat::PreRefinement,
        }
    }

    /// Resources as the framework understands them.
    pub fn write(self, resources: &Resources) -> Vec<wire::Resource> {
        let mut all = resources.to_wire_for(self.resources());
        if !self.multi_role {
            for it in &mut all {
                it.allocation_info = None;
            }
        }
        all
    }

    /// Resources of a message that is passed on, rewritten as the framework understands them.
    /// What cannot be read stays as it is.
    pub fn rewrite(self, resources: &mut Vec<wire::Resource>) {
        if resources.is_empty() {
            return;
        }
        if let Ok(all) = Resources::from_wire(resources) {
            *resources = self.write(&all);
        }
    }
}

/// An offer: part of one agent for one framework and role, until it is used, declined or
/// rescinded.
#[derive(Clone, PartialEq, Debug)]
pub struct Offer {
    /// Its id.
    pub id: OfferId,
    /// To whom.
    pub framework_id: FrameworkId,
    /// Of what.
    pub agent_id: AgentId,
    /// The agent's host name.
    pub hostname: Arc<str>,
    /// The agent's address as an IP, without brackets.
    pub ip: Arc<str>,
    /// The agent's port.
    pub port: u16,
    /// For which role.
    pub role: Role,
    /// What is offered, without the role that it is allocated to; whoever holds it shares the list.
    pub resources: Arc<Resources>,
    /// The agent's attributes.
    pub attributes: Attributes,
    /// The framework's executors on the agent.
    pub executor_ids: Vec<ExecutorId>,
    /// Where the agent stands.
    pub domain: Option<FaultDomain>,
    /// When maintenance is planned.
    pub unavailability: Option<wire::Unavailability>,
}

/// The path of every agent's endpoints: Mesos numbers the actors of a process.
pub const AGENT_PATH: &str = "/slave(1)";

impl Offer {
    /// What is offered, allocated to the role.
    pub fn allocated(&self) -> Resources {
        self.resources.allocate(&self.role)
    }

    /// The message of the wire.
    pub fn to_wire(&self, format: FrameworkFormat) -> wire::Offer {
        let role = crate::resources::allocation_info(&self.role);
        wire::Offer {
            id: self.id.to_wire(),
            framework_id: self.framework_id.to_wire(),
            agent_id: self.agent_id.to_wire(),
            hostname: self.hostname.as_ref().to_owned(),
            url: Some(agent_url(&self.hostname, &self.ip, self.port)),
            domain: self.domain.as_ref().map(FaultDomain::to_wire),
            resources: format.write(&self.allocated()),
            attributes: self.attributes.to_wire(),
            executor_ids: self.executor_ids.iter().map(ExecutorId::to_wire).collect(),
            unavailability: self.unavailability,
            allocation_info: format.multi_role.then_some(role),
        }
    }
}

/// The address of an agent as offers and inverse offers carry it.
pub fn agent_url(hostname: &str, ip: &str, port: u16) -> wire::Url {
    wire::Url {
        scheme: "http".into(),
        address: wire::Address {
            hostname: Some(hostname.to_owned()),
            ip: Some(ip.to_owned()),
            port: port.into(),
        },
        path: Some(AGENT_PATH.into()),
        query: Vec::new(),
        fragment: None,
    }
}

/// How long the rest of an offer shall not be offered again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OfferFilters {
    /// At least this long; none for no filter.
    pub refuse: Option<Duration>,
}

/// The filter of calls that say nothing of it, and of calls that say nonsense.
pub const DEFAULT_REFUSE: Duration = Duration::from_secs(5);
/// The longest filter.
pub const MAX_REFUSE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Default for OfferFilters {
    fn default() -> OfferFilters {
        OfferFilters {
            refuse: Some(DEFAULT_REFUSE),
        }
    }
}

impl OfferFilters {
    /// No filter.
    pub const NONE: OfferFilters = OfferFilters { refuse: None };

    /// Reads the message: zero is no filter, what is negative or does not fit a duration is the
    /// default, and nothing is longer than a year.
    pub fn from_wire(filters: Option<&wire::Filters>) -> OfferFilters {
        let Some(filters) = filters else {
            return OfferFilters::default();
        };
        let refuse = match time::duration_from_secs(filters.refuse_seconds()) {
            None => Some(DEFAULT_REFUSE),
            Some(Duration::ZERO) => None,
            Some(it) => Some(it.min(MAX_REFUSE)),
        };
        OfferFilters { refuse }
    }

    /// The same, a filter lasting at least as long as an interval of the allocator: a shorter one
    /// would pass before the next offers are made.
    #[must_use]
    pub fn at_least(self, interval: Duration) -> OfferFilters {
        OfferFilters {
            refuse: self.refuse.map(|it| it.max(interval)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_clamped() {
        let refuse = |it| {
            let filters = wire::Filters {
                refuse_seconds: Some(it),
            };
            OfferFilters::from_wire(Some(&filters)).refuse
        };
        assert_eq!(OfferFilters::from_wire(None).refuse, Some(DEFAULT_REFUSE));
        let unset = wire::Filters {
            refuse_seconds: None,
        };
        assert_eq!(
            OfferFilters::from_wire(Some(&unset)).refuse,
            Some(DEFAULT_REFUSE)
        );
        assert_eq!(refuse(0.0), None);
        assert_eq!(refuse(-0.0), None);
        assert_eq!(refuse(2.5), Some(Duration::from_millis(2500)));
        for nonsense in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(refuse(nonsense), Some(DEFAULT_REFUSE), "{nonsense}");
        }
        assert_eq!(refuse(1e9), Some(MAX_REFUSE));
        let second = Duration::from_secs(1);
        let short = OfferFilters {
            refuse: Some(Duration::from_millis(1)),
        };
        assert_eq!(short.at_least(second).refuse, Some(second));
        assert_eq!(OfferFilters::NONE.at_least(second).refuse, None);
    }

    #[test]
    fn old_frameworks_get_the_old_format() {
        let resources = Resources::parse("cpus:1;mem(a):2", "*").unwrap();
        let offer = Offer {
            id: "m-O0".into(),
            framework_id: "m-0000".into(),
            agent_id: "m-S0".into(),
            hostname: "h".into(),
            ip: "127.0.0.1".into(),
            port: 5051,
            role: "a".into(),
            resources: resources.into(),
            attributes: Attributes::default(),
            executor_ids: Vec::new(),
            domain: None,
            unavailability: None,
        };
        let old = offer.to_wire(FrameworkFormat {
            multi_role: false,
            refinement: false,
        });
        assert_eq!(old.allocation_info, None);
        assert!(old.resources.iter().all(|it| it.allocation_info.is_none()));
        #[allow(deprecated)]
        let roles: Vec<_> = old.resources.iter().map(|it| it.role.as_deref()).collect();
        assert_eq!(roles, [Some("*"), Some("a")]);
        assert!(old.resources.iter().all(|it| it.reservations.is_empty()));
        let new = offer.to_wire(FrameworkFormat {
            multi_role: true,
            refinement: true,
        });
        assert_eq!(new.allocation_info.unwrap().role(), "a");
        assert_eq!(Resources::from_wire(&new.resources), Ok(offer.allocated()));
        assert_eq!(new.resources[1].reservations.len(), 1);
    }
}
