//! The deterministic simulation: the real actors of the engine, the real softphones, in virtual time.
//!
//! `cargo test --test sim` replays what `regressions.txt` lists, and runs thousands of calls over several seeds, one of them fresh, each
//! in two processes that must come to the same log. A run that fails is shrunk to a short script, printed as one line for that
//! list. CI has it built with `--profile sim`, five times as fast, too, with many more seeds. A part that is on trial (`plan::Part`) is in
//! no fresh seed of these. After `cargo test --test sim --`:
//!
//! | words | do |
//! | --- | --- |
//! | `--seed 7 --calls 400` | one run alone; `--seed 7-20`: several |
//! | `--no-twin` | do not compare with another process: twice as many in the same time |
//! | `--only 3,17 --without loss,panics` | those of its calls, without those of its parts (`plan::Part`) |
//! | `--trunks` | every call leaves by the trunks of `trunks`, and nothing else happens |
//! | `--verbose` | show every message |
//! | `--brief` | of the runs that pass, only how many there were |
//! | `--no-shrink` | leave a failing run as it is |
//! | `--fresh 60` | so many fresh seeds after the fixed ones |
//! | `--hours 2.5` | fresh seeds until the time is over |
//!
//! | file | is |
//! | --- | --- |
//! | `options`, `plan`, `shrink` | what is run, what of it, and how a failing run is made short |
//! | `run` | the driver: the clock, quiescence, kills |
//! | `world`, `streams` | everything that is still to happen, the network of datagrams and of connections, the log |
//! | `seams`, `store`, `media`, `gauges` | what the engine takes from outside |
//! | `engine` | one life of the engine |
//! | `script`, `verbs`, `fade`, `phones`, `provider` | what people and peers do |
//! | `trunks` | trunks whose proxies fail in every way, and what must hold of the calls that hunt over them |
//! | `operators` | those who end calls and break actors |
//! | `fences` | shards that stand still, and those that take their places |
//! | `account` | what came of it, as they saw it |
//! | `reloads` | other settings, while calls are made and up |
//! | `nonsense`, `intruders` | strangers who mean no good, and those of them who connect |
//! | `voices`, `air` | what is said and heard in calls, and the book of every packet of it |
//! | `checks`, `sound` | what must hold, of calls and of their sound |
//! | `rules` | what the RFCs demand in every dialog |
//! | `wire`, `complaints` | the SIP sorted by call, and what in it justifies a phone's complaint |
//! | `ladder` | how a call that went wrong is shown |
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod account;
mod air;
mod checks;
mod complaints;
mod engine;
mod fade;
mod fences;
mod gauges;
mod intruders;
mod ladder;
mod media;
mod nonsense;
mod operators;
mod options;
mod phones;
mod plan;
mod provider;
mod reloads;
mod rng;
mod rules;
mod run;
mod script;
mod seams;
mod shrink;
mod sound;
mod store;
mod streams;
mod trunks;
mod verbs;
mod voices;
mod wire;
mod world;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use options::Options;
use plan::{Choice, Plan};
use run::Outcome;

/// The seeds of every run without words, one of each weather and more of the worst.
const SEEDS: [u64; 5] = [10, 11, 12, 13, 24];

/// The same run in another process: its hash.
fn elsewhere(choice: &Choice) -> std::io::Result<std::process::Child> {
    Command::new(std::env::current_exe()?)
        .args(choice.words())
        .arg("--hash-only")
        .stdout(std::process::Stdio::piped())
        .spawn()
}

/// Runs one choice here and in a second process at the same time; true if all is well.
fn check(choice: &Choice, options: &Options) -> bool {
    let began = Instant::now();
    let seed = choice.seed;
    let twin = options.twin.then(|| elsewhere(choice));
    let outcome = run::run(&Plan::new(choice), options.verbose);
    let theirs = twin.map(|twin| match twin.and_then(std::process::Child::wait_with_output) {
        Ok(out) => String::from_utf8_lossy(&out.stdout).trim().to_owned(),
        Err(why) => why.to_string(),
    });
    let Outcome { hash, entries, virtual_s, violations, summary } = outcome;
    if !options.brief || !violations.is_empty() {
        println!(
            "seed {seed}: {} calls in {virtual_s} virtual and {:.1} real seconds, log {hash:016x} of {entries} entries; {summary}",
            choice.dials().len(),
            began.elapsed().as_secs_f64()
        );
    }
    let other = theirs.filter(|theirs| *theirs != format!("{hash:016x}"));
    if let Some(theirs) = &other {
        println!("seed {seed}: another process came to log {theirs}: the run is not deterministic");
    }
    for violation in violations.iter().take(8) {
        println!("seed {seed}: {violation}");
    }
    if violations.len() > 8 {
        println!("seed {seed}: and {} more", violations.len() - 8);
    }
    if !violations.is_empty() {
        let short = if options.shrink { shrink::shrink(choice, &violations) } else { choice.clone() };
        println!("repeat it with: cargo test --test sim -- {}", short.words().join(" "));
    }
    other.is_none() && violations.is_empty()
}

/// A seed that nobody has chosen.
fn fresh() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Fresh seeds until the time is over; how many failed.
fn endure(options: &Options, time: Duration) -> usize {
    let began = Instant::now();
    let (mut runs, mut failed) = (0_usize, 0);
    let mut seed = fresh();
    while began.elapsed() < time {
        failed += usize::from(!check(&options.all(seed), options));
        runs += 1;
        seed += 1;
    }
    println!("{runs} runs of {} calls, {failed} of them failed", options.calls);
    failed
}

/// The runs without words: what has failed once, the fixed seeds, and fresh ones.
fn standing(options: &Options) -> Vec<Choice> {
    let first = fresh();
    let seeds = SEEDS.into_iter().chain(first..first + options.fresh);
    options::regressions().into_iter().chain(seeds.map(|seed| options.all(seed))).collect()
}

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    if options.skip {
        return ExitCode::SUCCESS;
    }
    run::watch_panics();
    if options.hash_only {
        for choice in &options.choices {
            println!("{:016x}", run::run(&Plan::new(choice), false).hash);
        }
        return ExitCode::SUCCESS;
    }
    let failed = match options.time {
        Some(time) => endure(&options, time),
        None => {
            let choices =
                if options.choices.is_empty() { standing(&options) } else { options.choices.clone() };
            let failed = choices.iter().filter(|choice| !check(choice, &options)).count();
            if options.brief {
                println!("{} runs, {failed} of them failed", choices.len());
            }
            failed
        }
    };
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
