//! Two phones on real sockets of 127.0.0.1.

#![cfg(feature = "driver")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tandem_media::tone::TonePreset;
use tandem_phone::driver::{DriverError, SoftPhone, SoftPhoneConfig, Tap};
use tandem_phone::media::MediaConfig;
use tandem_phone::{AutoAnswer, Command, Event, PhoneConfig};

const SOON: Duration = Duration::from_secs(30);

fn config(user: u64, server: SocketAddr, auto: AutoAnswer) -> SoftPhoneConfig {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let phone = PhoneConfig {
        user: user.to_string(),
        auth_user: None,
        password: None,
        domain: "example.test".into(),
        display: None,
        local: any,
        transport: tandem_phone::Transport::Udp,
        media: any,
        server,
        seed: user,
        expires: 60,
        auto,
        t1: Duration::from_millis(500),
        codecs: vec![0, 8],
        manners: tandem_phone::Manners::default(),
    };
    let media = MediaConfig {
        seed: user,
        says: TonePreset::Speech { seed: user },
        expects: Some(TonePreset::Speech { seed: 3 - user }),
    };
    SoftPhoneConfig { phone, media }
}

fn nowhere() -> SocketAddr {
    ([127, 0, 0, 1], 9).into()
}

async fn a_call() {
    let ladder = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&ladder);
    let tap: Tap = Box::new(move |tapped| lines.lock().unwrap().push((tapped.sent, tapped.first_line())));
    let quick = AutoAnswer::After { ring: Duration::ZERO, answer: Duration::from_millis(100) };
    let mut called = SoftPhone::start(config(2, nowhere(), quick), None).unwrap();
    let mut caller = SoftPhone::start(config(1, called.local(), AutoAnswer::Manual), Some(tap)).unwrap();

    let call = caller.dial("2").await.unwrap();
    let answered = caller.wait_for(SOON, |e| matches!(e, Event::Answered { .. })).await.unwrap();
    assert_eq!(answered, Event::Answered { call, remote_media: called.media(), codec: 0 });
    called.wait_for(SOON, |e| matches!(e, Event::Answered { .. })).await.unwrap();
    caller.listen(110, SOON).await.unwrap();
    called.listen(110, SOON).await.unwrap();
    caller.command(Command::Hangup(call)).await.unwrap();
    caller.wait_for(SOON, |e| matches!(e, Event::Ended { by_us: true, .. })).await.unwrap();
    called.wait_for(SOON, |e| matches!(e, Event::Ended { by_us: false, .. })).await.unwrap();
    for phone in [&caller, &called] {
        let heard = phone.heard().await.unwrap();
        assert_eq!(heard.recognised, Some(1.0), "{heard:?}");
        assert!(heard.level_dbm0 > -35.0 && heard.strangers == 0, "{heard:?}");
    }
    let ladder: Vec<(bool, String)> = std::mem::take(&mut *ladder.lock().unwrap());
    let mut words: Vec<(bool, &str)> = Vec::new();
    for (sent, line) in &ladder {
        let word = (*sent, line.strip_suffix(" SIP/2.0").unwrap_or(line));
        // On a busy machine messages are repeated.
        if !words.contains(&word) {
            words.push(word);
        }
    }
    assert_eq!(words[0], (true, "INVITE sip:2@example.test"));
    assert_eq!(words[1], (false, "SIP/2.0 180 Ringing"));
    assert_eq!(words[2], (false, "SIP/2.0 200 OK"));
    assert!(words[3].1.starts_with("ACK "), "{words:?}");
    caller.stop().await.unwrap();
    called.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_phones_hear_each_other_on_a_multi_thread_runtime() {
    a_call().await;
}

#[tokio::test(flavor = "current_thread")]
async fn two_phones_hear_each_other_on_a_current_thread_runtime_with_a_local_set() {
    tokio::task::LocalSet::new().run_until(a_call()).await;
}

#[tokio::test]
async fn what_does_not_come_in_time_is_an_error_that_says_what_came() {
    let quick = AutoAnswer::Reject(486);
    let called = SoftPhone::start(config(2, nowhere(), quick), None).unwrap();
    let mut caller = SoftPhone::start(config(1, called.local(), AutoAnswer::Manual), None).unwrap();
    let call = caller.dial("2").await.unwrap();
    caller.wait_for(SOON, |e| *e == Event::Failed { call, status: 486 }).await.unwrap();
    let late = caller.wait_for(Duration::from_millis(1), |_| true).await;
    assert!(matches!(late, Err(DriverError::TimedOut { .. })));
}

#[tokio::test]
async fn an_address_in_use_is_an_error() {
    let first = SoftPhone::start(config(1, nowhere(), AutoAnswer::Manual), None).unwrap();
    let mut second = config(2, nowhere(), AutoAnswer::Manual);
    second.phone.local = first.local();
    assert!(matches!(SoftPhone::start(second, None), Err(DriverError::Socket(_))));
}
