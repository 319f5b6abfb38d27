//! Rows as bytes: out to the disk, and back at the start of a process.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tepui_model::{log, wire::quota::QuotaConfig};

use crate::{
    key::{KeyError, RowKey},
    ledger::SharedRow,
    state::ClusterState,
};

/// Why rows are not a state.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A key that is none.
    #[error("stored row has no readable key")]
    Key(#[source] KeyError),
    /// A row that does not decode.
    #[error("stored row {key:?} cannot be decoded")]
    Row {
        /// Names the row.
        key: RowKey,
        /// What is wrong with its bytes.
        #[source]
        source: prost::DecodeError,
    },
    /// Rows of a cluster that has gone on to a version which this release does not know.
    #[error(
        "the rows are of cluster version {version} and this release knows versions up to {supported}; run a newer release"
    )]
    NewerVersion {
        /// Of the rows.
        version: u64,
        /// The newest one that this release knows.
        supported: u64,
    },
    /// A row that lies under a key that is not its own.
    #[error("stored row {key:?} holds the row {found:?}")]
    Misplaced {
        /// Where the row lies.
        key: RowKey,
        /// Where it belongs.
        found: RowKey,
    },
}

/// Rows that changed, not encoded yet: taking them costs a reference count each, so the thread
/// that applies entries leaves the encoding to the one that writes.
pub struct DirtyRows(Vec<(RowKey, Option<SharedRow>)>);

impl DirtyRows {
    /// Number of rows at most: one that came, went and came again counts twice.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys and rows as bytes, by key; `None` for a row that is gone (which may never have been
    /// written if rows were shared meanwhile).
    pub fn encode(self) -> Vec<(Bytes, Option<Bytes>)> {
        let named = self.0.into_iter().map(|(key, row)| (key.to_bytes(), row));
        let mut named: Vec<_> = named.collect();
        named.sort_by(|one, other| one.0.cmp(&other.0));
        named.dedup_by(|one, other| one.0 == other.0);
        let encode = |(key, row): (Vec<u8>, Option<SharedRow>)| {
            (key.into(), row.map(|it| it.encode_row().into()))
        };
        named.into_iter().map(encode).collect()
    }
}

impl std::fmt::Debug for DirtyRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|it| &it.0))
            .finish()
    }
}

impl ClusterState {
    /// Rebuilds a state from the keys and rows of [`ClusterState::rows`] or
    /// [`ClusterState::take_dirty`], in any order. Nothing is dirty afterwards, and everything
    /// is hashed: no entry has to wait for that.
    ///
    /// # Errors
    /// The store is damaged or of a newer release.
    pub fn load<K, V>(rows: impl IntoIterator<Item = (K, V)>) -> Result<ClusterState, LoadError>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        ClusterState::load_supporting(crate::state::VERSION, rows)
    }

    /// As [`ClusterState::load`] for a replica that knows versions up to `supported`.
    ///
    /// # Errors
    /// As there.
    pub fn load_supporting<K, V>(
        supported: u64,
        rows: impl IntoIterator<Item = (K, V)>,
    ) -> Result<ClusterState, LoadError>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let mut state = ClusterState::new().supporting(supported);
        let loaded = rows.into_iter().try_for_each(|(key, row)| {
            let key = RowKey::from_bytes(key.as_ref()).map_err(LoadError::Key)?;
            state.load_row(key, row.as_ref())
        });
        // The cluster's row is the first by key. What a newer version wrote behind it is not
        // damaged because this release cannot read it.
        let version = state.cluster_version();
        if version > supported {
            return Err(LoadError::NewerVersion { version, supported });
        }
        loaded?;
        state.hash();
        state.ledger.start_tracking();
        Ok(state)
    }

    fn load_row(&mut self, key: RowKey, bytes: &[u8]) -> Result<(), LoadError> {
        fn decode<M: Message + Default>(key: &RowKey, bytes: &[u8]) -> Result<Arc<M>, LoadError> {
            M::decode(bytes).map(Arc::new).map_err(|source| {
                let key = key.clone();
                LoadError::Row { key, source }
            })
        }
        let found = match &key {
            RowKey::Cluster => {
                self.put_cluster(decode(&key, bytes)?);
                RowKey::Cluster
            }
            RowKey::Agent(_) => {
                let row: Arc<log::Agent> = decode(&key, bytes)?;
                let id = row.agent_id.as_str().into();
                let found = RowKey::Agent(row.agent_id.as_str().into());
                self.put_agent(id, row);
                found
            }
            RowKey::Command(agent, _) => {
                let row: Arc<log::Command> = decode(&key, bytes)?;
                let found = RowKey::Command(agent.clone(), row.sequence);
                self.put_command(agent.as_str(), row);
                found
            }
            RowKey::Framework(_) => {
                let row: Arc<log::Framework> = decode(&key, bytes)?;
                let found = RowKey::Framework(row.framework_id.as_str().into());
                self.put_framework(row.framework_id.as_str().into(), row);
                found
            }
            RowKey::Task(..) => {
                let row: Arc<log::Task> = decode(&key, bytes)?;
                let found = RowKey::Task(
                    row.framework_id.as_str().into(),
                    row.task_id.as_str().into(),
                );
                self.put_task(row);
                found
            }
            RowKey::CompletedTask(..) => {
                let row: Arc<log::Task> = decode(&key, bytes)?;
                let found =
                    RowKey::CompletedTask(row.framework_id.as_str().into(), row.ring_sequence);
                self.put_completed_task(row);
                found
            }
            RowKey::Executor(..) => {
                let row: Arc<log::Executor> = decode(&key, bytes)?;
                let found = RowKey::Executor(
                    row.framework_id.as_str().into(),
                    row.agent_id.as_str().into(),
                    row.executor_id.as_str().into(),
                );
                self.put_executor(row);
                found
            }
            RowKey::Operation(_) => {
                let row: Arc<log::OfferOperation> = decode(&key, bytes)?;
                let found = RowKey::Operation(row.uuid.as_str().into());
                self.put_operation(row);
                found
            }
            RowKey::Weight(_) => {
                let row: Arc<log::Weight> = decode(&key, bytes)?;
                let found = RowKey::Weight(row.role.as_str().into());
                self.put_weight(row);
                found
            }
            RowKey::Quota(_) => {
                let row: Arc<QuotaConfig> = decode(&key, bytes)?;
                let found = RowKey::Quota(row.role.as_str().into());
                self.put_quota(row);
                found
            }
            RowKey::Maintenance => {
                self.put_maintenance(decode(&key, bytes)?);
                RowKey::Maintenance
            }
            RowKey::Variable(..) => {
                let row: Arc<log::Variable> = decode(&key, bytes)?;
                let found =
                    RowKey::Variable(row.principal.as_str().into(), row.name.as_str().into());
                self.service.put_variable(&mut self.ledger, row);
                found
            }
            RowKey::Lease(..) => {
                let row: Arc<log::Lease> = decode(&key, bytes)?;
                let found = RowKey::Lease(row.principal.as_str().into(), row.lease_id);
                self.service.put_lease(&mut self.ledger, row);
                found
            }
            RowKey::StateAccount(_) => {
                let row: Arc<log::StateAccount> = decode(&key, bytes)?;
                let found = RowKey::StateAccount(row.principal.as_str().into());
                self.service.put_account(&mut self.ledger, row);
                found
            }
            RowKey::StateWrite(..) => {
                let row: Arc<log::StateWrite> = decode(&key, bytes)?;
                let found = RowKey::StateWrite(row.principal.as_str().into(), row.revision);
                self.service.put_write(&mut self.ledger, row);
                found
            }
        };
        match found == key {
            true => Ok(()),
            false => Err(LoadError::Misplaced { key, found }),
        }
    }

    /// Every key, in order.
    pub(crate) fn keys(&self) -> Vec<RowKey> {
        let mut keys = vec![RowKey::Cluster];
        keys.extend(self.agents.keys().cloned().map(RowKey::Agent));
        for (agent, table) in &self.commands {
            keys.extend(table.keys().map(|it| RowKey::Command(agent.clone(), *it)));
        }
        keys.extend(self.frameworks.keys().cloned().map(RowKey::Framework));
        for (framework, table) in &self.tasks {
            let key = |it: &_| RowKey::Task(framework.clone(), Clone::clone(it));
            keys.extend(table.keys().map(key));
        }
        for (framework, table) in &self.completed_tasks {
            let key = |it: &u64| RowKey::CompletedTask(framework.clone(), *it);
            keys.extend(table.keys().map(key));
        }
        for (agent, table) in &self.executors {
            keys.extend(table.keys().map(|(framework, executor)| {
                RowKey::Executor(framework.clone(), agent.clone(), executor.clone())
            }));
        }
        keys.extend(self.operations.keys().cloned().map(RowKey::Operation));
        keys.extend(self.weights.keys().cloned().map(RowKey::Weight));
        keys.extend(self.quotas.keys().cloned().map(RowKey::Quota));
        keys.extend(self.maintenance.as_ref().map(|_| RowKey::Maintenance));
        keys.extend(self.service.keys());
        keys.sort();
        keys
    }

    /// Every row: key and bytes, by key.
    pub fn rows(&self) -> impl Iterator<Item = (Bytes, Bytes)> {
        self.keys()
            .into_iter()
            .filter_map(|key| Some((key.to_bytes().into(), self.slot(&key)?.encode().into())))
    }

    /// The rows that changed since the last call, as they are now. A copy tracks nothing and
    /// yields nothing. After [`ClusterState::new`] the cluster's row is dirty.
    pub fn take_dirty(&mut self) -> DirtyRows {
        let (changed, gone) = self.ledger.take_dirty();
        // One that is gone for good, and one that is there again, stand in the other list.
        let changed = changed.into_iter().filter_map(|key| {
            let row = self.slot(&key)?.share();
            Some((key, Some(row)))
        });
        let gone = gone.into_iter().filter(|it| self.slot(it).is_none());
        DirtyRows(changed.chain(gone.map(|key| (key, None))).collect())
    }

    /// Number of rows that [`ClusterState::take_dirty`] would hand out, at most.
    pub fn dirty_len(&self) -> usize {
        self.ledger.dirty_len()
    }
}
