//! NSD, a DNS server that is not ours.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::SOON;

/// Its port: it needs no privilege.
const PORT: u16 = 5353;

/// What it does. In capitals: its address and its directory.
const CONFIG: &str = r#"
server:
  ip-address: ADDRESS@5353
  username: ""
  chroot: ""
  zonesdir: "DIRECTORY"
  database: ""
  pidfile: ""
  logfile: "DIRECTORY/log"
  xfrdfile: "DIRECTORY/xfrd.state"
  xfrdir: "DIRECTORY"
  zonelistfile: "DIRECTORY/zone.list"
  server-count: 1
remote-control:
  control-enable: no
zone:
  name: "test"
  zonefile: "test.zone"
"#;

/// The head of the zone "test". What it does not have is absent for two seconds; `a.test` is at the server's own address.
const HEAD: &str = "\
$ORIGIN test.
$TTL 60
@ SOA ns host 1 3600 600 86400 2
@ NS ns
ns A ADDRESS
a A ADDRESS
";

/// An NSD of this test's own with the zone "test". It is killed, with its children, when this is dropped.
pub(crate) struct Nsd {
    child: Option<Child>,
    at: SocketAddr,
    dir: PathBuf,
}

impl Nsd {
    /// Starts it at `ip` with these records, and waits until it answers.
    #[track_caller]
    pub(crate) fn start(dir: &Path, ip: Ipv4Addr, records: &str) -> Nsd {
        let dir = dir.join(format!("nsd-{ip}"));
        fs::create_dir_all(&dir).expect("a directory");
        let config =
            CONFIG.replace("ADDRESS", &ip.to_string()).replace("DIRECTORY", &dir.display().to_string());
        fs::write(dir.join("nsd.conf"), config).expect("written");
        let mut nsd = Nsd { child: None, at: (ip, PORT).into(), dir };
        nsd.serve(records);
        nsd
    }

    /// Where it is asked.
    pub(crate) fn address(&self) -> SocketAddr {
        self.at
    }

    /// Has these records from now on, and answers at the return.
    #[track_caller]
    pub(crate) fn serve(&mut self, records: &str) {
        self.kill();
        let head = HEAD.replace("ADDRESS", &self.at.ip().to_string());
        fs::write(self.dir.join("test.zone"), format!("{head}{records}\n")).expect("written");
        let log = || File::create(self.dir.join("output")).expect("a log");
        let child = Command::new("nsd")
            // In the foreground.
            .args(["-d", "-c"])
            .arg(self.dir.join("nsd.conf"))
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .process_group(0)
            .spawn()
            .expect("nsd, of the Debian package nsd");
        self.child = Some(child);
        let deadline = Instant::now() + SOON;
        while let Err(error) = TcpStream::connect_timeout(&self.at, SOON) {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a child"));
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "nsd at {}: {error}, {ended:?}\n{}",
                self.at,
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Ends it at once, as a crash would.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Its children do not end with it; the group is theirs alone.
            let group = format!("-{}", child.id());
            Command::new("kill").args(["-KILL", "--", &group]).status().expect("kill, of procps");
            child.wait().expect("a status");
        }
    }

    fn log(&self) -> String {
        ["log", "output"].map(|name| fs::read_to_string(self.dir.join(name)).unwrap_or_default()).join("")
    }
}

impl Drop for Nsd {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- log of nsd\n{}----", self.log());
        }
    }
}
