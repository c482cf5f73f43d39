//! What an established call holds of memory within the actors: bytes that are allocated and not freed, counted in virtual time, so that they
//! are the same in every run. Kernel, store and the ring of the last messages are left out.

#[path = "../benches/rig/mod.rs"]
mod rig;

use std::alloc::System;
use std::sync::{Mutex, PoisonError};

use rig::{Nobody, Rig, Scenario};
use tandem_counting::{Counting, Kept, kept_by};

#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

/// Set up before, so that tables have some room.
const FIRST: u64 = 100;
const CALLS: u64 = 400;

/// One count is made at a time.
static ONE: Mutex<()> = Mutex::new(());

/// What a call holds once it rests, and what is left of it when it has ended, each as the mean of many.
fn held_by_a_call(scenario: Scenario) -> (Kept, Kept) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut rig = Rig::of_calls_that_stay(scenario);
    drop(rig.establish(&mut Nobody, FIRST));
    let ((), held) = kept_by(|| drop(rig.establish(&mut Nobody, CALLS)));
    let (listed, woken) = kept_by(|| rig.list(&mut Nobody));
    assert!(listed as u64 == FIRST + CALLS && woken.bytes < 4096, "{listed} listed, {woken:?} of them awake");
    let ((), left) = kept_by(|| {
        let up = rig.establish(&mut Nobody, CALLS);
        rig.end(&mut Nobody, up);
    });
    // The others stay as they are: `valgrind --tool=dhat` then tells at the end who holds what.
    std::mem::forget(rig);
    (held / CALLS as i64, left / CALLS as i64)
}

#[expect(clippy::print_stdout, reason = "`--nocapture` shows the figures")]
fn check(scenario: Scenario, most: i64) {
    let (held, left) = held_by_a_call(scenario);
    println!("{}: {held:?}, of ended ones {left:?}", scenario.name());
    assert!((1..=most).contains(&held.bytes), "{held:?} and not at most {most} bytes");
    // Tables stay as large as they were at their fullest.
    assert!(left.blocks == 0 && left.bytes < 1024, "{left:?} of calls that have ended");
}

#[test]
fn an_established_bypass_call_holds_little_and_leaves_nothing() {
    check(Scenario::Bypass, 6_200);
}

#[test]
fn an_established_anchored_call_holds_little_and_leaves_nothing() {
    check(Scenario::Anchored, 13_000);
}
