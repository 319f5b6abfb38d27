//! What frameworks do with an offer.

use crate::{
    agent::DISK,
    core::Core,
    framework::{Known, Store},
    random::Random,
    workload::{EXECUTOR_CPUS, EXECUTOR_MEM, Kind, Style, TaskPlan},
};
use tepui_model::{
    Principal, Role, Scalar,
    resources::{DiskInfo, Persistence, Reservation, Resource},
    wire::{
        self,
        offer::operation,
        scheduler::{self, call},
    },
};

/// How far a volume's life has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Tasks that were started on it.
    pub used: u64,
    /// Several tasks may use it at a time.
    pub shared: bool,
}

/// What to send.
pub(crate) struct Choice {
    pub(crate) call: scheduler::Call,
    pub(crate) tasks: Vec<String>,
}

/// What of an offer nobody has reserved.
#[derive(Debug, Default)]
struct Free {
    cpus: i64,
    mem: i64,
    disk: i64,
    ports: Vec<u64>,
}

impl Free {
    fn of(offers: &[wire::Offer]) -> Free {
        let mut free = Free::default();
        for it in offers
            .iter()
            .flat_map(|it| &it.resources)
            .filter(|it| it.reservations.is_empty())
        {
            let amount = it.scalar.map_or(0.0, |it| it.value);
            match it.name.as_str() {
                "cpus" => free.cpus += (amount * 1000.0).round() as i64,
                "mem" => free.mem += amount.round() as i64,
                "disk" => free.disk += amount.round() as i64,
                "ports" => {
                    let ranges = it.ranges.iter().flat_map(|it| &it.range);
                    free.ports.extend(ranges.flat_map(|it| it.begin..=it.end));
                }
                _ => {}
            }
        }
        free
    }
}

/// Answers one offer.
pub(crate) fn answer(
    core: &mut Core,
    style: &Style,
    number: usize,
    principal: &str,
    store: &mut Store,
    random: &mut Random,
    offer: &wire::Offer,
) -> Choice {
    let refuse = |random: &mut Random| match style.kind {
        Kind::Picky => 3600.0,
        _ => *random.pick(&[0.0, 1.0, 1.0, 5.0]),
    };
    let mut operations = Vec::new();
    let mut tasks = Vec::new();
    let wanted = match style.kind {
        _ if core.quiet => 0,
        Kind::Batch | Kind::Hoarder | Kind::Hostile | Kind::Executors => {
            style.most.saturating_sub(store.tasks.len()).min(4)
        }
        Kind::Service(count) => count.saturating_sub(store.tasks.len()).min(2),
        Kind::Reserver | Kind::Silent | Kind::Picky | Kind::Rough => 0,
    };
    let agent = agent_of(offer);
    let mut free = Free::of(std::slice::from_ref(offer));
    for _ in 0..wanted {
        store.made += 1;
        let id = format!("t{number}-{}", store.made);
        let mut plan = TaskPlan::draw(random, id, number, agent);
        if let Kind::Service(_) = style.kind {
            plan.runs_for = random.chance(100).then(|| plan.runs_for.unwrap_or(0) * 3);
        }
        let (mut cpus, mut mem) = (plan.cpus, plan.mem);
        if style.kind == Kind::Executors {
            plan.executor = Some(format!("e{}", plan.id));
            cpus += EXECUTOR_CPUS;
            mem += EXECUTOR_MEM;
        }
        if free.cpus < cpus || free.mem < mem {
            continue;
        }
        if random.chance(300) {
            plan.port = free.ports.pop();
        }
        free.cpus -= cpus;
        free.mem -= mem;
        operations.push(launch(&plan, offer, None));
        tasks.push(ask(core, store, offer, plan));
    }
    if style.kind == Kind::Reserver {
        let reserver = Reserver {
            number,
            principal,
            role: &style.role,
            agent,
        };
        reserver.answer(
            core,
            store,
            random,
            offer,
            &free,
            &mut operations,
            &mut tasks,
        );
    }
    let refuse_seconds = refuse(random);
    let call = call(core, vec![offer.id.clone()], operations, refuse_seconds);
    Choice { call, tasks }
}

/// Agents are known by the names of their machines.
fn agent_of(offer: &wire::Offer) -> usize {
    let number = offer.hostname.strip_prefix("host");
    let number = number.and_then(|it| it.parse().ok());
    number.unwrap_or(usize::MAX)
}

/// ACCEPT, or DECLINE when there is nothing to do.
fn call(
    core: &mut Core,
    offer_ids: Vec<wire::OfferId>,
    operations: Vec<wire::offer::Operation>,
    refuse_seconds: f64,
) -> scheduler::Call {
    core.checkers.offers.answered(&offer_ids);
    let filters = Some(wire::Filters {
        refuse_seconds: Some(refuse_seconds),
    });
    match operations.is_empty() {
        true => scheduler::Call {
            r#type: Some(call::Type::Decline as i32),
            decline: Some(call::Decline { offer_ids, filters }),
            ..scheduler::Call::default()
        },
        false => scheduler::Call {
            r#type: Some(call::Type::Accept as i32),
            accept: Some(call::Accept {
                offer_ids,
                operations,
                filters,
            }),
            ..scheduler::Call::default()
        },
    }
}

/// For which role an offer is.
pub(crate) fn role_of(offer: &wire::Offer) -> String {
    let allocation = offer.allocation_info.clone().unwrap_or_default();
    allocation.role.unwrap_or_default()
}

/// Of which agent and for which role an offer is.
pub(crate) fn place_of(offer: &wire::Offer) -> (String, String) {
    (offer.agent_id.value.clone(), role_of(offer))
}

/// Answers several offers at once, and not always as it should.
pub(crate) fn answer_roughly(
    core: &mut Core,
    style: &Style,
    number: usize,
    store: &mut Store,
    random: &mut Random,
    offers: &[wire::Offer],
) -> Choice {
    let first = &offers[0];
    let offer_ids = offers.iter().map(|it| it.id.clone()).collect();
    // Offers of one agent and role go together, and nobody else's.
    let of_several = offers.iter().any(|it| place_of(it) != place_of(first));
    let foreign = match random.chance(100) {
        true => core.checkers.offers.of_another(&first.framework_id.value),
        false => None,
    };
    let mut free = Free::of(offers);
    let (mut operations, mut tasks) = (Vec::new(), Vec::new());
    let wanted = match core.quiet {
        true => 0,
        false => style.most.saturating_sub(store.tasks.len()).min(4),
    };
    for _ in 0..wanted {
        store.made += 1;
        let id = format!("t{number}-{}", store.made);
        let mut plan = TaskPlan::draw(random, id.clone(), number, agent_of(first));
        let too_large = random.chance(150);
        if too_large {
            plan.cpus = free.cpus + 100;
        } else if free.cpus < plan.cpus || free.mem < plan.mem {
            continue;
        } else {
            free.cpus -= plan.cpus;
            free.mem -= plan.mem;
        }
        operations.push(launch(&plan, first, None));
        let twice = !too_large && random.chance(100);
        if twice {
            operations.push(launch(&plan, first, None));
        }
        tasks.push(ask(core, store, first, plan));
        if too_large || of_several || foreign.is_some() {
            core.checkers.tasks.is_wrong(&id);
        }
        if twice {
            core.checkers.tasks.is_asked_twice(&id);
        }
    }
    let refuse_seconds = *random.pick(&[0.0, 1.0, 5.0]);
    let mut call = call(core, offer_ids, operations, refuse_seconds);
    if let Some(accept) = &mut call.accept {
        accept.offer_ids.extend(foreign);
    } else if let Some(decline) = &mut call.decline {
        decline.offer_ids.extend(foreign);
    }
    Choice { call, tasks }
}

/// The checkers and the framework's own disk know of a task before it is asked for.
fn ask(core: &mut Core, store: &mut Store, offer: &wire::Offer, plan: TaskPlan) -> String {
    let id = plan.id.clone();
    store.tasks.insert(
        id.clone(),
        Known {
            agent: offer.agent_id.value.clone(),
            state: None,
            kill: false,
            kill_taken: false,
        },
    );
    core.checkers
        .tasks
        .ask(core.now, &offer.framework_id.value, plan);
    id
}

fn launch(
    plan: &TaskPlan,
    offer: &wire::Offer,
    volume: Option<wire::Resource>,
) -> wire::offer::Operation {
    let mut resources = vec![
        Resource::scalar("cpus", Scalar::from_millis(plan.cpus)).to_wire(),
        Resource::scalar("mem", Scalar::from_units(plan.mem)).to_wire(),
    ];
    if let Some(port) = plan.port {
        resources.push(wire::Resource {
            name: "ports".to_owned(),
            r#type: wire::value::Type::Ranges as i32,
            ranges: Some(wire::value::Ranges {
                range: vec![wire::value::Range {
                    begin: port,
                    end: port,
                }],
            }),
            ..wire::Resource::default()
        });
    }
    resources.extend(volume);
    let info = wire::TaskInfo {
        name: plan.id.clone(),
        task_id: wire::TaskId {
            value: plan.id.clone(),
        },
        agent_id: offer.agent_id.clone(),
        resources,
        ..wire::TaskInfo::default()
    };
    let command = wire::CommandInfo {
        value: Some("true".to_owned()),
        ..wire::CommandInfo::default()
    };
    let info = match &plan.executor {
        None => wire::TaskInfo {
            command: Some(command),
            ..info
        },
        Some(id) => wire::TaskInfo {
            executor: Some(wire::ExecutorInfo {
                r#type: Some(wire::executor_info::Type::Custom as i32),
                executor_id: wire::ExecutorId { value: id.clone() },
                framework_id: Some(offer.framework_id.clone()),
                command: Some(command),
                resources: vec![
                    Resource::scalar("cpus", Scalar::from_millis(EXECUTOR_CPUS)).to_wire(),
                    Resource::scalar("mem", Scalar::from_units(EXECUTOR_MEM)).to_wire(),
                ],
                ..wire::ExecutorInfo::default()
            }),
            ..info
        },
    };
    wire::offer::Operation {
        r#type: Some(operation::Type::Launch as i32),
        launch: Some(operation::Launch {
            task_infos: vec![info],
        }),
        ..wire::offer::Operation::default()
    }
}

/// A framework with data.
struct Reserver<'a> {
    number: usize,
    principal: &'a str,
    role: &'a str,
    agent: usize,
}

/// Megabytes of a volume.
const SIZE: i64 = 128;
/// Tasks on a volume before it is destroyed.
const USES: u64 = 3;

impl Reserver<'_> {
    #[allow(clippy::too_many_arguments)] // the parts of one choice
    fn answer(
        &self,
        core: &mut Core,
        store: &mut Store,
        random: &mut Random,
        offer: &wire::Offer,
        free: &Free,
        operations: &mut Vec<wire::offer::Operation>,
        tasks: &mut Vec<String>,
    ) {
        let own = offer.resources.iter().filter_map(|it| {
            let persistence = it.disk.as_ref()?.persistence.as_ref()?;
            Some((persistence.id.clone(), it.clone()))
        });
        for (id, resource) in own.collect::<Vec<_>>() {
            // Another framework of the role may have volumes, too.
            let Some(Volume { used, shared }) = store.volumes.get(&id).copied() else {
                continue;
            };
            if used >= USES || core.quiet && random.chance(300) {
                core.checkers.volumes.destroy(&id);
                operations.push(self.destroy(&id, resource.clone()));
                operations.push(self.unreserve(&id, resource));
                continue;
            }
            if core.quiet || free.cpus < 500 || free.mem < 64 || store.tasks.len() >= 4 {
                continue;
            }
            // Each of them needs half a cpu.
            let count = if shared { (free.cpus / 500).min(3) } else { 1 };
            for _ in 0..count {
                store.made += 1;
                let mut plan = TaskPlan::draw(
                    random,
                    format!("t{}-{}", self.number, store.made),
                    self.number,
                    self.agent,
                );
                (plan.cpus, plan.mem, plan.volume) = (500, 16, Some(id.clone()));
                operations.push(launch(&plan, offer, Some(resource.clone())));
                tasks.push(ask(core, store, offer, plan));
                store.volumes.entry(id.clone()).or_default().used += 1;
            }
            return;
        }
        if core.quiet || store.volumes.len() >= 6 || free.disk < SIZE || free.disk > DISK {
            return;
        }
        let id = format!("v{}-{}", self.number, store.volumes.len() + 1);
        let shared = random.chance(500);
        store.volumes.insert(id.clone(), Volume { used: 0, shared });
        core.checkers.volumes.create(&id, shared);
        let reserved = self.reserved();
        operations.push(wire::offer::Operation {
            r#type: Some(operation::Type::Reserve as i32),
            id: Some(operation_id("reserve", &id)),
            reserve: Some(operation::Reserve {
                resources: vec![reserved.clone().to_wire()],
                ..operation::Reserve::default()
            }),
            ..wire::offer::Operation::default()
        });
        let volume = reserved.with_disk(DiskInfo {
            persistence: Some(Persistence {
                id: id.as_str().into(),
                principal: Some(Principal::from(self.principal)),
            }),
            volume: Some(wire::Volume {
                mode: wire::volume::Mode::Rw as i32,
                container_path: "data".to_owned(),
                ..wire::Volume::default()
            }),
            source: None,
        });
        let volume = Resource { shared, ..volume };
        operations.push(wire::offer::Operation {
            r#type: Some(operation::Type::Create as i32),
            id: Some(operation_id("create", &id)),
            create: Some(operation::Create {
                volumes: vec![volume.to_wire()],
            }),
            ..wire::offer::Operation::default()
        });
    }

    fn reserved(&self) -> Resource {
        Resource::scalar("disk", Scalar::from_units(SIZE)).with_reservation(Reservation::dynamic(
            Role::from(self.role),
            Some(Principal::from(self.principal)),
        ))
    }

    fn destroy(&self, id: &str, resource: wire::Resource) -> wire::offer::Operation {
        wire::offer::Operation {
            r#type: Some(operation::Type::Destroy as i32),
            id: Some(operation_id("destroy", id)),
            destroy: Some(operation::Destroy {
                volumes: vec![resource],
            }),
            ..wire::offer::Operation::default()
        }
    }

    fn unreserve(&self, id: &str, resource: wire::Resource) -> wire::offer::Operation {
        wire::offer::Operation {
            r#type: Some(operation::Type::Unreserve as i32),
            id: Some(operation_id("unreserve", id)),
            unreserve: Some(operation::Unreserve {
                resources: vec![wire::Resource {
                    disk: None,
                    ..resource
                }],
            }),
            ..wire::offer::Operation::default()
        }
    }
}

fn operation_id(kind: &str, volume: &str) -> wire::OperationId {
    wire::OperationId {
        value: format!("{kind}-{volume}"),
    }
}

/// A call that no framework in its senses sends.
pub(crate) fn nonsense(random: &mut Random, store: &Store) -> scheduler::Call {
    let task = match random.chance(500) {
        true => store.tasks.keys().next().cloned(),
        false => None,
    };
    let task_id = wire::TaskId {
        value: task.unwrap_or_else(|| format!("no task {}", random.below(9))),
    };
    let agent_id = wire::AgentId {
        value: format!("no agent {}", random.below(9)),
    };
    let offer_ids = vec![wire::OfferId {
        value: format!("no offer {}", random.below(9)),
    }];
    let uuid: bytes::Bytes = random.next().to_le_bytes().repeat(2).into();
    let mut call = scheduler::Call::default();
    let kind = match random.below(8) {
        0 => {
            call.acknowledge = Some(call::Acknowledge {
                agent_id,
                task_id,
                uuid,
            });
            call::Type::Acknowledge
        }
        1 => {
            call.kill = Some(call::Kill {
                task_id: wire::TaskId {
                    value: "no task".to_owned(),
                },
                agent_id: Some(agent_id),
                ..call::Kill::default()
            });
            call::Type::Kill
        }
        2 => {
            let tasks = vec![call::reconcile::Task {
                task_id: wire::TaskId {
                    value: "no task".to_owned(),
                },
                agent_id: Some(agent_id),
            }];
            call.reconcile = Some(call::Reconcile { tasks });
            call::Type::Reconcile
        }
        3 => {
            call.decline = Some(call::Decline {
                offer_ids: [offer_ids.clone(), offer_ids].concat(),
                filters: None,
            });
            call::Type::Decline
        }
        4 => {
            call.accept = Some(call::Accept {
                offer_ids,
                ..call::Accept::default()
            });
            call::Type::Accept
        }
        5 => {
            call.revive = Some(call::Revive {
                roles: vec!["no role".to_owned()],
            });
            call::Type::Revive
        }
        6 => {
            call.message = Some(call::Message {
                agent_id,
                executor_id: wire::ExecutorId {
                    value: "no executor".to_owned(),
                },
                data: uuid,
            });
            call::Type::Message
        }
        _ => {
            call.acknowledge_operation_status = Some(call::AcknowledgeOperationStatus {
                agent_id: Some(agent_id),
                resource_provider_id: None,
                uuid,
                operation_id: operation_id("no", "operation"),
            });
            call::Type::AcknowledgeOperationStatus
        }
    };
    call.r#type = Some(kind as i32);
    call
}
