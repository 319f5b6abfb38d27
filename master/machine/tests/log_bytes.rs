//! What a change costs in the log does not depend on the size of the cluster, and what only shows
//! that everybody is alive costs nothing.
//!
//! `AGENTS=100,1000000 cargo test --release -p tepui-master-machine --test log_bytes -- --nocapture`
//! prints the bytes for other sizes.

use prost::Message as _;
use tepui_master_machine::input::{
    ConnectionId, Input, SchedulerCall, StreamRef, SubscribeInput, Transport,
};
use tepui_master_machine::output::{Output, ViewChange};
use tepui_master_machine::{Config, Machine};
use tepui_model::call::Call;
use tepui_model::link::agent_message::Kind;
use tepui_model::resources::Resources;
use tepui_model::time::{Instant, WallTime};
use tepui_model::{link, log, wire};
use tepui_state::ClusterState;

const FRAMEWORK: ConnectionId = ConnectionId(1);
const HOUR: u64 = 3600;

struct World {
    machine: Machine,
    now: Instant,
    /// The newest offer: its id and agent.
    offer: Option<(String, String)>,
}

impl World {
    fn step(&mut self, input: Input) -> Output {
        let output = self.machine.step(self.now, WallTime(1.0), input);
        for change in &output.view {
            if let ViewChange::OfferAdded(offer) = change {
                self.offer = Some((offer.id.to_string(), offer.agent_id.to_string()));
            }
        }
        output
    }

    fn agent(&mut self, index: u64, kind: Kind) -> Output {
        self.step(Input::AgentMessage {
            connection: ConnectionId(10 + index),
            principal: None,
            message: Box::new(link::AgentMessage { kind: Some(kind) }),
        })
    }

    fn register(&mut self, index: u64) -> Output {
        let total = Resources::parse("cpus:24;mem:65536;disk:65536;ports:[31000-32000]", "*");
        let total = total.unwrap().to_wire();
        let info = wire::AgentInfo {
            hostname: format!("host-{index:08}.example.org"),
            port: Some(5051),
            resources: total.clone(),
            ..Default::default()
        };
        let [_, a, b, c] = (0x0a00_0000 + index as u32).to_be_bytes();
        let register = link::Register {
            info_payload: info.encode_to_vec().into(),
            address: format!("10.{a}.{b}.{c}:{}", 10_000 + index % 50_000),
            version: "1.12.0".into(),
            boot_id: format!("boot-{index:08}"),
            total,
            ..Default::default()
        };
        self.agent(index, Kind::Register(register))
    }

    fn call(&mut self, call: wire::scheduler::Call) -> Output {
        let (framework_id, call) = Call::from_wire(call, None).unwrap();
        let input = match call {
            Call::Subscribe(subscribe) => Input::Subscribe(SubscribeInput {
                connection: FRAMEWORK,
                stream_id: "stream".into(),
                transport: Transport::Grpc,
                principal: None,
                subscribe,
            }),
            call => Input::SchedulerCall(SchedulerCall {
                reply: None,
                framework_id: framework_id.unwrap(),
                stream: StreamRef::Connection(FRAMEWORK),
                principal: None,
                call,
            }),
        };
        self.step(input)
    }
}

fn bytes(output: &Output) -> usize {
    let operations = output.log.clone();
    let entry = log::Entry {
        operations,
        ..Default::default()
    };
    match entry.operations.is_empty() {
        true => 0,
        false => entry.encoded_len(),
    }
}

fn call(kind: wire::scheduler::call::Type) -> wire::scheduler::Call {
    wire::scheduler::Call {
        framework_id: Some(wire::FrameworkId {
            value: "m-0000".into(),
        }),
        r#type: Some(kind as i32),
        ..Default::default()
    }
}

/// Bytes of a registration, a launch, an update and its acknowledgement, and of an hour of pings.
fn measure(agents: u64) -> [usize; 5] {
    use wire::scheduler::call;
    let now = Instant(1_000_000_000);
    let (machine, _) = Machine::birth(
        ClusterState::new(),
        1,
        now,
        WallTime(1.0),
        7,
        "m",
        Config::default(),
    );
    let mut world = World {
        machine,
        now,
        offer: None,
    };
    for index in 0..agents {
        drop(world.register(index));
    }
    let registration = bytes(&world.register(agents));

    let subscribe = call::Subscribe {
        framework_info: wire::FrameworkInfo {
            user: "root".into(),
            name: "f".into(),
            ..Default::default()
        },
        ..Default::default()
    };
    drop(world.call(wire::scheduler::Call {
        framework_id: None,
        subscribe: Some(subscribe),
        ..self::call(call::Type::Subscribe)
    }));
    // Allocations go by slices.
    while world.offer.is_none() {
        world.now = world.machine.next_deadline().unwrap().max(world.now);
        drop(world.step(Input::Tick));
    }
    let (offer, agent_id) = world.offer.clone().unwrap();
    let task = wire::TaskInfo {
        name: "t".into(),
        task_id: wire::TaskId { value: "t".into() },
        agent_id: wire::AgentId {
            value: agent_id.clone(),
        },
        resources: Resources::parse("cpus:0.1;mem:32", "*").unwrap().to_wire(),
        command: Some(wire::CommandInfo {
            value: Some("true".into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let launch = wire::offer::Operation {
        r#type: Some(wire::offer::operation::Type::Launch as i32),
        launch: Some(wire::offer::operation::Launch {
            task_infos: vec![task],
        }),
        ..Default::default()
    };
    let accept = call::Accept {
        offer_ids: vec![wire::OfferId { value: offer }],
        operations: vec![launch],
        ..Default::default()
    };
    let launch = world.call(wire::scheduler::Call {
        accept: Some(accept),
        ..self::call(call::Type::Accept)
    });

    let index = agent_id.rsplit('S').next().unwrap().parse().unwrap();
    let status = wire::TaskStatus {
        task_id: wire::TaskId { value: "t".into() },
        state: wire::TaskState::TaskRunning as i32,
        agent_id: Some(wire::AgentId {
            value: agent_id.clone(),
        }),
        uuid: Some(vec![5; 16].into()),
        timestamp: Some(1.0),
        ..Default::default()
    };
    let update = world.agent(
        index,
        Kind::TaskUpdate(link::TaskUpdate {
            framework_id: "m-0000".into(),
            status_payload: status.encode_to_vec().into(),
            latest_state: status.state,
        }),
    );
    let acknowledge = call::Acknowledge {
        agent_id: wire::AgentId { value: agent_id },
        task_id: wire::TaskId { value: "t".into() },
        uuid: vec![5; 16].into(),
    };
    let acknowledged = world.call(wire::scheduler::Call {
        acknowledge: Some(acknowledge),
        ..self::call(call::Type::Acknowledge)
    });
    for output in [&launch, &update, &acknowledged] {
        assert!(bytes(output) > 0);
    }

    // Everybody answers: agents their pings, the log nothing.
    let until = Instant(world.now.0 + HOUR * 1_000_000_000);
    let mut alive = 0;
    while agents <= 10_000 && world.now < until {
        world.now = world.machine.next_deadline().unwrap().max(world.now);
        alive += bytes(&world.step(Input::Tick));
        for index in 0..=agents {
            alive += bytes(&world.agent(index, Kind::Pong(link::Pong { connected: true })));
        }
        world.now = Instant(world.now.0 + 5_000_000_000);
    }
    [
        registration,
        bytes(&launch),
        bytes(&update),
        bytes(&acknowledged),
        alive,
    ]
}

#[test]
fn bytes_of_a_change_do_not_depend_on_the_size_of_the_cluster() {
    let sizes = std::env::var("AGENTS").unwrap_or_else(|_| "100,900".to_owned());
    let sizes = sizes.split(',').map(|it| it.parse().expect("AGENTS=N,N"));
    // Names in the log grow by the digits of their numbers, in three places at most: a launch names
    // its agent in the task's info, as the task's key, and as where its command goes.
    let digits = |agents: u64| agents.to_string().len();
    let measured: Vec<_> = sizes.map(|it| (digits(it), measure(it))).collect();
    println!("registration, launch, update, acknowledgement, hour of pings: {measured:?}");
    let (fewest, first) = measured[0];
    for (digits, other) in &measured {
        let room = 3 * digits.abs_diff(fewest);
        for (a, b) in first.iter().zip(other) {
            assert!(a.abs_diff(*b) <= room, "{first:?} and {other:?}");
        }
        assert_eq!(other[4], 0, "somebody's life is in the log");
    }
}
