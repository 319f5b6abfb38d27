//! Every mutation fits the sources as they are.

#[path = "../runner/mutations.rs"]
mod mutations;

use std::path::Path;

#[test]
fn every_mutation_can_be_planted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("root");
    let all = mutations::all().expect("mutations");
    assert!(all.len() >= 20, "only {}", all.len());
    for it in &all {
        assert!(!it.what.is_empty(), "{} says what it is", it.name);
        let planted = it.plant(root);
        assert!(planted.is_ok(), "{planted:?}");
    }
}
