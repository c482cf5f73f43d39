//! Three parties, two of them in a call, and the third about to take the place of one (Replaces, RFC 3891).

use super::calls::{ends, trunks};
use super::message::tag;
use super::{Engine, Leg, Msg, Ua, sdp};

/// The trunks "in" and "out", and "pbx" at {peer}:5092, which may replace calls.
pub(crate) fn settings(media: &str) -> String {
    let keys = format!("media = \"{media}\"");
    let pbx = "[[trunk]]\nname = \"pbx\"\nproxies = [\"{peer}:5092\"]\naccept_replaces = true\n";
    trunks(&keys, &keys) + pbx
}

/// An engine, the two ends of its calls, and who may take their places.
pub(crate) fn start(media: &str) -> (Engine, Ua, Ua, Ua) {
    let engine = Engine::start(&settings(media));
    let (a, b) = ends(&engine);
    let c = pbx(&engine);
    (engine, a, b, c)
}

pub(crate) fn pbx(engine: &Engine) -> Ua {
    Ua::on(engine, "7777", (engine.peer(), 5092).into())
}

/// The dialog of this leg, as the engine is told of it.
pub(crate) fn named(leg: &Leg) -> String {
    let (ours, theirs) = (tag(&leg.remote).expect("a dialog"), tag(&leg.local).unwrap());
    format!("{};to-tag={ours};from-tag={theirs}", leg.call_id)
}

/// An INVITE that is to take a place, with this offer.
pub(crate) fn seek_with(c: &Ua, named: &str, offer: &str) -> Leg {
    let mut leg = c.leg("9101");
    c.next(&mut leg, "INVITE", &format!("Require: replaces\r\nReplaces: {named}\r\n"), offer);
    leg
}

pub(crate) fn seek(c: &Ua, named: &str) -> Leg {
    seek_with(c, named, &sdp(c.local(), "0"))
}

/// A later description of the same end.
pub(crate) fn again(ua: &Ua, number: u32) -> String {
    sdp(ua.local(), "0").replace("o=- 1 1", &format!("o=- 1 {number}"))
}

/// The remaining side takes the newcomer's session: its re-INVITE.
#[track_caller]
pub(crate) fn agrees(remaining: &Ua, number: u32) -> Msg {
    let reinvite = remaining.request("INVITE");
    assert!(reinvite.to_tag().is_some(), "a re-INVITE: {reinvite:?}");
    remaining.respond(&reinvite, "200 OK", "", "", &again(remaining, number));
    remaining.request("ACK");
    reinvite
}

/// The replaced side is hung up.
#[track_caller]
pub(crate) fn is_dismissed(ua: &Ua) {
    let bye = ua.request("BYE");
    assert!(bye.header("Reason").contains("replaced"), "{bye:?}");
    ua.respond(&bye, "200 OK", "", "", "");
}

/// Who has taken whose place, as the only record says.
#[track_caller]
pub(crate) fn recorded(engine: &Engine, ended_by: &str, taken: &[(&str, &str)]) {
    let cdr = engine.cdr("normal", 200, ended_by);
    let found: Vec<_> = cdr["replaced"].as_array().into_iter().flatten().collect();
    let found: Vec<_> =
        found.iter().map(|r| (r["side"].as_str().unwrap(), r["by"].as_str().unwrap())).collect();
    assert_eq!(found, taken, "{cdr:#}");
    assert_eq!(cdr["from_trunk"], "in", "it came by there: {cdr:#}");
    assert_eq!((cdr["from"].as_str(), cdr["to"].as_str()), (Some("5551234"), Some("9101")));
}
