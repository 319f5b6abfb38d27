//! JSON of protobuf messages, exactly as Mesos reads and writes it, driven by descriptors.
//!
//! Written: field names as in the `.proto` files, in the order of their declaration; 64-bit
//! integers as numbers; bytes in base64; enums by name, a number that has no name as the
//! number; maps as objects, sorted by key; doubles always with a decimal point, in the
//! shortest form that reads back as the same value, and as the strings `"Infinity"`,
//! `"-Infinity"` and `"NaN"` where JSON has no number. An unset field shows the default
//! that its declaration gives, unless it is deprecated; otherwise it is left out, and so
//! are empty lists.
//!
//! Read: unknown keys are ignored; of a key that occurs twice the last counts; `null` means
//! unset; numbers and bools may stand in strings; a fraction given for an integer is cut
//! off; an enum name that is not known leaves an optional field unset (and is an error for
//! a required one); one value in place of a list is a list of one; a list in place of one
//! value is an error; a missing required field is an error.
//!
//! Both directions go through wire bytes, so payloads that are kept as bytes are written
//! without being decoded first.

mod read;
mod sink;
mod write;

use crate::{
    descriptor::{self, Message as Descriptor},
    path, wire,
};
use prost::{Message, Name};
use serde_json::Value;
use std::fmt;

/// Why a text is not the JSON of a message, or bytes could not be made JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No JSON at all; the text says where.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// JSON, but a value does not fit.
    #[error("{}", Located { path, problem })]
    Invalid {
        /// As `accept.operations[0].launch`; empty for the message itself.
        path: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// The message has no descriptor in this crate.
    #[error("there is no message {0:?}")]
    UnknownMessage(String),
    /// The bytes are not a message.
    #[error(transparent)]
    Wire(#[from] wire::Error),
}

/// `path: problem`, without the colon when the problem is the message itself.
struct Located<'a> {
    path: &'a str,
    problem: &'a str,
}

impl fmt::Display for Located<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(self.problem)
        } else {
            write!(f, "{}: {}", self.path, self.problem)
        }
    }
}

impl Error {
    fn invalid(problem: impl Into<String>) -> Self {
        Self::Invalid {
            path: String::new(),
            problem: problem.into(),
        }
    }

    /// Puts a segment in front of the path.
    fn within(mut self, segment: impl FnOnce(&mut String)) -> Self {
        match &mut self {
            Self::Invalid { path, .. }
            | Self::Wire(wire::Error::Missing { path } | wire::Error::Malformed { path, .. }) => {
                segment(path);
            }
            Self::Syntax(_) | Self::UnknownMessage(_) | Self::Wire(_) => {}
        }
        self
    }

    fn in_field(self, field: &str) -> Self {
        self.within(|it| path::in_field(it, field))
    }

    fn in_index(self, index: usize) -> Self {
        self.within(|it| path::in_index(it, index))
    }

    fn in_key(self, key: &str) -> Self {
        self.within(|it| path::in_key(it, key))
    }
}

fn descriptor(name: &str) -> Result<&'static Descriptor, Error> {
    descriptor::registry()
        .message(name)
        .ok_or_else(|| Error::UnknownMessage(name.to_owned()))
}

/// The message that a JSON text stands for.
///
/// # Errors
/// When the text is not JSON, a value does not fit its field or a required field is
/// missing; the text of the error names the path.
///
/// ```
/// # use tepui_proto::{json, mesos::v1::scheduler::Call};
/// let call: Call = json::decode(br#"{"type": "REVIVE", "revive": {"roles": "one"}}"#)?;
/// assert_eq!(call.revive.map(|it| it.roles), Some(vec!["one".to_owned()]));
/// let error = json::decode::<Call>(br#"{"kill": {}}"#).unwrap_err();
/// assert_eq!(error.to_string(), "kill.task_id: required field is missing");
/// # Ok::<(), json::Error>(())
/// ```
pub fn decode<M: Message + Name + Default>(text: &[u8]) -> Result<M, Error> {
    let wire = decode_wire(&M::full_name(), text)?;
    M::decode(bytes::Bytes::from(wire)).map_err(|error| wire::Error::Decode(error).into())
}

/// The wire bytes of the message `name` that a JSON text stands for, with the fields in the
/// order of their numbers.
///
/// # Errors
/// As [`decode`], and when there is no message of that name.
pub fn decode_wire(name: &str, text: &[u8]) -> Result<Vec<u8>, Error> {
    let message = descriptor(name)?;
    let value: Value =
        serde_json::from_slice(text).map_err(|error| Error::Syntax(error.to_string()))?;
    read_value(message, &value)
}

/// The message that a JSON value stands for, as [`decode`].
///
/// # Errors
/// As [`decode`].
pub fn from_value<M: Message + Name + Default>(value: &Value) -> Result<M, Error> {
    let wire = read_value(descriptor(&M::full_name())?, value)?;
    M::decode(bytes::Bytes::from(wire)).map_err(|error| wire::Error::Decode(error).into())
}

fn read_value(message: &Descriptor, value: &Value) -> Result<Vec<u8>, Error> {
    let mut wire = Vec::with_capacity(256);
    read::message(message, value, 0, &mut wire)?;
    Ok(wire)
}

/// The JSON text of a message.
///
/// # Panics
/// When `M` was not generated by this crate.
#[must_use]
pub fn encode<M: Message + Name>(message: &M) -> String {
    let wire = message.encode_to_vec();
    // JSON is usually about twice as long; growing once more is cheap.
    let mut text = String::with_capacity(wire.len() * 5 / 2 + 16);
    let mut sink = sink::Text(&mut text);
    write_own::<M>(&wire, &mut sink);
    text
}

/// The JSON of a message as a value, for texts that are put together from several parts.
///
/// # Panics
/// When `M` was not generated by this crate.
#[must_use]
pub fn to_value<M: Message + Name>(message: &M) -> Value {
    let mut sink = sink::Tree::default();
    write_own::<M>(&message.encode_to_vec(), &mut sink);
    sink.finish()
}

/// Appends the JSON text of the message `name` that `bytes` hold. On an error `text` ends
/// somewhere inside.
///
/// # Errors
/// When there is no message of that name or the bytes are malformed. Missing required
/// fields are left out, not refused: see [`wire::check`].
pub fn encode_wire(name: &str, bytes: &[u8], text: &mut String) -> Result<(), Error> {
    let message = descriptor(name)?;
    Ok(write::message(message, bytes, &mut sink::Text(text))?)
}

/// The JSON of the message `name` that `bytes` hold, as a value.
///
/// # Errors
/// As [`encode_wire`].
pub fn wire_to_value(name: &str, bytes: &[u8]) -> Result<Value, Error> {
    let message = descriptor(name)?;
    let mut sink = sink::Tree::default();
    write::message(message, bytes, &mut sink)?;
    Ok(sink.finish())
}

/// Writes bytes that prost has just made.
fn write_own<M: Name>(wire: &[u8], sink: &mut impl sink::Sink) {
    let written = descriptor(&M::full_name()).and_then(|it| {
        write::own_message(it, wire, sink)?;
        Ok(())
    });
    if let Err(error) = written {
        panic!("{} cannot be written as JSON: {error}", M::full_name());
    }
}
