//! What a `CommandInfo` and the task's limits come to for a process.

use super::{Failure, default_path, protocol::SpecWriter};
use crate::spec::ContainerSpec;
use tepui_model::wire;

/// Puts the program and its arguments: `/bin/sh -c value` for shell commands, else `value`
/// with `arguments`, the first of which is `argv[0]`.
pub(super) fn put(out: &mut SpecWriter, command: &wire::CommandInfo) -> Result<(), Failure> {
    let value = command
        .value
        .as_deref()
        .ok_or_else(|| Failure::invalid("command.value is missing: a process needs a command"))?;
    if command.shell.unwrap_or(true) {
        out.put("program", "/bin/sh");
        out.put("arg", "sh").put("arg", "-c").put("arg", value);
    } else {
        out.put("program", value);
        if command.arguments.is_empty() {
            out.put("arg", value);
        }
        for argument in &command.arguments {
            out.put("arg", argument);
        }
    }
    Ok(())
}

/// The environment in order; a later value of a name replaces the earlier one.
pub(super) fn environment(
    spec: &ContainerSpec,
    command: &wire::CommandInfo,
) -> Result<Vec<(String, String)>, Failure> {
    let sandbox = spec.sandbox.to_string_lossy().into_owned();
    let mut all = vec![default_path()];
    let ours = [
        ("MESOS_DIRECTORY".to_owned(), sandbox.clone()),
        ("MESOS_SANDBOX".to_owned(), sandbox),
    ];
    let its = variables(&spec.command)?;
    // A check's command may bring variables of its own.
    let own = if std::ptr::eq(command, &spec.command) {
        Vec::new()
    } else {
        variables(command)?
    };
    for (name, value) in spec
        .environment
        .iter()
        .cloned()
        .chain(ours)
        .chain(its)
        .chain(own)
    {
        match all.iter_mut().find(|(it, _)| *it == name) {
            Some(found) => found.1 = value,
            None => all.push((name, value)),
        }
    }
    Ok(all)
}

/// The variables of a command, secrets by value included.
pub(crate) fn variables(command: &wire::CommandInfo) -> Result<Vec<(String, String)>, Failure> {
    use wire::environment::variable::Type;
    command
        .environment
        .iter()
        .flat_map(|it| &it.variables)
        .map(|variable| {
            let name = &variable.name;
            if name.is_empty() || name.contains('=') {
                return Err(Failure::invalid(format!(
                    "environment variable name {name:?} must not be empty or contain '='"
                )));
            }
            let value = if variable.r#type() == Type::Secret {
                variable
                    .secret
                    .as_ref()
                    .and_then(|it| it.value.as_ref())
                    .and_then(|it| String::from_utf8(it.data.to_vec()).ok())
                    .ok_or_else(|| {
                        Failure::invalid(format!(
                            "environment variable {name}: only secrets given by value, as text, \
                             are supported"
                        ))
                    })?
            } else {
                variable.value.clone().unwrap_or_default()
            };
            Ok((name.clone(), value))
        })
        .collect()
}

/// Puts `container.rlimit_info`.
pub(super) fn put_rlimits(out: &mut SpecWriter, spec: &ContainerSpec) -> Result<(), Failure> {
    use wire::r_limit_info::r_limit::Type;
    let limits = spec
        .container
        .iter()
        .filter_map(|it| it.rlimit_info.as_ref())
        .flat_map(|it| &it.rlimits);
    for limit in limits {
        let resource = match limit.r#type() {
            Type::RlmtAs => libc::RLIMIT_AS,
            Type::RlmtCore => libc::RLIMIT_CORE,
            Type::RlmtCpu => libc::RLIMIT_CPU,
            Type::RlmtData => libc::RLIMIT_DATA,
            Type::RlmtFsize => libc::RLIMIT_FSIZE,
            Type::RlmtLocks => libc::RLIMIT_LOCKS,
            Type::RlmtMemlock => libc::RLIMIT_MEMLOCK,
            Type::RlmtMsgqueue => libc::RLIMIT_MSGQUEUE,
            Type::RlmtNice => libc::RLIMIT_NICE,
            Type::RlmtNofile => libc::RLIMIT_NOFILE,
            Type::RlmtNproc => libc::RLIMIT_NPROC,
            Type::RlmtRss => libc::RLIMIT_RSS,
            Type::RlmtRtprio => libc::RLIMIT_RTPRIO,
            Type::RlmtRttime => libc::RLIMIT_RTTIME,
            Type::RlmtSigpending => libc::RLIMIT_SIGPENDING,
            Type::RlmtStack => libc::RLIMIT_STACK,
            Type::Unknown => {
                return Err(Failure::invalid("rlimit_info: unknown type of limit"));
            }
        };
        // Both or none; none is "no limit".
        let (soft, hard) = match (limit.soft, limit.hard) {
            (Some(soft), Some(hard)) if soft <= hard => (soft, hard),
            (None, None) => (libc::RLIM_INFINITY, libc::RLIM_INFINITY),
            (Some(_), Some(_)) => {
                return Err(Failure::invalid("rlimit_info: soft must not exceed hard"));
            }
            _ => {
                return Err(Failure::invalid(
                    "rlimit_info: soft and hard must be given together",
                ));
            }
        };
        out.put("rlimit", format!("{resource}:{soft}:{hard}"));
    }
    Ok(())
}
