//! What a stolen password, a forwarded phone or an open trunk can cost: limits of stations, international numbers, alarms.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::net::SocketAddr;

use common::engine::{station, stations};
use common::ua::token;
use common::{Engine, Leg, Msg, Ua, sdp};
use serde_json::Value;

/// Trunk "out" at {peer}:5070 and trunk "in" at {peer}:5071, each with these keys; 9 and a number dial that out, 8 and a number
/// as an emergency call, and what is dialled from + on goes there too.
fn settings(stations: &str, out: &str, inbound: &str, rest: &str) -> String {
    format!(
        "{stations}[[trunk]]\nname = \"out\"\nproxies = [\"{{peer}}:5070\"]\n{out}\n\
         [[trunk]]\nname = \"in\"\nproxies = [\"{{peer}}:5071\"]\n{inbound}\n\
         [[dial_plan.pattern]]\npattern = \"9.!\"\ntarget = \"trunk:out\"\n\
         [[dial_plan.pattern]]\npattern = \"8.X!\"\ntarget = \"trunk:out\"\nemergency = true\n\
         [[dial_plan.pattern]]\npattern = \"+X!\"\ntarget = \"trunk:out\"\n{rest}\n"
    )
}

/// An engine, and who is at its trunk "out".
fn start(stations: &str, rest: &str) -> (Engine, Ua) {
    let engine = Engine::start(&settings(stations, "", "", rest));
    let out = Ua::on(&engine, "out", SocketAddr::from((engine.peer(), 5070)));
    (engine, out)
}

fn call(caller: &Ua, number: &str) -> Leg {
    caller.call(number, &sdp(caller.local(), "0"))
}

/// The call leaves by the trunk, whose far end is busy.
#[track_caller]
fn goes_out(caller: &Ua, out: &Ua, number: &str) -> Msg {
    let leg = call(caller, number);
    let invite = out.request("INVITE");
    out.respond(&invite, "486 Busy Here", &token(), "", "");
    out.request("ACK");
    assert_eq!(caller.refused(&leg).status(), Some(486), "{number}");
    invite
}

/// The call is refused by the engine.
#[track_caller]
fn is_refused(caller: &Ua, number: &str) -> Msg {
    let leg = call(caller, number);
    caller.refused(&leg)
}

/// What `tandem why` says of a call.
fn why(engine: &Engine, cdr: &Value) -> String {
    let output = engine.command(&["why", cdr["call_id"].as_str().unwrap()]).output().expect("the program");
    String::from_utf8(output.stdout).unwrap()
}

/// A 302 to this contact alone.
fn redirect(ua: &Ua, invite: &Msg, contact: &str) {
    let (via, from, to) = (invite.header("Via"), invite.header("From"), invite.header("To"));
    let (call_id, cseq) = (invite.header("Call-ID"), invite.header("CSeq"));
    ua.send(format!(
        "SIP/2.0 302 Moved Temporarily\r\nVia: {via}\r\nFrom: {from}\r\nTo: {to};tag={}\r\nCall-ID: {call_id}\r\n\
         CSeq: {cseq}\r\nContact: {contact}\r\nContent-Length: 0\r\n\r\n",
        token()
    ));
    ua.request("ACK");
}

fn refusals(engine: &Engine, reason: &str, count: f64) {
    engine.counts("tandem_toll_refused_total", &[("reason", reason)], count);
}

#[track_caller]
fn reload(engine: &Engine) {
    let answer = engine.ask("POST", "/api/v1/reload", "{}");
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn a_station_begins_no_more_calls_in_a_minute_than_it_may_but_emergency_calls() {
    let (engine, out) = start(&(station("1001", "max_new_calls_per_min = 1") + &stations(&["1002"])), "");
    let (caller, other) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002"));
    goes_out(&caller, &out, "9123");
    let refused = is_refused(&caller, "9124");
    assert_eq!(refused.status(), Some(503));
    assert_eq!(refused.header("Reason"), "Q.850;cause=34;text=\"call limit reached\"");
    assert!(refused.headers("Retry-After").is_empty(), "it would have the whole server rest: {refused:?}");
    goes_out(&other, &out, "9123");
    assert!(goes_out(&caller, &out, "8112").uri().starts_with("sip:112@"), "an emergency call passes");
    let cdrs = engine.wait_cdrs(4);
    let limited = cdrs.iter().find(|cdr| cdr["to"] == "9124").unwrap();
    assert_eq!((&limited["cause"], &limited["sip_status"]), (&"limit".into(), &503.into()), "{limited:#}");
    let told = why(&engine, limited);
    assert!(told.contains("the caller, station:1001, has begun max_new_calls_per_min, 1, calls"), "{told}");
    refusals(&engine, "new_calls", 1.0);
}

#[test]
fn a_class_limits_the_calls_of_its_stations_at_once_unless_a_station_says_otherwise() {
    let class = "calling_search_space = \"staff\"";
    let stations = station("1001", class) + &station("1002", &format!("{class}\nmax_calls = 2"));
    let staff = "[[dial_plan.calling_search_space]]\nname = \"staff\"\npartitions = [\"internal\"]\nmax_calls = 1\n\
                 [toll_fraud]\nmax_calls = 5";
    let (engine, out) = start(&stations, staff);
    for (name, most) in [("1001", 1), ("1002", 2)] {
        let caller = Ua::new(&engine, name);
        let mut legs = Vec::new();
        for _ in 0..most {
            let mut leg = call(&caller, "9123");
            out.answer(&out.request("INVITE"), &sdp(out.local(), "0"));
            caller.established(&mut leg);
            legs.push(leg);
        }
        assert_eq!(is_refused(&caller, "9124").status(), Some(503), "{name}");
        goes_out(&caller, &out, "8112");
        for leg in &mut legs {
            caller.next(leg, "BYE", "", "");
            out.respond(&out.request("BYE"), "200 OK", "", "", "");
            caller.response("BYE", 200);
        }
    }
    refusals(&engine, "max_calls", 2.0);
    engine.quiet();
    goes_out(&Ua::new(&engine, "1001"), &out, "9125");
}

#[test]
fn an_international_number_is_refused_however_it_is_dialled_unless_its_caller_may() {
    let stations = stations(&["1001"])
        + &station("1002", "international = true")
        + &station("1003", "calling_search_space = \"managers\"");
    let rest = "[[dial_plan.calling_search_space]]\nname = \"managers\"\npartitions = [\"internal\"]\ninternational = true\n\
                [[dial_plan.pattern]]\npattern = \"7.!\"\nprefix = \"0\"\ntarget = \"trunk:out\"\n\
                [toll_fraud]\nnational_prefixes = [\"+49\", \"0049\"]";
    let (engine, out) = start(&stations, rest);
    let caller = Ua::new(&engine, "1001");
    for number in ["90044207946", "9011442079", "+44207946", "70442079"] {
        let refused = is_refused(&caller, number);
        assert_eq!(refused.status(), Some(403), "{number}");
        assert_eq!(refused.header("Reason"), "Q.850;cause=21;text=\"international calls are not allowed\"");
    }
    for number in ["9004989555", "+4989555", "989555", "8001"] {
        goes_out(&caller, &out, number);
    }
    goes_out(&Ua::new(&engine, "1002"), &out, "90044207946");
    goes_out(&Ua::new(&engine, "1003"), &out, "+44207946");
    let cdrs = engine.wait_cdrs(10);
    let refused = cdrs.iter().find(|cdr| cdr["to"] == "70442079").unwrap();
    assert_eq!(refused["cause"], "international", "{refused:#}");
    let told = why(&engine, refused);
    assert!(told.contains("0442079 is") || told.contains("00442079 is"), "{told}");
    assert!(told.contains("(it begins with 00), which station:1001 may not dial"), "{told}");
    refusals(&engine, "international", 4.0);
}

#[test]
fn a_number_that_only_the_trunks_rules_make_international_is_refused_too() {
    let rule = "number_rules = [{ direction = \"out\", party = \"called\", begins = \"44\", strip = 0, prefix = \"+\" }]";
    let engine = Engine::start(&settings(&stations(&["1001"]), rule, "", ""));
    let out = Ua::on(&engine, "out", SocketAddr::from((engine.peer(), 5070)));
    let caller = Ua::new(&engine, "1001");
    assert_eq!(is_refused(&caller, "944207").status(), Some(403));
    goes_out(&caller, &out, "945207");
}

#[test]
fn a_trunk_leads_to_another_trunks_international_numbers_only_if_it_may() {
    for (keys, status) in [("", 403), ("international = true", 486)] {
        // What stations may is not what trunks may.
        let engine =
            Engine::start(&settings(&stations(&["1001"]), "", keys, "[toll_fraud]\ninternational = true"));
        let out = Ua::on(&engine, "out", SocketAddr::from((engine.peer(), 5070)));
        let caller = Ua::on(&engine, "5551234", SocketAddr::from((engine.peer(), 5071)));
        let mut leg = caller.leg("90044207");
        caller.next(&mut leg, "INVITE", "", &sdp(caller.local(), "0"));
        if status == 486 {
            let invite = out.request("INVITE");
            out.respond(&invite, "486 Busy Here", &token(), "", "");
        }
        assert_eq!(caller.refused(&leg).status(), Some(status), "{keys}");
        let mut leg = caller.leg("9123");
        caller.next(&mut leg, "INVITE", "", &sdp(caller.local(), "0"));
        let invite = out.request("INVITE");
        assert!(invite.uri().starts_with("sip:123@"), "a national one goes on: {invite:?}");
        out.respond(&invite, "486 Busy Here", &token(), "", "");
        caller.refused(&leg);
    }
}

#[test]
fn a_call_is_forwarded_abroad_only_by_a_station_that_may_call_there_whatever_its_caller_may() {
    let (engine, out) = start(
        &(station("1001", "international = true")
            + &station("1002", "international = true")
            + &stations(&["1003"])),
        "",
    );
    let (caller, ip) = (Ua::new(&engine, "1001"), engine.sip.ip());
    let (may, may_not) = (Ua::new(&engine, "1002").registered(), Ua::new(&engine, "1003").registered());
    let leg = call(&caller, "1003");
    redirect(&may_not, &may_not.request("INVITE"), &format!("<sip:90044207@{ip}>"));
    assert_eq!(caller.refused(&leg).status(), Some(480));
    let cdr = engine.wait_cdrs(1).remove(0);
    let told = why(&engine, &cdr);
    assert!(
        told.contains("302 of station:1003") && told.contains("which station:1003 may not dial"),
        "{told}"
    );
    refusals(&engine, "international", 1.0);
    let leg = call(&caller, "1002");
    redirect(&may, &may.request("INVITE"), "<tel:+44-207>");
    let invite = out.request("INVITE");
    assert!(invite.uri().starts_with("sip:+44207@"), "{invite:?}");
    out.respond(&invite, "486 Busy Here", &token(), "", "");
    caller.refused(&leg);
}

#[test]
fn a_forwarded_call_keeps_the_place_of_the_station_that_forwards_it_and_is_one_of_its_new_calls() {
    let limits = "max_calls = 1\nmax_new_calls_per_min = 1";
    let (engine, out) = start(&(stations(&["1001"]) + &station("1002", limits)), "");
    let (caller, ip) = (Ua::new(&engine, "1001"), engine.sip.ip());
    let forwarder = Ua::new(&engine, "1002").registered();
    let mut leg = call(&caller, "1002");
    redirect(&forwarder, &forwarder.request("INVITE"), &format!("<sip:9123@{ip}>"));
    out.answer(&out.request("INVITE"), &sdp(out.local(), "0"));
    caller.established(&mut leg);
    assert_eq!(is_refused(&caller, "1002").status(), Some(486), "its one call is the one it has forwarded");
    caller.next(&mut leg, "BYE", "", "");
    out.respond(&out.request("BYE"), "200 OK", "", "", "");
    caller.response("BYE", 200);
    engine.quiet();
    let leg = call(&caller, "1002");
    redirect(&forwarder, &forwarder.request("INVITE"), &format!("<sip:9124@{ip}>"));
    assert_eq!(caller.refused(&leg).status(), Some(480), "a minute has one new call");
    let cdrs = engine.wait_cdrs(3);
    let told = why(&engine, &cdrs[2]);
    assert!(told.contains("station:1002 has begun max_new_calls_per_min, 1, calls"), "{told}");
    let leg = call(&caller, "1002");
    redirect(&forwarder, &forwarder.request("INVITE"), &format!("<sip:8112@{ip}>"));
    let invite = out.request("INVITE");
    assert!(invite.uri().starts_with("sip:112@"), "an emergency call is forwarded all the same: {invite:?}");
    out.respond(&invite, "486 Busy Here", &token(), "", "");
    caller.refused(&leg);
}

#[test]
fn a_burst_of_international_calls_is_told_and_its_station_blocked_if_the_settings_say_so() {
    let both = station("1001", "international = true") + &station("1002", "international = true");
    let rest = |action: &str| {
        format!("[toll_fraud]\nalarm_station_international_calls_per_h = 3\nalarm_action = \"{action}\"")
    };
    let (engine, out) = start(&both, &rest("alarm"));
    let caller = Ua::new(&engine, "1001");
    let alarms = [("who", "station")];
    for _ in 0..3 {
        goes_out(&caller, &out, "90044207");
    }
    engine.counts("tandem_toll_alarms_active", &alarms, 0.0);
    goes_out(&caller, &out, "90044207");
    engine.counts("tandem_toll_alarms_active", &alarms, 1.0);
    goes_out(&caller, &out, "90044207");
    engine.recorded("toll.alarm", 1);
    let events = engine.api("GET", "/api/v1/events?from=0&max=10000");
    let told: Vec<&Value> = events.as_array().unwrap().iter().filter(|e| e["type"] == "toll.alarm").collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(told[0]["data"]["station"], "1001", "{told:#?}");
    assert_eq!(told[0]["data"]["measure"], "international_calls", "{told:#?}");
    let cdr = &engine.wait_cdrs(5)[3];
    assert!(why(&engine, cdr).contains("suddenly 4 international calls within an hour"), "{cdr:#}");
    let log = engine.log();
    assert!(
        log.contains("suddenly so many international calls") && log.contains("change its password"),
        "{log}"
    );
    let shown = engine.command(&["stations"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("1001: suddenly too many: international_calls"), "{shown}");

    // With the next reload it gets no more of them; others do, and it may call at home.
    engine.settle(&settings(&both, "", "", &rest("block")));
    reload(&engine);
    assert_eq!(is_refused(&caller, "90044207").status(), Some(403));
    goes_out(&caller, &out, "9123");
    goes_out(&caller, &out, "8112");
    goes_out(&Ua::new(&engine, "1002"), &out, "90044207");
    let cdrs = engine.wait_cdrs(9);
    assert!(cdrs.iter().any(|cdr| cdr["cause"] == "toll_alarm"), "{cdrs:#?}");
    refusals(&engine, "alarm", 1.0);
    engine.counts("tandem_toll_alarms_total", &[("who", "station"), ("measure", "international_calls")], 1.0);

    // Once somebody has looked at it, it may again, until there are too many anew.
    let clear = |who: &str| engine.command(&["clear-alarm", who]).output().unwrap();
    let cleared = clear("station:1001");
    let shown = String::from_utf8(cleared.stdout).unwrap();
    assert!(cleared.status.success() && shown.contains("cleared: international_calls"), "{shown}");
    engine.counts("tandem_toll_alarms_active", &alarms, 0.0);
    for _ in 0..4 {
        goes_out(&caller, &out, "90044207");
    }
    engine.counts("tandem_toll_alarms_active", &alarms, 1.0);
    assert_eq!(is_refused(&caller, "90044207").status(), Some(403));
    for (who, status) in [("station:nobody", "404"), ("1001", "422")] {
        let refused = clear(who);
        let complaint = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && complaint.contains(status), "{who}: {complaint}");
    }
}

#[test]
fn a_trunk_has_an_alarm_of_its_own() {
    let (engine, out) = start(&stations(&["1001", "1002"]), "[toll_fraud]\nalarm_trunk_calls_per_h = 2");
    for name in ["1001", "1002", "1001"] {
        goes_out(&Ua::new(&engine, name), &out, "9123");
    }
    engine.counts("tandem_toll_alarms_active", &[("who", "trunk")], 1.0);
    engine.counts("tandem_toll_alarms_active", &[("who", "station")], 0.0);
    let trunks = engine.api("GET", "/api/v1/trunks");
    let out = trunks.as_array().unwrap().iter().find(|trunk| trunk["name"] == "out").unwrap();
    assert_eq!(out["toll_alarms"], serde_json::json!(["calls"]), "{out:#}");
}

#[test]
fn a_reload_holds_for_new_calls() {
    let (engine, out) = start(&stations(&["1001"]), "");
    let caller = Ua::new(&engine, "1001");
    assert_eq!(is_refused(&caller, "90044207").status(), Some(403));
    engine.settle(&settings(
        &stations(&["1001"]),
        "",
        "",
        "[toll_fraud]\ninternational = true\nmax_new_calls_per_min = 1",
    ));
    reload(&engine);
    goes_out(&caller, &out, "90044207");
    assert_eq!(is_refused(&caller, "90044207").status(), Some(503));
}
