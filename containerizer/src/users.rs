//! Users by name or number, through the system's own databases.

use std::{
    ffi::{CStr, CString},
    io,
};

/// A user that a task runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one included.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
    /// Name.
    pub name: String,
}

/// Largest answer of the user database that is taken; directory services can be wordy.
const MAX_ENTRY: usize = 1 << 20;
/// Largest number of groups that is asked for: the limit of the Linux kernel.
const MAX_GROUPS: usize = 65_536;

/// Looks a user up; `None` when there is none of this name. May ask the network (LDAP), so
/// call it where blocking is allowed.
///
/// # Errors
/// When the database cannot be asked.
pub fn find(name: &str) -> io::Result<Option<User>> {
    let Ok(text) = CString::new(name) else {
        return Ok(None);
    };
    let mut buffer = vec![0; 4096];
    loop {
        // SAFETY: an all-zero passwd is a valid place for the answer; the buffer outlives every
        // use of the pointers that are put into it.
        unsafe {
            let mut entry: libc::passwd = std::mem::zeroed();
            let mut found = std::ptr::null_mut();
            let error = libc::getpwnam_r(
                text.as_ptr(),
                &mut entry,
                buffer.as_mut_ptr(),
                buffer.len(),
                &mut found,
            );
            match error {
                0 if found.is_null() => return Ok(None),
                0 => {
                    return Ok(Some(User {
                        uid: entry.pw_uid,
                        gid: entry.pw_gid,
                        groups: groups(&text, entry.pw_gid),
                        home: CStr::from_ptr(entry.pw_dir).to_string_lossy().into_owned(),
                        name: name.to_owned(),
                    }));
                }
                libc::ERANGE if buffer.len() < MAX_ENTRY => buffer.resize(buffer.len() * 2, 0),
                // Names that were never there answer with one of these on some systems.
                libc::ENOENT | libc::ESRCH => return Ok(None),
                other => return Err(io::Error::from_raw_os_error(other)),
            }
        }
    }
}

fn groups(name: &CStr, primary: u32) -> Vec<u32> {
    let mut room = 64;
    loop {
        let mut groups = vec![0; room];
        let mut count = room as libc::c_int;
        // SAFETY: `groups` has room for `count` numbers.
        let done =
            unsafe { libc::getgrouplist(name.as_ptr(), primary, groups.as_mut_ptr(), &mut count) };
        if done >= 0 {
            groups.truncate(count as usize);
            return groups;
        }
        if room >= MAX_GROUPS {
            return vec![primary];
        }
        room *= 4;
    }
}

/// Whether this process may become other users.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_there_and_nobody_of_a_strange_name_is() {
        let root = find("root").ok().flatten();
        assert_eq!(root.map(|it| (it.uid, it.home)), Some((0, "/root".into())));
        for name in ["no-such-user-here", "a\0b", ""] {
            assert_eq!(find(name).ok().flatten(), None, "{name:?}");
        }
    }
}
