//! The tree of roles with their sums and the order of their clients.
//!
//! Sums and orders follow what changed: an allocation moves its role, the role's ancestors
//! and one client. Only a change of the cluster's totals, which may flip every dominant
//! resource, makes all keys be found anew, once before the next cycle.

use crate::share::Share;
use std::collections::{BTreeMap, BTreeSet};
use tepui_model::{FrameworkId, Quantities, Role};

/// A client's place among those of its role: share, then how often it was given something,
/// then its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    share: Share,
    given: u64,
    id: FrameworkId,
}

/// One role.
#[derive(Clone, Debug, Default)]
struct Node {
    /// Allocated to the role's own frameworks, and to its whole subtree.
    own: Quantities,
    subtree: Quantities,
    /// Allotments given, likewise.
    given: u64,
    given_subtree: u64,
    /// Frameworks that want offers, in order.
    clients: BTreeSet<Key>,
    keys: BTreeMap<FrameworkId, Key>,
}

/// What orders siblings: cluster totals, weights and names that do not count.
pub(crate) struct Measure<'a> {
    pub(crate) total: &'a Quantities,
    pub(crate) excluded: &'a BTreeSet<String>,
    pub(crate) weights: &'a BTreeMap<Role, u64>,
}

/// The default weight, in millionths.
const ONE: u64 = 1_000_000;

impl Measure<'_> {
    pub(crate) fn share(&self, allocated: &Quantities, weight: u64) -> Share {
        Share::dominant(allocated, self.total, weight, |name| {
            self.excluded.contains(name)
        })
    }

    fn weight(&self, role: &Role) -> u64 {
        self.weights.get(role).copied().unwrap_or(ONE)
    }
}

/// All roles that anybody subscribes to or uses, and their ancestors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<Role, Node>,
}

impl Tree {
    /// The role was allocated more.
    pub(crate) fn add(&mut self, role: &Role, amounts: &Quantities) {
        self.node(role).own.add(amounts);
        self.lineage(role, |node| node.subtree.add(amounts));
    }

    /// The role was allocated less.
    pub(crate) fn subtract(&mut self, role: &Role, amounts: &Quantities) {
        self.node(role).own.saturating_sub(amounts);
        self.lineage(role, |node| node.subtree.saturating_sub(amounts));
    }

    /// The role was given an allotment.
    pub(crate) fn give(&mut self, role: &Role) {
        self.node(role).given += 1;
        self.lineage(role, |node| node.given_subtree += 1);
    }

    fn node(&mut self, role: &Role) -> &mut Node {
        self.nodes.entry(role.clone()).or_default()
    }

    /// Changes a role and its ancestors.
    fn lineage(&mut self, role: &Role, mut change: impl FnMut(&mut Node)) {
        change(self.node(role));
        let ancestors: Vec<Role> = role.ancestors().collect();
        for ancestor in ancestors {
            change(self.node(&ancestor));
        }
    }

    /// Puts a client to its place, by what it has been allocated and given in the role.
    pub(crate) fn place(
        &mut self,
        role: &Role,
        id: &FrameworkId,
        allocated: &Quantities,
        given: u64,
        measure: &Measure<'_>,
    ) {
        let key = Key {
            share: measure.share(allocated, ONE),
            given,
            id: id.clone(),
        };
        let node = self.node(role);
        if let Some(old) = node.keys.insert(id.clone(), key.clone()) {
            node.clients.remove(&old);
        }
        node.clients.insert(key);
    }

    /// The client wants nothing for the role.
    pub(crate) fn displace(&mut self, role: &Role, id: &FrameworkId) {
        if let Some(node) = self.nodes.get_mut(role)
            && let Some(old) = node.keys.remove(id)
        {
            node.clients.remove(&old);
        }
    }

    /// All keys are void.
    pub(crate) fn displace_all(&mut self) {
        for node in self.nodes.values_mut() {
            node.clients.clear();
            node.keys.clear();
        }
    }

    /// Clients of a role in order.
    pub(crate) fn clients(&self, role: &Role) -> impl Iterator<Item = &FrameworkId> {
        let node = self.nodes.get(role);
        node.into_iter()
            .flat_map(|it| &it.clients)
            .map(|key| &key.id)
    }

    /// Roles with clients, in the order of their shares: siblings are compared, and the
    /// frameworks of a role itself compete with its children as one of them.
    pub(crate) fn order(&self, measure: &Measure<'_>) -> Vec<Role> {
        let mut ordered = Vec::new();
        self.descend(None, measure, &mut ordered);
        ordered
    }

    fn descend(&self, parent: Option<&Role>, measure: &Measure<'_>, ordered: &mut Vec<Role>) {
        // `None` stands for the parent's own frameworks.
        let mut siblings: Vec<(Share, u64, Option<&Role>)> = self
            .nodes
            .iter()
            .filter(|(role, _)| role.parent().as_ref() == parent)
            .map(|(role, node)| {
                let share = measure.share(&node.subtree, measure.weight(role));
                (share, node.given_subtree, Some(role))
            })
            .collect();
        if let Some(role) = parent
            && let Some(node) = self.nodes.get(role)
            && !node.clients.is_empty()
        {
            siblings.push((measure.share(&node.own, ONE), node.given, None));
        }
        siblings.sort();
        for (_, _, sibling) in siblings {
            match (sibling, parent) {
                (Some(role), _) => self.descend(Some(role), measure, ordered),
                (None, Some(role)) => ordered.push(role.clone()),
                (None, None) => {}
            }
        }
    }

    /// What the role's own frameworks are allocated, for checks.
    pub(crate) fn own(&self) -> impl Iterator<Item = (&Role, &Quantities)> {
        self.nodes.iter().map(|(role, node)| (role, &node.own))
    }
}
