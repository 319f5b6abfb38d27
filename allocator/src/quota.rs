//! Quotas: what top-level roles are guaranteed and limited to, what they consume, and the room
//! that is left for everybody else.
//!
//! Consumed is everything reserved for the role or a role below it, given away or not, and what
//! is given to them of the unreserved, not revocable resources. The headroom is what is free of
//! such resources in the whole cluster; as much of it as guarantees still lack is kept from
//! everything that does not fill a guarantee.

use crate::{
    amounts::{Amounts, Dimensions},
    options::Quota,
};
use std::collections::BTreeMap;
use tepui_model::{Resource, Resources, Role};

/// Whether quotas have a say in it: an amount that is unreserved, not revocable, not shared.
pub(crate) fn is_free(it: &Resource) -> bool {
    it.is_unreserved() && !it.revocable && !it.shared && it.amount().is_some()
}

#[derive(Debug, Default)]
struct Account {
    guarantees: Amounts,
    /// By dimension; `None` for no limit.
    limits: Vec<Option<i128>>,
    consumed: Amounts,
}

impl Account {
    fn missing(&self, dimension: usize) -> i128 {
        (self.guarantees.get(dimension) - self.consumed.get(dimension)).max(0)
    }
}

/// How much of each dimension a client may get; `None` for as much as there is.
pub(crate) type Bounds = Vec<Option<i128>>;

/// The quotas of all roles that have one.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    by_role: BTreeMap<Role, Account>,
    /// What is free in the cluster, of what quotas have a say in.
    headroom: Amounts,
    /// Changes with everything that may give somebody more.
    pub(crate) version: u64,
}

impl Quotas {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_role.is_empty()
    }

    pub(crate) fn has_guarantees(&self) -> bool {
        self.by_role.values().any(|it| !it.guarantees.is_zero())
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
            guarantees: dimensions.of_quantities(&quota.guarantees),
            limits,
            consumed,
        };
        self.by_role.insert(role, account);
        self.version += 1;
    }

    pub(crate) fn remove(&mut self, role: &Role) {
        self.by_role.remove(role);
        self.version += 1;
    }

    /// What an agent holds free changed, not by an allotment.
    pub(crate) fn free_changed(&mut self, before: &Amounts, after: &Amounts) {
        self.headroom.subtract(before);
        self.headroom.add(after);
        self.version += 1;
    }

    /// What is free shrank by an allotment, which gives nobody more.
    pub(crate) fn free_taken(&mut self, before: &Amounts, after: &Amounts) {
        self.headroom.subtract(before);
        self.headroom.add(after);
    }

    /// What is reserved on an agent counts for the roles it is reserved to (`sign` 1), or does
    /// so no longer (-1).
    pub(crate) fn count_reserved(
        &mut self,
        dimensions: &mut Dimensions,
        total: &Resources,
        sign: i128,
    ) {
        if self.by_role.is_empty() {
            return;
        }
        for it in total.iter() {
            if let (Some(role), Some(amount)) = (it.reservation_role(), it.amount())
                && let Some(account) = self.by_role.get_mut(&role.top_level())
            {
                let dimension = dimensions.intern(&it.name);
                let amount = i128::from(amount.as_millis());
                account.consumed.add_to(dimension, sign * amount);
            }
        }
        self.version += 1;
    }

    /// An amount of what quotas have a say in is given to a role below `top` (`sign` 1), or
    /// comes back (-1).
    pub(crate) fn count_used(&mut self, top: &Role, used: &Amounts, sign: i128) {
        if let Some(account) = self.by_role.get_mut(top) {
            for (dimension, amount) in used.iter() {
                account.consumed.add_to(dimension, sign * amount);
            }
        }
    }

    /// The amounts that the role is guaranteed and lacks; `None` when it lacks nothing.
    pub(crate) fn missing(&self, role: &Role) -> Option<Amounts> {
        let account = self.by_role.get(role)?;
        let mut missing = Amounts::default();
        for (dimension, _) in account.guarantees.iter() {
            missing.add_to(dimension, account.missing(dimension));
        }
        (!missing.is_zero()).then_some(missing)
    }

    /// How much the role may get. What it is guaranteed and lacks is only open in the stage of
    /// guarantees; beyond that everybody lives off the headroom that guarantees do not need.
    /// Limits bind the role itself, not the roles below it.
    pub(crate) fn bounds(&self, role: &Role, guaranteed: bool) -> Bounds {
        let account = self.by_role.get(role);
        let lengths = self
            .by_role
            .values()
            .flat_map(|it| [it.guarantees.len(), it.limits.len()]);
        let length = lengths.max().unwrap_or(0);
        let bound = |dimension: usize| {
            let required: i128 = self.by_role.values().map(|it| it.missing(dimension)).sum();
            let surplus = (self.headroom.get(dimension) - required).max(0);
            let room = match account {
                Some(it) if guaranteed => Some(it.missing(dimension) + surplus),
                _ => Some(surplus),
            };
            // Without a guarantee that lacks something the headroom binds nobody.
            let room = room.filter(|_| required > 0);
            let limit = account
                .and_then(|it| {
                    it.limits
                        .get(dimension)
                        .copied()
                        .flatten()
                        .map(|limit| (it, limit))
                })
                .map(|(it, limit)| (limit - it.consumed.get(dimension)).max(0));
            match (room, limit) {
                (Some(room), Some(limit)) => Some(room.min(limit)),
                (room, limit) => room.or(limit),
            }
        };
        (0..length).map(bound).collect()
    }

    pub(crate) fn roles(&self) -> impl Iterator<Item = &Role> {
        self.by_role.keys()
    }

    pub(crate) fn consumed(&self, role: &Role) -> Option<&Amounts> {
        self.by_role.get(role).map(|it| &it.consumed)
    }

    pub(crate) fn headroom(&self) -> &Amounts {
        &self.headroom
    }
}
