//! The machine of a registration group.

use std::time::Duration;

use tandem_protocol::registration::{
    GroupInput, GroupSettings, Registration, RegistrationGroup, RegistrationSettings, Response,
};

use super::*;

/// Two registrations, of which the first holds after a challenge and the second waits for an answer.
fn sample() -> RegistrationGroup {
    let registration = |place: u32| {
        let settings = RegistrationSettings::new("sip:registrar.example", "office", "hush");
        Registration::new(settings, place * 1_000 + 1)
    };
    let settings = GroupSettings { active: 2, return_after: Duration::from_secs(60) };
    let mut group = RegistrationGroup::new(settings, vec![registration(0), registration(1)]);
    for place in [0, 1] {
        let server = ([192, 0, 2, place], 5060).into();
        feed(&mut group, GroupInput::Servers(usize::from(place), vec![server]));
    }
    feed(&mut group, GroupInput::Start { within: Duration::ZERO });
    let challenges = vec!["Digest realm=\"registrar\", nonce=\"abc\", qop=\"auth\"".to_owned()];
    answer(&mut group, Response { status: 401, challenges, ..Response::default() });
    let service_route = vec!["<sip:edge;lr>".to_owned()];
    answer(&mut group, Response { status: 200, expires: Some(600), service_route, ..Response::default() });
    group
}

fn feed(group: &mut RegistrationGroup, input: GroupInput) {
    RegistrationGroup::handle(group, at(1), &input, 7);
}

/// Answers the last REGISTER of the first registration.
fn answer(group: &mut RegistrationGroup, response: Response) {
    let cseq = group.registrations().next().unwrap().kept().cseq;
    feed(group, GroupInput::Response(0, Response { cseq, ..response }));
}

fn holds(group: RegistrationGroup) {
    assert!(group.is_running());
    assert_eq!(group.in_use(), Some(0));
    let [first, second] = &group.registrations().collect::<Vec<_>>()[..] else { panic!("two") };
    let granted = first.granted().unwrap();
    assert_eq!((granted.since, granted.until), (at(1).wall, at(601).wall));
    assert_eq!(granted.service_route, ["<sip:edge;lr>"]);
    assert_eq!((first.kept().cseq, second.kept().cseq), (2, 1_001));
    assert!(first.is_up() && !second.is_up());
    assert!(RegistrationGroup::deadline(&group).is_some());
}

#[test]
fn a_registration_group_is_restored_from_every_golden_checkpoint() {
    Golden::of_machine("registration_group", holds).check(&sample());
}
