//! Quotas: what roles are guaranteed and limited to, what they consume, and the room that is left
//! for everybody else.
//!
//! Consumed is everything reserved for the role or a role below it, given away or not, and what
//! is given to them of the unreserved, not revocable resources. The headroom is what is free of
//! such resources in the whole cluster; as much of it as guarantees still lack is kept from
//! everything that does not fill a guarantee.
//!
//! Roles with quotas form a forest. What a role **requires** is what it lacks itself, or what the
//! roles below it require together if that is more: what a child is guaranteed is a part of what
//! its parent is. A role **may claim**, of what is kept free, what it and each role around it
//! lacks beyond the requirements of its children. All sums are kept up as amounts change, so that
//! a question costs as much as the role is deep, however many quotas there are.

use crate::{
    amounts::{Amounts, Dimensions},
    holdings::Change,
    options::Quota,
};
use std::collections::BTreeMap;
use tepui_model::{Resource, Resources, Role};

/// Whether quotas have a say in it: an amount that is unreserved, not revocable, not shared.
pub(crate) fn is_free(it: &Resource) -> bool {
    it.is_unreserved() && !it.revocable && !it.shared && it.amount().is_some()
}

#[derive(Clone, Debug)]
struct Account {
    role: Role,
    /// The nearest role around it that has a quota.
    parent: Option<u32>,
    guarantees: Amounts,
    /// By dimension; `None` for no limit.
    limits: Vec<Option<i128>>,
    /// Of the whole subtree.
    consumed: Amounts,
    /// What is required by the quotas right below.
    below: Amounts,
    required: Amounts,
}

impl Account {
    fn missing(&self, dimension: usize) -> i128 {
        (self.guarantees.get(dimension) - self.consumed.get(dimension)).max(0)
    }

    fn limit(&self, dimension: usize) -> Option<i128> {
        self.limits.get(dimension).copied().flatten()
    }
}

/// The quotas of all roles that have one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quotas {
    accounts: Vec<Option<Account>>,
    unused: Vec<u32>,
    by_role: BTreeMap<Role, u32>,
    /// What is free in the cluster, of what quotas have a say in; not kept up without quotas.
    headroom: Amounts,
    /// Of all roots of the forest.
    required: Amounts,
    /// Dimensions that some quota names lie before this.
    dimensions: usize,
    /// Changes with everything that may give somebody more.
    pub(crate) version: u64,
}

impl Quotas {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_role.is_empty()
    }

    /// Whether some guarantee lacks something.
    pub(crate) fn is_lacking(&self) -> bool {
        !self.required.is_zero()
    }

    fn account(&self, at: u32) -> &Account {
        let slot = self.accounts.get(at as usize);
        slot.and_then(Option::as_ref).expect("a live account")
    }

    fn account_mut(&mut self, at: u32) -> &mut Account {
        let slot = self.accounts.get_mut(at as usize);
        slot.and_then(Option::as_mut).expect("a live account")
    }

    /// The account and those around it, the nearest first.
    fn chain(&self, nearest: Option<u32>) -> impl Iterator<Item = &Account> {
        let mut next = nearest;
        core::iter::from_fn(move || {
            let account = self.account(next?);
            next = account.parent;
            Some(account)
        })
    }

    /// The account of exactly the role.
    pub(crate) fn of(&self, role: &Role) -> Option<u32> {
        self.by_role.get(role).copied()
    }

    /// The account of the role, or of the nearest role around it that has a quota.
    pub(crate) fn nearest(&self, role: &str) -> Option<u32> {
        if self.by_role.is_empty() {
            return None;
        }
        let mut name = role;
        loop {
            if let Some(at) = self.by_role.get(name) {
                return Some(*at);
            }
            name = &name[..name.rfind('/')?];
        }
    }

    /// Sets the quota of a role whose consumption was counted anew.
    pub(crate) fn set(
        &mut self,
        dimensions: &mut Dimensions,
        role: Role,
        quota: &Quota,
        consumed: Amounts,
    ) {
        let mut limits = Vec::new();
        for (name, limit) in quota.limits.iter() {
            let dimension = dimensions.intern(name);
            if limits.len() <= dimension {
                limits.resize(dimension + 1, None);
            }
            limits[dimension] = Some(i128::from(limit.as_millis()));
        }
        let account = Account {
            role: role.clone(),
            parent: None,
            guarantees: dimensions.of_quantities(&quota.guarantees),
            limits,
            consumed,
            below: Amounts::default(),
            required: Amounts::default(),
        };
        match self.by_role.get(&role) {
            Some(at) => self.accounts[*at as usize] = Some(account),
            None => {
                let at = self.unused.pop().unwrap_or(self.accounts.len() as u32);
                if at as usize == self.accounts.len() {
                    self.accounts.push(None);
                }
                self.accounts[at as usize] = Some(account);
                self.by_role.insert(role, at);
            }
        }
        self.restructure();
    }

    pub(crate) fn remove(&mut self, role: &Role) {
        if let Some(at) = self.by_role.remove(role) {
            self.accounts[at as usize] = None;
            self.unused.push(at);
        }
        self.restructure();
    }

    /// Before the first quota is set: what is free in the cluster.
    pub(crate) fn set_headroom(&mut self, headroom: Amounts) {
        self.headroom = headroom;
    }

    /// Finds parents and sums anew.
    fn restructure(&mut self) {
        self.version += 1;
        let roles: Vec<(Role, u32)> = self
            .by_role
            .iter()
            .map(|(it, at)| (it.clone(), *at))
            .collect();
        self.dimensions = 0;
        for (role, at) in &roles {
            let parent = role.parent().and_then(|it| self.nearest(it.as_str()));
            let account = self.account_mut(*at);
            account.parent = parent;
            account.below = Amounts::default();
            account.required = Amounts::default();
            let dimensions = account.guarantees.len().max(account.limits.len());
            self.dimensions = self.dimensions.max(dimensions);
        }
        self.required = Amounts::default();
        // A role stands before those below it; so children come first in the other direction.
        for (_, at) in roles.iter().rev() {
            let account = self.account(*at);
            let mut required = Amounts::default();
            for dimension in 0..self.dimensions {
                let missing = account.missing(dimension).max(account.below.get(dimension));
                if missing != 0 {
                    required.add_to(dimension, missing);
                }
            }
            match account.parent {
                Some(parent) => self.account_mut(parent).below.add(&required),
                None => self.required.add(&required),
            }
            self.account_mut(*at).required = required;
        }
    }

    /// What an agent holds free changed, not by an allotment.
    pub(crate) fn free_changed(&mut self, before: &Amounts, after: &Amounts) {
        if self.by_role.is_empty() {
            return;
        }
        // More of what guarantees lack may leave more to others.
        let more = self
            .required
            .iter()
            .any(|(at, _)| after.get(at) > before.get(at));
        self.version += u64::from(more);
        self.free_taken(before, after);
    }

    /// What is free shrank by an allotment, which gives nobody more.
    pub(crate) fn free_taken(&mut self, before: &Amounts, after: &Amounts) {
        if self.by_role.is_empty() {
            return;
        }
        self.headroom.subtract(before);
        self.headroom.add(after);
    }

    /// What is reserved on an agent counts for the roles it is reserved to and those around them
    /// (`sign` 1), or does so no longer (-1).
    pub(crate) fn count_reserved(
        &mut self,
        dimensions: &mut Dimensions,
        total: &Resources,
        sign: i128,
    ) {
        if self.by_role.is_empty() {
            return;
        }
        let mut sums: BTreeMap<u32, Amounts> = BTreeMap::new();
        let mut last: Option<(Role, Option<u32>)> = None;
        for it in total.iter() {
            let (Some(role), Some(amount)) = (it.reservation_role(), it.amount()) else {
                continue;
            };
            let nearest = match &last {
                Some((before, nearest)) if before == role => *nearest,
                _ => {
                    let nearest = self.nearest(role.as_str());
                    last = Some((role.clone(), nearest));
                    nearest
                }
            };
            if let Some(at) = nearest {
                let sum = sums.entry(at).or_default();
                sum.add_to(dimensions.intern(&it.name), amount.as_millis().into());
            }
        }
        for (at, amounts) in sums {
            let by = if sign > 0 { Change::Told } else { Change::Back };
            self.consume(Some(at), &amounts, by);
        }
    }

    /// An amount of what quotas have a say in is consumed by a role whose nearest account this
    /// is, or comes back.
    pub(crate) fn consume(&mut self, nearest: Option<u32>, used: &Amounts, by: Change) {
        if nearest.is_none() || used.is_zero() {
            return;
        }
        let sign = match by {
            Change::Told | Change::Given => 1,
            Change::Back => -1,
        };
        // Less consumed leaves more below a limit, and more to claim.
        self.version += u64::from(by == Change::Back);
        for (dimension, amount) in used.iter() {
            let mut next = nearest;
            let mut change = 0;
            while let Some(at) = next {
                let account = self.account_mut(at);
                account.consumed.add_to(dimension, sign * amount);
                if change != 0 {
                    account.below.add_to(dimension, change);
                }
                let before = account.required.get(dimension);
                let required = account.missing(dimension).max(account.below.get(dimension));
                change = required - before;
                if change != 0 {
                    account.required.add_to(dimension, change);
                }
                next = account.parent;
            }
            if change != 0 {
                self.required.add_to(dimension, change);
                // Less is kept from others; unless it was given, so that as much less is free.
                self.version += u64::from(change < 0 && by != Change::Given);
            }
        }
    }

    /// What the role may claim of what is kept free, in one dimension.
    fn claimable(&self, nearest: Option<u32>, dimension: usize) -> i128 {
        let own = |it: &Account| (it.missing(dimension) - it.below.get(dimension)).max(0);
        self.chain(nearest).map(own).sum()
    }

    /// What a role with this nearest account may claim; `None` when that is nothing.
    pub(crate) fn claims(&self, nearest: Option<u32>) -> Option<Amounts> {
        nearest?;
        let mut claims = Amounts::default();
        for (dimension, _) in self.required.iter() {
            let amount = self.claimable(nearest, dimension);
            if amount != 0 {
                claims.add_to(dimension, amount);
            }
        }
        (!claims.is_zero()).then_some(claims)
    }

    /// Whether a role with this nearest account has some guarantee, met or not.
    pub(crate) fn is_guaranteed(&self, nearest: Option<u32>) -> bool {
        self.chain(nearest).any(|it| !it.guarantees.is_zero())
    }

    /// Whether nothing bounds a role with this nearest account.
    pub(crate) fn is_unbound(&self, nearest: Option<u32>) -> bool {
        self.required.is_zero() && self.chain(nearest).all(|it| it.limits.is_empty())
    }

    /// How much a role may get of a dimension; none for any amount. What guarantees lack is open
    /// to who may claim it, in the stage of guarantees; beyond that everybody lives off the
    /// headroom that guarantees do not need. The limits of the role and of all roles around it
    /// bind.
    pub(crate) fn bound(
        &self,
        nearest: Option<u32>,
        dimension: usize,
        guaranteed: bool,
    ) -> Option<i128> {
        let room = self.room(nearest, dimension, guaranteed);
        let limit = self.tightest(nearest, dimension).map(|it| it.1);
        match (room, limit) {
            (Some(room), Some(limit)) => Some(room.min(limit)),
            (room, limit) => room.or(limit),
        }
    }

    /// The dimensions that some quota names lie before this.
    pub(crate) fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// What guarantees leave; none when they bind nobody.
    fn room(&self, nearest: Option<u32>, dimension: usize, guaranteed: bool) -> Option<i128> {
        let required = self.required.get(dimension);
        if required == 0 {
            return None;
        }
        let surplus = (self.headroom.get(dimension) - required).max(0);
        Some(match guaranteed {
            true => self.claimable(nearest, dimension) + surplus,
            false => surplus,
        })
    }

    /// The tightest limit around a role: whose it is, and what it leaves.
    fn tightest(&self, nearest: Option<u32>, dimension: usize) -> Option<(&Account, i128)> {
        let limits = self.chain(nearest).filter_map(|it| {
            let room = it.limit(dimension)? - it.consumed.get(dimension);
            Some((it, room.max(0)))
        });
        limits.min_by_key(|it| it.1)
    }

    /// What the limits around a role leave of a dimension; none when there are none.
    pub(crate) fn room_below_limits(&self, nearest: Option<u32>, dimension: usize) -> Option<i128> {
        self.tightest(nearest, dimension).map(|it| it.1)
    }

    /// For each role with guarantees around one: by dimension, what it consumes beyond them.
    pub(crate) fn beyond_guarantees(
        &self,
        nearest: Option<u32>,
    ) -> Vec<(Role, Vec<(usize, i128)>)> {
        let of = |it: &Account| {
            let beyond =
                |(at, guaranteed): (usize, i128)| (at, (it.consumed.get(at) - guaranteed).max(0));
            (it.role.clone(), it.guarantees.iter().map(beyond).collect())
        };
        let all = self.chain(nearest);
        all.filter(|it| !it.guarantees.is_zero()).map(of).collect()
    }

    /// Why the role gets no more of a dimension than its bound, outside the stage of guarantees.
    pub(crate) fn binding(&self, nearest: Option<u32>, dimension: usize) -> Option<Binding> {
        let room = self.room(nearest, dimension, false);
        let limit = self.tightest(nearest, dimension);
        match (room, limit) {
            (room, Some((account, left))) if room.is_none_or(|it| left <= it) => {
                Some(Binding::Limit {
                    role: account.role.clone(),
                    limit: account.limit(dimension).unwrap_or(0),
                    consumed: account.consumed.get(dimension),
                })
            }
            (Some(_), _) => {
                let lacks = self.by_role.iter().filter_map(|(role, at)| {
                    let missing = self.account(*at).missing(dimension);
                    (missing > 0).then(|| (role.clone(), missing))
                });
                Some(Binding::Headroom {
                    lacks: lacks.collect(),
                    free: self.headroom.get(dimension),
                })
            }
            (None, _) => None,
        }
    }

    pub(crate) fn roles(&self) -> impl Iterator<Item = &Role> {
        self.by_role.keys()
    }

    pub(crate) fn consumed(&self, role: &Role) -> Option<&Amounts> {
        self.of(role).map(|it| &self.account(it).consumed)
    }

    pub(crate) fn headroom(&self) -> &Amounts {
        &self.headroom
    }

    /// Panics when a sum differs from what [`Quotas::restructure`] finds.
    pub(crate) fn check(&self) {
        let mut fresh = self.clone();
        fresh.restructure();
        assert_eq!(fresh.required, self.required, "required by all guarantees");
        for (one, other) in fresh.accounts.iter().zip(&self.accounts) {
            let (Some(one), Some(other)) = (one, other) else {
                continue;
            };
            assert_eq!(one.parent, other.parent, "{}: parent", one.role);
            assert_eq!(one.required, other.required, "{}: required", one.role);
            assert_eq!(one.below, other.below, "{}: below", one.role);
        }
    }
}

/// What keeps a role from getting more of one name.
#[derive(Clone, Debug)]
pub(crate) enum Binding {
    /// The limit of it or of a role around it.
    Limit {
        role: Role,
        limit: i128,
        consumed: i128,
    },
    /// Guarantees of these roles, which still lack so much.
    Headroom {
        lacks: Vec<(Role, i128)>,
        free: i128,
    },
}
