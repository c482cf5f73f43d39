//! Registrations of ours at providers, which here are raw sockets and a Kamailio.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// A test bounds its waits by the real clock.
#![allow(clippy::disallowed_methods)]

mod common;

use common::digest::hash;
use common::engine::stations;
use common::kamailio::Kamailio;
use common::ua::token;
use common::{Engine, Msg, Nsd, Ua, eventually, sdp, so};
use serde_json::Value;

/// A group of registrations at {peer}:5071 and on, each with its keys.
fn group(keys: &str, registrations: &[&str]) -> String {
    let one = |(place, more): (usize, &&str)| {
        let port = 5071 + place;
        format!("{{ address = \"{{peer}}:{port}\", username = \"office\", password = \"hush\"{more} }}")
    };
    let list: Vec<String> = registrations.iter().enumerate().map(one).collect();
    format!("[[registration_group]]\nname = \"provider\"\n{keys}\nregistrations = [{}]\n", list.join(", "))
}

/// Trunk "carrier" at {peer}:5070, whose callers may dial what the partition "inbound" has.
const TRUNK: &str = r#"
[[trunk]]
name = "carrier"
proxies = ["{peer}:5070"]
calling_search_space = "from-carrier"
[[dial_plan.partition]]
name = "inbound"
[[dial_plan.calling_search_space]]
name = "from-carrier"
partitions = ["inbound"]
[[dial_plan.pattern]]
pattern = "5550100"
partition = "inbound"
target = "station:1001"
[[dial_plan.pattern]]
pattern = "5550177"
partition = "inbound"
target = "station:1001"
[[dial_plan.pattern]]
pattern = "9.X!"
target = "trunk:carrier"
"#;

/// An engine with these settings, started when somebody listens at these ports of {peer}.
fn start<const N: usize>(toml: &str, ports: [u16; N]) -> (Engine, [Ua; N]) {
    start_with(toml, ports, &[])
}

fn start_with<const N: usize>(toml: &str, ports: [u16; N], variables: &[(&str, &str)]) -> (Engine, [Ua; N]) {
    let mut engine = Engine::prepare(toml, variables);
    let registrars = ports.map(|port| Ua::on(&engine, "registrar", (engine.peer(), port).into()));
    engine.restart();
    (engine, registrars)
}

#[track_caller]
fn grant(registrar: &Ua, register: &Msg, headers: &str) {
    // A registrar tells the binding, and may have others (RFC 3261 §10.3 step 8).
    let bound = format!("Contact: <{}>;expires=600\r\n{headers}", register.contact());
    registrar.respond(register, "200 OK", &token(), &bound, "");
}

/// The registrations of the first group.
fn registrations(engine: &Engine) -> Vec<Value> {
    let groups = engine.api("GET", "/api/v1/registration_groups");
    groups[0]["registrations"].as_array().expect("a list").clone()
}

#[track_caller]
fn becomes(engine: &Engine, place: usize, state: &str) -> Value {
    eventually(&format!("registration {place} {state}"), || {
        let one = registrations(engine)[place].clone();
        (one["state"] == state).then_some(one)
    })
}

/// A parameter of credentials.
fn param(value: &str, name: &str) -> Option<String> {
    let params = value.strip_prefix("Digest ")?.split(',');
    let mut found = params.filter_map(|param| param.trim().split_once('='));
    found.find(|(key, _)| *key == name).map(|(_, text)| text.trim_matches('"').to_owned())
}

/// Whether a REGISTER proves that its sender knows the password (RFC 7616 §3.4.1).
fn proves(register: &Msg, header: &str, nonce: &str, count: &str) -> bool {
    let value = register.header(header);
    let get = |name| param(value, name).unwrap_or_default();
    let ha1 = hash("MD5", "office:provider:hush");
    let ha2 = hash("MD5", &format!("REGISTER:{}", register.uri()));
    let expected = hash("MD5", &format!("{ha1}:{nonce}:{count}:{}:auth:{ha2}", get("cnonce")));
    (get("nonce"), get("nc"), get("uri")) == (nonce.to_owned(), count.to_owned(), register.uri().to_owned())
        && get("response") == expected
}

fn challenge(header: &str, nonce: &str, more: &str) -> String {
    format!("{header}: Digest realm=\"provider\", nonce=\"{nonce}\", algorithm=MD5, qop=\"auth\"{more}\r\n")
}

#[test]
fn challenges_of_proxy_and_registrar_are_answered_a_stale_nonce_is_renewed_and_423_is_obeyed() {
    let toml = TRUNK.to_owned() + &stations(&["1001"]) + &group("", &[""]);
    let (engine, [registrar]) = start(&toml, [5071]);
    let first = registrar.request("REGISTER");
    assert_eq!(first.uri(), format!("sip:{}", engine.peer()));
    assert_eq!(first.header("To"), format!("<sip:office@{}>", engine.peer()));
    assert!(first.contact().starts_with(&format!("sip:office@{};line=", engine.sip)), "{first:?}");
    assert!(first.headers("Authorization").is_empty());

    registrar.respond(
        &first,
        "407 Proxy Authentication Required",
        "a",
        &challenge("Proxy-Authenticate", "p", ""),
        "",
    );
    let second = registrar.request("REGISTER");
    assert!(proves(&second, "Proxy-Authorization", "p", "00000001"), "{second:?}");
    assert_eq!((second.header("Call-ID"), second.contact()), (first.header("Call-ID"), first.contact()));
    assert_eq!(second.cseq(), first.cseq() + 1);
    registrar.respond(&second, "401 Unauthorized", "a", &challenge("WWW-Authenticate", "n1", ""), "");
    let third = registrar.request("REGISTER");
    assert!(proves(&third, "Authorization", "n1", "00000001"), "{third:?}");
    assert!(proves(&third, "Proxy-Authorization", "p", "00000002"), "{third:?}");
    registrar.respond(
        &third,
        "401 Unauthorized",
        "a",
        &challenge("WWW-Authenticate", "n2", ", stale=true"),
        "",
    );
    let fourth = registrar.request("REGISTER");
    assert!(proves(&fourth, "Authorization", "n2", "00000001"), "{fourth:?}");
    assert_eq!(fourth.header("Expires"), "3600");
    registrar.respond(&fourth, "423 Interval Too Brief", "a", "Min-Expires: 7200\r\n", "");
    let fifth = registrar.request("REGISTER");
    assert_eq!(fifth.header("Expires"), "7200");
    assert!(proves(&fifth, "Authorization", "n2", "00000002"), "{fifth:?}");
    grant(&registrar, &fifth, "");

    let one = becomes(&engine, 0, "registered");
    let expires = one["expires_in_s"].as_u64().expect("seconds");
    assert!((500..=600).contains(&expires), "the binding's, not the header's: {one:#}");
    assert_eq!((&one["in_use"], &one["registered"]), (&Value::Bool(true), &Value::Bool(true)));
    engine.counts("tandem_registration_up", &[("group", "provider")], 1.0);
    engine.recorded("registration", 1);
    let shown = engine.command(&["trunks"]).output().expect("the program").stdout;
    let shown = String::from_utf8(shown).expect("text");
    let line = shown.lines().find(|line| line.starts_with("provider")).expect("a line");
    assert!(line.contains("5071*") && line.contains(" registered "), "{shown}");
    for text in
        [engine.log(), one.to_string(), engine.api("GET", "/api/v1/events?from=0&max=1000").to_string()]
    {
        assert!(!text.contains("hush"), "a password is nobody's business: {text}");
    }
}

#[test]
fn what_cannot_be_answered_is_said_and_not_tried_in_a_hurry() {
    let (engine, registrars) = start(&group("active = 3\nretry_s = 1", &["", "", ""]), [5071, 5072, 5073]);
    let causes = [
        (
            "401 Unauthorized",
            "WWW-Authenticate: Digest realm=\"provider\", nonce=\"n\", qop=\"auth-int\"\r\n",
            "the registrar's challenge cannot be answered: qop auth-int is not supported",
        ),
        (
            "401 Unauthorized",
            "WWW-Authenticate: Digest realm=\"provider\", nonce=\"n\", algorithm=SHA-512-256, qop=\"auth\"\r\n",
            "the registrar's challenge cannot be answered: algorithm SHA-512-256 is not supported",
        ),
        (
            "494 Security Agreement Required",
            "Security-Server: ipsec-3gpp;q=0.1\r\n",
            "the registrar wants a security agreement (494), which is not spoken here",
        ),
    ];
    for (place, (status, headers, cause)) in causes.into_iter().enumerate() {
        let registrar = &registrars[place];
        registrar.respond(&registrar.request("REGISTER"), status, "a", headers, "");
        assert_eq!(becomes(&engine, place, "failed")["last_cause"], cause);
    }
    engine.counts("tandem_registration_failures_total", &[("cause", "challenge")], 3.0);
    engine.counts("tandem_registration_up", &[], 0.0);
    engine.counts("tandem_sip_messages_total", &[("direction", "out"), ("method", "REGISTER")], 3.0);
}

#[test]
fn a_redirection_is_followed_and_a_circle_is_not() {
    let (engine, [first, second]) = start(&group("", &[""]), [5071, 5081]);
    // The first cannot be followed: it is a name.
    let to =
        |port: u16| format!("Contact: <sip:r.example>\r\nContact: <sip:{}:{port}>;q=0.9\r\n", engine.peer());
    let respond = |ua: &Ua, port: u16| {
        let request = ua.request("REGISTER");
        let text = redirect(&request, &to(port));
        ua.send(text);
        request
    };
    let asked = respond(&first, 5081);
    assert_eq!(asked.uri(), format!("sip:{}", engine.peer()));
    let led = respond(&second, 5071);
    assert_eq!(led.uri(), format!("sip:{}:5081", engine.peer()));
    assert_eq!(led.header("To"), asked.header("To"));
    respond(&first, 5081);
    let one = becomes(&engine, 0, "failed");
    assert_eq!(one["last_cause"], "the registrar redirects with 302 to nothing that can be followed");
    engine.counts("tandem_registration_failures_total", &[("cause", "redirect")], 1.0);
}

/// A redirection with these contacts alone.
fn redirect(request: &Msg, contacts: &str) -> String {
    let copied: String = ["Via", "From", "Call-ID", "CSeq"]
        .iter()
        .map(|name| format!("{name}: {}\r\n", request.header(name)))
        .collect();
    let to = request.header("To");
    format!("SIP/2.0 302 Moved Temporarily\r\n{copied}To: {to};tag=r\r\n{contacts}Content-Length: 0\r\n\r\n")
}

#[test]
fn the_next_registrar_is_used_while_the_preferred_one_rests_and_until_it_is_steadily_back() {
    let keys = "retry_s = 1\nreturn_after_s = 1";
    let (engine, [first, second]) = start(&group(keys, &["", ""]), [5071, 5072]);
    let refused = first.request("REGISTER");
    first.respond(&refused, "503 Service Unavailable", "a", "Retry-After: 2\r\n", "");
    grant(&second, &second.request("REGISTER"), "");
    becomes(&engine, 1, "registered");
    let began = std::time::Instant::now();
    let again = first.request("REGISTER");
    assert!(began.elapsed() > std::time::Duration::from_millis(1_500), "it asked for two seconds");
    assert_eq!(again.header("Call-ID"), refused.header("Call-ID"));
    grant(&first, &again, "");
    // Both hold until the first has proved itself; then the second is given up.
    let last = second.request("REGISTER");
    assert_eq!(last.header("Expires"), "0");
    assert_eq!(becomes(&engine, 0, "registered")["in_use"], true);
    grant(&second, &last, "");
    becomes(&engine, 1, "idle");
    engine.counts("tandem_registration_failovers_total", &[], 1.0);
    engine.counts("tandem_registration_up", &[], 1.0);
}

#[test]
fn several_hold_at_once_and_none_while_the_engine_drains() {
    let (engine, registrars) = start(&group("active = 2", &["", "", ""]), [5071, 5072, 5073]);
    let mut tokens = Vec::new();
    for registrar in &registrars[..2] {
        let register = registrar.request("REGISTER");
        tokens.push(register.contact());
        grant(registrar, &register, "");
    }
    assert_ne!(tokens[0], tokens[1], "each says by which registration a call comes");
    becomes(&engine, 0, "registered");
    becomes(&engine, 1, "registered");
    becomes(&engine, 2, "idle");
    engine.counts("tandem_registration_held", &[], 2.0);

    engine.ask("POST", "/api/v1/drain", "{\"on\": true}");
    for registrar in &registrars[..2] {
        let last = registrar.request("REGISTER");
        assert_eq!(last.header("Expires"), "0");
        grant(registrar, &last, "");
    }
    becomes(&engine, 0, "idle");
    becomes(&engine, 1, "idle");
    engine.ask("POST", "/api/v1/drain", "{\"on\": false}");
    grant(&registrars[0], &registrars[0].request("REGISTER"), "");
    becomes(&engine, 0, "registered");
}

#[test]
fn a_call_to_the_account_has_its_trunk_and_one_of_the_account_the_service_route() {
    let keys = "trunk = \"carrier\"\ncalls_from = \"anyone\"";
    let toml = TRUNK.to_owned() + &stations(&["1001"]) + &group(keys, &[""]);
    let (engine, [registrar, proxy]) = start(&toml, [5071, 5070]);
    let register = registrar.request("REGISTER");
    let routes = "Service-Route: <sip:orig@edge.example;lr>, <sip:192.0.2.99;lr>\r\n";
    grant(&registrar, &register, routes);
    becomes(&engine, 0, "registered");
    let phone = Ua::new(&engine, "1001").registered();

    // It comes from a host of the provider that nobody has told us of.
    let border = Ua::at(&engine, "5551234", engine.stranger().into());
    let mut leg = border.leg("5550100");
    leg.target = register.contact();
    border.next(&mut leg, "INVITE", "", &sdp(border.local(), "0"));
    let invite = phone.request("INVITE");
    assert!(invite.header("From").contains("sip:5551234@"), "{invite:?}");
    phone.answer(&invite, &sdp(phone.local(), "0"));
    border.established(&mut leg);
    border.next(&mut leg, "BYE", "", "");
    phone.respond(&phone.request("BYE"), "200 OK", "", "", "");
    border.response("BYE", 200);
    assert_eq!(engine.wait_cdrs(1)[0]["to"], "5550100");

    // A number in the Request-URI is meant as it is, if only the token is ours.
    let mut leg = border.leg("5550100");
    leg.target = register.contact().replace("sip:office@", "sip:5550177@");
    border.next(&mut leg, "INVITE", "", &sdp(border.local(), "0"));
    let invite = phone.request("INVITE");
    phone.respond(&invite, "486 Busy Here", "b", "", "");
    assert_eq!(border.refused(&leg).status(), Some(486));
    assert_eq!(engine.wait_cdrs(2)[1]["to"], "5550177");

    // Without it a stranger is one.
    let mut leg = border.leg("5550100");
    leg.target = format!("sip:office@{};line=t0000000000000000000000", engine.sip);
    border.next(&mut leg, "INVITE", "", &sdp(border.local(), "0"));
    assert_eq!(border.refused(&leg).status(), Some(401));

    let leg = phone.call("9555777", &sdp(phone.local(), "0"));
    let invite = proxy.request("INVITE");
    assert_eq!(invite.headers("Route").join(", "), "<sip:orig@edge.example;lr>, <sip:192.0.2.99;lr>");
    // The trunk has no credentials of its own: it answers as the account.
    proxy.respond(
        &invite,
        "407 Proxy Authentication Required",
        "a",
        &challenge("Proxy-Authenticate", "n", ""),
        "",
    );
    let invite = proxy
        .wait("INVITE with credentials", |m| m.is("INVITE") && !m.headers("Proxy-Authorization").is_empty());
    assert!(invite.header("Proxy-Authorization").contains("username=\"office\""), "{invite:?}");
    assert_eq!(invite.headers("Route").len(), 2);
    proxy.respond(&invite, "486 Busy Here", "b", "", "");
    assert_eq!(phone.refused(&leg).status(), Some(486));
}

#[test]
fn a_call_to_the_account_from_elsewhere_than_its_registrar_is_a_strangers_unless_the_trunk_takes_calls_from_there()
 {
    let toml = TRUNK.to_owned() + &stations(&["1001"]) + &group("trunk = \"carrier\"", &[""]);
    let (engine, [registrar]) = start(&toml, [5071]);
    let register = registrar.request("REGISTER");
    grant(&registrar, &register, "");
    becomes(&engine, 0, "registered");
    let phone = Ua::new(&engine, "1001").registered();
    let call = |from: &Ua| {
        let mut leg = from.leg("5550100");
        leg.target = register.contact();
        from.next(&mut leg, "INVITE", "", &sdp(from.local(), "0"));
        leg
    };
    let is_taken = |from: &Ua| {
        let leg = call(from);
        phone.respond(&phone.request("INVITE"), "486 Busy Here", &token(), "", "");
        assert_eq!(from.refused(&leg).status(), Some(486));
    };

    // Whoever has got hold of the token is nobody by it, and may not dial what the trunk's callers may.
    let thief = Ua::at(&engine, "5551234", engine.stranger().into());
    for _ in 0..2 {
        assert_eq!(thief.refused(&call(&thief)).status(), Some(401));
    }
    let told = "a call to an account of ours comes from elsewhere than its registrar";
    assert_eq!(engine.log().matches(told).count(), 1, "a flood does not fill the log");

    // A provider calls from whatever port.
    is_taken(&Ua::new(&engine, "5551234"));

    let wider = toml.replacen("proxies = ", "accept_from = [\"STRANGER\"]\nproxies = ", 1);
    engine.settle(&wider.replace("STRANGER", &engine.stranger().to_string()));
    assert_eq!(engine.ask("POST", "/api/v1/reload", "{}").status, 200);
    is_taken(&thief);
}

#[test]
fn the_number_of_an_account_is_what_the_dial_plan_is_asked_for() {
    let number = ", number = \"5550177\"";
    let toml = TRUNK.to_owned() + &stations(&["1001"]) + &group("trunk = \"carrier\"", &[number]);
    let (engine, [registrar]) = start(&toml, [5071]);
    let register = registrar.request("REGISTER");
    grant(&registrar, &register, "");
    becomes(&engine, 0, "registered");
    let phone = Ua::new(&engine, "1001").registered();
    let mut leg = registrar.leg("office");
    leg.target = register.contact();
    registrar.next(&mut leg, "INVITE", "", &sdp(registrar.local(), "0"));
    phone.respond(&phone.request("INVITE"), "486 Busy Here", "b", "", "");
    assert_eq!(registrar.refused(&leg).status(), Some(486));
    assert_eq!(engine.wait_cdrs(1)[0]["to"], "5550177");
}

#[test]
fn a_crash_leaves_us_registered_and_an_orderly_end_does_not() {
    let toml = TRUNK.to_owned() + &stations(&["1001"]) + &group("trunk = \"carrier\"", &[""]);
    let (mut engine, [registrar]) = start(&toml, [5071]);
    let register = registrar.request("REGISTER");
    grant(&registrar, &register, "");
    let before = becomes(&engine, 0, "registered");
    engine.recorded("registration", 1);

    engine.kill9();
    engine.restart();
    let after = becomes(&engine, 0, "registered");
    assert_eq!(after["since"], before["since"]);
    assert_eq!(after["expires"], before["expires"]);
    let mut leg = registrar.leg("5550100");
    leg.target = register.contact();
    registrar.next(&mut leg, "INVITE", "", &sdp(registrar.local(), "0"));
    assert_eq!(registrar.refused(&leg).status(), Some(480), "1001 is not registered, and the call was its");
    let sent = [("direction", "out"), ("method", "REGISTER")];
    assert_eq!(engine.metric("tandem_sip_messages_total", &sent), 0.0, "nothing was due");

    let pid = engine.pid().to_string();
    std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill, of procps");
    let last = registrar.request("REGISTER");
    assert_eq!((last.header("Expires"), last.contact()), ("0", register.contact()));
    assert_eq!(last.header("Call-ID"), register.header("Call-ID"));
    assert!(last.cseq() > register.cseq(), "{last:?}");
    grant(&registrar, &last, "");
    eventually("the end", || engine.ended().map(|status| assert!(status.success())));
    engine.restart();
    let anew = registrar.request("REGISTER");
    assert_eq!((anew.header("Expires"), anew.contact()), ("3600", register.contact()));
    assert!(anew.cseq() > last.cseq());
}

#[test]
fn a_registrar_is_found_by_srv_and_the_next_one_asked_when_it_is_dead() {
    let domain = "[[registration_group]]\nname = \"provider\"\n\
                  registrations = [{ domain = \"provider.test\", username = \"office\", password = \"hush\" }]\n\
                  [dns]\nservers = [\"{peer}:5353\"]\n";
    let mut engine = Engine::prepare(domain, &[]);
    let live = Ua::new(&engine, "registrar");
    let _nsd = Nsd::start(
        engine.dir(),
        engine.peer(),
        &format!("_sip._udp.provider SRV 10 0 5079 a\n_sip._udp.provider SRV 20 0 {} a", live.local().port()),
    );
    engine.restart();
    // Nobody has the port of the first: an ICMP error says so at once.
    let register = live.request("REGISTER");
    assert_eq!((register.uri(), register.header("To")), ("sip:provider.test", "<sip:office@provider.test>"));
    grant(&live, &register, "");
    assert_eq!(becomes(&engine, 0, "registered")["registrar"], live.local().to_string());
}

#[test]
fn an_actor_that_panics_goes_on_with_what_is_registered() {
    let (engine, [registrar]) = start_with(&group("", &[""]), [5071], &[("TANDEM_CHAOS", "1")]);
    grant(&registrar, &registrar.request("REGISTER"), "");
    let before = becomes(&engine, 0, "registered");
    engine.chaos("registration_group:provider", "panic_always");
    eventually("a restart", || {
        so(engine.metric("tandem_actor_restarts_total", &[("actor", "registration_group")]) > 0.0)
    });
    let after = becomes(&engine, 0, "registered");
    assert_eq!(after["since"], before["since"]);
    let sent = [("direction", "out"), ("method", "REGISTER")];
    assert_eq!(engine.metric("tandem_sip_messages_total", &sent), 1.0);
}

#[test]
fn a_registrar_of_another_make_registers_us_calls_us_and_takes_our_calls_by_its_route() {
    let account = "[[registration_group]]\nname = \"provider\"\ntrunk = \"carrier\"\nregistrations = [\
                   { address = \"{peer}:5060\", username = \"office\", password = \"hush\", expires_s = 60 }]\n";
    let mut engine = Engine::prepare(&(TRUNK.to_owned() + &stations(&["1001"]) + account), &[]);
    let kamailio = Kamailio::provider(&engine);
    engine.restart();
    let one = becomes(&engine, 0, "registered");
    assert!(one["expires_in_s"].as_u64().is_some_and(|left| (100..=120).contains(&left)), "its 423: {one:#}");
    assert_eq!(one["service_route"][0], format!("<sip:{}:5070;lr>", engine.peer()));

    let phone = Ua::new(&engine, "1001").registered();
    let mut outside = Ua::at(&engine, "5551234", engine.stranger().into());
    outside.server = kamailio.edge;
    let mut leg = outside.leg("5550100");
    outside.next(&mut leg, "INVITE", "", &sdp(outside.local(), "0"));
    phone.answer(&phone.request("INVITE"), &sdp(phone.local(), "0"));
    outside.established(&mut leg);
    outside.next(&mut leg, "BYE", "", "");
    phone.respond(&phone.request("BYE"), "200 OK", "", "", "");
    outside.response("BYE", 200);

    let leg = phone.call("9555777", &sdp(phone.local(), "0"));
    assert_eq!(phone.refused(&leg).status(), Some(486), "by the Service-Route");
    engine.ask("POST", "/api/v1/drain", "{\"on\": true}");
    becomes(&engine, 0, "idle");
    let mut leg = outside.leg("5550100");
    outside.next(&mut leg, "INVITE", "", &sdp(outside.local(), "0"));
    assert_eq!(outside.refused(&leg).status(), Some(404));
}
