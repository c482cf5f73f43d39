//! The dashboard, the scrape settings and the alerts, asked of a real Prometheus that watches an engine under SIPp's load.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::host::Host;
use common::tls::Authority;
use serde_json::Value;

/// How long anything may take.
const BOUND: Duration = Duration::from_secs(180);
/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// A program of the test's own, ended with the test.
struct Program {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Program {
    fn start(dir: &Path, name: &'static str, command: &mut Command) -> Program {
        let log = dir.join(format!("{name}.log"));
        let output = fs::File::create(&log).unwrap();
        let child = command
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|why| panic!("{name}: {why}; `./tests/run packages` installs what is missing"));
        Program { name, child, log }
    }

    fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!(
                "{} ended with {status}:\n{}",
                self.name,
                fs::read_to_string(&self.log).unwrap_or_default()
            );
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_until(what: &str, programs: &mut [Program], mut done: impl FnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !done() {
        programs.iter_mut().for_each(Program::assert_runs);
        assert!(Instant::now() < end, "{what}: not within {BOUND:?}");
        std::thread::sleep(LOOK);
    }
}

fn get(url: &str) -> Option<Value> {
    let text = ureq::get(url).call().ok()?.body_mut().read_to_string().ok()?;
    Some(serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// A query's text in a URL.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

struct Prometheus(String);

impl Prometheus {
    /// The series that a query gives now; an error of the query ends the test.
    fn ask(&self, query: &str) -> Vec<Value> {
        let url = format!("{}/api/v1/query?query={}", self.0, encoded(query));
        let answer = get(&url).unwrap_or_else(|| panic!("Prometheus refuses {query}"));
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// Every alerting rule it has loaded.
    fn alerts(&self) -> Vec<Value> {
        let answer = get(&format!("{}/api/v1/rules?type=alert", self.0)).unwrap();
        let groups = answer["data"]["groups"].as_array().unwrap().clone();
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }
}

/// Where everything listens.
struct Places {
    http: SocketAddr,
    sip: SocketAddr,
    caller: SocketAddr,
    callee: SocketAddr,
    prometheus: SocketAddr,
}

fn start_engine(dir: &Path, data: &Path, places: &Places) -> Program {
    Authority::new("observed").issue(dir, "own", &["observed.example"]);
    let settings = dir.join("tandem.toml");
    let text = format!(
        r#"
        [node]
        name = "observed"
        data_dir = "{data}"

        [http]
        address = "{http}"

        [[listen]]
        name = "sip"
        transport = "udp"
        address = "{sip}"

        [[listen]]
        name = "secure"
        transport = "tls"
        address = "{tls}"
        certificate = "{own}/own.pem"
        private_key = "{own}/own.key"

        [media]
        addresses = ["{media}"]

        [[trunk]]
        name = "in"
        proxies = ["{caller}"]

        [[trunk]]
        name = "out"
        proxies = ["{callee}"]

        [[dial_plan.pattern]]
        pattern = "100"
        target = "trunk:out"

        # It is its own provider.
        [[station]]
        name = "office"
        extension = "200"
        password = "hush"

        [[registration_group]]
        name = "provider"
        registrations = [{{ address = "{sip}", username = "office", password = "hush" }}]
        "#,
        data = data.display(),
        http = places.http,
        sip = places.sip,
        tls = SocketAddr::new(places.sip.ip(), 5061),
        own = dir.display(),
        media = places.sip.ip(),
        caller = places.caller,
        callee = places.callee,
    );
    fs::write(&settings, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TANDEM")) {
        command.env_remove(name);
    }
    Program::start(dir, "tandem", command.arg("run").arg("--config").arg(settings))
}

/// The project's own settings of Prometheus, but for the address, the interval and where files are.
fn start_prometheus(dir: &Path, grafana: &Path, places: &Places) -> Program {
    let text = fs::read_to_string(grafana.join("prometheus.yml")).unwrap();
    let replaced = [
        ("127.0.0.1:8080", places.http.to_string()),
        ("scrape_interval: 5s", "scrape_interval: 1s".to_owned()),
        ("evaluation_interval: 15s", "evaluation_interval: 1s".to_owned()),
        ("- alerts.yml", format!("- {}", grafana.join("alerts.yml").display())),
    ]
    .iter()
    .fold(text, |text, (from, to)| {
        assert!(text.contains(from), "prometheus.yml has no {from}");
        text.replace(from, to)
    });
    let settings = dir.join("prometheus.yml");
    fs::write(&settings, replaced).unwrap();
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", settings.display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()))
        .arg(format!("--web.listen-address={}", places.prometheus));
    Program::start(dir, "prometheus", &mut command)
}

fn start_load(dir: &Path, scenarios: &Path, places: &Places) -> [Program; 2] {
    let sipp = |scenario: &str, at: SocketAddr| {
        let mut command = Command::new("sipp");
        command.arg("-sf").arg(scenarios.join(scenario)).args(["-nostdin", "-i", &at.ip().to_string()]);
        command.args(["-p", &at.port().to_string()]);
        command
    };
    let callee = Program::start(dir, "callee", &mut sipp("callee.xml", places.callee));
    let mut command = sipp("caller.xml", places.caller);
    // Far more calls than the test waits for: the load ends with it.
    command.args(["-s", "100", "-r", "20", "-m", "1000000", "-d", "500"]);
    command.arg(places.sip.to_string());
    let caller = Program::start(dir, "caller", &mut command);
    [callee, caller]
}

/// Every query of the dashboard, by the panel it belongs to, as Grafana would ask it.
fn panel_queries(dashboard: &Value) -> BTreeMap<String, String> {
    let mut queries = BTreeMap::new();
    let mut add = |title: &str, query: &str| {
        let query = query.replace("$__rate_interval", "10s").replace("$instance", ".*");
        assert!(!query.contains('$'), "{title}: a variable the test does not know: {query}");
        queries.insert(format!("{title} ({query})"), query);
    };
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            add(panel["title"].as_str().unwrap(), target["expr"].as_str().unwrap());
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        let expr = without_comparison(annotation["expr"].as_str().unwrap());
        add(annotation["name"].as_str().unwrap(), &expr[0]);
    }
    queries
}

/// The sides of a condition, joined by `and`, each without its comparison with a number.
fn without_comparison(condition: &str) -> Vec<String> {
    let words: Vec<&str> = condition.split_whitespace().collect();
    words
        .split(|word| *word == "and")
        .map(|side| match side {
            [value @ .., "==" | "!=" | "<" | ">" | "<=" | ">=", limit] if limit.parse::<f64>().is_ok() => {
                value.join(" ")
            }
            _ => panic!("no comparison with a number at the end of {}", side.join(" ")),
        })
        .collect()
}

#[test]
fn every_panel_and_every_alert_has_data_while_calls_are_made() {
    let dir = tempfile::tempdir().unwrap();
    // In memory where there is such a place: a slow disk raises an alert, and rightly so.
    let memory = Path::new("/dev/shm");
    let data = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let grafana = root.join("grafana");
    let host = Host::claim();
    let places = Places {
        http: (host.engine(), 8080).into(),
        sip: (host.engine(), 5060).into(),
        caller: (host.peer(), 5090).into(),
        callee: (host.peer(), 5070).into(),
        // Not its own port: the package may have started one for all addresses.
        prometheus: (host.peer(), 19_090).into(),
    };
    let prometheus = Prometheus(format!("http://{}", places.prometheus));
    let mut programs =
        vec![start_engine(dir.path(), data.path(), &places), start_prometheus(dir.path(), &grafana, &places)];
    wait_until("the engine is ready", &mut programs, || {
        get(&format!("http://{}/readyz", places.http)).is_some()
    });
    wait_until("Prometheus is ready", &mut programs, || get(&format!("{}/-/ready", prometheus.0)).is_some());
    programs.extend(start_load(dir.path(), &root.join("tests/sipp"), &places));
    wait_until("calls are answered and have ended", &mut programs, || {
        !prometheus.ask(r#"rate(tandem_calls_total{result="answered"}[10s]) > 0"#).is_empty()
    });

    let dashboard = fs::read_to_string(grafana.join("tandem.json")).unwrap();
    let mut unanswered = panel_queries(&serde_json::from_str(&dashboard).unwrap());
    assert!(unanswered.len() > 30, "{unanswered:?}");
    let alerts = prometheus.alerts();
    assert!(alerts.len() > 15, "{alerts:?}");
    for alert in &alerts {
        let name = alert["name"].as_str().unwrap();
        for key in ["summary", "description"] {
            let text = alert["annotations"][key].as_str().unwrap_or_default();
            assert!(text.len() > 20, "{name} has no {key}");
        }
        for side in without_comparison(alert["query"].as_str().unwrap()) {
            unanswered.insert(format!("alert {name} ({side})"), side);
        }
    }
    let end = Instant::now() + BOUND;
    while !unanswered.is_empty() && Instant::now() < end {
        unanswered.retain(|_, query| prometheus.ask(query).is_empty());
        programs.iter_mut().for_each(Program::assert_runs);
        std::thread::sleep(LOOK);
    }
    assert!(unanswered.is_empty(), "no data for {:#?}", unanswered.keys());
    let firing = prometheus.ask(r#"ALERTS{alertstate="firing"}"#);
    assert!(firing.is_empty(), "a healthy engine raises {firing:#?}");
}
