//! What an operation turns into what.

use super::{Error, Resources};

/// An operation's effect on a pool: `consumed` leaves it, `converted` enters it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversion {
    /// What must be there before.
    pub consumed: Resources,
    /// What is there afterwards.
    pub converted: Resources,
}

impl Resources {
    /// Replaces what a conversion consumes with what it makes of it.
    ///
    /// # Errors
    /// Something to be consumed is not there; nothing has changed.
    pub fn apply(&mut self, conversion: &Conversion) -> Result<(), Error> {
        if self.try_sub(&conversion.consumed) {
            self.add(&conversion.converted);
            return Ok(());
        }
        let missing = conversion.consumed.difference(self);
        Err(Error::NotContained {
            missing: missing.to_string(),
            available: self.to_string(),
        })
    }

    /// [`Resources::apply`] for several in order, all or none.
    ///
    /// # Errors
    /// As [`Resources::apply`]; nothing has changed.
    pub fn apply_all<'a>(
        &mut self,
        conversions: impl IntoIterator<Item = &'a Conversion>,
    ) -> Result<(), Error> {
        let mut result = self.clone();
        for it in conversions {
            result.apply(it)?;
        }
        *self = result;
        Ok(())
    }
}
