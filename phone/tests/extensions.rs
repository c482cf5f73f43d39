//! Two phones back to back with reliable provisional responses, session timers and what happens to re-INVITEs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{Net, config};
use tandem_phone::{AutoAnswer, CallHandle, Command, Event, Manners, Refresher, Reliability, SessionTimers};

fn net(caller: Manners, callee: Manners) -> Net {
    let of = |index, server, manners| {
        let mut config = config(index, server, AutoAnswer::Manual);
        config.manners = manners;
        config
    };
    Net::new(1, vec![of(0, 1, caller), of(1, 0, callee)])
}

fn reliable(reliable: Reliability) -> Manners {
    Manners { reliable, ..Manners::default() }
}

fn timers(interval: u32, min_se: u32, refresher: Option<Refresher>, by_update: bool) -> Manners {
    let timer = Some(SessionTimers { interval, min_se, refresher, by_update });
    Manners { timer, ..Manners::default() }
}

/// A call that rings.
fn ring(net: &mut Net) -> (CallHandle, CallHandle) {
    let call = net.dial();
    net.secs(1);
    (call, net.incoming())
}

fn count(net: &Net, start: &str) -> usize {
    net.sent.iter().filter(|line| line.starts_with(start)).count()
}

fn complaints(net: &Net, phone: usize) -> Vec<&String> {
    let complaints = net.events[phone].iter().filter_map(|event| match event {
        Event::Protocol { what, .. } => Some(what),
        _ => None,
    });
    complaints.collect()
}

#[test]
fn a_reliable_183_is_acknowledged_and_its_answer_is_not_said_again() {
    let mut net = net(reliable(Reliability::Supported), reliable(Reliability::Supported));
    let (_, theirs) = ring(&mut net);
    net.command(1, Command::Progress(theirs));
    net.secs(1);
    assert_eq!(count(&net, "0 PRACK"), 1);
    net.command(1, Command::Answer(theirs));
    net.secs(1);
    let told = |phone: usize, early: bool| {
        net.events[phone].iter().any(|event| match event {
            Event::EarlyMedia { .. } => early,
            Event::Answered { .. } => !early,
            _ => false,
        })
    };
    assert!(told(0, true) && told(0, false) && told(1, true) && told(1, false));
    net.assert_clean();
}

#[test]
fn the_answer_waits_for_the_prack_of_what_has_a_description() {
    let mut net = net(reliable(Reliability::Supported), reliable(Reliability::Supported));
    let (_, theirs) = ring(&mut net);
    net.drop = |line| line.starts_with("PRACK");
    net.command(1, Command::Progress(theirs));
    net.command(1, Command::Answer(theirs));
    net.secs(3);
    assert_eq!(count(&net, "1 SIP/2.0 200"), 0);
    assert!(count(&net, "1 SIP/2.0 183") >= 3);
    net.drop = |_| false;
    net.secs(5);
    assert_eq!(count(&net, "1 SIP/2.0 200"), 2);
    net.assert_clean();
}

#[test]
fn a_caller_that_requires_reliability_gets_nothing_else_and_an_offer_if_it_asks() {
    let mut net = net(reliable(Reliability::Required), reliable(Reliability::Supported));
    net.command(0, Command::DialWithoutOffer { number: "1001".into() });
    net.secs(1);
    assert_eq!(count(&net, "0 PRACK"), 1);
    let theirs = net.incoming();
    net.command(1, Command::Answer(theirs));
    net.secs(1);
    assert!(net.events[1].iter().any(|event| matches!(event, Event::Answered { .. })));
    net.assert_clean();
}

#[test]
fn a_callee_that_requires_reliability_refuses_whoever_has_none() {
    let mut net = net(reliable(Reliability::None), reliable(Reliability::Required));
    net.dial();
    net.secs(1);
    assert!(net.events[0].iter().any(|event| matches!(event, Event::Failed { status: 421, .. })));
}

#[test]
fn a_prack_that_offers_is_answered_and_an_update_follows() {
    let offers = Manners { offers_in_prack: true, ..reliable(Reliability::Supported) };
    let mut net = net(offers, reliable(Reliability::Supported));
    let (ours, theirs) = ring(&mut net);
    net.command(1, Command::Progress(theirs));
    net.secs(1);
    net.command(0, Command::Update(ours));
    net.secs(1);
    net.command(1, Command::Update(theirs));
    net.secs(1);
    assert_eq!((count(&net, "0 UPDATE"), count(&net, "1 UPDATE")), (1, 1));
    assert_eq!(count(&net, "0 SIP/2.0 200") + count(&net, "1 SIP/2.0 200"), 3);
    net.assert_clean();
}

#[test]
fn a_reliable_response_that_nobody_acknowledges_ends_the_call() {
    let mut net = net(reliable(Reliability::Supported), reliable(Reliability::Supported));
    let (_, theirs) = ring(&mut net);
    net.drop = |line| line.starts_with("PRACK");
    net.command(1, Command::Progress(theirs));
    net.secs(40);
    assert!(net.events[0].iter().any(|event| matches!(event, Event::Failed { status: 504, .. })));
    assert!(complaints(&net, 1).iter().any(|what| what.starts_with("PRACK missing")));
}

#[test]
fn whoever_refreshes_keeps_the_call_up_by_update_and_by_re_invite() {
    for (refresher, by_update) in
        [(Refresher::Uac, true), (Refresher::Uac, false), (Refresher::Uas, true), (Refresher::Uas, false)]
    {
        let manners = timers(90, 90, Some(refresher), by_update);
        let mut net = net(manners, manners);
        let (_, theirs) = ring(&mut net);
        net.command(1, Command::Answer(theirs));
        net.secs(300);
        let who = if refresher == Refresher::Uac { 0 } else { 1 };
        let first = if who == 0 && !by_update { 1 } else { 0 };
        let method = if by_update { "UPDATE" } else { "INVITE" };
        assert!(count(&net, &format!("{who} {method}")) - first >= 5, "{:?}", net.sent);
        net.assert_clean();
    }
}

#[test]
fn a_session_that_nobody_refreshes_is_ended_by_the_other_end() {
    let manners = timers(90, 90, Some(Refresher::Uac), true);
    let mut net = net(manners, manners);
    let (ours, theirs) = ring(&mut net);
    net.command(1, Command::Answer(theirs));
    net.secs(1);
    net.command(0, Command::Neglect(ours));
    net.secs(100);
    assert_eq!(count(&net, "1 BYE"), 1);
    assert!(complaints(&net, 1).iter().any(|what| what.contains("not refreshed")));
}

#[test]
fn an_interval_that_is_too_small_is_raised() {
    let mut net = net(timers(90, 90, None, true), timers(600, 240, None, true));
    let (_, theirs) = ring(&mut net);
    assert_eq!((count(&net, "0 INVITE"), count(&net, "1 SIP/2.0 422")), (2, 1));
    net.command(1, Command::Answer(theirs));
    net.secs(1);
    net.assert_clean();
}

#[test]
fn a_re_invite_that_is_thought_about_can_be_taken_back() {
    let ponders = Manners { ponders: Duration::from_secs(5), ..Manners::default() };
    let mut net = net(Manners::default(), ponders);
    let (ours, theirs) = ring(&mut net);
    net.command(1, Command::Answer(theirs));
    net.secs(1);
    net.command(0, Command::Hold(ours));
    net.secs(1);
    net.command(0, Command::CancelReInvite(ours));
    net.secs(1);
    assert_eq!((count(&net, "0 CANCEL"), count(&net, "1 SIP/2.0 487")), (1, 1));
    net.command(0, Command::Retrieve(ours));
    net.secs(10);
    assert_eq!(count(&net, "0 INVITE"), 3);
    net.assert_clean();
}

#[test]
fn an_answer_that_is_never_acknowledged_ends_the_call() {
    let mut net = net(Manners::default(), Manners::default());
    let (ours, theirs) = ring(&mut net);
    net.command(0, Command::WithholdAck(ours));
    net.command(1, Command::Answer(theirs));
    net.secs(40);
    assert_eq!((count(&net, "0 ACK"), count(&net, "1 BYE")), (0, 1));
}

#[test]
fn a_request_with_a_low_cseq_is_refused() {
    let mut net = net(Manners::default(), Manners::default());
    let (ours, theirs) = ring(&mut net);
    net.command(1, Command::Answer(theirs));
    net.secs(1);
    net.command(0, Command::Info(ours));
    net.secs(1);
    net.command(0, Command::LowCseq(ours));
    net.secs(1);
    assert_eq!(count(&net, "1 SIP/2.0 500"), 1);
}
