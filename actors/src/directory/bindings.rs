//! The bindings of a station as they are kept for whoever asks: in the form that the store has, which takes a third of the memory.

use bytes::Bytes;
use tandem_protocol::registrar::{Binding, BindingRef};
use tandem_protocol::time::UnixMillis;

use crate::station;

/// The bindings of a station that has some: when the first ends and whether one is by a kept flow, which is asked for most, and their
/// frozen form.
#[derive(Debug)]
pub struct KeptBindings(Box<[u8]>);

/// Bytes before the frozen form.
const GIST: usize = size_of::<u64>();

impl KeptBindings {
    /// From bindings and what [`station::freeze_bindings`] has made of them; `None` if there are none.
    pub(crate) fn new(frozen: &Bytes, bindings: &[Binding]) -> Option<KeptBindings> {
        let first = bindings.iter().map(|binding| binding.expires_at.0).min()?;
        let keeps_flow = bindings.iter().any(|b| b.is_outbound() && b.source.connection.is_some());
        // No time of this age needs the topmost bit.
        let gist = first << 1 | u64::from(keeps_flow);
        Some(KeptBindings([&gist.to_le_bytes()[..], frozen].concat().into_boxed_slice()))
    }

    fn gist(&self) -> u64 {
        self.0.first_chunk().copied().map_or(0, u64::from_le_bytes)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.iter().left
    }

    /// True if there are none, which are not kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each of them, the one refreshed longest ago first.
    pub fn iter(&self) -> Iter<'_> {
        let bytes = self
            .0
            .get(GIST..)
            .and_then(station::of_known_format)
            .and_then(|rest| postcard::take_from_bytes(rest).ok());
        let (left, rest) = bytes.unwrap_or_default();
        Iter { left, rest }
    }

    /// When the first of them ends.
    pub fn first_expiry(&self) -> UnixMillis {
        UnixMillis(self.gist() >> 1)
    }

    /// Whether a device keeps a flow for one of them (RFC 5626).
    pub fn keeps_flow(&self) -> bool {
        self.gist() & 1 == 1
    }

    /// All of them, to be changed.
    pub fn thaw(&self) -> Vec<Binding> {
        self.iter().map(|binding| binding.to_owned()).collect()
    }
}

impl<'a> IntoIterator for &'a KeptBindings {
    type Item = BindingRef<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Reads kept bindings one after the other.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    left: usize,
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = BindingRef<'a>;

    fn next(&mut self) -> Option<BindingRef<'a>> {
        self.left = self.left.checked_sub(1)?;
        match postcard::take_from_bytes(self.rest) {
            Ok((binding, rest)) => {
                self.rest = rest;
                Some(binding)
            }
            Err(why) => {
                tracing::error!(%why, "a binding is damaged");
                self.left = 0;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use tandem_protocol::flow::{ConnectionId, Flow, ListenerId};

    use super::*;

    fn binding(contact: &str, expires_at: u64) -> Binding {
        Binding {
            contact: contact.to_owned(),
            call_id: "c@192.0.2.1".to_owned(),
            cseq: 300,
            expires_at: UnixMillis(expires_at),
            q: 500,
            source: Flow::to(ListenerId::default(), (Ipv4Addr::LOCALHOST, 5060).into()),
            path: Vec::new(),
            instance: None,
            reg_id: None,
            user_agent: None,
        }
    }

    #[test]
    fn what_is_kept_is_what_was_there() {
        let plain = binding("sip:a@192.0.2.1", 2_000_000_000_000);
        let connection = Some(ConnectionId { shard: 3, generation: u64::MAX });
        let full = Binding {
            source: Flow { connection, ..Flow::to(ListenerId::default(), (Ipv6Addr::LOCALHOST, 1).into()) },
            path: vec!["<sip:p1;lr>".to_owned(), "<sip:p2;lr>".to_owned()],
            instance: Some("<urn:uuid:1>".to_owned()),
            reg_id: Some(2),
            user_agent: Some("phone".to_owned()),
            ..binding("sip:a@[2001:db8::1]", 1_000)
        };
        let list = vec![plain, full];
        let kept = KeptBindings::new(&station::freeze_bindings(&list).unwrap(), &list).unwrap();
        assert_eq!((kept.thaw(), kept.len(), kept.is_empty()), (list.clone(), 2, false));
        assert_eq!((kept.first_expiry(), kept.keeps_flow()), (UnixMillis(1_000), true));
        assert!(kept.iter().zip(&list).all(|(kept, binding)| kept.leads_where(binding)));
        assert_eq!(kept.iter().map(|b| b.kept_flow()).collect::<Vec<_>>(), [None, connection]);
        let one = KeptBindings::new(&station::freeze_bindings(&list[..1]).unwrap(), &list[..1]).unwrap();
        assert_eq!((one.first_expiry(), one.keeps_flow()), (list[0].expires_at, false));
        assert!(KeptBindings::new(&station::freeze_bindings(&[]).unwrap(), &[]).is_none());
    }
}
