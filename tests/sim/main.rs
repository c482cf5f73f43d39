//! The deterministic simulation: the real actors of the engine, the real softphones, in virtual time.
//!
//! `cargo test --test sim` runs a few thousand calls over several seeds, one of them fresh, each in two processes that must
//! come to the same log. One run alone: `cargo test --test sim -- --seed 7 --calls 400 [--verbose]`.
//!
//! | file | is |
//! | --- | --- |
//! | `run` | the driver: the clock, quiescence, kills |
//! | `world` | everything that is still to happen, the network, the log |
//! | `seams`, `store`, `media`, `gauges` | what the engine takes from outside |
//! | `engine` | one life of the engine |
//! | `script`, `fade`, `phones`, `provider` | what people and peers do, and their account of it |
//! | `voices`, `air` | what is said and heard in calls, and the book of every packet of it |
//! | `checks`, `sound` | what must hold, of calls and of their sound |
//! | `wire`, `complaints` | the SIP sorted by call, and what in it justifies a phone's complaint |
//! | `ladder` | how a call that went wrong is shown |
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod air;
mod checks;
mod complaints;
mod engine;
mod fade;
mod gauges;
mod ladder;
mod media;
mod phones;
mod plan;
mod provider;
mod rng;
mod run;
mod script;
mod seams;
mod sound;
mod store;
mod voices;
mod wire;
mod world;

use std::process::{Command, ExitCode};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use plan::Plan;
use run::Outcome;

/// The seeds of every CI run, one of each weather; a fresh one comes on top.
const SEEDS: [u64; 5] = [10, 11, 12, 13, 24];
/// Calls of each run in CI.
const CALLS: usize = 400;

struct Arguments {
    seed: Option<u64>,
    calls: usize,
    verbose: bool,
    /// Print the hash and nothing else: a second process asks.
    hash_only: bool,
    skip: bool,
}

fn arguments() -> Arguments {
    let mut found = Arguments { seed: None, calls: CALLS, verbose: false, hash_only: false, skip: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|w| w.parse().ok());
        match word.as_str() {
            "--seed" => found.seed = number(),
            "--calls" => found.calls = number().map_or(CALLS, |n| n as usize),
            "--verbose" => found.verbose = true,
            "--hash-only" => found.hash_only = true,
            // The test harness's own words: `cargo test NAME` runs what has that name, `--list` runs nothing.
            "--list" => found.skip = true,
            word if word.starts_with('-') => {}
            name => found.skip |= !"sim".contains(name),
        }
    }
    found
}

/// The same run in another process: its hash.
fn elsewhere(seed: u64, calls: usize) -> std::io::Result<std::process::Child> {
    Command::new(std::env::current_exe()?)
        .args(["--seed", &seed.to_string(), "--calls", &calls.to_string(), "--hash-only"])
        .stdout(std::process::Stdio::piped())
        .spawn()
}

/// Runs one seed here and in a second process at the same time; true if all is well.
fn check(seed: u64, calls: usize, verbose: bool) -> bool {
    let began = Instant::now();
    let plan = Plan::new(seed, calls);
    let twin = elsewhere(seed, calls);
    let outcome = run::run(&plan, verbose);
    let twin = twin.and_then(std::process::Child::wait_with_output);
    let theirs =
        twin.map_or_else(|why| why.to_string(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    let Outcome { hash, entries, virtual_s, violations, summary } = outcome;
    println!(
        "seed {seed}: {calls} calls in {virtual_s} virtual and {:.1} real seconds, log {hash:016x} of {entries} entries; {summary}",
        began.elapsed().as_secs_f64()
    );
    let same = theirs == format!("{hash:016x}");
    if !same {
        println!("seed {seed}: another process came to log {theirs}: the run is not deterministic");
    }
    for violation in violations.iter().take(8) {
        println!("seed {seed}: {violation}");
    }
    if violations.len() > 8 {
        println!("seed {seed}: and {} more", violations.len() - 8);
    }
    let well = same && violations.is_empty();
    if !well {
        println!("repeat it with: cargo test --test sim -- --seed {seed} --calls {calls}");
    }
    well
}

fn main() -> ExitCode {
    let arguments = arguments();
    if arguments.skip {
        return ExitCode::SUCCESS;
    }
    run::watch_panics();
    if arguments.hash_only {
        let outcome = run::run(&Plan::new(arguments.seed.unwrap_or(0), arguments.calls), false);
        println!("{:016x}", outcome.hash);
        return ExitCode::SUCCESS;
    }
    let seeds = match arguments.seed {
        Some(seed) => vec![seed],
        None => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            SEEDS.into_iter().chain([now.as_millis() as u64]).collect()
        }
    };
    let failed = seeds.iter().filter(|seed| !check(**seed, arguments.calls, arguments.verbose)).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
