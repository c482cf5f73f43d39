//! The registrar, stations that do not register, and the dial plan as a whole.

use super::bad_files::{TRUNK, check_all};
use super::*;

#[test]
fn faults_of_registrar_and_connection() {
    let station = |keys: &str| format!("[[station]]\nname = \"d\"\nextension = \"7\"\n{keys}");
    let trunk = |name: &str| format!("\n[[trunk]]\nname = \"{name}\"\nproxies = [\"192.0.2.1\"]");
    let alone = station("connection_address = \"7001\"");
    let cases = [
        ("[registrar]\nmin_expires_s = 0".to_owned(), "2: registrar.min_expires_s", "allowed: 1 to 3600"),
        ("[registrar]\nmax_expires_s = 59".to_owned(), "2: registrar.max_expires_s", "allowed: 60 to 604800"),
        (
            "[registrar]\ndefault_expires_s = 90000".to_owned(),
            "2: registrar.default_expires_s",
            "60 to 86400",
        ),
        (station("fork_timeout_s = 3601"), "4: station[0].fork_timeout_s", "allowed: 0 to 3600"),
        (station("external_number_mask = \"me\""), "4: station[0].external_number_mask", "allowed: up to 32"),
        (alone.clone(), "4: station[0].connection_address", "a user alone, no `trunk` and 0 trunks"),
        (format!("{alone}{}{}", trunk("a"), trunk("b")), "4: station[0].connection_address", "and 2 trunks"),
        (
            format!("{}{}", station("connection_address = \"7@192.0.2.9\"\ntrunk = \"a\""), trunk("a")),
            "5: station[0].trunk",
            "found with a host",
        ),
        (
            format!("{}{}", station("password = \"pw\"\ntrunk = \"a\""), trunk("a")),
            "5: station[0].trunk",
            "without",
        ),
        (format!("{alone}\ntrunk = \"x\"{}", trunk("a")), "5: station[0].trunk", "the name of a trunk"),
        (
            "[[station]]\nname = \"d\"\nextension = \"7.1\"\npassword = \"pw\"".to_owned(),
            "3: station[0].extension",
            "without a dot",
        ),
    ];
    for (text, at, says) in &cases {
        check_all("", &[(text.as_str(), at, says)]);
    }
    assert!(load(&format!("{alone}{}", trunk("a"))).is_ok(), "the only trunk there is");
}

#[test]
fn a_number_that_goes_round_is_an_error_and_a_trunk_to_ourselves_a_warning() {
    let plan = |listen: &str, proxy: &str, pattern: &str| {
        load(&format!(
            "[[listen]]\naddress = \"{listen}\"\n[[trunk]]\nname = \"me\"\nproxies = [\"{proxy}\"]\n\
             [[dial_plan.route_group]]\nname = \"g\"\ntrunks = [\"me\"]\n\
             [[dial_plan.route_list]]\nname = \"l\"\ngroups = [\"g\"]\n\
             [[dial_plan.pattern]]\npattern = \"{pattern}\"\ntarget = \"route_list:l\"\n"
        ))
    };
    for (listen, proxy) in
        [("127.0.0.1:5070", "127.0.0.1:5070"), ("0.0.0.0:5060", "127.0.0.1"), ("[::]:5060", "[::1]")]
    {
        let told = problems(plan(listen, proxy, "9!"));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with("office.toml:14: dial_plan.pattern[0].target: leads round: "),
            "{told:?}"
        );
        let once = plan(listen, proxy, "9.111").unwrap();
        assert!(
            once.warnings.iter().any(|w| w.to_string().contains("is a listener of ours")),
            "{:?}",
            once.warnings
        );
    }
    for (listen, proxy) in [("127.0.0.1:5070", "127.0.0.1:5071"), ("127.0.0.1:0", "127.0.0.1:5060")] {
        assert_eq!(plan(listen, proxy, "9!").unwrap().warnings.len(), 0, "{listen} {proxy}");
    }
}

#[test]
fn a_trunk_that_two_groups_of_a_list_have_is_told() {
    let group = |name: &str, trunks: &str| {
        format!("[[dial_plan.route_group]]\nname = \"{name}\"\ntrunks = [{trunks}]\n")
    };
    let text = format!(
        "{TRUNK}{}{}[[dial_plan.route_list]]\nname = \"l\"\ngroups = [\"g\", \"h\"]\n",
        group("g", "\"carrier\""),
        group("h", "\"carrier\"")
    );
    let text = text.replace("\"carrier\"", &format!("{:?}", load(TRUNK).unwrap().settings.trunk[0].name));
    let warnings = load(&text).unwrap().warnings;
    assert!(warnings.iter().any(|w| w.to_string().contains("it is tried once, there")), "{warnings:?}");
}
