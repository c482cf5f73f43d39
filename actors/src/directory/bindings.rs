//! The bindings of a station as they are kept for whoever asks: in the form that the store has, which takes a third of the memory.

use bytes::Bytes;
use tandem_protocol::registrar::{Binding, BindingRef};
use tandem_protocol::time::UnixMillis;

use crate::station;

/// The bindings of a station that has some, frozen.
#[derive(Debug)]
pub struct KeptBindings(Box<[u8]>);

impl KeptBindings {
    /// From what [`station::freeze_bindings`] has made; `None` if there are none.
    pub(crate) fn new(frozen: &Bytes) -> Option<KeptBindings> {
        let kept = KeptBindings(frozen.as_ref().into());
        (!kept.is_empty()).then_some(kept)
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
        let bytes = station::of_known_format(&self.0).and_then(|rest| postcard::take_from_bytes(rest).ok());
        let (left, rest) = bytes.unwrap_or_default();
        Iter { left, rest }
    }

    /// When the first of them ends.
    pub fn first_expiry(&self) -> Option<UnixMillis> {
        self.iter().map(|binding| binding.expires_at).min()
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
        let kept = KeptBindings::new(&station::freeze_bindings(&list).unwrap()).unwrap();
        assert_eq!((kept.thaw(), kept.len(), kept.is_empty()), (list.clone(), 2, false));
        assert_eq!(kept.first_expiry(), Some(UnixMillis(1_000)));
        assert!(kept.iter().zip(&list).all(|(kept, binding)| kept.leads_where(binding)));
        assert_eq!(kept.iter().map(|b| b.kept_flow()).collect::<Vec<_>>(), [None, connection]);
        assert!(KeptBindings::new(&station::freeze_bindings(&[]).unwrap()).is_none());
    }
}
