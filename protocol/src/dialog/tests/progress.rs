use super::*;

const MINUTE: u64 = 60_000;

#[test]
fn a_caller_who_waits_hears_of_the_ringing_each_minute_until_the_answer() {
    let mut rig = Rig::incoming("");
    rig.command(Command::Progress { status: 183, sdp: Some(Bytes::from_static(SDP)) });
    rig.now = 1000;
    rig.command(Command::Progress { status: 180, sdp: None });
    for at in [1000 + MINUTE, 1000 + 2 * MINUTE] {
        assert_eq!(rig.dialog.deadline(), Some(Instant(at * 1000)));
        rig.timeout(at - 1);
        assert!(rig.out.is_empty());
        rig.timeout(at);
        assert_eq!(rig.statuses(), [180], "the last one, as it was");
    }
    rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(SDP) });
    rig.command(Command::SendAnswer);
    rig.ack(1);
    rig.timeout(1000 + 3 * MINUTE);
    assert!(rig.out.is_empty());
}

#[test]
fn early_media_is_described_again_and_what_went_reliably_is_not_said_again() {
    let mut rig = Rig::incoming("");
    rig.command(Command::Progress { status: 183, sdp: Some(Bytes::from_static(SDP)) });
    rig.timeout(MINUTE);
    let Some(Output::Respond { status: 183, message, .. }) = rig.out.first() else { panic!("{:?}", rig.out) };
    assert!(message.ends_with(SDP));
    let mut rig = Rig::incoming("Supported: 100rel\r\n");
    rig.command(Command::Progress { status: 180, sdp: None });
    rig.command(Command::EarlySession { status: 183, sdp: Bytes::from_static(SDP) });
    rig.prack(2);
    rig.timeout(2 * MINUTE);
    assert!(rig.out.is_empty() && rig.dialog.deadline().is_none());
}

#[test]
fn who_sends_a_re_invite_that_the_other_side_thinks_about_hears_so_each_minute() {
    let mut rig = Rig::called();
    rig.request("INVITE", 2, "", "v=1\r\n");
    rig.timeout(MINUTE);
    assert_eq!(rig.statuses(), [183]);
    rig.command(Command::RefuseReoffer { status: 488 });
    rig.timeout(2 * MINUTE);
    assert!(rig.out.is_empty());
}
