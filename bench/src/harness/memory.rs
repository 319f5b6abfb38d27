//! What a thread allocates, counted; what the machine has left.
//!
//! Counts do not depend on the clock nor on who else runs: they stand beside each time. They are
//! kept a thread, since a shared counter would cost more than what it counts.

use core::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
};
use mimalloc::MiMalloc;
use procfs::Current;

/// The allocator that masters run with, which counts what passes through it.
pub(crate) struct Counting;

/// What a thread asked for since it began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Bytes that were asked for.
    pub(crate) bytes: u64,
    /// How often.
    pub(crate) allocations: u64,
    /// Bytes that were asked for and not given back; negative when this thread gave back what
    /// another one asked for.
    pub(crate) live: i64,
}

const NONE: Counts = Counts {
    bytes: 0,
    allocations: 0,
    live: 0,
};

thread_local! {
    // Neither made at first use nor dropped, so that it is there whenever the allocator runs.
    static COUNTS: Cell<Counts> = const { Cell::new(NONE) };
}

fn count(asked: usize, given_back: usize) {
    // A thread that ends counts no longer.
    let _ = COUNTS.try_with(|it| {
        let mut counts = it.get();
        counts.bytes += asked as u64;
        counts.allocations += u64::from(asked > 0);
        counts.live += asked as i64 - given_back as i64;
        it.set(counts);
    });
}

// SAFETY: every call is handed on to an allocator that keeps the contract; counting touches
// nothing but numbers of this thread and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are handed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are handed on.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, it: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { MiMalloc.dealloc(it, layout) }
    }

    unsafe fn realloc(&self, it: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { MiMalloc.realloc(it, layout, size) }
    }
}

/// What this thread asked for so far.
pub(crate) fn counts() -> Counts {
    COUNTS.with(Cell::get)
}

impl Counts {
    /// What came since `before`.
    pub(crate) fn since(self, before: Counts) -> Counts {
        Counts {
            bytes: self.bytes - before.bytes,
            allocations: self.allocations - before.allocations,
            live: self.live - before.live,
        }
    }
}

/// Bytes that can be had without swapping: `MemAvailable`; none where the kernel does not say.
pub(crate) fn available() -> Option<u64> {
    procfs::Meminfo::current().ok()?.mem_available
}

/// Bytes of memory that the machine has.
pub(crate) fn total() -> Option<u64> {
    procfs::Meminfo::current().ok().map(|it| it.mem_total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_and_kept_is_counted() {
        let before = counts();
        let kept: Vec<u8> = Vec::with_capacity(1000);
        drop(Vec::<u8>::with_capacity(500));
        let since = counts().since(before);
        assert_eq!(
            (since.bytes, since.allocations, since.live),
            (1500, 2, 1000)
        );
        drop(kept);
        assert_eq!(counts().since(before).live, 0);
        assert!(available() <= total());
    }
}
