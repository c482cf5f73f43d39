//! An allocator that knows how much is in use.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicI64, Ordering};

static IN_USE: AtomicI64 = AtomicI64::new(0);

/// Adds up what is in use, each block as large as mimalloc makes it. The blocks come from another allocator.
pub struct Live<A>(pub A);

/// What a block of `size` bytes takes in mimalloc: from 64 bytes on there are four sizes to each power of two.
fn taken(size: usize) -> i64 {
    let step = match size {
        0..=8 => 8,
        9..=64 => 16,
        _ => (size.next_power_of_two() / 8).clamp(16, 4096),
    };
    size.next_multiple_of(step) as i64
}

fn add(bytes: i64) {
    IN_USE.fetch_add(bytes, Ordering::Relaxed);
}

// SAFETY: every call is handed to the inner allocator as it came, and its answer is returned as it is; counting touches
// nothing but an atomic, so it neither allocates nor unwinds.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Live<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(taken(layout.size()));
        // SAFETY: the caller's promises are those that the inner allocator asks for.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-taken(layout.size()));
        // SAFETY: `pointer` came from the inner allocator, by one of the other functions.
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(taken(layout.size()));
        // SAFETY: the caller's promises are those that the inner allocator asks for.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(taken(size) - taken(layout.size()));
        // SAFETY: `pointer` came from the inner allocator, by one of the other functions.
        unsafe { self.0.realloc(pointer, layout, size) }
    }
}

/// Bytes that all threads have in use: zero unless [`Live`] is the allocator.
pub fn in_use() -> i64 {
    IN_USE.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::taken;

    #[test]
    fn a_block_is_as_large_as_mimalloc_makes_it() {
        let sizes = [1, 9, 24, 60, 65, 97, 129, 161, 300, 600, 100_000];
        assert_eq!(sizes.map(taken), [8, 16, 32, 64, 80, 112, 160, 192, 320, 640, 102_400]);
    }
}
