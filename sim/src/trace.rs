//! What happened: a hash over all of it, and, when somebody reads, lines of text.

use crate::clock::{MILLI, SECOND};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

/// What is left of a run that ends in a panic.
#[derive(Debug, Default)]
pub struct Witness {
    /// When the last event began.
    pub now: Cell<u64>,
    /// The lines that were kept.
    pub lines: RefCell<Vec<String>>,
}

/// The trace of one run. Equal seeds have equal hashes, or something depends on more than the
/// seed.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    is_read: bool,
    witness: Rc<Witness>,
}

impl Trace {
    /// An empty trace, which keeps lines or only counts.
    pub fn new(lines: bool, witness: Rc<Witness>) -> Trace {
        Trace {
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            is_read: lines,
            witness,
        }
    }

    /// Whether lines are kept: text that nobody reads is not worth making.
    pub fn is_read(&self) -> bool {
        self.is_read
    }

    /// Keeps a line.
    pub fn line(&mut self, now: u64, who: &str, text: &str) {
        if self.is_read {
            let (seconds, rest) = (now / SECOND, now % SECOND);
            let (millis, micros) = (rest / MILLI, rest % MILLI / 1000);
            let line = format!("{seconds:4}.{millis:03}{micros:03} {who:>10}  {text}");
            self.witness.lines.borrow_mut().push(line);
        }
    }

    /// An event begins.
    pub fn event(&mut self, now: u64, kind: u64) {
        self.events += 1;
        self.witness.now.set(now);
        self.word(now);
        self.word(kind);
    }

    /// A number that is part of what happens.
    pub fn word(&mut self, word: u64) {
        self.hash = (self.hash ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }

    /// Bytes that travel or are written.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes_hash(bytes));
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }
}

/// A hash of bytes, eight at a time; good enough to tell histories apart.
pub fn bytes_hash(bytes: &[u8]) -> u64 {
    let mut hash = 0x9ae1_6a3b_2f90_404f ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        hash = (hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 32;
    }
    for byte in chunks.remainder() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^ (hash >> 29)
}

/// Writes a line of the trace, if anybody reads it.
macro_rules! note {
    ($core:expr, $who:expr, $($text:tt)*) => {
        if $core.trace.is_read() {
            let (who, text) = ($who.to_string(), format!($($text)*));
            let now = $core.now;
            $core.trace.line(now, &who, &text);
        }
    };
}
pub(crate) use note;
