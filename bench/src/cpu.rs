//! CPU time and memory of processes, from `/proc`.

use anyhow::{Context, Result};
use std::time::Duration;

/// CPU time that a process has used so far, user and system.
pub(crate) fn used(pid: u32) -> Result<Duration> {
    let process = procfs::process::Process::new(i32::try_from(pid)?)
        .with_context(|| format!("process {pid}"))?;
    let stat = process.stat()?;
    let ticks = stat.utime + stat.stime;
    Ok(Duration::from_secs_f64(
        ticks as f64 / procfs::ticks_per_second() as f64,
    ))
}

/// Memory that belongs to this process alone, bytes.
pub(crate) fn private_memory(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kilobytes: u64 = text
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    Ok(kilobytes * 1024)
}
