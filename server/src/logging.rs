//! Logs on standard error.

use tracing_subscriber::{
    EnvFilter, Layer as _, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

/// Starts logging at a level of Mesos' flag `--logging_level` (INFO, WARNING, ERROR; also
/// DEBUG and TRACE). A second call in one process changes nothing.
pub fn start(level: &str, quiet: bool) {
    let directive = match level.to_ascii_uppercase().as_str() {
        _ if quiet => "off",
        "ERROR" => "error",
        "WARNING" | "WARN" => "warn",
        "DEBUG" => "debug",
        "TRACE" => "trace",
        _ => "info",
    };
    let layer = fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(true)
        .with_filter(EnvFilter::new(directive));
    // Already started, as in a process with a whole cluster: the first one stays.
    let _ = tracing_subscriber::registry().with(layer).try_init();
}
