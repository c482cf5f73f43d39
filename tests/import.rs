//! `tandem import`: stations of the store, from the command to a registered phone.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::process::Output;

use common::engine::stations;
use common::{Engine, Ua};

fn import(engine: &Engine, options: &[&str], lines: &str) -> Output {
    let file = engine.dir().join("stations.jsonl");
    fs::write(&file, lines).expect("written");
    let file = file.to_str().expect("a path");
    engine.command(&[&["import"], options, &[file]].concat()).output().expect("the program")
}

fn line(name: &str) -> String {
    format!("{{\"name\": \"{name}\", \"extension\": \"{name}\", \"password\": \"secret-{name}\"}}\n")
}

fn names(engine: &Engine) -> Vec<String> {
    let list = engine.api("GET", "/api/v1/stations");
    list.as_array().unwrap().iter().map(|station| station["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_imported_station_registers_after_the_next_start_until_it_is_removed() {
    let mut engine = Engine::start(&stations(&["1001"]));
    let done = import(&engine, &[], &(line("1002") + "\n" + &line("1003")));
    assert!(done.status.success(), "{done:?}");
    let told = String::from_utf8(done.stdout).unwrap();
    assert_eq!(told, "2 stations were put into the store; this takes effect with `tandem reload`\n");
    assert_eq!(names(&engine), ["1001"]);

    engine.kill9();
    engine.restart();
    assert_eq!(names(&engine), ["1001", "1002", "1003"]);
    let _registered = Ua::new(&engine, "1002").registered();

    assert!(import(&engine, &["--remove"], "{\"name\": \"1002\"}").status.success());
    engine.kill9();
    engine.restart();
    assert_eq!(names(&engine), ["1001", "1003"]);
}

#[test]
fn nothing_is_imported_unless_every_line_is_right() {
    let mut engine = Engine::start(&stations(&["1001"]));
    // The first lines fill a request of their own.
    let right: String = (2000..4000).map(|n| line(&n.to_string())).collect();
    let done = import(&engine, &[], &format!("{right}{{\"name\": \"4000\", \"extension\": \"1001\"}}\n"));
    assert_eq!(done.status.code(), Some(1));
    let told = String::from_utf8(done.stderr).unwrap();
    assert!(told.starts_with("line 2001: extension: "), "{told}");
    engine.kill9();
    engine.restart();
    assert_eq!(names(&engine), ["1001"]);
}

#[test]
fn check_and_route_know_the_imported_stations() {
    let settings = stations(&["1001"]);
    let mut engine = Engine::start(&settings);
    assert!(import(&engine, &[], &(line("1002") + &line("1003"))).status.success());
    let said = |engine: &Engine, arguments: &[&str]| {
        let done = engine.command(arguments).output().unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    // Beside a daemon that runs, and when it has ended.
    for _ in 0..2 {
        let (status, told) = said(&engine, &["check"]);
        assert_eq!(status, Some(0), "{told}");
        assert!(
            told.contains(", 3 stations, ") && told.ends_with(" (2 of the stations are imported)\n"),
            "{told}"
        );
        let (status, told) = said(&engine, &["route", "--from", "1002", "1003"]);
        assert_eq!(status, Some(0), "{told}");
        assert!(told.starts_with("station \"1002\" (extension 1002) dials 1003\n"), "{told}");
        if engine.running() {
            engine.kill9();
        }
    }
    engine.settle(&settings.replace("extension = \"1001\"", "extension = \"1003\""));
    let (status, told) = said(&engine, &["check"]);
    assert_eq!(status, Some(0), "it would start");
    assert!(told.starts_with("warning: imported station \"1003\": extension: "), "{told}");
    assert!(told.ends_with(" (1 of the stations is imported)\n"), "{told}");
}
