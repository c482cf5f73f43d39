use proptest::prelude::*;

use super::*;
use crate::digest::{Algorithm, Credentials, Secret, www_authenticate};
use crate::time::UnixMillis;

fn at(seconds: u64) -> Now {
    Now { mono: Instant(seconds * 1_000_000), wall: UnixMillis(seconds * 1_000) }
}

fn registration() -> Registration {
    Registration::new(RegistrationSettings::new("sip:registrar", "trunk", "pw"), 100)
}

fn response(status: u16) -> Input {
    Input::Response(Response { status, ..Response::default() })
}

fn granted(expires: u32) -> Input {
    Input::Response(Response { status: 200, expires: Some(expires), ..Response::default() })
}

fn challenge(status: u16, nonce: &str, stale: bool) -> Input {
    let challenges = vec![www_authenticate("r", nonce, Algorithm::Sha256, stale)];
    Input::Response(Response { status, challenges, ..Response::default() })
}

/// (CSeq, interval, credentials of the registrar, credentials of the proxy) of the only output.
fn sent(outputs: Vec<Output>) -> (u32, u32, Option<Credentials>, Option<Credentials>) {
    let read = |value: Option<String>| value.map(|v| Credentials::parse(&v).unwrap());
    match <[Output; 1]>::try_from(outputs) {
        Ok([Output::Send { cseq, expires, authorization, proxy_authorization }]) => {
            (cseq, expires, read(authorization), read(proxy_authorization))
        }
        other => panic!("{other:?}"),
    }
}

fn down(cause: DownCause) -> Vec<Output> {
    vec![Output::Down { cause }]
}

#[test]
fn a_registration_answers_its_challenge_and_refreshes_with_the_same_nonce() {
    let mut reg = registration();
    let (cseq, expires, none, _) = sent(reg.handle(at(0), Input::Start, 1));
    assert_eq!((cseq, expires, none), (100, 3_600, None));
    assert!(reg.handle(at(0), Input::Start, 1).is_empty(), "one REGISTER at a time");
    assert!(reg.handle(at(0), response(100), 1).is_empty());
    let (cseq, _, credentials, _) = sent(reg.handle(at(0), challenge(401, "n1", false), 2));
    let credentials = credentials.unwrap();
    assert_eq!((cseq, credentials.nonce_count(), reg.state()), (101, 1, State::Challenged));
    assert!(credentials.verify("REGISTER", None, &Secret::Password("pw".into())));
    assert_eq!(reg.handle(at(0), granted(1_000), 3), [Output::Up { expires: 1_000 }]);
    assert_eq!((reg.state(), reg.deadline()), (State::Registered, Some(at(900).mono)));
    assert!(reg.handle_timeout(at(899), 4).is_empty());
    let (cseq, _, credentials, _) = sent(reg.handle_timeout(at(900), 4));
    assert_eq!((cseq, credentials.unwrap().nonce_count()), (102, 2));
}

#[test]
fn a_stale_nonce_is_renewed_and_a_wrong_password_is_not_repeated() {
    let mut reg = registration();
    reg.handle(at(0), Input::Start, 1);
    reg.handle(at(0), challenge(401, "n1", false), 1);
    reg.handle(at(0), challenge(401, "n2", true), 1);
    assert_eq!(reg.state(), State::Challenged);
    assert_eq!(reg.handle(at(0), challenge(401, "n3", false), 0), down(DownCause::Rejected));
    assert_eq!((reg.state(), reg.deadline()), (State::Failed, Some(at(900).mono)), "half an hour, halved");
    let (_, _, none, _) = sent(reg.handle_timeout(at(900), 1));
    assert_eq!(none, None, "what was refused is not sent again");
}

#[test]
fn a_registrar_that_is_always_stale_is_given_up() {
    let mut reg = registration();
    reg.handle(at(0), Input::Start, 1);
    let mut tries = 0;
    while reg.state() != State::Failed {
        tries += 1;
        reg.handle(at(0), challenge(401, &format!("n{tries}"), true), 1);
    }
    assert_eq!(tries, 4);
}

#[test]
fn proxy_and_registrar_may_both_challenge() {
    let mut reg = registration();
    reg.handle(at(0), Input::Start, 1);
    let (_, _, none, proxy) = sent(reg.handle(at(0), challenge(407, "p", false), 1));
    assert_eq!((none, proxy.unwrap().nonce_count()), (None, 1));
    let (_, _, own, proxy) = sent(reg.handle(at(0), challenge(401, "r", false), 1));
    assert_eq!((own.unwrap().nonce.as_str(), proxy.unwrap().nonce_count()), ("r", 2));
}

#[test]
fn what_cannot_be_answered_is_told() {
    let mut reg = registration();
    reg.handle(at(0), Input::Start, 1);
    assert_eq!(reg.handle(at(0), response(401), 1), down(DownCause::Unanswerable));
    let mut anonymous = Registration::new(RegistrationSettings::new("sip:r", "", ""), 1);
    anonymous.handle(at(0), Input::Start, 1);
    assert_eq!(anonymous.handle(at(0), challenge(401, "n", false), 1), down(DownCause::Unanswerable));
}

#[test]
fn an_interval_too_brief_is_lengthened_once() {
    let mut reg = registration();
    reg.handle(at(0), Input::Start, 1);
    let brief = |min| Input::Response(Response { status: 423, min_expires: min, ..Response::default() });
    assert_eq!(sent(reg.handle(at(0), brief(Some(7_200)), 1)).1, 7_200);
    assert_eq!(reg.handle(at(0), brief(Some(7_201)), 1), down(DownCause::Status(423)));
    let mut absurd = registration();
    absurd.handle(at(0), Input::Start, 1);
    assert_eq!(absurd.handle(at(0), brief(Some(u32::MAX)), 1), down(DownCause::Status(423)));
}

#[test]
fn failures_back_off_up_to_the_limit() {
    let mut reg = registration();
    let mut now = 0;
    let mut waits = Vec::new();
    let mut outputs = reg.handle(at(0), Input::Start, 0);
    for _ in 0..8 {
        sent(outputs);
        assert_eq!(reg.handle(at(now), Input::NoResponse, 0), down(DownCause::NoResponse));
        let wait = reg.deadline().unwrap().since(at(now).mono).as_secs();
        waits.push(wait);
        now += wait;
        outputs = reg.handle_timeout(at(now), 0);
    }
    assert_eq!(waits, [30, 60, 120, 240, 480, 900, 900, 900]);
    reg.handle(at(now), granted(60), 0);
    assert_eq!(reg.deadline(), Some(at(now + 30).mono));
    reg.handle_timeout(at(now + 30), 0);
    reg.handle(at(now + 30), response(503), 0);
    assert_eq!(reg.deadline(), Some(at(now + 60).mono), "a success forgets old failures");
}

#[test]
fn retry_after_lengthens_the_wait() {
    let mut reg = registration();
    reg.handle(at(0), Input::Start, 1);
    let busy = Response { status: 503, retry_after: Some(5_000), ..Response::default() };
    assert_eq!(reg.handle(at(0), Input::Response(busy), 1), down(DownCause::Status(503)));
    assert_eq!(reg.deadline(), Some(at(5_000).mono));
    sent(reg.handle(at(1), Input::Start, 1));
}

#[test]
fn a_log_line_shows_no_password() {
    assert!(!format!("{:?}", registration()).contains("pw"));
}

#[test]
fn a_stop_unregisters_and_rests() {
    let mut reg = registration();
    reg.handle(at(0), Input::Start, 1);
    reg.handle(at(0), granted(600), 1);
    let mut outputs = reg.handle(at(1), Input::Stop, 1);
    assert_eq!(outputs.remove(0), Output::Down { cause: DownCause::Stopped });
    assert_eq!(sent(outputs).1, 0);
    assert_eq!(sent(reg.handle(at(1), challenge(401, "n", false), 1)).1, 0);
    assert!(reg.handle(at(1), response(200), 1).is_empty());
    assert_eq!((reg.state(), reg.deadline()), (State::Idle, None));
    reg.handle(at(2), Input::Start, 1);
    assert_eq!(reg.handle(at(2), granted(0), 1), down(DownCause::NothingGranted));
    assert!(reg.handle(at(2), Input::Stop, 1).is_empty());
    assert_eq!(reg.state(), State::Idle);
}

fn inputs() -> impl Strategy<Value = Input> {
    let statuses = proptest::sample::select(vec![100_u16, 200, 302, 401, 403, 407, 423, 503]);
    prop_oneof![
        Just(Input::Start),
        Just(Input::Stop),
        Just(Input::NoResponse),
        (statuses, any::<u32>(), any::<bool>(), 0..3_u8).prop_map(|(status, number, stale, nonce)| {
            Input::Response(Response {
                status,
                expires: (number % 2 == 0).then_some(number),
                challenges: vec![www_authenticate("r", &format!("n{nonce}"), Algorithm::Md5, stale)],
                min_expires: Some(number),
                retry_after: Some(number),
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
        for (input, random, wait) in steps {
            let mut outputs = reg.handle(now, input, random);
            if let Some(deadline) = reg.deadline().filter(|_| wait) {
                now.mono = deadline;
                outputs.extend(reg.handle_timeout(now, random));
            }
            for output in outputs {
                if let Output::Send { cseq, .. } = output {
                    prop_assert_eq!(cseq, last_cseq + 1);
                    last_cseq = cseq;
                }
            }
            let timed = matches!(reg.state(), State::Registered | State::Failed);
            prop_assert_eq!(reg.deadline().is_some(), timed);
            let stored: Registration = serde_json::from_str(&serde_json::to_string(&reg).unwrap()).unwrap();
            prop_assert_eq!(&stored, &reg);
        }
    }
}
