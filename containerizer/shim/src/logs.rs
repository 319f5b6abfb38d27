//! The task's output: from a pipe into a file of bounded size.
//!
//! The sandbox belongs to the task's user, who may put anything in the place of our files. So
//! files are opened relative to the sandbox, links are not followed, a new file must not exist
//! before, and when a rotation is made impossible the file is emptied instead: the bound holds
//! in every case.

use crate::sys;
use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

/// One of `stdout` and `stderr`.
pub struct Log {
    folder: RawFd,
    name: &'static CStr,
    file: Option<OwnedFd>,
    owner: Option<(u32, u32)>,
    size: u64,
    limit: u64,
    rotated: u32,
    /// Bytes that could not be written since the last that could: the disk is full.
    lost: u64,
}

impl Log {
    /// Opens the file for appending, as Mesos' default logger does.
    pub fn open(
        folder: RawFd,
        name: &'static CStr,
        owner: Option<(u32, u32)>,
        limit: u64,
        rotated: u32,
    ) -> io::Result<Log> {
        // Without O_NONBLOCK a FIFO in the place of the file would stop us here for ever.
        let flags =
            libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = sys::openat(folder, name, flags, 0o644)?;
        // SAFETY: all-zero is a valid `stat`, and the descriptor is open.
        let stat = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            sys::check(libc::fstat(file.as_raw_fd(), &mut stat))?;
            stat
        };
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        let log = Log {
            folder,
            name,
            file: Some(file),
            owner,
            size: stat.st_size as u64,
            limit,
            rotated,
            lost: 0,
        };
        log.give_away();
        Ok(log)
    }

    /// Appends; output that the disk does not take is counted, never waited for, so that a
    /// full disk does not stop the task.
    pub fn write(&mut self, mut bytes: &[u8]) {
        if self.size > 0 && self.size + bytes.len() as u64 > self.limit {
            self.rotate();
        }
        if self.file.is_none() {
            self.create();
        }
        if self.lost > 0 {
            let note = format!("\n[{} bytes of output were lost: no room]\n", self.lost);
            if self.append(note.as_bytes()) == note.len() {
                self.lost = 0;
            }
        }
        while !bytes.is_empty() {
            match self.append(bytes) {
                0 => {
                    self.lost += bytes.len() as u64;
                    return;
                }
                count => bytes = &bytes[count..],
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> usize {
        let Some(file) = &self.file else { return 0 };
        let count = sys::write(file.as_raw_fd(), bytes).unwrap_or(0);
        self.size += count as u64;
        count
    }

    fn rotate(&mut self) {
        for number in (0..self.rotated).rev() {
            let from = self.rotated_name(number);
            let to = self.rotated_name(number + 1);
            // SAFETY: both names end in NUL. Failures are normal (no such file yet) or the
            // task's doing; `create` copes with both.
            unsafe { libc::renameat(self.folder, from.as_ptr(), self.folder, to.as_ptr()) };
        }
        if self.rotated == 0 {
            // SAFETY: the name ends in NUL.
            unsafe { libc::unlinkat(self.folder, self.name.as_ptr(), 0) };
        }
        let old = self.file.take();
        self.create();
        if self.file.is_none() {
            // The name is occupied by something that would not move. Go on in the old file.
            if let Some(old) = old {
                // SAFETY: a descriptor of ours.
                unsafe { libc::ftruncate(old.as_raw_fd(), 0) };
                self.file = Some(old);
                self.size = 0;
            }
        }
    }

    fn create(&mut self) {
        let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_EXCL;
        self.file = sys::openat(self.folder, self.name, flags, 0o644).ok();
        self.size = 0;
        self.give_away();
    }

    fn give_away(&self) {
        if let (Some(file), Some((uid, gid))) = (&self.file, self.owner) {
            // SAFETY: a descriptor of ours. Failing only leaves the file to the agent's user.
            unsafe { libc::fchown(file.as_raw_fd(), uid, gid) };
        }
    }

    fn rotated_name(&self, number: u32) -> CString {
        let mut name = self.name.to_bytes().to_vec();
        if number > 0 {
            name.extend_from_slice(format!(".{number}").as_bytes());
        }
        CString::new(name).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::fd::AsFd};

    fn log(folder: &fs::File, limit: u64, rotated: u32) -> Log {
        Log::open(folder.as_fd().as_raw_fd(), c"stdout", None, limit, rotated)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn sizes(folder: &std::path::Path) -> Vec<(String, u64)> {
        let mut all: Vec<_> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|it| {
                let size = it.metadata().map_or(0, |it| it.len());
                (it.file_name().to_string_lossy().into_owned(), size)
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn an_endless_writer_holds_a_bounded_number_of_bytes() {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let handle = fs::File::open(folder.path()).unwrap_or_else(|error| panic!("{error}"));
        let mut log = log(&handle, 100, 2);
        for round in 0..1000_u32 {
            log.write(format!("{round:09}\n").as_bytes());
        }
        let all = sizes(folder.path());
        assert_eq!(
            all,
            [("stdout", 100), ("stdout.1", 100), ("stdout.2", 100)].map(|(n, s)| (n.into(), s))
        );
        let newest = fs::read_to_string(folder.path().join("stdout")).unwrap_or_default();
        assert!(newest.ends_with("000000999\n"));
    }

    #[test]
    fn without_rotation_the_file_starts_anew() {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let handle = fs::File::open(folder.path()).unwrap_or_else(|error| panic!("{error}"));
        let mut log = log(&handle, 100, 0);
        (0..55).for_each(|_| log.write(b"123456789\n"));
        assert_eq!(sizes(folder.path()), [("stdout".into(), 50)]);
    }

    #[test]
    fn the_bound_holds_when_the_task_blocks_the_rotation() {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let handle = fs::File::open(folder.path()).unwrap_or_else(|error| panic!("{error}"));
        let mut log = log(&handle, 100, 1);
        log.write(&[b'a'; 90]);
        // A directory cannot be replaced by a file, so `stdout` stays where it is.
        fs::create_dir(folder.path().join("stdout.1")).unwrap_or_else(|error| panic!("{error}"));
        log.write(&[b'b'; 90]);
        assert_eq!(
            fs::read(folder.path().join("stdout")).unwrap_or_default(),
            vec![b'b'; 90]
        );
    }

    #[test]
    fn a_link_in_the_place_of_the_file_is_not_followed() {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let target = folder.path().join("elsewhere");
        fs::write(&target, "precious").unwrap_or_else(|error| panic!("{error}"));
        std::os::unix::fs::symlink(&target, folder.path().join("stdout"))
            .unwrap_or_else(|error| panic!("{error}"));
        let handle = fs::File::open(folder.path()).unwrap_or_else(|error| panic!("{error}"));
        assert!(Log::open(handle.as_raw_fd(), c"stdout", None, 100, 1).is_err());
        assert_eq!(fs::read(&target).unwrap_or_default(), b"precious");
    }
}
