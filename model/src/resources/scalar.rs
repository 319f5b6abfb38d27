//! Amounts in thousandths.

use super::Error;
use crate::wire;
use std::{fmt, ops};

/// An amount in thousandths of a unit (Mesos' three decimal digits). Never NaN, never infinite.
///
/// Sums saturate. One input holds at most [`Scalar::MAX_INPUT`], so that thousands of them fit
/// before that happens.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scalar(i64);

impl Scalar {
    /// Nothing.
    pub const ZERO: Scalar = Scalar(0);
    /// The largest sum.
    pub const MAX: Scalar = Scalar(i64::MAX);
    /// The largest amount taken from an input: a million million units.
    pub const MAX_INPUT: Scalar = Scalar(1_000_000_000_000_000);

    /// From thousandths.
    pub const fn from_millis(thousandths: i64) -> Scalar {
        Scalar(thousandths)
    }

    /// From whole units; saturating.
    pub const fn from_units(units: i64) -> Scalar {
        Scalar(units.saturating_mul(1000))
    }

    /// In thousandths.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Rounds to the nearest thousandth, halves away from zero.
    ///
    /// # Errors
    /// `value` is not a number, infinite, negative, or above [`Scalar::MAX_INPUT`]. `name` is
    /// the resource's name for the text.
    pub fn from_f64(name: &str, value: f64) -> Result<Scalar, Error> {
        let scalar = Scalar::from_f64_signed(name, value)?;
        if scalar.0 < 0 || value < 0.0 {
            return Err(Error::Negative {
                name: name.to_owned(),
                value,
            });
        }
        Ok(scalar)
    }

    /// As [`Scalar::from_f64`], but negative amounts are fine: values of attributes.
    ///
    /// # Errors
    /// `value` is not a number, infinite, or further from zero than [`Scalar::MAX_INPUT`].
    pub fn from_f64_signed(name: &str, value: f64) -> Result<Scalar, Error> {
        if !value.is_finite() {
            return Err(Error::NotFinite {
                name: name.to_owned(),
                value,
            });
        }
        let thousandths = (value * 1000.0).round();
        if thousandths.abs() > Scalar::MAX_INPUT.0 as f64 {
            return Err(Error::TooLarge {
                name: name.to_owned(),
                value,
            });
        }
        // In bounds, so exact.
        Ok(Scalar(thousandths as i64))
    }

    /// In units, as the wire carries it. Exact up to 2^53 thousandths.
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The message of the wire.
    pub fn to_wire(self) -> wire::value::Scalar {
        wire::value::Scalar {
            value: self.as_f64(),
        }
    }

    /// Whether this is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether this is a whole number of units.
    pub const fn is_integral(self) -> bool {
        self.0 % 1000 == 0
    }

    /// The sum, at most [`Scalar::MAX`].
    pub const fn saturating_add(self, other: Scalar) -> Scalar {
        Scalar(self.0.saturating_add(other.0))
    }

    /// The difference, at least zero.
    pub const fn saturating_sub(self, other: Scalar) -> Scalar {
        let difference = self.0.saturating_sub(other.0);
        Scalar(if difference < 0 { 0 } else { difference })
    }

    /// The difference; `None` when `other` is the larger.
    pub const fn checked_sub(self, other: Scalar) -> Option<Scalar> {
        if other.0 > self.0 {
            None
        } else {
            Some(Scalar(self.0.saturating_sub(other.0)))
        }
    }
}

impl ops::Add for Scalar {
    type Output = Scalar;

    /// Saturates.
    fn add(self, other: Scalar) -> Scalar {
        self.saturating_add(other)
    }
}

impl ops::AddAssign for Scalar {
    fn add_assign(&mut self, other: Scalar) {
        *self = self.saturating_add(other);
    }
}

impl std::iter::Sum for Scalar {
    fn sum<I: Iterator<Item = Scalar>>(all: I) -> Scalar {
        all.fold(Scalar::ZERO, Scalar::saturating_add)
    }
}

impl fmt::Display for Scalar {
    /// The shortest decimal form: `4`, `0.5`, `-1.025`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (units, thousandths) = (self.0.unsigned_abs() / 1000, self.0.unsigned_abs() % 1000);
        if thousandths == 0 {
            return write!(f, "{sign}{units}");
        }
        let digits = format!("{thousandths:03}");
        write!(f, "{sign}{units}.{}", digits.trim_end_matches('0'))
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_rounded_to_thousandths() {
        let millis = |it| Scalar::from_f64("cpus", it).map(Scalar::as_millis);
        assert_eq!(millis(0.1 + 0.2), Ok(300));
        assert_eq!(millis(0.0005), Ok(1));
        assert_eq!(millis(0.0004), Ok(0));
        assert_eq!(millis(1e12), Ok(1_000_000_000_000_000));
    }

    #[test]
    fn absurd_inputs_are_refused_with_the_name() {
        for bad in [
            f64::NAN,
            f64::INFINITY,
            -f64::INFINITY,
            1e300,
            1e13,
            -1.0,
            -0.0001,
        ] {
            let text = Scalar::from_f64("cpus", bad).unwrap_err().to_string();
            assert!(text.contains("cpus"), "{text}");
        }
    }

    #[test]
    fn prints_the_shortest_form() {
        for (millis, text) in [(4000, "4"), (500, "0.5"), (25, "0.025"), (-1025, "-1.025")] {
            assert_eq!(Scalar::from_millis(millis).to_string(), text);
        }
    }

    #[test]
    fn sums_saturate() {
        assert_eq!(Scalar::MAX + Scalar::MAX, Scalar::MAX);
        assert_eq!(Scalar::ZERO.saturating_sub(Scalar::MAX), Scalar::ZERO);
        assert_eq!(Scalar::ZERO.checked_sub(Scalar::from_millis(1)), None);
    }
}
