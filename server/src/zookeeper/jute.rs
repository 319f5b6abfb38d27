//! Jute, the encoding of ZooKeeper: big-endian numbers; lengths of 32 bits before texts,
//! bytes and lists, -1 for none.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed answer of a ZooKeeper server")]
pub struct Malformed;

/// Writes a message.
#[derive(Debug, Default)]
pub(super) struct Writer(BytesMut);

impl Writer {
    pub(super) fn int(mut self, value: i32) -> Writer {
        self.0.put_i32(value);
        self
    }

    pub(super) fn long(mut self, value: i64) -> Writer {
        self.0.put_i64(value);
        self
    }

    pub(super) fn bool(mut self, value: bool) -> Writer {
        self.0.put_u8(value.into());
        self
    }

    pub(super) fn bytes(mut self, value: &[u8]) -> Writer {
        // What is written here is small.
        self.0.put_i32(value.len() as i32);
        self.0.put_slice(value);
        self
    }

    pub(super) fn text(self, value: &str) -> Writer {
        self.bytes(value.as_bytes())
    }

    pub(super) fn raw(mut self, value: &[u8]) -> Writer {
        self.0.put_slice(value);
        self
    }

    pub(super) fn done(self) -> Bytes {
        self.0.freeze()
    }
}

/// Reads a message.
#[derive(Debug)]
pub(super) struct Reader(pub(super) Bytes);

impl Reader {
    pub(super) fn int(&mut self) -> Result<i32, Malformed> {
        self.0.try_get_i32().map_err(|_| Malformed)
    }

    pub(super) fn long(&mut self) -> Result<i64, Malformed> {
        self.0.try_get_i64().map_err(|_| Malformed)
    }

    pub(super) fn bool(&mut self) -> Result<bool, Malformed> {
        self.0.try_get_u8().map(|it| it != 0).map_err(|_| Malformed)
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = self.int()?.max(0) as usize;
        match length <= self.0.len() {
            true => Ok(self.0.split_to(length)),
            false => Err(Malformed),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| Malformed)
    }

    pub(super) fn texts(&mut self) -> Result<Vec<String>, Malformed> {
        let count = self.int()?.max(0);
        (0..count).map(|_| self.text()).collect()
    }

    pub(super) fn stat(&mut self) -> Result<Stat, Malformed> {
        for _ in 0..4 {
            self.long()?;
        }
        let version = self.int()?;
        self.int()?;
        self.int()?;
        let owner = self.long()?;
        self.int()?;
        self.int()?;
        self.long()?;
        Ok(Stat { version, owner })
    }
}

/// What is used of a node's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Of its data; rises with every change.
    pub(super) version: i32,
    /// The session with which it ends; 0 for a node that stays.
    pub(super) owner: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let bytes = Writer::default()
            .int(-7)
            .long(1 << 40)
            .bool(true)
            .text("zoo")
            .int(2)
            .text("a")
            .text("b")
            .done();
        let mut reader = Reader(bytes);
        assert_eq!(reader.int(), Ok(-7));
        assert_eq!(reader.long(), Ok(1 << 40));
        assert_eq!(reader.bool(), Ok(true));
        assert_eq!(reader.text(), Ok("zoo".to_owned()));
        assert_eq!(reader.texts(), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(reader.int(), Err(Malformed));
    }

    #[test]
    fn lengths_are_checked() {
        let lies = Writer::default().int(1_000_000).raw(b"abc").done();
        assert_eq!(Reader(lies.clone()).bytes(), Err(Malformed));
        assert_eq!(Reader(lies).texts(), Err(Malformed));
        let none = Writer::default().int(-1).done();
        assert_eq!(Reader(none).bytes(), Ok(Bytes::new()));
    }
}
