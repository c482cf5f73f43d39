//! Events and CDRs: their numbers, their lines, their bounds.

use super::*;

fn numbers(lines: &[String]) -> Vec<u64> {
    lines.iter().map(|line| number(line)).collect()
}

#[test]
fn events_are_numbered_without_a_gap_across_groups_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    for run in 0..3 {
        let rig = Rig::open(dir.path());
        for group in 0..5 {
            assert_eq!(rig.put(events(vec![event("c", "x"); 1 + group]), group as u64), Ok(()));
        }
        let all = rig.store.events_from(0, usize::MAX).unwrap();
        assert_eq!(numbers(&all), (1..=15 * (run + 1)).collect::<Vec<u64>>());
    }
}

#[test]
fn events_are_read_from_within_a_group_and_no_more_than_asked() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    for token in 0..4 {
        rig.put(events(vec![event("c", "x"); 5]), token).unwrap();
    }
    assert_eq!(numbers(&rig.store.events_from(4, 8).unwrap()), (4..12).collect::<Vec<u64>>());
    assert_eq!(numbers(&rig.store.events_from(20, 8).unwrap()), [20]);
    assert_eq!(rig.store.events_from(21, 8), Ok(vec![]));
    assert_eq!(rig.store.events_from(u64::MAX, 8), Ok(vec![]));
    assert_eq!(rig.store.events_from(1, 0), Ok(vec![]));
}

#[test]
fn the_events_of_a_call_are_found_by_its_own_id_alone() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let mut other = event("b", "\",\"call_id\":\"a\",\"type\":");
    other = other.with("call_id", "a").with("type", "x");
    let engine = Event::new(UnixMillis(0), EventKind::TrunkState, "x").with("call_id", "a");
    rig.put(events(vec![event("a", "first"), other.clone(), engine]), 1).unwrap();
    rig.put(events(vec![other]), 2).unwrap();
    rig.put(events(vec![event("a", "second"), event("ab", "x"), event("a", "third")]), 3).unwrap();
    assert_eq!(numbers(&rig.store.events_of("a", 100).unwrap()), [1, 5, 7]);
    assert_eq!(numbers(&rig.store.events_of("a", 3).unwrap()), [5, 7]);
    assert_eq!(numbers(&rig.store.events_of("a", 2).unwrap()), [7]);
    assert_eq!(rig.store.events_of("a", 0), Ok(vec![]));
    assert_eq!(rig.store.events_of("none", 100), Ok(vec![]));
}

#[test]
fn old_events_go_and_the_newest_stay() {
    let dir = tempfile::tempdir().unwrap();
    for options in [
        Options { keep_events: 100, ..Options::default() },
        Options { keep_event_bytes: 100 * 120, ..Options::default() },
    ] {
        let rig = Rig::with(dir.path(), options);
        let before = rig.store.events_from(0, usize::MAX).unwrap().last().map_or(0, |line| number(line));
        for token in 0..200 {
            rig.put(events(vec![event("c", "x"); 5]), token).unwrap();
        }
        let kept = numbers(&rig.store.events_from(0, usize::MAX).unwrap());
        assert_eq!(kept.last(), Some(&(before + 1000)));
        assert!((80..=250).contains(&kept.len()), "{} are kept", kept.len());
        assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1));
    }
}

#[test]
fn a_call_has_one_record_for_each_segment() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    for (token, segment) in [1, 2, 1, 2].into_iter().enumerate() {
        assert_eq!(rig.put(record("c", segment), token as u64), Ok(()));
    }
    let mut twice = record("d", 1);
    twice.cdrs.push(twice.cdrs[0].clone());
    assert_eq!(rig.put(twice, 9), Ok(()));
    rig.store.flush();
    assert_eq!(rig.counted.dropped(Dropped::RepeatedCdr), 3);
    let newest = rig.store.cdr("c").unwrap().unwrap();
    assert!(newest.contains("\"segment\":2"), "{newest}");
    assert_eq!(rig.store.cdr("none"), Ok(None));
    let filed = lines(&dir.path().join("cdr.jsonl"));
    assert_eq!(filed.len(), 3);
    assert_eq!(filed[1], newest);
}

#[test]
fn a_record_is_found_and_not_repeated_once_it_is_indexed_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for run in 0..2 {
        // So few that the index of the database gets them soon.
        let rig = Rig::with(dir.path(), Options { keep_cdrs: 4000, ..Options::default() });
        for n in 0..2600 {
            rig.store.submit(record(&format!("c{n}"), 1));
            if n % 200 == 0 {
                rig.store.flush();
            }
        }
        rig.store.flush();
        assert_eq!(rig.counted.dropped(Dropped::RepeatedCdr), run * 2600);
        for n in [0, 1023, 1024, 2599] {
            assert!(rig.store.cdr(&format!("c{n}")).unwrap().is_some(), "c{n}");
        }
    }
    assert_eq!(lines(&dir.path().join("cdr.jsonl")).len(), 2600);
}

#[test]
fn old_records_leave_the_database_but_not_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(dir.path(), Options { keep_cdrs: 20, ..Options::default() });
    for n in 0..6000 {
        rig.store.submit(record(&format!("c{n}"), 1));
        if n % 500 == 0 {
            rig.store.flush();
        }
    }
    rig.store.flush();
    assert_eq!(rig.store.cdr("c0"), Ok(None));
    assert_eq!(rig.store.cdr("c2000"), Ok(None));
    assert!(rig.store.cdr("c5999").unwrap().is_some());
    assert_eq!(lines(&dir.path().join("cdr.jsonl")).len(), 6000);
}

#[test]
fn the_file_of_records_is_rotated_by_size_and_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { cdr_file_bytes: 1000, cdr_files: 2, ..Options::default() };
    let rig = Rig::with(dir.path(), options);
    for n in 0..40 {
        rig.put(record(&format!("c{n}"), 1), n).unwrap();
    }
    rig.store.flush();
    let mut kept = Vec::new();
    for name in ["cdr.jsonl.2", "cdr.jsonl.1", "cdr.jsonl"] {
        let path = dir.path().join(name);
        assert!(std::fs::metadata(&path).unwrap().len() <= 1000);
        kept.extend(lines(&path));
    }
    assert!(!dir.path().join("cdr.jsonl.3").exists());
    let newest: Vec<String> = (0..40).map(|n| rig.store.cdr(&format!("c{n}")).unwrap().unwrap()).collect();
    assert_eq!(kept, newest[40 - kept.len()..]);
}

#[test]
fn after_a_crash_the_file_gets_the_records_it_lacks_and_loses_a_torn_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cdr.jsonl");
    let rig = Rig::open(dir.path());
    for n in 0..10 {
        let mut batch = record(&format!("c{n}"), 1);
        batch.events.push(event("c", "x"));
        rig.put(batch, n).unwrap();
    }
    drop(rig);
    let whole = lines(&path);
    // What the log knows to be filed is one group older than the newest; of that group only a part of a line was written.
    let torn = format!("{}\n{}", whole[..9].join("\n"), &whole[9][..20]);
    std::fs::write(&path, torn).unwrap();
    let rig = Rig::open(dir.path());
    rig.store.flush();
    assert_eq!(lines(&path), whole);
    drop(rig);
    Rig::open(dir.path()).store.flush();
    assert_eq!(lines(&path), whole);
}

#[test]
fn a_file_that_was_taken_away_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cdr.jsonl");
    let rig = Rig::open(dir.path());
    rig.put(record("a", 1), 1).unwrap();
    rig.store.flush();
    std::fs::rename(&path, dir.path().join("taken")).unwrap();
    rig.put(record("b", 1), 2).unwrap();
    rig.store.flush();
    assert_eq!(lines(&path).len(), 1);
    assert!(lines(&path)[0].contains("\"b\""));
}
