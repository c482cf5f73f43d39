//! What the engine executes for a call or a registration, in a run that is the same every time. It counts nothing itself:
//! `benches/instructions` runs it under callgrind, which collects within [`Collected::around`] alone.
//!
//! `cargo bench -p tandem-actors --bench instructions` shows that the scenarios run.

mod rig;

use std::hint::black_box;

use rig::{Nobody, Observer, Rig, Scenario};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Transactions are kept for 32 s (64 * T1), and four calls take about 4 s: by then as many end as begin.
const WARM_UP: u64 = 128;
const COUNTED: u64 = 256;

/// What is within it is counted.
struct Collected;

impl Observer for Collected {
    #[inline(never)]
    fn around(&mut self, work: &mut dyn FnMut()) {
        work();
        // Else it would be the same function as that of `Nobody`.
        black_box(());
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark reports on its standard output")]
fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let chosen: Vec<Scenario> = Scenario::ALL
        .into_iter()
        .filter(|scenario| words.iter().any(|word| word == scenario.name()))
        .collect();
    for scenario in if chosen.is_empty() { Scenario::ALL.to_vec() } else { chosen } {
        let mut rig = Rig::new(scenario);
        rig.run(&mut Nobody, WARM_UP);
        let times = rig.run(&mut Collected, COUNTED);
        println!("{}: {times}", scenario.name());
    }
}
