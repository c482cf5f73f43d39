//! The frozen form of machines: a format number, then the machine.

#[cfg(test)]
pub(crate) mod golden;
mod writer;

use std::cell::RefCell;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use writer::Writer;

thread_local! {
    /// Room to write in: what is kept is a copy without spare room.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Freezes `machine` in format number `format`.
pub(crate) fn freeze<M: Serialize>(format: u8, machine: &M) -> Option<Bytes> {
    let mut room = ROOM.take();
    room.clear();
    room.push(format);
    match machine.serialize(&mut Writer(&mut room)) {
        Ok(()) => {
            let frozen = Bytes::copy_from_slice(&room);
            ROOM.set(room);
            Some(frozen)
        }
        Err(why) => {
            tracing::error!(%why, "a machine could not be frozen; it will not survive a fault");
            None
        }
    }
}

/// The machine again; `None`, logged, if the format is another or the bytes are damaged.
pub(crate) fn thaw<M: DeserializeOwned>(format: u8, frozen: &[u8]) -> Option<M> {
    thaw_of(&[format], frozen)
}

/// The same from any of `formats`, which differ in what one reading covers.
pub(crate) fn thaw_of<M: DeserializeOwned>(formats: &[u8], frozen: &[u8]) -> Option<M> {
    let (first, rest) = frozen.split_first()?;
    if !formats.contains(first) {
        tracing::error!(
            found = first,
            expected = ?formats,
            "a checkpoint has a format that this release does not read"
        );
        return None;
    }
    postcard::from_bytes(rest).inspect_err(|why| tracing::error!(%why, "a checkpoint is damaged")).ok()
}

/// The same from `format`, or from the one before it, whose machines end without `lacks`: what has been added since stands at the end.
pub(crate) fn thaw_grown<M: DeserializeOwned>(format: u8, frozen: &[u8], lacks: &[u8]) -> Option<M> {
    if frozen.first().is_some_and(|first| first.checked_add(1) == Some(format)) {
        return thaw_of(&[format - 1], &[frozen, lacks].concat());
    }
    thaw(format, frozen)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde::Deserialize;
    use tandem_protocol::flow::{Flow, ListenerId, Transport};

    use super::*;

    /// A flow as it was stored when its listener was a place in the settings.
    #[derive(Serialize, Deserialize)]
    struct FormerFlow {
        listener: u16,
        remote: SocketAddr,
        connection: Option<(u16, u64)>,
    }

    #[test]
    fn a_flow_of_the_format_before_names_its_listener_by_its_place() {
        let remote = SocketAddr::from(([192, 0, 2, 1], 5060));
        for (listener, connection) in [(0, None), (300, Some((1, u64::MAX)))] {
            let former = freeze(3, &FormerFlow { listener, remote, connection }).unwrap();
            let flow: Flow = thaw_of(&[4, 3], &former).unwrap();
            assert_eq!((flow.listener.former_place(), flow.remote), (Some(usize::from(listener)), remote));
            assert_eq!(flow.connection.map(|c| (c.shard, c.generation)), connection);
            assert!(thaw_of::<Flow>(&[4], &former).is_none(), "another format");
        }
        let flow = Flow::to(ListenerId::new(Transport::Udp, remote), remote);
        assert_eq!(thaw_of(&[4, 3], &freeze(4, &flow).unwrap()), Some(flow));
    }

    #[test]
    fn a_machine_that_has_grown_is_read_from_the_format_before() {
        let former = freeze(6, &(7_u8, 300_u16)).unwrap();
        assert_eq!(thaw_grown(7, &former, &[1]), Some((7_u8, 300_u16, true)));
        assert_eq!(
            thaw_grown(7, &freeze(7, &(7_u8, 300_u16, false)).unwrap(), &[1]),
            Some((7_u8, 300_u16, false))
        );
        assert_eq!(thaw_grown::<(u8, u16, bool)>(8, &former, &[1]), None, "two formats back");
        assert_eq!(thaw_grown::<(u8, u16, bool)>(7, &[], &[1]), None);
    }
}
