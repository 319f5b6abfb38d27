//! Links of agents: who is attached in this term, whose pings are answered, who is
//! awaited. What is known of an agent across terms is a row of the cluster state.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tepui_model::agent::{AgentCapabilities, Host};
use tepui_model::id::AgentId;
use tepui_model::resources::Resources;
use tepui_model::time::Instant;

use crate::input::ConnectionId;
use crate::timers::Timers;

/// An admitted agent as this term sees it. `host`, `total`, `address` and
/// `capabilities` are read once from the row, so that no step decodes them again.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// `None` until it attached in this term, and after its link broke.
    pub(crate) connection: Option<ConnectionId>,
    /// It attached in this term, or was awaited since birth otherwise ("recovered").
    pub(crate) seen: bool,
    /// Pings since the last pong.
    pub(crate) unanswered: u32,
    pub(crate) host: Arc<Host>,
    pub(crate) address: Address,
    pub(crate) capabilities: Capabilities,
    /// Totals after reservations and volumes: the parsed form of the row's.
    pub(crate) total: Arc<Resources>,
    /// What it oversubscribes beyond that, as it said on this link; `None` for nothing.
    pub(crate) oversubscribed: Option<Arc<Resources>>,
}

impl Link {
    /// All that may be offered of it.
    pub(crate) fn offerable(&self) -> Resources {
        let mut all = Resources::clone(&self.total);
        if let Some(more) = &self.oversubscribed {
            all.add(more);
        }
        all
    }
}

/// Where an agent's HTTP endpoint is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Address {
    pub(crate) ip: Arc<str>,
    pub(crate) port: u16,
}

impl Address {
    /// Reads `ip:port` (an IPv6 address in brackets).
    pub(crate) fn parse(text: &str) -> Option<Address> {
        let (ip, port) = text.rsplit_once(':')?;
        let ip = ip
            .strip_prefix('[')
            .and_then(|ip| ip.strip_suffix(']'))
            .unwrap_or(ip);
        // The standard library's addresses are the shell's: here only the form counts.
        let plausible = !ip.is_empty()
            && ip
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':' | b'%'));
        let port = port.parse().ok()?;
        plausible.then(|| Address {
            ip: ip.into(),
            port,
        })
    }
}

/// What an agent can do, by the names of its registration. Beyond Mesos' own there
/// are two of ours, so that master and agents may be upgraded one after the other.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Capabilities {
    pub(crate) mesos: AgentCapabilities,
    /// `TEPUI_CUSTOM_EXECUTOR`: runs executors of frameworks.
    pub(crate) custom_executor: bool,
    /// `TEPUI_TASK_GROUP`: runs task groups on the default executor.
    pub(crate) task_group: bool,
}

impl Capabilities {
    pub(crate) fn from_names(names: &[String]) -> Capabilities {
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        Capabilities {
            mesos: AgentCapabilities::from_names(names),
            custom_executor: has("TEPUI_CUSTOM_EXECUTOR"),
            task_group: has("TEPUI_TASK_GROUP"),
        }
    }
}

/// All admitted agents.
#[derive(Debug)]
pub(crate) struct Agents {
    links: BTreeMap<AgentId, Link>,
    by_connection: BTreeMap<ConnectionId, AgentId>,
    by_address: BTreeMap<(Arc<str>, u16), AgentId>,
    // Next ping of agents seen in this term, whether their link is up or not.
    pings: Timers<AgentId>,
    // When an agent that is away becomes unreachable.
    reregistrations: Timers<AgentId>,
    // Agents that were admitted at birth and have not come back yet.
    recovered: usize,
    // The last few totals: machines of a cluster come in few kinds, which are held once each.
    kinds: VecDeque<Arc<Resources>>,
}

/// More kinds at once are rare, and looking for one costs.
const KINDS: usize = 8;

impl Agents {
    pub(crate) fn new() -> Agents {
        Agents {
            links: BTreeMap::new(),
            by_connection: BTreeMap::new(),
            by_address: BTreeMap::new(),
            pings: Timers::new(),
            reregistrations: Timers::new(),
            recovered: 0,
            kinds: VecDeque::new(),
        }
    }

    /// The total, shared with agents that had the same lately.
    pub(crate) fn kind(&mut self, total: Resources) -> Arc<Resources> {
        if let Some(known) = self.kinds.iter().find(|it| ***it == total) {
            return known.clone();
        }
        let total = Arc::new(total);
        self.kinds.truncate(KINDS - 1);
        self.kinds.push_front(total.clone());
        total
    }

    pub(crate) fn get(&self, agent_id: &AgentId) -> Option<&Link> {
        self.links.get(agent_id)
    }

    /// The connection of an attached agent.
    pub(crate) fn connection(&self, agent_id: &AgentId) -> Option<ConnectionId> {
        self.links.get(agent_id)?.connection
    }

    pub(crate) fn is_attached(&self, agent_id: &AgentId) -> bool {
        self.connection(agent_id).is_some()
    }

    /// Admitted, but not back since this term began.
    pub(crate) fn is_recovered(&self, agent_id: &AgentId) -> bool {
        self.links.get(agent_id).is_some_and(|link| !link.seen)
    }

    /// Some agent is in that state.
    pub(crate) fn any_recovered(&self) -> bool {
        self.recovered > 0
    }

    pub(crate) fn of_connection(&self, connection: ConnectionId) -> Option<&AgentId> {
        self.by_connection.get(&connection)
    }

    /// Who was last known at an address.
    pub(crate) fn at_address(&self, address: &Address) -> Option<&AgentId> {
        self.by_address.get(&(address.ip.clone(), address.port))
    }

    /// Every admitted agent, in order of its id.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&AgentId, &Link)> {
        self.links.iter()
    }

    /// At birth: the agents of the log, in order of their ids, and until when each is awaited.
    pub(crate) fn recover(&mut self, all: Vec<(AgentId, Link, Instant)>) {
        debug_assert!(self.links.is_empty());
        self.recovered = all.len();
        // From sorted lists: one by one costs several times as much.
        let mut addresses: Vec<_> = all
            .iter()
            .map(|(id, link, _)| ((link.address.ip.clone(), link.address.port), id.clone()))
            .collect();
        addresses.sort_unstable();
        self.by_address = addresses.into_iter().collect();
        let clocks = all.iter().map(|(id, _, until)| (id.clone(), *until));
        self.reregistrations = Timers::of(clocks.collect());
        self.links = all.into_iter().map(|(id, link, _)| (id, link)).collect();
    }

    /// Adds or replaces an attached agent. Its first ping goes out with the answer to its
    /// registration and counts as unanswered until the pong.
    pub(crate) fn put_attached(
        &mut self,
        agent_id: &AgentId,
        connection: ConnectionId,
        link: Link,
        now: Instant,
        ping_interval: Duration,
    ) {
        self.remove(agent_id);
        self.by_connection.insert(connection, agent_id.clone());
        self.by_address.insert(
            (link.address.ip.clone(), link.address.port),
            agent_id.clone(),
        );
        let link = Link {
            connection: Some(connection),
            seen: true,
            unanswered: 1,
            ..link
        };
        self.links.insert(agent_id.clone(), link);
        self.pings.set(agent_id.clone(), now + ping_interval);
    }

    /// An agent that is known and away is attached. No ping is on its way.
    pub(crate) fn attach(
        &mut self,
        agent_id: &AgentId,
        connection: ConnectionId,
        now: Instant,
        ping_interval: Duration,
    ) {
        let Some(link) = self.links.get_mut(agent_id) else {
            return;
        };
        debug_assert!(link.connection.is_none());
        self.recovered -= usize::from(!link.seen);
        link.connection = Some(connection);
        link.seen = true;
        link.unanswered = 0;
        self.by_connection.insert(connection, agent_id.clone());
        self.pings.set(agent_id.clone(), now + ping_interval);
        self.reregistrations.clear(agent_id);
    }

    /// The link broke: pings go on being counted, and the re-registration clock runs.
    pub(crate) fn detach(&mut self, agent_id: &AgentId, away_until: Instant) {
        let Some(link) = self.links.get_mut(agent_id) else {
            return;
        };
        if let Some(connection) = link.connection.take() {
            self.by_connection.remove(&connection);
            self.reregistrations.set(agent_id.clone(), away_until);
        }
    }

    /// Forgets the agent; returns what was known.
    pub(crate) fn remove(&mut self, agent_id: &AgentId) -> Option<Link> {
        let link = self.links.remove(agent_id)?;
        if let Some(connection) = link.connection {
            self.by_connection.remove(&connection);
        }
        let address = (link.address.ip.clone(), link.address.port);
        if self.by_address.get(&address) == Some(agent_id) {
            self.by_address.remove(&address);
        }
        self.pings.clear(agent_id);
        self.reregistrations.clear(agent_id);
        self.recovered -= usize::from(!link.seen);
        Some(link)
    }

    /// The totals changed (a reservation, a volume).
    pub(crate) fn set_total(&mut self, agent_id: &AgentId, total: Resources) {
        if let Some(link) = self.links.get_mut(agent_id) {
            link.total = Arc::new(total);
        }
    }

    /// What the agent oversubscribes.
    pub(crate) fn set_oversubscribed(&mut self, agent_id: &AgentId, resources: Arc<Resources>) {
        if let Some(link) = self.links.get_mut(agent_id) {
            link.oversubscribed = (!resources.is_empty()).then_some(resources);
        }
    }

    /// A pong: nothing is unanswered.
    pub(crate) fn pong(&mut self, agent_id: &AgentId) {
        if let Some(link) = self.links.get_mut(agent_id) {
            link.unanswered = 0;
        }
    }

    /// An agent whose ping is due: its count of unanswered pings before this one. The
    /// next is set.
    pub(crate) fn pop_ping(&mut self, now: Instant, interval: Duration) -> Option<(AgentId, u32)> {
        let agent_id = self.pings.pop_due(now)?;
        self.pings.set(agent_id.clone(), now + interval);
        let link = self.links.get_mut(&agent_id)?;
        let before = link.unanswered;
        link.unanswered += 1;
        Some((agent_id, before))
    }

    /// An agent that did not come back in time.
    /// Agents that may still come back.
    pub(crate) fn away(&self) -> impl Iterator<Item = &AgentId> {
        self.reregistrations.keys()
    }

    pub(crate) fn pop_overdue(&mut self, now: Instant) -> Option<AgentId> {
        self.reregistrations.pop_due(now)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        [self.pings.next(), self.reregistrations.next()]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) fn check_invariants(&self) {
        self.pings.check_invariants();
        self.reregistrations.check_invariants();
        let mut attached = 0;
        let mut recovered = 0;
        for (agent_id, link) in &self.links {
            recovered += usize::from(!link.seen);
            assert_eq!(
                link.seen,
                self.pings.get(agent_id).is_some(),
                "{agent_id}: pings"
            );
            assert_eq!(
                link.connection.is_none(),
                self.reregistrations.get(agent_id).is_some(),
                "{agent_id}: a clock runs exactly while it is away"
            );
            if let Some(connection) = link.connection {
                attached += 1;
                assert_eq!(self.by_connection.get(&connection), Some(agent_id));
                assert!(link.seen, "{agent_id} is attached and was never seen");
            }
        }
        assert_eq!(attached, self.by_connection.len(), "agents: indexes differ");
        assert_eq!(recovered, self.recovered, "agents: count of those awaited");
        for agent_id in self.by_address.values() {
            assert!(
                self.links.contains_key(agent_id),
                "{agent_id} is at an address only"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_ip_and_port() {
        let parsed = Address::parse("127.0.0.1:5051").expect("valid");
        assert_eq!((&*parsed.ip, parsed.port), ("127.0.0.1", 5051));
        assert_eq!(Address::parse("[::1]:80").map(|it| it.port), Some(80));
        for bad in ["", "127.0.0.1", ":1", "host:1", "1.2.3.4:70000", "1.2.3.4:"] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }
}
