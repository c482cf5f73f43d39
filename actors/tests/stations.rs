//! What a station takes that is registered and has nothing to do.

#[path = "../benches/rig/mod.rs"]
mod rig;

use rig::{Nobody, Rig, Scenario};
use tandem_counting::{Counting, kept_by};

#[global_allocator]
static ALLOCATOR: Counting<std::alloc::System> = Counting(std::alloc::System);

/// Bytes of a station before it registers, and with one binding. 600 are promised, which includes what the allocator cannot use.
const MOST_CONFIGURED: i64 = 300;
const MOST_REGISTERED: i64 = 440;
const FEW: u64 = 500;
const MANY: u64 = 4_500;

/// Bytes in use by an engine with so many stations: before they register, and once they rest.
fn bytes(stations: u64) -> (i64, i64) {
    let (mut rig, configured) = kept_by(|| Rig::with_stations(Scenario::Register, stations, 0));
    let ((), registered) = kept_by(|| {
        rig.run(&mut Nobody, stations);
        rig.rest();
    });
    (configured.taken, (configured + registered).taken)
}

#[test]
fn a_station_that_is_registered_and_rests_takes_little_memory() {
    // Whatever is made once is made.
    bytes(4);
    let (few, many) = (bytes(FEW), bytes(MANY));
    let each = |few: i64, many: i64| (many - few) / (MANY - FEW) as i64;
    let (configured, registered) = (each(few.0, many.0), each(few.1, many.1));
    eprintln!("{configured} bytes of a station, {registered} of one that is registered");
    assert!(configured <= MOST_CONFIGURED && registered <= MOST_REGISTERED);
}
