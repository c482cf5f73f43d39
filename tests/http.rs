//! The HTTP surface and the commands that use it, against an engine that runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};
use tandem::cli::Cli;
use tandem::settings::Settings;
use tandem::{client, daemon};
use tandem_actors::engine::Engine;

const TOKEN: &str = "a-token-of-the-tests";
/// Far more than anything here takes.
const BOUND: Duration = Duration::from_secs(20);

/// A running engine as its operator sees it.
struct Daemon {
    http: SocketAddr,
    sip: SocketAddr,
    engine: Engine,
}

/// Runs `test` on a thread of its own against an engine with these settings besides its listener and data directory.
fn with_daemon(settings: &str, chaos: bool, test: impl FnOnce(&Daemon) + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[node]\ndata_dir = {:?}\nshards = 2\n[media]\nworkers = 1\naddresses = [\"127.0.0.1\"]\n\
         [[listen]]\nname = \"lan\"\naddress = \"127.0.0.1:0\"\n[http]\naddress = \"127.0.0.1:0\"\ntokens = [{TOKEN:?}]\n{settings}",
        dir.path()
    );
    let settings = Settings::load_from(Some(("test.toml", &text)), []).unwrap().settings;
    let system = actix::System::new();
    system.block_on(async move {
        let running = daemon::start(&settings, chaos).await.unwrap();
        let daemon = Daemon {
            http: running.http_address,
            sip: running.sip_addresses[0],
            engine: running.engine.clone(),
        };
        let tested = tokio::task::spawn_blocking(move || test(&daemon)).await;
        running.stop();
        if let Err(failed) = tested {
            std::panic::resume_unwind(failed.into_panic());
        }
    });
}

struct Answer {
    status: u16,
    kind: String,
    headers: ureq::http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|why| panic!("{why}: {}", self.text))
    }

    fn is_problem(&self, status: u16) {
        assert_eq!((self.status, self.kind.as_str()), (status, "application/problem+json"), "{}", self.text);
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    }
}

impl Daemon {
    fn send(&self, method: &str, path: &str, token: Option<&str>, body: Option<(&str, &str)>) -> Answer {
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
        let agent = ureq::Agent::from(config);
        let mut request =
            ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", self.http));
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        if let Some((kind, _)) = body {
            request = request.header("content-type", kind);
        }
        let request = request.body(body.map_or("", |(_, body)| body).to_owned()).unwrap();
        let request = agent.configure_request(request).allow_non_standard_methods(true).build();
        let mut response = agent.run(request).unwrap();
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        Answer {
            status: response.status().as_u16(),
            kind: kind.unwrap_or_default(),
            headers: response.headers().clone(),
            text: response.body_mut().read_to_string().unwrap(),
        }
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, Some(&format!("Bearer {TOKEN}")), None)
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        self.send("POST", path, Some(&format!("Bearer {TOKEN}")), Some(("application/json", &body)))
    }

    /// What the command prints.
    fn command(&self, line: &str) -> String {
        let url = format!("http://{}", self.http);
        let words = line.split_whitespace().chain(["--url", &url, "--token", TOKEN]);
        let cli = Cli::try_parse_from(["tandem"].into_iter().chain(words)).unwrap();
        let mut out = Vec::new();
        client::run(&cli.command.unwrap(), None, &mut out).unwrap_or_else(|why| panic!("{line}: {why}"));
        String::from_utf8(out).unwrap()
    }

    /// Asks until `done` is content. The store commits and actors act on their own threads.
    fn until(&self, path: &str, done: impl Fn(&Answer) -> bool) -> Answer {
        let begun = Instant::now();
        loop {
            self.engine.shared().store.flush();
            let answer = self.get(path);
            if done(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < BOUND, "{path}: {}", answer.text);
        }
    }
}

#[test]
fn health_and_metrics_need_no_token() {
    with_daemon("", false, |daemon| {
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(daemon.send("GET", path, None, None).status, 200, "{path}");
            let head = daemon.send("HEAD", path, None, None);
            assert_eq!((head.status, head.text.as_str()), (200, ""), "{path}");
        }
        let metrics = daemon.send("GET", "/metrics", None, None);
        assert_eq!(metrics.kind, "text/plain; version=0.0.4; charset=utf-8");
        assert!(metrics.text.contains("\ntandem_calls_active 0\n"), "{}", metrics.text);
        assert!(
            metrics.text.contains("\ntandem_http_responses_total{class=\"5xx\"} 0\n"),
            "{}",
            metrics.text
        );
    });
}

#[test]
fn the_api_opens_only_with_a_token() {
    with_daemon("", false, |daemon| {
        let wrong =
            [None, Some("Bearer"), Some("Bearer "), Some("Bearer wrong"), Some("Basic YTpi"), Some(TOKEN)];
        for token in wrong {
            for path in ["/api/v1/calls", "/api/v1/nothing-here"] {
                let answer = daemon.send("GET", path, token, None);
                answer.is_problem(401);
                assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"tandem\"");
            }
        }
        for token in [format!("Bearer {TOKEN}"), format!("bearer {TOKEN}")] {
            assert_eq!(daemon.send("GET", "/api/v1/calls", Some(&token), None).status, 200);
        }
    });
}

#[test]
fn every_error_is_a_problem_document() {
    with_daemon("", false, |daemon| {
        daemon.get("/nothing-here").is_problem(404);
        daemon.get("/api/v1/nothing-here").is_problem(404);
        for id in ["x", "c00", "cff0123456789abcdef", "c000123456789abcdef", "%F0%9F%98%80"] {
            daemon.get(&format!("/api/v1/calls/{id}")).is_problem(404);
            daemon.get(&format!("/api/v1/calls/{id}/why?sip=true")).is_problem(404);
            daemon.get(&format!("/api/v1/cdrs/{id}")).is_problem(404);
        }
        let token = format!("Bearer {TOKEN}");
        let send = |method, path, body| daemon.send(method, path, Some(&token), body);
        send("DELETE", "/api/v1/calls/c000123456789abcdef", None).is_problem(404);
        send("DELETE", "/api/v1/calls", None).is_problem(405);
        send("PUT", "/api/v1/drain", None).is_problem(405);
        send("BREW", "/metrics", None).is_problem(405);
        daemon.get("/api/v1/events?from=yesterday").is_problem(422);
        daemon.get("/api/v1/events?form=1").is_problem(422);
        let json = "application/json";
        send("POST", "/api/v1/drain", Some(("text/plain", "{\"on\": true}"))).is_problem(415);
        send("POST", "/api/v1/drain", Some((json, "{\"on\": tr"))).is_problem(400);
        send("POST", "/api/v1/drain", Some((json, "{\"on\": \"yes\"}"))).is_problem(422);
        send("POST", "/api/v1/drain", Some((json, "{\"on\": true, \"of\": 1}"))).is_problem(422);
        send("POST", "/api/v1/drain", Some((json, &" ".repeat(70_000)))).is_problem(413);
        let chaos = json!({"actor": "shard:0", "do": "stall"});
        daemon.post("/api/v1/chaos", &chaos).is_problem(404);
        assert_eq!(daemon.send("GET", "/readyz", None, None).status, 200, "nothing of this drains");
    });
}

#[test]
fn garbage_on_the_port_harms_nobody() {
    with_daemon("", false, |daemon| {
        let endless = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'y'; 200_000]].concat();
        let binary: Vec<u8> = (0..=255).cycle().take(5_000).collect();
        let pieces: [&[u8]; 7] = [
            b"\0\0\0\0",
            b"INVITE sip:a@b SIP/2.0\r\nVia: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET /metrics HTTP/9.9\r\n\r\n",
            b"POST /api/v1/drain HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
            &endless,
            &binary,
        ];
        for piece in pieces {
            let mut stream = TcpStream::connect(daemon.http).unwrap();
            stream.set_read_timeout(Some(BOUND)).unwrap();
            // The daemon may close before all of it is written, and then answers nothing or resets.
            let _ = stream.write_all(piece);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let text = String::from_utf8_lossy(&answer);
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{piece:?}: {text}");
        }
        assert_eq!(daemon.send("GET", "/healthz", None, None).status, 200);
    });
}

#[test]
fn draining_is_seen_by_whoever_balances_load() {
    with_daemon("", false, |daemon| {
        let shown = daemon.command("drain --stay");
        assert_eq!(shown, "draining: new calls are refused; no call is left\n");
        daemon.send("GET", "/readyz", None, None).is_problem(503);
        assert_eq!(daemon.post("/api/v1/drain", &json!({"on": false})).json()["draining"], false);
        assert_eq!(daemon.send("GET", "/readyz", None, None).status, 200);
    });
}

const TRUNK: &str = "[[trunk]]\nname = \"a\"\nproxies = [\"127.0.0.1:9\"]\n";

#[test]
fn chaos_takes_the_ids_that_the_tree_prints() {
    with_daemon(TRUNK, true, |daemon| {
        let tree = daemon.get("/api/v1/tree").json();
        let trunks: Vec<&Value> = tree["shards"].as_array().unwrap().iter().map(|s| &s["trunks"]).collect();
        assert!(trunks.contains(&&json!(["trunk:a"])), "{tree}");
        let accepted = daemon.post("/api/v1/chaos", &json!({"actor": "trunk:a", "do": "panic"}));
        assert_eq!(accepted.status, 202, "{}", accepted.text);
        daemon.until("/api/v1/tree", |tree| {
            let kinds = tree.json()["kinds"].as_array().unwrap().clone();
            kinds.iter().any(|kind| kind["kind"] == "trunk" && kind["restarts"] == 1)
        });
        let events = daemon.until("/api/v1/events?max=100", |events| events.text.contains("actor.restarted"));
        assert!(events.json().is_array(), "{}", events.text);
        let chaos =
            |actor: &str, fault: &str| daemon.post("/api/v1/chaos", &json!({"actor": actor, "do": fault}));
        for nobody in ["trunk:b", "shard:2", "shard:-1", "shard:", "call:c000123456789abcdef", "", "engine"] {
            chaos(nobody, "panic").is_problem(404);
        }
        chaos("shard:0", "panic_always").is_problem(422);
        chaos("trunk:a", "stall").is_problem(422);
        chaos("trunk:a", "explode").is_problem(422);
    });
}

#[test]
fn a_stalled_shard_is_unhealthy() {
    with_daemon("", true, |daemon| {
        let stall = json!({"actor": "shard:1", "do": "stall"});
        assert_eq!(daemon.post("/api/v1/chaos", &stall).status, 202);
        let unhealthy = daemon.send("GET", "/healthz", None, None);
        unhealthy.is_problem(503);
        assert_eq!(unhealthy.json()["detail"], "shard:1 did not answer in time");
        assert_eq!(daemon.send("GET", "/metrics", None, None).status, 200);
    });
}

#[test]
fn stations_and_trunks_are_listed() {
    let stations = "[[station]]\nname = \"1001\"\nextension = \"21\"\npassword = \"of-the-tests\"\n";
    with_daemon(&format!("{stations}{TRUNK}"), false, |daemon| {
        let station = &daemon.get("/api/v1/stations").json()[0];
        assert_eq!((&station["name"], &station["extension"]), (&json!("1001"), &json!("21")));
        assert_eq!((&station["registered"], &station["bindings"]), (&json!(false), &json!([])));
        assert!(!daemon.get("/api/v1/stations").text.contains("of-the-tests"), "a password leaks");
        let trunk = &daemon.get("/api/v1/trunks").json()[0];
        let unknown = json!([{"address": "127.0.0.1:9", "name": null, "priority": 0, "weight": 1, "state": "unknown", "up": true,
            "since": null, "cause": null, "overload_percent": 0}]);
        assert_eq!(trunk["proxies"], unknown);
        assert!(daemon.command("stations").contains("1001     21         0      not registered"));
        assert!(daemon.command("trunks").contains("a      lan       0      127.0.0.1:9  unknown"));
        assert_eq!(daemon.command("calls"), "no calls\n");
        let raw: Value = serde_json::from_str(&daemon.command("trunks --json")).unwrap();
        assert_eq!(&raw[0], trunk);
    });
}

/// A SIP peer made of a socket.
struct Peer(UdpSocket);

impl Peer {
    fn new() -> Peer {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        Peer(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The next message whose first line begins with `start`; others are passed over.
    fn receive(&self, start: &str) -> (String, SocketAddr) {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = self.0.recv_from(&mut buffer).unwrap_or_else(|why| panic!("{start}: {why}"));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.starts_with(start) {
                return (text, from);
            }
        }
    }

    fn answer(&self, request: &str, to: SocketAddr, status: &str) {
        let mut response = format!("SIP/2.0 {status}\r\n");
        for line in request.lines().skip(1).take_while(|line| !line.is_empty()) {
            let name = line.split(':').next().unwrap();
            if ["Via", "From", "Call-ID", "CSeq"].contains(&name) {
                response += &format!("{line}\r\n");
            } else if name == "To" {
                let tag = if line.contains(";tag=") { "" } else { ";tag=callee" };
                response += &format!("{line}{tag}\r\n");
            }
        }
        self.0.send_to(format!("{response}Content-Length: 0\r\n\r\n").as_bytes(), to).unwrap();
    }
}

const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n";

fn invite(daemon: &Daemon, caller: &Peer) -> String {
    let (sip, from) = (daemon.sip, caller.address());
    format!(
        "INVITE sip:555@{sip} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKone;rport\r\nMax-Forwards: 70\r\n\
         From: <sip:700@{from}>;tag=caller\r\nTo: <sip:555@{sip}>\r\nCall-ID: the-callers-own\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:700@{from}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}",
        SDP.len()
    )
}

#[test]
fn a_call_is_seen_explained_and_ended() {
    let (caller, callee) = (Peer::new(), Peer::new());
    let settings = format!(
        "[[trunk]]\nname = \"in\"\naccept_from = [\"{}\"]\nmedia = \"bypass\"\nproxies = [\"{0}\"]\n\
         [[trunk]]\nname = \"out\"\nproxies = [\"{}\"]\nmedia = \"bypass\"\n\
         [[dial_plan.pattern]]\npattern = \"5XX\"\ntarget = \"trunk:out\"\n",
        caller.address(),
        callee.address()
    );
    with_daemon(&settings, false, move |daemon| {
        caller.0.send_to(invite(daemon, &caller).as_bytes(), daemon.sip).unwrap();
        let (their_invite, engine) = callee.receive("INVITE ");
        callee.answer(&their_invite, engine, "180 Ringing");
        caller.receive("SIP/2.0 180");

        let calls = daemon.get("/api/v1/calls").json();
        assert_eq!(calls.as_array().unwrap().len(), 1, "{calls}");
        let id = calls[0]["call_id"].as_str().unwrap().to_owned();
        assert_eq!((&calls[0]["to"], &calls[0]["trunk"]), (&json!("555"), &json!("out")));
        assert!(calls[0]["start"].as_str().unwrap().ends_with('Z'), "{calls}");
        assert_eq!(daemon.get(&format!("/api/v1/calls/{id}")).json(), calls[0]);
        assert!(daemon.command("calls").contains(&id));
        assert!(daemon.command(&format!("call {id}")).contains("the-callers-own"));
        let tree = daemon.command("tree");
        assert!(tree.contains(&format!("call:{id} (")) && tree.contains(&format!("dialog:{id}/1")), "{tree}");
        assert!(daemon.command(&format!("why {id}")).contains(", now "), "it is running");

        assert_eq!(daemon.command(&format!("call {id} --hangup")), format!("call {id} is being ended\n"));
        let (cancel, _) = callee.receive("CANCEL ");
        callee.answer(&cancel, engine, "200 OK");
        callee.answer(&their_invite, engine, "487 Request Terminated");
        callee.receive("ACK ");
        daemon.until(&format!("/api/v1/cdrs/{id}"), |cdr| cdr.status == 200);
        ended(daemon, &id, &caller, &callee);
    });
}

fn ended(daemon: &Daemon, id: &str, caller: &Peer, callee: &Peer) {
    daemon.until(&format!("/api/v1/calls/{id}"), |call| call.status == 404);
    let token = format!("Bearer {TOKEN}");
    daemon.send("DELETE", &format!("/api/v1/calls/{id}"), Some(&token), None).is_problem(409);
    let why = daemon.get(&format!("/api/v1/calls/{id}/why?sip=true")).json();
    assert_eq!(why["cdr"]["ended_by"], "operator", "{why}");
    assert_eq!(why["sip"]["complete"], true, "{why}");
    assert_eq!(why["sip"]["call_ids"].as_array().unwrap().len(), 2, "{why}");
    let kinds: Vec<&str> =
        why["events"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds.first(), Some(&"call.started"), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&"call.ended"), "{kinds:?}");
    let shown = daemon.command(&format!("why {id} --sip"));
    assert!(shown.contains("ended by operator"), "{shown}");
    let header = shown.lines().find(|line| line.contains("tandem") && line.contains("127.0.0.1")).unwrap();
    let place = |name: &str| header.find(name).unwrap_or_else(|| panic!("{name}: {header}"));
    assert!(place(&caller.address().to_string()) < place("tandem"), "{header}");
    assert!(place("tandem") < place(&callee.address().to_string()), "{header}");
    for expected in
        ["INVITE sip:555@", "180 Ringing (INVITE)", "CANCEL ", "487 Request Terminated (INVITE)", "ACK "]
    {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
}

/// The next request that comes, answered with this status.
fn answer_one(socket: &UdpSocket, status: &str, headers: &str) -> String {
    socket.set_read_timeout(Some(BOUND)).unwrap();
    let mut buffer = [0; 4096];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let copied = ["Via:", "From:", "To:", "Call-ID:", "CSeq:", "Contact:"];
    let copied: Vec<&str> =
        text.lines().filter(|line| copied.iter().any(|name| line.starts_with(name))).collect();
    let answer = format!("SIP/2.0 {status}\r\n{}\r\n{headers}Content-Length: 0\r\n\r\n", copied.join("\r\n"));
    socket.send_to(answer.as_bytes(), from).unwrap();
    text
}

#[test]
fn registrations_at_providers_are_listed_with_where_they_stand() {
    let [good, bad] = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    let at = |socket: &UdpSocket| socket.local_addr().unwrap();
    let group = |name: &str, at: SocketAddr| {
        format!(
            "[[registration_group]]\nname = {name:?}\n\
             registrations = [{{ address = \"{at}\", username = \"office\", password = \"hush\" }}]\n"
        )
    };
    let (good_at, bad_at) = (at(&good), at(&bad));
    let settings = group("carrier", good_at) + &group("refuser", bad_at);
    with_daemon(&settings, false, move |daemon| {
        const PATH: &str = "/api/v1/registration_groups";
        let before = daemon.get(PATH).json();
        assert_eq!((&before[0]["name"], &before[0]["registered"]), (&json!("carrier"), &json!(false)));
        let first = &before[0]["registrations"][0];
        assert_eq!(
            (&first["at"], &first["expires"]),
            (&json!(format!("address:{good_at}")), &Value::Null),
            "{before:#}"
        );
        assert!(answer_one(&good, "200 OK", "Expires: 600\r\n").starts_with("REGISTER "));
        answer_one(&bad, "403 Forbidden", "");
        let after = daemon.until(PATH, |answer| {
            let list = answer.json();
            let state = |group: usize| list[group]["registrations"][0]["state"].clone();
            state(0) == "registered" && state(1) == "failed"
        });
        let list = after.json();
        let [good, bad] = [0, 1].map(|group| list[group]["registrations"][0].clone());
        assert_eq!(
            (&list[0]["registered"], &list[0]["in_use"], &good["last_cause"]),
            (&json!(true), &good["at"], &Value::Null),
            "{list:#}"
        );
        assert!((590..=600).contains(&good["expires_in_s"].as_u64().unwrap()), "{list:#}");
        assert_eq!(good["registrar"], json!(good_at.to_string()), "{list:#}");
        assert!(good["age_s"].as_u64().unwrap() < 60 && good["since"].is_string(), "{list:#}");
        assert_eq!(bad["last_cause"], "the registrar answered 403", "{list:#}");
        assert!(bad["last_failure"].is_string() && bad["expires"].is_null(), "{list:#}");
        assert!(!after.text.contains("hush"), "a password is nobody's business");
        let shown = daemon.command("registrations");
        let line =
            |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap_or(&shown).to_owned();
        assert!(line("carrier").contains(" registered "), "{shown}");
        assert!(line("refuser").contains("the registrar answered 403"), "{shown}");
    });
}
