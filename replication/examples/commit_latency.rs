//! What a commit of a single writer costs over a bare append and fdatasync of the same bytes.
//!
//! ```text
//! cargo run --release -p tepui-replication --example commit_latency [folder] [bytes]
//! ```
//!
//! Rounds of both alternate in one folder, since disks are moody. Then many proposals at once:
//! what one fsync for many entries is worth.

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tepui_replication::{
    BoxError, Committed, Identity, Listener, NodeId, Options, ProposeError, Replica, RowChanges,
    Store,
};
use tokio::runtime;

const ROUNDS: usize = 20;
const PER_ROUND: usize = 200;
const MANY: u64 = 100_000;

enum Event {
    Leader(u64),
    Committed(u64),
}

/// Keeps nothing but the newest entry.
struct Owner {
    newest: Option<Committed>,
    events: SyncSender<Event>,
}

impl Listener for Owner {
    fn on_committed(&mut self, entry: Committed) -> Result<(), BoxError> {
        let sequence = entry.sequence;
        self.newest = Some(entry);
        Ok(self.events.send(Event::Committed(sequence))?)
    }

    fn take_dirty_rows(&mut self) -> RowChanges {
        let newest = self.newest.take();
        let row = |it: Committed| (Bytes::from_static(b"newest"), Some(it.data));
        Box::new(move || newest.map(row).into_iter().collect())
    }

    fn on_leader(&mut self, term: u64) {
        let _ = self.events.send(Event::Leader(term));
    }

    fn on_follower(&mut self, _leader: Option<NodeId>) {}

    fn on_confirmed(&mut self, _ticket: u64) {}
}

fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| ".".to_owned());
    let bytes: usize = arguments.next().map_or(Ok(300), |it| it.parse())?;
    let dir = tempfile::tempdir_in(Path::new(&folder))?;

    let identity = Identity::first("bench", "bench");
    let options = Options::new(dir.path().join("store"), identity);
    // As many as can be on their way: the raft thread must not wait for this one.
    let (events, incoming) = sync_channel(1 << 20);
    let owner = Owner {
        newest: None,
        events,
    };
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()?;
    let store = Store::open(&options)?;
    let replica = Replica::start(store, &options, Box::new(owner), runtime.handle())?;
    let handle = replica.handle();
    let term = loop {
        if let Event::Leader(term) = incoming.recv()? {
            break term;
        }
    };

    let entry = Bytes::from(vec![7; bytes]);
    let mut file = File::create(dir.path().join("bare"))?;
    let (mut bare, mut commits) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for _ in 0..PER_ROUND {
            let begin = Instant::now();
            file.write_all(&entry)?;
            file.sync_data()?;
            bare.push(begin.elapsed());
        }
        for _ in 0..PER_ROUND {
            let begin = Instant::now();
            let position = handle.propose(term, entry.clone())?;
            await_commit(&incoming, position.sequence)?;
            commits.push(begin.elapsed());
        }
    }
    let one = report("append + fdatasync", &mut bare);
    let other = report("commit", &mut commits);
    println!("ratio of the medians {:.2}", other / one);

    let begin = Instant::now();
    let mut last = 0;
    for _ in 0..MANY {
        last = loop {
            match handle.propose(term, entry.clone()) {
                Ok(position) => break position.sequence,
                Err(ProposeError::Full) => {
                    // Room is made by commits: wait for one.
                    incoming.recv()?;
                }
                Err(error) => return Err(error.into()),
            }
        };
    }
    await_commit(&incoming, last)?;
    let rate = MANY as f64 / begin.elapsed().as_secs_f64();
    println!("{MANY} proposals at once: {rate:.0}/s");
    replica.stop();

    let begin = Instant::now();
    let applied = Store::open(&options)?.applied();
    println!("reopened at entry {applied} in {:?}", begin.elapsed());
    Ok(())
}

fn await_commit(incoming: &Receiver<Event>, sequence: u64) -> Result<(), BoxError> {
    loop {
        if let Event::Committed(it) = incoming.recv()?
            && it == sequence
        {
            return Ok(());
        }
    }
}

// Prints percentiles in microseconds and returns the median.
fn report(what: &str, times: &mut [Duration]) -> f64 {
    times.sort();
    let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e6;
    let (median, high, highest) = (at(50), at(90), at(99));
    println!("{what}: p50 {median:.0} us, p90 {high:.0} us, p99 {highest:.0} us");
    median
}
