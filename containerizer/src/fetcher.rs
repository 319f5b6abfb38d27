//! Fetches the URIs of a command into the sandbox.

use std::time::Duration;

/// Bounds of the fetcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most bytes of one downloaded file.
    pub file_bytes: u64,
    /// Most bytes that one archive may unpack to.
    pub extracted_bytes: u64,
    /// Most entries of one archive.
    pub extracted_entries: u64,
    /// A download that brings nothing for this long is given up (`--fetcher_stall_timeout`).
    pub stall: Duration,
    /// Longest time for all URIs of one task together.
    pub total: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            file_bytes: 16 << 30,
            extracted_bytes: 64 << 30,
            extracted_entries: 1_000_000,
            stall: Duration::from_secs(60),
            total: Duration::from_secs(3600),
        }
    }
}
