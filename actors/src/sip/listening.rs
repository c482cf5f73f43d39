//! The sockets on which SIP is heard. They are the root's: listeners come and go while shards run, and each shard has what is here.
//!
//! ```text
//! opening ── every shard can send by it ──► open ── the settings have it no longer ──► retired ── nothing uses it ──► (closed)
//!                                            ▲                                            │
//!                                            └──────────── they have it again ────────────┘
//! ```
//!
//! A retired listener is what calls from before are still reached by: they go on, and nothing new begins there. Its connections
//! stay too, but it takes no more.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tandem_protocol::flow::ListenerId;

use super::tcp::Door;
use crate::config::{Listener, Listeners, Uses};
use crate::ids::ShardId;
use crate::runtime::ListenSocket;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its sockets are bound, and nobody reads them yet.
    Opening,
    Open,
    Retired,
}

struct Entry {
    listener: Listener,
    door: Arc<Door>,
    /// One a shard; none where nothing more is to be accepted.
    sockets: Vec<ListenSocket>,
    state: State,
}

/// One listener as a shard is to have it.
pub(crate) struct Heard {
    pub(crate) listener: Listener,
    pub(crate) door: Arc<Door>,
    /// Another descriptor of the shard's socket.
    pub(crate) socket: Option<ListenSocket>,
    /// Whether it is to be read.
    pub(crate) read: bool,
}

/// Every listener that has sockets.
#[derive(Default)]
pub struct Listening(Mutex<Vec<Entry>>);

impl Listening {
    /// Those of an engine that starts: for each, one socket a shard.
    pub fn new(listeners: &Listeners, sockets: Vec<Vec<ListenSocket>>) -> Listening {
        let entry = |(listener, sockets): (&Listener, Vec<ListenSocket>)| Entry {
            listener: listener.clone(),
            door: Door::new(listener.streams),
            sockets,
            state: State::Open,
        };
        Listening(Mutex::new(listeners.iter().zip(sockets).map(entry).collect()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it can be heard again without binding its address.
    pub fn has(&self, id: ListenerId) -> bool {
        self.lock().iter().any(|entry| entry.listener.id == id && !entry.sockets.is_empty())
    }

    /// The legs that are reached by a listener, if it is known.
    pub fn uses(&self, id: ListenerId) -> Option<Uses> {
        self.lock().iter().find(|entry| entry.listener.id == id).map(|entry| entry.listener.uses.clone())
    }

    /// Takes in the sockets of a listener that is to come, one a shard.
    pub fn add(&self, listener: &Listener, sockets: Vec<ListenSocket>) {
        let mut entries = self.lock();
        match entries.iter_mut().find(|entry| entry.listener.id == listener.id) {
            // Its connections are still counted at the same door.
            Some(entry) => {
                entry.sockets = sockets;
                entry.state = State::Opening;
            }
            None => entries.push(Entry {
                listener: listener.clone(),
                door: Door::new(listener.streams),
                sockets,
                state: State::Opening,
            }),
        }
    }

    /// From now on these are heard and no others: those that are retired by that.
    pub fn settle(&self, wanted: &Listeners) -> Vec<Listener> {
        let mut retired = Vec::new();
        for entry in self.lock().iter_mut() {
            match wanted.iter().find(|listener| listener.id == entry.listener.id) {
                Some(listener) => {
                    entry.listener = listener.clone();
                    entry.state = State::Open;
                }
                None if entry.state == State::Retired => {}
                None => {
                    entry.state = State::Retired;
                    if entry.listener.transport.is_reliable() {
                        entry.sockets = Vec::new();
                    }
                    retired.push(entry.listener.clone());
                }
            }
        }
        retired
    }

    /// Gives up a listener if nothing has brought it back; false if something has.
    pub fn close(&self, id: ListenerId) -> bool {
        let mut entries = self.lock();
        let before = entries.len();
        entries.retain(|entry| entry.listener.id != id || entry.state != State::Retired);
        entries.len() < before
    }

    /// What a shard is to have.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn of(&self, shard: ShardId) -> io::Result<Vec<Heard>> {
        let heard = |entry: &Entry| {
            let socket = entry.sockets.get(usize::from(shard.0));
            Ok(Heard {
                listener: entry.listener.clone(),
                door: entry.door.clone(),
                socket: socket.map(ListenSocket::try_clone).transpose()?,
                read: entry.state != State::Opening,
            })
        };
        self.lock().iter().map(heard).collect()
    }
}

#[cfg(test)]
mod tests {
    use tandem_protocol::dialog::SessionPolicy;
    use tandem_protocol::flow::Transport;
    use tandem_protocol::message::Limits;
    use tandem_protocol::transaction::Timers;

    use super::*;
    use crate::config::StreamLimits;
    use crate::runtime;

    fn listener(transport: Transport, sockets: &mut Vec<Vec<ListenSocket>>) -> Listener {
        let (address, bound) = runtime::bind(transport, ([127, 0, 0, 1], 0).into(), 2).unwrap();
        sockets.push(bound);
        let id = ListenerId::new(transport, address);
        Listener {
            name: transport.as_str().to_owned(),
            id,
            transport,
            address,
            external: address.into(),
            timers: Timers::default(),
            streams: StreamLimits::default(),
            session: SessionPolicy::default(),
            limits: Limits::default(),
            tls: None,
            uses: Uses::default(),
        }
    }

    /// Name, whether there is a socket, and whether it is read, as a shard has them.
    fn heard(listening: &Listening) -> Vec<(String, bool, bool)> {
        let all = listening.of(ShardId(1)).unwrap();
        all.into_iter().map(|heard| (heard.listener.name, heard.socket.is_some(), heard.read)).collect()
    }

    #[test]
    fn what_comes_is_read_once_all_have_it_and_what_goes_is_kept_until_nothing_uses_it() {
        let mut sockets = Vec::new();
        let udp = listener(Transport::Udp, &mut sockets);
        let listening = Listening::new(&Listeners(vec![udp.clone()]), sockets);
        let mut bound = Vec::new();
        let tcp = listener(Transport::Tcp, &mut bound);
        assert!(listening.has(udp.id) && !listening.has(tcp.id));
        listening.add(&tcp, bound.remove(0));
        let named = |name: &str, socket, read| (name.to_owned(), socket, read);
        assert_eq!(heard(&listening), [named("udp", true, true), named("tcp", true, false)]);
        let both = Listeners(vec![udp.clone(), tcp.clone()]);
        assert!(listening.settle(&both).is_empty());
        assert_eq!(heard(&listening), [named("udp", true, true), named("tcp", true, true)]);

        let retired = listening.settle(&Listeners(Vec::new()));
        assert_eq!(retired.iter().map(|l| l.id).collect::<Vec<_>>(), [udp.id, tcp.id]);
        assert_eq!(
            heard(&listening),
            [named("udp", true, true), named("tcp", false, true)],
            "nothing is accepted"
        );
        assert!(listening.settle(&Listeners(Vec::new())).is_empty(), "told once");
        assert!(listening.has(udp.id) && !listening.has(tcp.id));
        assert!(listening.settle(&Listeners(vec![udp.clone()])).is_empty());
        assert!(!listening.close(udp.id), "it is back");
        assert!(listening.close(tcp.id) && !listening.close(tcp.id));
        assert_eq!(heard(&listening), [named("udp", true, true)]);
    }
}
