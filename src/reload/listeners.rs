//! Listeners that a reload opens and closes.
//!
//! Their sockets are bound before anything else is changed, for that may fail. They are read once every shard can send by them. What is
//! set no longer goes on for the calls that it has, and is closed when the last of them has ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tandem_actors::config::{EngineConfig, Listener};
use tandem_actors::engine::Engine;
use tandem_actors::generation::Generation;
use tandem_actors::runtime::{self, ListenSocket};
use tandem_actors::sip::listening::Listening;
use tandem_protocol::flow::ListenerId;

use super::ReloadError;
use super::keep::same_place;
use crate::settings::{KeyChange, Settings};
use crate::wiring;

/// How often it is looked whether anything still uses a listener.
const PACE: Duration = Duration::from_millis(250);
/// Whoever has missed our last answer asks for it again within so many T1 (RFC 3261 §17.1.2.2).
const LINGER_T1: u32 = 8;

/// The listeners of settings that are to come into force.
pub(super) struct Bound {
    /// Where each listens, in the order of the settings.
    pub(super) addresses: Vec<SocketAddr>,
    /// Sockets that nobody has yet, by the place of their listener.
    fresh: Vec<(usize, Vec<ListenSocket>)>,
}

/// Binds what `next` has and what runs has not.
///
/// # Errors
/// [`ReloadError::Listen`]: nothing is left bound then.
pub(super) fn bind(
    (running, current): (&Settings, &Generation),
    next: &Settings,
    listening: &Listening,
    file: &str,
) -> Result<Bound, ReloadError> {
    let mut bound = Bound { addresses: Vec::new(), fresh: Vec::new() };
    for (place, listen) in next.listen.iter().enumerate() {
        let stays = running.listen.iter().any(|old| same_place(old, listen));
        let known = current.config.listeners.iter().find(|l| stays && l.name == listen.name);
        if let Some(known) = known {
            bound.addresses.push(known.address);
            continue;
        }
        let (transport, address) = (wiring::transport(listen.transport), listen.address.0);
        if listening.has(ListenerId::new(transport, address)) {
            bound.addresses.push(address);
            continue;
        }
        let shards = current.directory.shards();
        let (address, sockets) =
            runtime::bind(transport, address, shards).map_err(|why| ReloadError::Listen {
                file: file.to_owned(),
                name: listen.name.clone(),
                transport: listen.transport,
                address,
                why,
            })?;
        bound.addresses.push(address);
        bound.fresh.push((place, sockets));
    }
    Ok(bound)
}

impl Bound {
    /// Hands over the sockets. From then on shards take them.
    pub(super) fn hand_over(self, config: &EngineConfig, listening: &Listening) -> bool {
        let any = !self.fresh.is_empty();
        for (place, sockets) in self.fresh {
            if let Some(listener) = config.listeners.get(place) {
                tracing::info!(listener = listener.name, transport = listener.transport.as_str(), address = %listener.address, "a listener is opened");
                listening.add(listener, sockets);
            }
        }
        any
    }
}

/// What a configuration shares with what runs: who uses the listeners, their certificates, and the sockets of media, which only a
/// restart can change. What differs of the last.
pub(super) fn share(
    config: &mut EngineConfig,
    current: &Generation,
    listening: &Listening,
) -> Vec<KeyChange> {
    for next in &mut config.listeners.0 {
        if let Some(uses) = listening.uses(next.id) {
            next.uses = uses;
        }
        // Certificates have been read, so they are right; connections go on with those who read them again later.
        if let Some(running) =
            current.config.listeners.iter().find(|l| l.id == next.id && l.name == next.name)
        {
            next.tls.clone_from(&running.tls);
        }
    }
    let (wanted, running) = (&mut config.media, &current.config.media);
    let bound = |media: &tandem_actors::config::Media| -> Vec<String> {
        media.addresses().map(|address| address.bound.to_string()).collect()
    };
    let (from, to) = (bound(running).join(", "), bound(wanted).join(", "));
    (wanted.address, wanted.other) = (running.address, running.other);
    if from == to {
        return Vec::new();
    }
    vec![KeyChange { key: "media addresses, which follow the listeners".to_owned(), from, to }]
}

/// Every shard has taken over the settings: what has come is heard, and what has gone takes nothing new.
pub(super) fn settle(engine: &Engine, listening: &Arc<Listening>, opened: bool) {
    let retired = listening.settle(&engine.shared().current().config.listeners);
    if opened || !retired.is_empty() {
        engine.hear();
    }
    for listener in retired {
        let legs = listener.uses.count();
        tracing::info!(listener = listener.name, address = %listener.address, legs, "a listener takes nothing new");
        tokio::spawn(close_unused(engine.clone(), listening.clone(), listener));
    }
}

/// Waits until nothing uses a listener, and closes it.
async fn close_unused(engine: Engine, listening: Arc<Listening>, listener: Listener) {
    let linger = listener.timers.t1 * LINGER_T1;
    let mut unused = Duration::ZERO;
    while unused < linger {
        tokio::time::sleep(PACE).await;
        unused = if listener.uses.count() == 0 { unused + PACE } else { Duration::ZERO };
    }
    if listening.close(listener.id) {
        engine.hear();
        tracing::info!(listener = listener.name, address = %listener.address, "a listener is closed");
    }
}
