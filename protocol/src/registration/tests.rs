use proptest::prelude::*;

use super::*;
use crate::digest::{Algorithm, Credentials, Secret, www_authenticate};
use crate::time::UnixMillis;
use std::net::SocketAddr;

fn at(seconds: u64) -> Now {
    Now { mono: Instant(seconds * 1_000_000), wall: UnixMillis(seconds * 1_000) }
}

fn server(place: u8) -> SocketAddr {
    ([192, 0, 2, place], 5060).into()
}

fn with_servers(servers: &[SocketAddr]) -> Registration {
    let mut reg = Registration::new(RegistrationSettings::new("sip:registrar", "trunk", "pw"), 100);
    assert!(reg.handle(at(0), Input::Servers(servers.to_vec()), 0).is_empty());
    reg
}

fn registration() -> Registration {
    with_servers(&[server(1)])
}

const START: Input = Input::Start { within: Duration::ZERO };

/// A response to the last REGISTER.
fn answer(reg: &mut Registration, now: Now, response: Response, random: u64) -> Vec<Output> {
    let cseq = reg.kept().cseq;
    reg.handle(now, Input::Response(Response { cseq, ..response }), random)
}

fn silence(reg: &mut Registration, now: Now) -> Vec<Output> {
    let cseq = reg.kept().cseq;
    reg.handle(now, Input::NoResponse { cseq }, 0)
}

fn response(status: u16) -> Response {
    Response { status, ..Response::default() }
}

/// When a refresh is due that was to be so long after this second.
fn roughly(seconds: u64, wait: Duration) -> Instant {
    at(seconds).mono.roughly_after(wait)
}

fn granted(expires: u32) -> Response {
    Response { expires: Some(expires), ..response(200) }
}

fn challenge(status: u16, nonce: &str, stale: bool) -> Response {
    let challenges = vec![www_authenticate("r", nonce, Algorithm::Sha256, stale)];
    Response { challenges, ..response(status) }
}

fn request(outputs: Vec<Output>) -> Request {
    match <[Output; 1]>::try_from(outputs) {
        Ok([Output::Send(request)]) => *request,
        other => panic!("{other:?}"),
    }
}

/// (CSeq, interval, credentials of the registrar, credentials of the proxy) of the only output.
fn sent(outputs: Vec<Output>) -> (u32, u32, Option<Credentials<'static>>, Option<Credentials<'static>>) {
    let read = |value: Option<String>| value.map(|v| Credentials::parse(v.leak()).unwrap());
    let request = request(outputs);
    (request.cseq, request.expires, read(request.authorization), read(request.proxy_authorization))
}

fn down(cause: DownCause) -> Vec<Output> {
    vec![Output::Down { cause }]
}

#[test]
fn a_registration_answers_its_challenge_and_refreshes_with_the_same_nonce() {
    let mut reg = registration();
    let (cseq, expires, none, _) = sent(reg.handle(at(0), START, 1));
    assert_eq!((cseq, expires, none), (100, 3_600, None));
    assert!(reg.handle(at(0), START, 1).is_empty(), "one REGISTER at a time");
    assert!(answer(&mut reg, at(0), response(100), 1).is_empty());
    let (cseq, _, credentials, _) = sent(answer(&mut reg, at(0), challenge(401, "n1", false), 2));
    let credentials = credentials.unwrap();
    assert_eq!((cseq, credentials.nonce_count(), reg.state()), (101, 1, State::Challenged));
    assert!(credentials.verify("REGISTER", None, &Secret::Password("pw".into())));
    assert_eq!(answer(&mut reg, at(0), granted(1_000), 3), [Output::Up { expires: 1_000 }]);
    assert_eq!(
        (reg.state(), reg.deadline()),
        (State::Registered, Some(roughly(0, Duration::from_micros(900_000_000 - 3))))
    );
    assert!(reg.handle_timeout(at(899), 4).is_empty());
    let (cseq, _, credentials, _) = sent(reg.handle_timeout(at(901), 4));
    assert_eq!((cseq, credentials.unwrap().nonce_count()), (102, 2));
}

#[test]
fn a_stale_nonce_is_renewed_and_a_wrong_password_is_not_repeated() {
    let mut reg = registration();
    reg.handle(at(0), START, 1);
    answer(&mut reg, at(0), challenge(401, "n1", false), 1);
    answer(&mut reg, at(0), challenge(401, "n2", true), 1);
    assert_eq!(reg.state(), State::Challenged);
    assert_eq!(answer(&mut reg, at(0), challenge(401, "n3", false), 0), down(DownCause::Rejected));
    assert_eq!((reg.state(), reg.deadline()), (State::Failed, Some(at(900).mono)), "half an hour, halved");
    let (_, _, none, _) = sent(reg.handle_timeout(at(900), 1));
    assert_eq!(none, None, "what was refused is not sent again");
}

#[test]
fn a_registrar_that_is_always_stale_is_given_up() {
    let mut reg = registration();
    reg.handle(at(0), START, 1);
    let mut tries = 0;
    while reg.state() != State::Failed {
        tries += 1;
        answer(&mut reg, at(0), challenge(401, &format!("n{tries}"), true), 1);
    }
    assert_eq!(tries, 4);
}

#[test]
fn proxy_and_registrar_may_both_challenge() {
    let mut reg = registration();
    reg.handle(at(0), START, 1);
    let (_, _, none, proxy) = sent(answer(&mut reg, at(0), challenge(407, "p", false), 1));
    assert_eq!((none, proxy.unwrap().nonce_count()), (None, 1));
    let (_, _, own, proxy) = sent(answer(&mut reg, at(0), challenge(401, "r", false), 1));
    assert_eq!((&*own.unwrap().nonce, proxy.unwrap().nonce_count()), ("r", 2));
}

#[test]
fn what_cannot_be_answered_is_told() {
    let mut reg = registration();
    reg.handle(at(0), START, 1);
    let told = |outputs: Vec<Output>| match <[Output; 1]>::try_from(outputs) {
        Ok([Output::Down { cause }]) => cause.to_string(),
        other => panic!("{other:?}"),
    };
    let why = told(answer(&mut reg, at(0), response(401), 1));
    assert!(why.starts_with("the registrar's challenge cannot be answered: "), "{why}");
    reg.handle(at(0), START, 1);
    let integrity = vec!["Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\"".to_owned()];
    let why = told(answer(&mut reg, at(0), Response { challenges: integrity, ..response(401) }, 1));
    assert!(why.contains("qop auth-int is not supported"), "{why}");
    reg.handle(at(0), START, 1);
    assert_eq!(answer(&mut reg, at(0), response(494), 1), down(DownCause::SecurityAgreement));
    let mut anonymous = Registration::new(RegistrationSettings::new("sip:r", "", ""), 1);
    anonymous.handle(at(0), Input::Servers(vec![server(1)]), 1);
    anonymous.handle(at(0), START, 1);
    let why = told(answer(&mut anonymous, at(0), challenge(401, "n", false), 1));
    assert!(why.ends_with("there is no user name to answer with"), "{why}");
}

#[test]
fn an_interval_too_brief_is_lengthened_once() {
    let mut reg = registration();
    reg.handle(at(0), START, 1);
    let brief = |min_expires| Response { min_expires, ..response(423) };
    assert_eq!(sent(answer(&mut reg, at(0), brief(Some(7_200)), 1)).1, 7_200);
    assert_eq!(answer(&mut reg, at(0), brief(Some(7_201)), 1), down(DownCause::Status(423)));
    let mut absurd = registration();
    absurd.handle(at(0), START, 1);
    assert_eq!(answer(&mut absurd, at(0), brief(Some(u32::MAX)), 1), down(DownCause::Status(423)));
}

#[test]
fn failures_back_off_up_to_the_limit() {
    let mut reg = registration();
    let mut now = 0;
    let mut waits = Vec::new();
    let mut outputs = reg.handle(at(0), START, 0);
    for _ in 0..8 {
        sent(outputs);
        assert_eq!(silence(&mut reg, at(now)), down(DownCause::NoResponse));
        let wait = reg.deadline().unwrap().since(at(now).mono).as_secs();
        waits.push(wait);
        now += wait;
        outputs = reg.handle_timeout(at(now), 0);
    }
    assert_eq!(waits, [30, 60, 120, 240, 480, 900, 900, 900]);
    answer(&mut reg, at(now), granted(1_200), 0);
    assert_eq!(reg.deadline(), Some(roughly(now, Duration::from_secs(1_080))));
    reg.handle_timeout(at(now + 1_081), 0);
    answer(&mut reg, at(now + 1_081), response(503), 0);
    assert_eq!(reg.deadline(), Some(at(now + 1_111).mono), "a success forgets old failures");
}

#[test]
fn retry_after_lengthens_the_wait() {
    let mut reg = registration();
    reg.handle(at(0), START, 1);
    let busy = Response { status: 503, retry_after: Some(5_000), ..Response::default() };
    assert_eq!(answer(&mut reg, at(0), busy, 1), down(DownCause::Status(503)));
    assert_eq!(reg.deadline(), Some(at(5_000).mono));
    sent(reg.handle(at(1), START, 1));
}

#[test]
fn a_log_line_shows_no_password() {
    assert!(!format!("{:?}", registration()).contains("pw"));
}

#[test]
fn a_stop_unregisters_and_rests() {
    let mut reg = registration();
    reg.handle(at(0), START, 1);
    answer(&mut reg, at(0), granted(600), 1);
    let mut outputs = reg.handle(at(1), Input::Stop, 1);
    assert_eq!(outputs.remove(0), Output::Down { cause: DownCause::Stopped });
    assert_eq!(sent(outputs).1, 0);
    assert_eq!(sent(answer(&mut reg, at(1), challenge(401, "n", false), 1)).1, 0);
    assert!(answer(&mut reg, at(1), response(200), 1).is_empty());
    assert_eq!((reg.state(), reg.deadline()), (State::Idle, None));
    reg.handle(at(2), START, 1);
    assert_eq!(answer(&mut reg, at(2), granted(0), 1), down(DownCause::NothingGranted));
    assert!(reg.handle(at(2), Input::Stop, 1).is_empty());
    assert_eq!(reg.state(), State::Idle);
}

#[test]
fn the_answer_to_an_earlier_register_ends_no_later_one() {
    let mut reg = registration();
    let first = request(reg.handle(at(0), START, 1)).cseq;
    reg.handle(at(0), Input::Stop, 1);
    let late = Response { cseq: first, ..granted(600) };
    assert!(reg.handle(at(0), Input::Response(late), 1).is_empty());
    assert_eq!(reg.state(), State::Unregistering);
}

#[test]
fn the_next_server_is_asked_after_silence_or_5xx_and_the_one_that_failed_last_of_all_for_a_while() {
    let mut reg = with_servers(&[server(1), server(2), server(3)]);
    let first = request(reg.handle(at(0), START, 0));
    assert_eq!((first.to, first.others), (server(1), true));
    assert_eq!(request(silence(&mut reg, at(8))).to, server(2));
    let busy = Response { retry_after: Some(600), ..response(503) };
    let last = request(answer(&mut reg, at(8), busy, 0));
    assert_eq!((last.to, last.others), (server(3), false));
    answer(&mut reg, at(8), granted(60), 0);
    assert_eq!(reg.granted().unwrap().at.to, server(3));
    assert_eq!(request(reg.handle_timeout(at(39), 0)).to, server(3), "the others rest");
    answer(&mut reg, at(39), granted(60), 0);
    assert_eq!(request(reg.handle_timeout(at(70), 0)).to, server(1), "a minute is over");
    assert_eq!(answer(&mut reg, at(70), response(403), 0), down(DownCause::Status(403)), "for the account");
}

#[test]
fn a_refresh_that_fails_is_tried_again_before_the_binding_ends() {
    let mut reg = registration();
    reg.handle(at(0), START, 0);
    answer(&mut reg, at(0), granted(60), 0);
    reg.handle_timeout(at(31), 0);
    assert_eq!(silence(&mut reg, at(38)), down(DownCause::NoResponse));
    assert_eq!(reg.deadline(), Some(at(49).mono), "of 22 s half");
    assert!(reg.granted().is_some() && !reg.is_up());
    reg.handle_timeout(at(49), 0);
    answer(&mut reg, at(49), response(403), 0);
    assert_eq!(reg.granted(), None);
}

#[test]
fn a_registrar_without_an_address_is_asked_as_soon_as_it_has_one() {
    let mut reg = with_servers(&[]);
    assert_eq!(reg.handle(at(0), START, 0), down(DownCause::NoServer));
    assert_eq!(request(reg.handle(at(1), Input::Servers(vec![server(7)]), 0)).to, server(7));
}

#[test]
fn a_redirection_is_followed_to_an_address_and_no_circle_is() {
    let mut reg = registration();
    reg.handle(at(0), START, 0);
    answer(&mut reg, at(0), challenge(401, "n", false), 0);
    let to = |contacts: &[&str]| Response {
        contacts: contacts.iter().map(|contact| (*contact).to_owned()).collect(),
        ..response(302)
    };
    let names = ["sip:r.example", "sips:192.0.2.8", "sip:192.0.2.8;transport=tcp", "sip:192.0.2.9:5070"];
    let led = request(answer(&mut reg, at(0), to(&names), 0));
    assert_eq!((led.to, led.uri.as_str()), (([192, 0, 2, 9], 5070).into(), "sip:192.0.2.9:5070"));
    assert_eq!(led.authorization, None, "the nonce is another server's");
    let challenged = request(answer(&mut reg, at(0), challenge(401, "m", false), 0));
    let authorization = challenged.authorization.unwrap();
    let credentials = Credentials::parse(&authorization).unwrap();
    assert_eq!(credentials.uri, "sip:192.0.2.9:5070");
    assert_eq!(request(answer(&mut reg, at(0), to(&["sip:192.0.2.1"]), 0)).to, server(1));
    assert_eq!(answer(&mut reg, at(0), to(&["sip:192.0.2.9:5070"]), 0), down(DownCause::Redirected(302)));
    assert_eq!(request(reg.handle(at(60), START, 0)).uri, "sip:registrar", "the next attempt begins anew");
}

#[test]
fn redirections_have_an_end() {
    let mut reg = registration();
    reg.handle(at(0), START, 0);
    let mut followed = 0;
    while reg.state() != State::Failed {
        let contacts = vec![format!("sip:192.0.2.{}", 100 + followed)];
        answer(&mut reg, at(0), Response { contacts, ..response(302) }, 0);
        followed += 1;
    }
    assert_eq!(followed, 6);
}

#[test]
fn a_stop_goes_to_the_server_that_has_the_binding() {
    let mut reg = registration();
    reg.handle(at(0), START, 0);
    let contacts = vec!["sip:192.0.2.9".to_owned()];
    answer(&mut reg, at(0), Response { contacts, ..response(302) }, 0);
    answer(&mut reg, at(0), granted(600), 0);
    let last = request(reg.handle(at(1), Input::Stop, 0).split_off(1));
    assert_eq!((last.to, last.uri.as_str(), last.expires), (server(9), "sip:192.0.2.9", 0));
}

#[test]
fn a_binding_outlives_the_process_and_is_not_renewed_before_its_time() {
    let mut before = registration();
    before.handle(at(0), START, 0);
    let service_route = vec!["<sip:edge.example;lr>".to_owned()];
    answer(&mut before, at(0), Response { service_route: service_route.clone(), ..granted(1_000) }, 0);
    let settings = || RegistrationSettings::new("sip:registrar", "trunk", "pw");
    let mut after = Registration::resume(settings(), &before.kept(), at(100), 7);
    assert_eq!((after.state(), after.deadline()), (State::Registered, Some(at(900).mono)));
    assert_eq!(after.granted().unwrap().service_route, service_route);
    after.handle(at(100), Input::Servers(vec![server(1)]), 0);
    assert_eq!(request(after.handle_timeout(at(900), 0)).cseq, 101, "above what the process before sent");
    // Its refresh was due while nobody ran.
    let late = Registration::resume(settings(), &before.kept(), at(960), 5_000_000);
    assert_eq!(late.deadline(), Some(at(965).mono));
    let over = Registration::resume(settings(), &before.kept(), at(1_000), 0);
    assert_eq!((over.state(), over.granted()), (State::Idle, None));
}

fn inputs() -> impl Strategy<Value = Input> {
    let statuses = proptest::sample::select(vec![100_u16, 200, 302, 401, 403, 407, 423, 503]);
    prop_oneof![
        Just(START),
        Just(Input::Start { within: Duration::from_secs(5) }),
        Just(Input::Stop),
        Just(Input::FlowFailed),
        (0..4_u8, any::<bool>()).prop_map(|(place, won)| Input::Raced {
            cseq: 0,
            won: won.then(|| server(place)),
            failed: (0..place).map(server).collect(),
        }),
        Just(Input::NoResponse { cseq: 0 }),
        (0..3_u8).prop_map(|count| Input::Servers((0..count).map(server).collect())),
        (statuses, any::<u32>(), any::<bool>(), 0..3_u8).prop_map(|(status, number, stale, nonce)| {
            Input::Response(Response {
                status,
                expires: (number % 2 == 0).then_some(number),
                challenges: vec![www_authenticate("r", &format!("n{nonce}"), Algorithm::Md5, stale)],
                min_expires: Some(number),
                retry_after: Some(number),
                contacts: vec![format!("sip:192.0.2.{}", number % 5)],
                service_route: vec!["<sip:192.0.2.9;lr>".to_owned()],
                cseq: 0,
            })
        }),
    ]
}

proptest! {
    #[test]
    fn it_waits_for_a_response_or_a_deadline_and_survives_storage(
        steps in proptest::collection::vec((inputs(), any::<u64>(), any::<bool>()), 0..60),
    ) {
        let mut reg = registration();
        let mut now = at(0);
        let mut last_cseq = 99;
        for (mut input, random, wait) in steps {
            match &mut input {
                Input::Response(Response { cseq, .. })
                | Input::NoResponse { cseq }
                | Input::Raced { cseq, .. } => *cseq = last_cseq,
                Input::Start { .. } | Input::Stop | Input::Servers(_) | Input::FlowFailed => {}
            }
            let mut outputs = reg.handle(now, input, random);
            if let Some(deadline) = reg.deadline().filter(|_| wait) {
                now.mono = deadline;
                outputs.extend(reg.handle_timeout(now, random));
            }
            for output in outputs {
                if let Output::Send(request) = output {
                    prop_assert_eq!(request.cseq, last_cseq + 1);
                    last_cseq = request.cseq;
                }
            }
            let timed = matches!(reg.state(), State::Waiting | State::Registered | State::Failed);
            prop_assert_eq!(reg.deadline().is_some(), timed);
            let stored: Registration = serde_json::from_str(&serde_json::to_string(&reg).unwrap()).unwrap();
            prop_assert_eq!(&stored, &reg);
        }
    }
}

#[test]
fn the_end_of_its_flow_is_a_failure_only_of_what_is_registered() {
    let mut reg = registration();
    assert!(reg.handle(at(0), Input::FlowFailed, 0).is_empty(), "there is none yet");
    request(reg.handle(at(0), START, 0));
    assert!(reg.handle(at(0), Input::FlowFailed, 0).is_empty(), "its transaction says so");
    answer(&mut reg, at(0), granted(3_600), 0);
    let down = reg.handle(at(10), Input::FlowFailed, 0);
    assert_eq!(down, [Output::Down { cause: DownCause::FlowFailed }]);
    assert!(!reg.is_up() && reg.granted().is_some(), "to the registrar it holds");
    let again = reg.deadline().unwrap();
    assert!(again > at(10).mono && again <= at(70).mono, "by the back-off of RFC 5626: {again:?}");
    request(reg.handle_timeout(Now { mono: again, ..at(70) }, 0));
    assert_eq!(answer(&mut reg, at(71), granted(3_600), 0), [Output::Up { expires: 3_600 }]);
}

#[test]
fn what_a_process_before_has_registered_by_a_connection_is_registered_anew_soon() {
    let mut before = registration();
    request(before.handle(at(0), START, 0));
    answer(&mut before, at(0), granted(3_600), 0);
    let resumed = || {
        Registration::resume(
            RegistrationSettings::new("sip:registrar", "trunk", "pw"),
            &before.kept(),
            at(10),
            7,
        )
    };
    assert!(resumed().deadline().unwrap() > at(1_000).mono);
    let renewed = resumed().renewed_within(Duration::from_secs(2), at(10), 7);
    assert!(renewed.is_up() && renewed.deadline().unwrap() <= at(12).mono);
}

#[test]
fn addresses_that_have_raced_are_one_step_of_the_walk() {
    let mut reg = with_servers(&[server(1), server(2), server(3), server(4)]);
    assert_eq!(request(reg.handle(at(0), START, 0)).to, server(1));
    assert_eq!(reg.untried().collect::<Vec<_>>(), [server(2), server(3), server(4)]);
    let raced = |reg: &mut Registration, won, failed: &[u8]| {
        let failed = failed.iter().copied().map(server).collect();
        let cseq = reg.kept().cseq;
        assert!(reg.handle(at(0), Input::Raced { cseq, won, failed }, 0).is_empty());
    };
    raced(&mut reg, Some(server(2)), &[1]);
    assert_eq!(reg.untried().collect::<Vec<_>>(), [server(3), server(4)], "nobody is at the first");
    assert_eq!(request(answer(&mut reg, at(0), response(503), 0)).to, server(3));
    raced(&mut reg, None, &[3]);
    assert_eq!(request(silence(&mut reg, at(1))).to, server(4));
    answer(&mut reg, at(1), granted(3_600), 0);
    assert_eq!(reg.granted().map(|granted| granted.at.to), Some(server(4)));
}
