//! What was found last, kept in the store: after a start without any DNS server it is better than nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tandem_protocol::dns::{Located, Server, Target, Trouble};
use tandem_protocol::time::UnixMillis;

use crate::checkpoint;
use crate::store::{Batch, Bucket, Store, Urgency, Write};

const FORMAT: u8 = 1;
/// The key under which it is kept.
const KEY: &str = "dns";
/// What has not changed is written again after this, so that its age is known.
const REWRITE: Duration = Duration::from_secs(3600);

/// The servers of a target when a DNS server last named them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    servers: Vec<Server>,
    at: UnixMillis,
}

/// The last good answer for each target.
#[derive(Debug, Default)]
pub(super) struct Kept {
    known: BTreeMap<Target, Known>,
    /// Whether the store has something else.
    changed: bool,
    written: UnixMillis,
}

impl Kept {
    /// What the store has of these targets.
    pub(super) fn load(store: &dyn Store, wanted: impl Fn(&Target) -> bool) -> Kept {
        let entries = store.scan(Bucket::Meta).unwrap_or_default();
        let stored = entries.iter().find(|entry| entry.key == KEY);
        let known: Option<BTreeMap<Target, Known>> =
            stored.and_then(|entry| checkpoint::thaw(FORMAT, &entry.value));
        let mut known = known.unwrap_or_default();
        known.retain(|target, _| wanted(target));
        Kept { known, changed: false, written: UnixMillis(0) }
    }

    /// Every target with something that is not too old.
    pub(super) fn usable(
        &self,
        now: UnixMillis,
        max_stale: Duration,
    ) -> impl Iterator<Item = (&Target, &[Server])> {
        let young = move |known: &Known| u128::from(now.0.saturating_sub(known.at.0)) < max_stale.as_millis();
        self.known.iter().filter(move |(_, k)| young(k)).map(|(target, k)| (target, k.servers.as_slice()))
    }

    /// Takes what was found; if that is nothing because no server answers, gives back what was known before.
    pub(super) fn take(
        &mut self,
        target: &Target,
        located: &mut Located,
        now: UnixMillis,
        max_stale: Duration,
    ) {
        match located.trouble() {
            None => {
                let before = self.known.get(target).map(|known| &known.servers);
                self.changed |= before != Some(&located.servers);
                self.known.insert(target.clone(), Known { servers: located.servers.clone(), at: now });
            }
            Some(Trouble::Absent | Trouble::NotOffered) => {
                self.changed |= self.known.remove(target).is_some()
            }
            Some(Trouble::Unreachable) if located.servers.is_empty() => {
                let mut usable = self.usable(now, max_stale);
                if let Some((_, servers)) = usable.find(|(known, _)| *known == target)
                    && let Some(because) = &mut located.because
                {
                    located.servers = servers.to_vec();
                    because.trouble = Trouble::Stale;
                }
            }
            Some(Trouble::Unreachable | Trouble::Stale) => {}
        }
    }

    /// What is to be written now, if anything is.
    pub(super) fn batch(&mut self, now: UnixMillis) -> Option<Batch> {
        let old = u128::from(now.0.saturating_sub(self.written.0)) >= REWRITE.as_millis();
        if !self.changed && (!old || self.known.is_empty()) {
            return None;
        }
        (self.changed, self.written) = (false, now);
        let mut batch = Batch::new(Urgency::Lazy);
        let value = checkpoint::freeze(FORMAT, &self.known);
        batch.writes.push(Write { bucket: Bucket::Meta, key: KEY.to_owned(), value, expect: None });
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tandem_protocol::dns::{Because, Family, Query, RecordType};
    use tandem_protocol::flow::Transport;
    use tandem_protocol::time::Instant;

    use super::*;
    use crate::checkpoint::golden::Golden;

    const DAY: Duration = Duration::from_secs(86_400);

    fn target() -> Target {
        Target::new("example.net", None, Transport::Udp, Family::V4)
    }

    fn found(port: u16) -> Located {
        let addresses = vec![SocketAddr::from(([192, 0, 2, 1], port))];
        let name = "a.example.net".into();
        let server = Server { name, priority: 1, weight: 0, transport: Transport::Udp, addresses };
        Located { servers: vec![server], because: None, until: Instant(0) }
    }

    fn nothing(trouble: Trouble) -> Located {
        let query = Query::new("example.net", RecordType::A);
        let because = Some(Because { trouble, query, why: "x".to_owned() });
        Located { servers: Vec::new(), because, until: Instant(0) }
    }

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis(seconds * 1000)
    }

    #[test]
    fn what_was_found_stands_in_for_what_cannot_be_found_until_it_is_too_old() {
        let mut kept = Kept::default();
        kept.take(&target(), &mut found(1), at(0), DAY);
        let mut located = nothing(Trouble::Unreachable);
        kept.take(&target(), &mut located, at(86_399), DAY);
        assert_eq!((&located.servers, located.trouble()), (&found(1).servers, Some(Trouble::Stale)));
        let mut located = nothing(Trouble::Unreachable);
        kept.take(&target(), &mut located, at(86_400), DAY);
        assert_eq!(located, nothing(Trouble::Unreachable));
    }

    #[test]
    fn what_is_known_not_to_be_there_is_not_kept() {
        let mut kept = Kept::default();
        kept.take(&target(), &mut found(1), at(0), DAY);
        kept.take(&target(), &mut nothing(Trouble::Absent), at(1), DAY);
        let mut located = nothing(Trouble::Unreachable);
        kept.take(&target(), &mut located, at(2), DAY);
        assert_eq!(located, nothing(Trouble::Unreachable));
    }

    #[test]
    fn only_a_change_is_written_and_once_an_hour_what_has_not_changed() {
        let mut kept = Kept::default();
        assert!(kept.batch(at(10_000)).is_none(), "nothing");
        kept.take(&target(), &mut found(1), at(10_000), DAY);
        assert!(kept.batch(at(10_000)).is_some());
        kept.take(&target(), &mut found(1), at(10_060), DAY);
        assert!(kept.batch(at(10_060)).is_none(), "the same");
        kept.take(&target(), &mut found(2), at(10_120), DAY);
        assert!(kept.batch(at(10_120)).is_some());
        assert!(kept.batch(at(13_719)).is_none());
        assert!(kept.batch(at(13_720)).is_some());
    }

    fn sample() -> BTreeMap<Target, Known> {
        let secure = Target::new("sips.example", Some(5071), Transport::Tls, Family::V6);
        let known = |port| Known { servers: found(port).servers, at: at(1_800_000_000) };
        BTreeMap::from([(target(), known(5060)), (secure, known(5071))])
    }

    #[test]
    fn what_was_found_is_restored_from_every_golden_checkpoint() {
        let kept = Golden {
            kind: "dns",
            freeze: |known: &BTreeMap<Target, Known>| checkpoint::freeze(FORMAT, known),
            thaw: |frozen| checkpoint::thaw(FORMAT, frozen),
            holds: |restored| assert_eq!(restored, sample()),
        };
        kept.check(&sample());
    }
}
