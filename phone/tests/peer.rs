//! A phone against messages written by hand.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::peer::{CONTACT, Peer, Sent, sdp};
use common::{QUICK, addr};
use tandem_phone::{AutoAnswer, Command, Event, Phone};

const NONCE: &str = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n1\", qop=\"auth\", algorithm=SHA-256";
const STALE: &str =
    "WWW-Authenticate: Digest realm=\"r\", nonce=\"n2\", qop=\"auth\", algorithm=SHA-256, stale=true";
const PROXY: &str = "Proxy-Authenticate: Digest realm=\"p\", nonce=\"n3\", qop=\"auth\"";

fn number(sent: &Sent) -> u32 {
    sent.header("CSeq").split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_registration_is_challenged_granted_refreshed_and_removed() {
    let mut peer = Peer::new(QUICK);
    peer.command(Command::Register);
    let first = peer.take("REGISTER sip:example.test SIP/2.0");
    assert_eq!(first.header("Contact"), "<sip:1000@127.0.0.1:5061>");
    assert_eq!((first.header("Expires"), first.header("Authorization")), ("60", ""));
    peer.give(&first.reply("401 Unauthorized", "t", &[NONCE], ""));
    let second = peer.take("REGISTER ");
    assert_eq!(number(&second), number(&first) + 1);
    assert_eq!(second.header("Call-ID"), first.header("Call-ID"));
    let credentials = second.header("Authorization");
    for part in ["username=\"1000\"", "nc=00000001", "algorithm=SHA-256", "uri=\"sip:example.test\""] {
        assert!(credentials.contains(part), "{part}: {credentials}");
    }
    let contact = "Contact: <sip:else@127.0.0.1:1>;expires=9, <sip:1000@127.0.0.1:5061>;expires=40";
    peer.give(&second.reply("200 OK", "t", &[contact], ""));
    assert_eq!(peer.events, [Event::Registered { expires: 40 }]);

    peer.pass(Duration::from_secs(30));
    let refresh = peer.take("REGISTER ");
    assert!(refresh.header("Authorization").contains("nc=00000002"), "the nonce is used again");
    peer.give(&refresh.reply("401 Unauthorized", "t", &[STALE], ""));
    let again = peer.take("REGISTER ");
    assert!(again.header("Authorization").contains("nonce=\"n2\""));
    assert!(again.header("Authorization").contains("nc=00000001"));
    peer.give(&again.reply("200 OK", "t", &["Contact: <sip:1000@127.0.0.1:5061>", "Expires: 50"], ""));
    assert_eq!(peer.events.last(), Some(&Event::Registered { expires: 50 }));

    peer.command(Command::Unregister);
    let last = peer.take("REGISTER ");
    assert_eq!(last.header("Expires"), "0");
    peer.give(&last.reply("200 OK", "t", &[], ""));
    assert_eq!(peer.events.last(), Some(&Event::Unregistered));
    peer.pass(Duration::from_secs(100));
    peer.nothing_sent();
    assert!(peer.phone.is_idle());
    peer.assert_clean();
}

#[test]
fn a_wrong_password_is_not_tried_for_ever() {
    let mut peer = Peer::new(QUICK);
    peer.command(Command::Register);
    let first = peer.take("REGISTER ");
    peer.give(&first.reply("401 Unauthorized", "t", &[NONCE], ""));
    let second = peer.take("REGISTER ");
    peer.give(&second.reply("401 Unauthorized", "t", &[NONCE], ""));
    assert_eq!(peer.events, [Event::RegistrationFailed { status: 401 }]);
    peer.pass(Duration::from_secs(100));
    peer.nothing_sent();
}

#[test]
fn a_server_that_says_stale_for_ever_is_given_up() {
    let mut peer = Peer::new(QUICK);
    peer.command(Command::Register);
    for _ in 0..3 {
        let sent = peer.take("REGISTER ");
        peer.give(&sent.reply("401 Unauthorized", "t", &[STALE], ""));
    }
    assert_eq!(peer.events, [Event::RegistrationFailed { status: 401 }]);
}

#[test]
fn a_registration_too_brief_is_asked_for_longer() {
    let mut peer = Peer::new(QUICK);
    peer.command(Command::Register);
    let first = peer.take("REGISTER ");
    peer.give(&first.reply("423 Interval Too Brief", "t", &["Min-Expires: 90"], ""));
    assert_eq!(peer.take("REGISTER ").header("Expires"), "90");
}

#[test]
fn the_registration_follows_the_last_wish() {
    let mut peer = Peer::new(QUICK);
    peer.command(Command::Register);
    peer.command(Command::Unregister);
    let first = peer.take("REGISTER ");
    peer.nothing_sent();
    peer.give(&first.reply("200 OK", "t", &["Contact: <sip:1000@127.0.0.1:5061>;expires=60"], ""));
    let second = peer.take("REGISTER ");
    assert_eq!(second.header("Expires"), "0");
    assert_eq!(number(&second), number(&first) + 1);
}

#[test]
fn an_invite_is_authenticated_to_a_proxy_and_to_the_server_and_so_is_its_ack() {
    let mut peer = Peer::new(QUICK);
    let call = peer.command(Command::Dial { number: "77".into() }).unwrap();
    let first = peer.take("INVITE sip:77@example.test SIP/2.0");
    peer.give(&first.reply("407 Proxy Authentication Required", "x", &[PROXY], ""));
    let ack = peer.take("ACK sip:77@example.test");
    assert_eq!(ack.header("Via"), first.header("Via"));
    assert_eq!((ack.tag("To"), ack.header("CSeq")), ("x", "1 ACK"));
    let second = peer.take("INVITE ");
    peer.give(&second.reply("401 Unauthorized", "y", &[NONCE], ""));
    peer.take("ACK ");
    let third = peer.take("INVITE ");
    assert_eq!((number(&second), number(&third)), (2, 3));
    assert!(third.header("Proxy-Authorization").contains("nc=00000002"));
    assert!(third.header("Authorization").contains("nc=00000001"));
    assert_eq!(third.header("To"), "<sip:77@example.test>", "no tag of the refusals");
    peer.give(&third.reply("200 OK", "z", &[CONTACT], &sdp(1, 6000)));
    let ack = peer.take("ACK sip:peer@127.0.0.1:5062 SIP/2.0");
    assert_eq!((ack.header("CSeq"), ack.header("Authorization")), ("3 ACK", third.header("Authorization")));
    assert!(matches!(peer.events[..], [Event::Answered { call: c, .. }] if c == call), "{:?}", peer.events);
    peer.command(Command::Hangup(call));
    let bye = peer.take("BYE sip:peer@127.0.0.1:5062 SIP/2.0");
    assert!(bye.header("Authorization").contains("nc=00000002"));
    assert_eq!(number(&bye), 4);
    peer.assert_clean();
}

#[test]
fn a_hang_up_during_a_challenge_does_not_start_the_call_again() {
    let mut peer = Peer::new(QUICK);
    let call = peer.command(Command::Dial { number: "77".into() }).unwrap();
    let first = peer.take("INVITE ");
    peer.command(Command::Hangup(call));
    peer.give(&first.reply("401 Unauthorized", "x", &[NONCE], ""));
    peer.take("ACK ");
    peer.nothing_sent();
    assert!(matches!(peer.events[..], [Event::Ended { by_us: true, status: Some(401), .. }]));
}

#[test]
fn requests_in_a_dialog_follow_the_route_set() {
    let mut peer = Peer::new(QUICK);
    let call = peer.command(Command::Dial { number: "77".into() }).unwrap();
    let invite = peer.take("INVITE ");
    let routes = "Record-Route: <sip:127.0.0.1:5090;lr>, <sip:127.0.0.1:5091;lr>";
    peer.give(&invite.reply("200 OK", "z", &[CONTACT, routes], &sdp(1, 6000)));
    assert_eq!(peer.next_to(), Some(([127, 0, 0, 1], 5091).into()));
    let ack = peer.take("ACK sip:peer@127.0.0.1:5062 SIP/2.0");
    assert_eq!(ack.all("Route"), ["<sip:127.0.0.1:5091;lr>", "<sip:127.0.0.1:5090;lr>"]);
    peer.command(Command::Hangup(call));
    let bye = peer.take("BYE ");
    assert_eq!(bye.all("Route"), ack.all("Route"));
    peer.give(&bye.reply("200 OK", "z", &[], ""));

    // As the called side: in order, and copied into the responses.
    peer.request("INVITE", ("cid", ""), 1, &[routes], &sdp(1, 6000));
    let ringing = peer.take("SIP/2.0 180 Ringing");
    assert_eq!(ringing.all("Record-Route").len(), 2);
    peer.pass(Duration::from_secs(1));
    let tag = peer.take("SIP/2.0 200").tag("To").to_owned();
    peer.request("ACK", ("cid", &tag), 1, &[], "");
    let incoming = peer.events.iter().rev().find_map(|event| match event {
        Event::Incoming { call, from, .. } => Some((*call, from.clone())),
        _ => None,
    });
    let (call, from) = incoming.unwrap();
    assert_eq!(from, "p.eer");
    peer.command(Command::Hangup(call));
    assert_eq!(peer.next_to(), Some(([127, 0, 0, 1], 5090).into()));
    assert_eq!(peer.take("BYE ").all("Route"), ["<sip:127.0.0.1:5090;lr>", "<sip:127.0.0.1:5091;lr>"]);
}

#[test]
fn a_repeated_200_gets_the_same_ack_again() {
    let mut peer = Peer::new(QUICK);
    let (_, invite, ack) = peer.answered();
    peer.give(&invite.reply("200 OK", "ptag", &[CONTACT], &sdp(1, 6000)));
    assert_eq!(peer.take("ACK ").0, ack.0);
    peer.assert_clean();
}

#[test]
fn a_second_200_of_another_dialog_is_acknowledged_and_ended() {
    let mut peer = Peer::new(QUICK);
    let (_, invite, _) = peer.answered();
    peer.give(&invite.reply("200 OK", "other", &[CONTACT], &sdp(1, 6000)));
    assert_eq!(peer.take("ACK ").tag("To"), "other");
    assert_eq!(peer.take("BYE ").tag("To"), "other");
    assert!(peer.noticed("two final answers"));
    assert_eq!(peer.phone.calls().count(), 1);
}

#[test]
fn two_final_answers_are_noticed() {
    let mut peer = Peer::new(QUICK);
    let (_, invite, _) = peer.answered();
    peer.give(&invite.reply("486 Busy Here", "ptag", &[], ""));
    assert!(peer.noticed("two final answers"));
}

#[test]
fn a_response_without_transaction_is_noticed() {
    let mut peer = Peer::new(QUICK);
    let (_, invite, _) = peer.answered();
    let stray = invite.reply("200 OK", "ptag", &[], "").replace("branch=", "branch=x");
    peer.give(&stray);
    assert!(peer.noticed("without transaction"));
}

#[test]
fn a_cseq_that_goes_back_is_answered_500_and_noticed() {
    let mut peer = Peer::new(QUICK);
    let tag = peer.called();
    peer.request("INVITE", ("cid", &tag), 5, &[], &sdp(1, 6000));
    peer.take("SIP/2.0 200");
    peer.request("ACK", ("cid", &tag), 5, &[], "");
    peer.request("BYE", ("cid", &tag), 4, &[], "");
    peer.take("SIP/2.0 500");
    assert!(peer.noticed("CSeq backwards"));
}

#[test]
fn an_sdp_version_that_does_not_follow_the_content_is_noticed() {
    let mut peer = Peer::new(QUICK);
    let tag = peer.called();
    peer.request("INVITE", ("cid", &tag), 2, &[], &sdp(1, 6002));
    peer.take("SIP/2.0 200");
    assert!(peer.noticed("without a new version"));
}

#[test]
fn an_answer_without_sdp_ends_the_call() {
    let mut peer = Peer::new(QUICK);
    peer.command(Command::Dial { number: "77".into() });
    let invite = peer.take("INVITE ");
    peer.give(&invite.reply("200 OK", "z", &[CONTACT], ""));
    peer.take("ACK ");
    let bye = peer.take("BYE ");
    peer.give(&bye.reply("200 OK", "z", &[], ""));
    assert!(matches!(peer.events.last(), Some(Event::Ended { by_us: true, .. })), "{:?}", peer.events);
}

#[test]
fn early_media_is_told_once() {
    let mut peer = Peer::new(QUICK);
    peer.command(Command::Dial { number: "77".into() });
    let invite = peer.take("INVITE ");
    for _ in 0..2 {
        peer.give(&invite.reply("183 Session Progress", "z", &[CONTACT], &sdp(1, 6000)));
    }
    let early = peer.events.iter().filter(|event| matches!(event, Event::EarlyMedia { .. })).count();
    assert_eq!(early, 1);
    peer.assert_clean();
}

#[test]
fn an_invite_without_offer_gets_one_and_the_ack_answers_it() {
    let mut peer = Peer::new(QUICK);
    peer.request("INVITE", ("cid", ""), 1, &[], "");
    peer.take("SIP/2.0 180");
    peer.pass(Duration::from_secs(1));
    let ok = peer.take("SIP/2.0 200");
    assert!(ok.0.contains("m=audio 40000 RTP/AVP 0 8\r\n"));
    let tag = ok.tag("To").to_owned();
    peer.request("INVITE", ("cid", &tag), 2, &[], &sdp(1, 6000));
    peer.take("SIP/2.0 491");
    peer.request("ACK", ("cid", &tag), 1, &[], &sdp(1, 6000));
    let answered = peer.events.iter().any(|event| matches!(event, Event::Answered { .. }));
    assert!(answered, "{:?}", peer.events);
    peer.assert_clean();
}

#[test]
fn what_a_phone_cannot_do_is_refused_plainly() {
    let mut peer = Peer::new(QUICK);
    peer.request("FROBNICATE", ("c1", ""), 1, &[], "");
    assert_eq!(
        peer.take("SIP/2.0 405 ").header("Allow"),
        "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, PRACK, UPDATE"
    );
    peer.request("SUBSCRIBE", ("c2", ""), 1, &[], "");
    peer.take("SIP/2.0 405");
    for method in ["BYE", "INVITE", "UPDATE", "FROBNICATE"] {
        peer.request(method, ("c3", "nobody"), 1, &[], "");
        peer.take("SIP/2.0 481");
    }
    peer.request("CANCEL", ("c4", ""), 1, &[], "");
    peer.take("SIP/2.0 481");
    peer.request("ACK", ("c5", "nobody"), 1, &[], "");
    peer.nothing_sent();
    peer.request("INVITE", ("c6", ""), 1, &["Require: 100rel, timer"], &sdp(1, 6000));
    assert_eq!(peer.take("SIP/2.0 420").header("Unsupported"), "100rel, timer");
    peer.request("INVITE", ("c7", ""), 1, &[], &sdp(1, 6000).replace("RTP/AVP 0", "RTP/AVP 18"));
    peer.take("SIP/2.0 488");
    peer.request("INVITE", ("c8", ""), 1, &[], "no sdp at all");
    peer.take("SIP/2.0 400");
    peer.request("OPTIONS", ("c9", ""), 1, &[], "");
    peer.take("SIP/2.0 200");
    assert!(peer.events.is_empty(), "{:?}", peer.events);
}

#[test]
fn the_same_invite_by_another_path_is_a_loop() {
    let mut peer = Peer::new(QUICK);
    peer.request("INVITE", ("cid", ""), 1, &[], &sdp(1, 6000));
    peer.take("SIP/2.0 180");
    peer.request("INVITE", ("cid", ""), 1, &[], &sdp(1, 6000));
    peer.take("SIP/2.0 482");
}

#[test]
fn responses_go_where_the_via_says() {
    let mut peer = Peer::new(QUICK);
    let text = "OPTIONS sip:1000@127.0.0.1 SIP/2.0\r\nv: SIP/2.0/UDP somewhere.test:5070;branch=z9hG4bKa\r\n\
                v: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKb\r\nf: <sip:a@b>;tag=1\r\nt: <sip:1000@b>\r\ni: x\r\n\
                CSeq: 1 OPTIONS\r\nl: 0\r\n\r\n";
    peer.give(text);
    assert_eq!(peer.next_to(), Some(([127, 0, 0, 1], 5070).into()));
    let reply = peer.take("SIP/2.0 200");
    assert_eq!(
        reply.all("Via"),
        [
            "SIP/2.0/UDP somewhere.test:5070;branch=z9hG4bKa;received=127.0.0.1",
            "SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKb"
        ]
    );
    peer.give(&text.replace(";branch=z9hG4bKa", ";rport;branch=z9hG4bKc"));
    assert_eq!(peer.next_to(), Some(addr(1)));
    let via = format!(
        "SIP/2.0/UDP somewhere.test:5070;branch=z9hG4bKc;received=127.0.0.1;rport={}",
        addr(1).port()
    );
    assert_eq!(peer.take("SIP/2.0 200").all("Via")[0], via);
}

#[test]
fn a_reinvite_that_the_peer_does_not_know_ends_the_call() {
    let mut peer = Peer::new(QUICK);
    let (call, ..) = peer.answered();
    peer.command(Command::Hold(call));
    let hold = peer.take("INVITE sip:peer@");
    assert!(hold.0.contains("a=sendonly"));
    assert!(hold.0.contains(" 2 IN IP4"), "the version grew: {}", hold.0);
    peer.give(&hold.reply("481 No Call", "ptag", &[], ""));
    peer.take("ACK ");
    peer.take("BYE ");
    let failed = Event::ReInviteFailed { call, status: 481 };
    assert!(peer.events.contains(&failed));
}

#[test]
fn a_refused_reinvite_leaves_the_call_as_it_was() {
    let mut peer = Peer::new(QUICK);
    let (call, ..) = peer.answered();
    peer.command(Command::ReInvite(call));
    let invite = peer.take("INVITE ");
    peer.give(&invite.reply("488 Not Acceptable Here", "ptag", &[], ""));
    peer.take("ACK ");
    peer.nothing_sent();
    assert_eq!(peer.events.last(), Some(&Event::ReInviteFailed { call, status: 488 }));
    assert_eq!(peer.phone.calls().count(), 1);
}

#[test]
fn a_cancelled_invite_without_final_response_is_given_up() {
    let mut peer = Peer::new(QUICK);
    let call = peer.command(Command::Dial { number: "77".into() }).unwrap();
    let invite = peer.take("INVITE ");
    peer.give(&invite.reply("100 Trying", "", &[], ""));
    peer.command(Command::Hangup(call));
    let cancel = peer.take("CANCEL sip:77@example.test SIP/2.0");
    assert_eq!((cancel.header("Via"), cancel.header("CSeq")), (invite.header("Via"), "1 CANCEL"));
    peer.give(&cancel.reply("200 OK", "z", &[], ""));
    peer.pass(Duration::from_secs(33));
    assert!(matches!(peer.events.last(), Some(Event::Ended { by_us: true, status: None, .. })));
    assert!(peer.phone.is_idle());
}

#[test]
fn a_phone_goes_on_from_its_serialised_state() {
    let mut peer = Peer::new(AutoAnswer::Manual);
    let (call, ..) = peer.answered();
    let json = serde_json::to_string(&peer.phone).unwrap();
    peer.phone = serde_json::from_str::<Phone>(&json).unwrap();
    peer.command(Command::Hangup(call));
    let bye = peer.take("BYE ");
    peer.give(&bye.reply("200 OK", "ptag", &[], ""));
    peer.pass(Duration::from_secs(40));
    assert!(peer.phone.is_idle());
    peer.assert_clean();
}

#[test]
fn a_reinvite_may_change_address_and_codec() {
    let mut peer = Peer::new(QUICK);
    let tag = peer.called();
    let offer = sdp(2, 6004).replace("RTP/AVP 0", "RTP/AVP 8");
    peer.request("INVITE", ("cid", &tag), 2, &[], &offer);
    let ok = peer.take("SIP/2.0 200");
    assert!(ok.0.contains("m=audio 40000 RTP/AVP 8\r\n"), "{}", ok.0);
    let changed = peer.events.last();
    let there = ([127, 0, 0, 1], 6004).into();
    assert!(
        matches!(changed, Some(Event::MediaChanged { remote_media, codec: 8, .. }) if *remote_media == there),
        "{changed:?}"
    );
    peer.assert_clean();
}
