//! Messages kept exactly as they came.
//!
//! Decoding drops the fields that this version does not know. What is handed on (a task to its
//! agent, a framework's description to an operator) is therefore kept as bytes, cut out of the
//! request's own, and changed only by appending: in protobuf a later value of a singular field
//! wins, and sub-messages merge.

use bytes::Bytes;
use prost::Message;

pub(crate) use tepui_proto::wire::path;

/// The values of the length-delimited field `number`, in order, without copying.
pub(crate) fn fields(message: &Bytes, number: u32) -> Vec<Bytes> {
    tepui_proto::wire::shared_fields(message, number).collect()
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
