//! Every input that was kept is played again.

use std::fs;
use std::path::Path;

/// Plays a corpus, which must not be empty.
fn replay(name: &str) {
    let target = tandem_fuzz::TARGETS.iter().find(|(known, _)| *known == name).expect("a target").1;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut count = 0;
    for entry in fs::read_dir(&directory).expect("a corpus") {
        let path = entry.expect("an entry").path();
        let input = fs::read(&path).expect("an input");
        if let Err(panic) = std::panic::catch_unwind(|| target(&input)) {
            eprintln!("in {}", path.display());
            std::panic::resume_unwind(panic);
        }
        count += 1;
    }
    assert!(count > 0, "{} is empty", directory.display());
}

#[test]
fn what_the_parser_was_given_is_parsed_again() {
    replay("message");
    // The torture messages are a corpus of their own.
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/torture");
    let target = tandem_fuzz::TARGETS[0].1;
    for entry in fs::read_dir(directory).expect("the torture messages") {
        target(&fs::read(entry.expect("an entry").path()).expect("a message"));
    }
}

#[test]
fn what_sdp_was_given_is_parsed_again() {
    replay("sdp");
}

#[test]
fn what_digest_was_given_is_judged_again() {
    replay("digest");
}

#[test]
fn what_uris_were_given_are_read_again() {
    replay("uri");
}

#[test]
fn the_sequences_of_transactions_are_played_again() {
    replay("transactions");
}

#[test]
fn the_sequences_of_dialogs_are_played_again() {
    replay("dialogs");
}
