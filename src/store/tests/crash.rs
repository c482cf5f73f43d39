//! `kill -9`: what a ticket has acknowledged is there afterwards.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::*;

/// Set in the child: the directory it writes to.
const CHILD: &str = "TANDEM_TEST_STORE_DIR";

/// Not a test of its own: the child of the test below, which runs this binary again.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let rig = Rig::open(Path::new(&dir));
    let mut out = std::io::stdout();
    for token in 0_u64.. {
        let mut batch = put(&format!("k{token}"), &"x".repeat(1200));
        batch.events.push(event("c", "x"));
        batch.cdrs.push(Cdr { call_id: format!("k{token}"), ..Cdr::default() });
        rig.store.submit(ticketed(batch, token));
        while let Ok((token, result)) = rig.told.try_recv() {
            assert_eq!(result, Ok(()));
            writeln!(out, "committed {token}").unwrap();
        }
        if token % 8 == 7 {
            let (token, result) = rig.next();
            assert_eq!(result, Ok(()));
            writeln!(out, "committed {token}").unwrap();
        }
    }
}

#[test]
fn everything_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    for run in 1..=3 {
        let data = dir.path().join(run.to_string());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "store::tests::crash::child_that_writes_until_it_is_killed"])
            .env(CHILD, &data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines_out = BufReader::new(child.stdout.take().unwrap()).lines();
        let token =
            |line: String| line.rsplit_once("committed ").and_then(|(_, token)| token.parse::<u64>().ok());
        let mut acknowledged: Vec<u64> = Vec::new();
        while acknowledged.len() < 700 * run {
            let line = lines_out.next().expect("the child writes until it is killed").unwrap();
            acknowledged.extend(token(line));
        }
        // SIGKILL on Unix.
        child.kill().unwrap();
        child.wait().unwrap();
        // What was printed before the kill counts too; its last line may be torn.
        let mut rest: Vec<String> = lines_out.map_while(Result::ok).collect();
        rest.pop();
        acknowledged.extend(rest.into_iter().filter_map(token));
        let rig = Rig::open(&data);
        let keys: std::collections::BTreeSet<String> =
            rig.keys(Bucket::Calls).into_iter().map(|(key, ..)| key).collect();
        for token in &acknowledged {
            assert!(keys.contains(&format!("k{token}")), "k{token} of run {run} is lost");
        }
        let log = rig.store.events_from(0, usize::MAX).unwrap();
        assert_eq!(log.len(), keys.len(), "a batch is whole");
        assert_eq!(number(log.last().unwrap()), log.len() as u64);
        // The file follows the database, without a repeated or torn line.
        rig.store.flush();
        let filed: Vec<String> = lines(&data.join("cdr.jsonl"));
        let ids: Vec<String> =
            filed.iter().map(|line| serde_json::from_str::<Cdr_>(line).unwrap().call_id).collect();
        assert_eq!(ids, (0..keys.len()).map(|n| format!("k{n}")).collect::<Vec<_>>());
    }
}

#[derive(serde::Deserialize)]
struct Cdr_ {
    call_id: String,
}
