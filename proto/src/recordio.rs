//! RecordIO: how Mesos frames the messages of a stream.
//!
//! A record is its length in decimal digits, a newline, and exactly that many bytes.

use bytes::{BufMut, Bytes, BytesMut};

/// Digits of the longest length: `u64::MAX` has twenty.
const MAX_DIGITS: usize = 20;

/// Why a stream is not RecordIO. After one of these a stream cannot be read any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something other than a digit where a length was due.
    #[error("the length of a record has to be decimal digits and a newline, found byte {0:#04x}")]
    NotADigit(u8),
    /// A newline without a digit before it.
    #[error("the length of a record is empty")]
    Empty,
    /// More digits than any length has.
    #[error("the length of a record has more than {MAX_DIGITS} digits")]
    TooManyDigits,
    /// The sender announces more than the receiver takes.
    #[error("a record of {length} bytes is longer than the {maximum} bytes that are taken")]
    TooLong {
        /// As announced, in bytes.
        length: u64,
        /// As configured, in bytes.
        maximum: usize,
    },
}

/// One record as one chunk, ready to be sent.
#[must_use]
pub fn encode(payload: &[u8]) -> Bytes {
    let mut record = BytesMut::with_capacity(payload.len() + MAX_DIGITS + 1);
    record.put_slice(payload.len().to_string().as_bytes());
    record.put_u8(b'\n');
    record.put_slice(payload);
    record.freeze()
}

/// Cuts a stream that arrives in arbitrary pieces into its records.
///
/// ```
/// # use tepui_proto::recordio::{Decoder, Error};
/// let mut decoder = Decoder::new(1024);
/// decoder.push(b"5\nhel");
/// assert_eq!(decoder.next_record()?, None);
/// decoder.push(b"lo3\n");
/// assert_eq!(decoder.next_record()?.as_deref(), Some(&b"hello"[..]));
/// assert_eq!(decoder.next_record()?, None);
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// Length of the record being collected; `None` while its header is.
    due: Option<usize>,
    maximum: usize,
    failed: Option<Error>,
}

impl Decoder {
    /// A decoder that refuses records longer than `maximum` bytes.
    #[must_use]
    pub fn new(maximum: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            due: None,
            maximum,
            failed: None,
        }
    }

    /// Takes the next piece of the stream. Call [`next_record`](Self::next_record) until
    /// it answers `None` before pushing more: what is buffered is then never more than
    /// one record and one piece.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(chunk);
        }
    }

    /// The next whole record, `None` when more has to be pushed first.
    ///
    /// # Errors
    /// When the stream is not RecordIO or a record is too long; from then on always.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.advance().inspect_err(|error| {
            self.failed = Some(error.clone());
            self.buffer = BytesMut::new();
        })
    }

    /// Whether the stream may end here: no record has begun.
    #[must_use]
    pub fn is_between_records(&self) -> bool {
        self.due.is_none() && self.buffer.is_empty() && self.failed.is_none()
    }

    fn advance(&mut self) -> Result<Option<Bytes>, Error> {
        let due = match self.due {
            Some(due) => due,
            None => match self.header()? {
                Some(due) => due,
                None => return Ok(None),
            },
        };
        if self.buffer.len() < due {
            self.due = Some(due);
            return Ok(None);
        }
        self.due = None;
        Ok(Some(self.buffer.split_to(due).freeze()))
    }

    /// Takes a whole header off the buffer.
    fn header(&mut self) -> Result<Option<usize>, Error> {
        let mut length: u64 = 0;
        for (at, &byte) in self.buffer.iter().enumerate() {
            match byte {
                b'\n' if at == 0 => return Err(Error::Empty),
                b'\n' => {
                    let short = usize::try_from(length).ok();
                    let due = short.filter(|it| *it <= self.maximum);
                    let due = due.ok_or(Error::TooLong {
                        length,
                        maximum: self.maximum,
                    })?;
                    let _ = self.buffer.split_to(at + 1);
                    return Ok(Some(due));
                }
                _ if at == MAX_DIGITS => return Err(Error::TooManyDigits),
                // Saturated is too long, whatever the maximum.
                b'0'..=b'9' => {
                    length = length
                        .saturating_mul(10)
                        .saturating_add(u64::from(byte - b'0'));
                }
                other => return Err(Error::NotADigit(other)),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8], maximum: usize) -> Result<Vec<Bytes>, Error> {
        let mut decoder = Decoder::new(maximum);
        decoder.push(input);
        let mut records = Vec::new();
        while let Some(record) = decoder.next_record()? {
            records.push(record);
        }
        Ok(records)
    }

    #[test]
    fn a_record_is_length_newline_payload() {
        assert_eq!(&encode(b"abc")[..], b"3\nabc");
        assert_eq!(&encode(b"")[..], b"0\n");
    }

    #[test]
    fn records_follow_each_other() {
        let records = all(b"2\nab0\n1\n\n", 10).unwrap();
        assert_eq!(records, [&b"ab"[..], b"", b"\n"]);
    }

    #[test]
    fn what_is_not_a_length_is_refused() {
        assert_eq!(all(b"-1\n", 10), Err(Error::NotADigit(b'-')));
        assert_eq!(all(b" 1\n", 10), Err(Error::NotADigit(b' ')));
        assert_eq!(all(b"{}", 10), Err(Error::NotADigit(b'{')));
        assert_eq!(all(b"\n", 10), Err(Error::Empty));
        assert_eq!(all(&[b'1'; 21], 10), Err(Error::TooManyDigits));
        let (length, maximum) = (u64::MAX, usize::MAX - 1);
        let refused = Err(Error::TooLong { length, maximum });
        assert_eq!(all(b"99999999999999999999\n", maximum), refused);
        let (length, maximum) = (11, 10);
        let refused = Err(Error::TooLong { length, maximum });
        assert_eq!(all(b"11\n", maximum), refused);
    }

    #[test]
    fn an_error_is_for_ever() {
        let mut decoder = Decoder::new(10);
        decoder.push(b"x");
        assert!(decoder.next_record().is_err());
        decoder.push(b"1\na");
        assert_eq!(decoder.next_record(), Err(Error::NotADigit(b'x')));
        assert!(!decoder.is_between_records());
    }

    #[test]
    fn an_end_inside_a_record_can_be_told() {
        let mut decoder = Decoder::new(10);
        assert!(decoder.is_between_records());
        decoder.push(b"2");
        assert_eq!(decoder.next_record(), Ok(None));
        assert!(!decoder.is_between_records());
        decoder.push(b"\na");
        assert_eq!(decoder.next_record(), Ok(None));
        assert!(!decoder.is_between_records());
        decoder.push(b"b");
        assert!(decoder.next_record().unwrap().is_some());
        assert!(decoder.is_between_records());
    }
}
