//! Words for people, as Mesos has them.

use crate::event::Exit;

/// A byte count as Mesos prints it: the largest unit that divides it.
pub fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("TB", 1 << 40),
        ("GB", 1 << 30),
        ("MB", 1 << 20),
        ("KB", 1 << 10),
    ];
    match UNITS
        .iter()
        .find(|(_, size)| count > 0 && count.is_multiple_of(*size))
    {
        Some((unit, size)) => format!("{}{unit}", count / size),
        None => format!("{count}B"),
    }
}

/// `exited with status 3` or `terminated with signal Killed`.
pub fn exit(exit: Exit, core_dumped: bool) -> String {
    match exit {
        Exit::Code(code) => format!("exited with status {code}"),
        Exit::Signal(number) => format!(
            "terminated with signal {}{}",
            signal(number),
            if core_dumped { " (core dumped)" } else { "" }
        ),
        Exit::Unknown => "ended and its exit status is not known".into(),
    }
}

/// Name of a signal in the words of the C library.
pub fn signal(number: i32) -> String {
    let name = match number {
        1 => "Hangup",
        2 => "Interrupt",
        3 => "Quit",
        4 => "Illegal instruction",
        5 => "Trace/breakpoint trap",
        6 => "Aborted",
        7 => "Bus error",
        8 => "Floating point exception",
        9 => "Killed",
        10 => "User defined signal 1",
        11 => "Segmentation fault",
        12 => "User defined signal 2",
        13 => "Broken pipe",
        14 => "Alarm clock",
        15 => "Terminated",
        16 => "Stack fault",
        17 => "Child exited",
        18 => "Continued",
        19 => "Stopped (signal)",
        20 => "Stopped",
        21 => "Stopped (tty input)",
        22 => "Stopped (tty output)",
        23 => "Urgent I/O condition",
        24 => "CPU time limit exceeded",
        25 => "File size limit exceeded",
        26 => "Virtual timer expired",
        27 => "Profiling timer expired",
        28 => "Window changed",
        29 => "I/O possible",
        30 => "Power failure",
        31 => "Bad system call",
        34..=64 => return format!("Real-time signal {}", number - 34),
        _ => return format!("Unknown signal {number}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_use_the_largest_unit_that_divides() {
        for (count, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (32 << 20, "32MB"),
            ((1 << 30) + (1 << 20), "1025MB"),
            (1 << 40, "1TB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn exits_read_as_in_mesos() {
        for (it, core, text) in [
            (Exit::Code(3), false, "exited with status 3"),
            (Exit::Signal(9), false, "terminated with signal Killed"),
            (
                Exit::Signal(11),
                true,
                "terminated with signal Segmentation fault (core dumped)",
            ),
        ] {
            assert_eq!(exit(it, core), text);
        }
    }
}
