//! Checks of checks and health checks.

use super::{Fault, container};
use crate::wire;

/// A `CheckInfo`.
pub(super) fn check(check: &wire::CheckInfo) -> Fault {
    use wire::check_info::Type;
    let fault = match check.r#type() {
        Type::Command => match &check.command {
            None => Some("expecting 'command' to be set for a COMMAND check".to_owned()),
            Some(it) => command(&it.command),
        },
        Type::Http => match &check.http {
            None => Some("expecting 'http' to be set for an HTTP check".to_owned()),
            Some(it) => port(it.port).or_else(|| path(it.path.as_deref())),
        },
        Type::Tcp => match &check.tcp {
            None => Some("expecting 'tcp' to be set for a TCP check".to_owned()),
            Some(it) => port(it.port),
        },
        Type::Unknown => Some("'type' is missing; expected COMMAND, HTTP or TCP".to_owned()),
    };
    fault.or_else(|| {
        seconds(&[
            ("delay_seconds", check.delay_seconds),
            ("interval_seconds", check.interval_seconds),
            ("timeout_seconds", check.timeout_seconds),
        ])
    })
}

/// A `HealthCheck`; `inferred` is the type that the master takes for one without.
pub(super) fn health_check(
    check: &wire::HealthCheck,
    inferred: Option<wire::health_check::Type>,
) -> Fault {
    use wire::health_check::Type;
    let fault = match inferred.unwrap_or_else(|| check.r#type()) {
        Type::Command => match &check.command {
            None => Some("expecting 'command' to be set for a COMMAND health check".to_owned()),
            Some(it) => command(it),
        },
        Type::Http => match &check.http {
            None => Some("expecting 'http' to be set for an HTTP health check".to_owned()),
            Some(it) => scheme(it.scheme.as_deref())
                .or_else(|| port(it.port))
                .or_else(|| path(it.path.as_deref())),
        },
        Type::Tcp => match &check.tcp {
            None => Some("expecting 'tcp' to be set for a TCP health check".to_owned()),
            Some(it) => port(it.port),
        },
        Type::Unknown => Some("'type' is missing; expected COMMAND, HTTP or TCP".to_owned()),
    };
    fault.or_else(|| {
        seconds(&[
            ("delay_seconds", check.delay_seconds),
            ("grace_period_seconds", check.grace_period_seconds),
            ("interval_seconds", check.interval_seconds),
            ("timeout_seconds", check.timeout_seconds),
        ])
    })
}

fn command(command: &wire::CommandInfo) -> Fault {
    if command.value.is_none() {
        let what = if command.shell() {
            "a shell command"
        } else {
            "the path of an executable"
        };
        return Some(format!("expecting 'command.value' to be {what}"));
    }
    container::command(command)
}

fn port(port: u32) -> Fault {
    let valid = (1..=65535).contains(&port);
    (!valid).then(|| format!("'port' is {port}; expected 1 to 65535"))
}

fn path(path: Option<&str>) -> Fault {
    let path = path?;
    (!path.starts_with('/')).then(|| format!("'path' is {path:?}; expected it to start with '/'"))
}

fn scheme(scheme: Option<&str>) -> Fault {
    let scheme = scheme?;
    let valid = matches!(scheme, "http" | "https");
    (!valid).then(|| format!("'scheme' is {scheme:?}; expected \"http\" or \"https\""))
}

fn seconds(fields: &[(&str, Option<f64>)]) -> Fault {
    fields.iter().find_map(|(name, value)| {
        let value = (*value)?;
        let valid = value >= 0.0 && crate::time::duration_from_secs(value).is_some();
        (!valid).then(|| format!("'{name}' is {value}; expected a duration of at least 0 seconds"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::health_check as health;

    fn http(port: u32, path: &str, scheme: &str) -> wire::HealthCheck {
        wire::HealthCheck {
            r#type: Some(health::Type::Http.into()),
            http: Some(health::HttpCheckInfo {
                port,
                path: Some(path.into()),
                scheme: Some(scheme.into()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn health_checks_have_what_their_type_says() {
        assert_eq!(health_check(&http(80, "/", "http"), None), None);
        let mut slow = http(80, "/", "http");
        slow.interval_seconds = Some(-1.0);
        let mut odd = http(80, "/", "http");
        odd.timeout_seconds = Some(f64::NAN);
        let mut nothing = http(80, "/", "http");
        nothing.http = None;
        for bad in [
            http(0, "/", "http"),
            http(65536, "/", "http"),
            http(80, "a", "http"),
            http(80, "/", "ftp"),
            slow,
            odd,
            nothing,
            wire::HealthCheck::default(),
        ] {
            assert!(health_check(&bad, None).is_some(), "{bad:?}");
        }
        let mut untyped = http(80, "/", "http");
        untyped.r#type = None;
        assert!(health_check(&untyped, None).is_some());
        assert_eq!(health_check(&untyped, Some(health::Type::Http)), None);
    }

    #[test]
    fn command_checks_have_a_command() {
        let with = |value: Option<&str>| wire::CheckInfo {
            r#type: Some(wire::check_info::Type::Command.into()),
            command: Some(wire::check_info::Command {
                command: wire::CommandInfo {
                    value: value.map(str::to_owned),
                    ..Default::default()
                },
            }),
            ..Default::default()
        };
        assert_eq!(check(&with(Some("true"))), None);
        assert!(check(&with(None)).is_some());
        assert!(check(&wire::CheckInfo::default()).is_some());
    }
}
