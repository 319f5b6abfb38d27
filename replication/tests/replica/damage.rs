//! Stores that are in use, foreign, incomplete or damaged.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use tepui_replication::{Identity, OpenError, Options, Store};

use crate::owner::{Running, options};

fn filled(options: &Options, entries: u32) {
    let mut running = Running::start(options).expect("start");
    for n in 0..entries {
        running.commit(format!("entry {n}").as_bytes());
    }
}

fn newest_wal(dir: &Path) -> PathBuf {
    fs::read_dir(dir.join("log"))
        .expect("folder")
        .map(|it| it.expect("entry").path())
        .filter(|it| it.extension().is_some_and(|it| it == "log"))
        .filter(|it| fs::metadata(it).expect("file").len() > 0)
        .max()
        .expect("a write-ahead log")
}

#[test]
fn a_store_in_use_is_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let options = options(dir.path());
    let running = Running::start(&options).expect("start");
    let error = Store::open(&options).expect_err("in use");
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    drop(running);
    Store::open(&options).expect("free again");
}

#[test]
fn another_clusters_store_is_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let options = options(dir.path());
    let store = Store::open(&options).expect("new");
    assert!(store.is_new());
    drop(store);
    let other = Options {
        identity: Identity::first("unused", "unused"),
        expected_cluster: Some("another".to_owned()),
        ..options.clone()
    };
    let error = Store::open(&other).expect_err("foreign");
    let text = error.to_string();
    assert!(text.contains("belongs to cluster cluster, not to cluster another"));
    // What is stored wins over what is drawn.
    let same = Options {
        expected_cluster: Some("cluster".to_owned()),
        ..other
    };
    let store = Store::open(&same).expect("own");
    assert_eq!(store.identity(), &options.identity);
    assert!(!store.is_new());
}

#[test]
fn parts_of_two_stores_are_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let first = options(&dir.path().join("first"));
    let second = Options {
        identity: Identity::first("second", "cluster"),
        ..options(&dir.path().join("second"))
    };
    filled(&first, 3);
    filled(&second, 3);
    fs::remove_dir_all(second.dir.join("rows")).expect("remove");
    fs::rename(first.dir.join("rows"), second.dir.join("rows")).expect("rename");
    let error = Store::open(&second).expect_err("mixed");
    assert!(error.to_string().contains("of two stores"), "{error}");
}

#[test]
fn a_log_that_lost_its_end_is_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let options = options(dir.path());
    let mut running = Running::start(&options).expect("start");
    for n in 0..20_u8 {
        running.commit(&[n; 100]);
    }
    running.replica.stop();
    // The rows are as of the last entry; the log's newest file is cut to a half.
    let wal = newest_wal(dir.path());
    let length = fs::metadata(&wal).expect("file").len();
    let file = OpenOptions::new().write(true).open(&wal).expect("file");
    file.set_len(length / 2).expect("cut");
    let error = Running::start(&options).err().expect("refused");
    assert!(error.to_string().contains("has lost its end"), "{error}");
}

#[test]
fn a_torn_tail_is_dropped() {
    let dir = tempfile::tempdir().expect("folder");
    let options = options(dir.path());
    filled(&options, 20);
    // As a crash amid a write leaves it: the last record lacks its end.
    let wal = newest_wal(dir.path());
    let length = fs::metadata(&wal).expect("file").len();
    let file = OpenOptions::new().write(true).open(&wal).expect("file");
    file.set_len(length - 5).expect("cut");
    let mut running = Running::start(&options).expect("start");
    assert_eq!(running.replayed, 19);
    running.commit(b"goes on");
    drop(running);
    let running = Running::start(&options).expect("start");
    assert_eq!(running.replayed, 20);
}

#[test]
fn damage_is_told() {
    let dir = tempfile::tempdir().expect("folder");
    let options = options(dir.path());
    filled(&options, 50);
    // In the middle, where no crash writes.
    let wal = newest_wal(dir.path());
    let file = File::options()
        .read(true)
        .write(true)
        .open(&wal)
        .expect("file");
    let middle = file.metadata().expect("file").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("read");
    file.write_all_at(&[!byte[0]], middle).expect("write");
    let error = Store::open(&options).expect_err("damaged");
    assert!(matches!(error, OpenError::Corrupted { .. }), "{error:?}");
    assert!(error.to_string().contains("is damaged"), "{error}");
}

#[test]
fn making_a_store_may_be_interrupted() {
    let dir = tempfile::tempdir().expect("folder");
    let options = options(dir.path());
    drop(Store::open(&options).expect("new"));
    // Rows are made first, then the log.
    fs::remove_dir_all(dir.path().join("log")).expect("remove");
    let store = Store::open(&options).expect("completed");
    assert_eq!(store.identity(), &options.identity);
    drop(store);
    filled(&options, 3);
    Running::start(&options).expect("start").replica.stop();
    fs::remove_dir_all(dir.path().join("log")).expect("remove");
    let error = Store::open(&options).expect_err("log is gone");
    assert!(error.to_string().contains("log is missing"), "{error}");
}
