//! The folders of masters, for those who damage them.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The newest file in a folder with this ending that is not empty.
///
/// # Errors
/// There is none.
pub fn newest(folder: &Path, ending: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let fits = path.extension().is_some_and(|it| it == ending);
        if fits && std::fs::metadata(&path)?.len() > 0 {
            found.push(path);
        }
    }
    let missing = || format!("no *.{ending} in {}", folder.display());
    found.into_iter().max().with_context(missing)
}

/// The largest file in a folder with this ending.
///
/// # Errors
/// There is none.
pub fn largest(folder: &Path, ending: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == ending) {
            found.push((std::fs::metadata(&path)?.len(), path));
        }
    }
    let missing = || format!("no *.{ending} in {}", folder.display());
    found.into_iter().max().map(|it| it.1).with_context(missing)
}

/// Turns bytes around in the middle of a file, where no crash writes.
///
/// # Errors
/// It cannot be read or written.
pub fn damage(path: &Path) -> Result<()> {
    let mut bytes = std::fs::read(path)?;
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 4] {
        *byte = !*byte;
    }
    Ok(std::fs::write(path, bytes)?)
}

/// The folders of rows in that of a master: one, and more only while rows of another arrive.
///
/// # Errors
/// It cannot be read.
pub fn rows_folders(work_dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(work_dir.join("replica"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("rows") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The most memory that a process has had, in bytes.
///
/// # Errors
/// It is gone.
pub fn peak_memory(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|it| it.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes.context("VmHWM")?.trim().parse()?;
    Ok(kibibytes << 10)
}
