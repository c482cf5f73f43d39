//! Whatever comes, a phone neither panics nor forgets how to make a call.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::peer::{CONTACT, Peer, sdp};
use common::{QUICK, addr};
use proptest::collection::vec;
use proptest::prelude::*;
use tandem_phone::Command;

/// Bytes that matter to a SIP parser, more often than chance would have them.
fn sip_bytes() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        prop::sample::select(vec![
            "INVITE",
            "ACK",
            "SIP/2.0",
            "sip:",
            "sips:",
            "a@b",
            "<",
            ">",
            ";",
            ",",
            "\"",
            "\\",
            ":",
            "=",
            " ",
            "\t",
            "\r\n",
            "\r\n\r\n",
            "Via: ",
            "From: ",
            "To: ",
            "CSeq: ",
            "Call-ID: ",
            "Contact: ",
            "v: ",
            "tag",
            "branch",
            "Content-Length: ",
            "1",
            "99999999999999999999",
            "-1",
            "[::1]",
            "*",
            "SIP/2.0/UDP h",
            "rport",
            "Digest ",
            "WWW-Authenticate: ",
            "realm",
            "nonce",
            "Record-Route: ",
            "é",
            "\u{212a}",
            "%",
            "?",
            "/",
            "401 ",
            "200 OK",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        vec(any::<u8>(), 0..4),
    ];
    vec(pieces, 0..60).prop_map(|pieces| pieces.concat())
}

/// A message of a call, with a part cut out, replaced or doubled.
fn mutated(text: &str, at: usize, length: usize, with: &[u8]) -> Vec<u8> {
    let bytes = text.as_bytes();
    let start = at % (bytes.len() + 1);
    let end = (start + length).min(bytes.len());
    [&bytes[..start], with, &bytes[end..]].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_do_not_panic(datagrams in vec(prop_oneof![vec(any::<u8>(), 0..300), sip_bytes()], 1..4)) {
        let mut peer = Peer::new(QUICK);
        peer.command(Command::Register);
        peer.command(Command::Dial { number: "1".into() });
        for datagram in datagrams {
            peer.phone.receive(peer.now, addr(1), &datagram);
            peer.pass(Duration::from_secs(1));
        }
    }

    #[test]
    fn damaged_messages_do_not_panic(
        which in 0usize..6,
        at: usize,
        length in 0usize..40,
        with in prop_oneof![sip_bytes(), vec(any::<u8>(), 0..20)],
    ) {
        let mut peer = Peer::new(QUICK);
        peer.command(Command::Register);
        let register = peer.take("REGISTER ");
        let (call, invite, ack) = peer.answered();
        let challenge = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\", opaque=\"\\\"\"";
        let text = match which {
            0 => invite.0,
            1 => ack.0,
            2 => invite.reply("200 OK", "x", &[CONTACT], &sdp(1, 1)),
            3 => register.reply("401 Unauthorized", "x", &[challenge], ""),
            4 => register.reply("200 OK", "x", &["Contact: <sip:a@b;p=1>;expires=7;q=0.1, *"], ""),
            _ => peer.request("OPTIONS", ("cid", ""), 1, &["Require: a,b", "Record-Route: <sip:h;lr>"], "").0,
        };
        let damaged = mutated(&text, at, length, &with);
        peer.phone.receive(peer.now, addr(1), &damaged);
        peer.pass(Duration::from_secs(1));
        peer.command(Command::Hangup(call));
        // Datagrams cannot stop a phone: every transaction ends by itself.
        peer.pass(Duration::from_secs(400));
        peer.command(Command::Unregister);
        peer.pass(Duration::from_secs(40));
        let calls: Vec<_> = peer.phone.calls().collect();
        prop_assert!(calls.iter().all(|(other, _)| *other != call), "{calls:?}");
    }
}
