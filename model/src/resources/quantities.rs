//! Amounts by name, without regard to reservations or disks.

use super::{Error, resource::intern, scalar::Scalar};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Amounts by resource name. Names with nothing of them are absent, except where a caller put a
/// zero in on purpose with [`Quantities::insert`] (a limit of zero).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantities(pub BTreeMap<Arc<str>, Scalar>);

impl Quantities {
    /// No amounts.
    pub fn new() -> Quantities {
        Quantities::default()
    }

    /// From pairs of a wire message; a name that comes twice is added up.
    ///
    /// # Errors
    /// A name is empty, or an amount is negative, not finite or too large.
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<Quantities, Error> {
        let mut all = Quantities::new();
        for (name, amount) in pairs {
            if name.is_empty() {
                return Err(Error::EmptyName);
            }
            let amount = Scalar::from_f64(name, amount)?;
            *all.0.entry(intern(name)).or_default() += amount;
        }
        Ok(all)
    }

    /// The amount; zero when absent.
    pub fn get(&self, name: &str) -> Scalar {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Sets the amount, zero included.
    pub fn insert(&mut self, name: &str, amount: Scalar) {
        self.0.insert(intern(name), amount);
    }

    /// Adds one amount.
    pub fn add_amount(&mut self, name: &Arc<str>, amount: Scalar) {
        if amount.is_zero() {
            return;
        }
        match self.0.get_mut(name) {
            Some(it) => *it += amount,
            None => {
                self.0.insert(name.clone(), amount);
            }
        }
    }

    /// Adds all amounts of `other`.
    pub fn add(&mut self, other: &Quantities) {
        for (name, amount) in &other.0 {
            self.add_amount(name, *amount);
        }
    }

    /// Takes the amounts of `other` away, down to zero; names that reach zero go.
    pub fn saturating_sub(&mut self, other: &Quantities) {
        for (name, amount) in &other.0 {
            if let Some(it) = self.0.get_mut(name) {
                *it = it.saturating_sub(*amount);
                if it.is_zero() {
                    self.0.remove(name);
                }
            }
        }
    }

    /// Whether there is at least as much of everything as in `other`.
    pub fn contains(&self, other: &Quantities) -> bool {
        other.0.iter().all(|(name, it)| self.get(name) >= *it)
    }

    /// Whether no name has an amount above zero.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(|it| it.is_zero())
    }

    /// The amounts in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, Scalar)> {
        self.0.iter().map(|(name, it)| (name, *it))
    }
}

impl fmt::Display for Quantities {
    /// `cpus:4; mem:1024`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, amount)) in self.0.iter().enumerate() {
            let semicolon = if index == 0 { "" } else { "; " };
            write!(f, "{semicolon}{name}:{amount}")?;
        }
        Ok(())
    }
}

impl FromIterator<(Arc<str>, Scalar)> for Quantities {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Scalar)>>(all: I) -> Quantities {
        let mut sum = Quantities::new();
        for (name, amount) in all {
            sum.add_amount(&name, amount);
        }
        sum
    }
}
