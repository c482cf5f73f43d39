//! An allocator that counts while it is asked to.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

static ENABLED: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static FREED: AtomicU64 = AtomicU64::new(0);
static FREED_BYTES: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicI64 = AtomicI64::new(0);

/// Counts the allocations of all threads, which another allocator makes. While nobody asks, it costs a load.
pub struct Counting<A>(pub A);

/// What a block of `size` bytes takes in mimalloc: from 64 bytes on there are four sizes to each power of two.
fn taken(size: usize) -> i64 {
    let step = match size {
        0..=8 => 8,
        9..=64 => 16,
        _ => (size.next_power_of_two() / 8).clamp(16, 4096),
    };
    size.next_multiple_of(step) as i64
}

fn count(bytes: usize) {
    if ENABLED.load(Ordering::Relaxed) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
        TAKEN.fetch_add(taken(bytes), Ordering::Relaxed);
    }
}

fn count_freed(bytes: usize) {
    if ENABLED.load(Ordering::Relaxed) {
        FREED.fetch_add(1, Ordering::Relaxed);
        FREED_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
        TAKEN.fetch_sub(taken(bytes), Ordering::Relaxed);
    }
}

// SAFETY: every call is handed to the inner allocator as it came, and its answer is returned as it is; counting touches
// nothing but atomics, so it neither allocates nor unwinds.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are those that the inner allocator asks for.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count_freed(layout.size());
        // SAFETY: `pointer` came from the inner allocator, by one of the other functions.
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are those that the inner allocator asks for.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_freed(layout.size());
        count(size);
        // SAFETY: `pointer` came from the inner allocator, by one of the other functions.
        unsafe { self.0.realloc(pointer, layout, size) }
    }
}

/// What was allocated. Growing a block counts as another one of its new size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// How many blocks.
    pub blocks: u64,
    /// Bytes in all of them.
    pub bytes: u64,
}

impl std::ops::AddAssign for Allocated {
    fn add_assign(&mut self, more: Allocated) {
        self.blocks += more.blocks;
        self.bytes += more.bytes;
    }
}

/// What all threads allocate while `work` runs. One such count at a time: zero unless [`Counting`] is the allocator.
pub fn allocated_by<R>(work: impl FnOnce() -> R) -> (R, Allocated) {
    let (result, allocated, _) = counted(work);
    (result, allocated)
}

/// What of it is left when `work` has run; less than nothing if it has freed more of what there was before. As [`allocated_by`].
pub fn kept_by<R>(work: impl FnOnce() -> R) -> (R, Kept) {
    let (result, allocated, freed) = counted(work);
    let left = |allocated: u64, freed: u64| allocated.wrapping_sub(freed) as i64;
    let (blocks, bytes) = (left(allocated.blocks, freed.blocks), left(allocated.bytes, freed.bytes));
    (result, Kept { blocks, bytes, taken: TAKEN.load(Ordering::Relaxed) })
}

/// What is allocated and not freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How many blocks.
    pub blocks: i64,
    /// Bytes that were asked for.
    pub bytes: i64,
    /// Bytes with what mimalloc cannot use beside them.
    pub taken: i64,
}

impl std::ops::Div<i64> for Kept {
    type Output = Kept;

    fn div(self, by: i64) -> Kept {
        Kept { blocks: self.blocks / by, bytes: self.bytes / by, taken: self.taken / by }
    }
}

impl std::ops::Add for Kept {
    type Output = Kept;

    fn add(self, more: Kept) -> Kept {
        let Kept { blocks, bytes, taken } = more;
        Kept { blocks: self.blocks + blocks, bytes: self.bytes + bytes, taken: self.taken + taken }
    }
}

/// What all threads allocate, and what they free, while `work` runs.
fn counted<R>(work: impl FnOnce() -> R) -> (R, Allocated, Allocated) {
    let of = |blocks: &AtomicU64, bytes: &AtomicU64| Allocated {
        blocks: blocks.swap(0, Ordering::Relaxed),
        bytes: bytes.swap(0, Ordering::Relaxed),
    };
    of(&ALLOCATIONS, &BYTES);
    of(&FREED, &FREED_BYTES);
    TAKEN.store(0, Ordering::Relaxed);
    ENABLED.store(true, Ordering::Relaxed);
    let result = work();
    ENABLED.store(false, Ordering::Relaxed);
    (result, of(&ALLOCATIONS, &BYTES), of(&FREED, &FREED_BYTES))
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
