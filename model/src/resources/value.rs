//! The three kinds of value that a resource can have.

use super::{Error, ranges::Ranges, scalar::Scalar};
use crate::wire;
use std::{cmp::Ordering, fmt, sync::Arc};

/// Most items taken from one set of an input.
pub const MAX_ITEMS: usize = 10_000;

/// A set of words; sorted, each once.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Set(Vec<Arc<str>>);

impl Set {
    /// Sorts the words.
    ///
    /// # Errors
    /// A word occurs twice, or there are more than [`MAX_ITEMS`]. `name` is the resource's name
    /// for the text.
    pub fn new<'a>(name: &str, items: impl IntoIterator<Item = &'a str>) -> Result<Set, Error> {
        let mut all: Vec<Arc<str>> = Vec::new();
        for item in items {
            if all.len() == MAX_ITEMS {
                return Err(Error::TooManyItems {
                    name: name.to_owned(),
                });
            }
            all.push(item.into());
        }
        all.sort_unstable();
        match all.windows(2).find(|it| it[0] == it[1]) {
            None => Ok(Set(all)),
            Some(twice) => Err(Error::DuplicateItem {
                name: name.to_owned(),
                item: twice[0].as_ref().to_owned(),
            }),
        }
    }

    /// The words in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|it| &**it)
    }

    /// Whether there is no word.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many words there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether every word of `other` is one of these.
    pub fn contains(&self, other: &Set) -> bool {
        let mut mine = self.0.iter();
        other.0.iter().all(|it| mine.any(|mine| mine == it))
    }

    /// Whether some word is in both.
    pub fn intersects(&self, other: &Set) -> bool {
        other.0.iter().any(|it| self.0.binary_search(it).is_ok())
    }

    /// Adds the words of `other`.
    pub fn insert_all(&mut self, other: &Set) {
        for item in &other.0 {
            if let Err(at) = self.0.binary_search(item) {
                self.0.insert(at, item.clone());
            }
        }
    }

    /// Removes the words of `other`, those that are not there included.
    pub fn remove_all(&mut self, other: &Set) {
        self.0.retain(|it| other.0.binary_search(it).is_err());
    }
}

impl fmt::Display for Set {
    /// `{a, b}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, it) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{it}")?;
        }
        f.write_str("}")
    }
}

/// How much of a resource, or which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// An amount: cpus, mem (MB), disk (MB), gpus.
    Scalar(Scalar),
    /// Numbers: ports.
    Ranges(Ranges),
    /// Words.
    Set(Set),
}

impl Value {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Value::Scalar(it) => *it <= Scalar::ZERO,
            Value::Ranges(it) => it.is_empty(),
            Value::Set(it) => it.is_empty(),
        }
    }

    /// Whether all of `other` is in this. Values of different kinds contain nothing of each other.
    pub fn contains(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Scalar(mine), Value::Scalar(other)) => mine >= other,
            (Value::Ranges(mine), Value::Ranges(other)) => mine.contains(other),
            (Value::Set(mine), Value::Set(other)) => mine.contains(other),
            _ => false,
        }
    }

    /// Adds `other`; nothing happens when the kinds differ.
    pub fn add(&mut self, other: &Value) {
        match (self, other) {
            (Value::Scalar(mine), Value::Scalar(other)) => *mine = mine.saturating_add(*other),
            (Value::Ranges(mine), Value::Ranges(other)) => mine.insert_all(other),
            (Value::Set(mine), Value::Set(other)) => mine.insert_all(other),
            _ => {}
        }
    }

    /// Removes what is there of `other`; nothing happens when the kinds differ.
    pub fn subtract(&mut self, other: &Value) {
        match (self, other) {
            (Value::Scalar(mine), Value::Scalar(other)) => *mine = mine.saturating_sub(*other),
            (Value::Ranges(mine), Value::Ranges(other)) => mine.remove_all(other),
            (Value::Set(mine), Value::Set(other)) => mine.remove_all(other),
            _ => {}
        }
    }

    /// The type's name on the wire.
    pub fn kind(&self) -> wire::value::Type {
        match self {
            Value::Scalar(_) => wire::value::Type::Scalar,
            Value::Ranges(_) => wire::value::Type::Ranges,
            Value::Set(_) => wire::value::Type::Set,
        }
    }

    /// The amount, if this is one.
    pub fn as_scalar(&self) -> Option<Scalar> {
        match self {
            Value::Scalar(it) => Some(*it),
            _ => None,
        }
    }

    /// The numbers, if this is a set of numbers.
    pub fn as_ranges(&self) -> Option<&Ranges> {
        match self {
            Value::Ranges(it) => Some(it),
            _ => None,
        }
    }

    /// Whether the two are of one kind.
    pub(crate) fn same_kind(&self, other: &Value) -> bool {
        core::mem::discriminant(self) == core::mem::discriminant(other)
    }
}

/// By containment, where one contains the other; amounts always compare.
impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Value) -> Option<Ordering> {
        match (self.contains(other), other.contains(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Scalar(it) => it.fmt(f),
            Value::Ranges(it) => fmt::Display::fmt(it, f),
            Value::Set(it) => it.fmt(f),
        }
    }
}

impl From<Scalar> for Value {
    fn from(it: Scalar) -> Value {
        Value::Scalar(it)
    }
}

impl From<Ranges> for Value {
    fn from(it: Ranges) -> Value {
        Value::Ranges(it)
    }
}

impl From<Set> for Value {
    fn from(it: Set) -> Value {
        Value::Set(it)
    }
}
