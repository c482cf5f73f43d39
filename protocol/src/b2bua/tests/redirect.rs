use super::*;
use crate::dialog::Body;
use crate::message::Method;

/// What the call asks about a redirection: status, contacts, whether they are fresh, whether it was redirected too often.
type Asked = (u16, Vec<String>, bool, bool);

impl Rig {
    fn redirects(&mut self, leg: LegId, contacts: &[&str]) {
        let contacts = contacts.iter().map(|c| (*c).to_owned()).collect();
        self.leg(leg, LegEvent::Redirected { contacts });
        self.failed(leg, 302, None);
    }

    fn asked(&self) -> Option<Asked> {
        self.out.iter().find_map(|output| match output {
            Output::Redirected { status, contacts, fresh, exhausted } => {
                Some((*status, contacts.clone(), *fresh, *exhausted))
            }
            _ => None,
        })
    }

    fn reroute(&mut self, status: u16, reroute: Reroute) {
        self.feed(Input::Rerouted { status, reroute });
    }

    fn to(&mut self, status: u16, port: u16, rest: &[&str]) {
        let contacts = Fork::parallel(vec![target(port)]);
        let destination = Box::new(Destination::Station { contacts, ring_timeout: Duration::from_secs(20) });
        let rest = rest.iter().map(|c| (*c).to_owned()).collect();
        self.reroute(status, Reroute::To { destination, rest, codecs: Vec::new() });
    }

    fn goes_on(&self) -> Option<LegId> {
        self.out.iter().find_map(|output| match output {
            Output::Invite { leg, .. } => Some(*leg),
            _ => None,
        })
    }
}

#[test]
fn a_redirection_is_followed_and_what_is_left_of_it_tried_when_that_fails() {
    let mut rig = Rig::station(1);
    rig.redirects(A, &["sip:1@us", "sip:2@us", "sip:3@us"]);
    assert_eq!(
        rig.asked().map(|(status, contacts, fresh, _)| (status, contacts.len(), fresh)),
        Some((302, 3, true))
    );
    rig.to(302, 5080, &["sip:3@us"]);
    let second = rig.goes_on().expect("an INVITE");
    rig.failed(second, 486, None);
    assert_eq!(rig.asked(), Some((486, vec!["sip:3@us".to_owned()], false, false)));
    rig.to(486, 5081, &[]);
    let third = rig.goes_on().expect("another");
    rig.leg(third, LegEvent::Answered { sdp: sdp(ANSWER) });
    assert_eq!(rig.call.callee(), Some(third));
}

#[test]
fn a_redirection_that_leads_nowhere_is_480_to_the_caller() {
    let mut rig = Rig::station(1);
    rig.redirects(A, &["sip:stranger@192.0.2.9"]);
    rig.reroute(302, Reroute::Nowhere);
    assert_eq!(rig.told_to_end(CALLER), Some(480));
    // One without any contact is not even asked about.
    let mut rig = Rig::station(1);
    rig.redirects(A, &[]);
    assert_eq!((rig.asked(), rig.told_to_end(CALLER)), (None, Some(480)));
}

#[test]
fn a_redirection_that_is_passed_on_reaches_the_caller_and_the_record() {
    let mut rig = Rig::trunk(1);
    rig.redirects(A, &["sip:1@elsewhere"]);
    rig.reroute(302, Reroute::Pass(vec!["sip:1@elsewhere".into()]));
    let redirect = Command::Redirect { status: 302, contacts: vec!["sip:1@elsewhere".into()] };
    assert_eq!(rig.told(CALLER)[0], redirect);
    rig.ended(CALLER, EndedBy::Us);
    let over = rig.over().expect("the end");
    assert_eq!((over.cause, over.status), (Cause::Redirected, 302));
}

#[test]
fn redirections_in_a_ring_come_to_an_end() {
    let mut rig = Rig::station(1);
    let mut leg = A;
    for turn in 0..5 {
        rig.redirects(leg, &["sip:round@us"]);
        let (_, _, fresh, exhausted) = rig.asked().expect("a question");
        assert!(fresh && !exhausted, "{turn}");
        rig.to(302, 5090 + turn, &[]);
        leg = rig.goes_on().expect("an INVITE");
    }
    rig.redirects(leg, &["sip:round@us"]);
    assert!(rig.asked().is_some_and(|(_, _, _, exhausted)| exhausted));
    rig.reroute(302, Reroute::Nowhere);
    assert_eq!(rig.told_to_end(CALLER), Some(480));
}

#[test]
fn devices_of_a_station_that_redirect_are_followed_when_none_rings_any_more() {
    let mut rig = Rig::station(2);
    rig.redirects(A, &["sip:1@us"]);
    assert_eq!(rig.asked(), None, "the other one rings");
    rig.failed(B, 480, None);
    assert_eq!(rig.asked().map(|(status, contacts, ..)| (status, contacts.len())), Some((302, 1)));
    // A caller who gives up meanwhile is not called any more.
    rig.leg(CALLER, LegEvent::Cancelled);
    rig.to(302, 5080, &[]);
    assert_eq!(rig.goes_on(), None);
}

#[test]
fn a_decline_for_everywhere_ends_redirections_too() {
    let mut rig = Rig::station(1);
    rig.redirects(A, &["sip:1@us", "sip:2@us"]);
    rig.to(302, 5080, &["sip:2@us"]);
    let leg = rig.goes_on().expect("an INVITE");
    rig.failed(leg, 603, None);
    assert_eq!((rig.asked(), rig.told_to_end(CALLER)), (None, Some(603)));
}

#[test]
fn the_reason_of_the_side_that_ends_the_call_reaches_the_other() {
    let reason = "Q.850;cause=16;text=\"done\"";
    let given = |rig: &Rig, leg| {
        rig.told(leg).into_iter().find_map(|command| match command {
            Command::End { reason, .. } => reason,
            _ => None,
        })
    };
    let mut rig = Rig::up();
    rig.leg(A, LegEvent::Reason(reason.into()));
    rig.ended(A, EndedBy::Peer);
    assert_eq!(given(&rig, CALLER).as_deref(), Some(reason));
    let mut rig = Rig::station(1);
    rig.leg(CALLER, LegEvent::Reason(reason.into()));
    rig.leg(CALLER, LegEvent::Cancelled);
    assert_eq!(given(&rig, A).as_deref(), Some(reason));
    let mut rig = Rig::up();
    rig.ended(CALLER, EndedBy::SessionExpired);
    assert!(given(&rig, A).is_some_and(|given| given.contains("session timer expired")));
}

#[test]
fn an_info_is_asked_of_the_other_leg_and_its_answer_comes_back() {
    let body =
        Some(Body { content_type: "application/dtmf-relay".into(), bytes: Bytes::from_static(b"Signal=1") });
    let asked = |body: &Option<Body>| LegEvent::Asked { id: 9, method: Method::Info, body: body.clone() };
    let mut rig = Rig::up();
    rig.leg(CALLER, asked(&body));
    assert_eq!(rig.told(A), [Command::Ask { id: 9, method: Method::Info, body: body.clone() }]);
    rig.leg(A, LegEvent::AskedAnswered { id: 9, status: 415, body: None });
    assert_eq!(rig.told(CALLER), [Command::AnswerAsked { id: 9, status: 415, body: None }]);
    let mut rig = Rig::station(1);
    rig.leg(CALLER, asked(&body));
    assert_eq!(rig.told(CALLER), [Command::AnswerAsked { id: 9, status: 480, body: None }]);
}
