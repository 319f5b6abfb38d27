//! What this machine has: detection of cpus, memory, disk, ports and GPUs, and the flag
//! `--resources` over it.

use anyhow::{Context, Result};
use std::path::Path;
use tepui_agent_machine::model::{Resources, role};

/// Gigabyte in megabytes, the unit of memory and disk.
const GB: u64 = 1024;

/// The resources of `--resources`, with what it does not name detected.
///
/// # Errors
/// A text that cannot be read.
pub(crate) fn total(text: Option<&str>, default_role: &str, work_dir: &Path) -> Result<Resources> {
    if default_role != "*" {
        role::validate(default_role).context("--default_role")?;
    }
    let text = text.unwrap_or_default();
    let mut all = Resources::parse(text, default_role).context("--resources")?;
    let named: Vec<String> = all.iter().map(|it| it.name.to_string()).collect();
    let zeros = zeros(text);
    let missing =
        |name: &str| !named.iter().any(|it| it == name) && !zeros.iter().any(|it| it == name);
    let mut detected = Vec::new();
    if missing("cpus") {
        detected.push(format!("cpus:{}", cpus()));
    }
    if missing("mem") {
        detected.push(format!("mem:{}", leave_some(memory(), 2 * GB, GB)));
    }
    if missing("disk") {
        detected.push(format!(
            "disk:{}",
            leave_some(disk(work_dir), 10 * GB, 5 * GB)
        ));
    }
    if missing("ports") {
        detected.push("ports:[31000-32000]".to_owned());
    }
    if missing("gpus") {
        let gpus = gpus(Path::new("/proc/driver/nvidia/gpus"));
        if gpus > 0 {
            detected.push(format!("gpus:{gpus}"));
        }
    }
    let detected =
        Resources::parse(&detected.join(";"), default_role).context("detected resources")?;
    all.add(&detected);
    Ok(all)
}

/// Names that the flag gives as nothing, such as `gpus:0`: they are not detected. Empty
/// resources leave no trace in [`Resources`].
fn zeros(text: &str) -> Vec<String> {
    if text.trim_start().starts_with('[') {
        let list: Vec<serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
        let names = list.iter().filter_map(|it| it["name"].as_str());
        return names.map(str::to_owned).collect();
    }
    text.split(';')
        .filter_map(|part| part.split_once(':'))
        .map(|(name, _)| name.split('(').next().unwrap_or_default().trim().to_owned())
        .collect()
}

/// All but `reserve`, or half of what is less than `small`. Mesos' rule.
fn leave_some(total: u64, small: u64, reserve: u64) -> u64 {
    match total < small {
        true => total / 2,
        false => total - reserve,
    }
}

fn cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |it| it.get() as u64)
}

/// Megabytes of memory.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("MemTotal:"));
    let kilobytes = line.and_then(|it| it.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1024
}

/// Megabytes of the file system that holds the work folder.
fn disk(work_dir: &Path) -> u64 {
    match rustix::fs::statvfs(work_dir) {
        Ok(it) => it.f_blocks.saturating_mul(it.f_frsize) >> 20,
        Err(_) => 0,
    }
}

/// Used part of the file system that holds a folder, 0 to 1; nothing when it cannot be told.
pub(crate) fn disk_usage(folder: &Path) -> Option<f64> {
    let it = rustix::fs::statvfs(folder).ok()?;
    (it.f_blocks > 0).then(|| 1.0 - it.f_bavail as f64 / it.f_blocks as f64)
}

/// The driver has a folder for each GPU.
fn gpus(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, |it| it.flatten().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(text: &str) -> Resources {
        total(Some(text), "*", Path::new("/")).unwrap()
    }

    #[test]
    fn what_is_not_named_is_detected() {
        let all = amounts("cpus:0.5;mem(web):64;gpus:0");
        assert_eq!(all.cpus().unwrap().as_f64(), 0.5);
        assert_eq!(all.mem().unwrap().as_f64(), 64.0);
        assert!(all.disk().unwrap().as_f64() > 0.0);
        assert_eq!(all.ports().count(), 1001);
        assert!(all.gpus().is_none());
    }

    #[test]
    fn json_is_the_other_form() {
        let all = amounts(
            r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":3}},
                {"name":"ports","type":"RANGES","ranges":{"range":[{"begin":1,"end":2}]}}]"#,
        );
        assert_eq!(all.cpus().unwrap().as_f64(), 3.0);
        assert_eq!(all.ports().count(), 2);
    }

    #[test]
    fn some_is_left_to_the_machine() {
        assert_eq!(leave_some(8192, 2 * GB, GB), 7168);
        assert_eq!(leave_some(1000, 2 * GB, GB), 500);
    }

    #[test]
    fn each_gpu_has_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("0000:01:00.0")).unwrap();
        assert_eq!(gpus(folder.path()), 1);
        assert_eq!(gpus(&folder.path().join("none")), 0);
    }

    #[test]
    fn wrong_texts_are_named() {
        let error = total(Some("cpus"), "*", Path::new("/")).unwrap_err();
        assert!(format!("{error:#}").contains("--resources"), "{error:#}");
    }
}
