//! What a call and a registration cost the engine in time and allocations, without the kernel and the store: actors, machines,
//! messages, checkpoints, metrics and log, in virtual time on one thread.
//!
//! `cargo bench -p tandem-actors --bench engine` prints a table and a line of JSON.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod rig;

use std::time::{Duration, Instant};

use rig::{Nobody, Observer, Rig, Scenario};
use tandem_counting::{Allocated, Counting, Report, allocated_by};

#[global_allocator]
static ALLOCATOR: Counting<mimalloc::MiMalloc> = Counting(mimalloc::MiMalloc);

/// Transactions are kept for 32 s (64 * T1): by then as many end as begin.
const WARM_UP: u64 = 128;
/// A round is short enough that some are not disturbed.
const ROUND: u64 = 64;
const ROUNDS: u64 = 100;

#[derive(Default)]
struct Watch(Duration);

impl Observer for Watch {
    fn around(&mut self, work: &mut dyn FnMut()) {
        let began = Instant::now();
        work();
        self.0 += began.elapsed();
    }
}

#[derive(Default)]
struct Counter(Allocated);

impl Observer for Counter {
    fn around(&mut self, work: &mut dyn FnMut()) {
        self.0 += allocated_by(work).1;
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark reports on its standard output")]
fn main() {
    let mut report = Report::new("engine");
    for scenario in Scenario::ALL {
        let mut rig = Rig::new(scenario);
        rig.run(&mut Nobody, WARM_UP);
        let mut counter = Counter::default();
        let counted = rig.run(&mut counter, ROUND);
        let shortest = (0..ROUNDS).map(|_| {
            let mut watch = Watch::default();
            rig.run(&mut watch, ROUND);
            watch.0
        });
        report.add(scenario.name(), shortest.min().unwrap() / ROUND as u32, counted, counter.0);
    }
    println!("{report}");
}
