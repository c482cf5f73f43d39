use super::*;

const CHALLENGE: &str = "WWW-Authenticate: Digest realm=\"x\", nonce=\"n\", qop=\"auth\"\r\n";

/// What a 401 or 407 with this realm and nonce carries.
fn challenge(by: &str, realm: &str, nonce: &str) -> String {
    format!("{by}-Authenticate: Digest realm=\"{realm}\", nonce=\"{nonce}\", qop=\"auth\"\r\n")
}

/// Realm, nonce and nonce count of each answer in a request, those to servers before those to proxies.
fn answers(message: &Message) -> Vec<(String, String, String)> {
    let headers = [Header::Authorization, Header::ProxyAuthorization];
    let values: Vec<&str> = headers.iter().flat_map(|header| message.headers(*header)).collect();
    let param = |value: &str, name: &str| {
        let rest = value.split(&format!("{name}=")).nth(1).unwrap_or_default();
        rest.split(',').next().unwrap_or_default().trim_matches('"').to_owned()
    };
    values.iter().map(|v| (param(v, "realm"), param(v, "nonce"), param(v, " nc"))).collect()
}

fn answer(realm: &str, nonce: &str, nc: u32) -> (String, String, String) {
    (realm.into(), nonce.into(), format!("{nc:08x}"))
}

#[test]
fn a_proxy_and_the_server_behind_it_each_get_their_answer_one_after_the_other() {
    let mut rig = Rig::calling();
    rig.respond(407, "INVITE", 1, &challenge("Proxy", "p", "one"), "");
    assert_eq!(answers(&rig.sent(Method::Invite).unwrap().0), [answer("p", "one", 1)]);
    rig.respond(401, "INVITE", 2, &challenge("WWW", "s", "two"), "");
    let both = [answer("s", "two", 1), answer("p", "one", 2)];
    assert_eq!(answers(&rig.sent(Method::Invite).unwrap().0), both);
    rig.respond(200, "INVITE", 3, "Contact: <sip:peer@10.0.0.3:5062>\r\n", "v=0\r\n");
    assert!(matches!(rig.events()[..], [LegEvent::Answered { .. }]));
}

#[test]
fn challenges_that_come_at_once_are_answered_at_once() {
    for status in [401, 407] {
        let mut rig = Rig::calling();
        let asked =
            challenge("WWW", "s", "a") + &challenge("Proxy", "p", "b") + &challenge("Proxy", "q", "c");
        rig.respond(status, "INVITE", 1, &asked, "");
        let all = [answer("s", "a", 1), answer("p", "b", 1), answer("q", "c", 1)];
        assert_eq!(answers(&rig.sent(Method::Invite).unwrap().0), all);
    }
}

#[test]
fn an_answer_is_given_again_only_if_its_nonce_was_too_old() {
    let mut rig = Rig::calling();
    rig.respond(407, "INVITE", 1, &challenge("Proxy", "p", "one"), "");
    let stale = challenge("Proxy", "p", "two").replace("qop", "stale=true, qop");
    rig.respond(407, "INVITE", 2, &stale, "");
    assert_eq!(answers(&rig.sent(Method::Invite).unwrap().0), [answer("p", "two", 1)]);
    rig.respond(407, "INVITE", 3, &challenge("Proxy", "p", "three"), "");
    assert!(matches!(rig.events()[..], [LegEvent::Failed { status: 407, .. }]), "the password is wrong");
    // Whoever never has enough is not asked for ever.
    let mut rig = Rig::calling();
    let mut sent = 1;
    while rig.events().is_empty() {
        let stale = challenge("Proxy", "p", &format!("n{sent}")).replace("qop", "stale=true, qop");
        rig.respond(407, "INVITE", sent, &stale, "");
        sent += 1;
        assert!(sent < 10);
    }
}

#[test]
fn a_nonce_that_a_peer_uses_again_is_counted_on() {
    let mut rig = Rig::calling();
    rig.respond(401, "INVITE", 1, &challenge("WWW", "x", "n"), "");
    rig.respond(200, "INVITE", 2, "Contact: <sip:peer@10.0.0.3:5062>\r\n", "v=0\r\n");
    rig.hang_up();
    assert!(answers(&rig.sent(Method::Bye).unwrap().0).is_empty());
    rig.respond(401, "BYE", 3, &challenge("WWW", "x", "n"), "");
    assert_eq!(answers(&rig.sent(Method::Bye).unwrap().0), [answer("x", "n", 2)]);
}

#[test]
fn a_challenged_prack_is_sent_again_in_its_early_dialog() {
    let mut rig = Rig::calling();
    let reliable = "Require: 100rel\r\nRSeq: 7\r\nContact: <sip:fork@10.0.0.9:5070>\r\n";
    rig.respond(183, "INVITE", 1, reliable, "v=0\r\n");
    let (prack, _) = rig.sent(Method::Prack).unwrap();
    rig.respond(407, "PRACK", prack.cseq(), &challenge("Proxy", "p", "n"), "");
    let (again, to) = rig.sent(Method::Prack).unwrap();
    assert_eq!(answers(&again), [answer("p", "n", 1)]);
    assert_eq!((again.header(Header::RAck), again.to_tag()), (Some("7 1 INVITE"), Some(THEIRS)));
    assert_eq!((again.request_uri(), to.remote), ("sip:fork@10.0.0.9:5070", ([10, 0, 0, 9], 5070).into()));
}

#[test]
fn each_of_two_forks_whose_pracks_are_challenged_gets_its_answer() {
    let mut rig = Rig::calling();
    let mut pracks = Vec::new();
    for (tag, host) in [("one", 8), ("two", 9)] {
        let headers = format!("Require: 100rel\r\nRSeq: 7\r\nContact: <sip:fork@10.0.0.{host}:5070>\r\n");
        rig.respond_as(tag, 183, "INVITE", 1, &headers, "v=0\r\n");
        pracks.push(rig.sent(Method::Prack).unwrap().0);
    }
    for (tag, prack, nonce) in [("one", &pracks[0], "a"), ("two", &pracks[1], "b")] {
        rig.respond_as(tag, 407, "PRACK", prack.cseq(), &challenge("Proxy", "p", nonce), "");
        let (again, _) = rig.sent(Method::Prack).unwrap();
        assert_eq!(answers(&again), [answer("p", nonce, 1)]);
        assert_eq!((again.to_tag(), again.request_uri()), (Some(tag), prack.request_uri()));
        // Its password is wrong; that is no news of the other's.
        rig.respond_as(tag, 407, "PRACK", again.cseq(), &challenge("Proxy", "p", "c"), "");
        assert!(rig.sent(Method::Prack).is_none());
    }
}

#[test]
fn a_challenge_for_a_branch_that_has_lost_is_not_answered_in_the_one_that_is_kept() {
    let mut rig = Rig::calling();
    let headers = "Require: 100rel\r\nRSeq: 7\r\nContact: <sip:fork@10.0.0.9:5070>\r\n";
    rig.respond_as("lost", 183, "INVITE", 1, headers, "v=0\r\n");
    let (prack, _) = rig.sent(Method::Prack).unwrap();
    rig.respond(200, "INVITE", 1, "Contact: <sip:peer@10.0.0.3:5062>\r\n", "v=0\r\n");
    rig.respond_as("lost", 407, "PRACK", prack.cseq(), &challenge("Proxy", "p", "n"), "");
    assert!(rig.sent(Method::Prack).is_none());
}

#[test]
fn a_challenged_bye_that_ends_a_lost_branch_is_sent_again_to_that_branch() {
    let mut rig = Rig::answered("");
    let headers = "Contact: <sip:fork@10.0.0.9:5070>\r\nRecord-Route: <sip:10.0.0.8:5080;lr>\r\n";
    rig.respond_as("lost", 200, "INVITE", 1, headers, "v=0\r\n");
    let (bye, to) = rig.sent(Method::Bye).unwrap();
    rig.respond_as("lost", 407, "BYE", bye.cseq(), &challenge("Proxy", "p", "n"), "");
    let (again, to_again) = rig.sent(Method::Bye).unwrap();
    assert_eq!(answers(&again), [answer("p", "n", 1)]);
    assert_eq!((again.to_tag(), again.cseq(), to_again), (Some("lost"), bye.cseq() + 1, to));
    for header in [Header::Route, Header::Reason, Header::From, Header::CallId] {
        assert_eq!(again.header(header), bye.header(header));
    }
    assert_ne!(again.via().branch(), bye.via().branch());
    // Its password is wrong: that is all. The branch that is kept goes on, and ends by its own BYE only.
    rig.respond_as("lost", 407, "BYE", again.cseq(), &challenge("Proxy", "p", "m"), "");
    assert!(rig.sent(Method::Bye).is_none() && !rig.finished());
    rig.hang_up();
    let (own, _) = rig.sent(Method::Bye).unwrap();
    assert!(own.cseq() > again.cseq(), "its answer cannot be taken for the other's");
    rig.respond_as("lost", 200, "BYE", again.cseq(), "", "");
    assert!(!rig.finished());
    rig.respond(200, "BYE", own.cseq(), "", "");
    assert!(rig.finished());
}

#[test]
fn an_answer_to_an_invite_that_was_sent_anew_is_ended() {
    let mut rig = Rig::calling();
    rig.respond_as("one", 407, "INVITE", 1, &challenge("Proxy", "p", "n"), "");
    assert_eq!(rig.sent(Method::Invite).unwrap().0.cseq(), 2);
    rig.respond_as("two", 200, "INVITE", 1, "Contact: <sip:fork@10.0.0.9:5070>\r\n", "v=0\r\n");
    let acks = rig.out.iter().filter(|output| matches!(output, Output::Ack { .. })).count();
    let (bye, to) = rig.sent(Method::Bye).unwrap();
    assert_eq!((acks, bye.to_tag(), to.remote), (1, Some("two"), ([10, 0, 0, 9], 5070).into()));
    rig.respond(200, "INVITE", 2, "Contact: <sip:peer@10.0.0.3:5062>\r\n", "v=0\r\n");
    assert!(matches!(rig.events()[..], [LegEvent::Answered { .. }]), "the one sent anew goes on");
}

#[test]
fn a_rebuilt_dialog_asks_for_its_credentials_by_the_name_of_the_account() {
    let mut rig = Rig::answered("");
    // All that a checkpoint has of it.
    rig.dialog = Dialog::restore(rig.dialog.with_account(Some("carrier".into())), at(0));
    rig.hang_up();
    let (bye, _) = rig.sent(Method::Bye).unwrap();
    rig.respond(407, "BYE", bye.cseq(), &challenge("Proxy", "p", "n"), "");
    let [Output::Challenged { account, response }] = &rig.out[..] else { panic!("{:?}", rig.out) };
    assert_eq!(account, "carrier");
    let (challenge, without) = (response.clone(), rig.dialog.clone());
    let credentials = Some(Credentials { username: "u".into(), password: "p".into() });
    rig.feed(Input::Credentials { credentials, challenge: challenge.clone() });
    assert_eq!(answers(&rig.sent(Method::Bye).unwrap().0), [answer("p", "n", 1)]);
    assert!(!rig.finished());
    // The settings have them no more: it is a refusal, and the leg is over.
    rig.dialog = without;
    rig.feed(Input::Credentials { credentials: None, challenge });
    assert!(rig.finished() && rig.sent(Method::Bye).is_none());
}

#[test]
fn a_bye_to_a_caller_whose_trunk_asks_who_we_are_is_answered_too() {
    let mut rig = Rig::called();
    rig.dialog = rig.dialog.with_account(Some("carrier".into()));
    rig.hang_up();
    let (bye, _) = rig.sent(Method::Bye).unwrap();
    rig.respond(401, "BYE", bye.cseq(), &challenge("WWW", "s", "n"), "");
    assert!(matches!(&rig.out[..], [Output::Challenged { account, .. }] if account == "carrier"));
}

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

#[test]
fn a_dialog_that_counts_a_nonce_does_not_sleep_for_no_checkpoint_has_the_count() {
    let accepted = |rig: &mut Rig, cseq| {
        rig.respond(200, "INVITE", cseq, "Contact: <sip:peer@10.0.0.3:5062>\r\n", "v=0\r\n");
        assert!(rig.dialog.rests());
        rig.dialog.may_sleep()
    };
    let mut rig = Rig::calling();
    rig.respond(407, "INVITE", 1, &challenge("Proxy", "p", "one"), "");
    assert!(!accepted(&mut rig, 2));
    let mut rig = Rig::calling();
    assert!(accepted(&mut rig, 1), "nobody has asked");
    rig.command(Command::Reoffer { sdp: Bytes::from_static(SDP) });
    assert!(!rig.dialog.may_sleep(), "the re-INVITE may be challenged");
}
