use super::*;
use crate::registration::RegistrationSettings;
use crate::time::UnixMillis;

fn at(seconds: u64) -> Now {
    Now { mono: Instant(seconds * 1_000_000), wall: UnixMillis(seconds * 1_000) }
}

fn server(place: usize) -> std::net::SocketAddr {
    ([192, 0, 2, place as u8 + 1], 5060).into()
}

/// A group of `count` registrations, each at a server of its own, of which `active` hold at once.
fn group(count: usize, active: usize) -> RegistrationGroup {
    let settings = GroupSettings { active, return_after: Duration::from_secs(60) };
    let one = |place| Registration::new(RegistrationSettings::new(format!("sip:r{place}"), "a", "pw"), 1);
    let mut group = RegistrationGroup::new(settings, (0..count).map(one).collect());
    for place in 0..count {
        assert_eq!(group.handle(at(0), &GroupInput::Servers(place, vec![server(place)]), 0), []);
    }
    group
}

/// (place, interval) of every REGISTER.
fn sent(outputs: &[GroupOutput]) -> Vec<(usize, u32)> {
    let of = |output: &GroupOutput| match output {
        GroupOutput::Of(place, Output::Send(request)) => Some((*place, request.expires)),
        GroupOutput::Of(_, Output::Up { .. } | Output::Down { .. }) | GroupOutput::InUse(_) => None,
    };
    outputs.iter().filter_map(of).collect()
}

fn in_use(outputs: &[GroupOutput]) -> Option<Option<usize>> {
    outputs.iter().find_map(|output| match output {
        GroupOutput::InUse(place) => Some(*place),
        GroupOutput::Of(..) => None,
    })
}

fn answer(group: &mut RegistrationGroup, now: Now, place: usize, status: u16) -> Vec<GroupOutput> {
    respond(group, now, place, (status, 3_600))
}

fn respond(
    group: &mut RegistrationGroup,
    now: Now,
    place: usize,
    (status, expires): (u16, u32),
) -> Vec<GroupOutput> {
    let cseq = group.registrations().nth(place).unwrap().kept().cseq;
    let response = Response { status, cseq, expires: Some(expires), ..Response::default() };
    group.handle(now, &GroupInput::Response(place, response), 0)
}

fn states(group: &RegistrationGroup) -> Vec<State> {
    group.registrations().map(Registration::state).collect()
}

const START: GroupInput = GroupInput::Start { within: Duration::ZERO };

#[test]
fn the_next_is_begun_at_once_when_one_fails_and_given_up_when_that_has_come_back_to_stay() {
    let mut group = group(2, 1);
    assert_eq!(sent(&group.handle(at(0), &START, 0)), [(0, 3_600)]);
    let out = answer(&mut group, at(0), 0, 403);
    assert_eq!((sent(&out), in_use(&out)), (vec![(1, 3_600)], None));
    assert_eq!(in_use(&answer(&mut group, at(1), 1, 200)), Some(Some(1)));
    // Half a minute later the first is asked again.
    assert_eq!(sent(&group.handle(at(30), &GroupInput::Timeout, 0)), [(0, 3_600)]);
    assert_eq!(in_use(&answer(&mut group, at(31), 0, 200)), None, "it must hold for a while");
    assert_eq!(states(&group), [State::Registered, State::Registered]);
    let out = group.handle(at(91), &GroupInput::Timeout, 0);
    assert_eq!((sent(&out), in_use(&out)), (vec![(1, 0)], Some(Some(0))));
    answer(&mut group, at(91), 1, 200);
    assert_eq!(states(&group), [State::Registered, State::Idle]);
}

#[test]
fn one_that_fails_soon_after_its_return_must_hold_twice_as_long() {
    let mut group = group(2, 1);
    group.handle(at(0), &START, 0);
    answer(&mut group, at(0), 0, 503);
    answer(&mut group, at(0), 1, 200);
    let mut holds = Vec::new();
    let due = |group: &mut RegistrationGroup| {
        let due = group.registrations().next().unwrap().deadline().unwrap();
        let now = Now { mono: due, wall: UnixMillis(due.0 / 1_000) };
        group.handle(now, &GroupInput::Timeout, 0);
        now
    };
    for _ in 0..3 {
        let now = due(&mut group);
        respond(&mut group, now, 0, (200, 60));
        holds.push(group.members[0].settles_at.unwrap().since(now.mono).as_secs());
        // The refresh is refused before that is over.
        let now = due(&mut group);
        answer(&mut group, now, 0, 503);
    }
    assert_eq!(holds, [60, 120, 240]);
    assert_eq!(group.in_use(), Some(1));
}

#[test]
fn several_hold_at_once_and_each_has_a_substitute() {
    let mut group = group(3, 2);
    assert_eq!(sent(&group.handle(at(0), &START, 0)), [(0, 3_600), (1, 3_600)]);
    answer(&mut group, at(0), 0, 200);
    answer(&mut group, at(0), 1, 200);
    assert_eq!(states(&group), [State::Registered, State::Registered, State::Idle]);
    // A refresh of the second finds nobody.
    let due = group.registrations().nth(1).unwrap().deadline().unwrap();
    let now = Now { mono: due, wall: UnixMillis(due.0 / 1_000) };
    assert_eq!(sent(&group.handle(now, &GroupInput::Timeout, 0)), [(1, 3_600)]);
    let out = answer(&mut group, now, 1, 503);
    assert_eq!((sent(&out), in_use(&out)), (vec![(2, 3_600)], None));
}

#[test]
fn a_stop_unregisters_all_and_a_start_begins_again() {
    let mut group = group(2, 2);
    group.handle(at(0), &START, 0);
    answer(&mut group, at(0), 0, 200);
    answer(&mut group, at(0), 1, 200);
    let out = group.handle(at(1), &GroupInput::Stop, 0);
    assert_eq!((sent(&out), in_use(&out)), (vec![(0, 0), (1, 0)], Some(None)));
    answer(&mut group, at(1), 0, 200);
    assert!(!group.is_idle());
    answer(&mut group, at(1), 1, 200);
    assert!(group.is_idle() && !group.is_running());
    assert_eq!(sent(&group.handle(at(2), &START, 0)), [(0, 3_600), (1, 3_600)]);
    assert_eq!(in_use(&answer(&mut group, at(2), 0, 200)), Some(Some(0)), "a stop is no failure");
}

#[test]
fn a_start_spreads_the_first_register() {
    let mut group = group(1, 1);
    let start = GroupInput::Start { within: Duration::from_secs(10) };
    assert_eq!(sent(&group.handle(at(0), &start, 4_000_000)), []);
    assert_eq!((states(&group), group.deadline()), (vec![State::Waiting], Some(at(4).mono)));
    assert_eq!(sent(&group.handle(at(4), &GroupInput::Timeout, 0)), [(0, 3_600)]);
}

#[test]
fn what_held_before_a_restart_is_given_up_only_when_the_preferred_one_holds_again() {
    let mut before = group(2, 1);
    before.handle(at(0), &START, 0);
    answer(&mut before, at(0), 0, 403);
    answer(&mut before, at(0), 1, 200);
    let resume = |(place, registration): (usize, &Registration)| {
        let settings = RegistrationSettings::new(format!("sip:r{place}"), "a", "pw");
        Registration::resume(settings, &registration.kept(), at(100), 0)
    };
    let members = before.registrations().enumerate().map(resume).collect();
    let settings = GroupSettings { active: 1, return_after: Duration::from_secs(60) };
    let mut after = RegistrationGroup::new(settings, members);
    after.handle(at(100), &GroupInput::Servers(0, vec![server(0)]), 0);
    after.handle(at(100), &GroupInput::Servers(1, vec![server(1)]), 0);
    let out = after.handle(at(100), &START, 0);
    assert_eq!((sent(&out), after.in_use()), (vec![(0, 3_600)], Some(1)));
    assert_eq!(states(&after), [State::Registering, State::Registered]);
    let out = answer(&mut after, at(101), 0, 200);
    assert_eq!((sent(&out), in_use(&out)), (vec![(1, 0)], Some(Some(0))));
}
