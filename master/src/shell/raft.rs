//! The replica of this master: bytes in and out of the log, and the committed state.
//!
//! `Committed` lives here, moved only by committed entries and never rolled back. A machine
//! is born from a clone of it; the rows behind it are written behind the log.

