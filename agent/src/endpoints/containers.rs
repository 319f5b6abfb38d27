//! Running containers: `/containers`, `/monitor/statistics`, GET_CONTAINERS.

use super::{executors, tasks, values};
use serde_json::{Value, json};
use tepui_agent_machine::{
    model::wire,
    output::{AgentView, TaskView},
};
use tepui_server::proto::json::to_value;

/// A running container with what it uses.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    framework_id: String,
    executor_id: String,
    executor_name: String,
    source: String,
    container_id: String,
    status: Option<wire::ContainerStatus>,
    statistics: Option<wire::ResourceStatistics>,
}

/// The tasks whose containers run.
pub(crate) fn running(view: &AgentView) -> impl Iterator<Item = &TaskView> {
    let all = view.frameworks.iter().flat_map(|it| &it.tasks);
    all.filter(|it| tasks::stage(it) == tasks::Stage::Launched)
}

/// Which containers a request asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) container_id: Option<String>,
    pub(crate) framework_id: Option<String>,
    pub(crate) executor_id: Option<String>,
}

impl Filter {
    /// Whether the task's container is asked for.
    pub(crate) fn takes(&self, task: &TaskView) -> bool {
        let is = |wanted: &Option<String>, value: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == value)
        };
        is(&self.container_id, &task.task.container_id)
            && is(&self.framework_id, &task.task.framework_id)
            && is(&self.executor_id, &task.task.executor_id)
    }
}

impl Container {
    /// Of a task, with what the containerizer says of it.
    pub(crate) fn new(
        task: &TaskView,
        status: Option<wire::ContainerStatus>,
        statistics: Option<wire::ResourceStatistics>,
    ) -> Container {
        let resources = values::resources(&task.task.resources);
        let statistics = statistics.map(|mut it| {
            // Always there, hard limit or not.
            it.cpus_soft_limit = it
                .cpus_soft_limit
                .or(resources.cpus().map(|it| it.as_f64()));
            let mem = resources
                .mem()
                .map(|it| (it.as_f64() * f64::from(1 << 20)) as u64);
            it.mem_soft_limit_bytes = it.mem_soft_limit_bytes.or(mem);
            it
        });
        Container {
            framework_id: task.task.framework_id.clone(),
            executor_id: task.task.executor_id.clone(),
            executor_name: executors::name(&tasks::info(task)),
            source: task.task.task_id.clone(),
            container_id: task.task.container_id.clone(),
            status: status.map(|mut it| {
                // Addresses of containers on the host's network are not shown.
                it.network_infos.retain(|it| !it.ip_addresses.is_empty());
                it
            }),
            statistics,
        }
    }

    /// An element of `/monitor/statistics`.
    pub(crate) fn statistics(&self) -> Option<Value> {
        let statistics = self.statistics.as_ref()?;
        Some(json!({
            "framework_id": self.framework_id,
            "executor_id": self.executor_id,
            "executor_name": self.executor_name,
            "source": self.source,
            "statistics": to_value(statistics),
        }))
    }

    /// An element of `/containers`.
    pub(crate) fn json(&self) -> Value {
        let mut value = json!({
            "framework_id": self.framework_id,
            "executor_id": self.executor_id,
            "executor_name": self.executor_name,
            "source": self.source,
            "container_id": self.container_id,
        });
        values::put(&mut value, "status", self.status.as_ref().map(to_value));
        values::put(
            &mut value,
            "statistics",
            self.statistics.as_ref().map(to_value),
        );
        value
    }

    /// An element of GET_CONTAINERS.
    pub(crate) fn v1(self) -> wire::agent::response::get_containers::Container {
        wire::agent::response::get_containers::Container {
            framework_id: Some(wire::FrameworkId {
                value: self.framework_id,
            }),
            executor_id: Some(wire::ExecutorId {
                value: self.executor_id,
            }),
            executor_name: Some(self.executor_name),
            container_id: wire::ContainerId {
                value: self.container_id,
                parent: None,
            },
            container_status: self.status,
            resource_statistics: self.statistics,
        }
    }
}
