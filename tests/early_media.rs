//! Sessions before the answer: reliable provisional responses, PRACK, UPDATE, forks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::engine::station;
use common::offer::*;
use common::ua::token;
use common::{Engine, Leg, Msg, Ua};

#[test]
fn reliable_early_media_crosses_and_the_200_waits_for_the_prack() {
    for media in MODES {
        let (engine, a, b) = engine(media);
        let mut leg = a.call_with("1002", RELIABLE, &offer(&a, "0 8", ""));
        let invite = b.request("INVITE");
        assert_eq!(invite.header("Supported"), "100rel, replaces");
        let allow = invite.header("Allow");
        assert!(allow.contains("PRACK") && allow.contains("UPDATE"), "{allow}");
        reliably(&b, &invite, "183 Session Progress", "bob", 7, &offer(&b, "0", ""));
        let acknowledged = serve(&b, "PRACK", "");
        assert_eq!(acknowledged.header("RAck"), format!("7 {}", invite.header("CSeq")));
        let progress = a.response("INVITE", 183);
        assert_eq!(progress.header("Require"), "100rel");
        assert!(progress.sdp_line("m=audio ").unwrap().ends_with("RTP/AVP 0"));
        b.respond(&invite, "200 OK", "bob", "", "");
        b.request("ACK");
        // It comes again and again, and the 200 does not.
        let again = a.again("183 or 200", |m| m.method() == "INVITE");
        assert_eq!(again.text, progress.text);
        prack(&a, &mut leg, &progress, "");
        let mut statuses = vec![];
        while statuses.len() < 2 {
            let message = a.wait("two answers", |m| m.status().is_some_and(|status| status >= 200));
            statuses.push((message.method().to_owned(), message.status()));
            if message.method() == "INVITE" {
                assert_eq!(message.body(), "", "the answer has been given");
                a.ack(&leg, &message);
            }
        }
        assert!(
            statuses.contains(&("PRACK".into(), Some(200)))
                && statuses.contains(&("INVITE".into(), Some(200)))
        );
        end(&engine, &a, &mut leg, &b);
        engine.cdr("normal", 200, "caller");
    }
}

#[test]
fn a_caller_that_requires_reliability_gets_it_though_the_callee_has_none() {
    let (engine, a, b) = engine("anchored");
    let leg = a.call_with("1002", "Require: 100rel\r\n", &offer(&a, "0", ""));
    let mut early_leg = leg.clone();
    let invite = b.request("INVITE");
    b.respond(&invite, "180 Ringing", "bob", "", "");
    b.respond(&invite, "183 Session Progress", "bob", "", &offer(&b, "0", ""));
    let ringing = a.response("INVITE", 180);
    let first: u32 = ringing.header("RSeq").parse().unwrap();
    while let Some(message) = a.fresh(QUIET) {
        assert!(!message.answers("INVITE", 183), "the 180 is not acknowledged: {message:?}");
    }
    early(&mut early_leg, &ringing);
    early_leg.cseq += 4;
    a.next(&mut early_leg, "PRACK", &format!("RAck: {} {}\r\n", first + 1, ringing.header("CSeq")), "");
    a.response("PRACK", 481);
    prack(&a, &mut early_leg, &ringing, "");
    a.response("PRACK", 200);
    let progress = a.response("INVITE", 183);
    assert_eq!(progress.header("RSeq").parse(), Ok(first + 1));
    prack(&a, &mut early_leg, &progress, "");
    a.response("PRACK", 200);
    a.next(&mut early_leg, "PRACK", &format!("RAck: {} {}\r\n", first + 1, ringing.header("CSeq")), "");
    a.response("PRACK", 481);
    b.respond(&invite, "200 OK", "bob", "", &offer(&b, "0", ""));
    let answer = a.response("INVITE", 200);
    assert_eq!(answer.body(), "");
    a.ack(&leg, &answer);
    end(&engine, &a, &mut early_leg, &b);
}

#[test]
fn an_option_that_is_not_ours_is_refused_and_named() {
    let (_engine, a, _b) = engine("anchored");
    let mut leg = a.call_with("1002", "Require: 100rel, magic\r\n", &offer(&a, "0", ""));
    let refusal = a.refused(&leg);
    assert_eq!((refusal.status(), refusal.header("Unsupported")), (Some(420), "magic"));
    a.next(&mut leg, "OPTIONS", "", "");
    assert_eq!(a.response("OPTIONS", 200).header("Supported"), "100rel");
}

#[test]
fn a_reliable_response_out_of_order_is_neither_acknowledged_nor_heard() {
    let (engine, a, b) = engine("anchored");
    let leg = a.call_with("1002", RELIABLE, &offer(&a, "0", ""));
    let invite = b.request("INVITE");
    reliably(&b, &invite, "180 Ringing", "bob", 20, "");
    serve(&b, "PRACK", "");
    a.response("INVITE", 180);
    reliably(&b, &invite, "183 Session Progress", "bob", 22, "");
    reliably(&b, &invite, "180 Ringing", "bob", 20, "");
    nothing(&b, "PRACK");
    reliably(&b, &invite, "183 Session Progress", "bob", 21, "");
    assert!(serve(&b, "PRACK", "").header("RAck").starts_with("21 "));
    a.response("INVITE", 183);
    a.cancel(&leg);
    a.refused(&leg);
    serve(&b, "CANCEL", "");
    b.respond(&invite, "487 Request Terminated", "bob", "", "");
    engine.quiet();
}

#[test]
fn an_offer_in_a_reliable_response_is_answered_in_the_prack() {
    let (engine, a, b) = engine("bypass");
    let mut leg = a.call_with("1002", RELIABLE, "");
    let invite = b.request("INVITE");
    assert_eq!((invite.body(), invite.header("Supported")), ("", "100rel, replaces"));
    let (theirs, mine) = (offer(&b, "0 8", ""), offer(&a, "8", ""));
    reliably(&b, &invite, "183 Session Progress", "bob", 1, &theirs);
    let progress = a.response("INVITE", 183);
    assert_eq!(progress.body(), theirs);
    prack(&a, &mut leg, &progress, &mine);
    a.response("PRACK", 200);
    assert_eq!(serve(&b, "PRACK", "").body(), mine);
    b.respond(&invite, "200 OK", "bob", "", "");
    assert_eq!(b.request("ACK").body(), "");
    let answer = a.established(&mut leg);
    assert_eq!(answer.body(), "");
    end(&engine, &a, &mut leg, &b);
}

#[test]
fn a_caller_without_an_offer_that_takes_reliable_responses_gets_ours_early() {
    let (engine, a, b) = engine("anchored");
    let mut leg = a.call_with("1002", RELIABLE, "");
    let invite = b.request("INVITE");
    reliably(&b, &invite, "183 Session Progress", "bob", 1, &offer(&b, "0", ""));
    serve(&b, "PRACK", "");
    let progress = a.response("INVITE", 183);
    assert_eq!(progress.media().ip(), engine.sip.ip());
    prack(&a, &mut leg, &progress, &offer(&a, "0", ""));
    a.response("PRACK", 200);
    b.respond(&invite, "200 OK", "bob", "", &offer(&b, "0", ""));
    let answer = a.established(&mut leg);
    assert_eq!(answer.body(), "");
    end(&engine, &a, &mut leg, &b);
}

/// A call in which both sides have agreed early and reliably.
fn early_session(a: &Ua, b: &Ua) -> (Leg, Leg, Msg) {
    let mut leg = a.call_with("1002", RELIABLE, &offer(a, "0 8", ""));
    let invite = b.request("INVITE");
    let tag = token();
    reliably(b, &invite, "183 Session Progress", &tag, 1, &offer(b, "0 8", ""));
    serve(b, "PRACK", "");
    let progress = a.response("INVITE", 183);
    prack(a, &mut leg, &progress, "");
    a.response("PRACK", 200);
    (leg, b.leg_of(&invite, &tag), invite)
}

#[test]
fn an_update_crosses_an_early_session_either_way() {
    for media in MODES {
        let (engine, a, b) = engine(media);
        let (mut leg, mut other, invite) = early_session(&a, &b);
        for (from, to, leg) in [(&a, &b, &mut leg), (&b, &a, &mut other)] {
            from.next(leg, "UPDATE", UPDATES, &offer(from, "8", "a=sendonly\r\n"));
            let update = serve(to, "UPDATE", &offer(to, "8", "a=recvonly\r\n"));
            assert_eq!(
                (direction(&update), update.media().ip() == engine.sip.ip()),
                ("sendonly", media == "anchored")
            );
            assert_eq!(direction(&from.response("UPDATE", 200)), "recvonly");
        }
        b.respond(&invite, "200 OK", other.local.rsplit('=').next().unwrap(), "", "");
        let answer = a.response("INVITE", 200);
        a.ack(&leg, &answer);
        assert_eq!(answer.body(), "");
        end(&engine, &a, &mut leg, &b);
    }
}

#[test]
fn an_offer_in_a_prack_crosses_as_an_update() {
    let (engine, a, b) = engine("anchored");
    let mut leg = a.call_with("1002", RELIABLE, &offer(&a, "0 8", ""));
    let invite = b.request("INVITE");
    reliably(&b, &invite, "183 Session Progress", "bob", 1, &offer(&b, "0 8", ""));
    serve(&b, "PRACK", "");
    let progress = a.response("INVITE", 183);
    let invited = leg.clone();
    prack(&a, &mut leg, &progress, &offer(&a, "8", ""));
    let update = serve(&b, "UPDATE", &offer(&b, "8", ""));
    assert!(update.sdp_line("m=audio ").unwrap().ends_with("RTP/AVP 8"));
    assert!(a.response("PRACK", 200).sdp_line("m=audio ").unwrap().ends_with("RTP/AVP 8"));
    a.cancel(&invited);
    serve(&b, "CANCEL", "");
    b.respond(&invite, "487 Request Terminated", "bob", "", "");
    engine.quiet();
}

#[test]
fn an_update_before_there_is_a_session_is_refused() {
    let (engine, a, b) = engine("anchored");
    let mut leg = a.call_with("1002", UPDATES, &offer(&a, "0", ""));
    let invite = b.request("INVITE");
    b.respond(&invite, "180 Ringing", "bob", UPDATES, "");
    let ringing = a.response("INVITE", 180);
    let before = leg.clone();
    early(&mut leg, &ringing);
    a.next(&mut leg, "UPDATE", "", &offer(&a, "8", ""));
    let refusal = a.response("UPDATE", 500);
    assert!(refusal.header("Retry-After").parse::<u32>().unwrap() <= 10);
    a.next(&mut leg, "UPDATE", "", "");
    a.response("UPDATE", 200);
    let mut other = b.leg_of(&invite, "bob");
    b.next(&mut other, "UPDATE", "", &offer(&b, "8", ""));
    b.response("UPDATE", 491);
    a.cancel(&before);
    serve(&b, "CANCEL", "");
    b.respond(&invite, "487 Request Terminated", "bob", "", "");
    engine.quiet();
}

#[test]
fn a_fork_that_answers_in_place_of_the_one_heard_early_is_offered_to_the_caller() {
    for (allow, method) in [(UPDATES, "UPDATE"), ("Allow: INVITE, ACK, BYE, PRACK\r\n", "INVITE")] {
        let (engine, a, b) = engine("bypass");
        let headers = format!("Supported: 100rel\r\n{allow}");
        let mut leg = a.call_with("1002", &headers, &offer(&a, "0 8", ""));
        let invite = b.request("INVITE");
        reliably(&b, &invite, "183 Session Progress", "one", 1, &offer(&b, "0", ""));
        serve(&b, "PRACK", "");
        let progress = a.response("INVITE", 183);
        prack(&a, &mut leg, &progress, "");
        a.response("PRACK", 200);
        reliably(&b, &invite, "183 Session Progress", "two", 50, &offer(&b, "8", ""));
        let acknowledged = serve(&b, "PRACK", "");
        assert_eq!(acknowledged.to_tag().as_deref(), Some("two"));
        b.respond(&invite, "200 OK", "two", "", "");
        assert_eq!(b.request("ACK").to_tag().as_deref(), Some("two"));
        let answer = a.response("INVITE", 200);
        assert_eq!(answer.body(), "");
        a.ack(&leg, &answer);
        let renewed = serve(&a, method, &offer(&a, "8", ""));
        assert!(renewed.sdp_line("m=audio ").unwrap().ends_with("RTP/AVP 8"));
        if method == "INVITE" {
            a.request("ACK");
        }
        engine.call_in("up");
        end(&engine, &a, &mut leg, &b);
    }
}

#[test]
fn early_media_of_every_contact_is_heard_and_the_one_that_answers_counts() {
    let engine = Engine::start(&(station("1001", "") + &station("1002", "")));
    let a = Ua::new(&engine, "1001");
    let (b, c) = (Ua::new(&engine, "1002").registered(), Ua::new(&engine, "1002").registered());
    let mut leg = a.call_with("1002", RELIABLE, &offer(&a, "0 8 9", ""));
    let (to_b, to_c) = (b.request("INVITE"), c.request("INVITE"));
    b.respond(&to_b, "183 Session Progress", "bob", "", &offer(&b, "0", ""));
    let first = a.response("INVITE", 183);
    reliably(&c, &to_c, "183 Session Progress", "carol", 1, &offer(&c, "8", ""));
    serve(&c, "PRACK", "");
    let second = a.response("INVITE", 183);
    for (progress, codec) in [(&first, "0"), (&second, "8")] {
        assert!(progress.headers("RSeq").is_empty(), "neither may be the one that answers");
        assert!(progress.sdp_line("m=audio ").unwrap().ends_with(&format!("RTP/AVP {codec}")));
    }
    b.respond(&to_b, "200 OK", "bob", "", &offer(&b, "0", ""));
    b.request("ACK");
    serve(&c, "CANCEL", "");
    c.respond(&to_c, "487 Request Terminated", "carol", "", "");
    let answer = a.established(&mut leg);
    assert!(answer.sdp_line("m=audio ").unwrap().ends_with("RTP/AVP 0"));
    assert!(version(&answer) > version(&second) && version(&second) > version(&first));
    end(&engine, &a, &mut leg, &b);
}

#[test]
fn a_caller_may_end_an_early_dialog_by_bye_and_the_callee_is_cancelled() {
    let (engine, a, b) = engine("anchored");
    let mut leg = a.call("1002", &offer(&a, "0", ""));
    let invite = b.request("INVITE");
    b.respond(&invite, "180 Ringing", "bob", "", "");
    let ringing = a.response("INVITE", 180);
    let calling = leg.clone();
    early(&mut leg, &ringing);
    a.next(&mut leg, "BYE", "", "");
    let statuses = [(); 2].map(|()| {
        let answer = a.wait("both answers", |m| m.status() >= Some(200));
        (answer.method().to_owned(), answer.status(), answer)
    });
    for (method, status, answer) in &statuses {
        assert_eq!(*status, Some(if method == "BYE" { 200 } else { 487 }), "{answer:?}");
        if method == "INVITE" {
            a.ack(&calling, answer);
        }
    }
    assert_ne!(statuses[0].0, statuses[1].0);
    serve(&b, "CANCEL", "");
    b.respond(&invite, "487 Request Terminated", "bob", "", "");
    b.request("ACK");
    engine.cdr("abandoned", 487, "caller");
    engine.quiet();
}
