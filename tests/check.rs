//! `tandem check` as an operator runs it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program, with nothing of the environment that is a setting.
fn tandem(arguments: &[&str], file: Option<&Path>, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TANDEM")) {
        command.env_remove(name);
    }
    command.args(arguments).envs(variables.iter().copied());
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    command.output().unwrap()
}

fn written(dir: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("office.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_example_office_passes() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/example.toml");
    let output = tandem(&["check"], Some(&file), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        "ok: 1 listener, 3 stations, 0 users, 1 trunk, 2 services, 2 patterns\n"
    );
}

#[test]
fn without_a_file_the_defaults_pass() {
    let output = tandem(&["check"], None, &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).starts_with("ok: 1 listener, 0 stations"));
}

#[test]
fn warnings_are_printed_and_stop_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = written(&dir, "[[station]]\nname = \"1001\"\nextension = \"1001\"\n");
    let output = tandem(&["check"], Some(&file), &[]);
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with(&format!("warning: {}:1: station[0]: ", file.display())), "{lines:?}");
    assert!(lines[1].starts_with("ok: 1 listener, 1 station, "), "{lines:?}");
}

#[test]
fn every_error_is_printed_and_the_status_is_1() {
    let dir = tempfile::tempdir().unwrap();
    let file = written(&dir, "[node]\nnmae = \"x\"\n[media]\nports = [20001, 20002]\n");
    let output = tandem(&["check"], Some(&file), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    let lines: Vec<&str> = text(&output.stderr).lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with(&format!("{}:2: node.nmae: unknown key; ", file.display())), "{lines:?}");
    assert!(lines[1].starts_with(&format!("{}:4: media.ports: found ", file.display())), "{lines:?}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = tandem(&["check"], Some(Path::new("/nonexistent/office.toml")), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("/nonexistent/office.toml: cannot read the settings file: "));
}

#[test]
fn a_variable_overrides_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = written(&dir, "[media]\nports = [20001, 20002]\n");
    let output = tandem(&["check"], Some(&file), &[("TANDEM__MEDIA__PORTS", "20000,20999")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}
