//! `tepui-shim`: the parent of one process task.
//!
//! The agent starts one shim per task and may then die. The shim holds what must not be lost
//! with the agent: it forks the task into its own namespaces and cgroups, copies its output
//! into files of bounded size, keeps its grace and completion deadlines, kills the whole
//! process tree and leaves the exit status on disk. Nobody needs to be there to read it.
//!
//! It is kept small on purpose, since there is one per task: one thread, no runtime, no
//! buffers but one, no allocation after the start. [`protocol`] describes its files.
//!
//! ```text
//! tepui-shim run DIR      run the task of DIR/spec; see protocol
//! tepui-shim exec         run a command beside a task; the spec comes on stdin
//! tepui-shim probe        print what this kernel and user allow: `pid mount`
//! ```
//!
//! # Invariants
//!
//! - The task does not run before `state` names it on disk, so a restarted agent finds it.
//! - When `exit` is on disk, no process of the task is left.
//! - The task never outlives the shim: its death (even by SIGKILL) kills the namespace's init
//!   and the task.

mod child;
mod exec;
mod logs;
mod protocol;
mod supervise;
mod sys;
mod tree;

use std::process::exit;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let code = match (mode.to_str(), arguments.next(), arguments.next()) {
        (Some("run"), Some(folder), None) => supervise::run(folder),
        (Some("exec"), None, None) => exec::run(),
        (Some("probe"), None, None) => exec::probe(),
        (Some("--version"), None, None) => {
            println!("tepui-shim {}", env!("CARGO_PKG_VERSION"));
            0
        }
        _ => {
            eprintln!("usage: tepui-shim run DIR | exec < SPEC | probe | --version");
            2
        }
    };
    exit(code);
}
