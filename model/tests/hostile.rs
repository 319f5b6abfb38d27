//! Whatever a client sends, reading, checking and converting it ends in a value.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::Index};
use prost::Message;
use std::sync::LazyLock;
use tepui_model::{
    AgentId, FrameworkId, Resources, Role,
    agent::{AgentCapabilities, AgentInfo},
    call::Call,
    operation::{OfferOperation, OperationKind},
    validation::{self, OperationContext, TaskContext},
    wire,
};
use wire::{offer::operation as op, scheduler::call::Type};

/// Resources with everything in them that can be.
fn resources() -> Vec<wire::Resource> {
    let mut all = Resources::parse("cpus:1;mem(a):2;ports:[1-5,7-9];s:{x,y}", "*")
        .unwrap()
        .to_wire();
    let mut volume = all[1].clone();
    volume.name = "disk".into();
    volume.disk = Some(Box::new(wire::resource::DiskInfo {
        persistence: Some(wire::resource::disk_info::Persistence {
            id: "v".into(),
            principal: Some("p".into()),
        }),
        volume: Some(wire::Volume {
            container_path: "d".into(),
            ..Default::default()
        }),
        source: Some(wire::resource::disk_info::Source::default()),
    }));
    volume.shared = Some(wire::resource::SharedInfo {});
    all.push(volume);
    all
}

fn task() -> wire::TaskInfo {
    wire::TaskInfo {
        name: "t".into(),
        task_id: wire::TaskId { value: "t".into() },
        agent_id: wire::AgentId { value: "a".into() },
        resources: resources(),
        executor: Some(executor()),
        command: Some(wire::CommandInfo {
            environment: Some(wire::Environment {
                variables: vec![wire::environment::Variable::default()],
            }),
            ..Default::default()
        }),
        container: Some(wire::ContainerInfo {
            volumes: vec![wire::Volume::default()],
            docker: Some(Default::default()),
            linux_info: Some(Default::default()),
            ..Default::default()
        }),
        health_check: Some(wire::HealthCheck {
            http: Some(Default::default()),
            ..Default::default()
        }),
        check: Some(wire::CheckInfo::default()),
        kill_policy: Some(wire::KillPolicy {
            grace_period: Some(wire::DurationInfo { nanoseconds: 1 }),
        }),
        limits: [("cpus".to_owned(), wire::value::Scalar { value: 2.0 })].into(),
        ..Default::default()
    }
}

fn executor() -> wire::ExecutorInfo {
    wire::ExecutorInfo {
        executor_id: wire::ExecutorId { value: "e".into() },
        framework_id: Some(wire::FrameworkId { value: "f".into() }),
        resources: resources(),
        ..Default::default()
    }
}

/// One call with one operation of each kind, and one subscription with all that can be in it.
static BODIES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let resource = || resources().remove(4);
    let kinds = (0..15).filter_map(|it| op::Type::try_from(it).ok());
    let operations = kinds.map(|kind| wire::offer::Operation {
        r#type: Some(kind.into()),
        id: Some(wire::OperationId { value: "o".into() }),
        launch: Some(op::Launch {
            task_infos: vec![task()],
        }),
        launch_group: Some(op::LaunchGroup {
            executor: executor(),
            task_group: wire::TaskGroupInfo {
                tasks: vec![task()],
            },
        }),
        reserve: Some(op::Reserve {
            source: Vec::new(),
            resources: resources(),
        }),
        unreserve: Some(op::Unreserve {
            resources: resources(),
        }),
        create: Some(op::Create {
            volumes: vec![resource()],
        }),
        destroy: Some(op::Destroy {
            volumes: vec![resource()],
        }),
        grow_volume: Some(op::GrowVolume {
            volume: resource(),
            addition: resource(),
        }),
        shrink_volume: Some(op::ShrinkVolume {
            volume: resource(),
            subtract: wire::value::Scalar { value: 1.0 },
        }),
        create_disk: Some(op::CreateDisk {
            source: resource(),
            ..Default::default()
        }),
        destroy_disk: Some(op::DestroyDisk { source: resource() }),
    });
    let framework_id = Some(wire::FrameworkId { value: "f".into() });
    let accept = wire::scheduler::Call {
        framework_id: framework_id.clone(),
        r#type: Some(Type::Accept.into()),
        accept: Some(wire::scheduler::call::Accept {
            operations: operations.collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let subscribe = wire::scheduler::Call {
        framework_id: framework_id.clone(),
        r#type: Some(Type::Subscribe.into()),
        subscribe: Some(wire::scheduler::call::Subscribe {
            framework_info: wire::FrameworkInfo {
                id: framework_id,
                failover_timeout: Some(1.0),
                roles: vec!["a".into()],
                offer_filters: [("a".to_owned(), wire::OfferFilters::default())].into(),
                ..Default::default()
            },
            offer_constraints: Some(wire::scheduler::OfferConstraints {
                role_constraints: [("a".to_owned(), Default::default())].into(),
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    [accept.encode_to_vec(), subscribe.encode_to_vec()]
});

/// Everything that a master does with a call before it looks at its tables. Says how many
/// operations it read.
fn handle(body: Bytes) -> usize {
    let Ok(call) = wire::scheduler::Call::decode(body.clone()) else {
        return 0;
    };
    let Ok((_, call)) = Call::from_wire(call, Some(body)) else {
        return 0;
    };
    match call {
        Call::Subscribe(subscribe) => {
            let info = &subscribe.framework_info;
            let _ = info.validate();
            let _ = info.validate_suppressed(&subscribe.suppressed_roles);
            if let Some(constraints) = &subscribe.offer_constraints {
                let _ = info.validate_constraints(constraints);
            }
            let _ = info.with_id(&"m-0000".into()).with_principal(&"p".into());
            0
        }
        Call::Accept { mut operations, .. } => {
            operations.iter_mut().for_each(check);
            operations.len()
        }
        _ => 0,
    }
}

fn check(operation: &mut OfferOperation) {
    let (framework_id, agent_id) = (FrameworkId::from("f"), AgentId::from("a"));
    let context = TaskContext {
        framework_id: &framework_id,
        agent_id: &agent_id,
        agent_capabilities: AgentCapabilities::all(),
    };
    let fault = operation.fault();
    operation.inject_allocation(&Role::from("a"));
    for task in operation.tasks() {
        let _ = validation::task_id(task);
        let _ = validation::task(task, &context);
        let _ = validation::launch(task, &context);
        let _ = task.resources_with_executor().to_string();
    }
    if let OperationKind::LaunchGroup { executor, tasks } = &operation.kind {
        let _ = validation::group(executor, tasks, &context);
    }
    let total = operation.consumed().unwrap_or_default();
    let context = OperationContext {
        principal: None,
        roles: None,
        allocation_role: None,
        shared_resources: true,
        agent_capabilities: AgentCapabilities::all(),
        agent_total: &total.unallocate(),
    };
    let _ = validation::operation_id(operation, context.agent_capabilities);
    let _ = validation::operation(operation, &context);
    if let Ok(conversion) = operation.conversion() {
        let mut pool = conversion.consumed.clone();
        assert_eq!(pool.apply(&conversion), Ok(()));
    }
    // What can be read at all is read again from what is written of it.
    if fault.is_none() && !matches!(operation.kind, OperationKind::Invalid { .. }) {
        let again = OfferOperation::from_wire(operation.to_wire(), None);
        assert_eq!(again.fault(), None);
    }
}

#[test]
fn the_untouched_calls_are_read_whole() {
    assert_eq!(handle(BODIES[0].clone().into()), 11);
    assert_eq!(handle(BODIES[1].clone().into()), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_call_makes_it_panic(
        which in 0..2usize,
        changes in vec((any::<Index>(), any::<u8>()), 1..6),
    ) {
        let mut body = BODIES[which].clone();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        handle(body.into());
    }

    #[test]
    fn no_bytes_make_a_description_panic(bytes in vec(any::<u8>(), 0..64)) {
        let bytes = Bytes::from(bytes);
        let _ = AgentInfo::from_payload(bytes.clone()).validate();
        let _ = tepui_model::framework::FrameworkInfo::from_payload(bytes.clone()).validate();
        let _ = tepui_model::task::TaskInfo::from_payload(bytes.clone());
        let _ = tepui_model::executor::ExecutorInfo::from_payload(bytes);
    }
}
