//! The calls of the scheduler API as messages.
//!
//! Each function builds one `mesos.v1.scheduler.Call`; the session adds the framework
//! id. Use [`crate::Driver`], which sends them, unless you need the raw message.

use bytes::Bytes;
use tepui_proto::mesos::v1;
use v1::scheduler::{Call, call};

fn call(kind: call::Type) -> Call {
    Call {
        r#type: Some(kind as i32),
        ..Call::default()
    }
}

/// Subscribes, or subscribes again when `framework` carries an id.
pub fn subscribe(framework: v1::FrameworkInfo, suppressed_roles: Vec<String>) -> Call {
    Call {
        framework_id: framework.id.clone(),
        subscribe: Some(call::Subscribe {
            framework_info: framework,
            suppressed_roles,
            offer_constraints: None,
        }),
        ..call(call::Type::Subscribe)
    }
}

/// Uses offers of one agent: the operations are applied in order, the rest is declined
/// with `filters`.
pub fn accept(
    offer_ids: Vec<v1::OfferId>,
    operations: Vec<v1::offer::Operation>,
    filters: Option<v1::Filters>,
) -> Call {
    Call {
        accept: Some(call::Accept {
            offer_ids,
            operations,
            filters,
        }),
        ..call(call::Type::Accept)
    }
}

/// The operation that launches `tasks`.
pub fn launch(tasks: Vec<v1::TaskInfo>) -> v1::offer::Operation {
    v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::Launch as i32),
        launch: Some(v1::offer::operation::Launch { task_infos: tasks }),
        ..Default::default()
    }
}

/// Gives offers back; what they held is not offered again for the filter's time.
pub fn decline(offer_ids: Vec<v1::OfferId>, filters: Option<v1::Filters>) -> Call {
    Call {
        decline: Some(call::Decline { offer_ids, filters }),
        ..call(call::Type::Decline)
    }
}

/// Asks for offers again: filters of these roles (all when empty) are forgotten.
pub fn revive(roles: Vec<String>) -> Call {
    Call {
        revive: Some(call::Revive { roles }),
        ..call(call::Type::Revive)
    }
}

/// Wants no offers for these roles (all when empty) until revived.
pub fn suppress(roles: Vec<String>) -> Call {
    Call {
        suppress: Some(call::Suppress { roles }),
        ..call(call::Type::Suppress)
    }
}

/// Kills a task, with its own kill policy or the one given.
pub fn kill(
    task_id: v1::TaskId,
    agent_id: Option<v1::AgentId>,
    kill_policy: Option<v1::KillPolicy>,
) -> Call {
    Call {
        kill: Some(call::Kill {
            task_id,
            agent_id,
            kill_policy,
        }),
        ..call(call::Type::Kill)
    }
}

/// Acknowledges a status that carried a uuid.
pub fn acknowledge(agent_id: v1::AgentId, task_id: v1::TaskId, uuid: Bytes) -> Call {
    Call {
        acknowledge: Some(call::Acknowledge {
            agent_id,
            task_id,
            uuid,
        }),
        ..call(call::Type::Acknowledge)
    }
}

/// Asks for the state of these tasks, or of all active ones when empty.
pub fn reconcile(tasks: Vec<call::reconcile::Task>) -> Call {
    Call {
        reconcile: Some(call::Reconcile { tasks }),
        ..call(call::Type::Reconcile)
    }
}

/// Sends bytes to an executor.
pub fn message(agent_id: v1::AgentId, executor_id: v1::ExecutorId, data: Bytes) -> Call {
    Call {
        message: Some(call::Message {
            agent_id,
            executor_id,
            data,
        }),
        ..call(call::Type::Message)
    }
}

/// Ends the framework and all its tasks.
pub fn teardown() -> Call {
    call(call::Type::Teardown)
}

/// Changes what the framework subscribed with.
pub fn update_framework(framework: v1::FrameworkInfo, suppressed_roles: Vec<String>) -> Call {
    Call {
        update_framework: Some(call::UpdateFramework {
            framework_info: framework,
            suppressed_roles,
            offer_constraints: None,
        }),
        ..call(call::Type::UpdateFramework)
    }
}
