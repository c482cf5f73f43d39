//! Offers and answers in calls: with and without an offer, held, retrieved, and crossing each other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// A wait of the engine is measured by the real clock.
#![allow(clippy::disallowed_methods)]

mod common;

use std::time::Instant;

use common::calls::trunks;
use common::offer::*;
use common::ua::token;
use common::{Engine, Msg, Ua, sdp};

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
    assert!(
        !invite.headers("Supported").iter().any(|options| options.contains("100rel")),
        "the caller could not answer in a PRACK: {invite:?}"
    );
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
            let begin = Instant::now();
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
    // Its lines, whether in the old form, as what it crosses, the answer, as what that comes back.
    let forms = [
        ("a=sendonly\r\n", false, "sendonly", "a=recvonly\r\n", "recvonly"),
        ("a=inactive\r\n", false, "inactive", "a=inactive\r\n", "inactive"),
        // The old form, answered by one who knows neither.
        ("", true, "sendonly", "", "recvonly"),
        ("a=recvonly\r\n", true, "inactive", "", "inactive"),
    ];
    let mut versions = vec![];
    for (holder, held, leg) in [(&a, &b, &mut leg), (&b, &a, &mut other)] {
        versions.clear();
        for (lines, old, crosses, answered, returns) in forms {
            let text = offer(holder, "0 8", lines);
            let address = if old { "0.0.0.0".to_owned() } else { holder.local().ip().to_string() };
            let text =
                text.replace(&format!("c=IN IP4 {}", holder.local().ip()), &format!("c=IN IP4 {address}"));
            holder.next(leg, "INVITE", "", &text);
            let invite = serve(held, "INVITE", &offer(held, "0 8", answered));
            held.request("ACK");
            assert_eq!((direction(&invite), invite.media().ip()), (crosses, engine.sip.ip()));
            versions.push(version(&invite));
            let answer = holder.response("INVITE", 200);
            holder.ack(leg, &answer);
            assert_eq!((direction(&answer), answer.media().ip()), (returns, engine.sip.ip()));
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

#[test]
fn both_sides_hold_and_each_retrieves_for_itself() {
    let (engine, a, b) = engine("anchored");
    let (mut leg, mut other) = connect(&a, &b, "");
    // Who, what he offers, what the other says to it.
    let steps = [
        (true, "sendonly", "recvonly"),
        (false, "inactive", "inactive"),
        (true, "recvonly", "sendonly"),
        (false, "sendrecv", "sendrecv"),
    ];
    for (by_caller, offered, answered) in steps {
        let (from, to, leg) = if by_caller { (&a, &b, &mut leg) } else { (&b, &a, &mut other) };
        from.next(leg, "INVITE", "", &offer(from, "0", &format!("a={offered}\r\n")));
        let invite = serve(to, "INVITE", &offer(to, "0", &format!("a={answered}\r\n")));
        to.request("ACK");
        let answer = from.response("INVITE", 200);
        from.ack(leg, &answer);
        assert_eq!((direction(&invite), direction(&answer)), (offered, answered));
    }
    end(&engine, &a, &mut leg, &b);
}

#[test]
fn a_hold_with_another_codec_and_address_and_a_stream_that_is_put_away_cross() {
    for media in MODES {
        let (engine, a, b) = engine(media);
        let (mut leg, mut other) = connect(&a, &b, "");
        for (from, to, leg) in [(&a, &b, &mut leg), (&b, &a, &mut other)] {
            let port = from.local().port();
            let moved =
                offer(from, "8", "a=sendonly\r\n").replace(&format!("m=audio {port}"), "m=audio 4242");
            let gone = sdp(from.local(), "8").replace(&format!("m=audio {port}"), "m=audio 0");
            for (text, port) in [(moved, None), (gone, Some("0 "))] {
                from.next(leg, "INVITE", "", &text);
                let answer = match port {
                    None => offer(to, "8", "a=recvonly\r\n"),
                    Some(_) => text.clone(),
                };
                let invite = serve(to, "INVITE", &answer);
                to.request("ACK");
                let line = invite.sdp_line("m=audio ").unwrap();
                assert!(
                    line.ends_with("RTP/AVP 8") && port.is_none_or(|port| line.starts_with(port)),
                    "{line}"
                );
                let answer = from.response("INVITE", 200);
                from.ack(leg, &answer);
                let line = answer.sdp_line("m=audio ").unwrap();
                assert!(port.is_none_or(|port| line.starts_with(port)), "{line}");
            }
        }
        end(&engine, &a, &mut leg, &b);
    }
}

#[test]
fn a_trunk_with_delayed_media_is_asked_for_the_offer() {
    for media in MODES {
        let engine = Engine::start(&trunks("", &format!("media_timing = \"delayed\"\nmedia = \"{media}\"")));
        let at = |port: u16| (engine.peer(), port).into();
        let (a, b) = (Ua::on(&engine, "15551234", at(5090)), Ua::on(&engine, "carrier", at(5070)));
        let mut leg = a.leg("9555123");
        a.next(&mut leg, "INVITE", "", &offer(&a, "0 8", ""));
        let invite = b.request("INVITE");
        assert_eq!(invite.body(), "");
        b.respond(&invite, "200 OK", "bob", "", &offer(&b, "18 8 0", ""));
        let ack = b.request("ACK");
        assert!(ack.sdp_line("m=audio ").unwrap().ends_with("RTP/AVP 8"), "{ack:?}");
        let answer = a.established(&mut leg);
        assert!(answer.sdp_line("m=audio ").unwrap().ends_with("RTP/AVP 8"), "{answer:?}");
        assert_ne!(ack.media(), a.local(), "the incoming trunk has its media anchored");
        end(&engine, &a, &mut leg, &b);
        engine.cdr("normal", 200, "caller");
    }
}

#[test]
fn an_invite_without_an_offer_comes_by_one_trunk_and_leaves_by_another() {
    let engine = Engine::start(&trunks("media = \"bypass\"", "media = \"bypass\""));
    let at = |port: u16| (engine.peer(), port).into();
    let (a, b) = (Ua::on(&engine, "15551234", at(5090)), Ua::on(&engine, "carrier", at(5070)));
    let mut leg = a.leg("9555123");
    a.next(&mut leg, "INVITE", RELIABLE, "");
    let invite = b.request("INVITE");
    assert_eq!(invite.body(), "");
    // It may be answered early, and is not.
    b.respond(&invite, "180 Ringing", "bob", "", "");
    assert!(a.response("INVITE", 180).headers("RSeq").is_empty());
    let (theirs, mine) = (offer(&b, "0 8", ""), offer(&a, "0", ""));
    b.respond(&invite, "200 OK", "bob", "", &theirs);
    let answer = a.response("INVITE", 200);
    assert_eq!(answer.body(), theirs);
    ack_with(&a, &leg, &answer, &mine);
    assert_eq!(b.request("ACK").body(), mine);
    early(&mut leg, &answer);
    end(&engine, &a, &mut leg, &b);
}

#[test]
fn an_answer_that_the_ack_brings_after_a_restart_still_reaches_the_callee() {
    let (mut engine, a, b) = engine("bypass");
    let mut leg = a.call("1002", "");
    let invite = b.request("INVITE");
    let (theirs, mine) = (offer(&b, "0 8", ""), offer(&a, "8", ""));
    b.respond(&invite, "200 OK", "bob", "", &theirs);
    a.response("INVITE", 200);
    engine.recorded("call.answered", 1);
    engine.kill9();
    engine.restart();
    let answer = a.again("200 again", |message| message.answers("INVITE", 200));
    assert_eq!(answer.body(), theirs);
    ack_with(&a, &leg, &answer, &mine);
    assert_eq!(b.request("ACK").body(), mine);
    early(&mut leg, &answer);
    end(&engine, &a, &mut leg, &b);
}
