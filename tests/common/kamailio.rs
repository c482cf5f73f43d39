//! Kamailio, a proxy that is not ours, in front of the engine.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Engine, SOON, Ua};

/// Where phones find it, by UDP and TCP.
const EDGE: u16 = 5060;
/// Where the engine's trunk finds it. What comes to it there from elsewhere is a call by the trunk.
const TRUNK: u16 = 5070;

/// What every one of them has, before its modules. In capitals: its address, and its transport besides UDP.
const GLOBALS: &str = r#"
debug=2
log_stderror=yes
children=1
tcp_children=1
auto_aliases=no
dns=no
rev_dns=no
use_dns_cache=no
listen=udp:PROXY:5060
listen=STREAM:PROXY:5060
listen=udp:PROXY:5070
listen=STREAM:PROXY:5070

loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "siputils.so"
loadmodule "textops.so"
"#;

/// What it does. In capitals: its address, the engine's, the transport between the two, and the two gateways.
const CONFIG: &str = r#"
tcp_source_ipv4=PROXY
loadmodule "corex.so"
loadmodule "path.so"
TLS

request_route {
    if (!mf_process_maxfwd_header("10")) {
        sl_send_reply("483", "Too Many Hops");
        exit;
    }
    if (is_method("CANCEL")) {
        if (t_check_trans()) { t_relay(); }
        exit;
    }
    if (has_totag()) {
        if (loose_route()) {
            if (is_method("INVITE")) { record_route(); }
            route(RELAY);
        }
        if (is_method("ACK") && t_check_trans()) { t_relay(); }
        exit;
    }
    t_check_trans();
    if (is_method("REGISTER")) {
        add_path();
        route(ENGINE);
    }
    # A call to a phone has to come by the Path of its REGISTER.
    if ($si == "ENGINE" && $rp != 5070 && !is_present_hf("Route")) {
        sl_send_reply("403", "No Path");
        exit;
    }
    loose_route();
    record_route();
    if ($si != "ENGINE") { route(ENGINE); }
    if ($rp != 5070) { route(RELAY); }
    # A call by the trunk: the number says what becomes of it.
    switch ($rU) {
        case "9100":
            $du = "sip:GATEWAY1";
        break;
        case "9200":
            $ru = "sip:9200@GATEWAY1";
            append_branch("sip:9200@GATEWAY2");
        break;
        case "9302":
            append_to_reply("Contact: <sip:9100@PROXY:5070>\r\n");
            sl_send_reply("302", "Moved Temporarily");
            exit;
        default:
            sl_send_reply("404", "Not Found");
            exit;
    }
    route(RELAY);
}

route[ENGINE] {
    $du = "sip:ENGINE:5060;transport=TRANSPORT";
    route(RELAY);
}

route[RELAY] {
    if (!t_relay()) { sl_reply_error(); }
    exit;
}
"#;

/// A provider: what it does. It takes REGISTERs of anybody who knows the password "hush" and gives them a Service-Route; a call to
/// 5550100 goes to the account "office".
const PROVIDER: &str = r#"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
modparam("registrar", "min_expires", 120)
modparam("auth", "nonce_expire", 300)

request_route {
    if (!mf_process_maxfwd_header("10")) {
        sl_send_reply("483", "Too Many Hops");
        exit;
    }
    if (is_method("REGISTER")) {
        if (!pv_www_authenticate("provider", "hush", "0")) {
            www_challenge("provider", "1");
            exit;
        }
        append_to_reply("Service-Route: <sip:PROXY:5070;lr>\r\n");
        save("location");
        exit;
    }
    if (is_method("CANCEL") || has_totag()) {
        if (has_totag()) { loose_route(); }
        t_relay();
        exit;
    }
    if ($rU == "5550100") {
        $ru = "sip:office@PROXY";
        record_route();
        if (!lookup("location")) {
            sl_send_reply("404", "Not Registered");
            exit;
        }
        t_relay();
        exit;
    }
    if ($hdr(Route) == "<sip:PROXY:5070;lr>") {
        sl_send_reply("486", "Came By The Service Route");
        exit;
    }
    sl_send_reply("403", "No Service Route");
}
"#;

/// What it needs for TLS: each side proves who it is.
const TLS: &str = r#"loadmodule "tls.so"
modparam("tls", "config", "DIR/tls.cfg")
modparam("tls", "low_mem_threshold1", 0)
modparam("tls", "low_mem_threshold2", 0)"#;
const TLS_SIDE: &str = "method = TLSv1.2+\nverify_certificate = yes\nrequire_certificate = yes\n\
    private_key = DIR/kamailio.key\ncertificate = DIR/kamailio.pem\nca_list = DIR/ca.pem\n";

/// A Kamailio of this test's own. It is killed, with its children, when this is dropped.
pub(crate) struct Kamailio {
    child: Child,
    /// Where phones register and call.
    pub(crate) edge: SocketAddr,
    /// Where gateways send calls for the engine's trunk.
    pub(crate) trunk: SocketAddr,
    log: PathBuf,
}

impl Kamailio {
    /// Starts it at the engine's peer address, for TLS with `kamailio.pem` and `kamailio.key`, and waits until it takes messages.
    #[track_caller]
    pub(crate) fn start(engine: &Engine, transport: &str, gateways: [&Ua; 2]) -> Kamailio {
        let dir = engine.dir();
        let here = dir.display().to_string();
        let secure = transport == "tls";
        let sides = ["server", "client"].map(|side| format!("[{side}:default]\n{TLS_SIDE}"));
        fs::write(dir.join("tls.cfg"), sides.concat().replace("DIR", &here)).expect("written");
        let config = CONFIG
            .replace("TLS\n", &if secure { format!("enable_tls=yes\n{TLS}\n") } else { String::new() })
            .replace("DIR", &here)
            .replace("ENGINE:", &format!("{}:", engine.sip.ip()))
            .replace("\"ENGINE\"", &format!("\"{}\"", engine.sip.ip()))
            .replace("TRANSPORT", transport)
            .replace("GATEWAY1", &gateways[0].local().to_string())
            .replace("GATEWAY2", &gateways[1].local().to_string());
        Kamailio::run(engine, if secure { "tls" } else { "tcp" }, &config)
    }

    /// Starts it as a provider with whom the engine registers. The engine need not run yet.
    #[track_caller]
    pub(crate) fn provider(engine: &Engine) -> Kamailio {
        Kamailio::run(engine, "tcp", PROVIDER)
    }

    /// Starts it with [`GLOBALS`] and this; `stream` is its transport besides UDP.
    #[track_caller]
    fn run(engine: &Engine, stream: &str, config: &str) -> Kamailio {
        let (ip, dir) = (engine.peer(), engine.dir());
        let config = [GLOBALS, config].concat().replace("STREAM", stream).replace("PROXY", &ip.to_string());
        fs::write(dir.join("kamailio.cfg"), config).expect("written");
        let path = dir.join("kamailio.log");
        let log = File::create(&path).expect("a log");
        let child = Command::new("kamailio")
            // In the foreground, with a process for each kind of work and little memory.
            .args(["-DD", "-E", "-m", "16", "-M", "4", "-f"])
            .arg(dir.join("kamailio.cfg"))
            .arg("-Y")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("kamailio, of the Debian package kamailio");
        let (edge, trunk) = ((ip, EDGE).into(), (ip, TRUNK).into());
        let mut proxy = Kamailio { child, edge, trunk, log: path };
        proxy.takes_messages();
        proxy
    }

    #[track_caller]
    fn takes_messages(&mut self) {
        let deadline = Instant::now() + SOON;
        for at in [self.edge, self.trunk] {
            while let Err(error) = TcpStream::connect_timeout(&at, SOON) {
                let ended = self.child.try_wait().expect("a child");
                assert!(ended.is_none() && Instant::now() < deadline, "kamailio at {at}: {error}, {ended:?}");
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
    }

    /// A phone of the engine's station `user` that knows the proxy alone.
    pub(crate) fn phone(&self, engine: &Engine, user: &str) -> Ua {
        let mut phone = Ua::new(engine, user);
        phone.server = self.edge;
        phone
    }

    /// Ends it at once, as a crash would.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        // Its children do not end with it; the group is theirs alone.
        let group = format!("-{}", self.child.id());
        let killed = Command::new("kill").args(["-KILL", "--", &group]).status().expect("kill, of procps");
        assert!(killed.success());
        self.child.wait().expect("a status");
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("---- log of kamailio\n{log}----");
        }
    }
}
