//! Whole calls, and the two trunks that most of them cross.

use super::engine::stations;
use super::{Engine, Leg, Msg, Ua, sdp};

/// Two trunks: calls come from {peer}:5090 and go to {peer}:5070.
pub(crate) const TRUNKS: &str = r#"
[[trunk]]
name = "in"
proxies = ["{peer}:5090"]
[[trunk]]
name = "out"
proxies = ["{peer}:5070"]
[[dial_plan.pattern]]
pattern = "9.X!"
target = "trunk:out"
"#;

/// [`TRUNKS`] with further keys of each.
pub(crate) fn trunks(inbound: &str, outbound: &str) -> String {
    let with = |text: String, name: &str, keys: &str| {
        let name = format!("name = \"{name}\"\n");
        text.replacen(&name, &format!("{name}{keys}\n"), 1)
    };
    with(with(TRUNKS.to_owned(), "in", inbound), "out", outbound)
}

/// Station 1001, which dials out with 9 by a trunk with two proxies, {peer}:5071 and 5072, and with 8 as an emergency.
pub(crate) fn two_proxies(keys: &str) -> String {
    format!(
        "{}[[trunk]]\nname = \"out\"\nproxies = [\"{{peer}}:5071\", \"{{peer}}:5072\"]\n{keys}\n\
         [[dial_plan.pattern]]\npattern = \"9.X!\"\ntarget = \"trunk:out\"\n\
         [[dial_plan.pattern]]\npattern = \"8.X!\"\ntarget = \"trunk:out\"\nemergency = true\n",
        stations(&["1001"])
    )
}

/// Who is at a port of {peer}.
pub(crate) fn proxy(engine: &Engine, port: u16) -> Ua {
    Ua::on(engine, "proxy", (engine.peer(), port).into())
}

/// A caller on the trunk `in` and a callee on the trunk `out`, whose user is a number that leads there.
pub(crate) fn ends(engine: &Engine) -> (Ua, Ua) {
    let at = |port| (engine.peer(), port).into();
    (Ua::on(engine, "5551234", at(5090)), Ua::on(engine, "9101", at(5070)))
}

/// A call from a trunk, with these headers, to the number that is the callee's user; and the INVITE that arrives there.
#[track_caller]
pub(crate) fn call(a: &Ua, b: &Ua, headers: &str) -> (Leg, Msg) {
    let mut leg = a.leg(&b.user);
    a.next(&mut leg, "INVITE", headers, &sdp(a.local(), "0"));
    (leg, b.request("INVITE"))
}

/// A call from a trunk that both ends have: the caller's leg and the callee's.
#[track_caller]
pub(crate) fn connected(a: &Ua, b: &Ua) -> (Leg, Leg) {
    let (mut leg, invite) = call(a, b, "");
    let other = b.answer(&invite, &sdp(b.local(), "0"));
    a.established(&mut leg);
    (leg, other)
}

/// The caller hangs up.
#[track_caller]
pub(crate) fn hang_up(a: &Ua, leg: &mut Leg, b: &Ua) {
    a.next(leg, "BYE", "", "");
    let bye = b.request("BYE");
    b.respond(&bye, "200 OK", "", "", "");
    a.response("BYE", 200);
}

/// A call from the station `a`, up to BYE by it: the INVITE that arrives.
#[track_caller]
pub(crate) fn a_call(a: &Ua, b: &Ua, number: &str) -> Msg {
    let mut leg = a.call(number, &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    b.respond(&invite, "180 Ringing", "bob", "", "");
    a.response("INVITE", 180);
    b.answer(&invite, &sdp(b.local(), "0"));
    a.established(&mut leg);
    hang_up(a, &mut leg, b);
    invite
}
