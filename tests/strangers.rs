//! What those get who are not known: nothing. They learn nothing, change nothing, hold nothing, and draw no more than they send.

// A test bounds its waits, and measures, by the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::{IpAddr, UdpSocket};
use std::process::Command as Process;
use std::time::{Duration, Instant};

use common::digest::Challenge;
use common::engine::{station, stations};
use common::phone::{assert_heard, connect, pair};
use common::ua::token;
use common::{Engine, Leg, Msg, SOON, Ua, eventually, sdp, so};
use tandem_phone::Command;

/// One guess at a password by REGISTER.
#[track_caller]
fn guess(engine: &Engine, from: IpAddr, user: &str, password: &str) -> Msg {
    let mut ua = Ua::at(engine, user, from);
    ua.password = password.to_owned();
    ua.register(&[], "Expires: 600\r\n")
}

fn throttled(engine: &Engine) -> f64 {
    engine.metric("tandem_auth_throttled_total", &[])
}

fn failures(engine: &Engine) -> f64 {
    engine.metric("tandem_auth_failures_total", &[])
}

#[test]
fn guessing_is_slowed_for_that_user_at_that_source_and_for_nobody_else() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (here, there) = (IpAddr::from(engine.peer()), IpAddr::from(engine.stranger()));
    // The sixth failure costs four seconds.
    eventually("six judged guesses", || {
        assert_eq!(guess(&engine, here, "1001", "guess").status(), Some(401));
        so(failures(&engine) >= 6.0)
    });
    let before = throttled(&engine);
    let right = guess(&engine, here, "1001", "secret-1001");
    assert_eq!(right.status(), Some(401), "the right password too, while it lasts");
    assert!(!Challenge::parse(right.header("WWW-Authenticate")).stale, "as if it were wrong: {right:?}");
    engine.counts("tandem_auth_throttled_total", &[], before + 1.0);
    assert_eq!(guess(&engine, here, "1002", "secret-1002").status(), Some(200), "another user");
    assert_eq!(guess(&engine, there, "1001", "secret-1001").status(), Some(200), "another source");
    eventually("the right password is taken: no account is locked", || {
        so(guess(&engine, here, "1001", "secret-1001").status() == Some(200))
    });
}

#[test]
fn who_tries_many_users_is_slowed_and_who_is_registered_there_is_not() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (here, there) = (IpAddr::from(engine.peer()), IpAddr::from(engine.stranger()));
    let phone = Ua::new(&engine, "1001").registered();
    for user in 2_000..2_040 {
        assert_eq!(guess(&engine, here, &user.to_string(), "guess").status(), Some(401));
    }
    assert!(failures(&engine) < 30.0 && throttled(&engine) > 10.0);
    // A delay of some seconds has just begun when a guess is judged and the next one is not.
    let mut users = 2_040..;
    let mut judged = || {
        let before = failures(&engine);
        guess(&engine, here, &users.next()?.to_string(), "guess");
        Some(failures(&engine) > before)
    };
    eventually("a long delay", || so(judged()? && !judged()? && failures(&engine) >= 12.0));
    assert_eq!(guess(&engine, here, "1002", "secret-1002").status(), Some(401), "all of this source");
    assert_eq!(phone.register(&[], "Expires: 600\r\n").status(), Some(200), "but who is registered from it");
    assert_eq!(guess(&engine, there, "1002", "secret-1002").status(), Some(200), "another source");
}

#[test]
fn a_made_up_nonce_slows_nobody_and_tells_nothing() {
    let engine = Engine::start(&stations(&["1001"]));
    let (here, there) = (Ua::new(&engine, "1001"), Ua::at(&engine, "1001", engine.stranger().into()));
    // Nonces that were sent elsewhere, as one would use who forges the phone's address.
    for password in ["secret-1001", "guess", "guess", "guess", "guess", "guess"] {
        let mut leg = there.registration();
        let challenged = there.register_once(&mut leg, &[], "");
        let challenge = Challenge::parse(challenged.header("WWW-Authenticate"));
        let answer = challenge.answer("1001", password, "REGISTER", &leg.target, 1);
        let mut leg = here.registration();
        let refused = here.register_once(&mut leg, &[], &format!("Authorization: {answer}\r\n"));
        assert_eq!(refused.status(), Some(401));
        assert!(Challenge::parse(refused.header("WWW-Authenticate")).stale, "{password}: {refused:?}");
    }
    assert_eq!((failures(&engine), throttled(&engine)), (0.0, 0.0));
    let _registered = here.registered();
}

/// A message with all that differs from one request to the next taken out.
fn shape(message: &Msg, user: &str) -> String {
    let changing = ["Via:", "From:", "Call-ID:"];
    let lines = message.text.lines().filter(|line| !changing.iter().any(|name| line.starts_with(name)));
    let plain = lines.map(|line| {
        let line = line.split(";tag=").next().unwrap().replace(user, "USER");
        match line.split_once("nonce=\"") {
            Some((before, after)) => format!("{before}{}", after.split_once('"').unwrap().1),
            None => line,
        }
    });
    plain.collect::<Vec<_>>().join("\n")
}

/// What a stranger gets to a request, and then to a guess.
#[track_caller]
fn answers(engine: &Engine, user: &str, method: &str) -> Vec<String> {
    let ua = Ua::at(engine, user, engine.stranger().into());
    let body = if method == "INVITE" { sdp(ua.local(), "0") } else { String::new() };
    let mut leg = ua.leg(user);
    ua.next(&mut leg, method, "", &body);
    let first = ua.final_response(method);
    let mut shapes = vec![shape(&first, user)];
    if first.status() == Some(401) {
        let challenge = Challenge::parse(first.header("WWW-Authenticate"));
        let guess = challenge.answer(user, "guess", method, &leg.target, 1);
        ua.next(&mut leg, method, &format!("Authorization: {guess}\r\n"), &body);
        shapes.push(shape(&ua.final_response(method), user));
    }
    shapes
}

#[test]
fn no_answer_tells_which_users_exist() {
    let md5 = common::digest::hash("MD5", "1003:tandem:secret-1003");
    let hashed = format!("[[station]]\nname = \"1003\"\nextension = \"1003\"\nha1_md5 = \"{md5}\"\n");
    let named = "[[station]]\nname = \"desk\"\nextension = \"1004\"\npassword = \"secret\"\n";
    let engine = Engine::start(&(stations(&["1001"]) + &hashed + named));
    for method in ["INVITE", "REGISTER", "SUBSCRIBE", "MESSAGE", "BYE", "OPTIONS", "GUESS", "CANCEL"] {
        let unknown = answers(&engine, "1999", method);
        for user in ["1001", "1003", "1004", "desk"] {
            assert_eq!(answers(&engine, user, method), unknown, "{method} {user}");
        }
    }
}

/// How long the answer to a guess takes, from a source that has not guessed before.
fn time_of_a_guess(engine: &Engine, user: &str, round: u8, source: u8) -> Duration {
    let ua = Ua::at(engine, user, IpAddr::from([127, 250, round, source]));
    let mut leg = ua.registration();
    let challenged = ua.register_once(&mut leg, &[], "");
    let challenge = Challenge::parse(challenged.header("WWW-Authenticate"));
    let answer = challenge.answer(user, "guess", "REGISTER", &leg.target, 1);
    let begin = Instant::now();
    assert_eq!(ua.register_once(&mut leg, &[], &format!("Authorization: {answer}\r\n")).status(), Some(401));
    begin.elapsed()
}

#[test]
fn no_time_tells_which_users_exist() {
    let md5 = common::digest::hash("MD5", "2000:tandem:secret");
    let hashed = format!("[[station]]\nname = \"2000\"\nextension = \"2000\"\nha1_md5 = \"{md5}\"\n");
    let names: Vec<String> = (1_000..1_300).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let engine = Engine::start(&("[node]\nshards = 1\n".to_owned() + &stations(&names) + &hashed));
    let users = ["1000", "1299", "2000", "3000", "nobody"];
    // Another program that takes the processor only makes an answer later, so the least of many times is the engine's own.
    let mut times = users.map(|_| Duration::MAX);
    for round in 0..16 {
        for source in 1..=100 {
            for (user, least) in users.iter().zip(&mut times) {
                *least = time_of_a_guess(&engine, user, round, source).min(*least);
            }
        }
        if times.iter().max().unwrap() < &(*times.iter().min().unwrap() * 21 / 20) {
            return;
        }
    }
    panic!("{users:?} take {times:?}");
}

#[test]
fn no_message_names_the_program_or_its_version() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let mut leg = a.call("1002", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    b.respond(&invite, "200 OK", "b", "", &sdp(b.local(), "0"));
    let answer = a.established(&mut leg);
    let mut other = a.leg("1002");
    a.next(&mut other, "OPTIONS", "", "");
    let options = a.response("OPTIONS", 200);
    a.next(&mut other, "MESSAGE", "", "");
    let challenge = a.response("MESSAGE", 401);
    for message in [invite, answer, options, challenge] {
        for header in ["Server", "User-Agent", "Organization"] {
            assert!(message.headers(header).is_empty(), "{message:?}");
        }
        assert!(!message.text.contains(env!("CARGO_PKG_VERSION")), "{message:?}");
    }
}

#[test]
fn a_recorded_register_or_invite_gains_nothing() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001");
    let mut leg = ua.call("*43", &sdp(ua.local(), "0"));
    ua.established(&mut leg);
    let thief = Ua::at(&engine, "1001", engine.stranger().into());
    for (from, who) in [(&ua, "from the same place"), (&thief, "from elsewhere")] {
        let again = leg.invite.replacen(&leg.branch, &format!("z9hG4bK{}", token()), 1);
        from.send(again.replacen(&leg.call_id, &format!("{}@again", token()), 1));
        let answer = from.final_response("INVITE");
        assert_eq!(answer.status(), Some(401), "{who}: {answer:?}");
    }
    assert_eq!(engine.calls().len(), 1);
    ua.hang_up(&mut leg);

    let mut register = ua.registration();
    let challenged = ua.register_once(&mut register, &[], "");
    let challenge = Challenge::parse(challenged.header("WWW-Authenticate"));
    let answer = challenge.answer("1001", &ua.password, "REGISTER", &register.target, 1);
    let authorization = format!("Authorization: {answer}\r\nExpires: 600\r\n");
    assert_eq!(ua.register_once(&mut register, &[], &authorization).status(), Some(200));
    let away = "<sip:1001@192.0.2.66>";
    for from in [&ua, &thief] {
        assert_eq!(from.register_once(&mut register, &[away], &authorization).status(), Some(401));
    }
    engine.counts("tandem_registrations_active", &[], 1.0);
}

#[test]
fn credentials_for_one_number_do_not_dial_another() {
    let engine = Engine::start(&stations(&["1001"]));
    let ua = Ua::new(&engine, "1001");
    let mut leg = ua.leg("*44");
    ua.next(&mut leg, "INVITE", "", &sdp(ua.local(), "0"));
    let challenge = Challenge::parse(ua.response("INVITE", 401).header("WWW-Authenticate"));
    let signed = format!("sip:*43@{}", engine.sip.ip());
    let answer = challenge.answer("1001", &ua.password, "INVITE", &signed, 1);
    ua.next(&mut leg, "INVITE", &format!("Authorization: {answer}\r\n"), &sdp(ua.local(), "0"));
    let refused = ua.final_response("INVITE");
    assert!(refused.first_line().starts_with("SIP/2.0 400 Digest URI"), "{refused:?}");
    assert!(engine.calls().is_empty());
}

#[test]
fn a_forged_bye_or_cancel_ends_no_call() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let thief = Ua::at(&engine, "1001", engine.stranger().into());
    let mut leg = a.call("1002", &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    b.respond(&invite, "180 Ringing", "b", "", "");
    a.response("INVITE", 180);
    // Every word of the real CANCEL, from elsewhere; and from the right place with all but one.
    let cancel = a.text(&leg, "CANCEL", &leg.invite_uri, &leg.branch, "", "");
    thief.send(&cancel);
    assert_eq!(thief.final_response("CANCEL").status(), Some(481));
    a.send(cancel.replacen(&leg.call_id, "guessed", 1));
    assert_eq!(a.final_response("CANCEL").status(), Some(481));
    b.respond(&invite, "200 OK", "b", "", &sdp(b.local(), "0"));
    a.established(&mut leg);
    b.request("ACK");
    // All that crosses the caller's network is known to the thief, but for one tag.
    for guessed in ["", ";tag=guess", &format!(";tag=t{}", "0".repeat(22))] {
        let mut bye = leg.clone();
        bye.cseq += 10;
        bye.remote = leg.remote.split(";tag=").next().unwrap().to_owned() + guessed;
        thief.next(&mut bye, "BYE", "", "");
        let status = thief.final_response("BYE").status();
        assert!(matches!(status, Some(401 | 481)), "{guessed}: {status:?}");
    }
    let mut bye = leg.clone();
    bye.cseq += 10;
    bye.local = leg.local.replace(";tag=", ";tag=x");
    thief.next(&mut bye, "BYE", "", "");
    assert_eq!(thief.final_response("BYE").status(), Some(481));
    assert_eq!(engine.calls().len(), 1);
    a.hang_up(&mut leg);
    let bye = b.request("BYE");
    b.respond(&bye, "200 OK", "", "", "");
    engine.cdr("normal", 200, "caller");
}

#[test]
fn nobody_calls_in_another_s_name() {
    let trunk = "[[trunk]]\nname = \"carrier\"\nproxies = [\"{peer}:5090\"]\n";
    let engine = Engine::start(&(stations(&["1001", "1002"]) + trunk));
    // A station with its own password, but another's From.
    let mut thief = Ua::new(&engine, "1001");
    thief.password = "secret-1002".to_owned();
    let leg = thief.call("*43", &sdp(thief.local(), "0"));
    assert_eq!(thief.refused(&leg).status(), Some(401));
    let mut leg = thief.leg("*43");
    thief.next(&mut leg, "INVITE", "", &sdp(thief.local(), "0"));
    let challenge = thief.response("INVITE", 401);
    thief.ack(&leg, &challenge);
    let challenge = Challenge::parse(challenge.header("WWW-Authenticate"));
    let answer = challenge.answer("1002", "secret-1002", "INVITE", &leg.target, 1);
    thief.next(&mut leg, "INVITE", &format!("Authorization: {answer}\r\n"), &sdp(thief.local(), "0"));
    assert_eq!(thief.refused(&leg).status(), Some(401), "1002 is not 1001");
    // A carrier's network is trusted with its own callers only.
    let carrier = Ua::on(&engine, "1001", (engine.peer(), 5090).into());
    let mut leg = carrier.leg("*43");
    carrier.next(&mut leg, "INVITE", "", &sdp(carrier.local(), "0"));
    assert_eq!(carrier.refused(&leg).status(), Some(401));
    assert!(engine.calls().is_empty() && engine.cdrs().is_empty());
}

#[test]
fn a_callee_sees_nothing_that_proves_its_caller() {
    let engine = Engine::start(&stations(&["1001", "1002"]));
    let (a, b) = (Ua::new(&engine, "1001"), Ua::new(&engine, "1002").registered());
    let further = "Proxy-Authorization: Digest username=\"1001\", realm=\"x\", nonce=\"n\", uri=\"sip:x\", response=\"r\"\r\n";
    let mut leg = a.call_with("1002", further, &sdp(a.local(), "0"));
    let invite = b.request("INVITE");
    for header in ["Authorization", "Proxy-Authorization"] {
        assert!(invite.headers(header).is_empty(), "{invite:?}");
    }
    assert!(!invite.text.contains(&leg.call_id), "nor the names of his call: {invite:?}");
    let mut other = b.answer(&invite, &sdp(b.local(), "0"));
    a.established(&mut leg);
    // A challenge to what the engine asks of the callee in the call: the caller never hears of it.
    a.next(&mut leg, "INVITE", "", &sdp(a.local(), "0"));
    let again = b.request("INVITE");
    b.respond(
        &again,
        "401 Unauthorized",
        "",
        "WWW-Authenticate: Digest realm=\"tandem\", nonce=\"n\"\r\n",
        "",
    );
    let refused = a.final_response("INVITE");
    assert_eq!((refused.status(), refused.headers("WWW-Authenticate").len()), (Some(403), 0), "{refused:?}");
    a.ack(&leg, &refused);
    b.hang_up(&mut other);
}

#[test]
fn no_header_is_smuggled_through_a_call() {
    let trunk = "[[trunk]]\nname = \"carrier\"\nproxies = [\"{peer}:5090\"]\n";
    let engine = Engine::start(&(stations(&["1002"]) + trunk));
    let evil = Ua::new(&engine, "1002");
    let contact = format!("<sip:1002@{};x=%0d%0aX-Evil:%20yes>", evil.local());
    assert_eq!(evil.register(&[&contact], "Expires: 600\r\n").status(), Some(200));
    let a = Ua::on(&engine, "4930123", (engine.peer(), 5090).into());
    for from in [
        "\"Eve\\\"; tag=evil <sip:evil@evil>\" <sip:4930@{ip}>",
        "\"Eve\r\n X-Evil: yes\" <sip:4930@{ip}>",
        "<sip:49%0d%0aX-Evil%3a%20yes@{ip}>",
        "<sip:49%22%3e%3btag=evil@{ip}>",
        "\"%0d%0aX-Evil: yes\" <sip:4930@{ip}>",
    ] {
        let mut leg: Leg = a.leg("1002");
        leg.local = format!("{};tag={}", from.replace("{ip}", &engine.sip.ip().to_string()), token());
        a.next(&mut leg, "INVITE", "Subject: a\r\n", &sdp(a.local(), "0"));
        let invite = evil.request("INVITE");
        assert!(invite.headers("X-Evil").is_empty(), "{invite:?}");
        let sent = invite.header("From");
        assert_eq!(sent.matches(";tag=t").count(), 1, "our tag alone: {sent}");
        let after = sent.rsplit_once('>').unwrap().1;
        assert!(after.starts_with(";tag=t") && !after[1..].contains(';'), "{sent}");
        assert_eq!(invite.text.matches("\r\n\r\n").count(), 1, "one body: {invite:?}");
        evil.respond(&invite, "486 Busy Here", "e", "", "");
        assert_eq!(a.refused(&leg).status(), Some(486));
    }
}

/// The bytes of IPv4 and UDP around a datagram.
const AROUND: usize = 28;

#[test]
fn a_small_request_draws_one_small_answer() {
    let engine = Engine::start(
        &("[node]\ndigest_algorithms = [\"SHA-256\", \"MD5\"]\n".to_owned() + &stations(&["1001"])),
    );
    let ua = Ua::at(&engine, "x", engine.stranger().into());
    let (ip, mut worst) = (engine.sip.ip(), Vec::new());
    let mut measure = |what: String, request: String| {
        ua.send(&request);
        let answer = ua.receive(SOON).unwrap_or_else(|| panic!("no answer to {request}"));
        let ratio = (answer.text.len() + AROUND) as f64 / (request.len() + AROUND) as f64;
        worst.push((ratio, request.len(), what, answer.first_line().to_owned()));
    };
    for method in ["OPTIONS", "REGISTER", "INVITE", "SUBSCRIBE", "MESSAGE", "BYE", "CANCEL", "GUESS", "REFER"]
    {
        // As short as can be, in the compact form; and with more and more that is not repeated.
        for more in [0, 50, 100, 200, 400] {
            let name = token();
            let request = format!(
                "{method} sip:a SIP/2.0\r\nv:SIP/2.0/UDP a;rport;branch=z9hG4bK{name}\r\nf:sip:a@{ip};tag=1\r\nt:sip:a\r\n\
                 i:{name}\r\nCSeq:1 {method}\r\ns:{}\r\n\r\n",
                "x".repeat(more)
            );
            measure(format!("{method} and {more}"), request);
        }
    }
    let malformed = format!(
        "OPTIONS sip:a SIP/2.0\r\nv:SIP/2.0/UDP a;rport;branch=z9hG4bKx\r\nf:sip:a@{ip};tag=1\r\nt:sip:a\r\ni:1\r\nCSeq:x\r\n\r\n"
    );
    measure("malformed".into(), malformed);
    let mut leg = ua.leg("1001");
    leg.cseq = 1;
    let usual = ua.text(&leg, "REGISTER", &leg.target, "z9hG4bKusual", "User-Agent: phone\r\n", "");
    measure("usual".into(), usual);
    worst.sort_by(|a, b| b.0.total_cmp(&a.0));
    let usual = worst.iter().find(|(_, length, ..)| *length >= 250).unwrap();
    assert!(usual.0 <= 1.5, "{usual:?}");
    // What every response must repeat, a To tag, and where the request came from make up to a hundred bytes more: of the shortest request
    // that there is, two thirds.
    assert!(worst[0].0 <= 1.7, "{:?}", worst[0]);
    // Nothing is sent again: a final answer of a transaction would be after 500 ms.
    assert_eq!(ua.receive(Duration::from_millis(1_200)), None);
    engine.counts("tandem_transactions_active", &[], 0.0);
}

#[test]
fn a_flood_holds_nothing_and_a_call_goes_on() {
    let engine = Engine::start(&("[node]\nsip_trace_mb = 0\n".to_owned() + &stations(&["1001", "1002"])));
    let (mut a, mut b) = pair(&engine, "1001", "1002");
    let (call, _) = connect(&mut a, &mut b);
    a.listen(25);
    let held = engine.metric("tandem_transactions_active", &[]);
    let before = engine.resident_kb();
    let flood = UdpSocket::bind((engine.stranger(), 0)).unwrap();
    let ua = Ua::at(&engine, "1001", engine.stranger().into());
    for round in 0..1_500 {
        for method in ["SUBSCRIBE", "REGISTER", "OPTIONS", "INVITE"] {
            let mut leg = ua.leg(&format!("{round}"));
            leg.cseq = 1;
            let body = if method == "INVITE" { sdp(ua.local(), "0") } else { String::new() };
            let user = format!("sip:{round}@{}", engine.sip.ip());
            leg.local = format!("<{user}>;tag=1");
            flood
                .send_to(ua.text(&leg, method, &leg.target, &token(), "", &body).as_bytes(), engine.sip)
                .unwrap();
        }
        if round % 100 == 0 {
            // Lets the engine have its share of a machine with few cores.
            engine.reaches(
                "tandem_sip_messages_total",
                &[("direction", "in"), ("method", "OPTIONS")],
                f64::from(round) * 0.1,
            );
        }
    }
    let now = engine.metric("tandem_transactions_active", &[]);
    assert!(now <= held + 4.0, "{now} transactions, {held} before");
    let grown = engine.resident_kb().saturating_sub(before);
    assert!(grown < 12_000, "{grown} kB");
    a.listen(155);
    b.listen(155);
    a.command(Command::Hangup(call));
    assert_eq!((a.ended(), b.ended()), ((true, Some(200)), (false, None)));
    for heard in [a.heard(), b.heard()] {
        assert_heard(&heard);
    }
    engine.quiet();
}

/// The addresses that fail2ban finds in a log with the filter of this repository.
fn fail2ban(log: &std::path::Path) -> Vec<String> {
    let filter = concat!(env!("CARGO_MANIFEST_DIR"), "/config/fail2ban/filter.d/tandem.conf");
    let output = Process::new("fail2ban-regex").args(["--out", "ip"]).arg(log).arg(filter).output();
    let output = output.expect("fail2ban-regex: ./tests/run packages installs it");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn fail2ban_finds_who_guesses_and_nobody_else() {
    for format in ["text", "json"] {
        let engine = Engine::start_with(&station("1001", ""), &[("TANDEM_LOG_FORMAT", format)]);
        let _phone = Ua::new(&engine, "1001").registered();
        let thief = IpAddr::from(engine.stranger());
        // Names that would write another's address into the log.
        let others = [
            "x peer=203.0.113.9:5060",
            "\", \"peer\":\"203.0.113.9:5060",
            "a\" WARN tandem::security: authentication failed peer=203.0.113.9:1 method=",
        ];
        for user in others {
            let ua = Ua::at(&engine, "1001", thief);
            let mut leg = ua.registration();
            let challenged = ua.register_once(&mut leg, &[], "");
            let challenge = Challenge::parse(challenged.header("WWW-Authenticate"));
            let answer = challenge.answer(&user.replace('"', "\\\""), "guess", "REGISTER", &leg.target, 1);
            assert_eq!(
                ua.register_once(&mut leg, &[], &format!("Authorization: {answer}\r\n")).status(),
                Some(401)
            );
        }
        assert_eq!(guess(&engine, thief, "1001", "guess").status(), Some(401));
        eventually("four lines", || so(engine.log().matches("authentication failed").count() >= 4));
        let found = fail2ban(&engine.dir().join("log"));
        assert_eq!(found, vec![thief.to_string(); 4], "{format}\n{}", engine.log());
    }
}
