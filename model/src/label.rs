//! Labels: key and value pairs in the order they were given, compared without regard to it.

use crate::wire;
use std::sync::Arc;

/// Key and value pairs. Two are equal when they hold the same pairs equally often, as in Mesos;
/// the order is kept for printing. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Labels(Arc<[wire::Label]>);

impl Labels {
    /// The pairs in the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0
            .iter()
            .map(|it| (it.key.as_str(), it.value.as_deref()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From the message of the wire.
    pub fn from_wire(labels: &wire::Labels) -> Labels {
        Labels(labels.labels.as_slice().into())
    }

    /// The message of the wire.
    pub fn to_wire(&self) -> wire::Labels {
        wire::Labels {
            labels: self.0.to_vec(),
        }
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Labels) -> bool {
        if self.0 == other.0 {
            return true;
        }
        if self.0.len() != other.0.len() {
            return false;
        }
        let (mut left, mut right): (Vec<_>, Vec<_>) =
            (self.iter().collect(), other.iter().collect());
        left.sort_unstable();
        right.sort_unstable();
        left == right
    }
}

impl Eq for Labels {}
