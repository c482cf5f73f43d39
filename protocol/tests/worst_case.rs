//! What the worst messages hold: memory in proportion to their size, and not much more than that.

// What is measured is printed, for `docs/performance.md`.
#![allow(clippy::print_stdout)]

#[path = "../benches/worst_case/inputs.rs"]
mod inputs;

use inputs::{INPUTS, SMALLEST, read};
use tandem_counting::{Counting, allocated_by};

#[global_allocator]
static ALLOCATOR: Counting<std::alloc::System> = Counting(std::alloc::System);

/// Bytes that may be allocated for each byte of a message, everything it is read into together.
const MOST: f64 = 24.0;

#[test]
fn the_worst_messages_take_memory_in_proportion_to_their_size() {
    println!("| input | at 15 KB | at 30 KB | at 60 KB |");
    for (name, input) in INPUTS {
        let ratios = [1, 2, 4].map(|times| {
            let datagram = input(SMALLEST * times);
            let (_, allocated) = allocated_by(|| read(&datagram));
            allocated.bytes as f64 / datagram.len() as f64
        });
        println!("| {name} | {:.2} | {:.2} | {:.2} |", ratios[0], ratios[1], ratios[2]);
        assert!(ratios[2] <= MOST, "{name}: {ratios:?}");
        // A list that grows by doubling is at most twice as large for twice the input, and twice again by chance.
        assert!(ratios[2] <= ratios[0] * 2.0 + 0.5, "{name}: {ratios:?}");
    }
}
