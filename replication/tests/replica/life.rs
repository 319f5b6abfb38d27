//! Starts, stops, leadership and back-pressure.

use std::time::Duration;

use bytes::Bytes;
use tepui_replication::{Options, ProposeError, Store};

use crate::owner::{Event, REMOVE, Running, options};

#[test]
fn what_is_committed_is_there_after_a_crash() {
    let dir = tempfile::tempdir().expect("folder");
    let options = options(dir.path());
    let mut all = Vec::new();
    for life in 0..3 {
        let mut running = Running::start(&options).expect("start");
        assert_eq!(running.replayed, all.len());
        assert_eq!(running.datas(), all);
        for n in 0..50 {
            let data = format!("{life}:{n}").into_bytes();
            running.commit(&data);
            all.push(data);
        }
        drop(running);
    }
}

#[test]
fn a_stop_writes_the_rows() {
    let dir = tempfile::tempdir().expect("folder");
    let options = options(dir.path());
    let mut running = Running::start(&options).expect("start");
    let data = |n: u8| match n % 10 {
        9 => REMOVE.to_vec(),
        _ => vec![n],
    };
    let positions: Vec<_> = (0..100).map(|n| running.propose(&data(n))).collect();
    let sequences: Vec<_> = positions.iter().map(|it| it.sequence).collect();
    assert_eq!(sequences, (1..=100).collect::<Vec<_>>());
    running.await_commit(positions[99]);
    let last = *running.seen.last_key_value().expect("entries").0;
    running.replica.stop();

    let running = Running::start(&options).expect("start");
    assert_eq!(running.applied, last);
    assert_eq!(running.replayed, 0);
    // One of ten removed another one.
    let expected: Vec<_> = (0..100).filter(|n| n % 10 != 8).map(data).collect();
    assert_eq!(running.datas(), expected);
}

#[test]
fn rows_are_written_behind_and_the_log_is_cut() {
    let dir = tempfile::tempdir().expect("folder");
    let options = Options {
        flush_bytes: 100_000,
        keep_log_bytes: 0,
        ..options(dir.path())
    };
    let mut running = Running::start(&options).expect("start");
    let data = vec![7; 10_000];
    for _ in 0..300 {
        running.commit(&data);
    }
    drop(running);

    // Only rows of the newest entries can be missing: the flush under way, and what came since.
    let mut running = Running::start(&options).expect("start");
    assert!(running.applied > 200, "{}", running.applied);
    assert!(running.replayed < 100, "{}", running.replayed);
    let newest = *running.seen.last_key_value().expect("entries").0;
    assert!(newest >= 301, "{newest}");
    // The next life does so too.
    for _ in 0..300 {
        running.commit(&data);
    }
    drop(running);
    let running = Running::start(&options).expect("start");
    assert!(running.applied > newest + 200, "{}", running.applied);
    drop(running);

    // Without its rows, the log is of no use any more.
    std::fs::remove_dir_all(dir.path().join("rows")).expect("remove");
    let error = Store::open(&options).expect_err("rows are gone");
    assert!(error.to_string().contains("rows is missing"), "{error}");
}

#[test]
fn rows_are_written_after_a_while() {
    let dir = tempfile::tempdir().expect("folder");
    let options = Options {
        flush_interval: Duration::from_millis(1),
        ..options(dir.path())
    };
    let mut running = Running::start(&options).expect("start");
    running.commit(b"early");
    // Commits go on until a start finds rows: each life is long enough for a flush or it is not.
    for life in 0.. {
        assert!(life < 1000, "rows are never written");
        running.commit(b"more");
        drop(running);
        running = Running::start(&options).expect("start");
        if running.applied > 0 {
            break;
        }
    }
}

#[test]
fn leadership_ends_and_begins_anew() {
    let dir = tempfile::tempdir().expect("folder");
    let mut running = Running::start(&options(dir.path())).expect("start");
    running.commit(b"first");
    let before = running.term;
    assert_eq!(running.handle.leading_term(), Some(before));
    running.handle.step_down(None).expect("taken");
    while running.event() != Event::Follower(None) {}
    let refused = running.handle.propose(before, Bytes::from_static(b"late"));
    assert_eq!(refused, Err(ProposeError::NotLeader { term: before }));
    running.await_leadership();
    assert!(running.term > before);
    let refused = running.handle.propose(before, Bytes::from_static(b"late"));
    assert_eq!(refused, Err(ProposeError::NotLeader { term: before }));
    // Sequences begin anew.
    let position = running.propose(b"second");
    assert_eq!((position.term, position.sequence), (running.term, 1));
    running.await_commit(position);
    assert_eq!(running.datas(), [b"first".as_slice(), b"second"]);
}

#[test]
fn a_leadership_that_is_given_up_takes_no_more_proposals() {
    let dir = tempfile::tempdir().expect("folder");
    let running = Running::start(&options(dir.path())).expect("start");
    let (handle, term) = (running.handle.clone(), running.term);
    // Of another term: nothing happens.
    handle.give_up(term + 1);
    let entry = bytes::Bytes::from_static(b"entry");
    assert!(handle.propose(term, entry.clone()).is_ok());
    handle.give_up(term);
    let refused = handle.propose(term, entry);
    assert_eq!(refused, Err(ProposeError::NotLeader { term }));
}

#[test]
fn leadership_is_confirmed() {
    let dir = tempfile::tempdir().expect("folder");
    let mut running = Running::start(&options(dir.path())).expect("start");
    running.propose(b"before");
    running.handle.confirm(running.term, 42);
    while running.event() != Event::Confirmed(42) {}
}

#[test]
fn too_much_in_flight_is_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let options = Options {
        max_bytes_in_flight: 1000,
        ..options(dir.path())
    };
    let mut running = Running::start(&options).expect("start");
    // More than the limit, but alone.
    let large = running.propose(&[1; 5000]);
    let mut refused = 0;
    let mut taken = Vec::new();
    for n in 0..2000_u16 {
        let data = Bytes::from(vec![2; 400]);
        match running.handle.propose(running.term, data) {
            Ok(position) => taken.push((n, position)),
            Err(ProposeError::Full) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        assert!(running.handle.bytes_in_flight() <= 5000);
    }
    assert!(refused > 0);
    running.await_commit(large);
    if let Some((_, last)) = taken.last() {
        running.await_commit(*last);
    }
    // Everything has landed: there is room again, and nothing refused was committed.
    running.commit(&[3; 900]);
    assert_eq!(running.handle.bytes_in_flight(), 0);
    assert_eq!(running.seen.len(), taken.len() + 2);
}

#[test]
fn an_entry_that_cannot_be_applied_is_fatal() {
    let dir = tempfile::tempdir().expect("folder");
    let mut running = Running::start(&options(dir.path())).expect("start");
    running.commit(b"fine");
    running.propose(b"poison");
    let Event::Fatal(text) = running.event() else {
        panic!("expected the end");
    };
    assert!(text.contains("cannot be applied"), "{text}");
    // The log goes on to hold it: the next start ends the same way, before it leads.
    let handle = running.handle.clone();
    drop(running);
    let refused = handle.propose(1, Bytes::from_static(b"x"));
    assert_eq!(refused, Err(ProposeError::NotLeader { term: 1 }));
}
