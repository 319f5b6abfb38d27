//! Hostile archives, made here entry by entry.

use super::*;
use std::io::Write;

enum Entry<'a> {
    File(&'a str, &'a [u8]),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Kind(&'a str, tar::EntryType),
}

/// Writes headers by hand: the crate's own builder refuses what an attacker would write.
fn tar_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let (name, kind, link, content): (_, _, _, &[u8]) = match entry {
            Entry::File(name, content) => (name, tar::EntryType::Regular, "", *content),
            Entry::Link(name, to) => (name, tar::EntryType::Symlink, *to, b""),
            Entry::Hard(name, to) => (name, tar::EntryType::Link, *to, b""),
            Entry::Kind(name, kind) => (name, *kind, "", b""),
        };
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_size(content.len() as u64);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// A sandbox inside of a directory that must stay as it is.
struct World {
    outer: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let outer = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(outer.path().join("sandbox")).expect("sandbox");
        fs::write(outer.path().join("precious"), "precious").expect("precious");
        World { outer }
    }

    fn sandbox(&self) -> PathBuf {
        self.outer.path().join("sandbox")
    }

    fn extract(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let archive = self.sandbox().join(name);
        fs::write(&archive, bytes).expect("archive");
        let result = extract(
            &archive,
            Format::of(name).expect("a known suffix"),
            &Extraction {
                destination: &self.sandbox(),
                user: None,
                max_bytes: 1 << 20,
                max_entries: 100,
                cancelled: &AtomicBool::new(false),
            },
        );
        let outside: Vec<_> = fs::read_dir(self.outer.path())
            .expect("outer")
            .map(|it| it.expect("entry").file_name())
            .collect();
        assert_eq!(outside.len(), 2, "something appeared outside: {outside:?}");
        let precious = fs::read_to_string(self.outer.path().join("precious"));
        assert_eq!(precious.ok().as_deref(), Some("precious"));
        result
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.sandbox().join(path)).unwrap_or_default()
    }
}

#[test]
fn hostile_entries_are_refused() {
    use Entry::{File, Hard, Kind, Link};
    let cases: Vec<(&str, Vec<Entry<'_>>)> = vec![
        ("parent", vec![File("../evil", b"x")]),
        ("deep parent", vec![File("a/../../evil", b"x")]),
        ("absolute", vec![File("/tmp/tepui-evil", b"x")]),
        ("absolute link", vec![Link("a", "/etc")]),
        ("link up", vec![Link("a", "..")]),
        ("deep link up", vec![Link("d/a", "../..")]),
        (
            "up behind a link",
            vec![Link("d/e/s", "../.."), Link("t", "d/e/s/..")],
        ),
        ("through a link", vec![Link("a", "."), File("a/x", b"x")]),
        ("hard link outside", vec![Hard("a", "../precious")]),
        ("hard link to a link", vec![Link("l", "x"), Hard("a", "l")]),
        ("device", vec![Kind("a", tar::EntryType::Char)]),
        ("block device", vec![Kind("a", tar::EntryType::Block)]),
        ("pipe", vec![Kind("a", tar::EntryType::Fifo)]),
        ("empty path", vec![File(".", b"x")]),
    ];
    for (name, entries) in cases {
        let world = World::new();
        assert!(world.extract("a.tar", &tar_of(&entries)).is_err(), "{name}");
    }
}

#[test]
fn good_archives_unpack_in_every_format() {
    let tar = tar_of(&[
        Entry::File("bin/tool", b"tool"),
        Entry::Link("bin/alias", "tool"),
        Entry::Hard("same", "bin/tool"),
        Entry::Link("up", "bin/alias"),
        Entry::Link("bin/down", "../same"),
    ]);
    let gz = {
        let mut it = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        it.write_all(&tar).expect("write");
        it.finish().expect("finish")
    };
    let bz2 = {
        let mut it = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        it.write_all(&tar).expect("write");
        it.finish().expect("finish")
    };
    let xz = {
        let mut it = xz2::write::XzEncoder::new(Vec::new(), 1);
        it.write_all(&tar).expect("write");
        it.finish().expect("finish")
    };
    for (name, bytes) in [
        ("a.tar", &tar),
        ("a.tgz", &gz),
        ("a.tar.gz", &gz),
        ("a.tbz2", &bz2),
        ("a.tar.bz2", &bz2),
        ("a.txz", &xz),
        ("a.tar.xz", &xz),
    ] {
        let world = World::new();
        assert_eq!(world.extract(name, bytes), Ok(()), "{name}");
        for path in ["bin/tool", "bin/alias", "same", "up", "bin/down"] {
            assert_eq!(world.read(path), "tool", "{name}: {path}");
        }
        let mode = fs::metadata(world.sandbox().join("bin/tool"))
            .expect("stat")
            .permissions();
        assert_eq!(mode.mode() & 0o7777, 0o755, "set-user-id must be gone");
    }
}

fn zip_of(entries: &[(&str, Option<u32>, &str)]) -> Vec<u8> {
    let mut out = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    for (name, mode, content) in entries {
        let options = zip::write::SimpleFileOptions::default();
        if *mode == Some(libc::S_IFLNK) {
            out.add_symlink(*name, *content, options).expect("link");
        } else {
            out.start_file(*name, options).expect("file");
            out.write_all(content.as_bytes()).expect("write");
        }
    }
    out.finish().expect("finish").into_inner()
}

#[test]
fn zip_files_follow_the_same_rules() {
    let world = World::new();
    let good = zip_of(&[("d/a", None, "hello"), ("l", Some(libc::S_IFLNK), "d/a")]);
    assert_eq!(world.extract("a.zip", &good), Ok(()));
    assert_eq!([world.read("d/a"), world.read("l")], ["hello", "hello"]);
    for (name, mode, content) in [
        ("../evil", None, "x"),
        ("l", Some(libc::S_IFLNK), "/etc/passwd"),
        ("l", Some(libc::S_IFLNK), "../precious"),
    ] {
        let world = World::new();
        assert!(
            world
                .extract("a.zip", &zip_of(&[(name, mode, content)]))
                .is_err()
        );
    }
    assert!(World::new().extract("a.zip", b"not a zip file").is_err());
}

#[test]
fn bombs_are_cut_off() {
    let zeros = vec![0; 4 << 20];
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gz.write_all(&tar_of(&[Entry::File("zeros", &zeros)]))
        .expect("write");
    let bomb = gz.finish().expect("finish");
    let error = World::new().extract("a.tgz", &bomb).unwrap_err();
    assert!(error.contains("more than the limit of 1MB"), "{error}");
    let names: Vec<String> = (0..101).map(|it| format!("f{it}")).collect();
    let many: Vec<_> = names.iter().map(|it| Entry::File(it, b"")).collect();
    let error = World::new().extract("a.tar", &tar_of(&many)).unwrap_err();
    assert!(error.contains("more than 100 entries"), "{error}");
}

#[test]
fn a_compressed_file_loses_its_suffix() {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(b"content").expect("write");
    let world = World::new();
    assert_eq!(
        world.extract("data.json.gz", &gz.finish().expect("finish")),
        Ok(())
    );
    assert_eq!(world.read("data.json"), "content");
}
