//! A dial plan tried on the calls of before: which would go elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::engine::stations;
use common::{Engine, Sipp, Ua, sdp};

fn plan(nines: &str) -> String {
    format!(
        "{}[[trunk]]\nname = \"in\"\nproxies = [\"{{peer}}:5090\"]\n\
         [[trunk]]\nname = \"out\"\nproxies = [\"{{peer}}:5070\"]\n\
         [[trunk]]\nname = \"other\"\nproxies = [\"{{peer}}:5072\"]\n\
         [[dial_plan.pattern]]\npattern = \"9.X!\"\ntarget = \"{nines}\"\n",
        stations(&["1001", "1002"])
    )
}

#[test]
fn calls_that_would_go_elsewhere_are_told_before_the_plan_is_in_force() {
    let engine = Engine::start(&plan("trunk:out"));
    let peer = engine.peer();
    let uas = Sipp::start(&engine, "uas", (peer, 5070).into(), &["-m", "2"]);
    let calls = ["-s", "9555123", "-m", "2", "-r", "20", "-d", "10"];
    Sipp::start(&engine, "uac", (peer, 5090).into(), &calls).passes();
    uas.passes();
    let caller = Ua::new(&engine, "1001");
    let leg = caller.call("1002", &sdp(caller.local(), "0"));
    caller.refused(&leg);
    let cdrs = engine.wait_cdrs(3);
    assert_eq!(cdrs.iter().filter(|cdr| cdr["from_trunk"] == "in").count(), 2, "{cdrs:#?}");

    let before = engine.dir().join("before.toml");
    std::fs::copy(engine.dir().join("settings.toml"), &before).unwrap();
    engine.settle(&plan("trunk:other"));
    let done = engine.command(&["reload", "--dry-run", "--against-cdrs"]).output().unwrap();
    let told = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{told}");
    let way = " 5550100 by in -> 9555123: trunk:out as 555123 by out -> trunk:other as 555123 by other\n";
    assert_eq!(told.matches(way).count(), 2, "{told}");
    assert!(told.ends_with("\n2 calls would go elsewhere, of 3 looked at\n"), "{told}");
    assert_eq!(engine.metric("tandem_settings_generation", &[]), 1.0);

    // The same from two files, without the daemon.
    let cdrs = engine.data().join("cdr.jsonl");
    let arguments = ["route", "--before", before.to_str().unwrap(), "--against-cdrs", cdrs.to_str().unwrap()];
    let done = engine.command(&arguments).output().unwrap();
    let offline = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(1), "some would");
    assert_eq!(offline.matches(way).count(), 2, "{offline}");
    engine.settle(&plan("trunk:out"));
    let done = engine.command(&arguments).output().unwrap();
    assert_eq!(done.status.code(), Some(0));
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "0 calls would go elsewhere, of 3 looked at\n");
}

#[test]
fn cdrs_are_only_looked_at_in_a_dry_run() {
    let engine = Engine::start(&plan("trunk:out"));
    let answer = engine.ask("POST", "/api/v1/reload", "{\"against_cdrs_h\": 24}");
    assert_eq!(answer.status, 422, "{answer:?}");
    let wrong = engine.command(&["reload", "--against-cdrs", "24"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}
