//! A reload of the settings as callers, phones and operators see it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::process::Command;

use common::calls::{hang_up, proxy};
use common::digest::Challenge;
use common::engine::{station, stations};
use common::{Engine, Leg, SOON, Sipp, Ua, eventually, sdp, so, within};
use serde_json::Value;

/// Stations 1001 and 1002, and a trunk for each of `trunks`: name, the digit that leads to it, the port of its proxy.
fn office(trunks: &[(&str, u8, u16)], more: &str) -> String {
    let mut text = stations(&["1001", "1002"]);
    for (name, digit, port) in trunks {
        text += &format!(
            "[[trunk]]\nname = \"{name}\"\nproxies = [\"{{peer}}:{port}\"]\n\
             [[dial_plan.pattern]]\npattern = \"{digit}.X!\"\ntarget = \"trunk:{name}\"\n"
        );
    }
    text + more
}

/// Calls, and the far end answers.
#[track_caller]
fn talk(caller: &Ua, number: &str, answering: &Ua) -> (Leg, Leg) {
    let mut leg = caller.call(number, &sdp(caller.local(), "0"));
    let invite = answering.request("INVITE");
    let far = answering.answer(&invite, &sdp(answering.local(), "0"));
    caller.established(&mut leg);
    (leg, far)
}

fn generation(engine: &Engine) -> f64 {
    engine.metric("tandem_settings_generation", &[])
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[test]
fn a_call_keeps_the_settings_it_began_with_and_the_next_has_the_new() {
    let plan = |keys: &str, limit: u32| {
        format!(
            "{}{}[[trunk]]\nname = \"out\"\nproxies = [\"{{peer}}:5071\", \"{{peer}}:5072\"]\n{keys}\n\
             [[dial_plan.pattern]]\npattern = \"9.X!\"\ntarget = \"trunk:out\"\n",
            station("1001", &format!("max_calls = {limit}")),
            stations(&["1002"]),
        )
    };
    let engine = Engine::start(&plan("retryable_codes = [\"503\"]", 0));
    let (caller, first, second) = (Ua::new(&engine, "1001"), proxy(&engine, 5071), proxy(&engine, 5072));
    let callee = Ua::new(&engine, "1002").registered();
    let (mut up, _) = talk(&caller, "1002", &callee);
    let hunting = Ua::new(&engine, "1001");
    let mut leg = hunting.call("9555", &sdp(hunting.local(), "0"));
    let invite = first.request("INVITE");

    let told = engine.reloaded(&plan("retryable_codes = [\"480\"]", 2), &[]);
    assert!(told.contains("~ station 1001: max_calls 0 -> 2\n"), "{told}");
    assert!(
        told.contains("~ trunk out: retryable_codes [\"503\"] -> [\"480\"] (1 call keeps its settings)\n"),
        "{told}"
    );
    assert!(told.contains(": 2 changes in force\n"), "{told}");

    // 503 led on when this call began.
    first.respond(&invite, "503 Service Unavailable", "x", "", "");
    let invite = second.request("INVITE");
    second.answer(&invite, &sdp(second.local(), "0"));
    hunting.established(&mut leg);
    // Both calls count under the limit that is new.
    let third = Ua::new(&engine, "1001");
    let refused = third.call("1002", &sdp(third.local(), "0"));
    assert!(third.refused(&refused).status().is_some_and(|status| status >= 480));
    hang_up(&caller, &mut up, &callee);
    // Its place is free once its media has reported.
    engine.counts("tandem_calls_active", &[], 1.0);
    let next = caller.call("9556", &sdp(caller.local(), "0"));
    first.respond(&first.request("INVITE"), "503 Service Unavailable", "y", "", "");
    assert!(
        caller.refused(&next).status().is_some_and(|status| status >= 500),
        "it does not lead on any more"
    );
    hang_up(&hunting, &mut leg, &second);
    engine.quiet();
}

#[test]
fn a_changed_password_counts_at_once_and_other_stations_notice_nothing() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let mut phone = Ua::new(&engine, "1001").registered();
    let other = Ua::new(&engine, "1002");
    let mut leg = other.registration();
    let challenge = other.register_once(&mut leg, &[], "Expires: 600\r\n");
    let challenge = Challenge::parse(challenge.header("WWW-Authenticate"));
    let answer = |nc| {
        let answer = challenge.answer("1002", "secret-1002", "REGISTER", &leg.target, nc);
        format!("Expires: 600\r\nAuthorization: {answer}\r\n")
    };
    let (first, second) = (answer(1), answer(2));
    assert_eq!(other.register_once(&mut leg, &[], &first).status(), Some(200));

    let told = engine.reloaded(&stations(&["1001", "1002"]).replace("\"secret-1001\"", "\"another\""), &[]);
    assert!(told.starts_with("~ station 1001: password\n"), "{told}");
    assert!(!told.contains("another"), "{told}");
    assert!(!engine.log().contains("another\""), "no log shows it");

    let bindings = || -> Vec<usize> {
        let list = engine.api("GET", "/api/v1/stations");
        list.as_array().unwrap().iter().map(|s| s["bindings"].as_array().unwrap().len()).collect()
    };
    assert_eq!(bindings(), [1, 1], "a binding ends with its time");
    let caller = Ua::new(&engine, "1002");
    let (mut leg_of_call, _) = talk(&caller, "1001", &phone);
    hang_up(&caller, &mut leg_of_call, &phone);
    assert_eq!(phone.register(&[], "Expires: 600\r\n").status(), Some(401));
    phone.password = "another".to_owned();
    assert_eq!(phone.register(&[], "Expires: 600\r\n").status(), Some(200));
    assert_eq!(other.register_once(&mut leg, &[], &second).status(), Some(200), "its nonce goes on");
    assert_eq!(bindings(), [1, 1]);
}

#[test]
fn a_trunk_that_is_added_is_used_and_what_is_believed_of_others_stays() {
    let before = office(&[("one", 9, 5071)], "");
    let engine = Engine::start(&before);
    let caller = Ua::new(&engine, "1001");
    // Nobody has its port.
    let leg = caller.call("9555", &sdp(caller.local(), "0"));
    caller.refused(&leg);
    let state = |name: &str| {
        let trunks = engine.api("GET", "/api/v1/trunks");
        let trunk = trunks.as_array().unwrap().iter().find(|t| t["name"] == name).cloned();
        trunk.map(|trunk| trunk["proxies"][0]["state"].as_str().unwrap_or_default().to_owned())
    };
    eventually("it is down", || so(state("one").as_deref() == Some("down")));
    let unknown = caller.call("8555", &sdp(caller.local(), "0"));
    assert_eq!(caller.refused(&unknown).status(), Some(404));

    let told = engine.reloaded(&office(&[("one", 9, 5071), ("two", 8, 5072)], ""), &[]);
    assert!(told.contains("+ trunk two\n") && told.contains("+ dial_plan.pattern internal/8.X!\n"), "{told}");
    assert_eq!(state("one").as_deref(), Some("down"), "it is as down as before");
    let far = proxy(&engine, 5072);
    let (mut leg, _) = talk(&caller, "8555", &far);
    hang_up(&caller, &mut leg, &far);
    assert_eq!(generation(&engine), 2.0);
    // A change of another key leaves what is believed, too.
    let changed = office(&[("one", 9, 5071), ("two", 8, 5072)], "")
        .replace("name = \"one\"\n", "name = \"one\"\nmax_calls = 7\n");
    let told = engine.reloaded(&changed, &[]);
    assert!(told.contains("~ trunk one: max_calls 0 -> 7\n"), "{told}");
    assert_eq!(state("one").as_deref(), Some("down"));
    // Asked otherwise it begins anew, by another actor that stays when the one before has gone.
    let asked = changed.replace("max_calls = 7\n", "qualify_interval_s = 1\n");
    engine.reloaded(&asked, &[]);
    let far = proxy(&engine, 5071);
    far.respond(&far.request("OPTIONS"), "200 OK", "x", "", "");
    eventually("it is up", || so(state("one").as_deref() == Some("up")));
    assert!(engine.ask("GET", "/api/v1/tree", "").body.contains("trunk:one"));
    assert_eq!(engine.metric("tandem_trunk_up", &[("trunk", "one")]), 1.0);
}

#[test]
fn calls_on_a_trunk_that_is_removed_go_on_to_their_end() {
    let engine = Engine::start(&office(&[("one", 9, 5071), ("two", 8, 5072)], ""));
    let (caller, far) = (Ua::new(&engine, "1001"), proxy(&engine, 5071));
    let (mut leg, mut far_leg) = talk(&caller, "9555", &far);
    let told = engine.reloaded(&office(&[("two", 8, 5072)], ""), &[]);
    assert!(told.contains("- trunk one (1 call goes on)\n"), "{told}");
    assert_eq!(names(&engine.api("GET", "/api/v1/trunks")), ["two"]);
    assert!(!engine.ask("GET", "/api/v1/tree", "").body.contains("trunk:one"), "its actor has ended");

    let next = Ua::new(&engine, "1001");
    let refused = next.call("9555", &sdp(next.local(), "0"));
    assert_eq!(next.refused(&refused).status(), Some(404));
    // Both ends still reach each other through us, in both directions.
    far.next(&mut far_leg, "INFO", "Content-Length: 0\r\n", "");
    assert!(far.final_response("INFO").status().is_some());
    hang_up(&caller, &mut leg, &far);
    let cdrs = engine.wait_cdrs(2);
    let ended = |cdr: &Value| (cdr["trunk"].as_str() == Some("one"), cdr["cause"] == "normal");
    assert_eq!(cdrs.iter().map(ended).collect::<Vec<_>>(), [(false, false), (true, true)], "{cdrs:#?}");
    engine.quiet();
}

#[test]
fn a_removed_station_loses_its_bindings_and_is_refused_over_a_restart_too() {
    let mut engine = Engine::start(&stations(&["1001", "1002", "1003"]));
    let phone = Ua::new(&engine, "1002").registered();
    let caller = Ua::new(&engine, "1001").registered();
    let (mut leg, _) = talk(&caller, "1002", &phone);
    assert_eq!(engine.metric("tandem_registrations_active", &[]), 2.0);
    let told = engine.reloaded(&stations(&["1001", "1003"]), &[]);
    assert!(told.starts_with("- station 1002 (1 binding ends, 1 call goes on)\n"), "{told}");
    engine.counts("tandem_registrations_active", &[], 1.0);
    assert_eq!(phone.register(&[], "Expires: 600\r\n").status(), Some(401));
    let refused = caller.call("1002", &sdp(caller.local(), "0"));
    assert_eq!(caller.refused(&refused).status(), Some(404));
    hang_up(&caller, &mut leg, &phone);

    // It is not there again because it was once.
    engine.reloaded(&stations(&["1001", "1002", "1003"]), &[]);
    let list = engine.api("GET", "/api/v1/stations");
    assert_eq!(list[1]["bindings"].as_array().map(Vec::len), Some(0), "{list}");
    engine.recorded("registration", 3);
    engine.kill9();
    engine.restart();
    let list = engine.api("GET", "/api/v1/stations");
    assert_eq!(names(&list), ["1001", "1002", "1003"]);
    assert_eq!(list[1]["bindings"].as_array().map(Vec::len), Some(0), "{list}");
    assert_eq!(list[0]["bindings"].as_array().map(Vec::len), Some(1), "{list}");
}

#[test]
fn settings_that_are_wrong_are_refused_with_file_and_key_and_nothing_changes() {
    let good = office(&[("one", 9, 5071)], "");
    let engine = Engine::start(&good);
    let bad = office(&[], "[registrar]\nmin_expires_s = \"soon\"\n[[trunk]]\nname = \"x\"\nproxys = []\n");
    let done = engine.reload(&bad, &[]);
    assert_eq!(done.status.code(), Some(1));
    let told = String::from_utf8(done.stderr).unwrap();
    let file = engine.dir().join("settings.toml").display().to_string();
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines.len() >= 2, "{told}");
    assert!(
        lines.iter().any(|l| l.starts_with(&format!("{file}:12: registrar.min_expires_s: found "))),
        "{told}"
    );
    assert!(lines.iter().any(|l| l.contains("trunk[0].proxys: unknown key; ")), "{told}");

    let answer = engine.ask("POST", "/api/v1/reload", "{}");
    let told = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(told.contains(":12: registrar.min_expires_s: found "), "{told}");
    assert_eq!((answer.status, answer.json()["status"].as_u64()), (422, Some(422)), "{answer:?}");
    assert_eq!(names(&engine.api("GET", "/api/v1/trunks")), ["one"]);
    let (caller, far) = (Ua::new(&engine, "1001"), proxy(&engine, 5071));
    let (mut leg, _) = talk(&caller, "9555", &far);
    hang_up(&caller, &mut leg, &far);
    // The command has not even asked: it finds the daemon by the same settings.
    assert_eq!(engine.metric("tandem_reloads_total", &[("result", "refused")]), 1.0);
    assert_eq!(generation(&engine), 1.0);
    engine.recorded("settings", 1);
    assert!(engine.log().contains("the reload was refused"));
}

#[test]
fn a_dry_run_tells_the_plan_and_changes_nothing() {
    let engine = Engine::start(&office(&[("one", 9, 5071)], ""));
    let phone = Ua::new(&engine, "1002").registered();
    let after = format!("{}{}", stations(&["1001"]), "[node]\nrealm = \"elsewhere\"\n");
    let told = engine.reloaded(&after, &["--dry-run"]);
    for line in [
        "~ node: realm not set -> \"elsewhere\"\n",
        "- station 1002 (1 binding ends)\n",
        "- trunk one\n",
        "- dial_plan.pattern internal/9.X!\n",
        "dry run: 4 changes would come into force, nothing has changed\n",
    ] {
        assert!(told.contains(line), "{line}{told}");
    }
    assert_eq!(names(&engine.api("GET", "/api/v1/trunks")), ["one"]);
    assert_eq!(phone.register(&[], "Expires: 600\r\n").status(), Some(200));
    assert_eq!(generation(&engine), 1.0);
    assert_eq!(engine.metric("tandem_trunk_up", &[("trunk", "one")]), 1.0);

    let told = engine.reloaded(&after, &[]);
    assert!(told.ends_with(": 4 changes in force\n"), "{told}");
    assert_eq!(engine.reloaded(&after, &[]), "nothing was different\n");
    assert_eq!(generation(&engine), 2.0);
    assert_eq!(engine.metric("tandem_reloads_total", &[("result", "unchanged")]), 1.0);
}

#[test]
fn sighup_reloads_as_the_command_does() {
    let mut engine = Engine::start(&office(&[], ""));
    engine.settle(&office(&[("one", 9, 5071)], ""));
    let sighup = |engine: &Engine| {
        let pid = engine.pid().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    };
    sighup(&engine);
    engine.counts("tandem_settings_generation", &[], 2.0);
    let (caller, far) = (Ua::new(&engine, "1001"), proxy(&engine, 5071));
    let (mut leg, _) = talk(&caller, "9555", &far);
    // A bad file neither ends the process nor anything in it.
    engine.settle("[nonsense");
    sighup(&engine);
    engine.counts("tandem_reloads_total", &[("result", "refused")], 1.0);
    hang_up(&caller, &mut leg, &far);
    assert_eq!(engine.ended(), None);
    assert!(engine.log().contains("SIGHUP"));
}

#[test]
fn what_only_a_restart_can_change_is_named_and_stays_while_the_rest_comes_into_force() {
    let mut engine = Engine::start(&office(&[], ""));
    let after = office(&[("one", 9, 5071)], "[node]\nshards = 3\n[media]\nports = [41000, 41999]\n");
    let told = engine.reloaded(&after, &[]);
    assert!(told.contains("+ trunk one\n"), "{told}");
    assert!(
        told.contains("! node.shards 0 -> 3: needs a restart, and stays as it is until then\n"),
        "{told}"
    );
    assert!(told.contains("! media.ports "), "{told}");
    assert_eq!(engine.metric("tandem_settings_pending", &[]), 2.0);
    let (caller, far) = (Ua::new(&engine, "1001"), proxy(&engine, 5071));
    let (mut leg, invite_port) = {
        let mut leg = caller.call("9555", &sdp(caller.local(), "0"));
        let invite = far.request("INVITE");
        far.answer(&invite, &sdp(far.local(), "0"));
        caller.established(&mut leg);
        (leg, invite.media().port())
    };
    assert!(!(41_000..42_000).contains(&invite_port), "{invite_port}");
    hang_up(&caller, &mut leg, &far);
    assert_eq!(generation(&engine), 2.0);
    engine.kill9();
    engine.restart();
    assert_eq!(engine.metric("tandem_settings_pending", &[]), 0.0);
    assert_eq!(names(&engine.api("GET", "/api/v1/trunks")), ["one"]);
}

#[test]
fn a_reload_under_load_loses_no_call() {
    let plan = |number: u32| {
        format!(
            "[[trunk]]\nname = \"in\"\nproxies = [\"{{peer}}:5090\"]\ncalling_search_space = \"all\"\n\
             [[trunk]]\nname = \"out\"\nproxies = [\"{{peer}}:5070\"]\nmax_calls = {}\n\
             [[dial_plan.calling_search_space]]\nname = \"all\"\npartitions = [\"internal\"]\n\
             [[dial_plan.pattern]]\npattern = \"9.X!\"\ntarget = \"trunk:out\"\n{}",
            500 + number,
            stations(&[&format!("{}", 2000 + number), &format!("{}", 3000 + number)]),
        )
    };
    let engine = Engine::start(&plan(0));
    let peer = engine.peer();
    const CALLS: usize = 150;
    let count = CALLS.to_string();
    let uas = Sipp::start(&engine, "uas", (peer, 5070).into(), &["-m", &count]);
    let calls = ["-s", "9555123", "-m", &count, "-r", "30", "-d", "300"];
    let uac = Sipp::start(&engine, "uac", (peer, 5090).into(), &calls);
    engine.reaches("tandem_calls_active", &[], 1.0);
    let mut number = 0;
    // Also ends if calls are refused, because the machine has too much to do.
    within(4 * SOON, "the end of most calls", || {
        number += 1;
        engine.settle(&plan(number));
        let answer = engine.ask("POST", "/api/v1/reload", "{}");
        assert_eq!((answer.status, answer.json()["result"].as_str()), (200, Some("applied")), "{answer:?}");
        so(engine.cdrs().len() >= CALLS - 20)
    });
    assert!(number >= 3, "{number} reloads under way");
    uac.passes();
    uas.passes();
    for cdr in engine.wait_cdrs(CALLS) {
        assert_eq!(
            (cdr["cause"].as_str(), cdr["ended_by"].as_str()),
            (Some("normal"), Some("caller")),
            "{cdr:#}"
        );
    }
    engine.quiet();
    assert_eq!(engine.metric("tandem_trunk_calls_active", &[]), 0.0);
    // Nobody uses the settings of before any more.
    engine.counts("tandem_settings_former", &[], 0.0);
}

#[test]
fn imported_stations_come_and_go_with_a_reload() {
    let settings = stations(&["1001"]);
    let engine = Engine::start(&settings);
    let import = |options: &[&str], line: &str| {
        let file = engine.dir().join("stations.jsonl");
        std::fs::write(&file, line).unwrap();
        let done =
            engine.command(&[&["import"], options, &[file.to_str().unwrap()]].concat()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    import(&[], "{\"name\": \"1002\", \"extension\": \"1002\", \"password\": \"secret-1002\"}\n");
    let phone = Ua::new(&engine, "1002");
    assert_eq!(phone.register(&[], "Expires: 600\r\n").status(), Some(401), "not yet");
    assert!(engine.reloaded(&settings, &[]).starts_with("+ station 1002\n"));
    let phone = phone.registered();
    let caller = Ua::new(&engine, "1001");
    let (mut leg, _) = talk(&caller, "1002", &phone);
    hang_up(&caller, &mut leg, &phone);

    // Settings under which it could not stay are refused.
    let taken =
        settings.clone() + &station("1003", "").replace("extension = \"1003\"", "extension = \"1002\"");
    let done = engine.reload(&taken, &[]);
    assert_eq!(done.status.code(), Some(1));
    let told = String::from_utf8(done.stderr).unwrap();
    assert!(told.contains("imported station \"1002\": extension"), "{told}");

    import(&["--remove"], "{\"name\": \"1002\"}");
    assert!(engine.reloaded(&settings, &[]).starts_with("- station 1002 (1 binding ends)\n"));
    let refused = caller.call("1002", &sdp(caller.local(), "0"));
    assert_eq!(caller.refused(&refused).status(), Some(404));
}
