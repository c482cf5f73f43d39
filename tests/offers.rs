//! Offers and answers on the wire, between two phones that say exactly what a test tells them to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::engine::station;
use common::ua::token;
use common::{Engine, Leg, Msg, Ua, sdp};

const MODES: [&str; 2] = ["anchored", "bypass"];
const RELIABLE: &str = "Supported: 100rel\r\nAllow: INVITE, ACK, CANCEL, BYE, PRACK, UPDATE\r\n";
const UPDATES: &str = "Allow: INVITE, ACK, CANCEL, BYE, UPDATE\r\n";
/// Nothing that was to come is later than this on loopback; what must not come is awaited for as long.
const QUIET: Duration = Duration::from_millis(300);

/// An engine with two stations whose media runs in this way, the second registered.
fn engine(media: &str) -> (Engine, Ua, Ua) {
    let keys = format!("media = \"{media}\"");
    let engine = Engine::start(&(station("1001", &keys) + &station("1002", &keys)));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    (engine, a, b)
}

/// A description of this phone's, with more lines.
fn offer(ua: &Ua, formats: &str, lines: &str) -> String {
    sdp(ua.local(), formats) + lines
}

/// The ACK of a 2xx, with a body.
fn ack_with(ua: &Ua, leg: &Leg, response: &Msg, body: &str) {
    let mut ack = leg.clone();
    ack.cseq = response.cseq();
    ack.remote = response.header("To").to_owned();
    ua.send(ua.text(&ack, "ACK", &response.contact(), &format!("z9hG4bK{}", token()), "", body));
}

/// The PRACK of a reliable response, within its early dialog.
fn prack(ua: &Ua, leg: &mut Leg, response: &Msg, body: &str) {
    early(leg, response);
    let rack = format!("RAck: {} {}\r\n", response.header("RSeq"), response.header("CSeq"));
    ua.next(leg, "PRACK", &rack, body);
}

/// Makes the leg the early dialog of a response.
fn early(leg: &mut Leg, response: &Msg) {
    leg.remote = response.header("To").to_owned();
    leg.target = response.contact();
}

/// A reliable provisional response to an INVITE.
fn reliably(ua: &Ua, invite: &Msg, status: &str, tag: &str, rseq: u32, body: &str) {
    let headers = format!("Require: 100rel\r\nRSeq: {rseq}\r\n{UPDATES}");
    ua.respond(invite, status, tag, &headers, body);
}

/// The next request of this method; it is answered with 200 and this body.
fn serve(ua: &Ua, method: &str, body: &str) -> Msg {
    let request = ua.request(method);
    ua.respond(&request, "200 OK", "", "", body);
    request
}

/// A call that both sides have; `allow` is what the phones say they take.
fn connect(a: &Ua, b: &Ua, allow: &str) -> (Leg, Leg) {
    let mut leg = a.call_with("1002", allow, &offer(a, "0 8", ""));
    let invite = b.request("INVITE");
    let tag = token();
    b.respond(&invite, "200 OK", &tag, allow, &offer(b, "0 8", ""));
    b.request("ACK");
    a.established(&mut leg);
    (leg, b.leg_of(&invite, &tag))
}

/// Ends a call from `a`.
fn end(engine: &Engine, a: &Ua, leg: &mut Leg, b: &Ua) {
    a.next(leg, "BYE", "", "");
    serve(b, "BYE", "");
    a.response("BYE", 200);
    engine.quiet();
}

/// A request that is not to come.
#[track_caller]
fn nothing(ua: &Ua, method: &str) {
    while let Some(message) = ua.receive(QUIET) {
        assert!(!message.is(method), "{message:?}");
    }
}

fn direction(message: &Msg) -> &str {
    ["sendrecv", "sendonly", "recvonly", "inactive"]
        .into_iter()
        .find(|name| message.body().lines().any(|line| line == format!("a={name}")))
        .unwrap_or("none")
}

#[test]
fn an_invite_without_an_offer_leaves_with_ours_if_media_is_anchored() {
    let (engine, a, b) = engine("anchored");
    let mut leg = a.call("1002", "");
    let invite = b.request("INVITE");
    assert_eq!(invite.media().ip(), engine.sip.ip(), "our own offer");
    assert!(invite.sdp_line("m=audio").unwrap().contains("RTP/AVP 0 8"), "{invite:?}");
    let tag = token();
    b.respond(&invite, "200 OK", &tag, "", &offer(&b, "8 0", ""));
    assert_eq!(b.request("ACK").body(), "");
    let answer = a.response("INVITE", 200);
    let line = answer.sdp_line("m=audio ").unwrap();
    assert!(line.ends_with("RTP/AVP 8"), "what the callee will send, and no more: {line}");
    ack_with(&a, &leg, &answer, &offer(&a, "8", ""));
    engine.call_in("up");
    early(&mut leg, &answer);
    end(&engine, &a, &mut leg, &b);
    engine.cdr("normal", 200, "caller");
}

#[test]
fn an_invite_without_an_offer_asks_the_callee_for_it_if_media_goes_past_us() {
    let (engine, a, b) = engine("bypass");
    let mut leg = a.call("1002", "");
    let invite = b.request("INVITE");
    assert_eq!(invite.body(), "");
    assert!(invite.headers("Supported").is_empty(), "the caller could not answer in a PRACK: {invite:?}");
    let (theirs, mine) = (offer(&b, "0 8", ""), offer(&a, "8", ""));
    b.respond(&invite, "200 OK", "bob", "", &theirs);
    let answer = a.response("INVITE", 200);
    assert_eq!(answer.body(), theirs);
    ack_with(&a, &leg, &answer, &mine);
    assert_eq!(b.request("ACK").body(), mine);
    // The ACK was lost: the 200 comes again, and the same ACK.
    b.respond(&invite, "200 OK", "bob", "", &theirs);
    assert_eq!(b.request("ACK").body(), mine);
    early(&mut leg, &answer);
    end(&engine, &a, &mut leg, &b);
    engine.cdr("normal", 200, "caller");
}

#[test]
fn an_ack_without_the_answer_ends_the_call_with_a_reason() {
    for media in MODES {
        let (engine, a, b) = engine(media);
        let leg = a.call("1002", "");
        let invite = b.request("INVITE");
        b.respond(&invite, "200 OK", "bob", "", &offer(&b, "0", ""));
        let answer = a.response("INVITE", 200);
        a.ack(&leg, &answer);
        assert!(serve(&a, "BYE", "").header("Reason").contains("cause=488"));
        if media == "bypass" {
            let ack = b.request("ACK");
            assert_eq!(ack.sdp_line("m=audio "), Some("0 RTP/AVP 0"), "every stream is refused");
        }
        assert!(serve(&b, "BYE", "").header("Reason").contains("cause=488"));
        engine.cdr("media", 200, "engine");
        engine.quiet();
    }
}

#[test]
fn an_invite_without_an_offer_to_a_service_gets_its_offer() {
    let (engine, a, _b) = engine("anchored");
    let mut leg = a.call("*43", "");
    let answer = a.response("INVITE", 200);
    assert!(answer.sdp_line("m=audio ").unwrap().contains("RTP/AVP 0 8 101"), "{answer:?}");
    ack_with(&a, &leg, &answer, &offer(&a, "0", ""));
    engine.call_in("up");
    early(&mut leg, &answer);
    a.next(&mut leg, "INVITE", "", "");
    let again = a.response("INVITE", 200);
    assert_eq!(again.body(), answer.body(), "nothing has changed, nor has the version");
    ack_with(&a, &leg, &again, &offer(&a, "0", ""));
    a.hang_up(&mut leg);
    engine.cdr("normal", 200, "caller");
}

#[test]
fn a_re_invite_without_an_offer_asks_the_other_side_for_it() {
    for media in MODES {
        let (engine, a, b) = engine(media);
        let (mut leg, mut other) = connect(&a, &b, "");
        for (asker, asked, leg) in [(&a, &b, &mut leg), (&b, &a, &mut other)] {
            asker.next(leg, "INVITE", "", "");
            let invite = asked.request("INVITE");
            assert_eq!(invite.body(), "");
            asked.respond(&invite, "200 OK", "", "", &offer(asked, "8 0", ""));
            let answer = asker.response("INVITE", 200);
            assert!(answer.sdp_line("m=audio ").unwrap().ends_with("RTP/AVP 8 0"), "{answer:?}");
            ack_with(asker, leg, &answer, &offer(asked, "8", "a=recvonly\r\n"));
            let ack = asked.request("ACK");
            assert!(ack.sdp_line("m=audio ").unwrap().ends_with("RTP/AVP 8"), "{ack:?}");
            assert_eq!(direction(&ack), "recvonly");
            let ours = ack.media().ip() == engine.sip.ip() && answer.media().ip() == engine.sip.ip();
            assert_eq!(ours, media == "anchored");
        }
        end(&engine, &a, &mut leg, &b);
    }
}

#[test]
fn a_re_invite_whose_ack_lacks_the_answer_ends_the_call() {
    let (engine, a, b) = engine("anchored");
    let (mut leg, _) = connect(&a, &b, "");
    a.next(&mut leg, "INVITE", "", "");
    let invite = b.request("INVITE");
    b.respond(&invite, "200 OK", "", "", &offer(&b, "0", ""));
    let answer = a.response("INVITE", 200);
    a.ack(&leg, &answer);
    assert!(serve(&a, "BYE", "").header("Reason").contains("cause=488"));
    b.request("ACK");
    serve(&b, "BYE", "");
    engine.cdr("media", 200, "engine");
}

#[test]
fn reliable_early_media_crosses_and_the_200_waits_for_the_prack() {
    for media in MODES {
        let (engine, a, b) = engine(media);
        let mut leg = a.call_with("1002", RELIABLE, &offer(&a, "0 8", ""));
        let invite = b.request("INVITE");
        assert_eq!(invite.header("Supported"), "100rel");
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
        let again = a.wait("183 or 200", |m| m.method() == "INVITE");
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
    nothing(&a, "183, as the 180 is not acknowledged");
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
    let mut leg = a.leg("1002");
    a.next(&mut leg, "INVITE", "Require: 100rel, magic\r\n", &offer(&a, "0", ""));
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
    assert_eq!((invite.body(), invite.header("Supported")), ("", "100rel"));
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
    prack(&a, &mut leg, &progress, &offer(&a, "8", ""));
    let update = serve(&b, "UPDATE", &offer(&b, "8", ""));
    assert!(update.sdp_line("m=audio ").unwrap().ends_with("RTP/AVP 8"));
    assert!(a.response("PRACK", 200).sdp_line("m=audio ").unwrap().ends_with("RTP/AVP 8"));
    a.cancel(&leg);
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
fn an_update_in_a_call_crosses_as_an_update_or_as_a_re_invite() {
    for (allow, method) in [(UPDATES, "UPDATE"), ("Allow: INVITE, ACK, CANCEL, BYE\r\n", "INVITE")] {
        let (engine, a, b) = engine("anchored");
        let (mut leg, mut other) = connect(&a, &b, allow);
        for (from, to, leg) in [(&a, &b, &mut leg), (&b, &a, &mut other)] {
            from.next(leg, "UPDATE", "", &offer(from, "8", "a=inactive\r\n"));
            let crossed = serve(to, method, &offer(to, "8", "a=inactive\r\n"));
            assert_eq!(direction(&crossed), "inactive");
            if method == "INVITE" {
                to.request("ACK");
            }
            assert_eq!(direction(&from.response("UPDATE", 200)), "inactive");
            from.next(leg, "UPDATE", "", "");
            assert_eq!(from.response("UPDATE", 200).body(), "");
            nothing(to, method);
        }
        end(&engine, &a, &mut leg, &b);
    }
}

#[test]
fn an_update_that_the_other_side_refuses_is_refused() {
    let (engine, a, b) = engine("bypass");
    let (mut leg, _) = connect(&a, &b, UPDATES);
    a.next(&mut leg, "UPDATE", "", &offer(&a, "8", ""));
    let update = b.request("UPDATE");
    b.respond(&update, "488 Not Acceptable Here", "", "", "");
    a.response("UPDATE", 488);
    end(&engine, &a, &mut leg, &b);
}

#[test]
fn a_re_invite_that_meets_a_491_is_tried_again_after_the_back_off() {
    for media in MODES {
        let (engine, a, b) = engine(media);
        let (mut leg, mut other) = connect(&a, &b, "");
        for (from, to, leg, least) in [(&a, &b, &mut leg, 2_100), (&b, &a, &mut other, 0)] {
            from.next(leg, "INVITE", "", &offer(from, "8", ""));
            let refused = to.request("INVITE");
            to.respond(&refused, "491 Request Pending", "", "", "");
            let begin = std::time::Instant::now();
            let again = to.wait("the INVITE again", |m| m.is("INVITE") && m.cseq() > refused.cseq());
            // To the callee the Call-ID is ours, to the caller it is his.
            let waited = begin.elapsed().as_millis();
            assert!((least..=least + 2_400).contains(&waited), "{waited} ms");
            to.respond(&again, "200 OK", "", "", &offer(to, "8", ""));
            let answer = from.response("INVITE", 200);
            from.ack(leg, &answer);
        }
        end(&engine, &a, &mut leg, &b);
    }
}

#[test]
fn re_invites_that_cross_are_settled_by_whoever_waits_less() {
    let (engine, a, b) = engine("anchored");
    let (mut leg, mut other) = connect(&a, &b, "");
    a.next(&mut leg, "INVITE", "", &offer(&a, "8", ""));
    let crossed = b.request("INVITE");
    b.next(&mut other, "INVITE", "", &offer(&b, "0", ""));
    assert_eq!(b.final_response("INVITE").status(), Some(491));
    b.respond(&crossed, "491 Request Pending", "", "", "");
    b.ack(&other, &Msg { text: "SIP/2.0 491 x\r\nCSeq: 101 INVITE\r\nTo: x\r\nContact: <x>\r\n\r\n".into() });
    // The callee does not own its Call-ID: it may try first, and ours gives way.
    b.next(&mut other, "INVITE", "", &offer(&b, "0", ""));
    assert_eq!(a.final_response("INVITE").status(), Some(491));
    let carried = a.request("INVITE");
    a.respond(&carried, "200 OK", "", "", &offer(&a, "0", ""));
    let answer = b.response("INVITE", 200);
    b.ack(&other, &answer);
    end(&engine, &a, &mut leg, &b);
}

#[test]
fn a_second_re_invite_while_one_is_pending_is_500_and_an_update_that_crosses_one_is_491() {
    let (engine, a, b) = engine("anchored");
    let (mut leg, mut other) = connect(&a, &b, UPDATES);
    a.next(&mut leg, "INVITE", "", &offer(&a, "8", ""));
    let pending = b.request("INVITE");
    let first = leg.clone();
    a.next(&mut leg, "INVITE", "", &offer(&a, "0", ""));
    let refusal = a.response("INVITE", 500);
    assert!(refusal.header("Retry-After").parse::<u32>().unwrap() <= 10);
    a.ack(&leg, &refusal);
    a.next(&mut leg, "UPDATE", "", &offer(&a, "0", ""));
    assert!(a.response("UPDATE", 500).header("Retry-After").parse::<u32>().unwrap() <= 10);
    b.next(&mut other, "UPDATE", "", &offer(&b, "0", ""));
    b.response("UPDATE", 491);
    b.respond(&pending, "200 OK", "", "", &offer(&b, "8", ""));
    let answer = a.response("INVITE", 200);
    a.ack(&first, &answer);
    end(&engine, &a, &mut leg, &b);
}

#[test]
fn every_form_of_hold_is_answered_rightly() {
    let (engine, a, b) = engine("anchored");
    let (mut leg, mut other) = connect(&a, &b, "");
    let zero = |ua: &Ua, lines: &str| {
        let text = offer(ua, "0 8", lines);
        text.replace(&format!("c=IN IP4 {}", ua.local().ip()), "c=IN IP4 0.0.0.0")
    };
    let forms: [(fn(&Ua) -> String, bool, &str, &str, &str); 4] = [
        (|ua| offer(ua, "0 8", "a=sendonly\r\n"), false, "sendonly", "a=recvonly\r\n", "recvonly"),
        (|ua| offer(ua, "0 8", "a=inactive\r\n"), false, "inactive", "a=inactive\r\n", "inactive"),
        // The old form, answered by one who knows no other.
        (|ua| offer(ua, "0 8", ""), true, "sendonly", "", "recvonly"),
        (|ua| offer(ua, "0 8", "a=recvonly\r\n"), true, "inactive", "", "inactive"),
    ];
    let mut versions = vec![];
    for (holder, held, leg) in [(&a, &b, &mut leg), (&b, &a, &mut other)] {
        versions.clear();
        for (form, old, crosses, answered, returns) in &forms {
            let text = form(holder);
            let text = if *old { zero(holder, text.split("RTP/AVP 0 8\r\n").nth(1).unwrap()) } else { text };
            holder.next(leg, "INVITE", "", &text);
            let invite = serve(held, "INVITE", &offer(held, "0 8", answered));
            held.request("ACK");
            assert_eq!((direction(&invite), invite.media().ip()), (*crosses, engine.sip.ip()));
            versions.push(version(&invite));
            let answer = holder.response("INVITE", 200);
            holder.ack(leg, &answer);
            assert_eq!((direction(&answer), answer.media().ip()), (*returns, engine.sip.ip()));
        }
        holder.next(leg, "INVITE", "", &offer(holder, "0 8", ""));
        let invite = serve(held, "INVITE", &offer(held, "0 8", ""));
        assert_eq!(direction(&invite), "sendrecv");
        versions.push(version(&invite));
        let answer = holder.response("INVITE", 200);
        holder.ack(leg, &answer);
        assert_eq!(direction(&answer), "sendrecv");
        assert!(versions.windows(2).all(|pair| pair[1] == pair[0] + 1), "{versions:?}");
    }
    end(&engine, &a, &mut leg, &b);
}

/// The version in `o=`.
fn version(message: &Msg) -> u64 {
    message.sdp_line("o=").unwrap().split(' ').nth(2).unwrap().parse().unwrap()
}
