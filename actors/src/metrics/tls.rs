//! What TLS counts: handshakes by who began them and what came of them, and how long our certificates hold.

use metrics::{Counter, Gauge};

use super::{Describe, Registry};

/// What has come of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// A connection.
    Ok,
    /// It took too long.
    Timeout,
    /// There were too many at once.
    Limit,
    /// The connection ended meanwhile.
    Closed,
    /// What came was no TLS.
    NotTls,
    /// No version or cipher suite that both know.
    NothingInCommon,
    /// No authority of ours has signed the peer's certificate.
    UnknownAuthority,
    /// The peer's certificate has expired.
    Expired,
    /// The peer's certificate is for another.
    WrongName,
    /// The peer has shown no certificate, and must.
    NoCertificate,
    /// The peer's certificate is otherwise not believed.
    BadCertificate,
    /// The peer refuses us, by our certificate perhaps.
    RefusedByPeer,
    /// Anything else.
    Other,
}

impl Handshake {
    const ALL: [Handshake; 13] = [
        Handshake::Ok,
        Handshake::Timeout,
        Handshake::Limit,
        Handshake::Closed,
        Handshake::NotTls,
        Handshake::NothingInCommon,
        Handshake::UnknownAuthority,
        Handshake::Expired,
        Handshake::WrongName,
        Handshake::NoCertificate,
        Handshake::BadCertificate,
        Handshake::RefusedByPeer,
        Handshake::Other,
    ];

    /// What an operator may look at, if it is a server that we do not come to terms with.
    pub fn advice(self) -> &'static str {
        match self {
            Handshake::Ok => "",
            Handshake::Timeout | Handshake::Closed | Handshake::NotTls => "does it speak TLS on this port?",
            Handshake::Limit => "there are too many at once",
            Handshake::NothingInCommon => "it has neither TLS 1.2 nor 1.3, or no cipher suite of ours",
            Handshake::UnknownAuthority => {
                "put the authority of its certificate into the listener's server_ca"
            }
            Handshake::Expired => "its operator must renew its certificate; or is our clock wrong?",
            Handshake::WrongName => {
                "its certificate is for another: name the trunk by its domain, or by certificate_names"
            }
            Handshake::NoCertificate | Handshake::BadCertificate => "its certificate cannot be used",
            Handshake::RefusedByPeer => {
                "does it know the authority of our certificate, and has that expired?"
            }
            Handshake::Other => "",
        }
    }

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Handshake::Ok => "ok",
            Handshake::Timeout => "timeout",
            Handshake::Limit => "limit",
            Handshake::Closed => "closed",
            Handshake::NotTls => "not_tls",
            Handshake::NothingInCommon => "nothing_in_common",
            Handshake::UnknownAuthority => "unknown_authority",
            Handshake::Expired => "expired",
            Handshake::WrongName => "wrong_name",
            Handshake::NoCertificate => "no_certificate",
            Handshake::BadCertificate => "bad_certificate",
            Handshake::RefusedByPeer => "refused_by_peer",
            Handshake::Other => "other",
        }
    }
}

/// The counts of one engine.
pub struct TlsMetrics {
    accepted: [Counter; Handshake::ALL.len()],
    opened: [Counter; Handshake::ALL.len()],
    reloaded: Counter,
    kept: Counter,
}

impl TlsMetrics {
    pub(super) fn new(registry: &Registry) -> TlsMetrics {
        describe(registry);
        let side = |side: &str| {
            Handshake::ALL.map(|result| {
                let labels = [("side", side.to_owned()), ("result", result.as_str().to_owned())];
                registry.counter("tandem_tls_handshakes_total", &labels)
            })
        };
        let reloads =
            |result: &str| registry.counter("tandem_tls_reloads_total", &[("result", result.to_owned())]);
        TlsMetrics {
            accepted: side("accepted"),
            opened: side("opened"),
            reloaded: reloads("ok"),
            kept: reloads("failed"),
        }
    }

    /// Counts a handshake; `ours`: we have opened the connection.
    pub fn handshake(&self, ours: bool, result: Handshake) {
        let side = if ours { &self.opened } else { &self.accepted };
        side[result as usize].increment(1);
    }

    /// Counts a reading of a listener's files; if it failed, what was read before is kept.
    pub fn reload(&self, well: bool) {
        if well { &self.reloaded } else { &self.kept }.increment(1);
    }
}

/// Until when the certificate of a listener is good, in seconds since 1970.
pub fn not_after(registry: &Registry, listener: &str) -> Gauge {
    registry.gauge("tandem_tls_certificate_not_after_timestamp_seconds", &[("listener", listener.to_owned())])
}

fn describe(registry: &Registry) {
    let counter = |name, text| registry.describe(Describe::Counter, name, None, text);
    counter(
        "tandem_tls_handshakes_total",
        "TLS handshakes by the side that opened the connection, and result",
    );
    counter("tandem_tls_reloads_total", "Certificates of a listener read again, by result");
    registry.describe(
        Describe::Gauge,
        "tandem_tls_certificate_not_after_timestamp_seconds",
        Some(metrics::Unit::Seconds),
        "When the certificate of a listener expires, in seconds since 1970",
    );
}
