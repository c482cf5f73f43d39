//! `[node]`, `[[listen]]`, `[http]`, `[media]`, `[[media_pool]]` and `[[location]]`.

use std::net::SocketAddr;

use super::{Findings, Names, item};
use crate::settings::problem::KeyPath;
use crate::settings::types::{Listen, Transport};
use crate::settings::values::{Codec, PortRange, is_host};
use crate::settings::{Settings, unbuilt};

/// A token shorter than this can be guessed.
const SHORT_TOKEN: usize = 16;

/// A call of two legs needs two pairs of ports.
const FEWEST_PAIRS: u16 = 2;

pub(super) fn check(settings: &Settings, names: &Names, findings: &mut Findings<'_>) {
    check_node(settings, findings);
    check_http(settings, findings);
    for (index, listen) in settings.listen.iter().enumerate() {
        check_listen(&item("listen", index), listen, findings);
    }
    check_addresses(settings, findings);
    check_media(settings, names, findings);
}

fn check_node(settings: &Settings, findings: &mut Findings<'_>) {
    let path = KeyPath::root().key("node");
    super::check_name(|| path.key("name"), &settings.node.name, findings);
    for (index, domain) in settings.node.domains.iter().enumerate() {
        if !is_host(domain) {
            findings.unfit(
                &path.key("domains").index(index),
                domain,
                "a host name or IP address without a port",
            );
        }
    }
    if let Some(realm) = &settings.node.realm
        && (realm.is_empty() || realm.contains(|c: char| c.is_control() || c == '"' || c == '\\'))
    {
        findings.unfit(
            &path.key("realm"),
            realm,
            "a text without quotes, backslashes and control characters",
        );
    }
    let algorithms = &settings.node.digest_algorithms;
    if algorithms.is_empty() {
        findings.error(&path.key("digest_algorithms"), "found an empty list; allowed: at least one");
    } else if algorithms.iter().enumerate().any(|(n, algorithm)| algorithms[..n].contains(algorithm)) {
        findings.error(&path.key("digest_algorithms"), "found one twice; allowed: each once");
    }
    if settings.node.data_dir.as_os_str().is_empty() {
        findings.unfit(&path.key("data_dir"), "", "the path of a directory");
    }
    findings.within(&path.key("sip_trace_mb"), settings.node.sip_trace_mb, 0..=4096, "MiB for each shard");
    findings.within(&path.key("shards"), settings.node.shards, 0..=1024, "0 is one for each core");
}

fn check_http(settings: &Settings, findings: &mut Findings<'_>) {
    let path = KeyPath::root().key("http.tokens");
    for (index, token) in settings.http.tokens.iter().enumerate() {
        let text = token.reveal();
        // What may stand in an Authorization header (RFC 6750 §2.1).
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if text.is_empty() || !text.bytes().all(fits) {
            let text = "found a value that is not shown; allowed: letters, digits and - . _ ~ + / =";
            findings.error(&path.index(index), text);
        } else if text.len() < SHORT_TOKEN {
            let text = format!("a token of fewer than {SHORT_TOKEN} characters can be guessed");
            findings.warn(&path.index(index), text);
        }
    }
}

fn check_listen(path: &KeyPath, listen: &Listen, findings: &mut Findings<'_>) {
    if !unbuilt::TRANSPORTS.contains(&listen.transport) {
        let built: Vec<String> = unbuilt::TRANSPORTS.iter().map(|one| format!("{:?}", one.name())).collect();
        let text = format!(
            "found {:?}, which is not built yet; allowed: {}",
            listen.transport.name(),
            built.join(" or ")
        );
        findings.error(&path.key("transport"), text);
    }
    check_timers(path, Some(listen.t1_ms), listen.t2_ms, findings);
    check_connections(path, listen, findings);
    findings.within(&path.key("min_se_s"), listen.min_se_s, 90..=86_400, "seconds (RFC 4028 §5)");
    if listen.session_expires_s != 0 {
        let shortest = u64::from(listen.min_se_s.clamp(90, 86_400));
        let unit = "seconds, not less than min_se_s, or 0, which is off";
        findings.within(&path.key("session_expires_s"), listen.session_expires_s, shortest..=86_400, unit);
    }
    check_limits(path, listen, findings);
    if listen.transport.is_secure() {
        for (key, file) in [("certificate", &listen.certificate), ("private_key", &listen.private_key)] {
            if file.is_none() {
                findings
                    .error(&path.key(key), format!("is missing; a {} listener needs it", listen.transport));
            }
        }
    }
    if listen.require_client_certificate && listen.client_ca.is_none() {
        findings.error(&path.key("client_ca"), "is missing; `require_client_certificate` needs it");
    }
}

/// What a listener of connections takes.
fn check_connections(path: &KeyPath, listen: &Listen, findings: &mut Findings<'_>) {
    let mut within =
        |key: &'static str, value, allowed, unit| findings.within(&path.key(key), value, allowed, unit);
    within("max_connections", listen.max_connections, 1..=1_000_000, "connections");
    within("max_connections_per_source", listen.max_connections_per_source, 1..=1_000_000, "connections");
    within("idle_timeout_s", listen.idle_timeout_s, 1..=86_400, "seconds");
    within("message_timeout_s", listen.message_timeout_s, 1..=300, "seconds");
    within("connect_timeout_ms", listen.connect_timeout_ms, 100..=60_000, "milliseconds");
    within("handshake_timeout_ms", listen.handshake_timeout_ms, 100..=60_000, "milliseconds");
    within("max_handshakes", listen.max_handshakes, 1..=10_000, "handshakes");
    within("send_queue_kb", listen.send_queue_kb, 64..=65_536, "KiB");
}

/// The lowest values leave room for an ordinary INVITE; the highest of the bytes is the largest datagram there is.
fn check_limits(path: &KeyPath, listen: &Listen, findings: &mut Findings<'_>) {
    let longest = u64::from(listen.max_message_bytes.clamp(256, 65_535));
    findings.within(&path.key("max_message_bytes"), listen.max_message_bytes, 1300..=65_535, "bytes");
    let unit = "bytes, not more than max_message_bytes";
    findings.within(&path.key("max_header_bytes"), listen.max_header_bytes, 256..=longest, unit);
    findings.within(&path.key("max_headers"), listen.max_headers, 16..=1024, "header lines");
    findings.within(&path.key("max_vias"), listen.max_vias, 1..=255, "Via values");
}

/// Checks T1 and T2 in milliseconds; one that is not set is another's to check.
pub(super) fn check_timers(path: &KeyPath, t1: Option<u32>, t2: Option<u32>, findings: &mut Findings<'_>) {
    if let Some(t1) = t1 {
        findings.within(&path.key("t1_ms"), t1, 10..=10_000, "milliseconds");
    }
    if let Some(t2) = t2 {
        let lowest = u64::from(t1.unwrap_or(10)).min(60_000);
        findings.within(&path.key("t2_ms"), t2, lowest..=60_000, "milliseconds, not less than t1_ms");
    }
}

/// Two sockets of one kind cannot share a port unless both name different addresses.
fn check_addresses(settings: &Settings, findings: &mut Findings<'_>) {
    let mut taken: Vec<(bool, SocketAddr, KeyPath)> =
        vec![(false, settings.http.address.0, KeyPath::root().key("http.address"))];
    for (index, listen) in settings.listen.iter().enumerate() {
        let (udp, address) = (listen.transport == Transport::Udp, listen.address.0);
        let path = item("listen", index).key("address");
        let clash = taken.iter().find(|(other_udp, other, _)| *other_udp == udp && overlap(*other, address));
        if let Some((_, other, other_path)) = clash {
            let other_path = findings.repairs.written(other_path);
            let allowed = format!("an address and port that is free; {other_path} has {other}");
            findings.error(&path, format!("found \"{address}\"; allowed: {allowed}"));
        }
        taken.push((udp, address, path));
    }
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_host = one.ip() == other.ip()
        || (one.is_ipv4() == other.is_ipv4() && (one.ip().is_unspecified() || other.ip().is_unspecified()));
    // Port 0 is any free port.
    one.port() != 0 && one.port() == other.port() && same_host
}

fn check_media(settings: &Settings, names: &Names, findings: &mut Findings<'_>) {
    let path = KeyPath::root().key("media");
    check_ports(&path.key("ports"), settings.media.ports, findings);
    findings.within(&path.key("workers"), settings.media.workers, 0..=1024, "0 is one for each core");
    findings.within(
        &path.key("rtp_timeout_s"),
        settings.media.rtp_timeout_s,
        0..=86_400,
        "seconds, 0 is never",
    );
    for (index, listen) in settings.listen.iter().enumerate() {
        let (port, ports) = (listen.address.0.port(), settings.media.ports);
        if listen.transport == Transport::Udp && (ports.first..=ports.last).contains(&port) {
            let text = format!("port {port} lies in media.ports, where it is skipped");
            findings.warn(&item("listen", index).key("address"), text);
        }
    }
    let addresses = &settings.media.addresses;
    for (index, ip) in addresses.iter().enumerate() {
        if addresses[..index].iter().any(|earlier| earlier.0.is_ipv4() == ip.0.is_ipv4()) {
            let path = path.key("addresses").index(index);
            findings.unfit(&path, ip.0, "one address of IPv4 and one of IPv6 at most");
        }
    }
    for (index, pool) in settings.media_pool.iter().enumerate() {
        if pool.addresses.is_empty() {
            let path = item("media_pool", index).key("addresses");
            findings.error(&path, "found []; allowed: at least one IP address");
        }
    }
    for (index, location) in settings.location.iter().enumerate() {
        let path = item("location", index);
        findings.refers_if_set(&path.key("media_pool"), location.media_pool.as_ref(), &names.media_pool);
        check_codecs(&path.key("codecs"), &location.codecs, findings);
    }
}

fn check_ports(path: &KeyPath, ports: PortRange, findings: &mut Findings<'_>) {
    let PortRange { first, last } = ports;
    let allowed =
        "[first, last] from 1024 to 65535, the first even (RFC 3550 §11) and room for at least 4 ports";
    if first < 1024 || first % 2 != 0 || ports.pairs() < FEWEST_PAIRS {
        findings.unfit(path, [first, last], allowed);
    }
}

/// Checks a list of codecs for repetition.
pub(super) fn check_codecs(path: &KeyPath, codecs: &[Codec], findings: &mut Findings<'_>) {
    for (index, codec) in codecs.iter().enumerate() {
        if codecs[..index].contains(codec) {
            findings.unfit(&path.index(index), codec.name(), "each codec once");
        }
    }
}
