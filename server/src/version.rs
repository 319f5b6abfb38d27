//! Which version this is, in Mesos' terms: clients parse the number.

use tepui_proto::mesos::v1;

/// The version of Mesos that the interfaces equal. Clients compare it to decide what a
/// master can do.
pub const MESOS: &str = "1.12.0";

/// Our own version.
pub const OWN: &str = env!("CARGO_PKG_VERSION");

/// `/version` and the beginning of `/state`: names and values as JSON, in order.
pub fn fields() -> Vec<(&'static str, String)> {
    vec![
        ("version", format!("\"{MESOS}\"")),
        ("git_tag", format!("\"tepui-{OWN}\"")),
        ("build_date", "\"2026-01-01 00:00:00\"".to_owned()),
        ("build_time", "1767225600.0".to_owned()),
        ("build_user", "\"tepui\"".to_owned()),
    ]
}

/// The answer to GET_VERSION.
pub fn info() -> v1::VersionInfo {
    v1::VersionInfo {
        version: MESOS.to_owned(),
        build_date: Some("2026-01-01 00:00:00".to_owned()),
        build_time: Some(1_767_225_600.0),
        build_user: Some("tepui".to_owned()),
        git_sha: None,
        git_branch: None,
        git_tag: Some(format!("tepui-{OWN}")),
    }
}

/// `/version`.
pub fn json() -> String {
    let fields: Vec<String> = fields()
        .into_iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}
