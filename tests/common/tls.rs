//! Certificates of a test's own, and OpenSSL as the other end of TLS: another implementation than the engine's.
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType, date_time_ymd,
};

use super::{Engine, eventually, so};

static NEXT: AtomicU32 = AtomicU32::new(1);

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Whatever.
    Any,
    /// Servers alone, as public authorities certify.
    Server,
}

/// Who signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed"))
    }

    /// Writes its own certificate.
    pub(crate) fn write(&self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, self.0.pem()).expect("written");
        path
    }

    /// Writes `NAME.pem` and `NAME.key`, good for these: `sip:DOMAIN`, a host name or an address.
    pub(crate) fn issue(&self, dir: &Path, name: &str, to: &[&str]) -> Files {
        self.issue_until(dir, name, to, 2060, Purpose::Any)
    }

    /// The same, good until the beginning of a year and for one purpose.
    pub(crate) fn issue_until(
        &self,
        dir: &Path,
        name: &str,
        to: &[&str],
        year: i32,
        purpose: Purpose,
    ) -> Files {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = to.iter().map(|to| san(to)).collect();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        if purpose == Purpose::Server {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        let files =
            Files { certificate: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) };
        fs::write(&files.certificate, certificate.pem()).expect("written");
        fs::write(&files.key, key.serialize_pem()).expect("written");
        files
    }
}

fn san(to: &str) -> SanType {
    match (to.parse::<IpAddr>(), to.starts_with("sip:")) {
        (Ok(ip), _) => SanType::IpAddress(ip),
        (Err(_), true) => SanType::URI(to.try_into().expect("a URI")),
        (Err(_), false) => SanType::DnsName(to.try_into().expect("a name")),
    }
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// An engine that listens by UDP on 5060 and by TLS on 5061, with these keys of that listener; it has its certificate of `ca`, which is
/// also in `ca.pem`.
#[track_caller]
pub(crate) fn engine(ca: &Authority, keys: &str, more: &str) -> Engine {
    let mut engine = prepare(ca, keys, more);
    engine.restart();
    engine
}

/// The same with one shard: it connects to a server once.
#[track_caller]
pub(crate) fn engine_of_one_shard(ca: &Authority, keys: &str, more: &str) -> Engine {
    let mut engine = prepare_with(ca, keys, more, &[("TANDEM__NODE__SHARDS", "1")]);
    engine.restart();
    engine
}

/// The same, not started yet.
pub(crate) fn prepare(ca: &Authority, keys: &str, more: &str) -> Engine {
    prepare_with(ca, keys, more, &[])
}

fn prepare_with(ca: &Authority, keys: &str, more: &str, variables: &[(&str, &str)]) -> Engine {
    let toml = format!(
        "[node]\ndomains = [\"tandem.example\"]\n[[listen]]\nname = \"udp\"\naddress = \"{{ip}}:5060\"\n\
         [[listen]]\nname = \"tls\"\ntransport = \"tls\"\naddress = \"{{ip}}:5061\"\n\
         certificate = \"{{dir}}/own.pem\"\nprivate_key = \"{{dir}}/own.key\"\nserver_ca = \"{{dir}}/ca.pem\"\n\
         {keys}\n{more}"
    );
    let engine = Engine::prepare(&toml, variables);
    ca.write(engine.dir(), "ca.pem");
    ca.issue(engine.dir(), "own", &["tandem.example", &engine.sip.ip().to_string()]);
    engine
}

/// Where the engine listens by TLS.
pub(crate) fn address(engine: &Engine) -> SocketAddr {
    (engine.sip.ip(), 5061).into()
}

/// `openssl s_client` or `s_server`: what is written to its pipe leaves by TLS, and what comes can be read there.
pub(crate) struct Openssl {
    child: Child,
    pipe: UnixStream,
    says: PathBuf,
}

impl Openssl {
    #[track_caller]
    fn start(dir: &Path, arguments: &[&str]) -> Openssl {
        let (pipe, theirs) = UnixStream::pair().expect("a pipe");
        let says = dir.join(format!("openssl-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let child = Command::new("openssl")
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs.try_clone().expect("a pipe"))))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .stderr(File::create(&says).expect("a file"))
            .spawn()
            .expect("openssl, of the Debian package openssl");
        Openssl { child, pipe, says }
    }

    /// Connects to the engine from its peer's address, with these arguments besides.
    #[track_caller]
    pub(crate) fn client(engine: &Engine, arguments: &[&str]) -> Openssl {
        let (to, from) = (address(engine).to_string(), format!("{}:0", engine.peer()));
        let mut all = vec!["s_client", "-quiet", "-connect", &to, "-bind", &from];
        all.extend(arguments);
        Openssl::start(engine.dir(), &all)
    }

    /// The same with a certificate.
    #[track_caller]
    pub(crate) fn client_with(engine: &Engine, own: &Files, arguments: &[&str]) -> Openssl {
        let (certificate, key) = (own.certificate.display().to_string(), own.key.display().to_string());
        let mut all = vec!["-cert", &certificate, "-key", &key];
        all.extend(arguments);
        Openssl::client(engine, &all)
    }

    /// Takes one connection at `at`, with this certificate and these arguments besides.
    #[track_caller]
    pub(crate) fn server(engine: &Engine, at: SocketAddr, own: &Files, arguments: &[&str]) -> Openssl {
        let (accept, certificate) = (at.to_string(), own.certificate.display().to_string());
        let key = own.key.display().to_string();
        let mut all = vec!["s_server", "-quiet", "-accept", &accept, "-cert", &certificate, "-key", &key];
        all.extend(arguments);
        let server = Openssl::start(engine.dir(), &all);
        eventually("openssl at its port", || so(super::sipp::is_bound(at)));
        server
    }

    /// What is said to it, and by it.
    pub(crate) fn pipe(&self) -> &UnixStream {
        &self.pipe
    }

    /// What it has to say of itself.
    pub(crate) fn says(&self) -> String {
        fs::read_to_string(&self.says).unwrap_or_default()
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        eventually("the end of openssl", || self.child.try_wait().expect("a child"))
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("---- openssl says\n{}----", self.says());
        }
    }
}
