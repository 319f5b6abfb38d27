//! What the fuzz targets and the test of their corpora do with an input. Not part of the
//! interface.

use crate::{json, recordio, wire};
use bytes::Bytes;

/// What clients send and read, and some with maps, oneofs, defaults and recursion.
pub const MESSAGES: [&str; 12] = [
    "mesos.v1.scheduler.Call",
    "mesos.v1.scheduler.Event",
    "mesos.v1.master.Call",
    "mesos.v1.master.Response",
    "mesos.v1.master.Event",
    "mesos.v1.agent.Call",
    "mesos.v1.agent.Response",
    "mesos.v1.executor.Call",
    "mesos.v1.executor.Event",
    "mesos.v1.Offer",
    "mesos.v1.TaskInfo",
    "mesos.v1.ContainerID",
];

/// The first byte chooses the message.
fn choose(data: &[u8]) -> Option<(&'static str, &[u8])> {
    let (first, rest) = data.split_first()?;
    let name = MESSAGES[usize::from(*first) % MESSAGES.len()];
    Some((name, rest))
}

/// Reads JSON; what is accepted has to be whole, to be writable, and to read back as what
/// was written.
pub fn json(data: &[u8]) {
    let Some((name, text)) = choose(data) else {
        return;
    };
    let Ok(first) = json::decode_wire(name, text) else {
        return;
    };
    wire::check(name, &first).expect("what was read is whole");
    let mut written = String::new();
    json::encode_wire(name, &first, &mut written).expect("what was read can be written");
    let second = json::decode_wire(name, written.as_bytes()).expect("what was written reads");
    let mut again = String::new();
    json::encode_wire(name, &second, &mut again).expect("what was read can be written");
    assert_eq!(written, again);
}

/// Reads protobuf; what is accepted can be written as JSON that parses.
pub fn protobuf(data: &[u8]) {
    let Some((name, bytes)) = choose(data) else {
        return;
    };
    let whole = wire::check(name, bytes).is_ok();
    let mut written = String::new();
    if json::encode_wire(name, bytes, &mut written).is_ok() {
        let value: serde_json::Value = serde_json::from_str(&written).expect("JSON");
        let tree = json::wire_to_value(name, bytes).expect("as the text");
        assert_eq!(value, tree);
        // Numbers without a name are written but not read; everything else reads back.
        if whole && let Err(error) = json::decode_wire(name, written.as_bytes()) {
            let text = error.to_string();
            assert!(text.contains("a name of"), "{text}: {written}");
        }
    }
    for number in 1..8 {
        for part in wire::fields(bytes, number) {
            assert!(part.len() < bytes.len());
        }
    }
    let shared = Bytes::copy_from_slice(bytes);
    let _ = wire::path(&shared, &[1, 1]);
    let _ = wire::decode::<crate::mesos::v1::scheduler::Call>(shared);
}

/// Reads RecordIO twice, in pieces of another size: the records are the same, and framing
/// them again gives what was consumed.
pub fn recordio(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else {
        return;
    };
    let whole = records(stream, stream.len().max(1));
    let pieces = records(stream, usize::from(*first).max(1));
    assert_eq!(whole, pieces);
    let (records, _) = whole;
    let framed: Vec<u8> = records.iter().flat_map(|it| recordio::encode(it)).collect();
    let (again, error) = self::records(&framed, 7);
    assert_eq!((records, None), (again, error));
}

fn records(stream: &[u8], size: usize) -> (Vec<Bytes>, Option<recordio::Error>) {
    let mut decoder = recordio::Decoder::new(1 << 16);
    let mut records = Vec::new();
    for piece in stream.chunks(size) {
        decoder.push(piece);
        loop {
            match decoder.next_record() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(error) => return (records, Some(error)),
            }
        }
    }
    (records, None)
}
