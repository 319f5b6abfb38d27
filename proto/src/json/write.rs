//! Wire bytes to JSON.

use super::sink::{Scalar, Sink};
use crate::{
    descriptor::{Field, Kind, Label, Message, registry},
    path,
    scan::{self, MAX_DEPTH, Malformed, Raw, Span},
    wire::Error,
};
use std::collections::BTreeMap;

/// Writes a message whose bytes came from elsewhere.
pub(super) fn message(message: &Message, bytes: &[u8], sink: &mut impl Sink) -> Result<(), Error> {
    let mut stack = Vec::with_capacity(32);
    write(message, bytes, MAX_DEPTH, &mut stack, sink)
}

/// Writes a message that prost has just encoded, recursing as deep as it is: that it could
/// be encoded shows that the stack holds it.
pub(super) fn own_message(
    message: &Message,
    bytes: &[u8],
    sink: &mut impl Sink,
) -> Result<(), Error> {
    let mut stack = Vec::with_capacity(32);
    write(message, bytes, usize::MAX, &mut stack, sink)
}

/// `depth` is how many levels more may follow.
fn write<'a>(
    message: &Message,
    bytes: &'a [u8],
    depth: usize,
    stack: &mut Vec<Span<'a>>,
    sink: &mut impl Sink,
) -> Result<(), Error> {
    sink.open_object();
    let base = stack.len();
    scan::collect(message, bytes, stack)
        .map_err(|(at, cause)| Error::malformed(message, at, cause))?;
    let mut at = base;
    let end = stack.len();
    for (index, field) in (0..).zip(&message.fields) {
        let start = at;
        while at < end && stack[at].field == index {
            at += 1;
        }
        if start == at {
            if let Some(default) = field.shown_default() {
                sink.field(field);
                sink.scalar(default.into());
            }
            continue;
        }
        sink.field(field);
        write_field(field, start..at, depth, stack, sink)
            .map_err(|error| error.within(|it| path::in_field(it, &field.name)))?;
    }
    stack.truncate(base);
    sink.close_object();
    Ok(())
}

fn write_field<'a>(
    field: &Field,
    spans: std::ops::Range<usize>,
    depth: usize,
    stack: &mut Vec<Span<'a>>,
    sink: &mut impl Sink,
) -> Result<(), Error> {
    match (field.label, field.kind) {
        (Label::Map, Kind::Message(entry)) => {
            let entry = registry().message_at(entry);
            write_map(entry, spans, depth, stack, sink)
        }
        (Label::Repeated | Label::Map, kind) => {
            sink.open_array();
            for (index, at) in spans.enumerate() {
                let raw = stack[at].raw;
                write_value(kind, raw, depth, stack, sink)
                    .map_err(|error| error.within(|it| path::in_index(it, index)))?;
            }
            sink.close_array();
            Ok(())
        }
        (_, Kind::Message(_)) if spans.len() > 1 => {
            let merged = scan::merge(&stack[spans]);
            let mut stack = Vec::new();
            let raw = Raw::Bytes(&merged);
            write_value(field.kind, raw, depth, &mut stack, sink)
        }
        (_, kind) => {
            let raw = stack[spans.end - 1].raw;
            write_value(kind, raw, depth, stack, sink)
        }
    }
}

/// Writes the entries of a map sorted by key; of several with the same key the last.
fn write_map<'a>(
    entry: &Message,
    spans: std::ops::Range<usize>,
    depth: usize,
    stack: &mut Vec<Span<'a>>,
    sink: &mut impl Sink,
) -> Result<(), Error> {
    let [key_field, value_field] = entry.fields.as_slice() else {
        return Ok(());
    };
    // The records of the value: one, or several parts of a message.
    let mut entries: BTreeMap<String, Vec<Span<'a>>> = BTreeMap::new();
    for at in spans {
        let bytes = stack[at].raw.bytes();
        let base = stack.len();
        scan::collect(entry, bytes, stack)
            .map_err(|(at, cause)| Error::malformed(entry, at, cause))?;
        let of = |field| stack[base..].iter().filter(move |it| it.field == field);
        let key = of(0)
            .next_back()
            .map_or_else(|| empty(key_field.kind), |it| it.raw);
        let value = of(1).copied().collect();
        stack.truncate(base);
        let key = match scalar(key_field.kind, key)? {
            Scalar::Text(text) => text.to_owned(),
            Scalar::Signed(number) => number.to_string(),
            Scalar::Unsigned(number) => number.to_string(),
            Scalar::Bool(value) => value.to_string(),
            Scalar::Double(_) | Scalar::Bytes(_) => String::new(),
        };
        entries.insert(key, value);
    }
    sink.open_object();
    for (key, value) in entries {
        sink.key(&key);
        let base = stack.len();
        let written = if value.is_empty() {
            let raw = empty(value_field.kind);
            write_value(value_field.kind, raw, depth, stack, sink)
        } else {
            stack.extend(value);
            let spans = base..stack.len();
            write_field(value_field, spans, depth, stack, sink)
        };
        written.map_err(|error| error.within(|it| path::in_key(it, &key)))?;
        stack.truncate(base);
    }
    sink.close_object();
    Ok(())
}

/// What is absent in an entry of a map.
fn empty(kind: Kind) -> Raw<'static> {
    match kind {
        Kind::String | Kind::Bytes | Kind::Message(_) => Raw::Bytes(&[]),
        _ => Raw::Varint(0),
    }
}

fn write_value<'a>(
    kind: Kind,
    raw: Raw<'a>,
    depth: usize,
    stack: &mut Vec<Span<'a>>,
    sink: &mut impl Sink,
) -> Result<(), Error> {
    if let Kind::Message(id) = kind {
        let depth = depth.checked_sub(1).ok_or(Error::Malformed {
            path: String::new(),
            cause: Malformed::Depth,
        })?;
        return write(registry().message_at(id), raw.bytes(), depth, stack, sink);
    }
    sink.scalar(scalar(kind, raw)?);
    Ok(())
}

/// The value of a record as its type reads the bits.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "this is how protobuf stores them"
)]
fn scalar(kind: Kind, raw: Raw<'_>) -> Result<Scalar<'_>, Error> {
    let bits = raw.bits();
    let zigzag = |bits: u64| (bits >> 1) as i64 ^ -((bits & 1) as i64);
    Ok(match kind {
        Kind::Double => Scalar::Double(f64::from_bits(bits)),
        Kind::Float => Scalar::Double(widened(f32::from_bits(bits as u32))),
        Kind::Int32 | Kind::Sfixed32 => Scalar::Signed(i64::from(bits as i32)),
        Kind::Int64 | Kind::Sfixed64 => Scalar::Signed(bits as i64),
        Kind::Sint32 => Scalar::Signed(zigzag(u64::from(bits as u32))),
        Kind::Sint64 => Scalar::Signed(zigzag(bits)),
        Kind::Uint32 | Kind::Fixed32 => Scalar::Unsigned(u64::from(bits as u32)),
        Kind::Uint64 | Kind::Fixed64 => Scalar::Unsigned(bits),
        Kind::Bool => Scalar::Bool(bits != 0),
        Kind::Enum(id) => match registry().enum_at(id).name_of(bits as i32) {
            Some(name) => Scalar::Text(name),
            None => Scalar::Signed(i64::from(bits as i32)),
        },
        Kind::Bytes | Kind::Message(_) => Scalar::Bytes(raw.bytes()),
        Kind::String => {
            let text = std::str::from_utf8(raw.bytes()).map_err(|_| Error::Malformed {
                path: String::new(),
                cause: Malformed::Utf8,
            })?;
            Scalar::Text(text)
        }
    })
}

/// The double with the shortest digits of `value`, so that 0.1 stays 0.1.
fn widened(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}
