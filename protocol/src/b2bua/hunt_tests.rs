//! Forking to contacts and hunting over trunks, as the call does them.

use std::net::SocketAddr;

use bytes::Bytes;

use super::*;
use crate::dialog::{Command, NoAnswer};
use crate::flow::ListenerId;
use crate::proxy_list::{Outcome, ProxyHealth, RetryableCodes, Selection};

const OFFER: &str =
    "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
const ANSWER: &str =
    "v=0\r\no=- 2 2 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0\r\n";

fn target(port: u16) -> Target {
    let remote = SocketAddr::from(([127, 0, 0, 1], port));
    Target {
        request_uri: format!("sip:x@{remote}"),
        flow: Flow::to(ListenerId::default(), remote),
        route: Vec::new(),
        routing: Routing::Flow,
        trunk: None,
    }
}

/// A call, and what its last input made it do.
struct Rig {
    call: Call,
    out: Vec<Output>,
}

impl Rig {
    fn new(destination: Destination) -> Rig {
        let media = MediaPlan::Bypass;
        let sdp = Sdp::new(Bytes::from_static(OFFER.as_bytes()), &media, 7).unwrap();
        let mut rig = Rig { call: Call::new(destination, media, sdp), out: Vec::new() };
        rig.feed(Input::Begin, 0);
        rig
    }

    /// Groups of contacts by port, each group given 5 s of the 20 s of ringing.
    fn forking(groups: &[&[u16]]) -> Rig {
        let branch = |port: &u16| Branch::one(target(*port));
        let groups = groups.iter().map(|ports| ports.iter().map(branch).collect()).collect();
        Rig::ringing(Fork::new(groups, Duration::from_secs(5)))
    }

    fn ringing(contacts: Fork) -> Rig {
        Rig::new(Destination::Station { contacts, ring_timeout: Duration::from_secs(20) })
    }

    fn feed(&mut self, input: Input, second: u64) {
        self.out.clear();
        let now = Now { mono: Instant(second * 1_000_000), wall: UnixMillis(second * 1_000) };
        self.call.handle(&input, now, &mut self.out);
    }

    fn fails(&mut self, leg: u8, status: u16, unanswered: Option<NoAnswer>) {
        let failed = LegEvent::Failed { status, reason: String::new(), retry_after: None, unanswered };
        self.feed(Input::Leg(LegId(leg), failed), 1);
    }

    /// The legs that the last input began, with the port each goes to.
    fn invited(&self) -> Vec<(u8, u16)> {
        let invite = |output: &Output| match output {
            Output::Invite { leg, target, .. } => Some((leg.0, target.flow.remote.port())),
            _ => None,
        };
        self.out.iter().filter_map(invite).collect()
    }

    /// The legs that the last input ended, with the status.
    fn ended(&self) -> Vec<(u8, u16)> {
        let end = |output: &Output| match output {
            Output::Tell(leg, Command::End { status, .. }) => Some((leg.0, *status)),
            _ => None,
        };
        self.out.iter().filter_map(end).collect()
    }
}

#[test]
fn equal_contacts_ring_together_and_lower_ones_after_all_of_them_failed() {
    let mut rig = Rig::forking(&[&[1, 2], &[3], &[4]]);
    assert_eq!(rig.invited(), [(1, 1), (2, 2)]);
    rig.fails(1, 486, None);
    assert_eq!(rig.invited(), []);
    rig.fails(2, 480, None);
    assert_eq!(rig.invited(), [(3, 3)]);
    rig.fails(3, 404, None);
    assert_eq!(rig.invited(), [(4, 4)]);
    rig.fails(4, 480, None);
    assert_eq!(rig.ended(), [(0, 486)], "the refusal that says most");
}

#[test]
fn a_group_that_only_rings_is_cancelled_when_the_next_ones_turn_has_come() {
    let mut rig = Rig::forking(&[&[1, 2], &[3]]);
    assert_eq!(rig.call.deadline(), Some(Instant(5_000_000)));
    rig.feed(Input::Timeout, 5);
    assert_eq!((rig.ended(), rig.invited()), (vec![(1, 487), (2, 487)], vec![(3, 3)]));
    rig.fails(1, 487, None);
    assert_eq!(rig.ended(), [], "the contact that rings now is not touched");
    assert_eq!(rig.call.deadline(), Some(Instant(20_000_000)), "the last group rings to the end");
    let answer = LegEvent::Answered { sdp: Bytes::from_static(ANSWER.as_bytes()) };
    rig.feed(Input::Leg(LegId(2), answer.clone()), 6);
    assert_eq!(rig.ended(), [(2, 487)], "too late");
    rig.feed(Input::Leg(LegId(3), answer), 7);
    assert_eq!(rig.call.callee(), Some(LegId(3)));
}

#[test]
fn a_decline_of_one_is_everybodys() {
    let mut rig = Rig::forking(&[&[1, 2], &[3]]);
    rig.fails(1, 603, None);
    assert_eq!((rig.ended(), rig.invited()), (vec![(0, 603), (2, 603)], vec![]));
}

#[test]
fn a_dead_flow_of_a_device_is_followed_by_its_next_and_a_refusal_is_not() {
    let device = || Branch { flows: vec![target(1), target(2), target(3)] };
    let mut rig = Rig::ringing(Fork::new(vec![vec![device(), Branch::one(target(9))]], Duration::ZERO));
    assert_eq!(rig.invited(), [(1, 1), (2, 9)], "one flow of a device at a time");
    rig.fails(1, 430, None);
    assert_eq!(rig.invited(), [(3, 2)]);
    rig.fails(3, 408, Some(NoAnswer::Timeout));
    assert_eq!(rig.invited(), [(4, 3)]);
    rig.fails(4, 430, None);
    assert_eq!(rig.invited(), []);
    rig.fails(2, 503, Some(NoAnswer::Transport));
    assert_eq!(rig.ended(), [(0, 480)], "neither 430 nor our own 503 is an answer of the station");
    let mut rig = Rig::ringing(Fork::new(vec![vec![device()]], Duration::ZERO));
    rig.fails(1, 486, None);
    assert_eq!((rig.invited(), rig.ended()), (vec![], vec![(0, 486)]));
}

fn hunting(trunks: &[(&str, &[u16])]) -> Rig {
    let choice = |(trunk, ports): &(&str, &[u16])| {
        let health = |port: &u16| ProxyHealth::up(target(*port).flow.remote);
        let proxies: Vec<_> = ports.iter().map(health).collect();
        let walk =
            crate::proxy_list::ProxyWalk::new(&proxies, Selection::Priority, RetryableCodes::default());
        TrunkChoice {
            trunk: (*trunk).to_owned(),
            listener: ListenerId::default(),
            user: "123".into(),
            sips: false,
            walk,
            hosts: Vec::new(),
        }
    };
    let hunt = TrunkHunt::new(trunks.iter().map(choice).collect());
    Rig::new(Destination::Trunk { hunt, ring_timeout: LONGEST_RING })
}

#[test]
fn the_next_trunk_is_tried_when_every_proxy_of_one_failed_or_it_is_full() {
    let mut rig = hunting(&[("a", &[1, 2]), ("b", &[3]), ("c", &[4])]);
    rig.fails(1, 503, None);
    assert_eq!(rig.invited(), [(2, 2)]);
    rig.fails(2, 500, None);
    assert_eq!(rig.invited(), [(3, 3)]);
    rig.feed(Input::NoPlace(LegId(3)), 1);
    assert_eq!(rig.invited(), [(4, 4)]);
    rig.fails(4, 404, None);
    assert_eq!(rig.ended(), [(0, 404)]);
    let trunks: Vec<&str> = rig.call.attempts().iter().map(|a| a.trunk.as_str()).collect();
    assert_eq!(trunks, ["a", "a", "b", "c"]);
}

#[test]
fn trunks_that_are_all_full_end_the_call_with_503_and_the_limit_as_its_cause() {
    let mut rig = hunting(&[("a", &[1]), ("b", &[2])]);
    rig.feed(Input::NoPlace(LegId(1)), 0);
    rig.feed(Input::NoPlace(LegId(2)), 0);
    assert_eq!(rig.ended(), [(0, 503)]);
    rig.feed(Input::Leg(CALLER, LegEvent::Ended { by: EndedBy::Us }), 0);
    let over =
        rig.out.iter().find_map(|o| if let Output::Over(ended) = o { Some(ended.cause) } else { None });
    assert_eq!(over, Some(Cause::Limit));
}

#[test]
fn proxies_trunks_and_groups_are_one_hunt_with_one_limit() {
    let mut rig = hunting(&[("a", &[1, 2]), ("b", &[3])]);
    let limit = rig.call.deadline();
    assert_eq!(limit, Some(Instant(LONGEST_RING.as_micros() as u64)));
    let failed =
        |status| LegEvent::Failed { status, reason: String::new(), retry_after: None, unanswered: None };
    rig.feed(Input::Leg(LegId(1), failed(503)), 100);
    rig.feed(Input::Leg(LegId(2), failed(503)), 170);
    rig.feed(Input::Leg(LegId(3), LegEvent::Progress { status: 180, sdp: None }), 175);
    assert_eq!(rig.call.deadline(), limit, "whoever comes last has what is left of it");
    rig.feed(Input::Timeout, 180);
    let ended = rig.ended();
    assert!(ended.contains(&(0, 480)) && ended.iter().any(|(leg, _)| *leg == 3), "{ended:?}");
    assert!(rig.invited().iter().all(|(leg, _)| *leg <= 3), "nobody else is tried");
    assert_eq!(rig.call.attempts().last().and_then(|a| a.tried).map(|a| a.cause), Some(Outcome::Cancelled));
}

#[test]
fn a_proxy_whose_addresses_have_raced_is_one_attempt_with_the_winner() {
    let mut rig = hunting(&[("a", &[1, 2, 3]), ("b", &[4])]);
    let address = |port: u16| target(port).flow.remote;
    let raced = |leg, won: Option<u16>, failed: &[u16]| Input::Raced {
        leg: LegId(leg),
        won: won.map(address),
        failed: failed.iter().copied().map(address).collect(),
    };
    assert_eq!(rig.call.left_to_try().collect::<Vec<_>>(), [address(2), address(3)]);
    rig.feed(raced(1, Some(2), &[1]), 0);
    assert_eq!(rig.call.left_to_try().collect::<Vec<_>>(), [address(3)], "who has failed is not tried again");
    rig.fails(1, 503, None);
    assert_eq!(rig.invited().last(), Some(&(2, 3)));
    rig.feed(raced(2, None, &[3]), 0);
    rig.fails(2, 503, Some(NoAnswer::Transport));
    assert_eq!(rig.invited().last(), Some(&(3, 4)));
    let tried: Vec<_> =
        rig.call.attempts().iter().filter_map(|a| Some((a.tried?.proxy, a.tried?.cause))).collect();
    assert_eq!(tried, [(address(2), Outcome::Status(503)), (address(3), Outcome::TransportError)]);
    // What comes when the caller has given up changes nothing.
    rig.feed(Input::Leg(CALLER, LegEvent::Cancelled), 0);
    rig.feed(raced(3, Some(1), &[]), 0);
    assert_eq!(rig.call.attempts().last().and_then(|a| a.tried).map(|a| a.proxy), Some(address(4)));
}

#[test]
fn a_call_that_every_proxy_is_spared_ends_with_503_and_overload_as_its_cause() {
    let mut rig = hunting(&[("a", &[1]), ("b", &[2])]);
    rig.feed(Input::Spared(LegId(1)), 0);
    assert_eq!(rig.invited().last(), Some(&(2, 2)));
    rig.feed(Input::Spared(LegId(2)), 0);
    assert_eq!(rig.ended(), [(0, 503)]);
    rig.feed(Input::Leg(CALLER, LegEvent::Ended { by: EndedBy::Us }), 0);
    let over =
        rig.out.iter().find_map(|o| if let Output::Over(ended) = o { Some(ended.cause) } else { None });
    assert_eq!(over, Some(Cause::Overload));
}

#[test]
fn what_a_leg_says_after_its_own_fault_is_no_news_of_the_attempt_under_way() {
    let mut rig = hunting(&[("a", &[1, 2, 3])]);
    rig.feed(Input::Leg(LegId(1), LegEvent::Ended { by: EndedBy::Fault }), 1);
    assert_eq!(rig.invited(), [(2, 2)], "the call goes on with the next proxy");
    // The dialog that was lost has cancelled its INVITE, and this is the end of it.
    rig.fails(1, 487, None);
    assert_eq!((rig.invited(), rig.ended()), (vec![], vec![]));
    let answer = LegEvent::Answered { sdp: Bytes::from_static(ANSWER.as_bytes()) };
    rig.feed(Input::Leg(LegId(1), answer.clone()), 2);
    assert_eq!(rig.ended(), [(1, 487)], "too late");
    rig.feed(Input::Leg(LegId(2), answer), 3);
    assert_eq!(rig.call.callee(), Some(LegId(2)));
    let causes: Vec<_> = rig.call.attempts().iter().filter_map(|a| Some(a.tried?.cause)).collect();
    assert_eq!(causes, [500, 200].map(crate::proxy_list::Outcome::Status));
}

#[test]
fn a_call_that_loses_its_state_keeps_what_it_had_tried_for_its_record() {
    let mut rig = hunting(&[("a", &[1, 2])]);
    rig.fails(1, 503, None);
    let tried = rig.call.attempts().to_vec();
    let now = Now { mono: Instant(2_000_000), wall: UnixMillis(2_000) };
    let lost = Call::after_fault(&[CALLER, LegId(1), LegId(2)], &tried, now, &mut rig.out);
    assert_eq!((lost.attempts(), tried.len()), (&tried[..], 1));
    assert!(lost.is_clearing());
}
