//! Ends what the tasks of a test left running. Tasks survive the death of their agent, so a
//! test that ends with a task alive would leave it to the machine for ever.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// How long processes that were killed may take to disappear.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills shims, processes and Docker containers of the agents whose folders are in `folder`,
/// and removes their cgroups. The agents themselves must be dead.
pub fn remove(folder: &Path) {
    let ids = container_ids(folder);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let alive = processes(folder, &ids);
        for pid in &alive {
            if let Some(pid) = rustix::process::Pid::from_raw(*pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if alive.is_empty() || Instant::now() > deadline {
            break;
        }
        std::thread::yield_now();
    }
    for group in groups(&ids) {
        let _ = fs::remove_dir(group);
    }
    remove_containers(&ids);
}

/// Folders of the agents' runtime directories.
fn container_ids(folder: &Path) -> BTreeSet<String> {
    let agents = fs::read_dir(folder).into_iter().flatten().flatten();
    agents
        .flat_map(|agent| fs::read_dir(agent.path().join("runtime")))
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Shims by their command line, and everything in the cgroups.
fn processes(folder: &Path, ids: &BTreeSet<String>) -> BTreeSet<i32> {
    let name = folder.to_string_lossy();
    let all = procfs::process::all_processes().into_iter().flatten();
    let shims = all.flatten().filter(|it| {
        // Zombies have no command line; their parent reaps them.
        let words = it.cmdline().unwrap_or_default();
        words.iter().any(|word| word.contains(name.as_ref()))
            && words.first().is_some_and(|it| it.ends_with("tepui-shim"))
    });
    let mut found: BTreeSet<i32> = shims.map(|it| it.pid).collect();
    for group in groups(ids) {
        let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        found.extend(members.lines().filter_map(|it| it.parse::<i32>().ok()));
    }
    found
}

/// The cgroups of the containers, of version 1 and 2.
fn groups(ids: &BTreeSet<String>) -> Vec<PathBuf> {
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    let controllers = fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
    roots.extend(controllers.flatten().map(|it| it.path()));
    let each = roots
        .iter()
        .flat_map(|root| ids.iter().map(|id| root.join("tepui").join(id)));
    each.filter(|it| it.is_dir()).collect()
}

fn remove_containers(ids: &BTreeSet<String>) {
    if ids.is_empty() {
        return;
    }
    let names = Command::new("docker")
        .args(["ps", "--all", "--format", "{{.Names}}"])
        .output();
    let Ok(names) = names else { return };
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    let ours: Vec<&str> = names
        .lines()
        .filter(|name| ids.iter().any(|id| name.contains(id.as_str())))
        .collect();
    if !ours.is_empty() {
        let _ = Command::new("docker")
            .args(["rm", "--force", "--volumes"])
            .args(ours)
            .output();
    }
}
