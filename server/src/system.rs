//! Figures of the machine, for `/system/stats.json` and the metrics.

use std::{
    collections::BTreeMap,
    net::{IpAddr, ToSocketAddrs},
};

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Lets this process have as many open files as the system grants: every client and every
/// agent is one, and the customary 1024 are few.
pub fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // What was granted before stays.
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files could not be raised");
        }
    }
}

/// The name under which others find this machine when `--hostname` does not say: the kernel's, but
/// for one that is to be found at another address than the one `told` to others. Such a name is
/// worth nothing to them, and the address is.
pub fn own_hostname(told: IpAddr, is_advertised: bool) -> String {
    let name = read("/proc/sys/kernel/hostname").trim().to_owned();
    let leads_here = || {
        let found = (name.as_str(), 0).to_socket_addrs();
        found.is_ok_and(|mut found| found.any(|it| it.ip() == told))
    };
    match name.is_empty() || is_advertised && !leads_here() {
        true => told.to_string(),
        false => name,
    }
}

/// Load over 1, 5 and 15 minutes.
fn loads() -> [f64; 3] {
    let text = read("/proc/loadavg");
    let mut numbers = text.split_whitespace().map(|it| it.parse().unwrap_or(0.0));
    [0; 3].map(|_| numbers.next().unwrap_or(0.0))
}

/// Bytes of memory: all of it, and what is free.
fn memory() -> (f64, f64) {
    let text = read("/proc/meminfo");
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let kilobytes = line.and_then(|it| it.split_whitespace().nth(1)?.parse::<f64>().ok());
        kilobytes.unwrap_or(0.0) * 1024.0
    };
    (value("MemTotal:"), value("MemFree:"))
}

fn cpus() -> f64 {
    std::thread::available_parallelism().map_or(0.0, |it| it.get() as f64)
}

/// The `system/` metrics.
pub fn metrics(metrics: &mut BTreeMap<String, f64>) {
    let [one, five, fifteen] = loads();
    let (total, free) = memory();
    for (name, value) in [
        ("system/cpus_total", cpus()),
        ("system/load_1min", one),
        ("system/load_5min", five),
        ("system/load_15min", fifteen),
        ("system/mem_total_bytes", total),
        ("system/mem_free_bytes", free),
    ] {
        metrics.insert(name.to_owned(), value);
    }
}

/// `/system/stats.json`.
pub fn stats() -> String {
    let [one, five, fifteen] = loads();
    let (total, free) = memory();
    format!(
        "{{\"avg_load_15min\":{fifteen:?},\"avg_load_1min\":{one:?},\"avg_load_5min\":{five:?},\
         \"cpus_total\":{},\"mem_free_bytes\":{},\"mem_total_bytes\":{}}}",
        cpus() as u64,
        free as u64,
        total as u64
    )
}

/// A flat map of metrics as JSON.
pub fn metrics_json(metrics: &BTreeMap<String, f64>) -> String {
    let mut out = String::from("{");
    for (index, (name, value)) in metrics.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&serde_json::Value::from(name.as_str()).to_string());
        out.push(':');
        match value.is_finite() {
            true => out.push_str(&format!("{value:?}")),
            false => out.push('0'),
        }
    }
    out.push('}');
    out
}
