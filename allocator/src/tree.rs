//! The tree of roles and the clients in it, each level in the order of shares.
//!
//! A client is a framework in one role. A role's node counts what its whole subtree holds; the
//! frameworks of the role itself form one leaf (`own`) that competes with the roles below it, as
//! if it were one more of them, named `.`, with weight 1. Only clients that want offers, and
//! nodes with such clients below them, are listed.
//!
//! Changes are charged at once, but a list is put in order again by [`Tree::settle`] alone: an
//! order stays as it is while one agent is divided.

use crate::{
    amounts::Amounts,
    bits::Bits,
    labels::Labels,
    quota::Quotas,
    share::{Scale, Share, UNIT_WEIGHT},
};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
};
use tepui_model::{FrameworkId, Resource, Resources, Role};

/// The node above all roles.
pub(crate) const ROOT: u32 = 0;

/// A client of the allocator: a framework in one of its roles.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) framework: u32,
    pub(crate) framework_id: FrameworkId,
    pub(crate) node: u32,
    pub(crate) role: Role,
    /// What it holds over all agents; a shared volume counts once per agent.
    pub(crate) amounts: Amounts,
    /// Allotments so far.
    pub(crate) count: u64,
    /// Agents on which it holds something.
    pub(crate) agents: u64,
    pub(crate) is_subscribed: bool,
    pub(crate) is_listed: bool,
    dirty: bool,
}

/// What stands in a list of siblings: amounts and allotments.
#[derive(Clone, Debug, Default)]
struct Standing {
    amounts: Amounts,
    count: u64,
    /// Listed clients.
    listed: u32,
}

#[derive(Clone, Debug)]
struct Node {
    role: Option<Role>,
    /// Where the last part of the role's name begins.
    name_from: u32,
    parent: u32,
    weight: u64,
    /// Nodes right below, listed or not.
    children: u32,
    /// Clients of the role itself, listed or not.
    clients: u32,
    /// The quota of the role, or of the nearest role around it that has one.
    quota: Option<u32>,
    subtree: Standing,
    own: Standing,
    /// Listed siblings right below, in order: [`sibling`]s. Queues, since who is served goes from
    /// the front towards the back.
    order: VecDeque<u32>,
    /// Listed clients of the role itself, in order.
    listed: VecDeque<u32>,
    dirty: bool,
}

/// How a list of siblings names a node below, or the node's own frameworks.
fn sibling(node: u32, is_own: bool) -> u32 {
    node << 1 | u32::from(is_own)
}

/// Holders of a shared volume on one agent, in one scope.
type Holders = Vec<(Resource, u32)>;

/// The tree of roles.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    nodes: Vec<Option<Node>>,
    free_nodes: Vec<u32>,
    by_role: BTreeMap<Role, u32>,
    clients: Vec<Option<Client>>,
    /// The share of each client when its list was last put in order, and the number of its
    /// framework's id: close together, since they are compared much.
    shares: Vec<(Share, u64)>,
    /// The share of each sibling likewise, two for each node.
    sibling_shares: [Vec<Share>; 2],
    labels: Labels,
    free_clients: Vec<u32>,
    weights: BTreeMap<Role, u64>,
    /// Shared volumes in use, by scope (a [`sibling`]) and agent: each counts once per scope.
    shared: BTreeMap<(u32, u32), Holders>,
    scale: Scale,
    rescale: bool,
    dirty_clients: Vec<u32>,
    dirty_nodes: Vec<u32>,
    /// All clients that want offers.
    pub(crate) listed: Bits,
    /// Clients of frameworks that let offers lie.
    pub(crate) dormant: Bits,
    /// Clients in roles with a guarantee, or below one.
    pub(crate) guaranteed: Bits,
    /// Places in lists that were looked for, see [`crate::Counts`].
    pub(crate) moves: u64,
    pub(crate) sorts: u64,
}

impl Tree {
    pub(crate) fn new() -> Tree {
        let scale = Scale::default();
        let root = Node::new(None, ROOT, UNIT_WEIGHT);
        let nothing = Share::dominant(&scale, &Amounts::default(), UNIT_WEIGHT, 0);
        Tree {
            nodes: vec![Some(root)],
            free_nodes: Vec::new(),
            by_role: BTreeMap::new(),
            clients: Vec::new(),
            shares: Vec::new(),
            sibling_shares: [vec![nothing], vec![nothing]],
            labels: Labels::default(),
            free_clients: Vec::new(),
            weights: BTreeMap::new(),
            shared: BTreeMap::new(),
            scale,
            rescale: false,
            dirty_clients: Vec::new(),
            dirty_nodes: Vec::new(),
            listed: Bits::default(),
            dormant: Bits::default(),
            guaranteed: Bits::default(),
            moves: 0,
            sorts: 0,
        }
    }

    pub(crate) fn client(&self, client: u32) -> &Client {
        let slot = self.clients.get(client as usize);
        slot.and_then(Option::as_ref).expect("a live client")
    }

    fn client_mut(&mut self, client: u32) -> &mut Client {
        let slot = self.clients.get_mut(client as usize);
        slot.and_then(Option::as_mut).expect("a live client")
    }

    fn node(&self, node: u32) -> &Node {
        let slot = self.nodes.get(node as usize);
        slot.and_then(Option::as_ref).expect("a live node")
    }

    fn node_mut(&mut self, node: u32) -> &mut Node {
        let slot = self.nodes.get_mut(node as usize);
        slot.and_then(Option::as_mut).expect("a live node")
    }

    /// The node and those above it, without the root.
    fn chain(&self, node: u32) -> impl Iterator<Item = u32> + use<> {
        let mut chain = [ROOT; 8];
        let mut deep = Vec::new();
        let (mut length, mut at) = (0, node);
        while at != ROOT {
            match chain.get_mut(length) {
                Some(slot) => *slot = at,
                None => deep.push(at),
            }
            length += 1;
            at = self.node(at).parent;
        }
        chain.into_iter().take(length).chain(deep)
    }

    // ------------------------------------------------------------ growth

    fn ensure_node(&mut self, role: &Role, quotas: &Quotas) -> u32 {
        if let Some(node) = self.by_role.get(role) {
            return *node;
        }
        // Roles around it that are missing, the innermost first: names may be deep.
        let mut missing = vec![role.clone()];
        let mut parent = ROOT;
        while let Some(around) = missing.last().and_then(Role::parent) {
            match self.by_role.get(&around) {
                Some(node) => {
                    parent = *node;
                    break;
                }
                None => missing.push(around),
            }
        }
        for role in missing.iter().rev() {
            parent = self.add_node(role, parent, quotas);
        }
        parent
    }

    fn add_node(&mut self, role: &Role, parent: u32, quotas: &Quotas) -> u32 {
        self.node_mut(parent).children += 1;
        let weight = self.weights.get(role).copied().unwrap_or(UNIT_WEIGHT);
        let mut node = Node::new(Some(role.clone()), parent, weight);
        node.quota = quotas.of(role).or(self.node(parent).quota);
        let at = match self.free_nodes.pop() {
            Some(at) => at,
            None => {
                self.nodes.push(None);
                for shares in &mut self.sibling_shares {
                    shares.push(shares[ROOT as usize]);
                }
                self.nodes.len() as u32 - 1
            }
        };
        self.nodes[at as usize] = Some(node);
        self.by_role.insert(role.clone(), at);
        at
    }

    /// Adds a client that is not listed.
    pub(crate) fn add_client(
        &mut self,
        framework: u32,
        id: &FrameworkId,
        role: &Role,
        quotas: &Quotas,
    ) -> u32 {
        let node = self.ensure_node(role, quotas);
        self.node_mut(node).clients += 1;
        let client = Client {
            framework,
            framework_id: id.clone(),
            node,
            role: role.clone(),
            amounts: Amounts::default(),
            count: 0,
            agents: 0,
            is_subscribed: false,
            is_listed: false,
            dirty: false,
        };
        let (label, anew) = self.labels.acquire(id);
        if anew {
            for (it, share) in self.clients.iter().zip(&mut self.shares) {
                share.1 = it
                    .as_ref()
                    .map_or(0, |it| self.labels.get(&it.framework_id));
            }
        }
        let share = Share::dominant(&self.scale, &client.amounts, UNIT_WEIGHT, 0);
        let share = (share, label);
        let at = match self.free_clients.pop() {
            Some(at) => {
                self.clients[at as usize] = Some(client);
                self.shares[at as usize] = share;
                at
            }
            None => {
                self.clients.push(Some(client));
                self.shares.push(share);
                self.clients.len() as u32 - 1
            }
        };
        if quotas.is_guaranteed(self.node(node).quota) {
            self.guaranteed.set(at);
        }
        at
    }

    /// Removes a client that holds nothing; its allotments no longer count.
    pub(crate) fn remove_client(&mut self, client: u32) {
        self.unlist(client);
        self.dirty_clients.retain(|it| *it != client);
        let Some(it) = self.clients[client as usize].take() else {
            return;
        };
        self.labels.release(&it.framework_id);
        self.free_clients.push(client);
        self.dormant.unset(client);
        self.guaranteed.unset(client);
        for at in self.chain(it.node) {
            self.node_mut(at).subtree.count -= it.count;
            self.mark_node(at);
        }
        let node = self.node_mut(it.node);
        node.own.count -= it.count;
        node.clients -= 1;
        self.prune(it.node);
    }

    fn prune(&mut self, mut at: u32) {
        while at != ROOT {
            let node = self.node(at);
            if node.clients > 0 || node.children > 0 {
                return;
            }
            let parent = node.parent;
            if let Some(role) = &node.role.clone() {
                self.by_role.remove(role);
            }
            self.dirty_nodes.retain(|it| *it != at);
            self.nodes[at as usize] = None;
            self.free_nodes.push(at);
            self.node_mut(parent).children -= 1;
            at = parent;
        }
    }

    /// Quotas were set or removed: finds anew which one a role lives under. Whose have some
    /// guarantee is told as well.
    pub(crate) fn quotas_changed(&mut self, quotas: &Quotas) {
        // A role stands before those below it.
        let nodes: Vec<u32> = self.by_role.values().copied().collect();
        for at in nodes {
            let node = self.node(at);
            let own = node.role.as_ref().and_then(|it| quotas.of(it));
            let quota = own.or(self.node(node.parent).quota);
            self.node_mut(at).quota = quota;
        }
        self.guaranteed.clear();
        for client in 0..self.clients.len() as u32 {
            if let Some(it) = &self.clients[client as usize]
                && quotas.is_guaranteed(self.node(it.node).quota)
            {
                self.guaranteed.set(client);
            }
        }
    }

    /// Whether the role has a guarantee, or lives under one.
    fn has_guarantee(&self, node: u32) -> bool {
        // One of its clients says so for all of them.
        let first = self.node(node).listed.front();
        first.is_some_and(|it| self.guaranteed.get(*it))
    }

    /// The quota that the client lives under, and so those around it.
    pub(crate) fn quota_of(&self, client: u32) -> Option<u32> {
        self.node(self.client(client).node).quota
    }

    /// The client's framework subscribes to its role, or not.
    pub(crate) fn set_subscribed(&mut self, client: u32, is_subscribed: bool) {
        self.client_mut(client).is_subscribed = is_subscribed;
    }

    // ------------------------------------------------------------ who wants offers

    /// The client wants offers.
    pub(crate) fn list(&mut self, client: u32) {
        if self.client(client).is_listed {
            return;
        }
        self.listed.set(client);
        self.settle_client(client);
        let it = self.client_mut(client);
        it.is_listed = true;
        let node = it.node;
        self.insert_client(client);
        self.node_mut(node).own.listed += 1;
        if self.node(node).own.listed == 1 {
            self.insert_sibling(node, sibling(node, true));
        }
        for at in self.chain(node) {
            let it = self.node_mut(at);
            it.subtree.listed += 1;
            if it.subtree.listed == 1 {
                let parent = it.parent;
                self.insert_sibling(parent, sibling(at, false));
            }
        }
    }

    /// The client wants no offers.
    pub(crate) fn unlist(&mut self, client: u32) {
        if !self.client(client).is_listed {
            return;
        }
        self.listed.unset(client);
        self.remove_from_list(client);
        let it = self.client_mut(client);
        it.is_listed = false;
        let node = it.node;
        self.node_mut(node).own.listed -= 1;
        if self.node(node).own.listed == 0 {
            self.remove_sibling(node, sibling(node, true));
        }
        for at in self.chain(node) {
            let it = self.node_mut(at);
            it.subtree.listed -= 1;
            if it.subtree.listed == 0 {
                let parent = it.parent;
                self.remove_sibling(parent, sibling(at, false));
            }
        }
    }

    fn compare_clients(&self, one: u32, other: u32) -> Ordering {
        let (one, other) = (&self.shares[one as usize], &self.shares[other as usize]);
        one.0.compare(&other.0).then(one.1.cmp(&other.1))
    }

    fn name(&self, it: u32) -> &str {
        let node = self.node(it >> 1);
        match (it & 1, &node.role) {
            (1, _) => ".",
            (_, Some(role)) => &role.as_str()[node.name_from as usize..],
            (_, None) => "",
        }
    }

    fn sibling_share(&self, it: u32) -> &Share {
        &self.sibling_shares[(it & 1) as usize][(it >> 1) as usize]
    }

    fn compare_siblings(&self, one: u32, other: u32) -> Ordering {
        let by_share = self.sibling_share(one).compare(self.sibling_share(other));
        by_share.then_with(|| self.name(one).cmp(self.name(other)))
    }

    /// Which of two listed clients a walk comes to first.
    pub(crate) fn compare(&self, one: u32, other: u32) -> Ordering {
        let (of_one, of_other) = (self.client(one).node, self.client(other).node);
        if of_one == of_other {
            return self.compare_clients(one, other);
        }
        // The list where their ways part: right below the innermost node that is around both.
        let (mut ways, mut depths) = ([of_one, of_other], [0, 0]);
        let mut siblings = [sibling(of_one, true), sibling(of_other, true)];
        for (depth, node) in depths.iter_mut().zip(ways) {
            *depth = self.chain(node).count();
        }
        let climb = |which: usize, ways: &mut [u32; 2], siblings: &mut [u32; 2]| {
            siblings[which] = sibling(ways[which], false);
            ways[which] = self.node(ways[which]).parent;
        };
        for which in 0..2 {
            for _ in depths[1 - which]..depths[which] {
                climb(which, &mut ways, &mut siblings);
            }
        }
        while ways[0] != ways[1] {
            climb(0, &mut ways, &mut siblings);
            climb(1, &mut ways, &mut siblings);
        }
        self.compare_siblings(siblings[0], siblings[1])
    }

    fn insert_client(&mut self, client: u32) {
        let node = self.client(client).node;
        let mut list = std::mem::take(&mut self.node_mut(node).listed);
        let at = list.partition_point(|it| self.compare_clients(*it, client).is_lt());
        list.insert(at, client);
        self.node_mut(node).listed = list;
    }

    fn remove_from_list(&mut self, client: u32) {
        let node = self.client(client).node;
        let mut list = std::mem::take(&mut self.node_mut(node).listed);
        if let Some(at) = list.iter().position(|it| *it == client) {
            list.remove(at);
        }
        self.node_mut(node).listed = list;
    }

    fn insert_sibling(&mut self, parent: u32, it: u32) {
        // Nobody looked at the shares of what was not listed, or had none beside it.
        self.refresh_share(it);
        let order = &self.node(parent).order;
        if let (1, Some(only)) = (order.len(), order.front().copied()) {
            self.refresh_share(only);
        }
        let mut order = std::mem::take(&mut self.node_mut(parent).order);
        let at = order.partition_point(|other| self.compare_siblings(*other, it).is_lt());
        order.insert(at, it);
        self.node_mut(parent).order = order;
    }

    /// The share of a sibling at what it holds now.
    fn share_of(&self, it: u32) -> Share {
        let node = self.node(it >> 1);
        let (standing, weight) = match it & 1 {
            1 => (&node.own, UNIT_WEIGHT),
            _ => (&node.subtree, node.weight),
        };
        Share::dominant(&self.scale, &standing.amounts, weight, standing.count)
    }

    fn refresh_share(&mut self, it: u32) {
        self.sibling_shares[(it & 1) as usize][(it >> 1) as usize] = self.share_of(it);
    }

    fn is_listed(&self, it: u32) -> bool {
        let node = self.node(it >> 1);
        match it & 1 {
            1 => node.own.listed > 0,
            _ => node.subtree.listed > 0,
        }
    }

    fn remove_sibling(&mut self, parent: u32, it: u32) {
        self.node_mut(parent).order.retain(|other| *other != it);
    }

    // ------------------------------------------------------------ what clients hold

    /// Adds what the client was given (`sign` 1), or takes away what came back (-1); with
    /// `allotments` more allotments to it.
    pub(crate) fn charge(&mut self, client: u32, amounts: &Amounts, sign: i128, allotments: u64) {
        let it = self.client_mut(client);
        it.amounts.add_times(amounts, sign);
        it.count += allotments;
        let node = it.node;
        if !std::mem::replace(&mut it.dirty, true) {
            self.dirty_clients.push(client);
        }
        let own = &mut self.node_mut(node).own;
        own.amounts.add_times(amounts, sign);
        own.count += allotments;
        let mut at = node;
        while at != ROOT {
            let it = self.node_mut(at);
            it.subtree.amounts.add_times(amounts, sign);
            it.subtree.count += allotments;
            let parent = it.parent;
            self.mark_node(at);
            at = parent;
        }
    }

    /// The client begins to use a shared volume on an agent, however often: it counts for the
    /// client, and for every node where nobody used it there before. `volume` is allocated to
    /// nobody.
    pub(crate) fn share_volume(
        &mut self,
        client: u32,
        agent: u32,
        volume: &Resource,
        dimension: usize,
    ) {
        let amount = volume.amount().map_or(0, |it| i128::from(it.as_millis()));
        self.client_mut(client).amounts.add_to(dimension, amount);
        for scope in self.scopes(client) {
            let holders = self.shared.entry((scope, agent)).or_default();
            match holders.iter_mut().find(|it| same_volume(&it.0, volume)) {
                Some(it) => it.1 += 1,
                None => {
                    holders.push((volume.clone(), 1));
                    self.amounts_of(scope).add_to(dimension, amount);
                }
            }
        }
        self.mark(client);
    }

    /// The client no longer uses the shared volume on the agent.
    pub(crate) fn unshare_volume(
        &mut self,
        client: u32,
        agent: u32,
        volume: &Resource,
        dimension: usize,
    ) {
        let amount = volume.amount().map_or(0, |it| i128::from(it.as_millis()));
        self.client_mut(client).amounts.add_to(dimension, -amount);
        for scope in self.scopes(client) {
            let Some(holders) = self.shared.get_mut(&(scope, agent)) else {
                continue;
            };
            let Some(at) = holders.iter().position(|it| same_volume(&it.0, volume)) else {
                continue;
            };
            holders[at].1 -= 1;
            if holders[at].1 == 0 {
                holders.remove(at);
                if holders.is_empty() {
                    self.shared.remove(&(scope, agent));
                }
                self.amounts_of(scope).add_to(dimension, -amount);
            }
        }
        self.mark(client);
    }

    fn scopes(&self, client: u32) -> Vec<u32> {
        let node = self.client(client).node;
        let above = self.chain(node).map(|it| sibling(it, false));
        std::iter::once(sibling(node, true)).chain(above).collect()
    }

    fn amounts_of(&mut self, scope: u32) -> &mut Amounts {
        let node = self.node_mut(scope >> 1);
        match scope & 1 {
            1 => &mut node.own.amounts,
            _ => &mut node.subtree.amounts,
        }
    }

    /// One more agent on which the client holds something (1), or one less (-1).
    pub(crate) fn count_agents(&mut self, client: u32, by: i64) {
        let agents = &mut self.client_mut(client).agents;
        *agents = agents.saturating_add_signed(by);
    }

    // ------------------------------------------------------------ order

    /// The cluster grew or shrank by what stands between the two.
    pub(crate) fn change_total(&mut self, before: &Amounts, after: &Amounts) {
        if before != after {
            self.scale.total.subtract(before);
            self.scale.total.add(after);
            self.rescale = true;
        }
    }

    pub(crate) fn total(&self) -> &Amounts {
        &self.scale.total
    }

    /// The dimension counts in no share.
    pub(crate) fn exclude(&mut self, dimension: usize) {
        if self.scale.excluded.len() <= dimension {
            self.scale.excluded.resize(dimension + 1, false);
        }
        self.scale.excluded[dimension] = true;
        self.rescale = true;
    }

    /// Sets a role's weight in millionths.
    pub(crate) fn set_weight(&mut self, role: Role, weight: u64) {
        if let Some(node) = self.by_role.get(&role).copied() {
            self.node_mut(node).weight = weight;
            self.mark_node(node);
        }
        self.weights.insert(role, weight);
    }

    /// A role's weight in millionths, if it was given one.
    pub(crate) fn weight(&self, role: &Role) -> Option<u64> {
        self.weights.get(role).copied()
    }

    fn mark(&mut self, client: u32) {
        let it = self.client_mut(client);
        let node = it.node;
        if !it.dirty {
            it.dirty = true;
            self.dirty_clients.push(client);
        }
        for at in self.chain(node) {
            self.mark_node(at);
        }
    }

    fn mark_node(&mut self, node: u32) {
        let it = self.node_mut(node);
        if !it.dirty {
            it.dirty = true;
            self.dirty_nodes.push(node);
        }
    }

    /// Puts all lists in order. Where only some changed, only those are moved; when the cluster
    /// changed, every share may have, and everything is sorted anew.
    pub(crate) fn settle(&mut self) {
        if self.rescale {
            self.rescale = false;
            self.settle_all();
            return;
        }
        while let Some(client) = self.dirty_clients.pop() {
            self.settle_client(client);
        }
        while let Some(node) = self.dirty_nodes.pop() {
            self.settle_node(node);
        }
    }

    fn settle_client(&mut self, client: u32) {
        let it = self.client(client);
        let share = Share::dominant(&self.scale, &it.amounts, UNIT_WEIGHT, it.count);
        let (is_listed, node) = (it.is_listed, it.node);
        self.client_mut(client).dirty = false;
        if !is_listed {
            self.shares[client as usize].0 = share;
            return;
        }
        self.moves += 1;
        let mut list = std::mem::take(&mut self.node_mut(node).listed);
        let from = place(&list, client, |other| self.compare_clients(other, client));
        self.shares[client as usize].0 = share;
        move_in_order(&mut list, from, client, |other| {
            self.compare_clients(other, client)
        });
        self.node_mut(node).listed = list;
    }

    fn settle_node(&mut self, node: u32) {
        let it = self.node_mut(node);
        it.dirty = false;
        let parent = it.parent;
        self.move_sibling(node, sibling(node, true));
        self.move_sibling(parent, sibling(node, false));
    }

    fn move_sibling(&mut self, parent: u32, it: u32) {
        // The shares of those that are not listed, or stand alone, are asked by nobody.
        if self.node(parent).order.len() < 2 || !self.is_listed(it) {
            return;
        }
        let mut order = std::mem::take(&mut self.node_mut(parent).order);
        let from = place(&order, it, |other| self.compare_siblings(other, it));
        self.refresh_share(it);
        self.moves += 1;
        move_in_order(&mut order, from, it, |other| {
            self.compare_siblings(other, it)
        });
        self.node_mut(parent).order = order;
    }

    fn settle_all(&mut self) {
        self.sorts += 1;
        self.dirty_clients.clear();
        self.dirty_nodes.clear();
        for (it, share) in self.clients.iter_mut().zip(&mut self.shares) {
            if let Some(it) = it {
                share.0 = Share::dominant(&self.scale, &it.amounts, UNIT_WEIGHT, it.count);
                it.dirty = false;
            }
        }
        for at in 0..self.nodes.len() as u32 {
            if let Some(it) = &mut self.nodes[at as usize] {
                it.dirty = false;
                self.refresh_share(sibling(at, false));
                self.refresh_share(sibling(at, true));
            }
        }
        for at in 0..self.nodes.len() {
            let Some(node) = &mut self.nodes[at] else {
                continue;
            };
            let mut order = std::mem::take(&mut node.order);
            let mut listed = std::mem::take(&mut node.listed);
            let queue = order.make_contiguous();
            queue.sort_unstable_by(|one, other| self.compare_siblings(*one, *other));
            let queue = listed.make_contiguous();
            queue.sort_unstable_by(|one, other| self.compare_clients(*one, *other));
            if let Some(node) = &mut self.nodes[at] {
                node.order = order;
                node.listed = listed;
            }
        }
    }

    /// Panics when a node's sums or the order of a list is wrong. `held` says what a client holds
    /// on each agent.
    pub(crate) fn check<'a>(
        &self,
        mut amounts: impl FnMut(&Resources) -> Amounts,
        held: impl Fn(u32) -> Vec<(u32, &'a Resources)>,
        quotas: &Quotas,
    ) {
        let mut by_scope: BTreeMap<u32, BTreeMap<u32, Resources>> = BTreeMap::new();
        let mut counts: BTreeMap<u32, (u64, u32)> = BTreeMap::new();
        for (client, it) in self.clients.iter().enumerate() {
            let Some(it) = it else { continue };
            let client = client as u32;
            let mut sum = Amounts::default();
            for (agent, resources) in held(client) {
                sum.add(&amounts(resources));
                for scope in self.scopes(client) {
                    let of_agent = by_scope.entry(scope).or_default().entry(agent).or_default();
                    of_agent.add(resources);
                }
            }
            assert_eq!(sum, it.amounts, "{} in {}", it.framework_id, it.role);
            assert_eq!(it.is_listed, self.listed.get(client));
            let label = self.shares[client as usize].1;
            assert_eq!(
                label,
                self.labels.get(&it.framework_id),
                "{}",
                it.framework_id
            );
            let quota = self.node(it.node).quota;
            assert_eq!(
                quota,
                quotas.nearest(it.role.as_str()),
                "quota of {}",
                it.role
            );
            let guaranteed = quotas.is_guaranteed(quota);
            assert_eq!(
                self.guaranteed.get(client),
                guaranteed,
                "guarantee of {}",
                it.role
            );
            for scope in self.scopes(client) {
                let count = counts.entry(scope).or_default();
                count.0 += it.count;
                count.1 += u32::from(it.is_listed);
            }
        }
        for (at, node) in self.nodes.iter().enumerate().skip(1) {
            let Some(node) = node else { continue };
            let at = at as u32;
            for (scope, standing) in [
                (sibling(at, true), &node.own),
                (sibling(at, false), &node.subtree),
            ] {
                let mut sum = Amounts::default();
                for resources in by_scope.remove(&scope).unwrap_or_default().values() {
                    sum.add(&amounts(resources));
                }
                assert_eq!(sum, standing.amounts, "scope {scope} of {:?}", node.role);
                let (count, listed) = counts.remove(&scope).unwrap_or_default();
                assert_eq!((count, listed), (standing.count, standing.listed));
            }
            assert!(
                node.clients > 0 || node.children > 0,
                "{:?} is of no use",
                node.role
            );
        }
        if !self.rescale {
            for node in self.nodes.iter().flatten() {
                let ordered = |one: &u32, other: &u32| self.compare_siblings(*one, *other).is_lt();
                assert!(
                    node.order
                        .iter()
                        .is_sorted_by(|one, other| ordered(one, other)),
                    "order below {:?}",
                    node.role
                );
                let ordered = |one: &u32, other: &u32| self.compare_clients(*one, *other).is_lt();
                assert!(
                    node.listed
                        .iter()
                        .is_sorted_by(|one, other| ordered(one, other)),
                    "clients of {:?}",
                    node.role
                );
            }
        }
    }
}

impl Node {
    fn new(role: Option<Role>, parent: u32, weight: u64) -> Node {
        let name_from = role.as_ref().and_then(|it| it.as_str().rfind('/'));
        Node {
            role,
            name_from: name_from.map_or(0, |it| it as u32 + 1),
            parent,
            weight,
            children: 0,
            clients: 0,
            quota: None,
            subtree: Standing::default(),
            own: Standing::default(),
            order: VecDeque::new(),
            listed: VecDeque::new(),
            dirty: false,
        }
    }
}

/// Whether the two are the same volume, whatever a container calls it.
fn same_volume(one: &Resource, other: &Resource) -> bool {
    one.is_same_kind(other) && one.value == other.value
}

/// Where `it` stands in the list, which is in order. Who changes was served last, as a rule, and
/// stood in front.
fn place(list: &VecDeque<u32>, it: u32, compare: impl Fn(u32) -> Ordering) -> usize {
    match list.front() == Some(&it) {
        true => 0,
        false => list.partition_point(|other| compare(*other).is_lt()),
    }
}

/// Moves `it` from `from` to where it belongs now; the others are in order. `compare` says how
/// another one compares to it.
fn move_in_order(
    list: &mut VecDeque<u32>,
    from: usize,
    it: u32,
    compare: impl Fn(u32) -> Ordering,
) {
    debug_assert_eq!(list.get(from), Some(&it));
    list.remove(from);
    // Who was served often goes behind all others.
    let to = match list.back() {
        Some(last) if compare(*last).is_lt() => list.len(),
        _ => list.partition_point(|other| compare(*other).is_lt()),
    };
    list.insert(to, it);
}

/// A walk over the listed clients in order, without those to skip. The tree's order must not
/// change meanwhile; what clients hold may.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walk {
    stack: Vec<(u32, usize)>,
    clients: Option<(u32, usize)>,
    /// Passes by roles without a guarantee at once.
    only_guaranteed: bool,
    /// Clients passed by, for the count of work.
    pub(crate) skipped: u32,
}

impl Walk {
    /// Starts anew at the first.
    pub(crate) fn begin(&mut self, only_guaranteed: bool) {
        self.only_guaranteed = only_guaranteed;
        self.stack.clear();
        self.stack.push((ROOT, 0));
        self.clients = None;
        self.skipped = 0;
    }

    /// Passes by the other clients of the role that the last one came from.
    pub(crate) fn leave_role(&mut self) {
        self.clients = None;
    }

    pub(crate) fn next(&mut self, tree: &Tree, skip: &Bits) -> Option<u32> {
        loop {
            if let Some((node, from)) = self.clients {
                let list = &tree.node(node).listed;
                let mut at = from;
                for it in list.range(from.min(list.len())..) {
                    at += 1;
                    if !skip.get(*it) {
                        self.skipped += (at - from - 1) as u32;
                        self.clients = Some((node, at));
                        return Some(*it);
                    }
                }
                self.skipped += (at - from) as u32;
                self.clients = None;
            }
            let (node, at) = self.stack.last_mut()?;
            match tree.node(*node).order.get(*at) {
                None => {
                    self.stack.pop();
                }
                Some(it) => {
                    *at += 1;
                    let below = it >> 1;
                    let role = tree.node(below);
                    // Most roles have nothing below them.
                    let alone = role.order.len() == 1 && role.own.listed > 0;
                    if it & 1 == 0 && !alone {
                        self.stack.push((below, 0));
                    } else if !self.only_guaranteed || tree.has_guarantee(below) {
                        self.clients = Some((below, 0));
                    }
                }
            }
        }
    }
}
