//! Classes of agents, and which constrained clients each of them suits.
//!
//! Agents with equal attributes and domain are of one class: constraints that do not look at the
//! host's name hold for all of them or for none. A class keeps one bit per client that it does
//! not suit. When a class is first met, clients are not gone through: those that demand equality
//! with some text are found under that text, and only those whose constraints have no such
//! demand are evaluated one by one.
//!
//! Clients that demand a host's name are found under that name, class or not.

use crate::{
    agents::AgentSpec,
    bits::Bits,
    constraints::{Constraints, Selector},
};
use std::collections::BTreeMap;
use tepui_model::{
    agent::FaultDomain,
    attribute::{AttributeValue, Attributes},
};

#[derive(Clone, Debug)]
struct Class {
    unsuited: Bits,
    /// [`Classes::version`] when that was found.
    version: u64,
}

/// How clients are found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Access {
    /// Under these, one for each group.
    Keys(Vec<(Selector, String)>),
    /// One by one for each class.
    PerClass,
    /// One by one for each agent: some group has to do with the host's name, but not all demand
    /// one.
    PerAgent,
}

/// All classes, and the constrained clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct Classes {
    by_kind: BTreeMap<(Attributes, Option<FaultDomain>), u32>,
    classes: Vec<Class>,
    clients: BTreeMap<u32, Access>,
    /// Clients for which a class is suited or not.
    classed: Bits,
    /// Those of them that are found one by one.
    one_by_one: Bits,
    /// Clients whose groups each demand a host's name.
    hosted: Bits,
    by_key: BTreeMap<Selector, BTreeMap<String, Vec<u32>>>,
    version: u64,
    /// Evaluations of a client's constraints so far.
    pub(crate) evaluations: u64,
}

impl Classes {
    /// The client's constraints are these now.
    pub(crate) fn set(&mut self, client: u32, constraints: Option<&Constraints>) {
        let access = constraints.map(|it| match it.keys() {
            Some(keys) => {
                let key = |(selector, text): (&Selector, &str)| (selector.clone(), text.to_owned());
                Access::Keys(keys.into_iter().map(key).collect())
            }
            None if it.by_host => Access::PerAgent,
            None => Access::PerClass,
        });
        if access.is_none() && !self.clients.contains_key(&client) {
            return;
        }
        self.version += 1;
        self.forget(client);
        let Some(access) = access else { return };
        match &access {
            Access::PerAgent => {}
            Access::PerClass => {
                self.classed.set(client);
                self.one_by_one.set(client);
            }
            Access::Keys(keys) => {
                match constraints.is_some_and(|it| it.by_host) {
                    true => self.hosted.set(client),
                    false => self.classed.set(client),
                }
                for (selector, text) in keys {
                    let texts = self.by_key.entry(selector.clone()).or_default();
                    let clients = texts.entry(text.clone()).or_default();
                    if !clients.contains(&client) {
                        clients.push(client);
                    }
                }
            }
        }
        self.clients.insert(client, access);
    }

    fn forget(&mut self, client: u32) {
        self.classed.unset(client);
        self.one_by_one.unset(client);
        self.hosted.unset(client);
        let Some(Access::Keys(keys)) = self.clients.remove(&client) else {
            return;
        };
        for (selector, text) in keys {
            let Some(texts) = self.by_key.get_mut(&selector) else {
                continue;
            };
            if let Some(clients) = texts.get_mut(&text) {
                clients.retain(|it| *it != client);
                if clients.is_empty() {
                    texts.remove(&text);
                }
            }
            if texts.is_empty() {
                self.by_key.remove(&selector);
            }
        }
    }

    /// Whether no client has constraints.
    pub(crate) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Whether there are so many classes, for this many agents, that most must be left over from
    /// agents that are gone.
    pub(crate) fn is_crowded(&self, agents: usize) -> bool {
        self.by_kind.len() > 2 * agents + 64
    }

    /// Forgets all classes; no agent must remember its own.
    pub(crate) fn clear(&mut self) {
        self.by_kind.clear();
        self.classes.clear();
    }

    /// The class of an agent.
    pub(crate) fn of(&mut self, agent: &AgentSpec) -> u32 {
        let kind = (agent.attributes.clone(), agent.domain.clone());
        let next = self.classes.len() as u32;
        let class = *self.by_kind.entry(kind).or_insert(next);
        if class == next {
            self.classes.push(Class {
                unsuited: Bits::default(),
                version: 0,
            });
        }
        class
    }

    /// Adds the clients to `unsuited` which are known not to suit an agent of the class without
    /// asking them. `constraints` are those of a client.
    pub(crate) fn add_unsuited<'a>(
        &mut self,
        unsuited: &mut Bits,
        class: u32,
        agent: &AgentSpec,
        constraints: impl Fn(u32) -> Option<&'a Constraints>,
    ) {
        if !self.classed.is_empty() {
            self.settle(class, agent, constraints);
            unsuited.add_all(&self.classes[class as usize].unsuited);
        }
        if !self.hosted.is_empty() {
            let under_name = self.by_key.get(&Selector::Hostname);
            let named = under_name.and_then(|it| it.get(&*agent.hostname));
            let mut rest = self.hosted.clone();
            for client in named.into_iter().flatten() {
                rest.unset(*client);
            }
            unsuited.add_all(&rest);
        }
    }

    fn settle<'a>(
        &mut self,
        class: u32,
        agent: &AgentSpec,
        constraints: impl Fn(u32) -> Option<&'a Constraints>,
    ) {
        let it = &self.classes[class as usize];
        if it.version == self.version {
            return;
        }
        let mut unsuited = self.classed.clone();
        let mut evaluations = 0;
        let mut consider = |client: u32| {
            evaluations += 1;
            if constraints(client).is_none_or(|it| it.allow(agent)) {
                unsuited.unset(client);
            }
        };
        self.one_by_one
            .iter_besides(&Bits::default())
            .for_each(&mut consider);
        for (selector, texts) in &self.by_key {
            let text = match selector {
                // Decided host by host.
                Selector::Hostname | Selector::Unknown => None,
                Selector::Region => agent.domain.as_ref().map(|it| &*it.region),
                Selector::Zone => agent.domain.as_ref().map(|it| &*it.zone),
                Selector::Attribute(name) => match agent.attributes.get(name).map(|it| &it.value) {
                    None => None,
                    Some(AttributeValue::Text(it)) => Some(&**it),
                    Some(_) => {
                        // What is no text satisfies whatever is demanded of a text.
                        texts.values().flatten().copied().for_each(&mut consider);
                        None
                    }
                },
            };
            let clients = text.and_then(|it| texts.get(it));
            clients
                .into_iter()
                .flatten()
                .copied()
                .for_each(&mut consider);
        }
        self.evaluations += evaluations;
        self.classes[class as usize] = Class {
            unsuited,
            version: self.version,
        };
    }
}
