//! What the worst inputs cost: each at three sizes, the next twice the one before. Neither the time nor the memory for each byte may grow.
//!
//! `cargo bench -p tandem-protocol --bench worst_case` prints a table.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

#[path = "worst_case/inputs.rs"]
mod inputs;

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use inputs::{INPUTS, SMALLEST, read};
use tandem_counting::{Counting, allocated_by};

#[global_allocator]
static ALLOCATOR: Counting<std::alloc::System> = Counting(std::alloc::System);

/// The shortest of many runs: what is added to it is the machine's, not the code's.
fn shortest(datagram: &Bytes) -> Duration {
    let began = Instant::now();
    let mut shortest = Duration::MAX;
    while began.elapsed() < Duration::from_millis(200) {
        let start = Instant::now();
        black_box(read(black_box(datagram)));
        shortest = shortest.min(start.elapsed());
    }
    shortest
}

fn main() {
    println!("| input |{}", " bytes | us | ns/byte | allocated/byte |".repeat(3));
    println!("| --- |{}", " ---: |".repeat(12));
    for (name, input) in INPUTS {
        let cells: String = [1, 2, 4]
            .map(|times| {
                let datagram = input(SMALLEST * times);
                let took = shortest(&datagram).as_nanos() as f64;
                let (_, allocated) = allocated_by(|| read(&datagram));
                let (size, memory) = (datagram.len() as f64, allocated.bytes as f64);
                format!(" {size} | {:.1} | {:.2} | {:.2} |", took / 1e3, took / size, memory / size)
            })
            .concat();
        println!("| {name} |{cells}");
    }
}
