//! Messages kept exactly as they came.
//!
//! Decoding drops the fields that this version does not know. What is handed on (a task to its
//! agent, a framework's description to an operator) is therefore kept as bytes, cut out of the
//! request's own, and changed only by appending: in protobuf a later value of a singular field
//! wins, and sub-messages merge.

use bytes::{Buf, Bytes};
use prost::{
    Message,
    encoding::{WireType, decode_key, decode_varint},
};

/// The values of the length-delimited field `number` of a message, in order, without copying.
/// Ends at the first byte that is not protobuf.
pub(crate) fn fields(message: &Bytes, number: u32) -> impl Iterator<Item = Bytes> + use<> {
    let mut rest = message.clone();
    std::iter::from_fn(move || {
        while rest.has_remaining() {
            let (tag, kind) = decode_key(&mut rest).ok()?;
            let skipped = match kind {
                WireType::Varint => {
                    decode_varint(&mut rest).ok()?;
                    continue;
                }
                WireType::SixtyFourBit => 8,
                WireType::ThirtyTwoBit => 4,
                WireType::LengthDelimited => {
                    usize::try_from(decode_varint(&mut rest).ok()?).ok()?
                }
                // Groups were never used by Mesos.
                WireType::StartGroup | WireType::EndGroup => return None,
            };
            if skipped > rest.remaining() {
                return None;
            }
            let value = rest.split_to(skipped);
            if kind == WireType::LengthDelimited && tag == number {
                return Some(value);
            }
        }
        None
    })
}

/// The value of a singular sub-message; none when it comes several times, since those would have
/// to be merged.
pub(crate) fn field(message: &Bytes, number: u32) -> Option<Bytes> {
    let mut all = fields(message, number);
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

/// The bytes that came, or, when there are none (the client sent JSON), those of the message.
pub(crate) fn or_encoded(raw: Option<Bytes>, message: &impl Message) -> Bytes {
    raw.unwrap_or_else(|| message.encode_to_vec().into())
}

/// The payload with the fields of `change` set, unknown fields kept. `change` holds nothing but
/// what is to be overridden.
pub(crate) fn overridden(payload: &Bytes, change: &impl Message) -> Bytes {
    let mut bytes = Vec::with_capacity(payload.len() + change.encoded_len());
    bytes.extend_from_slice(payload);
    // Cannot fail: a vector grows.
    let _ = change.encode(&mut bytes);
    bytes.into()
}

/// An id message that fits every `*ID` message of Mesos: one string with number 1.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Id {
    #[prost(string, required, tag = "1")]
    pub(crate) value: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn cuts_repeated_messages_out() {
        let tasks: Vec<_> = ["a", "b"]
            .map(|it| wire::TaskInfo {
                name: it.into(),
                ..Default::default()
            })
            .into();
        let launch = wire::offer::operation::Launch {
            task_infos: tasks.clone(),
        };
        let raw = Bytes::from(launch.encode_to_vec());
        let cut: Vec<_> = fields(&raw, 1)
            .map(|it| wire::TaskInfo::decode(it).unwrap())
            .collect();
        assert_eq!(cut, tasks);
        assert_eq!(fields(&raw, 2).count(), 0);
        assert_eq!(field(&raw, 1), None);
    }

    #[test]
    fn ends_at_what_is_not_protobuf() {
        for bad in [
            &b"\x0a\xff"[..],
            b"\xff",
            b"\x0b",
            b"\x0a\x05abc",
            b"\x09\x01",
        ] {
            assert_eq!(fields(&Bytes::copy_from_slice(bad), 1).count(), 0);
        }
    }
}
