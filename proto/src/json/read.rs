//! JSON to wire bytes.

use super::Error;
use crate::{
    descriptor::{Field, Kind, Label, Message, registry},
    scan::MAX_DEPTH,
    wire,
};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use prost::encoding::{encode_key, encode_varint};
use serde_json::{Number, Value};

/// Padding may be left out and the bits behind the last byte do not count.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Appends the message that `value` stands for.
pub(super) fn message(
    message: &Message,
    value: &Value,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let Value::Object(object) = value else {
        return Err(expected("an object", value));
    };
    if depth > MAX_DEPTH {
        return Err(Error::invalid(format!(
            "nested deeper than {MAX_DEPTH} levels"
        )));
    }
    let mut given: Vec<(&Field, &Value)> = object
        .iter()
        .filter(|(_, value)| !value.is_null())
        .filter_map(|(key, value)| Some((message.field(key)?, value)))
        .collect();
    given.sort_by_key(|(field, _)| field.number);
    let mut missing = message.required;
    for (at, &(field, value)) in given.iter().enumerate() {
        // As on the wire, a later member of a oneof unsets an earlier one.
        let same = |(later, _): &(&Field, &Value)| later.oneof == field.oneof;
        if field.oneof.is_some() && given[at + 1..].iter().any(same) {
            continue;
        }
        let set = read_field(field, value, depth, out).map_err(|it| it.in_field(&field.name))?;
        if let (true, Some(bit)) = (set, field.required) {
            missing &= !(1 << bit);
        }
    }
    if missing == 0 {
        return Ok(());
    }
    let is_missing = |it: &&Field| it.required.is_some_and(|bit| missing & 1 << bit != 0);
    let first = message.fields.iter().find(is_missing);
    Err(Error::Wire(wire::Error::Missing {
        path: first.map_or_else(String::new, |field| field.name.clone()),
    }))
}

/// Whether the field is set afterwards.
fn read_field(
    field: &Field,
    value: &Value,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<bool, Error> {
    match (field.label, value) {
        (Label::Map, value) => read_map(field, value, depth, out),
        (Label::Repeated, Value::Array(elements)) if field.packed => {
            nested(field.number, out, |out| {
                for (index, element) in elements.iter().enumerate() {
                    if !element.is_null() {
                        read_value(field, None, element, depth, out)
                            .map_err(|it| it.in_index(index))?;
                    }
                }
                Ok(())
            })?;
            Ok(true)
        }
        (Label::Repeated, Value::Array(elements)) => {
            for (index, element) in elements.iter().enumerate() {
                if !element.is_null() {
                    read_value(field, Some(field.number), element, depth, out)
                        .map_err(|it| it.in_index(index))?;
                }
            }
            Ok(true)
        }
        (_, value) => read_value(field, Some(field.number), value, depth, out),
    }
}

/// An object, each of its keys an entry.
fn read_map(field: &Field, value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<bool, Error> {
    let Value::Object(object) = value else {
        return Err(expected("an object", value));
    };
    let Kind::Message(entry) = field.kind else {
        return Ok(false);
    };
    let [key_field, value_field] = registry().message_at(entry).fields.as_slice() else {
        return Ok(false);
    };
    for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        nested(field.number, out, |out| {
            let key = Value::String(key.clone());
            read_value(key_field, Some(key_field.number), &key, depth, out)?;
            read_value(value_field, Some(value_field.number), value, depth, out)?;
            Ok(())
        })
        .map_err(|it| it.in_key(key))?;
    }
    Ok(true)
}

/// Appends one value, with its key if it has a `number`. Answers whether it did: it does
/// not when the name of an enum's value is not known.
fn read_value(
    field: &Field,
    number: Option<u32>,
    value: &Value,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<bool, Error> {
    if let (Kind::Message(id), number) = (field.kind, field.number) {
        nested(number, out, |out| {
            message(registry().message_at(id), value, depth + 1, out)
        })?;
        return Ok(true);
    }
    let Some(scalar) = read_scalar(field, value)? else {
        return Ok(false);
    };
    if let Some(number) = number {
        let wire_type = match scalar {
            Scalar::Varint(_) => prost::encoding::WireType::Varint,
            Scalar::Fixed64(_) => prost::encoding::WireType::SixtyFourBit,
            Scalar::Fixed32(_) => prost::encoding::WireType::ThirtyTwoBit,
            Scalar::Text(_) | Scalar::Bytes(_) => prost::encoding::WireType::LengthDelimited,
        };
        encode_key(number, wire_type, out);
    }
    match scalar {
        Scalar::Varint(bits) => encode_varint(bits, out),
        Scalar::Fixed64(bits) => out.extend_from_slice(&bits.to_le_bytes()),
        Scalar::Fixed32(bits) => out.extend_from_slice(&bits.to_le_bytes()),
        Scalar::Text(text) => {
            encode_varint(text.len() as u64, out);
            out.extend_from_slice(text.as_bytes());
        }
        Scalar::Bytes(bytes) => {
            encode_varint(bytes.len() as u64, out);
            out.extend_from_slice(&bytes);
        }
    }
    Ok(true)
}

/// Appends a key, a length and what `body` appends.
fn nested(
    number: u32,
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    encode_key(number, prost::encoding::WireType::LengthDelimited, out);
    // One byte holds most lengths; a longer one moves the body.
    let at = out.len();
    out.push(0);
    body(out)?;
    let length = out.len() - at - 1;
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        out[at] = short;
    } else {
        let mut prefix = Vec::with_capacity(10);
        encode_varint(length as u64, &mut prefix);
        out.splice(at..=at, prefix);
    }
    Ok(())
}

/// A value as it is written.
enum Scalar<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Text(&'a str),
    Bytes(Vec<u8>),
}

/// `None` for a name that an enum does not have, if the field may stay unset.
#[expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "this is how protobuf stores them; what does not fit is refused before"
)]
fn read_scalar<'a>(field: &Field, value: &'a Value) -> Result<Option<Scalar<'a>>, Error> {
    let signed = |low: i64, high: i64| integer(value, low.into(), high.into()).map(|it| it as i64);
    let unsigned = |high: u64| integer(value, 0, high.into()).map(|it| it as u64);
    let int32 = || signed(i32::MIN.into(), i32::MAX.into());
    let int64 = || signed(i64::MIN, i64::MAX);
    let zigzag = |value: i64| ((value << 1) ^ (value >> 63)) as u64;
    Ok(Some(match field.kind {
        Kind::Double => Scalar::Fixed64(double(value)?.to_bits()),
        Kind::Float => Scalar::Fixed32((double(value)? as f32).to_bits()),
        Kind::Int32 => Scalar::Varint(int32()? as u64),
        Kind::Int64 => Scalar::Varint(int64()? as u64),
        Kind::Uint32 => Scalar::Varint(unsigned(u32::MAX.into())?),
        Kind::Uint64 => Scalar::Varint(unsigned(u64::MAX)?),
        Kind::Sint32 => Scalar::Varint(u64::from(zigzag(int32()?) as u32)),
        Kind::Sint64 => Scalar::Varint(zigzag(int64()?)),
        Kind::Fixed32 => Scalar::Fixed32(unsigned(u32::MAX.into())? as u32),
        Kind::Fixed64 => Scalar::Fixed64(unsigned(u64::MAX)?),
        Kind::Sfixed32 => Scalar::Fixed32(int32()? as u32),
        Kind::Sfixed64 => Scalar::Fixed64(int64()? as u64),
        Kind::Bool => Scalar::Varint(u64::from(boolean(value)?)),
        Kind::String => match value {
            Value::String(text) => Scalar::Text(text),
            _ => return Err(expected("a string", value)),
        },
        Kind::Bytes => match value {
            Value::String(text) => Scalar::Bytes(
                BASE64
                    .decode(text)
                    .map_err(|error| Error::invalid(format!("expected base64: {error}")))?,
            ),
            _ => return Err(expected("a string in base64", value)),
        },
        Kind::Enum(id) => {
            let enumeration = registry().enum_at(id);
            // Mesos refuses numbers here, even those that stand for a value.
            let Value::String(name) = value else {
                let what = format!("a name of {}", enumeration.name());
                return Err(expected(&what, value));
            };
            match enumeration.number_of(name) {
                Some(number) => Scalar::Varint(i64::from(number) as u64),
                None if field.label == Label::Required => {
                    return Err(Error::invalid(format!(
                        "{name:?} is not a name of {}",
                        enumeration.name()
                    )));
                }
                None => return Ok(None),
            }
        }
        Kind::Message(_) => return Err(expected("a value", value)),
    }))
}

fn boolean(value: &Value) -> Result<bool, Error> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        _ => Err(expected("true or false", value)),
    }
}

fn double(value: &Value) -> Result<f64, Error> {
    if let Value::String(text) = value {
        match text.as_str() {
            "Infinity" => return Ok(f64::INFINITY),
            "-Infinity" => return Ok(f64::NEG_INFINITY),
            "NaN" => return Ok(f64::NAN),
            _ => {}
        }
    }
    let number = number("a number", value)?;
    number.as_f64().ok_or_else(|| expected("a number", value))
}

/// A whole number within the bounds. A fraction is cut off, as Mesos does it: clients that
/// compute nanoseconds in doubles rely on that.
fn integer(value: &Value, low: i128, high: i128) -> Result<i128, Error> {
    let number = number("a whole number", value)?;
    let whole = if let Some(whole) = number.as_i64() {
        i128::from(whole)
    } else if let Some(whole) = number.as_u64() {
        i128::from(whole)
    } else {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "saturates beyond every bound; there are no infinite numbers in JSON"
        )]
        number.as_f64().map_or(i128::MAX, |it| it.trunc() as i128)
    };
    if whole < low || whole > high {
        return Err(Error::invalid(format!(
            "expected a whole number from {low} to {high}, found {number}"
        )));
    }
    Ok(whole)
}

/// A number, or one in a string.
fn number(what: &str, value: &Value) -> Result<Number, Error> {
    let number = match value {
        Value::Number(number) => Some(number.clone()),
        Value::String(text) => serde_json::from_str(text).ok(),
        _ => None,
    };
    number.ok_or_else(|| expected(what, value))
}

fn expected(what: &str, found: &Value) -> Error {
    /// Longer strings are not repeated in an error.
    const SHOWN: usize = 40;
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Number(_) => "a number".to_owned(),
        Value::String(text) if what.contains("number") && text.len() <= SHOWN => {
            format!("the string {text:?}")
        }
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    Error::invalid(format!("expected {what}, found {found}"))
}
