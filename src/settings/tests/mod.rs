//! What the loader accepts and how it complains.

mod bad_files;
mod defaults;
mod layers;
mod routing;

use std::ffi::OsString;

use super::*;

/// A station and a trunk that other tests add to.
const SMALL: &str = r#"
[[station]]
name = "1001"
extension = "1001"
password = "a password of its own"
[[trunk]]
name = "carrier"
proxies = ["192.0.2.10:5060"]
"#;

fn load(text: &str) -> Result<Loaded, LoadError> {
    load_with(text, &[])
}

fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, LoadError> {
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Settings::load_from(Some(("office.toml", text)), variables)
}

fn problems(result: Result<Loaded, LoadError>) -> Vec<String> {
    match result {
        Err(LoadError::Invalid(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("expected invalid settings, got {other:?}"),
    }
}

fn warnings(text: &str) -> Vec<String> {
    load(text).unwrap().warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn the_example_office_loads_without_a_warning() {
    let loaded = load(include_str!("../../../config/example.toml")).unwrap();
    assert_eq!(loaded.warnings, []);
    let settings = loaded.settings;
    assert_eq!(settings.to_string(), "1 listener, 3 stations, 0 users, 1 trunk, 2 services, 2 patterns");
    assert_eq!(settings.dial_plan.pattern[0].target, Target::Trunk("carrier".into()));
    assert!(settings.service.iter().any(|service| service.extension == "*43"));
}

#[test]
fn no_file_gives_a_listener_and_the_built_in_services() {
    let settings = Settings::load_from(None, []).unwrap().settings;
    assert_eq!(settings.listen.len(), 1);
    assert_eq!(settings.listen[0].name, "udp");
    assert_eq!(settings.listen[0].address.0.to_string(), "0.0.0.0:5060");
    assert_eq!(settings.http.address.0.to_string(), "127.0.0.1:8080");
    let services: Vec<_> = settings.service.iter().map(|s| (s.kind, s.extension.as_str())).collect();
    assert_eq!(services, [(ServiceKind::Echo, "*43"), (ServiceKind::Tone, "*44")]);
}

#[test]
fn a_built_in_service_gives_way_to_a_number_or_name_of_the_file() {
    let settings = load(
        "[[service]]\nname = \"echo\"\nkind = \"echo\"\nextension = \"600\"\n\
         [[station]]\nname = \"a\"\nextension = \"*44\"\npassword = \"pw\"",
    );
    let services = settings.unwrap().settings.service;
    let numbers: Vec<_> = services.iter().map(|service| service.extension.as_str()).collect();
    assert_eq!(numbers, ["600"]);
}

#[test]
fn what_has_no_effect_yet_is_accepted_and_named() {
    let text = format!(
        "{SMALL}srtp = \"required\"\nrecord = true\nmedia = \"anchored\"\ndscp = 24\ncodecs = [\"PCMU\", \"G729\"]"
    );
    assert_eq!(
        warnings(&text),
        ["office.toml:9: trunk[0].srtp: \"required\" is accepted but has no effect yet",]
    );
    assert_eq!(warnings(&format!("{SMALL}srtp = \"off\"\nrecord = false")), [""; 0]);
}

#[test]
fn a_section_without_effect_is_named_once() {
    let text = "[[media_pool]]\nname = \"a\"\naddresses = [\"192.0.2.1\"]\n\
                [[media_pool]]\nname = \"b\"\naddresses = [\"192.0.2.2\"]";
    assert_eq!(warnings(text), ["office.toml:1: media_pool: `media_pool` is accepted but has no effect yet"]);
}

#[test]
fn every_key_said_to_have_no_effect_exists() {
    for key in unbuilt::keys() {
        let nested =
            key.rsplit('.').fold("\"?\"".to_owned(), |value, step| format!("{{ {step} = {value} }}"));
        let layer = layer::Layer::from_toml(&nested[2..nested.len() - 2], |_| Place::BuiltIn);
        let merged = config::Config::builder().add_source(layer).build().unwrap().cache;
        let errors = decode::decode::<Settings>(&merged).errors;
        assert!(!errors.iter().any(|(_, text)| text.contains("unknown key")), "{key}: {errors:?}");
    }
}

#[test]
fn what_is_doubtful_is_a_warning() {
    let cases = [
        ("[[station]]\nname = \"a\"\nextension = \"1\"", "office.toml:1: station[0]: has no password"),
        ("[http]\ntokens = [\"short\"]", "office.toml:2: http.tokens[0]: a token of fewer than 16"),
        (
            "[[listen]]\naddress = \"0.0.0.0:20004\"",
            "office.toml:2: listen[0].address: port 20004 lies in media.ports",
        ),
        (
            "[[listen]]\nserver_ca = \"/etc/tandem/ca.pem\"",
            "office.toml:2: listen[0].server_ca: has no effect on a udp listener",
        ),
        (
            "[[trunk]]\nname = \"a\"\nproxies = [\"192.0.2.1\"]\ncertificate_names = [\"example.net\"]",
            "office.toml:4: trunk[0].certificate_names: has no effect on a trunk that is not over TLS",
        ),
        (
            "[[dial_plan.partition]]\nname = \"attic\"",
            "office.toml:1: dial_plan.partition[0]: is in no calling search space",
        ),
        (
            "[[trunk]]\nname = \"a\"\nproxies = [\"192.0.2.1\"]\naccept_from = [\"10.0.0.0/8\"]\n\
             [[trunk]]\nname = \"b\"\nproxies = [\"192.0.2.2\"]\naccept_from = [\"10.0.0.0/8\"]",
            "office.toml:8: trunk[1].accept_from[0]: trunk \"a\" names 10.0.0.0/8 too",
        ),
        (
            "[[registration_group]]\nname = \"g\"\nregistrations = [{ domain = \"example.net\", username = \"u\", \
             password = \"p\", number = \"100\" }]",
            "office.toml:3: registration_group[0].registrations[0].number: has no effect: calls to the account have no trunk",
        ),
    ];
    for (text, expected) in cases {
        let warnings = warnings(text);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with(expected), "{warnings:?}");
    }
}

#[test]
fn a_station_that_is_reached_at_a_fixed_address_needs_no_password() {
    let text = "[[station]]\nname = \"a\"\nextension = \"1\"\nconnection_address = \"1001@192.0.2.1:5060\"";
    assert_eq!(warnings(text), [""; 0]);
    let named = text.replace("192.0.2.1", "phone.example.com");
    let warning = "office.toml:4: station[0].connection_address: a host name is not looked up yet: the station is not reached there";
    assert_eq!(warnings(&named), [warning]);
}

#[test]
fn passwords_are_not_printed() {
    let settings = load(SMALL).unwrap().settings;
    assert_eq!(settings.station[0].password.as_ref().unwrap().reveal(), "a password of its own");
    assert!(!format!("{settings:?}").contains("a password of its own"));
}

#[test]
fn a_trunk_over_tls_has_the_timers_of_tls() {
    let mut settings = load(SMALL).unwrap().settings;
    let trunk = &mut settings.trunk[0];
    let milliseconds = std::time::Duration::from_millis;
    let mut listen = Listen::default();
    let timers = trunk.timers(&listen);
    assert_eq!((timers.t1, timers.t2), (milliseconds(500), milliseconds(4000)));
    assert_eq!(
        (timers.connect_timeout, timers.max_packet_retries, timers.max_invite_retries),
        (milliseconds(3500), 10, 6)
    );
    listen.transport = Transport::Tls;
    let timers = trunk.timers(&listen);
    assert_eq!((timers.t1, timers.t2), (milliseconds(500), milliseconds(1000)));
    assert_eq!(
        (timers.connect_timeout, timers.max_packet_retries, timers.max_invite_retries),
        (milliseconds(2000), 4, 3)
    );
    trunk.t2_ms = Some(2500);
    assert_eq!(trunk.timers(&listen).t2, milliseconds(2500));
    assert!(trunk.is_retryable(480) && trunk.is_retryable(599) && !trunk.is_retryable(486));
}

#[test]
fn a_preset_of_timers_is_a_whole_set_and_what_is_said_beside_it_wins() {
    let timers = |keys: &str| {
        let settings = load(&format!("{SMALL}{keys}")).unwrap().settings;
        let listen = Listen { t1_ms: 100, t2_ms: Some(300), ..Listen::default() };
        let timers = settings.trunk[0].timers(&listen);
        let ms = |time: std::time::Duration| time.as_millis();
        let counts = (timers.max_packet_retries, timers.max_invite_retries);
        let delay = timers.reinvite_delay.map(ms);
        (ms(timers.t1), ms(timers.t2), ms(timers.connect_timeout), counts, delay)
    };
    assert_eq!(timers("timer_preset = \"unsecured\""), (500, 4000, 3500, (10, 6), Some(750)));
    assert_eq!(timers("timer_preset = \"tls\""), (500, 1000, 2000, (4, 3), Some(750)));
    assert_eq!(timers("timer_preset = \"tls\"\nt2_ms = 2500"), (500, 2500, 2000, (4, 3), Some(750)));
    assert_eq!(timers(""), (100, 300, 3500, (10, 6), None), "T1 and T2 are the listener's");
}

#[test]
fn the_realm_and_domains_follow_from_the_addresses() {
    let text = "[[listen]]\naddress = \"192.0.2.5:5060\"\nexternal_address = \"sip.example.com:5070\"";
    let settings = load(text).unwrap().settings;
    assert_eq!(settings.domains(), ["192.0.2.5", "sip.example.com"]);
    assert_eq!(settings.realm(), "tandem");
    let settings = load("[node]\ndomains = [\"example.com\"]").unwrap().settings;
    assert_eq!((settings.domains(), settings.realm()), (vec!["example.com".to_owned()], "example.com"));
}

#[test]
fn a_trunk_is_bound_to_the_listener_it_names() {
    let text = format!(
        "{SMALL}listen = \"b\"\n[[listen]]\nname = \"a\"\naddress = \"127.0.0.1:5060\"\n\
         [[listen]]\nname = \"b\"\naddress = \"127.0.0.1:5070\""
    );
    let mut settings = load(&text).unwrap().settings;
    assert_eq!(settings.listener_of(&settings.trunk[0]).unwrap().name, "b");
    settings.trunk[0].listen = None;
    assert_eq!(settings.listener_of(&settings.trunk[0]).unwrap().name, "a");
    settings.listen[1].address = BindAddress("[::1]:5060".parse().unwrap());
    settings.trunk[0].proxies = vec![HostPort { host: "2001:db8::1".into(), port: None }];
    assert_eq!(settings.listener_of(&settings.trunk[0]).unwrap().name, "b");
    settings.trunk[0].transport = Some(Transport::Tcp);
    assert_eq!(settings.listener_of(&settings.trunk[0]), None);
}

#[test]
fn a_source_is_matched_by_network_and_port() {
    let source: Source = "10.0.0.0/8:5070".parse().unwrap();
    let from = |text: &str| source.contains(text.parse().unwrap());
    assert!(from("10.1.2.3:5070") && from("[::ffff:10.1.2.3]:5070"));
    assert!(!from("10.1.2.3:5060") && !from("11.0.0.1:5070"));
    let source: Source = "[2001:db8::/32]:5060".parse().unwrap();
    assert!(source.contains("[2001:db8::1]:5060".parse().unwrap()));
}

#[test]
fn a_host_and_port_is_printed_as_it_is_written() {
    for text in ["192.0.2.1:5060", "192.0.2.1", "[2001:db8::1]:5060", "[2001:db8::1]", "sip.example.com:5070"]
    {
        assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
    }
    assert_eq!("2001:db8::1".parse::<HostPort>().unwrap().port, None);
}

#[test]
fn media_ports_come_in_pairs() {
    assert_eq!(PortRange { first: 20000, last: 39999 }.pairs(), 10_000);
    assert_eq!(PortRange { first: 20000, last: 20002 }.pairs(), 1);
    assert_eq!(PortRange { first: 20000, last: 19999 }.pairs(), 0);
}
