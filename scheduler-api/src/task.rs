//! Small builders for the messages that nearly every framework makes.

use tepui_proto::mesos::v1;

/// A framework that runs as `user` (empty: the agents' user) under `name`.
pub fn framework(user: impl Into<String>, name: impl Into<String>) -> v1::FrameworkInfo {
    v1::FrameworkInfo {
        user: user.into(),
        name: name.into(),
        ..Default::default()
    }
}

/// A scalar resource: `cpus` in cores, `mem` and `disk` in megabytes.
pub fn scalar(name: impl Into<String>, value: f64) -> v1::Resource {
    v1::Resource {
        name: name.into(),
        r#type: v1::value::Type::Scalar as i32,
        scalar: Some(v1::value::Scalar { value }),
        ..Default::default()
    }
}

/// The ports `begin..=end`.
pub fn ports(begin: u64, end: u64) -> v1::Resource {
    v1::Resource {
        name: "ports".into(),
        r#type: v1::value::Type::Ranges as i32,
        ranges: Some(v1::value::Ranges {
            range: vec![v1::value::Range { begin, end }],
        }),
        ..Default::default()
    }
}

/// A command that `/bin/sh -c` runs.
pub fn shell(line: impl Into<String>) -> v1::CommandInfo {
    v1::CommandInfo {
        shell: Some(true),
        value: Some(line.into()),
        ..Default::default()
    }
}

/// A command without a shell: the program and its arguments.
pub fn argv<S: Into<String>>(words: impl IntoIterator<Item = S>) -> v1::CommandInfo {
    let arguments: Vec<String> = words.into_iter().map(Into::into).collect();
    v1::CommandInfo {
        shell: Some(false),
        value: arguments.first().cloned(),
        arguments,
        ..Default::default()
    }
}

/// A Docker container of `image` on the host's network.
pub fn docker(image: impl Into<String>) -> v1::ContainerInfo {
    v1::ContainerInfo {
        r#type: v1::container_info::Type::Docker as i32,
        docker: Some(v1::container_info::DockerInfo {
            image: image.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A command task on the agent of `offer`, with `cpus` cores and `mem` megabytes.
pub fn task(
    id: impl Into<String>,
    offer: &v1::Offer,
    cpus: f64,
    mem: f64,
    command: v1::CommandInfo,
) -> v1::TaskInfo {
    let id = id.into();
    v1::TaskInfo {
        name: id.clone(),
        task_id: v1::TaskId { value: id },
        agent_id: offer.agent_id.clone(),
        resources: vec![scalar("cpus", cpus), scalar("mem", mem)],
        command: Some(command),
        ..Default::default()
    }
}

/// The amount of a scalar resource in `resources`, over all roles and reservations.
pub fn amount(resources: &[v1::Resource], name: &str) -> f64 {
    resources
        .iter()
        .filter(|resource| resource.name == name)
        .filter_map(|resource| resource.scalar.as_ref())
        .map(|scalar| scalar.value)
        .sum()
}

/// Whether no further update of the task will come.
pub fn is_terminal(state: v1::TaskState) -> bool {
    use v1::TaskState::*;
    matches!(
        state,
        TaskFinished
            | TaskFailed
            | TaskKilled
            | TaskLost
            | TaskError
            | TaskDropped
            | TaskGone
            | TaskGoneByOperator
    )
}
