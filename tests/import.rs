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
