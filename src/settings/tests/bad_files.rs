//! Bad files, one fault each: the complaint names the file and line, the key and what is allowed.

mod dial_plan;
mod toll_fraud;
mod trunks;

use super::*;

/// What the file says, the place and key that must be named, and what is told to be allowed.
type Case = (&'static str, &'static str, &'static str);

const STATION: &str = "[[station]]\nname = \"1001\"\nextension = \"1001\"\npassword = \"pw\"\n";
pub(super) const TRUNK: &str = "[[trunk]]\nname = \"carrier\"\nproxies = [\"192.0.2.1\"]\n";

pub(super) fn check_all(before: &str, cases: &[(&str, &str, &str)]) {
    for (text, place, allowed) in cases {
        let all = problems(load(&format!("{before}{text}")));
        let told = all.join("\n");
        assert_eq!(all.len(), 1, "{text}\nis one fault, but was told as\n{told}");
        assert!(told.starts_with(&format!("office.toml:{place}: ")), "{text}\nexpected {place}, got\n{told}");
        assert!(told.contains(allowed), "{text}\nexpected {allowed}, got\n{told}");
    }
}

#[test]
fn faults_of_the_node_and_its_addresses() {
    check_all(
        "",
        &[
            ("[node]\nnmae = \"a\"", "2: node.nmae", "did you mean `name`? allowed here: name, data_dir"),
            ("[nodes]\n", "1: nodes", "did you mean `node`?"),
            ("[node]\nname = 5", "2: node.name", "found 5; allowed: a text in quotes"),
            ("[node]\nname = \"a b\"", "2: node.name", "found \"a b\"; allowed: 1 to 64 bytes"),
            ("[node]\nsip_trace_mb = 5000", "2: node.sip_trace_mb", "found 5000; allowed: 0 to 4096"),
            ("[node]\nsip_trace_mb = -1", "2: node.sip_trace_mb", "found -1; allowed: a whole number from 0"),
            ("[node]\nsip_trace_mb = 1.5", "2: node.sip_trace_mb", "found 1.5; allowed: a whole number"),
            (
                "[node]\nsip_trace_mb = 99999999999999999999",
                "2: node.sip_trace_mb",
                "allowed: a whole number",
            ),
            ("[node]\ndomains = \"a\"", "2: node.domains", "found \"a\"; allowed: a list"),
            ("[node]\ndomains = [\"a\", \"b c\"]", "2: node.domains[1]", "allowed: a host name"),
            ("[node]\ndigest_algorithms = []", "2: node.digest_algorithms", "allowed: at least one"),
            (
                "[node]\ndigest_algorithms = [\"MD5\", \"SHA1\"]",
                "2: node.digest_algorithms[1]",
                "allowed: \"MD5\" or \"SHA-256\"",
            ),
            (
                "[node]\ndigest_algorithms = [\"MD5\", \"MD5\"]",
                "2: node.digest_algorithms",
                "allowed: each once",
            ),
            ("[node]\nrealm = \"\"", "2: node.realm", "allowed: a text without quotes"),
            ("node = 1", "1: node", "found 1; allowed: a table"),
            ("[http]\naddress = \"127.0.0.1\"", "2: http.address", "allowed: an IP address and port"),
            ("[http]\ntokens = [\"a b\"]", "2: http.tokens[0]", "not shown; allowed: letters"),
            (
                "[[listen]]\ntransport = \"ws\"",
                "2: listen[0].transport",
                "not built yet; allowed: \"udp\" or \"tcp\"",
            ),
            ("[[listen]]\nmax_connections = 0", "2: listen[0].max_connections", "allowed: 1 to 1000000"),
            ("[[listen]]\nsend_queue_kb = 1", "2: listen[0].send_queue_kb", "allowed: 64 to 65536 (KiB)"),
            ("[[listen]]\ntransport = \"sctp\"", "2: listen[0].transport", "allowed: \"udp\" or \"tcp\""),
            (
                "[[listen]]\naddress = \"0.0.0.0:70000\"",
                "2: listen[0].address",
                "allowed: an IP address and port",
            ),
            ("[[listen]]\nexternal_address = \"a:b\"", "2: listen[0].external_address", "allowed: a host"),
            (
                "[[listen]]\nsession_expires_s = 60",
                "2: listen[0].session_expires_s",
                "allowed: 90 to 86400 (seconds, not less than min_se_s, or 0, which is off)",
            ),
            (
                "[[listen]]\nmin_se_s = 300\nsession_expires_s = 200",
                "3: listen[0].session_expires_s",
                "allowed: 300 to 86400",
            ),
            ("[[listen]]\nmin_se_s = 60", "2: listen[0].min_se_s", "allowed: 90 to 86400"),
            ("[[listen]]\nt1_ms = 500\nt2_ms = 100", "3: listen[0].t2_ms", "allowed: 500 to 60000"),
            (
                "[[listen]]\nmax_message_bytes = 65536",
                "2: listen[0].max_message_bytes",
                "1300 to 65535 (bytes)",
            ),
            (
                "[[listen]]\nmax_header_bytes = 65536",
                "2: listen[0].max_header_bytes",
                "allowed: 256 to 65535",
            ),
            (
                "[[listen]]\nmax_message_bytes = 2000\nmax_header_bytes = 2001",
                "3: listen[0].max_header_bytes",
                "allowed: 256 to 2000 (bytes, not more than max_message_bytes)",
            ),
            ("[[listen]]\nmax_headers = 2", "2: listen[0].max_headers", "allowed: 16 to 1024"),
            ("[[listen]]\nmax_vias = 0", "2: listen[0].max_vias", "allowed: 1 to 255"),
            (
                "[[listen]]\nrequire_client_certificate = true",
                "1: listen[0].client_ca",
                "`require_client_certificate` needs it",
            ),
            (
                "[[listen]]\ntransport = \"tls\"\nprivate_key = \"/nowhere/key.pem\"",
                "1: listen[0].certificate",
                "is missing; a tls listener needs it",
            ),
            (
                "[[listen]]\ntransport = \"tls\"\ncertificate = \"/nowhere/own.pem\"\nprivate_key = \"/nowhere/own.key\"",
                "3: listen[0].certificate",
                "/nowhere/own.pem: cannot be read: No such file",
            ),
            (
                "[[listen]]\nhandshake_timeout_ms = 99",
                "2: listen[0].handshake_timeout_ms",
                "allowed: 100 to 60000",
            ),
            ("[[listen]]\nmax_handshakes = 0", "2: listen[0].max_handshakes", "allowed: 1 to 10000"),
            (
                "[[listen]]\nname = \"a\"\n[[listen]]\nname = \"b\"\naddress = \"127.0.0.1:5060\"",
                "5: listen[1].address",
                "free; listen[0].address has 0.0.0.0:5060",
            ),
            (
                "[[listen]]\n[[listen]]\naddress = \"127.0.0.1:5070\"",
                "2: listen[1].name",
                "found \"udp\"; allowed: a name of its own; listen[0].name has this one",
            ),
        ],
    );
}

#[test]
fn faults_of_media() {
    check_all(
        "",
        &[
            ("[media]\nports = [20001, 20101]", "2: media.ports", "the first even"),
            ("[media]\nports = [20000, 20002]", "2: media.ports", "room for at least 4 ports"),
            ("[media]\nports = [30000, 20000]", "2: media.ports", "[first, last]"),
            ("[media]\nports = [80, 20000]", "2: media.ports", "from 1024 to 65535"),
            ("[media]\nports = [20000]", "2: media.ports", "found [20000]; allowed: two ports"),
            (
                "[media]\nports = [20000, 70000]",
                "2: media.ports[1]",
                "allowed: a whole number from 0 to 65535",
            ),
            ("[media]\naddresses = [\"10.0.0.1:5\"]", "2: media.addresses[0]", "without a port"),
            (
                "[media]\naddresses = [\"10.0.0.1\", \"::1\", \"10.0.0.2\"]",
                "2: media.addresses[2]",
                "one address of IPv4 and one of IPv6 at most",
            ),
            ("[media]\nexternal_address = \"host\"", "2: media.external_address", "allowed: an IP address"),
            ("[media]\nrtp_timeout_s = 90000", "2: media.rtp_timeout_s", "allowed: 0 to 86400 (seconds"),
            ("[[media_pool]]\nname = \"a\"", "1: media_pool[0].addresses", "is missing"),
            ("[[media_pool]]\nname = \"a\"\naddresses = []", "3: media_pool[0].addresses", "at least one"),
            (
                "[[location]]\nname = \"a\"\ncodecs = [\"PCMU\", \"MP3\"]",
                "3: location[0].codecs[1]",
                "found \"MP3\"; allowed: \"PCMU\"",
            ),
            (
                "[[location]]\nname = \"a\"\ncodecs = [\"PCMU\", \"pcmu\"]",
                "3: location[0].codecs[1]",
                "allowed: each codec once",
            ),
            (
                "[[location]]\nname = \"a\"\nmedia_pool = \"b\"",
                "3: location[0].media_pool",
                "found \"b\"; allowed: the name of a media pool, but there is none",
            ),
        ],
    );
}

#[test]
fn faults_of_stations_users_and_services() {
    check_all(
        STATION,
        &[
            (
                "media = \"both\"",
                "5: station[0].media",
                "found \"both\"; allowed: \"anchored\" or \"bypass\"",
            ),
            ("record = \"yes\"", "5: station[0].record", "found \"yes\"; allowed: true or false"),
            ("ring_timeout = 5", "5: station[0].ring_timeout", "did you mean `ring_timeout_s`?"),
            ("ring_timeout_s = 0", "5: station[0].ring_timeout_s", "found 0; allowed: 1 to 3600 (seconds)"),
            ("max_contacts = 0", "5: station[0].max_contacts", "allowed: 1 to 100"),
            ("partition = \"attic\"", "5: station[0].partition", "the name of a partition: \"internal\""),
            ("calling_search_space = \"x\"", "5: station[0].calling_search_space", "a calling search space"),
            ("location = \"x\"", "5: station[0].location", "the name of a location"),
            ("connection_address = \"a b\"", "5: station[0].connection_address", "allowed: \"user\""),
            (
                "ha1_md5 = \"00112233445566778899aabbccddeeff\"",
                "1: station[0]",
                "found password and ha1_md5; allowed: exactly one of",
            ),
            (
                "[[station]]\nname = \"1002\"\nextension = \"1002\"\nha1_sha256 = \"6fee04c7ab9b3e5d5a4fb7d9b1d8b5a77e3b9e1f36ee5ab9c5bd4b8f4f0c9a21\"",
                "8: station[1].ha1_sha256",
                "allowed: only if node.digest_algorithms holds \"SHA-256\"",
            ),
            (
                "[[station]]\nname = \"1002\"\nextension = \"1002\"\nha1_sha256 = \"00\"",
                "8: station[1].ha1_sha256",
                "not shown; allowed: 64 hexadecimal digits",
            ),
            (
                "[[station]]\nname = \"1002\"\nextension = \"1002\"\npassword = 12345",
                "8: station[1].password",
                "found a value that is not shown; allowed: a text in quotes",
            ),
            ("[[station]]\nname = \"b\"\n", "5: station[1].extension", "is missing"),
            (
                "[[station]]\nname = \"1001\"\nextension = \"7\"\npassword = \"pw\"",
                "6: station[1].name",
                "a name of its own; station[0].name has this one",
            ),
            (
                "[[station]]\nname = \"b\"\nextension = \"1001\"\npassword = \"pw\"",
                "7: station[1].extension",
                "a number of its own in partition \"internal\"; station[0].extension has this one",
            ),
            (
                "[[station]]\nname = \"b\"\nextension = \"the desk\"\npassword = \"pw\"",
                "7: station[1].extension",
                "found \"the desk\"; allowed: digits",
            ),
            (
                "[[user]]\nname = \"u\"\nextension = \"1001\"",
                "7: user[0].extension",
                "station[0].extension has",
            ),
            (
                "[[user]]\nname = \"u\"\nextension = \"2\"\ndefault_station = \"x\"",
                "8: user[0].default_station",
                "the name of a station: \"1001\"",
            ),
            (
                "[[user]]\nname = \"u\"\nextension = \"2\"\noutbound_ani = \"me\"",
                "8: user[0].outbound_ani",
                "allowed: digits",
            ),
            (
                "[[service]]\nname = \"s\"\nkind = \"sauna\"\nextension = \"3\"",
                "7: service[0].kind",
                "found \"sauna\"; allowed: \"echo\" or \"tone\"",
            ),
            (
                "[[service]]\nname = \"s\"\nkind = \"echo\"\nextension = \"1001\"",
                "8: service[0].extension",
                "station[0].extension has this one",
            ),
        ],
    );
}

#[test]
fn faults_of_the_dns_servers() {
    check_all(
        "[dns]\n",
        &[
            (
                "servers = [\"192.0.2.53\", \"ns.example\"]",
                "2: dns.servers[1]",
                "found \"ns.example\"; allowed: an IP",
            ),
            ("servers = [\"192.0.2.53\", \"192.0.2.53\"]", "2: dns.servers[1]", "each server once"),
            (
                "servers = [\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\", \"10.0.0.4\", \"10.0.0.5\", \"10.0.0.6\", \
                 \"10.0.0.7\", \"10.0.0.8\", \"10.0.0.9\"]",
                "2: dns.servers",
                "found 9; allowed: 8 servers at most",
            ),
            ("timeout_ms = 10", "2: dns.timeout_ms", "allowed: 50 to 30000 (milliseconds)"),
            ("attempts = 0", "2: dns.attempts", "found 0; allowed: 1 to 10"),
            ("min_ttl_s = 0", "2: dns.min_ttl_s", "allowed: 1 to 3600"),
            ("min_ttl_s = 60\nmax_ttl_s = 30", "3: dns.max_ttl_s", "allowed: 60 to 604800"),
            ("max_negative_ttl_s = 86400", "2: dns.max_negative_ttl_s", "allowed: 1 to 10800"),
            ("max_stale_s = 1000000", "2: dns.max_stale_s", "allowed: 0 to 604800"),
        ],
    );
}

#[test]
fn faults_of_the_overload_control() {
    check_all(
        "[overload]\n",
        &[
            (
                "target_delay_ms = 500",
                "2: overload.target_delay_ms",
                "allowed: 0 to 400 (milliseconds, 0 refuses nothing)",
            ),
            ("retry_after_s = 0", "2: overload.retry_after_s", "found 0; allowed: 1 to 3600"),
        ],
    );
}

#[test]
fn text_that_is_no_toml_is_told_with_its_line() {
    check_all("", &[("[node]\nname = \"a\nsip_trace_mb = 8", "2", "not valid TOML")]);
    check_all("", &[("[node]\nname = \"a\"\nname = \"b\"", "3", "not valid TOML: duplicate key")]);
}

#[test]
fn all_faults_are_told_at_once_and_in_order() {
    let all = problems(load(
        "[node]\nnmae = 1\nsip_trace_mb = 5000\n[[station]]\nmedia = \"both\"\n\
         [[station]]\nname = \"b\"\nextension = \"1\"\npartition = \"x\"\nmax_contacts = 0\n\
         [media]\nports = [1, 2]",
    ));
    let keys: Vec<&str> = all.iter().map(|line| line.split(": ").nth(1).unwrap()).collect();
    assert_eq!(
        keys,
        [
            "node.nmae",
            "node.sip_trace_mb",
            "station[0].extension",
            "station[0].name",
            "station[0].media",
            "station[1].partition",
            "station[1].max_contacts",
            "media.ports",
        ]
    );
}

#[test]
fn an_item_that_cannot_be_read_does_not_shift_the_numbers_of_the_rest() {
    let all = problems(load(&format!(
        "[[dial_plan.pattern]]\npattern = \"1\"\n[[dial_plan.pattern]]\npattern = \"2\"\n\
         target = \"trunk:nope\"\n{TRUNK}"
    )));
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all[0].starts_with("office.toml:1: dial_plan.pattern[0].target: is missing"), "{all:?}");
    assert!(all[1].starts_with("office.toml:5: dial_plan.pattern[1].target: found \"nope\""), "{all:?}");
}

#[test]
fn a_reference_to_a_name_that_could_not_be_read_is_no_second_fault() {
    let all = problems(load(
        "[[trunk]]\nname = 5\nproxies = [\"h\"]\n[[dial_plan.pattern]]\npattern = \"9\"\ntarget = \"trunk:5\"",
    ));
    assert_eq!(all, ["office.toml:2: trunk[0].name: found 5; allowed: a text in quotes"]);
}

#[test]
fn the_errors_of_a_hopeless_file_end_somewhere() {
    let station = "[[station]]\nname = \"a\"\nextension = \"1\"\nmedia = \"both\"\n";
    let all = problems(load(&station.repeat(1000)));
    assert_eq!(all.len(), 201);
    assert_eq!(all[0], "office.toml: there are further errors, which are not shown");
}
