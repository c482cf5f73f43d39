//! `tandem demo` as a visitor runs it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// Starts it, with temporary files in `dir`.
fn demo(dir: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
    command.arg("demo").args(arguments).env("TMPDIR", dir).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program")
}

/// The rest of the line that begins like this.
fn told<'a>(text: &'a str, start: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(start));
    line.unwrap_or_else(|| panic!("no {start:?} in\n{text}")).trim()
}

#[test]
fn two_demonstrations_at_once_both_succeed_and_show_everything() {
    let dir = tempfile::tempdir().unwrap();
    let runs = [demo(dir.path(), &["--exit"]), demo(dir.path(), &["--exit"])];
    for run in runs {
        let output = run.wait_with_output().unwrap();
        let (shown, complaint) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{shown}\n{complaint}");
        for message in
            ["REGISTER", "401 Unauthorized", "INVITE sip:1002", "180 Ringing", "200 OK (INVITE)", "BYE"]
        {
            assert!(shown.contains(message), "no {message} in the ladder:\n{shown}");
        }
        for who in ["alice", "bob"] {
            let heard = told(&shown, &format!("{who}  "));
            assert!(heard.contains("dBm0") && heard.contains("jitter"), "{heard}");
        }
        assert!(Path::new(told(&shown, "recording")).is_file(), "{shown}");
        let cdrs = std::fs::read_to_string(told(&shown, "CDR  ")).unwrap();
        let cdr: Value = serde_json::from_str(cdrs.trim()).unwrap();
        assert_eq!((&cdr["from"], &cdr["cause"]), (&"1001".into(), &"normal".into()), "{cdr:#}");
        assert!(told(&shown, "metrics").ends_with("/metrics"));
    }
}

#[test]
fn a_visitor_is_invited_and_ctrl_c_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = demo(dir.path(), &[]);
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map_while(Result::ok);
    let invitation = lines.find(|line| line.contains("user 1003")).expect("an invitation");
    assert!(invitation.contains("password") && invitation.contains("127.0.0.1:"), "{invitation}");
    let interrupted = Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    assert!(lines.any(|line| line.contains("Ending")), "it says that it ends");
    assert_eq!(run.wait().unwrap().code(), Some(0));
}
