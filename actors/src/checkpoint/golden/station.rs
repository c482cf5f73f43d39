//! The bindings of a station.

use tandem_protocol::flow::{ConnectionId, Flow, ListenerId, Transport};
use tandem_protocol::registrar::Binding;

use super::*;
use crate::station::{Registered, read_bindings};

fn bindings() -> Vec<Binding> {
    let listener = ListenerId::new(Transport::Tls, ([10, 0, 0, 9], 5061).into());
    let remote = ([192, 0, 2, 7], 49_152).into();
    let connection = Some(ConnectionId { shard: 1, generation: 300 });
    let desk = Binding {
        contact: "sip:desk@192.0.2.7:49152;transport=tls".into(),
        call_id: "one".into(),
        cseq: 300,
        expires_at: at(600).wall,
        q: 700,
        source: Flow { connection, ..Flow::to(listener, remote) },
        path: vec!["<sip:near;lr>".into(), "<sip:far;lr>".into()],
        instance: Some("<urn:uuid:1>".into()),
        reg_id: Some(2),
        user_agent: Some("desk phone".into()),
    };
    let soft = Binding {
        contact: "sip:soft@192.0.2.8".into(),
        call_id: "two".into(),
        cseq: 1,
        expires_at: at(60).wall,
        q: 1_000,
        source: Flow::to(listener, ([192, 0, 2, 8], 5060).into()),
        path: Vec::new(),
        instance: None,
        reg_id: None,
        user_agent: None,
    };
    vec![desk, soft]
}

#[test]
fn a_stations_bindings_are_restored_from_every_golden_checkpoint() {
    let station = Golden {
        kind: "station",
        freeze: |bindings: &Vec<Binding>| Registered::of(bindings.clone()).freeze(),
        thaw: |frozen| read_bindings(frozen),
        holds: |restored| assert_eq!(restored, bindings()),
    };
    station.check(&bindings());
}
