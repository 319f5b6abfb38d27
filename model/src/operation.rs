//! Operations on offers: what a framework wants done, and what each turns into what.

use crate::{
    OperationId, Resource, Resources, Role,
    executor::ExecutorInfo,
    payload,
    resources::{self, Conversion, Scalar, Value, allocation_info},
    task::TaskInfo,
    wire,
};
use bytes::Bytes;
use std::sync::Arc;
use wire::offer::operation as op;

/// The kind of an operation as the wire names it.
pub type Type = op::Type;

/// One operation of an ACCEPT. Reading it never fails: what cannot be read is
/// [`OperationKind::Invalid`] (or the `fault` of a task), so that it can be answered.
#[derive(Clone, PartialEq, Debug)]
pub struct OfferOperation {
    /// Set when the framework wants feedback.
    pub id: Option<OperationId>,
    /// What is to be done.
    pub kind: OperationKind,
}

/// What is to be done.
#[derive(Clone, PartialEq, Debug)]
pub enum OperationKind {
    /// Run tasks, each on its own.
    Launch {
        /// The tasks.
        tasks: Vec<Arc<TaskInfo>>,
    },
    /// Run tasks together, all or none.
    LaunchGroup {
        /// The executor that runs them.
        executor: Arc<ExecutorInfo>,
        /// The tasks.
        tasks: Vec<Arc<TaskInfo>>,
    },
    /// Reserve for a role.
    Reserve {
        /// What it was before; empty means: the same without its innermost reservation. Only
        /// operators may say it.
        source: Resources,
        /// What it shall be.
        resources: Resources,
    },
    /// Remove the innermost reservation.
    Unreserve {
        /// What is reserved.
        resources: Resources,
    },
    /// Make persistent volumes.
    Create {
        /// The volumes.
        volumes: Resources,
    },
    /// Remove persistent volumes and their data.
    Destroy {
        /// The volumes.
        volumes: Resources,
    },
    /// Make a persistent volume larger.
    GrowVolume {
        /// The volume.
        volume: Resource,
        /// The disk to add to it.
        addition: Resource,
    },
    /// Make a persistent volume smaller.
    ShrinkVolume {
        /// The volume.
        volume: Resource,
        /// By how much.
        subtract: Scalar,
    },
    /// Make a disk of a provider's storage.
    CreateDisk {
        /// The storage.
        source: Resource,
        /// MOUNT or BLOCK.
        target_type: wire::resource::disk_info::source::Type,
        /// The provider's profile.
        target_profile: Option<String>,
    },
    /// Give a provider's disk back.
    DestroyDisk {
        /// The disk.
        source: Resource,
    },
    /// Something that cannot be read or that this version does not know.
    Invalid {
        /// The kind, as far as it is known.
        kind: Type,
        /// What is wrong, naming the field.
        message: String,
    },
}

/// Numbers of fields on the way from an operation to its tasks.
mod number {
    pub(super) const LAUNCH: u32 = 2;
    pub(super) const LAUNCH_TASKS: u32 = 1;
    pub(super) const LAUNCH_GROUP: u32 = 7;
    pub(super) const GROUP_EXECUTOR: u32 = 1;
    pub(super) const GROUP: u32 = 2;
    pub(super) const GROUP_TASKS: u32 = 1;
}

impl OfferOperation {
    /// Reads the message; `raw` is what it was decoded from, if it came as protobuf.
    pub fn from_wire(operation: wire::offer::Operation, raw: Option<&Bytes>) -> OfferOperation {
        let id = operation.id.as_ref().map(OperationId::from_wire);
        let kind = OperationKind::from_wire(operation, raw);
        OfferOperation { id, kind }
    }

    /// The message of the wire, resources with the stack of reservations.
    pub fn to_wire(&self) -> wire::offer::Operation {
        let mut operation = wire::offer::Operation {
            r#type: Some(self.kind.kind().into()),
            id: self.id.as_ref().map(OperationId::to_wire),
            ..Default::default()
        };
        let infos = |tasks: &[Arc<TaskInfo>]| tasks.iter().map(|it| it.to_wire()).collect();
        match &self.kind {
            OperationKind::Launch { tasks } => {
                let task_infos = infos(tasks);
                operation.launch = Some(op::Launch { task_infos });
            }
            OperationKind::LaunchGroup { executor, tasks } => {
                operation.launch_group = Some(op::LaunchGroup {
                    executor: executor.to_wire(),
                    task_group: wire::TaskGroupInfo {
                        tasks: infos(tasks),
                    },
                });
            }
            OperationKind::Reserve { source, resources } => {
                operation.reserve = Some(op::Reserve {
                    source: source.to_wire(),
                    resources: resources.to_wire(),
                });
            }
            OperationKind::Unreserve { resources } => {
                let resources = resources.to_wire();
                operation.unreserve = Some(op::Unreserve { resources });
            }
            OperationKind::Create { volumes } => {
                let volumes = volumes.to_wire();
                operation.create = Some(op::Create { volumes });
            }
            OperationKind::Destroy { volumes } => {
                let volumes = volumes.to_wire();
                operation.destroy = Some(op::Destroy { volumes });
            }
            OperationKind::GrowVolume { volume, addition } => {
                operation.grow_volume = Some(op::GrowVolume {
                    volume: volume.to_wire(),
                    addition: addition.to_wire(),
                });
            }
            OperationKind::ShrinkVolume { volume, subtract } => {
                operation.shrink_volume = Some(op::ShrinkVolume {
                    volume: volume.to_wire(),
                    subtract: subtract.to_wire(),
                });
            }
            OperationKind::CreateDisk {
                source,
                target_type,
                target_profile,
            } => {
                operation.create_disk = Some(op::CreateDisk {
                    source: source.to_wire(),
                    target_type: (*target_type).into(),
                    target_profile: target_profile.clone(),
                });
            }
            OperationKind::DestroyDisk { source } => {
                let source = source.to_wire();
                operation.destroy_disk = Some(op::DestroyDisk { source });
            }
            OperationKind::Invalid { .. } => {}
        }
        operation
    }

    /// The tasks of a launch; none for the others.
    pub fn tasks(&self) -> &[Arc<TaskInfo>] {
        match &self.kind {
            OperationKind::Launch { tasks } | OperationKind::LaunchGroup { tasks, .. } => tasks,
            _ => &[],
        }
    }

    /// What cannot be read of the operation, before anything else is asked of it. In a launch it
    /// stands for every task, those without a fault included: Mesos reads an operation's resources
    /// as a whole.
    pub fn fault(&self) -> Option<String> {
        if let OperationKind::Invalid { message, .. } = &self.kind {
            return Some(message.clone());
        }
        if let OperationKind::LaunchGroup { executor, .. } = &self.kind
            && let Some(fault) = &executor.fault
        {
            return Some(format!("invalid resources of the executor: {fault}"));
        }
        self.tasks().iter().find_map(|it| {
            let id = &it.task_id;
            if let Some(fault) = &it.fault {
                return Some(format!("invalid resources of task {id:?}: {fault}"));
            }
            let fault = it.executor.as_ref()?.fault.as_ref()?;
            Some(format!(
                "invalid resources of task {id:?}'s executor: {fault}"
            ))
        })
    }

    /// Says of every resource that names no allocation that it is allocated to the role. For
    /// frameworks without MULTI_ROLE, and for those that leave it out.
    pub fn inject_allocation(&mut self, role: &Role) {
        let one = |it: &mut Resource| {
            it.allocation_role.get_or_insert_with(|| role.clone());
        };
        let all = |all: &mut Resources| {
            if all.iter().any(|it| it.allocation_role.is_none()) {
                *all = all.map(|mut it| {
                    one(&mut it);
                    it
                });
            }
        };
        let tasks = |tasks: &mut [Arc<TaskInfo>]| {
            for task in tasks {
                let task = Arc::make_mut(task);
                all(&mut task.resources);
                if let Some(executor) = &mut task.executor {
                    all(&mut executor.resources);
                }
            }
        };
        match &mut self.kind {
            OperationKind::Launch { tasks: it } => tasks(it),
            OperationKind::LaunchGroup {
                executor,
                tasks: it,
            } => {
                all(&mut Arc::make_mut(executor).resources);
                tasks(it);
            }
            OperationKind::Reserve { source, resources } => {
                all(source);
                all(resources);
            }
            OperationKind::Unreserve { resources: it }
            | OperationKind::Create { volumes: it }
            | OperationKind::Destroy { volumes: it } => all(it),
            OperationKind::GrowVolume { volume, addition } => {
                one(volume);
                one(addition);
            }
            OperationKind::ShrinkVolume { volume: it, .. }
            | OperationKind::CreateDisk { source: it, .. }
            | OperationKind::DestroyDisk { source: it } => one(it),
            OperationKind::Invalid { .. } => {}
        }
    }

    /// What the operation takes from the pool, and what it puts there in its place.
    ///
    /// # Errors
    /// The operation is not one whose result is known beforehand (launches, CREATE_DISK,
    /// DESTROY_DISK: see [`OfferOperation::consumed`]), or its resources do not fit it.
    pub fn conversion(&self) -> Result<Conversion, Error> {
        match &self.kind {
            OperationKind::Reserve { source, resources } if source.is_empty() => Ok(Conversion {
                consumed: resources.pop_reservation()?,
                converted: resources.clone(),
            }),
            OperationKind::Reserve { source, resources } => Ok(Conversion {
                consumed: source.clone(),
                converted: resources.clone(),
            }),
            OperationKind::Unreserve { resources } => Ok(Conversion {
                consumed: resources.clone(),
                converted: resources.pop_reservation()?,
            }),
            OperationKind::Create { volumes } => Ok(Conversion {
                consumed: volumes.without_volumes(),
                converted: volumes.clone(),
            }),
            OperationKind::Destroy { volumes } => Ok(Conversion {
                consumed: volumes.clone(),
                converted: volumes.without_volumes(),
            }),
            OperationKind::GrowVolume { volume, addition } => {
                let (Some(size), Some(more)) = (volume.amount(), addition.amount()) else {
                    return Err(Error::NotAnAmount);
                };
                let mut consumed = Resources::from(volume.clone());
                consumed.push(addition.clone());
                Ok(Conversion {
                    consumed,
                    converted: with_amount(volume, size.saturating_add(more)).into(),
                })
            }
            OperationKind::ShrinkVolume { volume, subtract } => {
                let size = volume.amount().ok_or(Error::NotAnAmount)?;
                let rest = size.checked_sub(*subtract).ok_or(Error::ShrinkTooFar {
                    size,
                    subtract: *subtract,
                })?;
                let mut freed = with_amount(volume, *subtract);
                freed.strip_volume();
                freed.shared = false;
                let mut converted = Resources::from(with_amount(volume, rest));
                converted.push(freed);
                Ok(Conversion {
                    consumed: volume.clone().into(),
                    converted,
                })
            }
            OperationKind::Launch { .. }
            | OperationKind::LaunchGroup { .. }
            | OperationKind::CreateDisk { .. }
            | OperationKind::DestroyDisk { .. }
            | OperationKind::Invalid { .. } => Err(Error::NotSpeculative(self.kind.kind())),
        }
    }

    /// What the operation takes from the pool.
    ///
    /// # Errors
    /// The operation's resources do not fit it.
    pub fn consumed(&self) -> Result<Resources, Error> {
        match &self.kind {
            OperationKind::Launch { tasks } => {
                Ok(tasks.iter().fold(Resources::new(), |mut sum, it| {
                    sum.add(&it.resources);
                    sum
                }))
            }
            OperationKind::LaunchGroup { executor, tasks } => {
                Ok(tasks
                    .iter()
                    .fold(executor.resources.clone(), |mut sum, it| {
                        sum.add(&it.resources);
                        sum
                    }))
            }
            OperationKind::CreateDisk { source, .. } | OperationKind::DestroyDisk { source } => {
                Ok(source.clone().into())
            }
            _ => self.conversion().map(|it| it.consumed),
        }
    }

    /// Whether the result is known before the agent has done it, and may be used at once by the
    /// next operation of the same call.
    pub fn is_speculative(&self) -> bool {
        matches!(
            self.kind,
            OperationKind::Reserve { .. }
                | OperationKind::Unreserve { .. }
                | OperationKind::Create { .. }
                | OperationKind::Destroy { .. }
                | OperationKind::GrowVolume { .. }
                | OperationKind::ShrinkVolume { .. }
        )
    }

    /// Whether what comes out of it is available to the rest of the same call. What GROW_VOLUME
    /// and SHRINK_VOLUME make appears only in a later offer.
    pub fn result_stays_in_pool(&self) -> bool {
        self.is_speculative()
            && !matches!(
                self.kind,
                OperationKind::GrowVolume { .. } | OperationKind::ShrinkVolume { .. }
            )
    }
}

fn with_amount(resource: &Resource, amount: Scalar) -> Resource {
    Resource {
        value: Value::Scalar(amount),
        ..resource.clone()
    }
}

/// Why an operation has no conversion.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// Its resources do not fit it.
    #[error(transparent)]
    Resources(#[from] resources::Error),
    /// A volume is not an amount.
    #[error("a volume is a SCALAR resource")]
    NotAnAmount,
    /// A volume smaller than nothing.
    #[error("cannot take {subtract} from a volume of {size}")]
    ShrinkTooFar {
        /// The volume's size.
        size: Scalar,
        /// What was to be taken.
        subtract: Scalar,
    },
    /// Its result is not known beforehand.
    #[error("the result of {} is not known before it is done", .0.as_str_name())]
    NotSpeculative(Type),
}

impl OperationKind {
    /// The kind as the wire names it.
    pub fn kind(&self) -> Type {
        match self {
            OperationKind::Launch { .. } => Type::Launch,
            OperationKind::LaunchGroup { .. } => Type::LaunchGroup,
            OperationKind::Reserve { .. } => Type::Reserve,
            OperationKind::Unreserve { .. } => Type::Unreserve,
            OperationKind::Create { .. } => Type::Create,
            OperationKind::Destroy { .. } => Type::Destroy,
            OperationKind::GrowVolume { .. } => Type::GrowVolume,
            OperationKind::ShrinkVolume { .. } => Type::ShrinkVolume,
            OperationKind::CreateDisk { .. } => Type::CreateDisk,
            OperationKind::DestroyDisk { .. } => Type::DestroyDisk,
            OperationKind::Invalid { kind, .. } => *kind,
        }
    }

    fn from_wire(operation: wire::offer::Operation, raw: Option<&Bytes>) -> OperationKind {
        let kind = operation.r#type();
        OperationKind::read(kind, operation, raw)
            .unwrap_or_else(|message| OperationKind::Invalid { kind, message })
    }

    fn read(
        kind: Type,
        operation: wire::offer::Operation,
        raw: Option<&Bytes>,
    ) -> Result<OperationKind, String> {
        Ok(match kind {
            Type::Launch => {
                let launch = required(operation.launch, "launch")?;
                let raw = raw
                    .and_then(|it| payload::path(it, &[number::LAUNCH]))
                    .map(|it| payload::fields(&it, number::LAUNCH_TASKS));
                OperationKind::Launch {
                    tasks: tasks(launch.task_infos, raw),
                }
            }
            Type::LaunchGroup => {
                let launch = required(operation.launch_group, "launch_group")?;
                let raw = raw.and_then(|it| payload::path(it, &[number::LAUNCH_GROUP]));
                let raw_executor = raw
                    .as_ref()
                    .and_then(|it| payload::path(it, &[number::GROUP_EXECUTOR]));
                let raw_tasks = raw
                    .and_then(|it| payload::path(&it, &[number::GROUP]))
                    .map(|it| payload::fields(&it, number::GROUP_TASKS));
                OperationKind::LaunchGroup {
                    executor: ExecutorInfo::from_wire(launch.executor, raw_executor).into(),
                    tasks: tasks(launch.task_group.tasks, raw_tasks),
                }
            }
            Type::Reserve => {
                let reserve = required(operation.reserve, "reserve")?;
                OperationKind::Reserve {
                    source: resources("reserve.source", &reserve.source)?,
                    resources: resources("reserve.resources", &reserve.resources)?,
                }
            }
            Type::Unreserve => {
                let unreserve = required(operation.unreserve, "unreserve")?;
                OperationKind::Unreserve {
                    resources: resources("unreserve.resources", &unreserve.resources)?,
                }
            }
            Type::Create => {
                let create = required(operation.create, "create")?;
                OperationKind::Create {
                    volumes: resources("create.volumes", &create.volumes)?,
                }
            }
            Type::Destroy => {
                let destroy = required(operation.destroy, "destroy")?;
                OperationKind::Destroy {
                    volumes: resources("destroy.volumes", &destroy.volumes)?,
                }
            }
            Type::GrowVolume => {
                let grow = required(operation.grow_volume, "grow_volume")?;
                OperationKind::GrowVolume {
                    volume: resource("grow_volume.volume", &grow.volume)?,
                    addition: resource("grow_volume.addition", &grow.addition)?,
                }
            }
            Type::ShrinkVolume => {
                let shrink = required(operation.shrink_volume, "shrink_volume")?;
                let subtract = Scalar::from_f64("disk", shrink.subtract.value);
                OperationKind::ShrinkVolume {
                    volume: resource("shrink_volume.volume", &shrink.volume)?,
                    subtract: subtract.map_err(|it| format!("shrink_volume.subtract: {it}"))?,
                }
            }
            Type::CreateDisk => {
                let create = required(operation.create_disk, "create_disk")?;
                OperationKind::CreateDisk {
                    source: resource("create_disk.source", &create.source)?,
                    target_type: create.target_type(),
                    target_profile: create.target_profile,
                }
            }
            Type::DestroyDisk => {
                let destroy = required(operation.destroy_disk, "destroy_disk")?;
                OperationKind::DestroyDisk {
                    source: resource("destroy_disk.source", &destroy.source)?,
                }
            }
            Type::Unknown => {
                return Err("the operation's type is missing or not known".to_owned());
            }
        })
    }
}

fn required<T>(field: Option<T>, name: &str) -> Result<T, String> {
    field.ok_or_else(|| format!("expecting '{name}' to be present"))
}

fn resources(field: &str, resources: &[wire::Resource]) -> Result<Resources, String> {
    Resources::from_wire(resources).map_err(|it| format!("{field}: {it}"))
}

fn resource(field: &str, resource: &wire::Resource) -> Result<Resource, String> {
    Resource::from_wire(resource).map_err(|it| format!("{field}: {it}"))
}

/// The tasks with their bytes, as long as there are as many of both.
fn tasks(infos: Vec<wire::TaskInfo>, raw: Option<Vec<Bytes>>) -> Vec<Arc<TaskInfo>> {
    let raw = raw.filter(|it| it.len() == infos.len()).unwrap_or_default();
    let mut raw = raw.into_iter();
    infos
        .into_iter()
        .map(|it| TaskInfo::from_wire(it, raw.next()).into())
        .collect()
}

/// Says in a resource of the wire that it is allocated to the role, where it does not say so.
pub fn inject_allocation(resources: &mut [wire::Resource], role: &Role) {
    for it in resources {
        it.allocation_info
            .get_or_insert_with(|| allocation_info(role));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{DiskInfo, Persistence, Reservation};
    use prost::Message;

    fn pool(text: &str) -> Resources {
        Resources::parse(text, "*").unwrap()
    }

    fn reservation() -> Reservation {
        Reservation::dynamic("a".into(), Some("p".into()))
    }

    fn disk(size: i64) -> Resource {
        Resource::scalar("disk", Scalar::from_units(size)).with_reservation(reservation())
    }

    fn volume(size: i64) -> Resource {
        disk(size).with_disk(DiskInfo {
            persistence: Some(Persistence {
                id: "v".into(),
                principal: None,
            }),
            volume: Some(wire::Volume {
                container_path: "data".into(),
                mode: wire::volume::Mode::Rw.into(),
                ..Default::default()
            }),
            source: None,
        })
    }

    fn operation(kind: OperationKind) -> OfferOperation {
        OfferOperation { id: None, kind }
    }

    /// Applies the operation, checks that no amount is made or lost, and that the wire carries it.
    fn apply(pool: &Resources, kind: OperationKind) -> Resources {
        let operation = operation(kind);
        let mut result = pool.clone();
        result.apply(&operation.conversion().unwrap()).unwrap();
        assert_eq!(result.quantities(), pool.quantities());
        assert_eq!(result.ports(), pool.ports());
        let wire = operation.to_wire();
        let raw = Bytes::from(wire.encode_to_vec());
        assert_eq!(OfferOperation::from_wire(wire, Some(&raw)), operation);
        result
    }

    #[test]
    fn a_volume_lives_its_life() {
        let bare = pool("cpus:4;disk:100;ports:[1-5]");
        let resources = Resources::from(disk(64));
        let reserved = apply(
            &bare,
            OperationKind::Reserve {
                source: Resources::new(),
                resources: resources.clone(),
            },
        );
        assert!(reserved.contains(&resources));
        assert_eq!(reserved.unreserved().disk(), Some(Scalar::from_units(36)));

        let volumes = Resources::from(volume(32));
        let created = apply(
            &reserved,
            OperationKind::Create {
                volumes: volumes.clone(),
            },
        );
        assert_eq!(created.persistent_volumes(), volumes);

        let grown = apply(
            &created,
            OperationKind::GrowVolume {
                volume: volume(32),
                addition: disk(8),
            },
        );
        assert!(grown.contains_resource(&volume(40)) && !grown.contains_resource(&volume(32)));

        let shrunk = apply(
            &grown,
            OperationKind::ShrinkVolume {
                volume: volume(40),
                subtract: Scalar::from_units(10),
            },
        );
        assert!(shrunk.contains_resource(&volume(30)) && shrunk.contains_resource(&disk(34)));

        let volumes = Resources::from(volume(30));
        let destroyed = apply(&shrunk, OperationKind::Destroy { volumes });
        assert!(destroyed.is_equivalent(&reserved));

        let unreserved = apply(&destroyed, OperationKind::Unreserve { resources });
        assert!(unreserved.is_equivalent(&bare));
    }

    #[test]
    fn what_is_not_there_is_not_converted() {
        let mut bare = pool("disk:10");
        let before = bare.clone();
        let reserve = operation(OperationKind::Reserve {
            source: Resources::new(),
            resources: disk(11).into(),
        });
        let error = bare.apply(&reserve.conversion().unwrap()).unwrap_err();
        assert!(error.to_string().contains("not contained"), "{error}");
        assert_eq!(bare, before);
        let shrink = operation(OperationKind::ShrinkVolume {
            volume: volume(5),
            subtract: Scalar::from_units(6),
        });
        assert!(shrink.conversion().is_err());
        let unreserve = operation(OperationKind::Unreserve {
            resources: pool("cpus:1"),
        });
        assert!(unreserve.conversion().is_err());
    }

    #[test]
    fn a_shared_volume_is_consumed_as_plain_disk() {
        let mut shared = volume(5);
        shared.shared = true;
        let result = apply(
            &Resources::from(disk(5)),
            OperationKind::Create {
                volumes: shared.clone().into(),
            },
        );
        assert_eq!(result, shared.into());
    }

    #[test]
    fn what_cannot_be_read_is_kept_for_the_answer() {
        let unknown = OfferOperation::from_wire(wire::offer::Operation::default(), None);
        assert!(unknown.fault().is_some());
        let missing = wire::offer::Operation {
            r#type: Some(Type::Reserve.into()),
            id: Some(OperationId::from("o").to_wire()),
            ..Default::default()
        };
        let missing = OfferOperation::from_wire(missing, None);
        assert_eq!(missing.id, Some("o".into()));
        assert_eq!(missing.kind.kind(), Type::Reserve);
        assert!(missing.fault().unwrap().contains("'reserve'"));
    }

    #[test]
    fn one_negative_amount_stands_for_all_tasks_of_a_launch() {
        let task = |id: &str, cpus: f64| {
            let mut cpus_ = Resource::scalar("cpus", Scalar::from_units(1)).to_wire();
            cpus_.scalar = Some(wire::value::Scalar { value: cpus });
            wire::TaskInfo {
                task_id: crate::TaskId::from(id).to_wire(),
                resources: vec![cpus_],
                ..Default::default()
            }
        };
        let launch = |tasks| {
            let operation = wire::offer::Operation {
                r#type: Some(Type::Launch.into()),
                launch: Some(op::Launch { task_infos: tasks }),
                ..Default::default()
            };
            let raw = Bytes::from(operation.encode_to_vec());
            OfferOperation::from_wire(operation, Some(&raw))
        };
        assert_eq!(launch(vec![task("a", 1.0)]).fault(), None);
        let bad = launch(vec![task("a", 1.0), task("b", -1.0)]);
        let text = bad.fault().unwrap();
        assert!(text.contains("\"b\"") && text.contains("cpus"), "{text}");
        assert_eq!(bad.tasks().len(), 2);
    }

    #[test]
    fn allocations_are_added_where_they_are_missing() {
        let mut it = operation(OperationKind::Unreserve {
            resources: Resources::from(disk(5)),
        });
        it.inject_allocation(&"a".into());
        let mut again = it.clone();
        again.inject_allocation(&"b".into());
        assert_eq!(it, again);
        assert_eq!(it.consumed().unwrap().allocations().len(), 1);
    }
}
