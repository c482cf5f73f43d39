//! Which layer wins, and where it is said to come from.

use std::os::unix::ffi::OsStringExt;

use super::*;

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let text = "[node]\nname = \"file\"\nsip_trace_mb = 16";
    let settings = load_with(text, &[("TANDEM__NODE__NAME", "environment")]).unwrap().settings;
    assert_eq!(settings.node.name, "environment");
    assert_eq!(settings.node.sip_trace_mb, 16);
    assert_eq!(settings.node.data_dir, PathBuf::from("data"));
}

#[test]
fn a_variable_holds_what_its_key_needs() {
    let settings = load_with(
        "",
        &[
            ("TANDEM__NODE__NAME", "42"),
            ("TANDEM__NODE__DOMAINS", "example.com, example.org"),
            ("TANDEM__HTTP__TOKENS", "one-token-that-is-long-enough"),
            ("TANDEM__MEDIA__PORTS", "[21000, 21999]"),
            ("TANDEM__MEDIA__WORKERS", "4"),
            ("TANDEM__TRUNK", "[{ name = \"carrier\", proxies = [\"192.0.2.1\"] }]"),
            ("TANDEM__DIAL_PLAN__PATTERN", "[{ pattern = \"9.X!\", target = \"trunk:carrier\" }]"),
            ("TANDEM_CHAOS", "1"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap()
    .settings;
    assert_eq!(settings.node.name, "42");
    assert_eq!(settings.node.domains, ["example.com", "example.org"]);
    assert_eq!(settings.http.tokens.len(), 1);
    assert_eq!(settings.media.ports, PortRange { first: 21000, last: 21999 });
    assert_eq!(settings.media.workers, 4);
    assert_eq!(settings.trunk[0].name, "carrier");
    assert_eq!(settings.dial_plan.pattern.len(), 1);
}

#[test]
fn ports_may_be_divided_by_a_comma() {
    let settings = load_with("", &[("TANDEM__MEDIA__PORTS", "21000,21999")]).unwrap().settings;
    assert_eq!(settings.media.ports, PortRange { first: 21000, last: 21999 });
}

#[test]
fn an_error_in_a_variable_names_it() {
    let cases = [
        ("TANDEM__MEDIA__WORKERS", "many", "media.workers: found \"many\"; allowed: a whole number"),
        (
            "TANDEM__MEDIA__PORTS",
            "[20001, 20010]",
            "media.ports: found [20001, 20010]; allowed: [first, last]",
        ),
        ("TANDEM__HTTP__ADRESS", "127.0.0.1:1", "http.adress: unknown key; did you mean `address`?"),
        ("TANDEM__HTTP__ADDRESS", "localhost", "http.address: found \"localhost\"; allowed: an IP address"),
        ("TANDEM__STATION__0__PASSWORD", "pw", "station: found a table; allowed: a list"),
        ("TANDEM__NODE", "5", "node: found 5; allowed: a table"),
        ("TANDEM__STATION", "[{ name = \"a\" }]", "station[0].extension: is missing"),
    ];
    for (name, value, expected) in cases {
        let problems = problems(load_with("", &[(name, value)]));
        assert_eq!(problems.len(), 1, "{problems:?}");
        let expected = format!("environment variable {name}: {expected}");
        assert!(problems[0].starts_with(&expected), "expected {expected}\ngot {}", problems[0]);
    }
}

#[test]
fn a_variable_that_is_no_text_is_refused() {
    let variable = (OsString::from("TANDEM__NODE__NAME"), OsString::from_vec(vec![0xff]));
    let problems = problems(Settings::load_from(None, [variable]));
    assert_eq!(problems, ["environment variable TANDEM__NODE__NAME: is not UTF-8"]);
}

#[test]
fn a_list_of_a_later_layer_replaces_the_whole_list_and_its_places() {
    let variable = ("TANDEM__STATION", "[{ name = \"b\", extension = \"2\", password = \"\" }]");
    let problems = problems(load_with(SMALL, &[variable]));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("environment variable TANDEM__STATION: station[0].password:"));
}

#[test]
fn errors_of_a_file_and_a_variable_are_told_together() {
    let problems =
        problems(load_with("[node]\nsip_trace_mb = 5000", &[("TANDEM__MEDIA__RTP_TIMEOUT_S", "-1")]));
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Settings::load(Some(std::path::Path::new("/nonexistent/tandem.toml"))).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/tandem.toml: cannot read the settings file: "));
}
