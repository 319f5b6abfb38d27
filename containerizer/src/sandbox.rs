//! Sandboxes: the directories of behaviour 11.4.
//!
//! `slaves/<agent>/frameworks/<framework>/executors/<executor>/runs/<container>`, beside it a
//! link `latest`, in it `stdout` and `stderr`, all owned by the task's user.

use crate::users::User;
use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

/// Path of the sandbox of a container. The ids must be valid Mesos ids (no `/`, not `.` and
/// not `..`), which validation at the master has made sure of.
pub fn path(
    work_dir: &Path,
    agent: &str,
    framework: &str,
    executor: &str,
    container: &str,
) -> PathBuf {
    let mut path = executor_path(work_dir, agent, framework, executor);
    path.push("runs");
    path.push(container);
    path
}

/// Directory of all runs of an executor.
pub fn executor_path(work_dir: &Path, agent: &str, framework: &str, executor: &str) -> PathBuf {
    let mut path = work_dir.join("slaves");
    for part in [agent, "frameworks", framework, "executors", executor] {
        path.push(part);
    }
    path
}

/// Makes the sandbox with its output files and points `runs/latest` at it. May run twice.
///
/// # Errors
/// What the file system says.
pub fn create(sandbox: &Path, user: Option<&User>) -> io::Result<()> {
    fs::create_dir_all(sandbox)?;
    // Others' tasks have no business here; Mesos makes it 0750 as well.
    fs::set_permissions(sandbox, fs::Permissions::from_mode(0o750))?;
    give(sandbox, user)?;
    for name in ["stdout", "stderr"] {
        let file = sandbox.join(name);
        // What is there already, of whatever kind, is left alone.
        match fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&file)
        {
            Ok(_) => give(&file, user)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    if let (Some(runs), Some(name)) = (sandbox.parent(), sandbox.file_name())
        && runs.file_name().is_some_and(|it| it == "runs")
    {
        // Absolute, as in Mesos; renamed into place, so that `latest` is never missing.
        let link = runs.join("latest");
        let temporary = runs.join(format!(".latest.{}", name.to_string_lossy()));
        let _ = fs::remove_file(&temporary);
        symlink(sandbox, &temporary)?;
        fs::rename(&temporary, &link)?;
    }
    Ok(())
}

/// Makes a file or directory the user's. Links are not followed.
pub(crate) fn give(path: &Path, user: Option<&User>) -> io::Result<()> {
    match user {
        Some(user) if !fs::symlink_metadata(path)?.is_symlink() => {
            chown(path, Some(user.uid), Some(user.gid))
        }
        _ => Ok(()),
    }
}

/// Bytes that a directory holds on disk, links not followed, files seen once even when they
/// have several names. Blocks for as long as the walk takes.
pub fn usage(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut seen = std::collections::HashSet::new();
    let mut pending = vec![directory.to_owned()];
    let mut total = 0;
    while let Some(directory) = pending.pop() {
        // Files come and go while we look; what cannot be read is not counted.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.nlink() > 1
                && !metadata.is_dir()
                && !seen.insert((metadata.dev(), metadata.ino()))
            {
                continue;
            }
            total += metadata.blocks() * 512;
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_follows_the_newest_run() -> io::Result<()> {
        let work = tempfile::tempdir()?;
        for container in ["c1", "c2", "c2"] {
            let sandbox = path(work.path(), "S0", "F0", "t", container);
            create(&sandbox, None)?;
            assert!(sandbox.join("stdout").is_file() && sandbox.join("stderr").is_file());
            let latest = work
                .path()
                .join("slaves/S0/frameworks/F0/executors/t/runs/latest");
            assert_eq!(fs::read_link(latest)?, sandbox);
        }
        Ok(())
    }

    #[test]
    fn usage_counts_a_file_with_two_names_once_and_follows_no_link() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("a"), vec![1; 1 << 16])?;
        let one = usage(folder.path());
        fs::hard_link(folder.path().join("a"), folder.path().join("b"))?;
        symlink("/usr", folder.path().join("c"))?;
        assert!(one >= 1 << 16);
        assert!(usage(folder.path()) < 2 * one);
        Ok(())
    }
}
