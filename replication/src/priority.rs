//! The priority of threads that others wait for.
//!
//! A master whose clients and agents use every core must still answer its peers within an election
//! time-out, or it is taken for dead. What Raft's threads do is short and bounded by what is
//! proposed, so they may go first.

/// Nice value of the threads of Raft: four to nine times the share of an ordinary thread, and
/// woken at once.
const AHEAD: i32 = 10;
/// The most that Linux knows.
const FIRST: i32 = -20;

/// Lets the calling thread go before others of this machine.
///
/// Needs `CAP_SYS_NICE` (root has it; in systemd `LimitNICE=-10`, in Docker `cap_add: SYS_NICE`).
/// Without it nothing changes, and elections without a fault are likelier on a machine whose cores
/// are all busy.
pub fn go_first() {
    // To Linux "this process" is the calling thread. Whoever started the master with another
    // priority gave it to the other threads too.
    let own = rustix::process::getpriority_process(None).unwrap_or(0);
    let first = (own - AHEAD).max(FIRST);
    if let Err(error) = rustix::process::setpriority_process(None, first) {
        tracing::debug!(%error, "threads of Raft have no priority over others");
    }
}
