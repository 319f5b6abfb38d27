//! Protobuf messages from clients: read with their required fields checked, and cut into
//! parts without being read.

pub use crate::scan::Malformed;
use crate::{
    descriptor::{Field, Kind, Label, Message as Descriptor, registry},
    path,
    scan::{self, MAX_DEPTH, Raw, Records, Span},
};
use bytes::{Buf, Bytes};
use prost::{Message, Name};

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field without which the message means nothing.
    #[error("{path}: required field is missing")]
    Missing {
        /// As `accept.offer_ids[2].value`.
        path: String,
    },
    /// Not protobuf, or of another message.
    #[error("not protobuf{}: {cause}", At(path))]
    Malformed {
        /// Where, as far as it could be told.
        path: String,
        /// What is wrong.
        cause: Malformed,
    },
    /// Refused by the decoder after the bytes had passed the check.
    #[error("not protobuf: {0}")]
    Decode(prost::DecodeError),
    /// The message has no descriptor in this crate.
    #[error("there is no message {0:?}")]
    UnknownMessage(String),
}

struct At<'a>(&'a str);

impl std::fmt::Display for At<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, " at {}", self.0)
    }
}

impl Error {
    pub(crate) fn malformed(message: &Descriptor, field: Option<u16>, cause: Malformed) -> Self {
        let field = field.and_then(|at| message.fields.get(usize::from(at)));
        Self::Malformed {
            path: field.map_or_else(String::new, |field| field.name.clone()),
            cause,
        }
    }

    /// Puts a segment in front of the path.
    pub(crate) fn within(mut self, segment: impl FnOnce(&mut String)) -> Self {
        if let Self::Missing { path } | Self::Malformed { path, .. } = &mut self {
            segment(path);
        }
        self
    }
}

/// The message that `bytes` hold, every required field of it and of its sub-messages
/// present. Prost itself would make a missing one an empty one. An enum's number that is
/// not known counts as absent in a required field; in an optional one it stays the number.
///
/// With [`Bytes`] the `bytes` fields of the message share the input's memory.
///
/// # Errors
/// When the bytes are malformed or a required field is missing, with the first path.
pub fn decode<M: Message + Name + Default>(bytes: impl AsRef<[u8]> + Buf) -> Result<M, Error> {
    check(&M::full_name(), bytes.as_ref())?;
    M::decode(bytes).map_err(Error::Decode)
}

/// Whether every required field of the message `name` is present in `bytes`.
///
/// # Errors
/// As [`decode`]. Malformed parts that cannot contain a required field pass.
pub fn check(name: &str, bytes: &[u8]) -> Result<(), Error> {
    let message = registry()
        .message(name)
        .ok_or_else(|| Error::UnknownMessage(name.to_owned()))?;
    if !message.checked {
        return Ok(());
    }
    check_message(message, bytes, MAX_DEPTH, &mut Vec::with_capacity(32))
}

/// `depth` is how many levels more may follow.
fn check_message<'a>(
    message: &Descriptor,
    bytes: &'a [u8],
    depth: usize,
    stack: &mut Vec<Span<'a>>,
) -> Result<(), Error> {
    let base = stack.len();
    scan::collect(message, bytes, stack)
        .map_err(|(at, cause)| Error::malformed(message, at, cause))?;
    let end = stack.len();
    let mut missing = message.required;
    let mut at = base;
    while at < end {
        let index = stack[at].field;
        let start = at;
        while at < end && stack[at].field == index {
            at += 1;
        }
        let field = &message.fields[usize::from(index)];
        let last = stack[at - 1].raw;
        if let Some(bit) = field.required
            && is_known(field, last)
        {
            missing &= !(1 << bit);
        }
        check_field(field, start..at, depth, stack)
            .map_err(|error| error.within(|it| path::in_field(it, &field.name)))?;
    }
    stack.truncate(base);
    if missing == 0 {
        return Ok(());
    }
    let is_missing = |it: &&Field| it.required.is_some_and(|bit| missing & 1 << bit != 0);
    let first = message.fields.iter().find(is_missing);
    Err(Error::Missing {
        path: first.map_or_else(String::new, |field| field.name.clone()),
    })
}

/// Checks the sub-messages of one field.
fn check_field<'a>(
    field: &Field,
    spans: std::ops::Range<usize>,
    depth: usize,
    stack: &mut Vec<Span<'a>>,
) -> Result<(), Error> {
    let Kind::Message(id) = field.kind else {
        return Ok(());
    };
    let message = registry().message_at(id);
    if !message.checked {
        return Ok(());
    }
    let depth = depth.checked_sub(1).ok_or(Error::Malformed {
        path: String::new(),
        cause: Malformed::Depth,
    })?;
    if !field.is_repeated() && spans.len() > 1 {
        let merged = scan::merge(&stack[spans]);
        return check_message(message, &merged, depth, &mut Vec::new());
    }
    for (index, at) in spans.enumerate() {
        let bytes = stack[at].raw.bytes();
        let checked = check_message(message, bytes, depth, stack);
        match field.label {
            Label::Optional | Label::Required => checked?,
            Label::Repeated => checked.map_err(|it| it.within(|it| path::in_index(it, index)))?,
            Label::Map => checked
                .and_then(|()| check_absent_value(message, bytes))
                .map_err(|it| it.within(|it| path::in_index(it, index)))?,
        }
    }
    Ok(())
}

/// An entry of a map without a value means an empty one, which has to be whole too.
fn check_absent_value(entry: &Descriptor, bytes: &[u8]) -> Result<(), Error> {
    match entry.fields.as_slice() {
        [_, value] if fields(bytes, value.number).next().is_none() => match value.kind {
            Kind::Message(id) => check_message(registry().message_at(id), &[], 0, &mut Vec::new())
                .map_err(|error| error.within(|it| path::in_field(it, &value.name))),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Whether a value is one; only enums have numbers that are none.
#[expect(
    clippy::cast_possible_truncation,
    reason = "protobuf cuts them off alike"
)]
fn is_known(field: &Field, raw: Raw<'_>) -> bool {
    match field.kind {
        Kind::Enum(id) => registry().enum_at(id).name_of(raw.bits() as i32).is_some(),
        _ => true,
    }
}

/// The length-delimited records of field `number`, in their order: sub-messages, strings
/// and bytes exactly as they came, with fields that nobody here knows. Ends where the
/// bytes are malformed.
pub fn fields(bytes: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    Records::new(bytes).filter_map(move |record| match record {
        Ok((found, Raw::Bytes(payload))) if found == number => Some(payload),
        _ => None,
    })
}

/// As [`fields`], with slices that share the memory of `bytes`.
pub fn shared_fields(bytes: &Bytes, number: u32) -> impl Iterator<Item = Bytes> {
    fields(bytes, number).map(|payload| bytes.slice_ref(payload))
}

/// The sub-message at the end of a path of field numbers, none of them repeated. A field
/// that occurs several times all the same is put together, as a decoder would merge it, so
/// that the answer never means anything else than the decoded message. `None` when one on
/// the way is absent.
#[must_use]
pub fn path(bytes: &Bytes, numbers: &[u32]) -> Option<Bytes> {
    let mut found = bytes.clone();
    for &number in numbers {
        let mut parts = shared_fields(&found, number);
        let first = parts.next()?;
        let rest: Vec<Bytes> = parts.collect();
        found = if rest.is_empty() {
            first
        } else {
            let parts: Vec<&[u8]> = std::iter::once(&first)
                .chain(&rest)
                .map(|it| &it[..])
                .collect();
            Bytes::from(parts.concat())
        };
    }
    Some(found)
}
