//! Trunks and registrations.

use super::{TRUNK, check_all};

#[test]
fn faults_of_trunks() {
    check_all(
        TRUNK,
        &[
            ("[[trunk]]\nname = \"b\"", "4: trunk[1]", "found neither proxies nor domain"),
            ("domain = \"example.net\"", "1: trunk[0]", "found proxies and domain; allowed: one of them"),
            (
                "listen = \"wan\"",
                "4: trunk[0].listen",
                "found \"wan\"; allowed: the name of a listener: \"udp\"",
            ),
            (
                "transport = \"tls\"\nlisten = \"udp\"",
                "4: trunk[0].transport",
                "allowed: \"udp\", as its listener",
            ),
            (
                "[[trunk]]\nname = \"b\"\nlisten = \"udp\"\nproxies = [\"[::1]:5060\"]",
                "7: trunk[1].proxies[0]",
                "allowed: an IPv4 address, as that of its listener",
            ),
            (
                "certificate_names = [\"example.net\", \"*.example.net\"]",
                "4: trunk[0].certificate_names[1]",
                "allowed: a host name or IP address without a port or wildcard",
            ),
            ("transport = \"tls\"", "4: trunk[0].transport", "allowed: a transport that a listener carries"),
            ("accept_from = [\"10.0.0.0/8\", \"10.0.0.0/40\"]", "4: trunk[0].accept_from[1]", "or network"),
            ("accept_from = [\"10.0.0.1:0\"]", "4: trunk[0].accept_from[0]", "found \"10.0.0.1:0\""),
            (
                "retryable_codes = [\"480\", \"5xx\"]",
                "4: trunk[0].retryable_codes[1]",
                "as \"480\" or \"500-599\"",
            ),
            ("retryable_codes = [\"599-500\"]", "4: trunk[0].retryable_codes[0]", "found \"599-500\""),
            ("retryable_codes = [\"200\"]", "4: trunk[0].retryable_codes[0]", "from 300 to 699"),
            (
                "retryable_codes = [480]",
                "4: trunk[0].retryable_codes[0]",
                "found 480; allowed: a text in quotes",
            ),
            ("selection = \"random\"", "4: trunk[0].selection", "allowed: \"priority\" or \"round_robin\""),
            ("media_timing = \"late\"", "4: trunk[0].media_timing", "allowed: \"normal\" or \"delayed\""),
            ("srtp = \"on\"", "4: trunk[0].srtp", "allowed: \"off\" or \"offered\" or \"required\""),
            ("timer_preset = \"fast\"", "4: trunk[0].timer_preset", "\"unsecured\""),
            (
                "number_rules = [{ direction = \"in\", party = \"called\", strip = 33 }]",
                "4: trunk[0].number_rules[0].strip",
                "allowed: 0 to 32",
            ),
            (
                "number_rules = [{ direction = \"in\", party = \"called\", prefix = \"a\" }]",
                "4: trunk[0].number_rules[0].prefix",
                "up to 32 digits",
            ),
            (
                "header_rules = [{ direction = \"out\", header = \"To\", value = \"x\" }]",
                "4: trunk[0].header_rules[0].header",
                "To is written by the engine",
            ),
            (
                "header_rules = [{ direction = \"out\", header = \"X-A\", value = \"{Call-Info\" }]",
                "4: trunk[0].header_rules[0].value",
                "a brace that is not closed",
            ),
            ("dscp = 64", "4: trunk[0].dscp", "found 64; allowed: 0 to 63"),
            ("redirect = \"fork\"", "4: trunk[0].redirect", "allowed: \"follow\" or \"pass\""),
            ("redirect_to = [\"x\"]", "4: trunk[0].redirect_to[0]", "allowed: "),
            ("trusted = \"yes\"", "4: trunk[0].trusted", "allowed: true"),
            ("t1_ms = 1", "4: trunk[0].t1_ms", "allowed: 10 to 10000 (milliseconds)"),
            (
                "selection = \"round_robin\"\nweights = [1, 2]",
                "5: trunk[0].weights",
                "at most 1, one for each proxy",
            ),
            ("selection = \"round_robin\"\nweights = [0]", "5: trunk[0].weights[0]", "allowed: 1 to 1000"),
            ("emergency_channels = 1", "4: trunk[0].emergency_channels", "allowed: only with `max_calls`"),
            (
                "max_calls = 1\nemergency_channels = 1",
                "5: trunk[0].emergency_channels",
                "less than max_calls, 1",
            ),
            ("max_new_calls_per_s = 10001", "4: trunk[0].max_new_calls_per_s", "allowed: 0 to 10000"),
            ("connect_timeout_ms = 99", "4: trunk[0].connect_timeout_ms", "allowed: 100 to 60000"),
            ("username = \"me\"", "1: trunk[0].password", "is missing; `username` needs it"),
            ("password = \"pw\"", "1: trunk[0].username", "is missing; `password` needs it"),
        ],
    );
    check_all(
        "",
        &[
            (
                "[[trunk]]\nname = \"a\"\nproxies = [\"10.0.0.1:99999\"]",
                "3: trunk[0].proxies[0]",
                "from 1 to 65535",
            ),
            (
                "[[trunk]]\nname = \"a\"\nproxies = [\"10.0.0.300\"]",
                "3: trunk[0].proxies[0]",
                "a host name or IP",
            ),
            (
                "[[trunk]]\nname = \"a\"\nproxies = [\"h\", \"h\"]",
                "3: trunk[0].proxies[1]",
                "each proxy once",
            ),
            ("[[trunk]]\nname = \"a\"\ndomain = \"a b\"", "3: trunk[0].domain", "allowed: a host name"),
        ],
    );
}

#[test]
fn faults_of_registrations() {
    check_all(
        TRUNK,
        &[
            (
                "[[registration_group]]\nname = \"g\"\nregistrations = []",
                "6: registration_group[0].registrations",
                "at least one",
            ),
            (
                "[[registration_group]]\nname = \"g\"\nregistrations = [{ trunk = \"x\" }]",
                "6: registration_group[0].registrations[0].trunk",
                "the name of a trunk: \"carrier\"",
            ),
            (
                "[[registration_group]]\nname = \"g\"\nregistrations = [{ trunk = \"carrier\", proxy = \"a\", username = \"u\", password = \"p\" }]",
                "6: registration_group[0].registrations[0]",
                "found trunk and proxy; allowed: exactly one of",
            ),
            (
                "[[registration_group]]\nname = \"g\"\nregistrations = [{ domain = \"a.b\", username = \"u\", password = \"p\", expires_s = 1 }]",
                "6: registration_group[0].registrations[0].expires_s",
                "allowed: 60 to 604800",
            ),
            (
                "[[registration_group]]\nname = \"g\"\nregistrations = [{ trunk = \"carrier\" }]",
                "6: registration_group[0].registrations[0].username",
                "is missing; the trunk has none either",
            ),
            (
                "[[registration_group]]\nname = \"g\"\nactive = 2\n\
                 registrations = [{ address = \"a\", username = \"u\", password = \"p\" }]",
                "6: registration_group[0].active",
                "allowed: 1 to 1",
            ),
            (
                "[[registration_group]]\nname = \"g\"\nretry_s = 20\nmax_retry_s = 10\n\
                 registrations = [{ address = \"a\", username = \"u\", password = \"p\" }]",
                "7: registration_group[0].max_retry_s",
                "allowed: 20 to 86400",
            ),
            (
                "[[registration_group]]\nname = \"g\"\ntrunk = \"carrier\"\n\
                 registrations = [{ address = \"a\", username = \"u\", password = \"p\", number = \"one\" }]",
                "7: registration_group[0].registrations[0].number",
                "digits, * and #",
            ),
            (
                "[[registration_group]]\nname = \"g\"\n\
                 registrations = [{ address = \"a\", transport = \"tcp\", username = \"u\", password = \"p\" }]",
                "6: registration_group[0].registrations[0].transport",
                "a transport that a listener",
            ),
        ],
    );
}
