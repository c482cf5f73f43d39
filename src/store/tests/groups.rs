//! Group commit: what shares a group, what is told, what a conflict refuses.

use tandem_actors::seat::Seat;

use super::*;

/// Nothing is committed before it is flushed.
fn unhurried() -> Options {
    let long = Duration::from_secs(3600);
    Options { urgent: long, lazy: long, ..Options::default() }
}

#[test]
fn every_entry_of_a_bucket_is_read_back_by_key_with_its_version() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    for bucket in Bucket::ALL {
        for (token, key) in ["b", "a"].into_iter().enumerate() {
            let batch = of(Urgency::Urgent, vec![write(bucket, key, Some(bucket.name()), None)]);
            assert_eq!(rig.put(batch, token as u64), Ok(()));
        }
        let batch = of(Urgency::Urgent, vec![write(bucket, "a", Some("2"), None)]);
        assert_eq!(rig.put(batch, 9), Ok(()));
        assert_eq!(
            rig.keys(bucket),
            [("a".into(), 2, "2".into()), ("b".into(), 1, bucket.name().to_owned())]
        );
    }
}

#[test]
fn an_urgent_batch_takes_lazy_ones_along() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(dir.path(), Options { lazy: Duration::from_secs(3600), ..Options::default() });
    let lazy = of(Urgency::Lazy, vec![write(Bucket::Calls, "lazy", Some("1"), None)]);
    rig.store.submit(ticketed(lazy, 1));
    rig.store.submit(ticketed(put("urgent", "1"), 2));
    assert_eq!([rig.next(), rig.next()], [(1, Ok(())), (2, Ok(()))]);
    assert_eq!(rig.counted.groups(), 1);
}

#[test]
fn a_lazy_batch_is_committed_without_an_urgent_one() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(dir.path(), Options { urgent: Duration::from_secs(3600), ..Options::default() });
    let lazy = of(Urgency::Lazy, vec![write(Bucket::Calls, "lazy", Some("1"), None)]);
    assert_eq!(rig.put(lazy, 1), Ok(()));
}

#[test]
fn writes_of_one_key_share_a_group_and_every_ticket_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(dir.path(), unhurried());
    for token in 0..100 {
        rig.store.submit(ticketed(put("a", &token.to_string()), token));
    }
    rig.store.submit(ticketed(put("gone", "1"), 100));
    rig.store.submit(ticketed(delete("gone"), 101));
    rig.store.flush();
    for token in 0..102 {
        assert_eq!(rig.next(), (token, Ok(())));
    }
    assert_eq!(rig.keys(Bucket::Calls), [("a".into(), 100, "99".into())]);
    assert_eq!(rig.counted.groups(), 1);
}

#[test]
fn a_conflict_refuses_its_own_batch_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(dir.path(), unhurried());
    let guarded = |key: &str, value: &str, expect| {
        of(Urgency::Urgent, vec![write(Bucket::Bindings, key, Some(value), Some(expect))])
    };
    let mut loser = guarded("a", "second", 0);
    loser.writes.push(write(Bucket::Bindings, "b", Some("second"), None));
    loser.events.push(event("c", "lost"));
    loser.cdrs.push(Cdr { call_id: "c".into(), ..Cdr::default() });
    rig.store.submit(ticketed(guarded("a", "first", 0), 1));
    rig.store.submit(ticketed(loser, 2));
    rig.store.submit(ticketed(guarded("a", "third", 1), 3));
    rig.store.flush();
    let conflict = StoreFault::Conflict { bucket: "bindings", key: "a".into() };
    assert_eq!([rig.next(), rig.next(), rig.next()], [(1, Ok(())), (2, Err(conflict)), (3, Ok(()))]);
    assert_eq!(rig.keys(Bucket::Bindings), [("a".into(), 2, "third".into())]);
    assert_eq!(rig.store.events_from(0, 10), Ok(vec![]));
    assert_eq!(rig.store.cdr("c"), Ok(None));
    assert_eq!(rig.counted.dropped(Dropped::Conflict), 1);
}

#[test]
fn an_expected_version_is_checked_against_earlier_groups_and_earlier_runs() {
    let dir = tempfile::tempdir().unwrap();
    let guarded = |bucket, expect| of(Urgency::Urgent, vec![write(bucket, "a", Some("x"), Some(expect))]);
    for bucket in Bucket::ALL {
        let rig = Rig::open(dir.path());
        assert_eq!(rig.put(guarded(bucket, 0), 1), Ok(()));
        assert_eq!(rig.put(guarded(bucket, 1), 2), Ok(()));
        drop(rig);
        let rig = Rig::open(dir.path());
        assert!(matches!(rig.put(guarded(bucket, 1), 3), Err(StoreFault::Conflict { .. })));
        assert_eq!(rig.put(guarded(bucket, 2), 4), Ok(()));
        let gone = of(Urgency::Urgent, vec![write(bucket, "a", None, Some(3))]);
        assert_eq!(rig.put(gone, 5), Ok(()));
        assert_eq!(rig.put(guarded(bucket, 0), 6), Ok(()));
    }
}

#[test]
fn an_overfull_queue_refuses_lazy_batches_before_urgent_ones() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(dir.path(), Options { queue_bytes: 4096, ..unhurried() });
    let lazy = of(Urgency::Lazy, vec![write(Bucket::Calls, "a", Some(&"x".repeat(3072)), None)]);
    rig.store.submit(ticketed(lazy.clone(), 1));
    rig.store.submit(ticketed(put("b", "fits"), 2));
    rig.store.submit(ticketed(put("c", &"x".repeat(8192)), 3));
    rig.store.flush();
    let told = [rig.next(), rig.next(), rig.next()];
    assert!(told.contains(&(1, Err(StoreFault::Overflow))));
    assert!(told.contains(&(2, Ok(()))));
    assert!(told.contains(&(3, Err(StoreFault::Overflow))));
    assert_eq!(rig.counted.dropped(Dropped::OverflowLazy), 1);
    assert_eq!(rig.counted.dropped(Dropped::OverflowUrgent), 1);
    // What was held is given back.
    for token in 4..40 {
        rig.store.submit(ticketed(put("d", &"x".repeat(2048)), token));
        rig.store.flush();
        assert_eq!(rig.next(), (token, Ok(())));
    }
}

#[test]
fn the_last_owner_may_let_go_while_it_is_told() {
    struct Owner(Mutex<Option<Embedded>>, Mutex<Sender<()>>);
    impl Completions for Owner {
        fn committed(&self, _: Vec<(Ticket, Result<(), StoreFault>)>) {
            drop(self.0.lock().unwrap().take());
            self.1.lock().unwrap().send(()).unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (sender, told) = channel();
    let owner = Arc::new(Owner(Mutex::new(None), Mutex::new(sender)));
    let store = Embedded::open(dir.path(), unhurried(), owner.clone(), Box::new(())).unwrap();
    store.submit(ticketed(put("a", "1"), 1));
    let shared = store.shared.clone();
    *owner.0.lock().unwrap() = Some(store);
    shared.queue.flush();
    told.recv_timeout(BOUND).unwrap();
}

#[test]
fn a_panic_of_whoever_is_told_does_not_stop_the_store() {
    struct Panics(AtomicU64, Mutex<Sender<u64>>);
    impl Completions for Panics {
        fn committed(&self, done: Vec<(Ticket, Result<(), StoreFault>)>) {
            assert!(self.0.fetch_add(1, Ordering::Relaxed) > 0, "the first report");
            self.1.lock().unwrap().send(done[0].0.token).unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (sender, told) = channel();
    let panics = Arc::new(Panics(AtomicU64::new(0), Mutex::new(sender)));
    let store = Embedded::open(dir.path(), unhurried(), panics, Box::new(())).unwrap();
    store.submit(ticketed(put("a", "1"), 1));
    store.flush();
    store.submit(ticketed(put("a", "2"), 2));
    store.flush();
    assert_eq!(told.recv_timeout(BOUND), Ok(2));
}

#[test]
fn what_a_fenced_shard_submits_is_refused_and_what_it_has_submitted_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(dir.path(), unhurried());
    let seat = Seat::default();
    rig.store.submit_from(put("before", "1"), &seat);
    seat.fence();
    rig.store.submit_from(put("after", "1"), &seat);
    rig.store.submit_from(put("next", "1"), &seat.next());
    rig.store.flush();
    let keys: Vec<String> = rig.keys(Bucket::Calls).into_iter().map(|(key, ..)| key).collect();
    assert_eq!(keys, ["before", "next"]);
}
