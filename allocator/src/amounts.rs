//! Amounts of scalar resources as vectors over interned names.

use std::sync::Arc;
use tepui_model::{Quantities, Resource, Resources};

/// The names of all scalar resources that were ever seen; a name's place is its dimension.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dimensions(Vec<Arc<str>>);

impl Dimensions {
    /// The dimension of the name, a new one if need be.
    pub(crate) fn intern(&mut self, name: &Arc<str>) -> usize {
        match self.find(name) {
            Some(at) => at,
            None => {
                self.0.push(name.clone());
                self.0.len() - 1
            }
        }
    }

    pub(crate) fn find(&self, name: &Arc<str>) -> Option<usize> {
        // The usual names are shared texts.
        let mut names = self.0.iter();
        names
            .position(|it| Arc::ptr_eq(it, name))
            .or_else(|| self.0.iter().position(|it| it == name))
    }

    pub(crate) fn name(&self, dimension: usize) -> &Arc<str> {
        &self.0[dimension]
    }

    /// The amounts of the resources that satisfy the condition; a shared one counts once.
    pub(crate) fn amounts(
        &mut self,
        resources: &Resources,
        keep: impl Fn(&Resource) -> bool,
    ) -> Amounts {
        let mut amounts = Amounts::default();
        for it in resources.iter() {
            if let Some(amount) = it.amount()
                && keep(it)
            {
                amounts.add_to(self.intern(&it.name), amount.as_millis().into());
            }
        }
        amounts
    }

    /// The same when all names are known, as those of an agent that was added are.
    pub(crate) fn amounts_of_known(
        &self,
        resources: &Resources,
        keep: impl Fn(&Resource) -> bool,
    ) -> Amounts {
        let mut amounts = Amounts::default();
        for it in resources.iter() {
            if let Some(amount) = it.amount()
                && keep(it)
                && let Some(dimension) = self.find(&it.name)
            {
                amounts.add_to(dimension, amount.as_millis().into());
            }
        }
        amounts
    }

    pub(crate) fn of_quantities(&mut self, quantities: &Quantities) -> Amounts {
        let mut amounts = Amounts::default();
        for (name, amount) in quantities.iter() {
            amounts.add_to(self.intern(name), amount.as_millis().into());
        }
        amounts
    }
}

/// Dimensions that are kept in place: more than agents usually have (cpus, mem, disk, gpus).
const IN_PLACE: usize = 4;

/// Thousandths by dimension; what lies behind the end is zero. Wide enough that sums over any
/// cluster are exact, so that what was added can be taken away again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Amounts {
    first: [i128; IN_PLACE],
    more: Vec<i128>,
}

impl Amounts {
    pub(crate) fn get(&self, dimension: usize) -> i128 {
        match self.first.get(dimension) {
            Some(it) => *it,
            None => self.more.get(dimension - IN_PLACE).copied().unwrap_or(0),
        }
    }

    /// As many as there may be dimensions that are not zero.
    pub(crate) fn len(&self) -> usize {
        IN_PLACE + self.more.len()
    }

    pub(crate) fn add_to(&mut self, dimension: usize, amount: i128) {
        if let Some(it) = self.first.get_mut(dimension) {
            *it += amount;
            return;
        }
        let dimension = dimension - IN_PLACE;
        if self.more.len() <= dimension {
            self.more.resize(dimension + 1, 0);
        }
        self.more[dimension] += amount;
    }

    pub(crate) fn add(&mut self, other: &Amounts) {
        self.add_times(other, 1);
    }

    pub(crate) fn subtract(&mut self, other: &Amounts) {
        self.add_times(other, -1);
    }

    /// Adds `other` so many times.
    pub(crate) fn add_times(&mut self, other: &Amounts, times: i128) {
        for (mine, other) in self.first.iter_mut().zip(&other.first) {
            *mine += times * other;
        }
        if !other.more.is_empty() {
            if self.more.len() < other.more.len() {
                self.more.resize(other.more.len(), 0);
            }
            for (mine, other) in self.more.iter_mut().zip(&other.more) {
                *mine += times * other;
            }
        }
    }

    /// The dimensions that are not zero.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, i128)> + '_ {
        let all = self.first.iter().chain(&self.more);
        all.copied().enumerate().filter(|(_, it)| *it != 0)
    }

    /// Whether there is at least as much of everything as in `other`.
    pub(crate) fn contains(&self, other: &Amounts) -> bool {
        let mut amounts = other.iter();
        amounts.all(|(dimension, it)| self.get(dimension) >= it)
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl PartialEq for Amounts {
    fn eq(&self, other: &Amounts) -> bool {
        self.iter().eq(other.iter())
    }
}
