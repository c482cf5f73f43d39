use super::*;

const BRANCH_OURS: &str = "z9hG4bKours.1";

fn answer_of(tag: &str) -> Message {
    response(200, "INVITE", 1, tag, "Contact: <sip:fork@10.0.0.9:5070>\r\n", "v=0\r\n")
}

fn requests(out: &[Output]) -> Vec<(Message, Flow)> {
    let sent = |output: &Output| match output {
        Output::Request { message, to, .. } | Output::Ack { message, to } => {
            Some((Message::parse(message.clone(), &Limits::default()).unwrap(), *to))
        }
        _ => None,
    };
    out.iter().filter_map(sent).collect()
}

fn methods(out: &[Output]) -> Vec<Method> {
    requests(out).iter().map(|(message, _)| message.method()).collect()
}

#[test]
fn each_further_branch_is_ended_once_and_acknowledged_as_often_as_it_answers() {
    let mut rig = Rig::answered("");
    let mut branches = Vec::new();
    for tag in ["second", "third"] {
        rig.feed(Input::Response(answer_of(tag)));
        assert_eq!(methods(&rig.out), [Method::Ack, Method::Bye], "{tag}");
        let bye = &requests(&rig.out)[1].0;
        assert_eq!((bye.to_tag(), bye.request_uri()), (Some(tag), "sip:fork@10.0.0.9:5070"));
        branches.push(bye.via().branch().unwrap().to_owned());
        rig.feed(Input::Response(answer_of(tag)));
        assert_eq!(methods(&rig.out), [Method::Ack], "{tag}");
    }
    // Two BYEs under one branch would be one transaction.
    assert_ne!(branches[0], branches[1]);
    assert!(rig.dialog.is_established());
}

#[test]
fn a_bye_of_a_branch_that_crosses_ours_is_answered_and_one_of_nobody_is_not() {
    let bye_of = |rig: &mut Rig, tag: &str| {
        let text = String::from_utf8_lossy(request("BYE", 1, "", "").raw()).replace(THEIRS, tag);
        let transaction = Some(ServerTransactionId(9));
        rig.feed(Input::Request { transaction, request: parse(&text), source: flow() });
        rig.statuses()
    };
    let mut rig = Rig::answered("");
    rig.feed(Input::Response(answer_of("second")));
    assert_eq!(bye_of(&mut rig, "second"), [200]);
    assert_eq!(bye_of(&mut rig, "third"), [481]);
    assert!(rig.dialog.is_established() && rig.events().is_empty());
}

#[test]
fn the_early_description_of_the_branch_that_answers_stands_for_a_2xx_without_one() {
    let mut rig = Rig::calling();
    for (tag, sdp) in [("a", "v=0\r\ns=a\r\n"), ("b", "v=0\r\ns=b\r\n")] {
        rig.feed(Input::Response(response(183, "INVITE", 1, tag, "", sdp)));
    }
    rig.feed(Input::Response(response(200, "INVITE", 1, "a", "Contact: <sip:peer@10.0.0.3>\r\n", "")));
    assert_eq!(rig.events(), [LegEvent::Answered { sdp: Bytes::from_static(b"v=0\r\ns=a\r\n") }]);
}

fn stray(from_tag: &str, branch: &str, extra: &str) -> Message {
    parse(&format!(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch={branch};rport=5060\r\nFrom: <sip:us@x>;tag={from_tag}\r\n\
         To: <sip:peer@x>;tag={THEIRS}\r\nCall-ID: id\r\nCSeq: 7 INVITE\r\nContact: <sip:peer@10.0.0.3:5062>\r\n\
         {extra}Content-Length: 0\r\n\r\n"
    ))
}

#[test]
fn an_answer_that_nobody_waits_for_is_ended_from_its_own_headers() {
    let routed = "Record-Route: <sip:10.0.0.8;lr>, <sip:10.0.0.7;lr>\r\n";
    let out = end_stray_response(&stray(OURS, BRANCH_OURS, routed), flow(), local());
    let sent = requests(&out);
    assert_eq!(methods(&out), [Method::Ack, Method::Bye]);
    for (message, to) in &sent {
        assert_eq!(message.request_uri(), "sip:peer@10.0.0.3:5062");
        assert_eq!((message.from_tag(), message.to_tag()), (Some(OURS), Some(THEIRS)));
        let routes: Vec<&str> = message.values(Header::Route).collect();
        assert_eq!(routes, ["<sip:10.0.0.7;lr>", "<sip:10.0.0.8;lr>"]);
        // Where it came from, whatever it names: else a forged answer would aim us at others.
        assert_eq!(*to, flow());
    }
    // Above whatever a PRACK or UPDATE has had.
    assert_eq!((sent[0].0.cseq(), sent[1].0.cseq()), (7, 108));
    // Every copy gets the same, so that the peer and our transactions know it again.
    let again = requests(&end_stray_response(&stray(OURS, BRANCH_OURS, routed), flow(), local()));
    assert_eq!(again[1].0.raw(), sent[1].0.raw());
}

#[test]
fn a_phone_that_rings_for_nobody_is_cancelled_and_its_refusal_acknowledged() {
    let said = |status: &str| {
        let text = String::from_utf8_lossy(stray(OURS, BRANCH_OURS, "").raw()).replace("200 OK", status);
        end_stray_response(&parse(&text), flow(), local())
    };
    let ringing = said("180 Ringing");
    assert_eq!(methods(&ringing), [Method::Cancel]);
    let (cancel, to) = &requests(&ringing)[0];
    // RFC 3261 §9.1: the INVITE's branch, number and parties, the callee without its tag.
    assert_eq!((cancel.branch(), cancel.cseq(), *to), (Some(BRANCH_OURS), 7, flow()));
    assert_eq!((cancel.from_tag(), cancel.to_tag(), cancel.call_id()), (Some(OURS), None, "id"));
    let refused = said("487 Request Terminated");
    assert_eq!(methods(&refused), [Method::Ack]);
    let (ack, _) = &requests(&refused)[0];
    // §17.1.1.3: of the transaction, so with its branch, and with the callee's tag.
    assert_eq!((ack.branch(), ack.cseq(), ack.to_tag()), (Some(BRANCH_OURS), 7, Some(THEIRS)));
    assert!(said("100 Trying").is_empty(), "nothing rings yet");
}

#[test]
fn an_answer_to_what_we_never_sent_draws_nothing() {
    let silent = |message: Message| end_stray_response(&message, flow(), local()).is_empty();
    assert!(!silent(stray(OURS, BRANCH_OURS, "")));
    assert!(silent(stray("other", BRANCH_OURS, "")), "the branch is not of this tag");
    assert!(silent(stray(OURS, "z9hG4bKours", "")), "not a branch of ours");
    assert!(silent(stray(OURS, BRANCH_OURS, "Via: SIP/2.0/UDP 10.0.0.9\r\n")), "it is on its way to another");
    let elsewhere = LocalSide { via: "SIP/2.0/UDP 10.0.0.77:5060".into(), ..(*local()).clone() };
    assert!(end_stray_response(&stray(OURS, BRANCH_OURS, ""), flow(), Arc::new(elsewhere)).is_empty());
    assert!(silent(response(486, "INVITE", 1, THEIRS, "", "")));
    assert!(silent(response(200, "BYE", 1, THEIRS, "Contact: <sip:a@b>\r\n", "")));
}

const RELIABLE: &str =
    "Require: 100rel\r\nRSeq: 1\r\nContact: <sip:fork@10.0.0.9:5070>\r\nAllow: INVITE, UPDATE\r\n";

/// Our INVITE with an early session of the peer's branch, who offers another by UPDATE.
fn early_update() -> Rig {
    let mut rig = Rig::calling();
    rig.respond(183, "INVITE", 1, RELIABLE, "v=0\r\n");
    assert!(matches!(rig.events()[..], [LegEvent::EarlySession { .. }]));
    rig.request("UPDATE", 1, "", "v=5\r\n");
    assert!(matches!(rig.events()[..], [LegEvent::Update { .. }]));
    rig
}

#[test]
fn an_update_of_a_branch_that_has_lost_is_answered_at_once() {
    let mut rig = early_update();
    rig.feed(Input::Response(answer_of("another")));
    assert_eq!(rig.statuses(), [481]);
    assert!(rig.events().contains(&LegEvent::ReofferCancelled { reason: None }), "{:?}", rig.events());
    let mut rig = early_update();
    rig.respond(486, "INVITE", 1, "", "");
    assert_eq!(rig.statuses(), [481], "nobody is left to answer it");
    let mut rig = early_update();
    rig.respond(200, "INVITE", 1, "Contact: <sip:peer@10.0.0.3>\r\n", "");
    assert!(rig.statuses().is_empty(), "the branch that has answered may wait for its own");
}

#[test]
fn a_199_ends_an_early_dialog_and_is_no_ringing() {
    let mut rig = Rig::calling();
    rig.respond(199, "INVITE", 1, "", "");
    assert!(rig.out.is_empty() && !rig.dialog.is_over());
    let mut rig = early_update();
    rig.feed(Input::Response(response(199, "INVITE", 1, "another", "", "")));
    assert!(rig.out.is_empty(), "another's");
    rig.respond(199, "INVITE", 1, "Require: 100rel\r\nRSeq: 2\r\n", "");
    assert!(rig.sent(Method::Prack).is_some());
    assert_eq!(rig.statuses(), [481]);
    assert_eq!(rig.events(), [LegEvent::ReofferCancelled { reason: None }, LegEvent::EarlyEnded]);
    rig.request("UPDATE", 2, "", "v=6\r\n");
    assert_eq!(rig.statuses(), [481]);
    rig.feed(Input::Response(answer_of("another")));
    assert_eq!(rig.events(), [LegEvent::Answered { sdp: Bytes::from_static(SDP) }]);
}

#[test]
fn the_dialog_ends_by_the_answer_to_its_own_bye_whichever_tag_that_has() {
    let mut rig = Rig::answered("");
    rig.hang_up();
    let (own, _) = rig.sent(Method::Bye).unwrap();
    rig.respond_as("lost", 200, "INVITE", 1, "Contact: <sip:fork@10.0.0.9:5070>\r\n", "v=0\r\n");
    let (other, _) = rig.sent(Method::Bye).unwrap();
    rig.respond_as("lost", 200, "BYE", other.cseq(), "", "");
    assert!(!rig.finished());
    rig.respond_as("mended", 200, "BYE", own.cseq(), "", "");
    assert!(rig.finished());
}

#[test]
fn an_answer_over_which_the_dialog_was_lost_is_acknowledged_and_ended_and_nothing_is_cancelled() {
    let answer = answer_of(THEIRS);
    let mut rig = Rig::lost_over(&answer);
    assert_eq!(methods(&rig.out), [], "the INVITE has its final response (§9.1)");
    rig.feed(Input::Response(answer.clone()));
    assert_eq!(methods(&rig.out), [Method::Ack, Method::Bye]);
    rig.feed(Input::Response(answer));
    assert_eq!(methods(&rig.out), [Method::Ack], "its ACK was lost");
    let bye = rig.dialog.bye.unwrap();
    rig.respond(200, "BYE", bye, "", "");
    assert!(rig.finished());
}

#[test]
fn a_refusal_over_which_the_dialog_was_lost_is_the_end_of_it() {
    let refusal = response(486, "INVITE", 1, THEIRS, "", "");
    let mut rig = Rig::lost_over(&refusal);
    assert_eq!(methods(&rig.out), []);
    rig.feed(Input::Response(refusal));
    assert!(rig.finished());
    let mut rig = Rig::lost_over(&response(180, "INVITE", 1, THEIRS, "", ""));
    assert_eq!(methods(&rig.out), [Method::Cancel], "a ringing callee is given up");
    assert_eq!(rig.dialog.deadline(), Some(Instant(32_000_000)));
    rig.timeout(32_000);
    assert!(rig.finished());
}
