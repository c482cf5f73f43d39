//! Telling of a sudden rise of calls to the outside, and keeping what is usual over a restart.

use std::time::Duration;

use tandem_protocol::time::{Now, UnixMillis};
use tandem_protocol::toll_fraud::{Change, Past, Thresholds};

use crate::checkpoint;
use crate::directory::{Directory, Watched, Who};
use crate::env::Env;
use crate::events::{Event, EventKind};
use crate::store::{Batch, Bucket, Store, Urgency, Write};

const FORMAT: u8 = 1;
/// What stands before kind and name in the key under which what is usual is kept.
const KEY: &str = "toll:";

/// From when on a rise of this one's calls is sudden.
pub(crate) fn limits<'a>(env: &'a Env, who: &Who) -> &'a Thresholds {
    match who {
        Who::Station(_) => &env.config().toll_fraud.stations,
        Who::Trunk(_) => &env.config().toll_fraud.trunks,
    }
}

/// Logs and counts what has changed; the events are the caller's to write.
pub(crate) fn tell(env: &Env, who: &Who, changes: &[Change], now: Now) -> Vec<Event> {
    changes.iter().map(|change| tell_one(env, who, change, now)).collect()
}

fn tell_one(env: &Env, who: &Who, change: &Change, now: Now) -> Event {
    let Change { measure, sudden, count, usual, limit } = *change;
    let (kind, name, what) = (who.kind(), who.name(), measure.words());
    let of_a_trunk = matches!(who, Who::Trunk(_));
    let reason = if sudden {
        let blocked = env.config().toll_fraud.block && !of_a_trunk;
        let done = if blocked { "it gets no more of them until that is over" } else { "its calls go on" };
        env.metrics().toll.raised(of_a_trunk, measure);
        // `config/fail2ban` has nothing to do with it: who steals calls has a password.
        tracing::warn!(
            target: "tandem::security",
            who = %format_args!("{kind}:{name}"), measure = measure.as_str(), count, usual, limit,
            "suddenly so many {what} within an hour: {done}. Look at its calls (`tandem calls`, cdr.jsonl, `tandem why`). If they are \
             nobody's, change its password and set `international = false` or max_new_calls_per_min, then `tandem reload`; \
             calls that are up end by `tandem call ID --hangup`. If all is well, `tandem clear-alarm {kind}:{name}`"
        );
        format!("suddenly {count} {what} within an hour, usually {usual}: {done}")
    } else {
        env.metrics().toll.ended(of_a_trunk);
        tracing::info!(
            who = %format_args!("{kind}:{name}"), measure = measure.as_str(), count, limit,
            "no longer suspiciously many {what} within an hour"
        );
        format!("no longer suspiciously many {what}: {count} within an hour")
    };
    let event = Event::new(now.wall, EventKind::TollAlarm, reason).with(who.kind(), name.to_string());
    event.with("measure", measure.as_str()).with("count", i64::from(count)).with("limit", i64::from(limit))
}

/// One that no settings know any more is watched no longer: its alarms end.
pub(crate) fn forget(env: &Env, watched: &Watched) {
    for _ in watched.sudden() {
        env.metrics().toll.ended(matches!(watched.who, Who::Trunk(_)));
    }
    let mut batch = Batch::new(Urgency::Lazy);
    batch.writes.push(Write { bucket: Bucket::Meta, key: key(&watched.who), value: None, expect: None });
    env.submit(batch);
}

fn key(who: &Who) -> String {
    format!("{KEY}{}:{}", who.kind(), who.name())
}

/// Keeps what is usual for this one.
pub(crate) fn keep(who: &Who, past: Past, now: Now) -> Option<Write> {
    let value = checkpoint::freeze(FORMAT, &(past, now.wall))?;
    Some(Write { bucket: Bucket::Meta, key: key(who), value: Some(value), expect: None })
}

/// Hands stations and trunks what was usual for them in the process before.
pub fn restore(directory: &Directory, store: &dyn Store, now: Now) {
    let entries = store.scan(Bucket::Meta).unwrap_or_else(|why| {
        tracing::error!(%why, "which calls are usual cannot be read; it is learned anew");
        Vec::new()
    });
    for entry in entries {
        let Some((kind, name)) = entry.key.strip_prefix(KEY).and_then(|who| who.split_once(':')) else {
            continue;
        };
        let toll = match kind {
            "station" => directory.station(name).map(|station| station.toll()),
            "trunk" => directory.trunk(name).map(|trunk| &*trunk.toll),
            _ => None,
        };
        if toll.is_none() {
            // Nobody will ever ask for it.
            let mut batch = Batch::new(Urgency::Lazy);
            batch.writes.push(Write { bucket: Bucket::Meta, key: entry.key, value: None, expect: None });
            store.submit(batch);
            continue;
        }
        if let Some((toll, (past, at))) =
            toll.zip(checkpoint::thaw::<(Past, UnixMillis)>(FORMAT, &entry.value))
        {
            toll.remember(past.faded(Duration::from_millis(now.wall.0.saturating_sub(at.0))));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use tandem_protocol::digest::{NonceSigner, NonceWindows};
    use tandem_protocol::sdp::negotiate::CodecList;
    use tandem_protocol::time::Instant;

    use super::*;
    use crate::config::{MediaPath, Redirect, Station, StationRules};
    use crate::directory::Step;
    use crate::media_pool::tests::fixture;
    use crate::store::{Entry, StoreFault};

    /// A store in memory.
    #[derive(Default)]
    struct Kept(Mutex<BTreeMap<String, Bytes>>);

    impl Store for Kept {
        fn submit(&self, batch: Batch) {
            let mut kept = self.0.lock().unwrap();
            for write in batch.writes {
                match write.value {
                    Some(value) => kept.insert(write.key, value),
                    None => kept.remove(&write.key),
                };
            }
        }
        fn scan(&self, _: Bucket) -> Result<Vec<Entry>, StoreFault> {
            let kept = self.0.lock().unwrap();
            Ok(kept.iter().map(|(k, v)| Entry { key: k.clone(), version: 1, value: v.clone() }).collect())
        }
        fn events_from(&self, _: u64, _: usize) -> Result<Vec<String>, StoreFault> {
            Ok(Vec::new())
        }
        fn events_of(&self, _: &str, _: u64) -> Result<Vec<String>, StoreFault> {
            Ok(Vec::new())
        }
        fn cdr(&self, _: &str) -> Result<Option<String>, StoreFault> {
            Ok(None)
        }
        fn flush(&self) {}
    }

    fn station(name: &str) -> Station {
        Station {
            name: name.into(),
            extension: name.into(),
            secret: None,
            connection: None,
            rules: Arc::new(StationRules {
                calling_search_space: None,
                media: MediaPath::Anchored,
                codecs: CodecList::ANY,
                record: false,
                redirect: Redirect::Follow,
                ring_timeout: Duration::from_secs(60),
                fork_timeout: Duration::ZERO,
                identify_by_user_only: false,
                outbound_ani: None,
                external_number_mask: None,
                max_contacts: 1,
                max_calls: 0,
                toll: Default::default(),
            }),
        }
    }

    fn directory() -> Directory {
        let shared = fixture::shared(&Arc::default(), IpAddr::V4(Ipv4Addr::LOCALHOST), (20_000, 20_003));
        let mut config = fixture::config(IpAddr::V4(Ipv4Addr::LOCALHOST), (20_000, 20_003));
        config.stations.push(station("1001"));
        let nonces = NonceSigner::new([7; 32], UnixMillis(0));
        let windows = NonceWindows::new(8, Duration::from_secs(300));
        Directory::new(&config, &shared.metrics, nonces, windows)
    }

    #[test]
    fn what_is_usual_outlives_the_process_and_fades_while_it_is_down() {
        let (store, hour) = (Kept::default(), 3_600_000);
        let at = |ms: u64| Now { mono: Instant(ms * 1000), wall: UnixMillis(ms) };
        let of = |name: &str| Who::Station(name.into());
        let mut batch = Batch::new(Urgency::Lazy);
        batch.writes.extend(keep(&of("1001"), Past([80.0, 0.0, 0.0, 0.0]), at(0)));
        batch.writes.extend(keep(&of("gone"), Past([80.0, 0.0, 0.0, 0.0]), at(0)));
        batch.writes.push(Write {
            bucket: Bucket::Meta,
            key: "placement_key".to_owned(),
            value: Some(Bytes::from_static(b"k")),
            expect: None,
        });
        store.submit(batch);
        let directory = directory();
        restore(&directory, &store, at(7 * 24 * hour));
        let toll = directory.station("1001").unwrap().toll();
        let (watched, first) = toll.watch(|| of("1001"), Instant(0));
        assert!(first);
        assert_eq!(watched.past().0[0].round(), 40.0);
        let limits = Thresholds { factor: 4, least: [10, 0, 0, 0] };
        let told = (0..161).map(|_| watched.count(Step::Begun, false, Instant(1), &limits).len());
        assert_eq!(told.sum::<usize>(), 1, "four times what is usual, and one call more");
        assert!(
            toll.is_sudden(false)
                && !directory.station("1001").unwrap().toll().watch(|| of(""), Instant(0)).1
        );
        let keys: Vec<String> = store.0.lock().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["placement_key", "toll:station:1001"], "of stations that are gone nothing is kept");
    }
}
