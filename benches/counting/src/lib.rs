//! What an operation costs: the time of the shortest of many runs, and how often and how much it allocates.
//!
//! A benchmark makes [`Counting`] its global allocator, measures by a [`Report`], and prints that.
// A benchmark reads the clock and reports on its standard output.
#![allow(clippy::disallowed_methods)]

mod allocator;
mod report;

pub use allocator::{Allocated, Counting, Kept, allocated_by, kept_by};
pub use report::Report;
