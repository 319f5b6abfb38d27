//! The state service's rows: variables and leases of principals, and what is remembered of
//! their writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use tepui_model::log;

use crate::{
    key::RowKey,
    ledger::{Ledger, Slot},
    state::ClusterState,
};

/// Writes of a principal that are remembered by their ids.
pub const MAX_RECENT_WRITES: usize = 1024;
/// What a variable or a lease counts besides its name and value, in bytes.
pub const ROW_OVERHEAD: u64 = 128;

/// Whose row it is: a principal, or nothing for those who need no credentials.
pub type Owner = Arc<str>;

/// The tables, and what is derived from them; no inner table is kept empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variables {
    pub(crate) variables: BTreeMap<Owner, BTreeMap<Arc<str>, Slot<log::Variable>>>,
    pub(crate) leases: BTreeMap<Owner, BTreeMap<u64, Slot<log::Lease>>>,
    pub(crate) accounts: BTreeMap<Owner, Slot<log::StateAccount>>,
    pub(crate) writes: BTreeMap<Owner, BTreeMap<u64, Slot<log::StateWrite>>>,
    pub(crate) indexes: Indexes,
}

/// Derived from the rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Indexes {
    /// Names of the variables that hang on a lease.
    of_lease: BTreeMap<(Owner, u64), BTreeSet<Arc<str>>>,
    /// Revisions of writes by their ids.
    by_id: BTreeMap<Owner, BTreeMap<Bytes, u64>>,
    /// What variables and leases count.
    bytes: BTreeMap<Owner, u64>,
}

/// What a variable counts towards its principal's quota.
pub fn variable_bytes(name: &str, value: &[u8]) -> u64 {
    (name.len() + value.len()) as u64 + ROW_OVERHEAD
}

impl Indexes {
    fn count(&mut self, owner: &Owner, more: u64, less: u64) {
        let bytes = self.bytes.entry(owner.clone()).or_default();
        *bytes = (*bytes + more).saturating_sub(less);
        if *bytes == 0 {
            self.bytes.remove(owner);
        }
    }

    fn hang(&mut self, owner: &Owner, name: &Arc<str>, row: &log::Variable) {
        if row.lease_id != 0 {
            let names = self.of_lease.entry((owner.clone(), row.lease_id));
            names.or_default().insert(name.clone());
        }
    }

    fn unhang(&mut self, owner: &Owner, name: &Arc<str>, row: &log::Variable) {
        let key = (owner.clone(), row.lease_id);
        if let Some(names) = self.of_lease.get_mut(&key) {
            names.remove(name);
            if names.is_empty() {
                self.of_lease.remove(&key);
            }
        }
    }
}

fn size(row: &log::Variable) -> u64 {
    variable_bytes(&row.name, &row.value)
}

// Puts a row into a table and returns the one it replaces.
fn put<K: Ord, V>(
    ledger: &mut Ledger,
    table: &mut BTreeMap<K, Slot<V>>,
    key: K,
    row: Arc<V>,
    name: impl FnOnce() -> RowKey,
) -> Option<Arc<V>> {
    match table.get_mut(&key) {
        Some(slot) => Some(ledger.replace(slot, row, name)),
        None => {
            table.insert(key, ledger.add(row, name));
            None
        }
    }
}

// Takes a row out of a nested table, and the inner table with its last row.
fn take<B: Ord + ?Sized, K: Ord + std::borrow::Borrow<B>, V>(
    table: &mut BTreeMap<Owner, BTreeMap<K, Slot<V>>>,
    owner: &str,
    inner: &B,
) -> Option<Slot<V>> {
    let rows = table.get_mut(owner)?;
    let slot = rows.remove(inner);
    if rows.is_empty() {
        table.remove(owner);
    }
    slot
}

impl Variables {
    pub(crate) fn put_variable(&mut self, ledger: &mut Ledger, row: Arc<log::Variable>) {
        let owner = Owner::from(row.principal.as_str());
        let name: Arc<str> = row.name.as_str().into();
        self.indexes.count(&owner, size(&row), 0);
        let table = self.variables.entry(owner.clone()).or_default();
        let key = || RowKey::Variable(owner.clone(), name.clone());
        let old = put(ledger, table, name.clone(), row.clone(), key);
        if let Some(old) = &old {
            self.indexes.count(&owner, 0, size(old));
            self.indexes.unhang(&owner, &name, old);
        }
        self.indexes.hang(&owner, &name, &row);
    }

    pub(crate) fn take_variable(&mut self, ledger: &mut Ledger, owner: &Owner, name: &Arc<str>) {
        if let Some(slot) = take(&mut self.variables, owner, &**name) {
            self.indexes.count(owner, 0, size(&slot.row));
            self.indexes.unhang(owner, name, &slot.row);
            ledger.removed(&slot, || RowKey::Variable(owner.clone(), name.clone()));
        }
    }

    pub(crate) fn put_lease(&mut self, ledger: &mut Ledger, row: Arc<log::Lease>) {
        let (owner, id) = (Owner::from(row.principal.as_str()), row.lease_id);
        let table = self.leases.entry(owner.clone()).or_default();
        let key = || RowKey::Lease(owner.clone(), id);
        if put(ledger, table, id, row, key).is_none() {
            self.indexes.count(&owner, ROW_OVERHEAD, 0);
        }
    }

    fn take_lease(&mut self, ledger: &mut Ledger, owner: &Owner, id: u64) {
        let Some(slot) = take(&mut self.leases, owner, &id) else {
            return;
        };
        self.indexes.count(owner, 0, ROW_OVERHEAD);
        ledger.removed(&slot, || RowKey::Lease(owner.clone(), id));
        let names = self.indexes.of_lease.get(&(owner.clone(), id)).cloned();
        for name in names.unwrap_or_default() {
            self.take_variable(ledger, owner, &name);
        }
    }

    pub(crate) fn put_account(&mut self, ledger: &mut Ledger, row: Arc<log::StateAccount>) {
        let owner = Owner::from(row.principal.as_str());
        let key = || RowKey::StateAccount(owner.clone());
        put(ledger, &mut self.accounts, owner.clone(), row, key);
    }

    pub(crate) fn put_write(&mut self, ledger: &mut Ledger, row: Arc<log::StateWrite>) {
        let (owner, revision) = (Owner::from(row.principal.as_str()), row.revision);
        let ids = self.indexes.by_id.entry(owner.clone()).or_default();
        // Of an id that was used twice, though it should not, the newer write counts.
        let known = ids.entry(row.write_id.clone()).or_default();
        *known = revision.max(*known);
        let table = self.writes.entry(owner.clone()).or_default();
        let key = || RowKey::StateWrite(owner.clone(), revision);
        put(ledger, table, revision, row, key);
    }

    fn take_oldest_write(&mut self, ledger: &mut Ledger, owner: &Owner) -> Option<u64> {
        let table = self
            .writes
            .get(owner)
            .filter(|it| it.len() > MAX_RECENT_WRITES)?;
        let revision = *table.first_key_value()?.0;
        let slot = take(&mut self.writes, owner, &revision)?;
        if let Some(ids) = self.indexes.by_id.get_mut(owner)
            && ids.get(&slot.row.write_id) == Some(&revision)
        {
            ids.remove(&slot.row.write_id);
        }
        ledger.removed(&slot, || RowKey::StateWrite(owner.clone(), revision));
        Some(revision)
    }

    /// Books a change: its revision, and its id if it has one.
    fn book(&mut self, ledger: &mut Ledger, owner: &Owner, revision: u64, write_id: &Bytes) {
        let row = self.accounts.get(owner).map(|it| it.row.clone());
        let mut row = row.unwrap_or_default();
        if !write_id.is_empty() && revision > row.revision {
            let write = log::StateWrite {
                principal: owner.to_string(),
                revision,
                write_id: write_id.clone(),
            };
            self.put_write(ledger, Arc::new(write));
        }
        let account = Arc::make_mut(&mut row);
        account.principal = owner.to_string();
        account.revision = account.revision.max(revision);
        while let Some(forgotten) = self.take_oldest_write(ledger, owner) {
            account.forgotten_up_to = account.forgotten_up_to.max(forgotten);
        }
        self.put_account(ledger, row);
    }

    pub(crate) fn keys(&self) -> Vec<RowKey> {
        let mut keys = Vec::new();
        for (owner, table) in &self.variables {
            let key = |it: &Arc<str>| RowKey::Variable(owner.clone(), it.clone());
            keys.extend(table.keys().map(key));
        }
        for (owner, table) in &self.leases {
            keys.extend(table.keys().map(|it| RowKey::Lease(owner.clone(), *it)));
        }
        keys.extend(self.accounts.keys().cloned().map(RowKey::StateAccount));
        for (owner, table) in &self.writes {
            let key = |it: &u64| RowKey::StateWrite(owner.clone(), *it);
            keys.extend(table.keys().map(key));
        }
        keys
    }

    fn rebuilt_indexes(&self) -> Indexes {
        let mut indexes = Indexes::default();
        for (owner, table) in &self.variables {
            for (name, slot) in table {
                indexes.count(owner, size(&slot.row), 0);
                indexes.hang(owner, name, &slot.row);
            }
        }
        for (owner, table) in &self.leases {
            indexes.count(owner, ROW_OVERHEAD * table.len() as u64, 0);
        }
        for (owner, table) in &self.writes {
            let ids = indexes.by_id.entry(owner.clone()).or_default();
            // Of an id that was used twice the newer write counts.
            let id = |(revision, slot): (&u64, &Slot<log::StateWrite>)| {
                (slot.row.write_id.clone(), *revision)
            };
            ids.extend(table.iter().map(id));
        }
        indexes
    }

    /// # Panics
    /// An invariant does not hold: a mistake in this crate.
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.indexes, self.rebuilt_indexes(), "indexes");
        for (owner, table) in &self.variables {
            assert!(!table.is_empty(), "{owner}: empty table of variables");
            for (name, slot) in table {
                let row = &slot.row;
                let lease = self.leases.get(owner).and_then(|it| it.get(&row.lease_id));
                assert!(row.lease_id == 0 || lease.is_some(), "{owner}: {name}");
                let account = self.accounts.get(owner).map_or(0, |it| it.row.revision);
                assert!(row.version <= account, "{owner}: {name} of {account}");
            }
        }
        for (owner, table) in &self.leases {
            assert!(!table.is_empty(), "{owner}: empty table of leases");
        }
        for (owner, table) in &self.writes {
            assert!(!table.is_empty(), "{owner}: empty table of writes");
            assert!(table.len() <= MAX_RECENT_WRITES, "{owner}: too many writes");
        }
    }
}

impl ClusterState {
    // ------------------------------------------------------------ reads

    /// A variable of the state service.
    pub fn variable(&self, owner: &str, name: &str) -> Option<&Arc<log::Variable>> {
        let table = self.service.variables.get(owner)?;
        table.get(name).map(|it| &it.row)
    }

    /// The owner's variables whose names begin with `prefix` and come after `after`, by name.
    pub fn variables<'a>(
        &'a self,
        owner: &str,
        prefix: &'a str,
        after: Option<&str>,
    ) -> impl Iterator<Item = &'a Arc<log::Variable>> + use<'a> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = match after {
            Some(after) if after >= prefix => Excluded(after),
            _ => Included(prefix),
        };
        let table = self.service.variables.get(owner);
        let rows = table.map(|it| it.range::<str, _>((from, Unbounded)));
        rows.into_iter()
            .flatten()
            .take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(_, slot)| &slot.row)
    }

    /// A lease of the state service.
    pub fn lease(&self, owner: &str, id: u64) -> Option<&Arc<log::Lease>> {
        Some(&self.service.leases.get(owner)?.get(&id)?.row)
    }

    /// Every lease, by owner and id.
    pub fn leases(&self) -> impl Iterator<Item = &Arc<log::Lease>> {
        let tables = self.service.leases.values();
        tables.flat_map(|it| it.values().map(|slot| &slot.row))
    }

    /// Names of the variables that hang on a lease.
    pub fn variables_of_lease(&self, owner: &str, id: u64) -> impl Iterator<Item = &Arc<str>> {
        let names = self.service.indexes.of_lease.get(&(owner.into(), id));
        names.into_iter().flatten()
    }

    /// The revision of the owner's newest change; 0 before the first.
    pub fn state_revision(&self, owner: &str) -> u64 {
        let account = self.service.accounts.get(owner);
        account.map_or(0, |it| it.row.revision)
    }

    /// The revision that a write took, as long as it is among the newest
    /// [`MAX_RECENT_WRITES`].
    pub fn state_write(&self, owner: &str, write_id: &[u8]) -> Option<u64> {
        let ids = self.service.indexes.by_id.get(owner)?;
        ids.get(write_id).copied()
    }

    /// Whether every write with an id after `revision` is still known by its id.
    pub fn remembers_writes_since(&self, owner: &str, revision: u64) -> bool {
        let account = self.service.accounts.get(owner);
        account.is_none_or(|it| it.row.forgotten_up_to <= revision)
    }

    /// What the owner's variables and leases count, in bytes.
    pub fn state_bytes(&self, owner: &str) -> u64 {
        let bytes = self.service.indexes.bytes.get(owner);
        bytes.copied().unwrap_or_default()
    }

    // ------------------------------------------------------------ operations

    pub(crate) fn set_variable(&mut self, it: &log::PutVariable) {
        let Some(row) = &it.variable else { return };
        // It would stay for ever.
        if row.lease_id != 0 && self.lease(&row.principal, row.lease_id).is_none() {
            return;
        }
        let owner = Owner::from(row.principal.as_str());
        let (service, ledger) = (&mut self.service, &mut self.ledger);
        service.put_variable(ledger, Arc::new(row.clone()));
        service.book(ledger, &owner, row.version, &it.write_id);
    }

    pub(crate) fn expunge_variable(&mut self, it: &log::RemoveVariable) {
        let owner = Owner::from(it.principal.as_str());
        let (service, ledger) = (&mut self.service, &mut self.ledger);
        service.take_variable(ledger, &owner, &it.name.as_str().into());
        service.book(ledger, &owner, it.revision, &it.write_id);
    }

    pub(crate) fn grant_lease(&mut self, it: &log::PutLease) {
        let Some(row) = &it.lease else { return };
        let owner = Owner::from(row.principal.as_str());
        let (service, ledger) = (&mut self.service, &mut self.ledger);
        service.put_lease(ledger, Arc::new(row.clone()));
        service.book(ledger, &owner, row.lease_id, &it.write_id);
    }

    pub(crate) fn end_lease(&mut self, it: &log::RemoveLease) {
        let owner = Owner::from(it.principal.as_str());
        let (service, ledger) = (&mut self.service, &mut self.ledger);
        service.take_lease(ledger, &owner, it.lease_id);
        service.book(ledger, &owner, it.revision, &it.write_id);
    }
}
