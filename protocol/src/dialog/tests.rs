mod challenge;
mod delayed;
mod fork;
mod info;
mod offers;
mod prack;
mod progress;
mod reinvite;
mod replaces;
mod rig;
mod session_timer;

use rig::*;

use super::*;
use crate::flow::ListenerId;
use crate::message::{Header, Limits};
use crate::transaction::Timers;

#[test]
fn the_200_is_held_until_it_may_go_then_repeated_until_the_ack() {
    let mut rig = Rig::incoming("");
    rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(SDP) });
    assert_eq!((rig.events(), rig.statuses()), (vec![LegEvent::AnswerReady], vec![]));
    rig.command(Command::SendAnswer);
    assert_eq!(rig.statuses(), [200]);
    assert_eq!(rig.dialog.deadline(), Some(Instant(500_000)));
    rig.timeout(500);
    assert_eq!(rig.statuses(), [200]);
    assert_eq!(rig.dialog.deadline(), Some(Instant(1_500_000)));
    rig.ack(1);
    assert!(
        rig.dialog.deadline().is_none_or(|at| at >= Instant(900_000_000)),
        "nothing is repeated any more"
    );
}

#[test]
fn an_ack_of_another_dialog_acknowledges_nothing() {
    let mut rig = Rig::incoming("");
    rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(SDP) });
    rig.command(Command::SendAnswer);
    for (tag, id) in [("guessed", "id"), (THEIRS, "guessed")] {
        let ack = parse(&format!(
            "ACK sip:10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.66;branch=z9hG4bKa\r\nFrom: <sip:peer@x>;tag={tag}\r\n\
             To: <sip:us@x>;tag={OURS}\r\nCall-ID: {id}\r\nCSeq: 1 ACK\r\nMax-Forwards: 70\r\n\r\n"
        ));
        rig.feed(Input::Request { transaction: None, request: ack, source: flow() });
    }
    rig.timeout(500);
    assert_eq!(rig.statuses(), [200], "the 200 is still repeated");
}

#[test]
fn a_200_that_is_never_acknowledged_is_followed_by_bye() {
    let mut rig = Rig::incoming("");
    rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(SDP) });
    rig.command(Command::SendAnswer);
    rig.timeout(32_000);
    assert_eq!(rig.ended(), Some(EndedBy::NoAck));
    assert!(rig.sent(Method::Bye).is_some() && !rig.finished());
    rig.respond(200, "BYE", 1, "", "");
    assert!(rig.finished());
}

#[test]
fn a_bye_of_ours_waits_for_the_ack_of_our_200() {
    let mut rig = Rig::incoming("");
    rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(SDP) });
    rig.command(Command::SendAnswer);
    rig.hang_up();
    assert!(rig.out.is_empty());
    rig.timeout(500);
    assert_eq!(rig.statuses(), [200], "the 200 is still repeated");
    rig.ack(1);
    assert!(rig.sent(Method::Bye).is_some());
}

#[test]
fn a_cancel_before_the_200_left_is_answered_487_and_after_it_changes_nothing() {
    let mut rig = Rig::incoming("");
    rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(SDP) });
    rig.feed(Input::Cancelled { transaction: ServerTransactionId(1), reason: None });
    assert_eq!((rig.statuses(), rig.events()), (vec![487], vec![LegEvent::Cancelled]));
    assert!(rig.finished());
    let mut rig = Rig::called();
    rig.feed(Input::Cancelled { transaction: ServerTransactionId(1), reason: None });
    assert!(rig.out.is_empty() && rig.dialog.is_established());
}

#[test]
fn our_cancel_waits_for_a_provisional_response() {
    let mut rig = Rig::calling();
    rig.hang_up();
    assert!(rig.out.is_empty());
    rig.respond(100, "INVITE", 1, "", "");
    assert!(rig.sent(Method::Cancel).is_some());
    rig.respond(487, "INVITE", 1, "", "");
    assert!(rig.finished());
}

#[test]
fn a_200_that_crosses_our_cancel_is_acknowledged_and_ended_with_bye() {
    let mut rig = Rig::calling();
    rig.respond(180, "INVITE", 1, "", "");
    rig.hang_up();
    rig.respond(200, "INVITE", 1, "Contact: <sip:peer@10.0.0.3:5062>\r\n", "v=0\r\n");
    assert!(rig.sent(Method::Ack).is_some() && rig.sent(Method::Bye).is_some());
    assert!(rig.events().is_empty(), "nobody is told of an answer");
    rig.respond(200, "BYE", 2, "", "");
    assert_eq!(rig.ended(), Some(EndedBy::Us));
}

#[test]
fn a_cancelled_invite_without_a_final_response_is_given_up_after_64_t1() {
    let mut rig = Rig::calling();
    rig.respond(180, "INVITE", 1, "", "");
    rig.hang_up();
    assert_eq!(rig.dialog.deadline(), Some(Instant(32_000_000)));
    rig.timeout(32_000);
    assert!(rig.finished());
}

#[test]
fn byes_that_cross_are_both_answered() {
    let mut rig = Rig::called();
    rig.hang_up();
    assert!(rig.sent(Method::Bye).is_some());
    rig.request("BYE", 2, "", "");
    assert_eq!(rig.statuses(), [200]);
    assert!(rig.ended().is_some() && rig.finished(), "his BYE says that ours need not be answered");
    rig.respond(481, "BYE", 1, "", "");
    assert!(rig.out.is_empty());
}

#[test]
fn the_peers_bye_ends_the_dialog_and_the_re_invite_it_left_open() {
    let mut rig = Rig::called();
    rig.request("INVITE", 2, "", "v=0\r\n");
    assert!(matches!(rig.events()[..], [LegEvent::Reoffer { .. }]));
    rig.request("BYE", 3, "", "");
    assert_eq!(rig.statuses(), [487, 200]);
    assert_eq!(rig.ended(), Some(EndedBy::Peer));
}

#[test]
fn a_request_that_reaches_a_dialog_that_is_over_is_answered() {
    let mut rig = Rig::called();
    rig.request("BYE", 2, "", "");
    rig.request("INVITE", 3, "", "v=0\r\n");
    assert_eq!(rig.statuses(), [481]);
}

#[test]
fn a_repeated_2xx_of_an_earlier_invite_is_acknowledged_again() {
    let mut rig = Rig::answered("");
    rig.command(Command::Reoffer { sdp: Bytes::from_static(SDP) });
    rig.respond(200, "INVITE", 2, "", "v=0\r\n");
    rig.respond(200, "INVITE", 1, "", "v=0\r\n");
    let (ack, _) = rig.sent(Method::Ack).unwrap();
    assert_eq!(ack.cseq(), 1);
    assert!(rig.events().is_empty());
}

#[test]
fn the_2xx_of_a_second_branch_is_acknowledged_and_ended() {
    let mut rig = Rig::answered("");
    let contact = "Contact: <sip:other@10.0.0.9:5060>\r\n";
    rig.feed(Input::Response(response(200, "INVITE", 1, "another", contact, "v=0\r\n")));
    let (ack, to) = rig.sent(Method::Ack).unwrap();
    assert_eq!((ack.to_tag(), to.remote), (Some("another"), ([10, 0, 0, 9], 5060).into()));
    assert_eq!(rig.sent(Method::Bye).unwrap().0.to_tag(), Some("another"));
    rig.feed(Input::Response(response(200, "BYE", 2, "another", "", "")));
    assert!(rig.dialog.is_established(), "the branch that was kept goes on");
}

#[test]
fn the_end_of_a_second_branch_leaves_the_re_invite_of_the_first_open() {
    let mut rig = Rig::answered("");
    rig.request("INVITE", 2, "", "v=0\r\n");
    rig.feed(Input::Response(response(
        200,
        "INVITE",
        1,
        "second",
        "Contact: <sip:o@10.0.0.9>\r\n",
        "v=0\r\n",
    )));
    assert!(rig.sent(Method::Bye).is_some() && rig.statuses().is_empty());
    rig.command(Command::AnswerReoffer { sdp: Bytes::from_static(SDP) });
    assert_eq!(rig.statuses(), [200]);
}

#[test]
fn the_byes_that_end_further_branches_are_transactions_of_their_own() {
    let mut rig = Rig::answered("");
    let contact = "Contact: <sip:other@10.0.0.9:5060>\r\n";
    let mut branches = std::collections::BTreeSet::new();
    for tag in ["second", "third"] {
        rig.feed(Input::Response(response(200, "INVITE", 1, tag, contact, "v=0\r\n")));
        let (bye, _) = rig.sent(Method::Bye).unwrap();
        assert!(branches.insert(bye.via().branch().unwrap().to_owned()), "{branches:?}");
    }
    rig.hang_up();
    assert!(branches.insert(rig.sent(Method::Bye).unwrap().0.via().branch().unwrap().to_owned()));
}

#[test]
fn a_re_invite_while_ours_is_open_is_answered_491_and_a_second_one_of_theirs_500() {
    let mut rig = Rig::answered("");
    rig.command(Command::Reoffer { sdp: Bytes::from_static(SDP) });
    rig.request("INVITE", 2, "", "v=0\r\n");
    assert_eq!(rig.statuses(), [491]);
    let mut rig = Rig::answered("");
    rig.request("INVITE", 2, "", "v=0\r\n");
    rig.request("INVITE", 3, "", "v=0\r\n");
    assert_eq!(rig.statuses(), [500]);
    rig.command(Command::Reoffer { sdp: Bytes::from_static(SDP) });
    assert_eq!(rig.events(), [LegEvent::ReofferRefused { status: 491 }]);
}

#[test]
fn a_re_invite_that_is_refused_leaves_the_session_and_one_that_is_lost_ends_it() {
    let mut rig = Rig::answered("");
    rig.command(Command::Reoffer { sdp: Bytes::from_static(SDP) });
    rig.respond(488, "INVITE", 2, "", "");
    assert_eq!(rig.events(), [LegEvent::ReofferRefused { status: 488 }]);
    assert!(rig.dialog.is_established());
    rig.command(Command::Reoffer { sdp: Bytes::from_static(SDP) });
    rig.feed(Input::Unanswered { method: Method::Invite, cseq: 3, why: NoAnswer::Timeout });
    assert_eq!(rig.ended(), Some(EndedBy::Lost));
    assert!(rig.sent(Method::Bye).is_some());
    let mut rig = Rig::answered("");
    rig.command(Command::Reoffer { sdp: Bytes::from_static(SDP) });
    rig.respond(481, "INVITE", 2, "", "");
    assert_eq!((rig.ended(), rig.finished()), (Some(EndedBy::Lost), true));
}

#[test]
fn a_cseq_that_is_too_low_is_answered_500_and_a_foreign_tag_481() {
    let mut rig = Rig::called();
    rig.request("OPTIONS", 5, "", "");
    assert_eq!(rig.statuses(), [200]);
    rig.request("BYE", 4, "", "");
    assert_eq!(rig.statuses(), [500]);
    let foreign = parse(&String::from_utf8_lossy(request("BYE", 9, "", "").raw()).replace(THEIRS, "forged"));
    let transaction = Some(ServerTransactionId(9));
    rig.feed(Input::Request { transaction, request: foreign, source: flow() });
    assert_eq!(rig.statuses(), [481]);
    assert!(rig.dialog.is_established());
}

#[test]
fn a_re_invite_and_its_2xx_refresh_the_remote_target() {
    let mut rig = Rig::called();
    rig.request("INVITE", 2, "Contact: <sip:moved@10.0.0.7:5070>\r\n", "v=0\r\n");
    rig.command(Command::AnswerReoffer { sdp: Bytes::from_static(SDP) });
    rig.ack(2);
    rig.hang_up();
    let (bye, to) = rig.sent(Method::Bye).unwrap();
    assert_eq!((bye.request_uri(), to.remote), ("sip:moved@10.0.0.7:5070", ([10, 0, 0, 7], 5070).into()));
}

#[test]
fn a_loose_route_keeps_the_target_and_a_strict_one_takes_its_place() {
    // The 2xx lists the proxies from the callee's end; we go through the last one first.
    let loose = "Record-Route: <sip:10.0.0.6;lr>\r\nRecord-Route: <sip:10.0.0.5:5080;lr>\r\n";
    let mut rig = Rig::answered(loose);
    let (ack, to) = rig.sent(Method::Ack).unwrap();
    assert_eq!(ack.request_uri(), "sip:peer@10.0.0.3:5062");
    assert_eq!(
        ack.headers(Header::Route).collect::<Vec<_>>(),
        ["<sip:10.0.0.5:5080;lr>", "<sip:10.0.0.6;lr>"]
    );
    assert_eq!(to.remote, ([10, 0, 0, 5], 5080).into());
    rig.hang_up();
    assert_eq!(rig.sent(Method::Bye).unwrap().1.remote, ([10, 0, 0, 5], 5080).into());
    let rig = Rig::answered("Record-Route: <sip:10.0.0.6;lr>, <sip:10.0.0.5:5080>\r\n");
    let (ack, to) = rig.sent(Method::Ack).unwrap();
    assert_eq!(ack.request_uri(), "sip:10.0.0.5:5080");
    let routes: Vec<&str> = ack.headers(Header::Route).collect();
    assert_eq!(routes, ["<sip:10.0.0.6;lr>", "<sip:peer@10.0.0.3:5062>"]);
    assert_eq!(to.remote, ([10, 0, 0, 5], 5080).into());
}

#[test]
fn the_peers_route_set_is_kept_in_the_order_of_his_invite() {
    let mut rig =
        Rig::incoming("Record-Route: <sip:10.0.0.5:5080;lr>\r\nRecord-Route: <sip:10.0.0.6;lr>\r\n");
    rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(SDP) });
    rig.command(Command::SendAnswer);
    rig.ack(1);
    rig.hang_up();
    let (bye, to) = rig.sent(Method::Bye).unwrap();
    assert_eq!(
        bye.headers(Header::Route).collect::<Vec<_>>(),
        ["<sip:10.0.0.5:5080;lr>", "<sip:10.0.0.6;lr>"]
    );
    assert_eq!(to.remote, ([10, 0, 0, 5], 5080).into());
}

#[test]
fn behind_nat_requests_go_where_the_signalling_comes_from() {
    let invite = request("INVITE", 1, "Contact: <sip:peer@192.168.1.9:5060>\r\n", "v=0\r\n");
    let id = ServerTransactionId(1);
    let dialog = Dialog::incoming(id, invite, flow(), OURS.into(), local(), Routing::Flow);
    let mut rig = Rig { dialog, now: 0, out: Vec::new(), transactions: 1 };
    rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(SDP) });
    rig.command(Command::SendAnswer);
    rig.ack(1);
    rig.hang_up();
    let (bye, to) = rig.sent(Method::Bye).unwrap();
    assert_eq!((bye.request_uri(), to), ("sip:peer@192.168.1.9:5060", flow()));
}

#[test]
fn a_challenge_is_answered_once() {
    let mut rig = Rig::calling();
    let challenge = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", algorithm=MD5, qop=\"auth\"\r\n";
    rig.respond(401, "INVITE", 1, challenge, "");
    let (again, _) = rig.sent(Method::Invite).unwrap();
    assert_eq!(again.cseq(), 2);
    assert!(again.header(Header::Authorization).is_some());
    rig.respond(401, "INVITE", 2, challenge, "");
    assert!(matches!(rig.events()[..], [LegEvent::Failed { status: 401, .. }]));
    assert!(rig.finished());
}

#[test]
fn a_restored_dialog_continues_above_every_cseq_it_may_have_used() {
    let rig = Rig::answered("");
    assert!(rig.dialog.is_kept());
    let mut rig = Rig { dialog: Dialog::restore(rig.dialog, at(5_000)), ..rig };
    rig.hang_up();
    let (bye, _) = rig.sent(Method::Bye).unwrap();
    assert_eq!(bye.cseq(), 102);
}

#[test]
fn an_answer_that_was_held_when_the_process_died_is_sent_by_the_next() {
    let mut rig = Rig::incoming("");
    assert!(!rig.dialog.is_kept());
    rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(SDP) });
    assert!(rig.dialog.is_kept());
    let mut rig = Rig { dialog: Dialog::restore(rig.dialog, at(5_000)), ..rig };
    assert_eq!(rig.dialog.deadline(), Some(Instant(5_000_000)));
    rig.timeout(5_000);
    assert_eq!(rig.statuses(), [200]);
    rig.ack(1);
    assert!(rig.dialog.is_established());
}

#[test]
fn a_restored_dialog_asks_its_peer_whether_he_still_knows_it() {
    for status in [200, 405, 481] {
        let rig = Rig::answered("");
        let mut rig = Rig { dialog: Dialog::restore(rig.dialog, at(0)), ..rig };
        let due = rig.dialog.deadline().unwrap();
        assert!(due >= Instant(1_000_000) && due < Instant(16_000_000));
        rig.timeout(due.0.div_ceil(1000));
        let (options, _) = rig.sent(Method::Options).unwrap();
        rig.respond(status, "OPTIONS", options.cseq(), "", "");
        assert_eq!(rig.ended(), (status == 481).then_some(EndedBy::Lost));
        assert_eq!(rig.dialog.is_established(), status != 481);
    }
    let rig = Rig::answered("");
    let mut rig = Rig { dialog: Dialog::restore(rig.dialog, at(0)), ..rig };
    rig.timeout(16_000);
    rig.feed(Input::Unanswered { method: Method::Options, cseq: 102, why: NoAnswer::Timeout });
    assert_eq!(rig.ended(), Some(EndedBy::Lost));
    assert!(rig.sent(Method::Bye).is_some());
}
