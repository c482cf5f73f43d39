//! Two phones on a network that loses and reorders.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{Faults, Net};
use proptest::prelude::*;
use tandem_phone::{AutoAnswer, CallHandle, Command, Event};

/// Each call that was told of, and how often its end was.
fn ends(net: &Net, phone: usize, call: CallHandle) -> usize {
    let of_call = |event: &&Event| match event {
        Event::Ended { call: c, .. } | Event::Failed { call: c, .. } => *c == call,
        _ => false,
    };
    net.events[phone].iter().filter(of_call).count()
}

fn assert_every_call_ended_once(net: &Net, dialled: &[CallHandle]) {
    for call in dialled {
        assert_eq!(ends(net, 0, *call), 1, "caller's {call:?}: {:#?}\n{:#?}", net.events[0], net.sent);
    }
    for event in &net.events[1] {
        if let Event::Incoming { call, .. } = event {
            assert_eq!(ends(net, 1, *call), 1, "callee's {call:?}");
        }
    }
}

/// What the scripts do in between.
fn mischief(net: &mut Net, call: CallHandle) {
    let theirs = net.events[1].iter().rev().find_map(|event| match event {
        Event::Incoming { call, .. } => Some(*call),
        _ => None,
    });
    let theirs = theirs.unwrap_or(CallHandle(u64::MAX));
    match net.random() % 9 {
        0 => net.command(0, Command::Hold(call)),
        1 => net.command(0, Command::Retrieve(call)),
        2 => net.command(1, Command::Hold(theirs)),
        3 => net.command(1, Command::ReInvite(theirs)),
        4 => {
            net.command(0, Command::ReInvite(call));
            net.command(1, Command::ReInvite(theirs))
        }
        5 => net.command(1, Command::Hangup(theirs)),
        6 => net.command(1, Command::Answer(theirs)),
        7 => net.command(0, Command::Hangup(call)),
        _ => None,
    };
}

fn storm(seed: u64, auto: AutoAnswer) -> Net {
    let mut net = Net::pair(seed, auto);
    net.faults = Faults { loss: 20, jitter: Duration::from_millis(80) };
    let mut dialled = Vec::new();
    for _ in 0..6 {
        let call = net.dial();
        dialled.push(call);
        for _ in 0..4 {
            let pause = Duration::from_millis(net.random() % 3000);
            net.run(pause);
            mischief(&mut net, call);
        }
        net.command(0, Command::Hangup(call));
    }
    net.settle();
    assert_every_call_ended_once(&net, &dialled);
    net
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn with_a_fifth_of_all_datagrams_lost_every_call_ends_once_and_both_phones_rest(seed: u64, manual: bool) {
        let after = AutoAnswer::After { ring: Duration::from_millis(150), answer: Duration::from_millis(900) };
        storm(seed, if manual { AutoAnswer::Manual } else { after });
    }
}

#[test]
fn loss_alone_makes_nobody_break_a_rule() {
    for seed in 0..40 {
        let auto = AutoAnswer::After { ring: Duration::ZERO, answer: Duration::from_millis(500) };
        let mut net = Net::pair(seed, auto);
        net.faults.loss = 20;
        let call = net.dial();
        net.secs(30);
        net.command(0, Command::Hold(call));
        net.secs(30);
        net.command(0, Command::Hangup(call));
        net.settle();
        assert_every_call_ended_once(&net, &[call]);
        net.assert_clean();
    }
}
