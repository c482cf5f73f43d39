//! SIPp, the load generator, as the other end.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Engine, eventually, so};

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A SIPp process with one of `tests/sipp/*.xml`.
pub(crate) struct Sipp {
    child: Option<Child>,
    errors: PathBuf,
    scenario: String,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// 0 if every call went as the scenario says.
    pub(crate) status: Option<i32>,
    /// What SIPp wrote about those that did not.
    pub(crate) errors: String,
}

impl Sipp {
    /// Starts a scenario at `local`; one of a callee is there when this returns. It gives up after three minutes.
    #[track_caller]
    pub(crate) fn start(engine: &Engine, scenario: &str, local: SocketAddr, arguments: &[&str]) -> Sipp {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = format!("{}/tests/sipp/{scenario}.xml", env!("CARGO_MANIFEST_DIR"));
        let errors = engine.dir().join(format!("sipp-{scenario}-{number}.err"));
        let ip = local.ip().to_string();
        let mut child = Command::new("sipp")
            .current_dir(engine.dir())
            .args(["-sf", &file, "-i", &ip, "-mi", &ip, "-p", &local.port().to_string()])
            .args(["-nostdin", "-timeout", "180s", "-timeout_error", "-trace_err", "-error_file"])
            .arg(&errors)
            .args(arguments)
            .arg(engine.sip.to_string())
            .env("TERM", "dumb")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sipp, of the Debian package sip-tester");
        if scenario.starts_with("uas") {
            // A call to a port that nobody has fails at once.
            eventually("SIPp at its port", || so(is_bound(local) || !matches!(child.try_wait(), Ok(None))));
        }
        Sipp { child: Some(child), errors, scenario: scenario.to_owned() }
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Outcome {
        let status = self.child.take().expect("a child").wait().expect("a status").code();
        Outcome { status, errors: fs::read_to_string(&self.errors).unwrap_or_default() }
    }

    /// Waits until it has ended, and every call has gone as it should.
    #[track_caller]
    pub(crate) fn passes(self) {
        let scenario = self.scenario.clone();
        let outcome = self.wait();
        assert_eq!(outcome.status, Some(0), "{scenario}: {}", outcome.errors);
    }
}

/// Whether somebody has this UDP or TCP port of this IPv4 address.
pub(crate) fn is_bound(local: SocketAddr) -> bool {
    let IpAddr::V4(ip) = local.ip() else { panic!("{local} is not of IPv4") };
    let entry = format!(" {:08X}:{:04X} ", u32::from_ne_bytes(ip.octets()), local.port());
    let holds = |table: &str| fs::read_to_string(table).is_ok_and(|table| table.contains(&entry));
    holds("/proc/net/udp") || holds("/proc/net/tcp")
}

impl Drop for Sipp {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
