use super::*;

const CHALLENGE: &str = "WWW-Authenticate: Digest realm=\"x\", nonce=\"n\", qop=\"auth\"\r\n";

fn is_signed(message: &Message) -> bool {
    message.header(Header::Authorization).is_some_and(|value| value.contains("username=\"u\""))
}

#[test]
fn a_challenged_bye_is_sent_again_with_the_answer_and_only_once() {
    let mut rig = Rig::answered("");
    rig.command(Command::End { status: 0, reason: Some("SIP;cause=200".into()) });
    let (bye, _) = rig.sent(Method::Bye).unwrap();
    assert!(!is_signed(&bye));
    rig.respond(401, "BYE", bye.cseq(), CHALLENGE, "");
    let (again, _) = rig.sent(Method::Bye).unwrap();
    assert!(is_signed(&again) && !rig.finished(), "the peer's call is still up");
    assert_eq!((again.cseq(), again.header(Header::Reason)), (bye.cseq() + 1, Some("SIP;cause=200")));
    assert_ne!(again.via().branch(), bye.via().branch());
    rig.respond(401, "BYE", again.cseq(), CHALLENGE, "");
    assert!(rig.sent(Method::Bye).is_none());
    assert!(rig.finished());
}

#[test]
fn a_challenged_re_invite_goes_on_as_the_same_offer() {
    let mut rig = Rig::answered("");
    rig.command(Command::Reoffer { sdp: Bytes::from_static(SDP) });
    rig.respond(407, "INVITE", 2, &CHALLENGE.replace("WWW", "Proxy"), "");
    let (again, _) = rig.sent(Method::Invite).unwrap();
    assert!(again.header(Header::ProxyAuthorization).is_some());
    assert_eq!((again.cseq(), again.body()), (3, SDP));
    assert!(rig.events().is_empty());
    rig.respond(200, "INVITE", 3, "Content-Type: application/sdp\r\n", "v=0\r\nanswer\r\n");
    assert!(matches!(rig.events()[..], [LegEvent::ReofferAnswered { .. }]));
}
