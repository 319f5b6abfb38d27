//! Where JSON goes: a text, or a tree of values.

use crate::descriptor::{Default as Explicit, Field};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Number, Value};
use std::fmt::Write;

/// A value that is neither object nor array.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scalar<'a> {
    Double(f64),
    Signed(i64),
    Unsigned(u64),
    Bool(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl<'a> From<&'a Explicit> for Scalar<'a> {
    fn from(default: &'a Explicit) -> Self {
        match default {
            Explicit::Double(value) => Self::Double(*value),
            Explicit::Signed(value) => Self::Signed(*value),
            Explicit::Unsigned(value) => Self::Unsigned(*value),
            Explicit::Bool(value) => Self::Bool(*value),
            Explicit::Text(value) | Explicit::Name(value) => Self::Text(value),
        }
    }
}

/// Takes JSON piece by piece. Calls have to nest as JSON does.
pub(super) trait Sink {
    fn open_object(&mut self);
    fn close_object(&mut self);
    fn open_array(&mut self);
    fn close_array(&mut self);
    /// Key of the value that comes next.
    fn field(&mut self, field: &Field);
    /// Key of the value that comes next, in a map.
    fn key(&mut self, key: &str);
    fn scalar(&mut self, scalar: Scalar<'_>);
}

/// Appends to a text.
pub(super) struct Text<'a>(pub(super) &'a mut String);

impl Text<'_> {
    /// A comma unless this is the first in its container. The last byte tells: inside of
    /// strings these never are the last one, as every string ends with a quote.
    fn separate(&mut self) {
        if !matches!(self.0.as_bytes().last(), None | Some(b'{' | b'[' | b':')) {
            self.0.push(',');
        }
    }
}

impl Sink for Text<'_> {
    fn open_object(&mut self) {
        self.separate();
        self.0.push('{');
    }

    fn close_object(&mut self) {
        self.0.push('}');
    }

    fn open_array(&mut self) {
        self.separate();
        self.0.push('[');
    }

    fn close_array(&mut self) {
        self.0.push(']');
    }

    fn field(&mut self, field: &Field) {
        self.separate();
        self.0.push_str(&field.key);
    }

    fn key(&mut self, key: &str) {
        self.separate();
        quote(key, self.0);
        self.0.push(':');
    }

    fn scalar(&mut self, scalar: Scalar<'_>) {
        self.separate();
        match scalar {
            Scalar::Double(value) => double(value, self.0),
            Scalar::Signed(value) => {
                if value < 0 {
                    self.0.push('-');
                }
                integer(value.unsigned_abs(), self.0);
            }
            Scalar::Unsigned(value) => integer(value, self.0),
            Scalar::Bool(value) => self.0.push_str(if value { "true" } else { "false" }),
            Scalar::Text(value) => quote(value, self.0),
            Scalar::Bytes(value) => {
                self.0.push('"');
                STANDARD.encode_string(value, self.0);
                self.0.push('"');
            }
        }
    }
}

/// What JSON has no number for.
fn beyond_numbers(value: f64) -> Option<&'static str> {
    if value.is_finite() {
        None
    } else if value.is_nan() {
        Some("NaN")
    } else if value > 0.0 {
        Some("Infinity")
    } else {
        Some("-Infinity")
    }
}

/// The shortest digits that read back as the same double, always with a point.
fn double(value: f64, text: &mut String) {
    /// Up to here every integer is exact and written without an exponent.
    const EXACT: f64 = 1e15;
    if let Some(name) = beyond_numbers(value) {
        quote(name, text);
    } else if value.trunc() == value && value.abs() < EXACT {
        if value.is_sign_negative() {
            text.push('-');
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number below 10^15"
        )]
        integer(value.abs() as u64, text);
        text.push_str(".0");
    } else {
        let start = text.len();
        // Writing to a string does not fail.
        let _ = write!(text, "{value:?}");
        if !text[start..].contains('.') {
            let end = text[start..].find('e').map_or(text.len(), |at| start + at);
            text.insert_str(end, ".0");
        }
    }
}

fn integer(mut value: u64, text: &mut String) {
    // Twenty digits hold every u64.
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    text.extend(digits[start..].iter().copied().map(char::from));
}

/// A string with its quotes and escapes.
fn quote(value: &str, text: &mut String) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    text.push('"');
    let mut clean = 0;
    for (at, byte) in value.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        // `byte` is ASCII, so both ends are borders of characters.
        text.push_str(&value[clean..at]);
        clean = at + 1;
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x08 => text.push_str("\\b"),
            0x0c => text.push_str("\\f"),
            other => {
                text.push_str("\\u00");
                text.push(char::from(HEX[usize::from(other >> 4)]));
                text.push(char::from(HEX[usize::from(other & 15)]));
            }
        }
    }
    text.push_str(&value[clean..]);
    text.push('"');
}

/// Builds a [`Value`].
#[derive(Default)]
pub(super) struct Tree {
    /// Containers that are open, each with the key that waits for its value.
    open: Vec<(Container, String)>,
    done: Value,
}

enum Container {
    Object(Map<String, Value>),
    Array(Vec<Value>),
}

impl Tree {
    pub(super) fn finish(self) -> Value {
        self.done
    }

    fn put(&mut self, value: Value) {
        match self.open.last_mut() {
            None => self.done = value,
            Some((Container::Object(map), key)) => {
                map.insert(std::mem::take(key), value);
            }
            Some((Container::Array(elements), _)) => elements.push(value),
        }
    }

    fn close(&mut self) {
        match self.open.pop() {
            Some((Container::Object(map), _)) => self.put(Value::Object(map)),
            Some((Container::Array(elements), _)) => self.put(Value::Array(elements)),
            None => {}
        }
    }
}

impl Sink for Tree {
    fn open_object(&mut self) {
        let object = Container::Object(Map::new());
        self.open.push((object, String::new()));
    }

    fn close_object(&mut self) {
        self.close();
    }

    fn open_array(&mut self) {
        let array = Container::Array(Vec::new());
        self.open.push((array, String::new()));
    }

    fn close_array(&mut self) {
        self.close();
    }

    fn field(&mut self, field: &Field) {
        self.key(&field.name);
    }

    fn key(&mut self, name: &str) {
        if let Some((_, key)) = self.open.last_mut() {
            name.clone_into(key);
        }
    }

    fn scalar(&mut self, scalar: Scalar<'_>) {
        self.put(match scalar {
            Scalar::Double(value) => match Number::from_f64(value) {
                Some(number) => Value::Number(number),
                None => beyond_numbers(value).into(),
            },
            Scalar::Signed(value) => value.into(),
            Scalar::Unsigned(value) => value.into(),
            Scalar::Bool(value) => value.into(),
            Scalar::Text(value) => value.into(),
            Scalar::Bytes(value) => STANDARD.encode(value).into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(scalar: Scalar<'_>) -> String {
        let mut text = String::new();
        Text(&mut text).scalar(scalar);
        text
    }

    #[test]
    fn doubles_always_have_a_point() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (4.0, "4.0"),
            (-12.5, "-12.5"),
            (0.1, "0.1"),
            (999_999_999_999_999.0, "999999999999999.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1.0e16"),
            (1e300, "1.0e300"),
            (1.5e-9, "1.5e-9"),
            (5e-324, "5.0e-324"),
            (f64::MAX, "1.7976931348623157e308"),
            (1_795_230_610.715_119, "1795230610.715119"),
            (f64::INFINITY, "\"Infinity\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
            (f64::NAN, "\"NaN\""),
        ] {
            let written = text(Scalar::Double(value));
            assert_eq!(written, expected);
            if value.is_finite() {
                let back: f64 = serde_json::from_str(&written).unwrap();
                assert_eq!(back.to_bits(), value.to_bits());
            }
        }
    }

    #[test]
    fn integers_reach_their_bounds() {
        assert_eq!(text(Scalar::Signed(i64::MIN)), i64::MIN.to_string());
        assert_eq!(text(Scalar::Signed(-1)), "-1");
        assert_eq!(text(Scalar::Unsigned(0)), "0");
        assert_eq!(text(Scalar::Unsigned(u64::MAX)), u64::MAX.to_string());
    }

    #[test]
    fn strings_read_back() {
        let all: String = (0..0x300)
            .filter_map(char::from_u32)
            .chain(['\u{1f600}'])
            .collect();
        let written = text(Scalar::Text(&all));
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), all);
        assert_eq!(text(Scalar::Text("a\"\\\u{1}")), r#""a\"\\\u0001""#);
    }
}
