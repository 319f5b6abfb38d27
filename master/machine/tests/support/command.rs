//! The language of the scenario files: one command a line, words and `key=value`s.
//!
//! ```text
//! birth offer_timeout=5
//! agent a1 host=h1 addr=127.0.0.1:5051 res=cpus:4;mem:512 boot=b1 caps=X,Y
//! agent a1 id=m1-S0 done=1 task=m1-0000/t1:TASK_RUNNING fence=1.1
//! subscribe c1 name=fw failover=60 caps=PARTITION_AWARE roles=a,b
//! accept c1 m1-O0 refuse=60 | launch t1 cpus:1;mem:32 agent=m1-S0 | reserve cpus(..)
//! tick 15s
//! ```

use core::time::Duration;
use std::collections::BTreeMap;

use prost::Message as _;
use tepui_master_machine::config::RolePriority;
use tepui_master_machine::input::{
    Input, OperatorInput, OperatorRequest, SchedulerCall, StreamRef, SubscribeInput, Transport,
};
use tepui_model::call::Call;
use tepui_model::digest::{Digest, Head};
use tepui_model::id::Principal;
use tepui_model::link;
use tepui_model::resources::{DiskInfo, Persistence, Reservation, Resource, Resources, Scalar};
use tepui_model::wire::{self, offer::operation, scheduler, scheduler::call};

use super::World;

/// Words and options of one command.
pub struct Words<'a> {
    plain: Vec<&'a str>,
    options: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Words<'a> {
    pub fn parse(text: &'a str) -> Words<'a> {
        let mut words = Words {
            plain: Vec::new(),
            options: BTreeMap::new(),
        };
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some((key, value)) => words.options.entry(key).or_default().push(value),
                None => words.plain.push(word),
            }
        }
        words
    }

    pub fn plain(&self, index: usize) -> &'a str {
        self.plain
            .get(index)
            .copied()
            .unwrap_or_else(|| panic!("word {index} is missing: {:?}", self.plain))
    }

    pub fn maybe(&self, index: usize) -> Option<&'a str> {
        self.plain.get(index).copied()
    }

    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.options.get(key).and_then(|all| all.last().copied())
    }

    pub fn all(&self, key: &str) -> Vec<&'a str> {
        self.options.get(key).cloned().unwrap_or_default()
    }

    pub fn list(&self, key: &str) -> Vec<String> {
        self.get(key)
            .map(|text| text.split(',').map(str::to_owned).collect())
            .unwrap_or_default()
    }

    pub fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T>
    where
        T::Err: std::fmt::Debug,
    {
        self.get(key).map(|text| {
            text.parse()
                .unwrap_or_else(|error| panic!("{key}={text}: {error:?}"))
        })
    }
}

pub fn duration(text: &str) -> Duration {
    let digits = text
        .find(|it: char| !it.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number * 60),
        other => panic!("{text}: no unit {other}"),
    }
}

pub fn uuid(number: &str) -> bytes::Bytes {
    vec![number.parse::<u8>().expect("a small number"); 16].into()
}

pub fn configure(world: &mut World, words: &Words<'_>) {
    let config = &mut world.config;
    if let Some(seconds) = words.number("offer_timeout") {
        config.offer_timeout = Some(Duration::from_secs(seconds));
    }
    // preempt=role:priority:preempts, role:priority:preemptible, or role:priority:both
    for text in words.all("preempt") {
        let parts: Vec<&str> = text.split(':').collect();
        let is = |what: &str| parts[2] == what || parts[2] == "both";
        let priority = RolePriority {
            priority: parts[1].parse().expect("a priority"),
            preempts: is("preempts"),
            preemptible: is("preemptible"),
        };
        let roles = &mut config.preemption.roles;
        roles.insert(parts[0].to_owned(), priority);
    }
    if words.get("roles").is_some() {
        config.roles = Some(words.list("roles").into_iter().collect());
    }
    if let Some(root) = words.number("root_submissions") {
        config.root_submissions = root;
    }
    if let Some(seconds) = words.number("interval") {
        config.allocator.allocation_interval = Duration::from_secs(seconds);
    }
}

/// The input of a command; `None` when it is not one of these.
pub fn input(world: &mut World, text: &str) -> Option<Input> {
    let (head, operations) = match text.split_once(" | ") {
        Some((head, rest)) => (head, rest.split(" | ").collect()),
        None => (text, Vec::new()),
    };
    let words = Words::parse(head);
    Some(match words.plain(0) {
        "agent" => register(world, &words),
        "reattach" => reattach(world, &words),
        "subscribe" => subscribe(world, &words),
        "disconnect" => Input::SchedulerDisconnected {
            connection: world.connection(words.plain(1)),
        },
        "behind" | "caught-up" => Input::SchedulerPace {
            connection: world.connection(words.plain(1)),
            behind: words.plain(0) == "behind",
        },
        "turn" => Input::SchedulerTurn {
            connection: world.connection(words.plain(1)),
        },
        "detach" => Input::AgentDisconnected {
            connection: world.connection(words.plain(1)),
        },
        "pong" | "done" | "update" | "unregister" | "exited" | "opupdate" | "refused" | "hello"
        | "oversubscribe" => from_agent(world, &words),
        "whitelist" => Input::Whitelist(words.get("hosts").map(|_| words.list("hosts"))),
        "operator" => operator(world, &words),
        _ => scheduler_call(world, &words, &operations)?,
    })
}

fn agent_message(world: &mut World, name: &str, kind: link::agent_message::Kind) -> Input {
    Input::AgentMessage {
        connection: world.connection(name),
        principal: None,
        message: Box::new(link::AgentMessage { kind: Some(kind) }),
    }
}

pub fn register(world: &mut World, words: &Words<'_>) -> Input {
    let register = registration(words, world.replica.cluster().term);
    agent_message(
        world,
        words.plain(1),
        link::agent_message::Kind::Register(register),
    )
}

/// The small frame of an agent that would register like this. Containers are those that the
/// log names.
fn reattach(world: &mut World, words: &Words<'_>) -> Input {
    let register = registration(words, world.replica.cluster().term);
    let cluster = world.replica.cluster();
    let mut digest = Digest::new(Head {
        cluster_id: words.get("cluster").unwrap_or("cluster"),
        incarnation: words.number("incarnation").unwrap_or(1),
        info_payload: &register.info_payload,
        address: &register.address,
        version: &register.version,
        capabilities: &register.capabilities,
        boot_id: &register.boot_id,
        total: &register.total,
    });
    for task in &register.tasks {
        let id = (
            task.framework_id.as_str().into(),
            task.task_id.as_str().into(),
        );
        let row = world.replica.task(&id.0, &id.1);
        let container = row.map_or("c", |row| row.container_id.as_str());
        let ended = tepui_state::is_terminal(task.state);
        digest.task(&task.framework_id, &task.task_id, container, ended);
    }
    let attach = link::Attach {
        agent_id: register.agent_id,
        digest: digest.finish(),
        commands_done: register.commands_done,
        term: words.number("term").unwrap_or(cluster.term),
    };
    agent_message(
        world,
        words.plain(1),
        link::agent_message::Kind::Attach(attach),
    )
}

fn registration(words: &Words<'_>, term: u64) -> link::Register {
    let resources =
        Resources::parse(words.get("res").unwrap_or("cpus:4;mem:512"), "*").expect("res");
    let info = wire::AgentInfo {
        hostname: words.get("host").unwrap_or("h1").to_owned(),
        port: Some(5051),
        resources: resources.to_wire(),
        ..wire::AgentInfo::default()
    };
    let total = match words.get("total") {
        Some(text) => Resources::parse(text, "*").expect("total"),
        None => resources,
    };
    let tasks = words
        .all("task")
        .into_iter()
        .map(|text| {
            let mut parts = text.split(':');
            let (framework, task) = parts
                .next()
                .and_then(|it| it.split_once('/'))
                .expect("task=fw/id:STATE");
            let state = parts.next().expect("a state");
            let resources = Resources::parse("cpus:1;mem:32", "*")
                .expect("valid")
                .allocate(&"*".into());
            link::AgentTask {
                framework_id: framework.to_owned(),
                task_id: task.to_owned(),
                container_id: "c".to_owned(),
                state: wire::TaskState::from_str_name(state).expect("a state") as i32,
                executor_id: task.to_owned(),
                task_info_payload: wire::TaskInfo {
                    name: task.to_owned(),
                    ..Default::default()
                }
                .encode_to_vec()
                .into(),
                resources: resources.to_wire(),
                ..link::AgentTask::default()
            }
        })
        .collect();
    let executors = words.all("executor").into_iter().map(|text| {
        let (framework, id) = text.split_once('/').expect("executor=fw/id");
        let info = wire::ExecutorInfo {
            executor_id: wire::ExecutorId { value: id.into() },
            ..wire::ExecutorInfo::default()
        };
        let resources = Resources::parse("cpus:0.5;mem:32", "*").expect("valid");
        link::AgentExecutor {
            framework_id: framework.to_owned(),
            executor_info_payload: info.encode_to_vec().into(),
            resources: resources.allocate(&"*".into()).to_wire(),
        }
    });
    let fence = words.get("fence").map(|text| {
        let (incarnation, term) = text.split_once('.').expect("incarnation.term");
        link::Fence {
            cluster_id: words.get("cluster").unwrap_or("cluster").to_owned(),
            incarnation: incarnation.parse().expect("a number"),
            term: term.parse().expect("a number"),
        }
    });
    let frameworks = words.all("framework").into_iter().map(|id| {
        let info = wire::FrameworkInfo {
            id: Some(wire::FrameworkId {
                value: id.to_owned(),
            }),
            name: "adopted".to_owned(),
            ..wire::FrameworkInfo::default()
        };
        info.encode_to_vec().into()
    });
    link::Register {
        agent_id: words.get("id").unwrap_or_default().to_owned(),
        info_payload: match words.get("garbage") {
            Some(text) => text.as_bytes().to_vec().into(),
            None => info.encode_to_vec().into(),
        },
        address: words.get("addr").unwrap_or("127.0.0.1:5051").to_owned(),
        version: words.get("version").unwrap_or("0.1.0").to_owned(),
        capabilities: match words.get("caps") {
            Some(_) => words.list("caps"),
            None => vec![
                "MULTI_ROLE".into(),
                "HIERARCHICAL_ROLE".into(),
                "RESERVATION_REFINEMENT".into(),
            ],
        },
        boot_id: words.get("boot").unwrap_or("b1").to_owned(),
        total: total.to_wire(),
        commands_done: words.number("done").unwrap_or_default(),
        fence,
        tasks,
        executors: executors.collect(),
        framework_info_payloads: frameworks.collect(),
        // The answer to an invitation, unless said otherwise.
        term: words.number("term").unwrap_or(term),
        ..link::Register::default()
    }
}

fn from_agent(world: &mut World, words: &Words<'_>) -> Input {
    use link::agent_message::Kind;
    let kind = match words.plain(0) {
        "pong" => Kind::Pong(link::Pong { connected: true }),
        "unregister" => Kind::Unregister(link::Unregister {}),
        // All of it is made revocable, but for what is said with `plain=`.
        "oversubscribe" => {
            let mut resources = revocable(words.maybe(2).unwrap_or_default());
            if let Some(plain) = words.get("plain") {
                resources.add(&Resources::parse(plain, "*").expect("resources"));
            }
            Kind::Oversubscribed(link::Oversubscribed {
                resources: resources.to_wire(),
            })
        }
        "refused" => Kind::FenceRefused(link::FenceRefused { seen: None }),
        "hello" => Kind::ExecutorMessage(link::ExecutorMessage {
            framework_id: words.plain(2).to_owned(),
            executor_id: words.plain(3).to_owned(),
            data: b"hello".as_slice().into(),
        }),
        "exited" => Kind::ExecutorExited(link::ExecutorExited {
            framework_id: words.plain(2).to_owned(),
            executor_id: words.plain(3).to_owned(),
            status: 9,
        }),
        "done" => Kind::CommandsDone(link::CommandsDone {
            up_to: words.plain(2).parse().expect("a number"),
        }),
        "opupdate" => {
            let status = wire::OperationStatus {
                state: wire::OperationState::from_str_name(words.plain(3)).expect("a state") as i32,
                uuid: Some(wire::Uuid {
                    value: uuid(words.get("uuid").expect("uuid")),
                }),
                ..wire::OperationStatus::default()
            };
            let row = world
                .replica
                .operations()
                .find(|row| row.operation_id == words.plain(2))
                .map(|row| (row.uuid.clone(), row.framework_id.clone()));
            let (operation_uuid, framework_id) = row.unwrap_or_default();
            Kind::OperationUpdate(link::OperationUpdate {
                framework_id,
                operation_uuid,
                latest_state: status.state,
                status_payload: status.encode_to_vec().into(),
            })
        }
        _ => {
            let state = |text: &str| wire::TaskState::from_str_name(text).expect("a state") as i32;
            let (framework, task) = words.plain(2).split_once('/').expect("framework/task");
            let status = wire::TaskStatus {
                task_id: wire::TaskId {
                    value: task.to_owned(),
                },
                state: state(words.plain(3)),
                source: Some(wire::task_status::Source::Executor as i32),
                uuid: words.get("uuid").map(uuid),
                executor_id: Some(wire::ExecutorId {
                    value: task.to_owned(),
                }),
                timestamp: Some(world.wall().as_secs()),
                ..wire::TaskStatus::default()
            };
            Kind::TaskUpdate(link::TaskUpdate {
                framework_id: framework.to_owned(),
                latest_state: words.get("latest").map_or(status.state, state),
                status_payload: status.encode_to_vec().into(),
            })
        }
    };
    agent_message(world, words.plain(1), kind)
}

#[allow(deprecated)] // `role` is how frameworks without MULTI_ROLE say it
fn framework_info(words: &Words<'_>) -> wire::FrameworkInfo {
    let mut capabilities = words.list("caps");
    if words.get("roles").is_some() && words.get("single").is_none() {
        capabilities.push("MULTI_ROLE".to_owned());
    }
    let capabilities = capabilities
        .iter()
        .map(|name| wire::framework_info::Capability {
            r#type: Some(
                wire::framework_info::capability::Type::from_str_name(name).expect("a capability")
                    as i32,
            ),
        });
    wire::FrameworkInfo {
        user: words.get("user").unwrap_or("u").to_owned(),
        name: words.get("name").unwrap_or("fw").to_owned(),
        id: words.get("id").map(|it| wire::FrameworkId {
            value: it.to_owned(),
        }),
        failover_timeout: words.number("failover"),
        role: words.get("role").map(str::to_owned),
        roles: words.list("roles"),
        principal: words.get("principal").map(str::to_owned),
        checkpoint: words.number("checkpoint"),
        capabilities: capabilities.collect(),
        ..wire::FrameworkInfo::default()
    }
}

pub fn subscribe(world: &mut World, words: &Words<'_>) -> Input {
    let info = framework_info(words);
    let call = scheduler::Call {
        framework_id: info.id.clone(),
        r#type: Some(call::Type::Subscribe as i32),
        subscribe: Some(call::Subscribe {
            framework_info: info,
            suppressed_roles: words.list("suppressed"),
            ..call::Subscribe::default()
        }),
        ..scheduler::Call::default()
    };
    let Ok((_, Call::Subscribe(subscribe))) = Call::from_wire(call, None) else {
        panic!("no subscription");
    };
    let name = words.plain(1);
    Input::Subscribe(SubscribeInput {
        connection: world.connection(name),
        stream_id: format!("stream-{name}").into(),
        transport: Transport::V1Json,
        principal: words.get("auth").map(Principal::from),
        subscribe,
    })
}

fn scheduler_call(world: &mut World, words: &Words<'_>, operations: &[&str]) -> Option<Input> {
    let mut call = scheduler::Call::default();
    // The framework of the first connection, unless said otherwise.
    let id = words.get("fw").or(words.get("id")).unwrap_or("m1-0000");
    // `@m1-S0`: the newest offer of that agent.
    let offers = &*world;
    let ids = |text: &str| -> Vec<wire::OfferId> {
        text.split(',')
            .filter(|it| *it != "-")
            .map(|it| match it.strip_prefix('@') {
                Some(agent) => offers
                    .offer_of(id, agent)
                    .map_or_else(|| "no-offer".to_owned(), |it| it.to_string()),
                None => it.to_owned(),
            })
            .map(|value| wire::OfferId { value })
            .collect()
    };
    let filters = words.number("refuse").map(|seconds| wire::Filters {
        refuse_seconds: Some(seconds),
    });
    let agent = |key: &str| {
        words.get(key).map(|it| wire::AgentId {
            value: it.to_owned(),
        })
    };
    let task = |text: &str| wire::TaskId {
        value: text.to_owned(),
    };
    let executor = |text: &str| wire::ExecutorId {
        value: text.to_owned(),
    };
    let kind = match words.plain(0) {
        "teardown" => call::Type::Teardown,
        "accept" => {
            call.accept = Some(call::Accept {
                offer_ids: ids(words.plain(2)),
                operations: operations
                    .iter()
                    .map(|text| offer_operation(text))
                    .collect(),
                filters,
            });
            call::Type::Accept
        }
        "decline" => {
            call.decline = Some(call::Decline {
                offer_ids: ids(words.plain(2)),
                filters,
            });
            call::Type::Decline
        }
        "accept-inverse" => {
            call.accept_inverse_offers = Some(call::AcceptInverseOffers {
                inverse_offer_ids: ids(words.plain(2)),
                filters,
            });
            call::Type::AcceptInverseOffers
        }
        "decline-inverse" => {
            call.decline_inverse_offers = Some(call::DeclineInverseOffers {
                inverse_offer_ids: ids(words.plain(2)),
                filters,
            });
            call::Type::DeclineInverseOffers
        }
        "revive" => {
            call.revive = Some(call::Revive {
                roles: words.list("roles"),
            });
            call::Type::Revive
        }
        "request" => {
            let request = |text: String| wire::Request {
                agent_id: agent("agent"),
                resources: Resources::parse(&text, "*").expect("resources").to_wire(),
            };
            call.request = Some(call::Request {
                requests: words.list("res").into_iter().map(request).collect(),
            });
            call::Type::Request
        }
        "suppress" => {
            call.suppress = Some(call::Suppress {
                roles: words.list("roles"),
            });
            call::Type::Suppress
        }
        "kill" => {
            call.kill = Some(call::Kill {
                task_id: task(words.plain(2)),
                agent_id: agent("agent"),
                kill_policy: words.number("grace").map(|nanoseconds| wire::KillPolicy {
                    grace_period: Some(wire::DurationInfo { nanoseconds }),
                }),
            });
            call::Type::Kill
        }
        "shutdown" => {
            call.shutdown = Some(call::Shutdown {
                executor_id: executor(words.plain(2)),
                agent_id: agent("agent").expect("agent"),
            });
            call::Type::Shutdown
        }
        "acknowledge" => {
            call.acknowledge = Some(call::Acknowledge {
                agent_id: agent("agent").expect("agent"),
                task_id: task(words.plain(2)),
                uuid: uuid(words.get("uuid").expect("uuid")),
            });
            call::Type::Acknowledge
        }
        "acknowledge-operation" => {
            call.acknowledge_operation_status = Some(call::AcknowledgeOperationStatus {
                agent_id: agent("agent"),
                resource_provider_id: None,
                uuid: uuid(words.get("uuid").expect("uuid")),
                operation_id: wire::OperationId {
                    value: words.plain(2).to_owned(),
                },
            });
            call::Type::AcknowledgeOperationStatus
        }
        "reconcile" => {
            let tasks = (2..).map_while(|index| words.maybe(index)).map(|text| {
                let (id, agent) = text
                    .split_once('@')
                    .map_or((text, None), |(id, agent)| (id, Some(agent)));
                call::reconcile::Task {
                    task_id: task(id),
                    agent_id: agent.map(|it| wire::AgentId {
                        value: it.to_owned(),
                    }),
                }
            });
            call.reconcile = Some(call::Reconcile {
                tasks: tasks.collect(),
            });
            call::Type::Reconcile
        }
        "reconcile-operations" => {
            let operations = (2..).map_while(|index| words.maybe(index)).map(|text| {
                let (id, agent) = text
                    .split_once('@')
                    .map_or((text, None), |(id, agent)| (id, Some(agent)));
                call::reconcile_operations::Operation {
                    operation_id: wire::OperationId {
                        value: id.to_owned(),
                    },
                    agent_id: agent.map(|it| wire::AgentId {
                        value: it.to_owned(),
                    }),
                    resource_provider_id: None,
                }
            });
            call.reconcile_operations = Some(call::ReconcileOperations {
                operations: operations.collect(),
            });
            call::Type::ReconcileOperations
        }
        "message" => {
            call.message = Some(call::Message {
                agent_id: agent("agent").expect("agent"),
                executor_id: executor(words.plain(2)),
                data: b"hello".as_slice().into(),
            });
            call::Type::Message
        }
        "update-framework" => {
            call.update_framework = Some(call::UpdateFramework {
                framework_info: framework_info(words),
                suppressed_roles: words.list("suppressed"),
                ..call::UpdateFramework::default()
            });
            call::Type::UpdateFramework
        }
        _ => return None,
    };
    call.r#type = Some(kind as i32);
    let name = words.plain(1);
    call.framework_id = Some(wire::FrameworkId {
        value: id.to_owned(),
    });
    let (framework_id, call) = Call::from_wire(call, None).expect("a valid call");
    let stream = match words.get("stream") {
        None => StreamRef::Header(Some(format!("stream-{name}").into())),
        Some("none") => StreamRef::Header(None),
        Some("inside") => StreamRef::Connection(world.connection(name)),
        Some(other) => StreamRef::Header(Some(other.into())),
    };
    let reply = match &stream {
        StreamRef::Header(_) => Some(world.request()),
        StreamRef::Connection(_) => None,
    };
    Some(Input::SchedulerCall(SchedulerCall {
        reply,
        framework_id: framework_id.expect("given"),
        stream,
        principal: words.get("auth").map(Principal::from),
        call,
    }))
}

/// `launch ID RES [agent=] [executor=] [cpus=-1] [nocommand]`, `group ID RES ...`, and
/// the conversions.
pub fn offer_operation(text: &str) -> wire::offer::Operation {
    let words = Words::parse(text);
    let mut operation = wire::offer::Operation {
        id: words.get("opid").map(|it| wire::OperationId {
            value: it.to_owned(),
        }),
        ..wire::offer::Operation::default()
    };
    let kind = match words.plain(0) {
        "launch" => {
            let tasks = words
                .plain(1)
                .split(',')
                .map(|id| task_info(id, words.plain(2), &words));
            operation.launch = Some(operation::Launch {
                task_infos: tasks.collect(),
            });
            operation::Type::Launch
        }
        "group" => {
            let tasks = words
                .plain(1)
                .split(',')
                .map(|id| task_info(id, words.plain(2), &words));
            operation.launch_group = Some(operation::LaunchGroup {
                executor: wire::ExecutorInfo {
                    r#type: Some(wire::executor_info::Type::Default as i32),
                    executor_id: wire::ExecutorId {
                        value: "default".to_owned(),
                    },
                    framework_id: words.get("fw").map(|it| wire::FrameworkId {
                        value: it.to_owned(),
                    }),
                    resources: Resources::parse("cpus:0.1;mem:32;disk:1", "*")
                        .expect("valid")
                        .to_wire(),
                    ..wire::ExecutorInfo::default()
                },
                task_group: wire::TaskGroupInfo {
                    tasks: tasks.collect(),
                },
            });
            operation::Type::LaunchGroup
        }
        "reserve" => {
            operation.reserve = Some(operation::Reserve {
                resources: reserved(&words).to_wire(),
                ..operation::Reserve::default()
            });
            operation::Type::Reserve
        }
        "unreserve" => {
            operation.unreserve = Some(operation::Unreserve {
                resources: reserved(&words).to_wire(),
            });
            operation::Type::Unreserve
        }
        "create" => {
            operation.create = Some(operation::Create {
                volumes: volume(&words).to_wire(),
            });
            operation::Type::Create
        }
        "destroy" => {
            operation.destroy = Some(operation::Destroy {
                volumes: volume(&words).to_wire(),
            });
            operation::Type::Destroy
        }
        "grow" => {
            let addition = Resources::from(reserved_one(
                "disk",
                words.number("by").expect("by"),
                &words,
            ));
            operation.grow_volume = Some(operation::GrowVolume {
                volume: volume(&words).to_wire().remove(0),
                addition: addition.to_wire().remove(0),
            });
            operation::Type::GrowVolume
        }
        "shrink" => {
            operation.shrink_volume = Some(operation::ShrinkVolume {
                volume: volume(&words).to_wire().remove(0),
                subtract: wire::value::Scalar {
                    value: words.number("by").expect("by"),
                },
            });
            operation::Type::ShrinkVolume
        }
        other => panic!("no operation {other}"),
    };
    operation.r#type = Some(kind as i32);
    operation
}

fn revocable(text: &str) -> Resources {
    let mut resources = Resources::default();
    for it in Resources::parse(text, "*").expect("resources").iter() {
        let revocable = Resource {
            revocable: true,
            ..it.clone()
        };
        resources.add(&revocable.into());
    }
    resources
}

#[allow(deprecated)] // `source` takes part in the comparison of executors
fn task_info(id: &str, resources: &str, words: &Words<'_>) -> wire::TaskInfo {
    let mut all = match resources {
        "none" => Vec::new(),
        text => Resources::parse(text, "*").expect("resources").to_wire(),
    };
    if let Some(value) = words.number("cpus") {
        let mut cpus = Resource::scalar("cpus", Scalar::from_units(1)).to_wire();
        cpus.scalar = Some(wire::value::Scalar { value });
        all.push(cpus);
    }
    if let Some(text) = words.get("revocable") {
        all.extend(revocable(text).to_wire());
    }
    if words.get("volume").is_some() {
        all.extend(volume(words).to_wire());
    }
    if words.get("role").is_some() && words.get("volume").is_none() {
        all = reserved_all(Resources::parse(resources, "*").expect("resources"), words).to_wire();
    }
    let command = wire::CommandInfo {
        value: Some("true".to_owned()),
        ..wire::CommandInfo::default()
    };
    let priority = words.get("priority").map(|it| wire::Labels {
        labels: vec![wire::Label {
            key: "priority".to_owned(),
            value: Some(it.to_owned()),
        }],
    });
    wire::TaskInfo {
        name: id.to_owned(),
        labels: priority,
        task_id: wire::TaskId {
            value: id.to_owned(),
        },
        agent_id: wire::AgentId {
            value: words.get("agent").unwrap_or("m1-S0").to_owned(),
        },
        resources: all,
        command: (words.get("executor").is_none() && words.get("nocommand").is_none())
            .then(|| command.clone()),
        executor: words.get("executor").map(|executor| wire::ExecutorInfo {
            executor_id: wire::ExecutorId {
                value: executor.to_owned(),
            },
            command: Some(command),
            source: words.get("source").map(str::to_owned),
            resources: Resources::parse("cpus:0.5;mem:32", "*")
                .expect("valid")
                .to_wire(),
            ..wire::ExecutorInfo::default()
        }),
        kill_policy: words.number("grace").map(|nanoseconds| wire::KillPolicy {
            grace_period: Some(wire::DurationInfo { nanoseconds }),
        }),
        ..wire::TaskInfo::default()
    }
}

fn reservation(words: &Words<'_>) -> Reservation {
    Reservation::dynamic(
        words.get("role").expect("role").into(),
        words.get("principal").map(Principal::from),
    )
}

fn reserved_all(resources: Resources, words: &Words<'_>) -> Resources {
    resources.push_reservation(&reservation(words))
}

fn reserved(words: &Words<'_>) -> Resources {
    reserved_all(
        Resources::parse(words.plain(1), "*").expect("resources"),
        words,
    )
}

fn reserved_one(name: &str, amount: i64, words: &Words<'_>) -> Resource {
    Resource::scalar(name, Scalar::from_units(amount)).with_reservation(reservation(words))
}

fn volume(words: &Words<'_>) -> Resources {
    let size = words.number("size").unwrap_or(64);
    let mut volume = reserved_one("disk", size, words).with_disk(DiskInfo {
        persistence: Some(Persistence {
            id: words.get("volume").expect("volume").into(),
            principal: words.get("principal").map(Principal::from),
        }),
        volume: Some(wire::Volume {
            mode: wire::volume::Mode::Rw as i32,
            container_path: "data".to_owned(),
            ..wire::Volume::default()
        }),
        source: None,
    });
    volume.shared = words.get("shared").is_some();
    volume.into()
}

fn operator(world: &mut World, words: &Words<'_>) -> Input {
    let agent_id = || words.plain(2).into();
    let machines = || {
        vec![wire::MachineId {
            hostname: words.get("host").map(str::to_owned),
            ip: words.get("ip").map(str::to_owned),
        }]
    };
    let request = match words.plain(1) {
        "teardown" => OperatorRequest::Teardown {
            framework_id: words.plain(2).into(),
        },
        "kill" => {
            let (framework, task) = words.plain(2).split_once('/').expect("framework/task");
            OperatorRequest::KillTask {
                framework_id: framework.into(),
                task_id: task.into(),
            }
        }
        "explain" => OperatorRequest::Explain {
            framework_id: words.get("framework").map(Into::into),
            role: words.get("role").map(Into::into),
        },
        "gone" => OperatorRequest::MarkAgentGone {
            agent_id: agent_id(),
        },
        "deactivate" => OperatorRequest::DeactivateAgent {
            agent_id: agent_id(),
        },
        "reactivate" => OperatorRequest::ReactivateAgent {
            agent_id: agent_id(),
        },
        "drain" => OperatorRequest::DrainAgent {
            agent_id: agent_id(),
            max_grace_period_ns: words.number("grace"),
            mark_gone: words.get("mark_gone").is_some(),
        },
        "weights" => OperatorRequest::UpdateWeights {
            weights: words
                .all("weight")
                .into_iter()
                .map(|text| {
                    let (role, micro) = text.split_once(':').expect("role:micro");
                    (role.to_owned(), micro.parse().expect("a number"))
                })
                .collect(),
        },
        "quota" => {
            let map = |key: &str| {
                words
                    .list(key)
                    .iter()
                    .map(|text| {
                        let (name, value) = text.split_once(':').expect("name:value");
                        (
                            name.to_owned(),
                            wire::value::Scalar {
                                value: value.parse().expect("a number"),
                            },
                        )
                    })
                    .collect()
            };
            OperatorRequest::UpdateQuota {
                force: words.get("force").is_some(),
                configs: vec![wire::quota::QuotaConfig {
                    role: words.plain(2).to_owned(),
                    guarantees: map("guarantees"),
                    limits: map("limits"),
                }],
            }
        }
        "schedule" => OperatorRequest::UpdateMaintenanceSchedule {
            schedule: wire::maintenance::Schedule {
                windows: if words.get("empty").is_some() {
                    Vec::new()
                } else {
                    vec![wire::maintenance::Window {
                        machine_ids: machines(),
                        unavailability: wire::Unavailability::default(),
                    }]
                },
            },
        },
        "down" => OperatorRequest::StartMaintenance {
            machines: machines(),
        },
        "up" => OperatorRequest::StopMaintenance {
            machines: machines(),
        },
        _ => {
            let rest = ["reserve", "unreserve", "create", "destroy"];
            let kind = words.plain(1);
            assert!(rest.contains(&kind), "no operator request {kind}");
            let mut text = kind.to_owned();
            if let Some(resources) = words.maybe(3) {
                text.push_str(&format!(" {resources}"));
            }
            for key in ["role", "principal", "volume", "size"] {
                if let Some(value) = words.get(key) {
                    text.push_str(&format!(" {key}={value}"));
                }
            }
            OperatorRequest::AgentOperation {
                agent_id: agent_id(),
                operation: Box::new(offer_operation(&text)),
            }
        }
    };
    Input::Operator(OperatorInput {
        reply: world.request(),
        principal: None,
        request,
    })
}
