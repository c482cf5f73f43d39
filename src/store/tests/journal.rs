//! What the journal has and the database lacks: it is read, counted and kept as if the database had it.

use std::path::PathBuf;

use super::*;

/// Urgent groups are committed at once, and saved only when they are read or flushed.
fn unsaved() -> Options {
    Options { lazy: Duration::from_secs(3600), ..Options::default() }
}

/// What a crash would leave at this moment. Nothing is saved meanwhile.
fn crashed(dir: &Path, name: &str) -> PathBuf {
    let copy = dir.parent().unwrap().join(name);
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    copy
}

fn call(key: &str) -> Batch {
    let mut batch = put(key, "checkpoint");
    batch.events.push(event(key, "a, \"b\""));
    batch.cdrs.push(Cdr { call_id: key.into(), segment: 1, ..Cdr::default() });
    batch
}

fn journal_bytes(dir: &Path) -> u64 {
    std::fs::metadata(dir.join("tandem.journal")).unwrap().len()
}

#[test]
fn what_only_the_journal_has_is_there_after_a_crash_whole_and_once() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let rig = Rig::with(&dir, unsaved());
    rig.put(call("saved"), 1).unwrap();
    rig.store.flush();
    rig.put(call("a"), 2).unwrap();
    let mut more = of(Urgency::Urgent, vec![write(Bucket::Bindings, "1001", Some("sip:1001@a"), None)]);
    more.writes.push(write(Bucket::Calls, "saved", None, None));
    rig.put(more, 3).unwrap();
    rig.put(call("b"), 4).unwrap();
    let copy = crashed(&dir, "crashed");
    // Each start finds the same, whether or not the one before it has come to its end.
    for name in ["first", "second"] {
        let again = crashed(&copy, name);
        let rig = Rig::open(&again);
        let keys: Vec<String> = rig.keys(Bucket::Calls).into_iter().map(|(key, ..)| key).collect();
        assert_eq!(keys, ["a", "b"]);
        assert_eq!(rig.keys(Bucket::Bindings), [("1001".into(), 1, "sip:1001@a".into())]);
        let log = rig.store.events_from(0, 10).unwrap();
        assert_eq!(log.iter().map(|line| number(line)).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(log[2].contains("\"call_id\":\"b\"") && log[2].contains("a, \\\"b\\\""), "{}", log[2]);
        assert!(rig.store.cdr("b").unwrap().is_some());
        rig.put(call("c"), 5).unwrap();
        drop(rig);
        assert_eq!(journal_bytes(&again), 0, "an orderly end leaves nothing in it");
        let rig = Rig::open(&again);
        assert_eq!(rig.store.events_from(0, 10).unwrap().len(), 4);
        assert_eq!(lines(&again.join("cdr.jsonl")).len(), 4);
    }
    let filed = lines(&dir.join("cdr.jsonl"));
    assert_eq!(filed.len(), 1, "the file follows the database");
    rig.store.flush();
    assert_eq!(lines(&dir.join("cdr.jsonl")), lines(&copy.parent().unwrap().join("first/cdr.jsonl"))[..3]);
}

#[test]
fn a_start_that_ends_before_it_has_saved_what_the_journal_has_is_made_up_for_by_the_next() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let rig = Rig::with(&dir, unsaved());
    for round in 0..5 {
        for n in 0..3 {
            rig.put(call(&format!("c{round}-{n}")), n).unwrap();
        }
        // Rounds of different length, so that records of earlier ones remain behind those of this one.
        let copy = crashed(&dir, &format!("crashed{round}"));
        let found = Rig::open(&copy);
        assert_eq!(found.store.events_from(0, 100).unwrap().len(), 3 * (round + 1));
        assert_eq!(found.keys(Bucket::Calls).len(), 3 * (round + 1));
        rig.store.flush();
        let copy = crashed(&dir, &format!("saved{round}"));
        assert_eq!(Rig::open(&copy).store.events_from(0, 100).unwrap().len(), 3 * (round + 1));
    }
}

#[test]
fn calls_stay_in_the_journal_when_the_rest_is_saved_and_survive_a_crash() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let rig = Rig::open(&dir);
    let give_up = std::time::Instant::now() + BOUND;
    for n in 1..=3 {
        rig.put(call(&format!("c{n}")), n).unwrap();
        while lines(&dir.join("cdr.jsonl")).len() < n as usize {
            assert!(std::time::Instant::now() < give_up, "the rest is saved");
            std::thread::yield_now();
        }
    }
    let copy = crashed(&dir, "crashed");
    let conn = rusqlite::Connection::open(copy.join("tandem.db")).unwrap();
    let count = |table: &str| -> u64 {
        conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("calls"), count("cdr"), count("event_log")), (0, 3, 3));
    drop(conn);
    let found = Rig::open(&copy);
    assert_eq!(found.keys(Bucket::Calls).len(), 3);
    let log = found.store.events_from(0, 10).unwrap();
    assert_eq!(log.iter().map(|line| number(line)).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(lines(&copy.join("cdr.jsonl")).len(), 3);
    // They are saved when someone reads them.
    assert_eq!(rig.keys(Bucket::Calls).len(), 3);
}

#[test]
fn an_expected_version_is_checked_against_what_the_database_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(dir.path(), unsaved());
    for bucket in Bucket::ALL {
        let guarded =
            |value: Option<&str>, expect| of(Urgency::Urgent, vec![write(bucket, "a", value, Some(expect))]);
        let refused = |result| assert!(matches!(result, Err(StoreFault::Conflict { .. })), "{result:?}");
        assert_eq!(rig.put(guarded(Some("1"), 0), 1), Ok(()));
        refused(rig.put(guarded(Some("x"), 0), 2));
        assert_eq!(rig.put(guarded(Some("2"), 1), 3), Ok(()));
        rig.store.flush();
        assert_eq!(rig.put(guarded(Some("3"), 2), 4), Ok(()));
        refused(rig.put(guarded(Some("x"), 2), 5));
        assert_eq!(rig.put(guarded(None, 3), 6), Ok(()));
        refused(rig.put(guarded(Some("x"), 3), 7));
        assert_eq!(rig.put(guarded(Some("4"), 0), 8), Ok(()));
        assert_eq!(rig.keys(bucket), [("a".into(), 1, "4".into())]);
    }
}

#[test]
fn a_call_that_ends_before_it_is_saved_is_not_in_the_log_of_calls_but_in_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(dir.path(), unsaved());
    for n in 0..20 {
        rig.put(call(&format!("c{n}")), n).unwrap();
        rig.put(delete(&format!("c{n}")), n).unwrap();
    }
    rig.store.flush();
    let conn = rusqlite::Connection::open(dir.path().join("tandem.db")).unwrap();
    let count = |table: &str| -> u64 {
        conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("calls"), count("cdr"), count("event_log")), (0, 20, 1));
    assert_eq!(rig.store.events_of("c7", 100).unwrap().len(), 1);
}

#[test]
fn a_database_that_was_written_without_a_journal_opens_and_has_one_from_then_on() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let rig = Rig::open(&dir);
    rig.put(call("old"), 1).unwrap();
    drop(rig);
    let conn = rusqlite::Connection::open(dir.join("tandem.db")).unwrap();
    assert_eq!(conn.execute("DELETE FROM fact WHERE name LIKE 'journal%'", []), Ok(2));
    drop(conn);
    std::fs::remove_file(dir.join("tandem.journal")).unwrap();
    let rig = Rig::with(&dir, unsaved());
    assert!(rig.store.is_healthy());
    rig.put(call("new"), 2).unwrap();
    let found = Rig::open(&crashed(&dir, "crashed"));
    assert_eq!(found.keys(Bucket::Calls).len(), 2);
    assert_eq!(number(&found.store.events_from(2, 1).unwrap()[0]), 2);
}

#[test]
fn a_journal_that_was_deleted_is_made_anew_and_nothing_is_lost() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let rig = Rig::with(&dir, unsaved());
    rig.put(call("a"), 1).unwrap();
    std::fs::remove_file(dir.join("tandem.journal")).unwrap();
    assert!(matches!(rig.put(call("b"), 2), Err(StoreFault::Backend(_))));
    rig.put_until_ok("c");
    assert!(rig.store.is_healthy());
    let found = Rig::open(&crashed(&dir, "crashed"));
    let keys: Vec<String> = found.keys(Bucket::Calls).into_iter().map(|(key, ..)| key).collect();
    assert_eq!(keys, ["a", "b", "c"]);
    assert_eq!(found.store.events_from(0, 10).unwrap().len(), 2);
}

#[test]
fn a_reader_sees_what_was_submitted_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(dir.path(), unsaved());
    let mut lazy = call("lazy");
    lazy.urgency = Urgency::Lazy;
    rig.store.submit(lazy);
    assert_eq!(rig.store.events_of("lazy", 10).unwrap().len(), 1);
    rig.put(call("urgent"), 1).unwrap();
    assert!(rig.store.cdr("urgent").unwrap().is_some());
}
