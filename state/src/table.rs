//! Ordered tables whose copies share what has not changed since.
//!
//! A copy of the whole state - for a machine that is born, for a reader - costs a reference
//! count per table, and what one side changes later costs the nodes on the way to it.

/// A table.
pub(crate) type Table<K, V> = imbl::OrdMap<K, V>;
/// A set.
pub(crate) type Set<K> = imbl::OrdSet<K>;
/// Goes through a table in the order of its keys.
pub(crate) type Iter<'a, K, V> = imbl::ordmap::Iter<'a, K, V, imbl::shared_ptr::DefaultSharedPtr>;
