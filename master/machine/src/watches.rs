//! Who watches which variables of the state service.

use std::collections::BTreeMap;
use std::sync::Arc;

use tepui_state::Owner;

use crate::input::ConnectionId;

/// Watches of one principal. Each may hold back a snapshot and some MiB of changes.
const MAX_PER_OWNER: usize = 256;
/// Watches of all principals.
const MAX: usize = 10_000;

/// Open watches by owner; no inner table is kept empty.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    by_owner: BTreeMap<Owner, BTreeMap<ConnectionId, Arc<str>>>,
    owners: BTreeMap<ConnectionId, Owner>,
}

impl Watches {
    /// Adds a watch of the names that begin with `prefix`; what to tell who has too many.
    pub(crate) fn insert(
        &mut self,
        connection: ConnectionId,
        owner: &Owner,
        prefix: Arc<str>,
    ) -> Result<(), &'static str> {
        if self.owners.len() >= MAX {
            return Err("too many watches are open at this master");
        }
        let of_owner = self.by_owner.get(owner).map_or(0, BTreeMap::len);
        if of_owner >= MAX_PER_OWNER {
            return Err("too many watches of this principal are open: at most 256");
        }
        // A connection is used for one watch; of two, the later one counts.
        self.remove(connection);
        self.owners.insert(connection, owner.clone());
        let table = self.by_owner.entry(owner.clone()).or_default();
        table.insert(connection, prefix);
        Ok(())
    }

    pub(crate) fn remove(&mut self, connection: ConnectionId) {
        let Some(owner) = self.owners.remove(&connection) else {
            return;
        };
        if let Some(table) = self.by_owner.get_mut(&owner) {
            table.remove(&connection);
            if table.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
    }

    /// Who watches this name.
    pub(crate) fn of(&self, owner: &str, name: &str) -> Vec<ConnectionId> {
        let table = self.by_owner.get(owner).into_iter().flatten();
        table
            .filter(|(_, prefix)| name.starts_with(&***prefix))
            .map(|(connection, _)| *connection)
            .collect()
    }

    /// Who watches any of these names, and which.
    pub(crate) fn of_any(
        &self,
        owner: &str,
        names: &[Arc<str>],
    ) -> Vec<(ConnectionId, Vec<Arc<str>>)> {
        let table = self.by_owner.get(owner).into_iter().flatten();
        table
            .filter_map(|(connection, prefix)| {
                let watched = names.iter().filter(|it| it.starts_with(&**prefix));
                let watched: Vec<_> = watched.cloned().collect();
                (!watched.is_empty()).then_some((*connection, watched))
            })
            .collect()
    }

    pub(crate) fn check_invariants(&self) {
        let count: usize = self.by_owner.values().map(BTreeMap::len).sum();
        assert_eq!(count, self.owners.len(), "watches: tables differ");
        for (connection, owner) in &self.owners {
            let table = self.by_owner.get(owner);
            assert!(table.is_some_and(|it| it.contains_key(connection)));
        }
    }
}
