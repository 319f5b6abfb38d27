//! Every input of the fuzzers' corpora, through what the fuzz targets do.

use std::{fs, path::Path};
use tepui_proto::fuzzing;

fn run(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let folder = folder.join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is committed") {
        let path = entry.expect("readable").path();
        let data = fs::read(&path).expect("readable");
        // A panic in the check should say which input it was.
        println!("{}", path.display());
        check(&data);
        count += 1;
    }
    assert!(count >= 10, "{target}: {count}");
}

#[test]
fn json() {
    run("json", fuzzing::json);
}

#[test]
fn protobuf() {
    run("protobuf", fuzzing::protobuf);
}

#[test]
fn recordio() {
    run("recordio", fuzzing::recordio);
}
