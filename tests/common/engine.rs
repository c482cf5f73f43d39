//! The engine as a process of its own.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::host::Host;
use super::http::{self, Answer};
use super::{SOON, eventually, within};

const TOKEN: &str = "token-of-the-wire-tests";

/// A `tandem run` with settings, a directory and addresses of its own. It is killed when this is dropped, and its
/// log shown if the test has failed.
pub(crate) struct Engine {
    pub(crate) sip: SocketAddr,
    pub(crate) http: SocketAddr,
    host: Host,
    dir: TempDir,
    variables: Vec<(String, String)>,
    child: Option<Child>,
}

/// Stations, each with the password that [`super::Ua`] and [`super::TestPhone`] use.
pub(crate) fn stations(names: &[&str]) -> String {
    names.iter().map(|name| station(name, "")).collect()
}

/// One station with further keys.
pub(crate) fn station(name: &str, keys: &str) -> String {
    format!("[[station]]\nname = \"{name}\"\nextension = \"{name}\"\npassword = \"secret-{name}\"\n{keys}\n")
}

/// Writes settings with the addresses in their places; what was written.
fn write_settings(dir: &TempDir, host: &Host, toml: &str) -> String {
    let (ip, peer) = (host.engine().to_string(), host.peer().to_string());
    let here = dir.path().display().to_string();
    let toml = toml.replace("{ip}", &ip).replace("{peer}", &peer).replace("{dir}", &here);
    fs::write(dir.path().join("settings.toml"), &toml).expect("settings written");
    toml
}

impl Engine {
    /// Starts an engine with these settings and waits until it is ready. `{peer}` in them is the address of
    /// phones and other servers, `{ip}` the engine's.
    #[track_caller]
    pub(crate) fn start(toml: &str) -> Engine {
        Engine::start_with(toml, &[])
    }

    /// The same with faults that can be injected.
    #[track_caller]
    pub(crate) fn start_with_chaos(toml: &str) -> Engine {
        Engine::start_with(toml, &[("TANDEM_CHAOS", "1")])
    }

    /// The same with environment variables.
    #[track_caller]
    pub(crate) fn start_with(toml: &str, variables: &[(&str, &str)]) -> Engine {
        let mut engine = Engine::prepare(toml, variables);
        engine.restart();
        engine
    }

    /// An engine that is not started yet.
    pub(crate) fn prepare(toml: &str, variables: &[(&str, &str)]) -> Engine {
        let host = Host::claim();
        let dir = tempfile::Builder::new().prefix("tandem-wire-").tempdir().expect("a directory");
        let ip = host.engine();
        let (sip, http) = ((ip, 5060).into(), (ip, 8080).into());
        let toml = write_settings(&dir, &host, toml);
        let mut own = vec![
            ("TANDEM__NODE__DATA_DIR".to_owned(), dir.path().join("data").display().to_string()),
            ("TANDEM__HTTP__ADDRESS".to_owned(), format!("{http}")),
            ("TANDEM__HTTP__TOKENS".to_owned(), TOKEN.to_owned()),
        ];
        if !toml.contains("[[listen]]") {
            own.push(("TANDEM__LISTEN".to_owned(), format!("[{{ name = \"udp\", address = \"{sip}\" }}]")));
        }
        own.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Engine { sip, http, host, dir, variables: own, child: None }
    }

    /// Gives it other settings, for its next start.
    pub(crate) fn settle(&self, toml: &str) {
        write_settings(&self.dir, &self.host, toml);
    }

    /// The program with this engine's settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
        command.arg("--config").arg(self.dir.path().join("settings.toml")).args(arguments);
        command.env_remove("TANDEM_CHAOS").envs(self.variables.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// Starts the process, which must not run, and waits until it is ready. Gives the time that took, but for that in which its most
    /// delayed thread could have run and others had the processors: that is not the engine's.
    #[track_caller]
    pub(crate) fn restart(&mut self) -> Duration {
        self.reap();
        let log = || -> Stdio {
            let path = self.dir.path().join("log");
            OpenOptions::new().create(true).append(true).open(path).map(Stdio::from).expect("a log")
        };
        let begin = Instant::now();
        let child = self.command(&["run"]).stdout(log()).stderr(log()).spawn().expect("the program");
        self.child = Some(child);
        within(2 * SOON, "ready", || {
            if let Some(status) = self.ended() {
                panic!("the engine ended with {status}");
            }
            let answer = http::ask(self.http, "GET", "/readyz", None, "").ok()?;
            (answer.status == 200).then_some(())
        });
        begin.elapsed().saturating_sub(self.pushed_aside())
    }

    /// The longest that a thread of the process has waited for a processor, as Linux counts it.
    fn pushed_aside(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        let waited = |task: fs::DirEntry| -> Option<u64> {
            fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').nth(1)?.parse().ok()
        };
        Duration::from_nanos(tasks.filter_map(waited).max().unwrap_or_default())
    }

    /// The process's status if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("a child")
    }

    /// Whether there is a process.
    pub(crate) fn running(&self) -> bool {
        self.child.is_some()
    }

    /// Sends it a signal, by name.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill, of procps").success());
    }

    /// Ends the process as a power cut would.
    #[track_caller]
    pub(crate) fn kill9(&mut self) {
        self.child.as_mut().expect("a process").kill().expect("killed");
        self.reap();
    }

    fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("a process").id()
    }

    /// The memory it has resident, in kilobytes.
    pub(crate) fn resident_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// The address of phones and other servers.
    pub(crate) fn peer(&self) -> Ipv4Addr {
        self.host.peer()
    }

    /// An address that it knows nothing of.
    pub(crate) fn stranger(&self) -> Ipv4Addr {
        self.host.stranger()
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Asks its API; the answer must be 2xx. A shard that could not answer in time on a busy machine is asked again.
    #[track_caller]
    pub(crate) fn api(&self, method: &str, path: &str) -> Value {
        let deadline = Instant::now() + SOON;
        let mut answer = self.ask(method, path, "");
        while answer.status == 503 && answer.body.contains("in time") && Instant::now() < deadline {
            answer = self.ask(method, path, "");
        }
        assert!(answer.status / 100 == 2, "{method} {path}: {answer:?}");
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    /// Asks its HTTP, with the token.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        http::ask(self.http, method, path, Some(TOKEN), body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// The calls it has.
    #[track_caller]
    pub(crate) fn calls(&self) -> Vec<Value> {
        let answer = self.api("GET", "/api/v1/calls");
        let list = answer.get("calls").unwrap_or(&answer);
        list.as_array().unwrap_or_else(|| panic!("no list: {answer}")).clone()
    }

    /// Waits until it has one call and this is its state; gives its id.
    #[track_caller]
    pub(crate) fn call_in(&self, state: &str) -> String {
        eventually(&format!("one call that is {state}"), || {
            let calls = self.calls();
            let [call] = calls.as_slice() else { return None };
            (call["state"] == state).then(|| call["call_id"].as_str().expect("an id").to_owned())
        })
    }

    /// Waits until nothing is left of any call.
    #[track_caller]
    pub(crate) fn quiet(&self) {
        eventually("no calls", || (self.metric("tandem_calls_active", &[]) == 0.0).then_some(()));
    }

    /// `tandem reload` with these settings.
    pub(crate) fn reload(&self, settings: &str, options: &[&str]) -> Output {
        self.settle(settings);
        self.command(&[&["reload"], options].concat()).output().expect("the program")
    }

    /// The same; it must succeed. What it prints.
    #[track_caller]
    pub(crate) fn reloaded(&self, settings: &str, options: &[&str]) -> String {
        let done = self.reload(settings, options);
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// Makes an actor fail; `what` is `panic`, `panic_always` or `stall`.
    #[track_caller]
    pub(crate) fn chaos(&self, actor: &str, what: &str) {
        let body = json!({ "actor": actor, "do": what }).to_string();
        let answer = self.ask("POST", "/api/v1/chaos", &body);
        assert!(answer.status / 100 == 2, "chaos {what} {actor}: {answer:?}");
    }

    /// Has a shard do nothing for so long.
    #[track_caller]
    pub(crate) fn stall(&self, shard: u64, time: Duration) {
        let body = json!({ "actor": format!("shard:{shard}"), "do": "stall", "ms": time.as_millis() as u64 });
        let answer = self.ask("POST", "/api/v1/chaos", &body.to_string());
        assert!(answer.status / 100 == 2, "stall of shard {shard}: {answer:?}");
    }

    /// Waits until another shard has taken the place of one for the `times`th time, and says that it has its calls.
    #[track_caller]
    pub(crate) fn replaced(&self, times: usize) {
        eventually(&format!("{times} shards in the places of others"), || {
            let log = self.log();
            (log.matches("has taken the place of the fenced one").count() >= times).then_some(())
        });
    }

    /// The sum of the samples of a metric that have these labels.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let answer = self.ask("GET", "/metrics", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let samples = answer.body.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label.as_str()))
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until a metric has at least this value.
    #[track_caller]
    pub(crate) fn reaches(&self, name: &str, labels: &[(&str, &str)], least: f64) {
        eventually(&format!("{name} {labels:?} of {least}"), || {
            (self.metric(name, labels) >= least).then_some(())
        });
    }

    /// Waits until a metric has this value. An answer may be here before the engine has got to counting it.
    #[track_caller]
    pub(crate) fn counts(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut last = f64::NAN;
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            last = self.metric(name, labels);
            if last == value {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        panic!("{name} {labels:?} is {last} and not {value}");
    }

    /// Waits until the store has so many events of this type; all that it was given before them it has then too. An answer that waited
    /// 100 ms for its commit leaves without it.
    #[track_caller]
    pub(crate) fn recorded(&self, kind: &str, count: usize) {
        eventually(&format!("{count} events {kind}"), || {
            let events = self.api("GET", "/api/v1/events?from=0&max=10000");
            let found =
                events.as_array().expect("a list").iter().filter(|event| event["type"] == kind).count();
            (found >= count).then_some(())
        });
    }

    /// The CDRs it has written.
    pub(crate) fn cdrs(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.data().join("cdr.jsonl")).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until it has written so many CDRs, and gives them.
    #[track_caller]
    pub(crate) fn wait_cdrs(&self, count: usize) -> Vec<Value> {
        let cdrs = eventually(&format!("{count} CDRs"), || Some(self.cdrs()).filter(|c| c.len() >= count));
        assert_eq!(cdrs.len(), count, "{cdrs:#?}");
        cdrs
    }

    /// Waits for the only CDR and checks how the call ended.
    #[track_caller]
    pub(crate) fn cdr(&self, cause: &str, status: u16, ended_by: &str) -> Value {
        let cdr = self.wait_cdrs(1).remove(0);
        assert_eq!(
            (cdr["cause"].as_str(), cdr["sip_status"].as_u64(), cdr["ended_by"].as_str()),
            (Some(cause), Some(u64::from(status)), Some(ended_by)),
            "{cdr:#}"
        );
        cdr
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.reap();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(20_000);
            let tail = log.get(from..).unwrap_or(&log);
            eprintln!("---- log of the engine\n{tail}----");
        }
    }
}
