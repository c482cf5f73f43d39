//! Re-INVITEs that leave the offer to the peer.

use super::*;

const OURS_NOW: &str =
    "v=0\r\no=- 7 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\n";
const THEIRS_NOW: &str =
    "v=0\r\no=p 9 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 5000 RTP/AVP 8 0\r\n";

fn held() -> Bytes {
    Bytes::from(format!("{}a=sendonly\r\n", OURS_NOW.replace("7 1", "7 2")))
}

/// Our INVITE, answered by a peer whose re-INVITEs have no offer.
fn delayed(extra: &str) -> Rig {
    let side = LocalSide { reinvite_delayed: true, ..(*local()).clone() };
    let mut out = Vec::new();
    let spec = InviteSpec { sdp: Bytes::from_static(OURS_NOW.as_bytes()), ..Rig::spec(SDP) };
    let dialog = Dialog::calling(spec, Arc::new(side), &mut out);
    let mut rig = Rig { dialog, now: 0, out, transactions: 0 };
    assert_eq!(
        rig.sent(Method::Invite).unwrap().0.body(),
        OURS_NOW.as_bytes(),
        "the INVITE has its own rule"
    );
    rig.respond(200, "INVITE", 1, &format!("Contact: <sip:peer@10.0.0.3:5062>\r\n{extra}"), THEIRS_NOW);
    rig
}

/// The same, asked to hold.
fn holding(extra: &str) -> (Rig, u32) {
    let mut rig = delayed(extra);
    rig.command(Command::Reoffer { sdp: held() });
    let (invite, _) = rig.sent(Method::Invite).unwrap();
    assert!(invite.body().is_empty() && invite.header(Header::ContentType).is_none(), "{invite:?}");
    (rig, invite.cseq())
}

fn text(sdp: &[u8]) -> String {
    String::from_utf8(sdp.to_vec()).unwrap()
}

fn line<'a>(sdp: &'a str, start: &str) -> &'a str {
    sdp.lines().find(|line| line.starts_with(start)).unwrap_or_default()
}

#[test]
fn what_was_to_be_offered_answers_the_peers_offer_in_our_ack() {
    let (mut rig, cseq) = holding("");
    rig.respond(200, "INVITE", cseq, "", THEIRS_NOW);
    let (ack, _) = rig.sent(Method::Ack).unwrap();
    let told = text(ack.body());
    assert_eq!(line(&told, "o="), "o=- 7 2 IN IP4 10.0.0.1");
    assert_eq!(line(&told, "m="), "m=audio 4000 RTP/AVP 8", "of the peer's codecs the one it likes best");
    assert_eq!(line(&told, "a=send"), "a=sendonly");
    let [LegEvent::ReofferAnswered { sdp }] = &rig.events()[..] else { panic!("{:?}", rig.out) };
    let heard = text(sdp);
    assert_eq!((line(&heard, "m="), line(&heard, "a=")), ("m=audio 5000 RTP/AVP 8", "a=recvonly"));

    // The ACK was lost.
    rig.respond(200, "INVITE", cseq, "", THEIRS_NOW);
    assert_eq!(text(rig.sent(Method::Ack).unwrap().0.body()), told);
    assert!(rig.events().is_empty());
    // A refresh says what the peer was told, and not what it never saw.
    assert_eq!(rig.dialog.in_force.told().map(|sdp| text(sdp)), Some(told));
}

#[test]
fn a_peer_whose_offer_fits_nothing_keeps_the_session_as_it_is_and_who_asked_is_refused() {
    let (mut rig, cseq) = holding("");
    rig.respond(200, "INVITE", cseq, "", &THEIRS_NOW.replace("RTP/AVP 8 0", "RTP/AVP 18"));
    let (ack, _) = rig.sent(Method::Ack).unwrap();
    assert_eq!(line(&text(ack.body()), "m="), "m=audio 0 RTP/AVP 18", "an offer in a 200 has its answer");
    assert!(rig.events().contains(&LegEvent::ReofferRefused { status: 488 }), "{:?}", rig.events());
    assert!(rig.dialog.is_established());
    rig.command(Command::Reoffer { sdp: held() });
    assert!(rig.sent(Method::Invite).is_some(), "nothing is left open");
}

#[test]
fn glare_refusal_and_silence_are_told_as_of_any_offer() {
    let (mut rig, cseq) = holding("");
    rig.respond(491, "INVITE", cseq, "", "");
    assert!(rig.events().is_empty());
    rig.timeout(4_001);
    let (again, _) = rig.sent(Method::Invite).unwrap();
    assert!(again.body().is_empty() && again.cseq() > cseq);
    rig.respond(200, "INVITE", again.cseq(), "", THEIRS_NOW);
    assert!(matches!(&rig.events()[..], [LegEvent::ReofferAnswered { .. }]), "{:?}", rig.events());

    let (mut rig, cseq) = holding("");
    rig.respond(488, "INVITE", cseq, "", "");
    assert_eq!(rig.events(), [LegEvent::ReofferRefused { status: 488 }]);

    let (mut rig, cseq) = holding("");
    rig.respond(200, "INVITE", cseq, "", "");
    assert_eq!(rig.events(), [LegEvent::ReofferRefused { status: 502 }], "it was asked for an offer");

    // What could not be sent had nothing in it that the peer could have accepted.
    let (mut rig, cseq) = holding("");
    rig.feed(Input::Unanswered { method: Method::Invite, cseq, why: NoAnswer::Transport });
    assert_eq!(rig.events(), [LegEvent::ReofferRefused { status: 503 }]);
    rig.respond(200, "INVITE", cseq, "", THEIRS_NOW);
    let (ack, _) = rig.sent(Method::Ack).unwrap();
    assert_eq!(line(&text(ack.body()), "m="), "m=audio 4000 RTP/AVP 0 8", "the session as it is");
    assert!(
        !rig.events().iter().any(|event| matches!(event, LegEvent::Unwanted { .. })),
        "{:?}",
        rig.events()
    );
}

#[test]
fn an_offer_that_is_taken_back_leaves_the_session_as_it_is() {
    let (mut rig, cseq) = holding("");
    rig.respond(100, "INVITE", cseq, "", "");
    rig.command(Command::CancelReoffer { reason: None });
    assert!(rig.sent(Method::Cancel).is_some());
    rig.respond(200, "INVITE", cseq, "", THEIRS_NOW);
    let (ack, _) = rig.sent(Method::Ack).unwrap();
    assert_eq!(text(ack.body()), OURS_NOW);
    assert!(rig.events().is_empty(), "{:?}", rig.events());
}

#[test]
fn a_hang_up_while_the_peer_thinks_refuses_its_offer() {
    let (mut rig, cseq) = holding("");
    rig.hang_up();
    rig.respond(200, "INVITE", cseq, "", THEIRS_NOW);
    let (ack, _) = rig.sent(Method::Ack).unwrap();
    assert_eq!(line(&text(ack.body()), "m="), "m=audio 0 RTP/AVP 8 0");
}

#[test]
fn a_refresh_asks_too_and_says_in_the_ack_what_is_in_force() {
    let mut rig = delayed("Session-Expires: 600;refresher=uac\r\n");
    let due = rig.dialog.deadline().unwrap();
    rig.timeout(due.0 / 1000 + 1);
    let (refresh, _) = rig.sent(Method::Invite).unwrap();
    assert!(refresh.body().is_empty());
    rig.respond(200, "INVITE", refresh.cseq(), "Session-Expires: 600;refresher=uac\r\n", THEIRS_NOW);
    assert_eq!(text(rig.sent(Method::Ack).unwrap().0.body()), OURS_NOW);
    assert!(rig.events().is_empty(), "nothing is new: {:?}", rig.events());
}

#[test]
fn an_update_carries_its_offer() {
    let mut rig = delayed("Allow: INVITE, UPDATE\r\n");
    rig.command(Command::Update { sdp: held() });
    assert_eq!(rig.sent(Method::Update).unwrap().0.body(), &held()[..]);
}
