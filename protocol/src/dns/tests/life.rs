//! How long answers are good, in virtual time.

use super::*;
use crate::dns::{Input, Output, Resolver};

/// A resolver, the servers it asks, and what it was told to publish.
struct Rig {
    resolver: Resolver,
    zone: Zone,
    /// No server answers.
    dead: bool,
    now: Instant,
    asked: Vec<String>,
    located: Vec<(Target, Located)>,
}

fn bounds() -> Bounds {
    Bounds { max_stale: Duration::from_secs(600), ..Bounds::default() }
}

fn pbx() -> Target {
    Target::new("pbx.example", Some(5070), Transport::Udp, Family::V4)
}

impl Rig {
    fn new(zone: Zone) -> Rig {
        let (now, asked, located) = (at(1), Vec::new(), Vec::new());
        Rig { resolver: Resolver::new(bounds()), zone, dead: false, now, asked, located }
    }

    /// Feeds an input; every question is answered at once.
    fn feed(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut out = Vec::new();
            self.resolver.handle(&input, self.now, &mut out);
            for output in out {
                match output {
                    Output::Ask(query) => {
                        self.asked.push(query.to_string());
                        let dead = Answer::Failed { why: "timeout".to_owned() };
                        let answer = if self.dead { dead } else { self.zone.answer(&query) };
                        inputs.push(Input::Answered(query, answer));
                    }
                    Output::Located(target, located) => self.located.push((target, located)),
                }
            }
        }
    }

    /// Lets time pass; what was found last.
    fn run_to(&mut self, end: Instant) -> &Located {
        while let Some(at) = self.resolver.deadline().filter(|at| *at <= end) {
            assert!(at >= self.now, "a deadline in the past");
            self.now = at;
            self.feed(Input::Timeout);
        }
        self.now = end;
        self.last()
    }

    fn last(&self) -> &Located {
        &self.located.last().expect("something was found").1
    }

    fn count(&self, query: &str) -> usize {
        self.asked.iter().filter(|asked| *asked == query).count()
    }
}

fn watching(zone: Zone) -> Rig {
    let mut rig = Rig::new(zone);
    rig.feed(Input::Watch(pbx()));
    rig
}

fn one_address(ip: &str) -> Zone {
    Zone::default().a("pbx.example", &[ip])
}

fn found(located: &Located) -> Vec<String> {
    located.addresses().map(|address| address.to_string()).collect()
}

#[test]
fn a_change_is_followed_when_the_time_to_live_has_ended() {
    let mut rig = watching(one_address("192.0.2.1"));
    assert_eq!(rig.last().until, at(61));
    rig.zone = one_address("192.0.2.2");
    assert_eq!(found(rig.run_to(at(60))), ["192.0.2.1:5070"]);
    assert_eq!(rig.count("pbx.example A"), 1, "not asked before its time");
    assert_eq!(found(rig.run_to(at(61))), ["192.0.2.2:5070"]);
}

#[test]
fn a_dead_resolver_leaves_the_last_good_answer_for_a_bounded_time() {
    let mut rig = watching(one_address("192.0.2.1"));
    rig.dead = true;
    let located = rig.run_to(at(62));
    assert_eq!((found(located), located.trouble()), (vec!["192.0.2.1:5070".into()], Some(Trouble::Stale)));
    let asked = rig.asked.len();
    let located = rig.run_to(at(60 + 590));
    assert_eq!(found(located), ["192.0.2.1:5070"]);
    let tries = rig.asked.len() - asked;
    assert!((590 / 30..590 / 30 + 8).contains(&tries), "it asks again, ever more slowly: {tries}");
    let located = rig.run_to(at(61 + 631));
    assert_eq!((found(located).len(), located.trouble()), (0, Some(Trouble::Unreachable)));
    rig.dead = false;
    let located = rig.run_to(at(61 + 631 + 31));
    assert_eq!((found(located), located.trouble()), (vec!["192.0.2.1:5070".into()], None));
}

#[test]
fn a_name_that_was_taken_away_is_not_used_any_longer() {
    let mut rig = watching(one_address("192.0.2.1"));
    rig.zone = Zone::default();
    let located = rig.run_to(at(61));
    assert_eq!((found(located).len(), located.trouble()), (0, Some(Trouble::Absent)));
}

#[test]
fn an_absence_is_kept_as_long_as_its_soa_says() {
    let mut rig = watching(Zone::default());
    assert_eq!(rig.last().trouble(), Some(Trouble::Absent));
    rig.zone = one_address("192.0.2.1");
    rig.run_to(at(60));
    assert_eq!(rig.count("pbx.example A"), 1);
    assert_eq!(found(rig.run_to(at(61))), ["192.0.2.1:5070"]);
}

#[test]
fn an_absence_without_soa_is_kept_briefly_and_one_with_a_long_soa_not_for_ever() {
    let mut zone = Zone::default();
    let query = Query::new("pbx.example", RecordType::A);
    zone.0.insert(query.clone(), Answer::Absent { how: Absence::NoData, ttl: None });
    let mut rig = watching(zone);
    assert_eq!(rig.last().until, at(31));
    let week = Some(Duration::from_secs(604_800));
    rig.zone.0.insert(query, Answer::Absent { how: Absence::NoData, ttl: week });
    rig.run_to(at(31));
    assert_eq!(rig.last().until, at(31 + 3600));
}

#[test]
fn a_time_to_live_of_nothing_does_not_make_a_busy_loop() {
    let mut zone = one_address("192.0.2.1");
    for answer in zone.0.values_mut() {
        if let Answer::Records { ttl, .. } = answer {
            *ttl = Duration::ZERO;
        }
    }
    let mut rig = watching(zone);
    rig.run_to(at(11));
    assert_eq!(rig.asked.len(), 11, "once a second");
}

#[test]
fn an_answer_that_comes_later_than_another_lives_still_ends_the_walk() {
    let mut resolver = Resolver::new(bounds());
    let target = Target::new("example.net", None, Transport::Udp, Family::V4).with_transport_named();
    let mut out = Vec::new();
    resolver.handle(&Input::Watch(target), at(1), &mut out);
    let srv = Srv { priority: 1, weight: 0, port: 5070, target: "a.example.net".into() };
    let short = |record| Answer::Records { records: vec![record], ttl: Duration::from_secs(1) };
    let query = Query::new("_sip._udp.example.net", RecordType::Srv);
    resolver.handle(&Input::Answered(query, short(Record::Srv(srv))), at(2), &mut out);
    let query = Query::new("a.example.net", RecordType::A);
    let answer = short(Record::Address("192.0.2.1".parse().unwrap()));
    resolver.handle(&Input::Answered(query, answer), at(9), &mut out);
    let Some(Output::Located(_, located)) = out.last() else { panic!("{out:?}") };
    assert_eq!((found(located), out.len()), (vec!["192.0.2.1:5070".to_owned()], 3));
}

#[test]
fn one_question_is_asked_once_for_all_who_want_it() {
    let mut resolver = Resolver::new(bounds());
    let mut out = Vec::new();
    for port in 1..=100 {
        let target = Target::new("pbx.example", Some(port), Transport::Udp, Family::V4);
        resolver.handle(&Input::Watch(target.clone()), at(1), &mut out);
        resolver.handle(&Input::Watch(target), at(1), &mut out);
    }
    let query = Query::new("pbx.example", RecordType::A);
    assert_eq!(out, [Output::Ask(query.clone())]);
    out.clear();
    let answer = one_address("192.0.2.1").answer(&query);
    resolver.handle(&Input::Answered(query.clone(), answer.clone()), at(2), &mut out);
    assert_eq!(out.len(), 100, "each gets its own");
    out.clear();
    resolver.handle(&Input::Answered(query, answer), at(3), &mut out);
    assert_eq!(out, [], "an answer that nobody asked for is nothing");
}

#[test]
fn what_no_target_stands_on_is_forgotten() {
    let zone = Zone::default()
        .srv("_sip._udp.example.net", &[(1, 0, 5070, "a.example.net")])
        .a("a.example.net", &["192.0.2.1"]);
    let mut rig = Rig::new(zone);
    let target = Target::new("example.net", None, Transport::Udp, Family::V4);
    rig.feed(Input::Watch(target.clone()));
    assert_eq!(rig.resolver.answers(), 3);
    rig.zone = Zone::default()
        .srv("_sip._udp.example.net", &[(1, 0, 5070, "b.example.net")])
        .a("b.example.net", &["192.0.2.2"]);
    assert_eq!(found(rig.run_to(at(61))), ["192.0.2.2:5070"]);
    assert_eq!(rig.resolver.answers(), 3, "the server of before has gone");
    rig.feed(Input::Forget(target));
    assert_eq!((rig.resolver.answers(), rig.resolver.deadline()), (0, None));
}

#[test]
fn after_a_fault_what_was_on_its_way_is_asked_for_again() {
    let mut resolver = Resolver::new(bounds());
    let mut out = Vec::new();
    resolver.handle(&Input::Watch(pbx()), at(1), &mut out);
    assert_eq!(resolver.deadline(), None);
    resolver.resume(at(2));
    resolver.handle(&Input::Timeout, at(2), &mut out);
    assert_eq!(out.len(), 2);
}

proptest! {
    #[test]
    fn no_target_is_ever_left_without_something_that_will_happen(
        steps in prop::collection::vec((0..6_u8, 0..4_usize, 0..100_u64), 1..60),
    ) {
        let mut resolver = Resolver::new(bounds());
        let targets = ["a", "b", "a.b", "192.0.2.1"]
            .map(|host| Target::new(host, None, Transport::Udp, Family::V4));
        let (mut now, mut pending): (Instant, Vec<Query>) = (at(1), Vec::new());
        let mut watched = std::collections::BTreeSet::new();
        for (verb, which, wait) in steps {
            let input = match verb {
                0 => { watched.insert(which); Input::Watch(targets[which].clone()) }
                1 => { watched.remove(&which); Input::Forget(targets[which].clone()) }
                2 => { now = now + Duration::from_secs(wait); Input::Timeout }
                _ if pending.is_empty() => continue,
                _ => {
                    let query = pending.remove(which % pending.len());
                    let srv = Srv { priority: 0, weight: 0, port: 1, target: "a.b".into() };
                    let records = match query.kind {
                        RecordType::Srv => vec![Record::Srv(srv)],
                        _ => vec![Record::Address("192.0.2.9".parse().unwrap())],
                    };
                    let ttl = Duration::from_secs(wait % 7);
                    let answer = match verb {
                        3 => Answer::Records { records, ttl },
                        4 => Answer::Absent { how: Absence::NoName, ttl: None },
                        _ => Answer::Failed { why: "x".into() },
                    };
                    Input::Answered(query, answer)
                }
            };
            let mut out = Vec::new();
            resolver.handle(&input, now, &mut out);
            for output in out {
                if let Output::Ask(query) = output {
                    prop_assert!(!pending.contains(&query), "asked twice: {}", query);
                    pending.push(query);
                }
            }
            let alive = resolver.deadline().is_some() || !pending.is_empty();
            prop_assert!(watched.is_empty() || alive);
        }
    }
}
