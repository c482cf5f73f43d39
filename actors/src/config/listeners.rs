//! Which listener a flow belongs to, whatever order the settings have them in.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tandem_protocol::flow::{ListenerId, Transport};

use super::Listener;

/// The listeners of an engine, in the order of the settings.
#[derive(Clone, Debug, Default)]
pub struct Listeners(pub Vec<Listener>);

impl Deref for Listeners {
    type Target = [Listener];
    fn deref(&self) -> &[Listener] {
        &self.0
    }
}

impl Listeners {
    /// The place of a flow's listener. One that is not there any more is stood in for by the first of its transport and family.
    pub fn place(&self, listener: ListenerId) -> Option<usize> {
        if let Some(place) = listener.former_place() {
            return Some(place).filter(|place| *place < self.len());
        }
        let named = self.iter().position(|l| l.id == listener);
        named.or_else(|| self.iter().position(|l| l.id.is_alike(listener)))
    }

    /// The listener of a flow; see [`Listeners::place`].
    pub fn of(&self, listener: ListenerId) -> Option<&Listener> {
        self.0.get(self.place(listener)?)
    }

    /// What flows call the listener at a place; one that is nobody's for none.
    pub fn id(&self, place: u16) -> ListenerId {
        self.0.get(usize::from(place)).map(|l| l.id).unwrap_or_default()
    }

    /// How a listener carries SIP, also if it is not there any more.
    pub fn transport(&self, listener: ListenerId) -> Transport {
        self.of(listener).map_or_else(|| listener.transport(), |l| l.transport)
    }
}

impl Listeners {
    /// Whether a listener is set, and not only stood in for.
    pub fn has(&self, listener: ListenerId) -> bool {
        listener.former_place().is_some() || self.iter().any(|l| l.id == listener)
    }
}

/// How many legs are reached by a listener. Its clones count the same ones.
#[derive(Clone, Debug, Default)]
pub struct Uses(Arc<AtomicUsize>);

impl Uses {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// One more.
    pub(crate) fn join(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub(crate) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tandem_protocol::dialog::SessionPolicy;
    use tandem_protocol::message::Limits;
    use tandem_protocol::transaction::Timers;

    use super::super::StreamLimits;
    use super::*;

    fn listener(transport: Transport, address: &str) -> Listener {
        let address: SocketAddr = address.parse().unwrap();
        Listener {
            name: format!("{} {address}", transport.as_str()),
            id: ListenerId::new(transport, address),
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

    #[test]
    fn a_flow_finds_its_listener_in_whatever_order_they_are_and_one_alike_when_it_is_gone() {
        let all = [
            listener(Transport::Udp, "192.0.2.1:5060"),
            listener(Transport::Udp, "192.0.2.1:5062"),
            listener(Transport::Tcp, "192.0.2.1:5060"),
            listener(Transport::Udp, "[2001:db8::1]:5060"),
        ];
        let mut listeners = Listeners(all.to_vec());
        let name = |listeners: &Listeners, id| listeners.of(id).map(|l| l.name.clone());
        for _ in 0..all.len() {
            listeners.0.rotate_left(1);
            for listener in &all {
                assert_eq!(name(&listeners, listener.id), Some(listener.name.clone()));
            }
        }
        let gone = |transport, address: &str| ListenerId::new(transport, address.parse().unwrap());
        let stands_in = |transport, address| name(&listeners, gone(transport, address));
        assert_eq!(stands_in(Transport::Udp, "192.0.2.7:5060"), Some(all[0].name.clone()));
        assert_eq!(stands_in(Transport::Tcp, "192.0.2.7:5060"), Some(all[2].name.clone()));
        assert_eq!(stands_in(Transport::Udp, "[2001:db8::7]:5060"), Some(all[3].name.clone()));
        assert_eq!(
            stands_in(Transport::Tcp, "[2001:db8::7]:5060"),
            None,
            "an address that it could not reach"
        );
        assert_eq!(listeners.transport(gone(Transport::Tcp, "[2001:db8::7]:5060")), Transport::Tcp);
    }
}
