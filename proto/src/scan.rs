//! The protobuf wire format, read without knowing Rust types: records one by one, or
//! those of one message put into the order of its declaration.

use crate::descriptor::{Field, Kind, Message};

/// Deepest nesting of messages that is read; the same bound that prost has.
pub(crate) const MAX_DEPTH: usize = 100;

/// Why bytes are not protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The end comes inside a record.
    #[error("the bytes end inside of a field")]
    Truncated,
    /// More than 64 bits.
    #[error("a varint is longer than 64 bits")]
    Varint,
    /// Field number 0 or too large, or a wire type that does not exist.
    #[error("a field has an impossible key")]
    Key,
    /// An end without a beginning, or the other way round.
    #[error("a group does not end where it should")]
    Group,
    /// The field's type is written in another way.
    #[error("the wire type does not fit the type of the field")]
    WireType,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// Nesting beyond what is read.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    Depth,
}

/// The value of one record.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    /// An unknown field; no message of ours has groups.
    Group,
}

impl<'a> Raw<'a> {
    /// Whether `kind` is written like this, packed or not.
    fn fits(self, kind: Kind) -> bool {
        matches!(
            (self, kind.wire_type()),
            (Self::Varint(_), WireType::Varint)
                | (Self::Fixed64(_), WireType::Fixed64)
                | (Self::Fixed32(_), WireType::Fixed32)
                | (Self::Bytes(_), WireType::Bytes)
        )
    }

    /// The bytes of a record that [`fits`](Self::fits) a type written with its length.
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    /// The bits of a number.
    pub(crate) fn bits(self) -> u64 {
        match self {
            Self::Varint(bits) | Self::Fixed64(bits) => bits,
            Self::Fixed32(bits) => u64::from(bits),
            Self::Bytes(_) | Self::Group => 0,
        }
    }
}

/// How a type is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Fixed32 = 5,
}

/// Iterator over the records of one message. Fuses after an error.
#[derive(Clone)]
pub(crate) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        if let [byte @ ..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        let mut value = 0;
        for (at, byte) in self.rest.iter().take(10).enumerate() {
            // The tenth byte carries the 64th bit and nothing else.
            if at == 9 && *byte > 1 {
                return Err(Malformed::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if *byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 {
            Malformed::Truncated
        } else {
            Malformed::Varint
        })
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Malformed> {
        let count = usize::try_from(count).map_err(|_| Malformed::Truncated)?;
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn key(&mut self) -> Result<(u32, u8), Malformed> {
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed::Key)?;
        match key >> 3 {
            0 => Err(Malformed::Key),
            number => Ok((number, (key & 7) as u8)),
        }
    }

    fn value(&mut self, number: u32, wire_type: u8) -> Result<Raw<'a>, Malformed> {
        Ok(match wire_type {
            0 => Raw::Varint(self.varint()?),
            1 => Raw::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                Raw::Bytes(self.take(length)?)
            }
            3 => {
                self.skip_group(number)?;
                Raw::Group
            }
            5 => Raw::Fixed32(u32::from_le_bytes(self.array()?)),
            4 => return Err(Malformed::Group),
            _ => return Err(Malformed::Key),
        })
    }

    /// Skips to behind the end of the group `number`, without recursion.
    fn skip_group(&mut self, number: u32) -> Result<(), Malformed> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            match self.key()? {
                (number, 3) if open.len() < MAX_DEPTH => open.push(number),
                (_, 3) => return Err(Malformed::Depth),
                (number, 4) if number == innermost => {
                    open.pop();
                }
                (number, wire_type) => {
                    self.value(number, wire_type)?;
                }
            }
        }
        Ok(())
    }

    /// The elements of a packed field.
    fn element(&mut self, wire_type: WireType) -> Result<Raw<'a>, Malformed> {
        self.value(0, wire_type as u8)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(u32, Raw<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self
            .key()
            .and_then(|(number, wire_type)| Ok((number, self.value(number, wire_type)?)));
        if record.is_err() {
            self.rest = &[];
        }
        Some(record)
    }
}

/// One record of a message whose field is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span<'a> {
    /// Position in the declaration of the message.
    pub(crate) field: u16,
    pub(crate) raw: Raw<'a>,
}

/// Pushes the known records of a message onto `spans`, in the order of the declaration,
/// those of one field in the order of the wire, with packed fields unpacked and with only
/// the last member of each oneof. Unknown fields are left out.
///
/// The vector is a stack: what was on it stays, the caller truncates it afterwards.
pub(crate) fn collect<'a>(
    message: &Message,
    bytes: &'a [u8],
    spans: &mut Vec<Span<'a>>,
) -> Result<(), (Option<u16>, Malformed)> {
    let base = spans.len();
    let mut sorted = true;
    let mut members = 0;
    let mut previous = 0;
    for record in Records::new(bytes) {
        let (number, raw) = record.map_err(|cause| (None, cause))?;
        let Some(index) = message.position(number) else {
            continue;
        };
        let field = &message.fields[usize::from(index)];
        if raw.fits(field.kind) {
            spans.push(Span { field: index, raw });
        } else {
            unpack(field, index, raw, spans).map_err(|cause| (Some(index), cause))?;
        }
        sorted &= previous <= index;
        previous = index;
        members += usize::from(field.oneof.is_some());
    }
    if members > 1 {
        drop_replaced(message, base, spans);
    }
    if !sorted {
        spans[base..].sort_by_key(|span| span.field);
    }
    Ok(())
}

/// Pushes the elements of a packed field.
fn unpack<'a>(
    field: &Field,
    index: u16,
    raw: Raw<'a>,
    spans: &mut Vec<Span<'a>>,
) -> Result<(), Malformed> {
    let Raw::Bytes(bytes) = raw else {
        return Err(Malformed::WireType);
    };
    if !field.is_repeated() {
        return Err(Malformed::WireType);
    }
    let mut elements = Records::new(bytes);
    while !elements.rest.is_empty() {
        let raw = elements.element(field.kind.wire_type())?;
        spans.push(Span { field: index, raw });
    }
    Ok(())
}

/// A later member of a oneof unsets an earlier one.
fn drop_replaced(message: &Message, base: usize, spans: &mut Vec<Span<'_>>) {
    struct Group {
        oneof: u16,
        member: u16,
        /// Another member was met: everything before it is unset.
        closed: bool,
    }
    let mut groups: Vec<Group> = Vec::new();
    let mut keep = vec![true; spans.len()];
    for (at, span) in spans.iter().enumerate().skip(base).rev() {
        let Some(oneof) = message.fields[usize::from(span.field)].oneof else {
            continue;
        };
        match groups.iter_mut().find(|group| group.oneof == oneof) {
            None => groups.push(Group {
                oneof,
                member: span.field,
                closed: false,
            }),
            Some(group) => {
                group.closed |= group.member != span.field;
                keep[at] = !group.closed;
            }
        }
    }
    let mut keep = keep.into_iter();
    spans.retain(|_| keep.next().unwrap_or(true));
}

/// The payload of a singular message field: one record as it is, several put behind each
/// other, which is how protobuf merges them.
pub(crate) fn merge(spans: &[Span<'_>]) -> Vec<u8> {
    let parts: Vec<&[u8]> = spans.iter().map(|span| span.raw.bytes()).collect();
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::registry;

    fn values(message: &str, bytes: &[u8]) -> Result<Vec<(String, u64)>, Malformed> {
        let message = registry().message(message).unwrap();
        let mut spans = Vec::new();
        collect(message, bytes, &mut spans).map_err(|(_, cause)| cause)?;
        let name = |span: &Span<'_>| message.fields[usize::from(span.field)].name.clone();
        Ok(spans.iter().map(|it| (name(it), it.raw.bits())).collect())
    }

    #[test]
    fn records_come_in_the_order_of_the_declaration() {
        // Value.Range { begin = 1; end = 2 }, an unknown field 9 and a group 3 between.
        let bytes = [0x10, 7, 0x48, 1, 0x1b, 0x08, 1, 0x1c, 0x08, 5];
        let found = values("mesos.v1.Value.Range", &bytes).unwrap();
        assert_eq!(found, [("begin".to_owned(), 5), ("end".to_owned(), 7)]);
    }

    #[test]
    fn what_is_not_protobuf_is_refused() {
        let cases: [(&[u8], Malformed); 10] = [
            (&[0x08], Malformed::Truncated),
            (&[0x08, 0x80], Malformed::Truncated),
            (&[0x0a, 5, 1], Malformed::Truncated),
            (&[0x09, 0], Malformed::Truncated),
            (&[0x00, 0], Malformed::Key),
            (&[0x0f, 0], Malformed::Key),
            (&[0x0c], Malformed::Group),
            (&[0x1b, 0x24], Malformed::Group),
            (&[0x0d, 0, 0, 0, 0], Malformed::WireType),
            (&[0x0a, 1, 1], Malformed::WireType),
        ];
        for (bytes, cause) in cases {
            assert_eq!(
                values("mesos.v1.Value.Range", bytes),
                Err(cause),
                "{bytes:?}"
            );
        }
        let long = [&[0x08][..], &[0xff; 9], &[0x02]].concat();
        let cause = Err(Malformed::Varint);
        assert_eq!(values("mesos.v1.Value.Range", &long), cause);
        let deep = vec![0x1b; 100_000];
        let cause = Err(Malformed::Depth);
        assert_eq!(values("mesos.v1.Value.Range", &deep), cause);
    }

    #[test]
    fn the_largest_varint_is_read() {
        let bytes = [&[0x08][..], &[0xff; 9], &[0x01]].concat();
        let found = values("mesos.v1.Value.Range", &bytes).unwrap();
        assert_eq!(found, [("begin".to_owned(), u64::MAX)]);
    }

    #[test]
    fn the_last_member_of_a_oneof_stays() {
        let message = registry()
            .message("mesos.v1.scheduler.AttributeConstraint.Predicate")
            .unwrap();
        let member = |at: usize| &message.fields[at];
        let key = |at: usize| u8::try_from(member(at).number << 3 | 2).unwrap();
        assert_eq!(member(0).oneof, member(1).oneof);
        let bytes = [key(0), 0, key(1), 0, key(0), 0, key(0), 0];
        let mut spans = Vec::new();
        collect(message, &bytes, &mut spans).unwrap();
        let found: Vec<u16> = spans.iter().map(|span| span.field).collect();
        assert_eq!(found, [0, 0]);
    }
}
