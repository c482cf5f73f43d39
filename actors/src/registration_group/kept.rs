//! What outlives an actor and the process: by which names we are registered, and until when. No password is among it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tandem_protocol::registration::{Kept, Registration, RegistrationGroup};

use super::request::Line;
use super::{CSEQ_BITS, settings_of, start_within};
use crate::checkpoint;
use crate::config::Registration as Config;
use crate::directory::{Directory, RegistrationEntry};
use crate::env::Env;
use crate::ids::ShardId;
use crate::store::{Batch, Bucket, Store, Urgency, Write};

const FORMAT: u8 = 1;
/// What stands before a group's name in the key under which its registrations are kept.
const KEY: &str = "registration_group:";
/// CSeq numbers that the process before may have used after it last wrote.
const UNWRITTEN: u32 = 100;

/// What is kept of one registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRegistration {
    /// Whom it registers where.
    account: String,
    /// As whom.
    contact: String,
    call_id: String,
    tag: String,
    token: Arc<str>,
    kept: Kept,
}

pub(super) fn account(config: &Config) -> String {
    format!("{} {}@{}", config.label, config.credentials.username, config.domain)
}

/// Hands the registration groups what the process before has left in the store.
pub fn restore(directory: &Directory, store: &dyn Store) {
    let entries = store.scan(Bucket::Meta).unwrap_or_else(|why| {
        tracing::error!(%why, "what is kept of our registrations cannot be read; they begin anew");
        Vec::new()
    });
    for entry in entries {
        let group = entry.key.strip_prefix(KEY).and_then(|name| directory.registration(name));
        let Some(group) = group else { continue };
        if let Some(kept) = checkpoint::thaw(FORMAT, &entry.value) {
            group.keep(kept);
        }
    }
}

/// Keeps where the registrations of a group stand.
pub(super) fn keep(env: &Env, entry: &RegistrationEntry, lines: &[Line], machine: &RegistrationGroup) {
    let each = machine.registrations().zip(lines).zip(&entry.config.registrations);
    let kept: Vec<KeptRegistration> = each
        .map(|((registration, line), config)| KeptRegistration {
            account: account(config),
            contact: line.contact.clone(),
            call_id: line.call_id.clone(),
            tag: line.tag.clone(),
            token: line.token.clone(),
            kept: registration.kept(),
        })
        .collect();
    let mut batch = Batch::new(Urgency::Lazy);
    let (key, value) = (format!("{KEY}{}", entry.config.name), checkpoint::freeze(FORMAT, &kept));
    batch.writes.push(Write { bucket: Bucket::Meta, key, value, expect: None });
    env.submit(batch);
    entry.keep(kept);
}

/// A registration with what is kept of it: the registrar takes a REGISTER with the same Call-ID and a higher CSeq for the same
/// registration's (RFC 3261 §10.2), and callers know its token.
pub(super) fn begin(env: &Env, entry: &RegistrationEntry, place: usize) -> Option<(Line, Registration)> {
    let config = entry.config.registrations.get(place)?;
    let settings = settings_of(env, entry, place)?;
    let all = entry.kept();
    let before = all.iter().find(|kept| kept.account == account(config));
    let base = u32::try_from(place).ok()? << CSEQ_BITS;
    let Some(before) = before else {
        return Some((Line::new(env, config, env.name().into()), Registration::new(settings, base + 1)));
    };
    let mut line = Line::new(env, config, before.token.clone());
    let mut kept = before.kept.clone();
    if line.contact != before.contact {
        // We are elsewhere now: what was registered leads to nobody.
        kept.granted = None;
    }
    let ours = env.shared().names.shard_of(before.call_id.as_bytes());
    let leads_here = ours == Some(env.shard()) && env.shard() < ShardId(env.directory().shards());
    if leads_here && kept.cseq >> CSEQ_BITS == base >> CSEQ_BITS {
        (line.call_id, line.tag) = (before.call_id.clone(), before.tag.clone());
        kept.cseq = kept.cseq.saturating_add(UNWRITTEN);
    } else {
        kept.cseq = base;
    }
    let resumed = Registration::resume(settings, &kept, env.now(), env.random());
    if !env.config().listener_id(config.listener).transport().is_reliable() {
        return Some((line, resumed));
    }
    // The connections of the process before are gone, and with them perhaps the registrar's way to us.
    Some((line, resumed.renewed_within(start_within(env), env.now(), env.random())))
}

#[cfg(test)]
mod tests {
    use tandem_protocol::registration::{Granted, Place};
    use tandem_protocol::time::UnixMillis;

    use super::*;
    use crate::checkpoint::golden::Golden;

    /// A registration that holds, and one that nobody has granted.
    fn sample() -> Vec<KeptRegistration> {
        let granted = Granted {
            since: UnixMillis(1_800_000_000_000),
            until: UnixMillis(1_800_000_600_000),
            refresh_at: UnixMillis(1_800_000_500_000),
            service_route: vec!["<sip:edge;lr>".to_owned()],
            at: Place { to: ([192, 0, 2, 1], 5060).into(), uri: Some("sip:other.example".to_owned()) },
        };
        let kept = |account: &str, kept| KeptRegistration {
            account: account.to_owned(),
            contact: "<sip:token@10.0.0.9>".to_owned(),
            call_id: "one".to_owned(),
            tag: "tag".to_owned(),
            token: "token".into(),
            kept,
        };
        let base = 1 << CSEQ_BITS;
        vec![
            kept("a office@example", Kept { cseq: 300, granted: Some(granted) }),
            kept("b office@example", Kept { cseq: base, granted: None }),
        ]
    }

    #[test]
    fn what_is_kept_of_registrations_is_restored_from_every_golden_checkpoint() {
        let kept = Golden {
            kind: "kept_registrations",
            freeze: |kept: &Vec<KeptRegistration>| checkpoint::freeze(FORMAT, kept),
            thaw: |frozen| checkpoint::thaw(FORMAT, frozen),
            holds: |restored| assert_eq!(restored, sample()),
        };
        kept.check(&sample());
    }
}
