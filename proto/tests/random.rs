//! Properties over random messages, made from the descriptors, with prost-reflect as the
//! oracle where its rules are ours.

use proptest::prelude::*;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage, SerializeOptions};
use serde_json::Value;
use std::sync::LazyLock;
use tepui_proto::{
    descriptor::{Field, Kind, Label, Message, registry},
    fuzzing, json, wire,
};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(tepui_proto::FILE_DESCRIPTOR_SET).expect("the set is whole")
});

/// Random choices; all of them are 0, which makes nothing, once the bytes are used up.
/// Shrinking the bytes shrinks the message.
struct Dice<'a>(std::slice::Iter<'a, u8>);

impl Dice<'_> {
    fn new(bytes: &[u8]) -> Dice<'_> {
        Dice(bytes.iter())
    }

    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn below(&mut self, bound: usize) -> usize {
        (usize::from(self.byte()) << 8 | usize::from(self.byte())) % bound.max(1)
    }

    fn word(&mut self) -> u64 {
        let bits = (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte()));
        // Short ones more often than long ones.
        bits >> (self.below(8) * 8)
    }
}

/// A message before it is written.
#[derive(Clone)]
struct Node {
    fields: Vec<(&'static Field, Vec<Part>)>,
}

#[derive(Clone)]
enum Part {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Vec<u8>),
    Node(Node),
}

/// How messages are made.
struct Maker<'a> {
    dice: Dice<'a>,
    /// How many required fields are made before one is left out.
    omit: Option<usize>,
    /// Path of the field that was left out.
    omitted: Option<String>,
}

impl Maker<'_> {
    fn node(&mut self, message: &'static Message, depth: usize, path: &str) -> Node {
        let mut fields = Vec::new();
        let mut oneofs = Vec::new();
        for field in message.fields() {
            if field.oneof().is_some_and(|it| oneofs.contains(&it)) {
                continue;
            }
            let path = if path.is_empty() {
                field.name().to_owned()
            } else {
                format!("{path}.{}", field.name())
            };
            let count = match field.label() {
                Label::Required => match self.omit {
                    // One with a default shows it in JSON and so is not missing there.
                    Some(0) if self.omitted.is_none() && field.default().is_none() => {
                        self.omitted = Some(path);
                        continue;
                    }
                    Some(left) => {
                        self.omit = Some(left.saturating_sub(1));
                        1
                    }
                    None => 1,
                },
                // The oracle prints no defaults, so none of these is left out.
                Label::Optional if field.default().is_some() => 1,
                Label::Optional => self.dice.below(3) / 2,
                Label::Repeated | Label::Map => self.dice.below(7).saturating_sub(3),
            };
            if let Kind::Message(id) = field.kind() {
                let shape = registry().message_at(id);
                // The oracle writes Google's well-known types in another way.
                let foreign = shape.name().starts_with("google.");
                if foreign || (depth == 0 && field.label() != Label::Required) {
                    continue;
                }
            }
            let mut parts = Vec::new();
            for index in 0..count {
                let path = match field.label() {
                    Label::Repeated | Label::Map => format!("{path}[{index}]"),
                    Label::Optional | Label::Required => path.clone(),
                };
                parts.push(self.part(field, depth, index, &path));
            }
            if count > 0 {
                oneofs.extend(field.oneof());
                fields.push((field, parts));
            }
        }
        Node { fields }
    }

    fn part(&mut self, field: &'static Field, depth: usize, index: usize, path: &str) -> Part {
        match field.kind() {
            Kind::Message(id) if field.label() == Label::Map => {
                self.entry(registry().message_at(id), depth, index, path)
            }
            Kind::Message(id) => {
                let message = registry().message_at(id);
                Part::Node(self.node(message, depth.saturating_sub(1), path))
            }
            _ => self.scalar(field),
        }
    }

    /// Keys are told apart by their number.
    fn entry(&mut self, entry: &'static Message, depth: usize, index: usize, path: &str) -> Part {
        let [key, value] = entry.fields() else {
            panic!("an entry has a key and a value");
        };
        assert_eq!(key.kind(), Kind::String);
        let text = Part::Bytes(format!("k{index}").into_bytes());
        let part = self.part(value, depth, 0, &format!("{path}.value"));
        let fields = vec![(key, vec![text]), (value, vec![part])];
        Part::Node(Node { fields })
    }

    fn scalar(&mut self, field: &Field) -> Part {
        let dice = &mut self.dice;
        match field.kind() {
            Kind::Double => {
                const NUMBERS: [f64; 11] = [
                    0.0,
                    1.0,
                    -1.0,
                    0.1,
                    1e15,
                    1e16,
                    1e300,
                    5e-324,
                    f64::MAX,
                    f64::INFINITY,
                    f64::NEG_INFINITY,
                ];
                let number = match NUMBERS.get(dice.below(22)) {
                    Some(number) => *number,
                    None => Some(f64::from_bits(dice.word().rotate_left(32)))
                        .filter(|it| !it.is_nan())
                        .unwrap_or(2.5),
                };
                Part::Fixed64(number.to_bits())
            }
            Kind::Float => Part::Fixed32(1.5f32.to_bits()),
            Kind::Fixed32 | Kind::Sfixed32 => Part::Fixed32(dice.word() as u32),
            Kind::Fixed64 | Kind::Sfixed64 => Part::Fixed64(dice.word()),
            Kind::Int32 => Part::Varint(i64::from(dice.word() as i32) as u64),
            Kind::Uint32 | Kind::Sint32 => Part::Varint(u64::from(dice.word() as u32)),
            Kind::Int64 | Kind::Uint64 | Kind::Sint64 => Part::Varint(dice.word()),
            Kind::Bool => Part::Varint(u64::from(dice.byte() % 2)),
            Kind::Enum(id) => {
                let values = registry().enum_at(id).values();
                let (_, number) = values[dice.below(values.len())];
                Part::Varint(i64::from(number) as u64)
            }
            Kind::String => {
                const LETTERS: [char; 8] = ['a', '"', '\\', '\n', '\u{1}', 'é', '\u{7f}', '😀'];
                let length = dice.below(6);
                let text: String = (0..length).map(|_| LETTERS[dice.below(8)]).collect();
                Part::Bytes(text.into_bytes())
            }
            Kind::Bytes => Part::Bytes((0..dice.below(6)).map(|_| dice.byte()).collect()),
            Kind::Message(_) => unreachable!("handled by the caller"),
        }
    }
}

/// A random message of a random type, without the required field number `omit`.
fn make(entropy: &[u8], omit: Option<usize>) -> (&'static Message, Node, Option<String>) {
    let messages: Vec<&Message> = registry()
        .messages()
        .iter()
        .filter(|it| it.name().starts_with("mesos.v1") && !it.name().ends_with("Entry"))
        .collect();
    let mut maker = Maker {
        dice: Dice::new(entropy),
        omit,
        omitted: None,
    };
    let message = messages[maker.dice.below(messages.len())];
    let node = maker.node(message, 4, "");
    (message, node, maker.omitted)
}

/// A random message of the type that the fuzz targets choose by `first`.
fn make_for_fuzzing(entropy: &[u8], first: u8) -> (&'static Message, Node) {
    let name = fuzzing::MESSAGES[usize::from(first) % fuzzing::MESSAGES.len()];
    let message = registry().message(name).expect("known");
    let mut maker = Maker {
        dice: Dice::new(entropy),
        omit: None,
        omitted: None,
    };
    (message, maker.node(message, 4, ""))
}

fn record(field: &Field, part: &Part, write: &mut dyn FnMut(&Node) -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    let bytes = |bytes: &[u8], out: &mut Vec<u8>| {
        encode_key(field.number(), WireType::LengthDelimited, out);
        encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    };
    match part {
        Part::Varint(bits) => {
            encode_key(field.number(), WireType::Varint, &mut out);
            encode_varint(*bits, &mut out);
        }
        Part::Fixed64(bits) => {
            encode_key(field.number(), WireType::SixtyFourBit, &mut out);
            out.extend_from_slice(&bits.to_le_bytes());
        }
        Part::Fixed32(bits) => {
            encode_key(field.number(), WireType::ThirtyTwoBit, &mut out);
            out.extend_from_slice(&bits.to_le_bytes());
        }
        Part::Bytes(payload) => bytes(payload, &mut out),
        Part::Node(node) => bytes(&write(node), &mut out),
    }
    out
}

/// As prost would write it.
fn clean(node: &Node) -> Vec<u8> {
    let mut records: Vec<(u32, Vec<u8>)> = Vec::new();
    for (field, parts) in &node.fields {
        for part in parts {
            records.push((field.number(), record(field, part, &mut clean)));
        }
    }
    records.sort_by_key(|it| it.0);
    records.into_iter().flat_map(|it| it.1).collect()
}

/// The same message written as strangely as protobuf allows: fields in any order, replaced
/// values before the valid ones, sub-messages in two parts, unknown fields in between.
fn noisy(node: &Node, dice: &mut Dice<'_>) -> Vec<u8> {
    let mut queues: Vec<Vec<Vec<u8>>> = Vec::new();
    for (field, parts) in &node.fields {
        let mut queue = Vec::new();
        for part in parts {
            match (field.label(), part) {
                (Label::Map, _) => queue.push(record(field, part, &mut clean)),
                (Label::Repeated, _) => {
                    queue.push(record(field, part, &mut |node| noisy(node, dice)));
                }
                (_, Part::Node(node)) => {
                    let bits = dice.word();
                    let half = |side: u64| {
                        let fields = node.fields.iter().enumerate();
                        let fields = fields.filter(|(at, _)| bits >> (at % 64) & 1 == side);
                        Node {
                            fields: fields.map(|(_, field)| field.clone()).collect(),
                        }
                    };
                    for half in [half(0), half(1)] {
                        let part = Part::Node(half);
                        queue.push(record(field, &part, &mut |node| noisy(node, dice)));
                    }
                }
                (_, scalar) => {
                    let replaced = match scalar {
                        Part::Varint(_) => Part::Varint(1),
                        Part::Fixed64(_) => Part::Fixed64(dice.word()),
                        Part::Fixed32(_) => Part::Fixed32(7),
                        _ => Part::Bytes(b"replaced".to_vec()),
                    };
                    queue.push(record(field, &replaced, &mut clean));
                    queue.push(record(field, scalar, &mut clean));
                }
            }
        }
        queue.reverse();
        queues.push(queue);
    }
    let mut out = Vec::new();
    while !queues.is_empty() {
        let at = dice.below(queues.len());
        match queues[at].pop() {
            Some(record) => out.extend_from_slice(&record),
            None => drop(queues.swap_remove(at)),
        }
        match dice.below(5) {
            3 => prost::encoding::uint64::encode(15_000, &dice.word(), &mut out),
            4 => {
                encode_key(15_001, WireType::StartGroup, &mut out);
                prost::encoding::uint64::encode(15_000, &7, &mut out);
                encode_key(15_001, WireType::EndGroup, &mut out);
            }
            _ => {}
        }
    }
    out
}

fn text_of(message: &Message, bytes: &[u8]) -> String {
    let mut text = String::new();
    json::encode_wire(message.name(), bytes, &mut text).expect("the message is whole");
    text
}

fn oracle(message: &Message, bytes: &[u8]) -> DynamicMessage {
    let descriptor = POOL.get_message_by_name(message.name()).expect("known");
    DynamicMessage::decode(descriptor, bytes).expect("the message is whole")
}

/// `first` and then `bytes` with some of them replaced.
fn spoilt(first: u8, bytes: &[u8], spoil: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, byte) in spoil {
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
    }
    bytes.insert(0, first);
    bytes
}

/// Enough for large messages now and then.
fn entropy() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        prop::collection::vec(any::<u8>(), 0..1500),
    ]
}

proptest! {
    // Failures are printed whole; files beside the sources help nobody.
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_written_reads_back_and_the_oracle_agrees(entropy in entropy()) {
        let (message, node, _) = make(&entropy, None);
        let bytes = clean(&node);
        prop_assert_eq!(wire::check(message.name(), &bytes), Ok(()));
        let text = text_of(message, &bytes);
        let value: Value = serde_json::from_str(&text)?;
        prop_assert_eq!(&json::wire_to_value(message.name(), &bytes)?, &value);

        let expected = oracle(message, &bytes);
        let options = SerializeOptions::new()
            .use_proto_field_name(true)
            .stringify_64_bit_integers(false)
            .skip_default_fields(true);
        let theirs = expected.serialize_with_options(serde_json::value::Serializer, &options)?;
        prop_assert_eq!(&value, &theirs);

        let again = json::decode_wire(message.name(), text.as_bytes())?;
        prop_assert_eq!(&again, &bytes);
        let read = DynamicMessage::deserialize(
            expected.descriptor(),
            &mut serde_json::Deserializer::from_str(&text),
        )?;
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn the_order_on_the_wire_and_unknown_fields_do_not_show(
        entropy in entropy(),
        noise in prop::collection::vec(any::<u8>(), 0..1500),
    ) {
        let (message, node, _) = make(&entropy, None);
        let noisy = noisy(&node, &mut Dice::new(&noise));
        prop_assert_eq!(text_of(message, &noisy), text_of(message, &clean(&node)));
        prop_assert_eq!(wire::check(message.name(), &noisy), Ok(()));
    }

    #[test]
    fn one_missing_field_is_named(entropy in entropy(), omit in 0usize..40) {
        let (message, node, omitted) = make(&entropy, Some(omit));
        let Some(path) = omitted else { return Ok(()) };
        let bytes = clean(&node);
        let expected = format!("{path}: required field is missing");
        let error = wire::check(message.name(), &bytes).unwrap_err();
        prop_assert_eq!(error.to_string(), expected.clone());
        let text = text_of(message, &bytes);
        let error = json::decode_wire(message.name(), text.as_bytes()).unwrap_err();
        // An entry of a map has its number on the wire and its key in JSON.
        let found = error.to_string();
        if found.contains("[\"") {
            prop_assert!(found.ends_with("required field is missing"));
        } else {
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn spoilt_json_is_refused_or_understood(
        entropy in entropy(),
        first in any::<u8>(),
        spoil in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let (message, node) = make_for_fuzzing(&entropy, first);
        let text = text_of(message, &clean(&node));
        fuzzing::json(&spoilt(first, text.as_bytes(), &spoil));
    }

    #[test]
    fn spoilt_protobuf_is_refused_or_understood(
        entropy in entropy(),
        first in any::<u8>(),
        spoil in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let (_, node) = make_for_fuzzing(&entropy, first);
        fuzzing::protobuf(&spoilt(first, &clean(&node), &spoil));
    }

    #[test]
    fn records_do_not_depend_on_the_pieces(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
        pieces in any::<u8>(),
        garbage in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut stream = vec![pieces];
        for record in &records {
            stream.extend_from_slice(&tepui_proto::recordio::encode(record));
        }
        let mut decoder = tepui_proto::recordio::Decoder::new(300);
        let mut found = Vec::new();
        for piece in stream[1..].chunks(usize::from(pieces).max(1)) {
            decoder.push(piece);
            while let Some(record) = decoder.next_record()? {
                found.push(record);
            }
        }
        prop_assert_eq!(found, records);
        prop_assert!(decoder.is_between_records());
        stream.extend_from_slice(&garbage);
        fuzzing::recordio(&stream);
    }
}
