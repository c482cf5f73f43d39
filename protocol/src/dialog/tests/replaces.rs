//! Dialogs that somebody else is to have (RFC 3891 §3).

use super::*;
use crate::message::Replaces;

const AUDIO: &str =
    "v=0\r\no=- 1 1 IN IP4 h\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
const BOTH: &str = "v=0\r\no=- 1 1 IN IP4 h\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\nm=video 4002 RTP/AVP 96\r\n";

fn named(value: &str) -> Replaces {
    Replaces::parse(value).unwrap()
}

fn this() -> Replaces {
    named("id;to-tag=ours;from-tag=theirs")
}

fn early_only() -> Replaces {
    Replaces { early_only: true, ..this() }
}

#[test]
fn a_confirmed_dialog_is_replaced_by_all_that_names_it() {
    for rig in [Rig::called(), Rig::answered("")] {
        assert_eq!(rig.dialog.replaceable(&this()), Ok(Replaceable::Confirmed));
        for other in
            ["id;to-tag=theirs;from-tag=ours", "x;to-tag=ours;from-tag=theirs", "id;to-tag=ours;from-tag=0"]
        {
            assert_eq!(rig.dialog.replaceable(&named(other)), Err(Irreplaceable::Other), "{other}");
        }
        assert_eq!(rig.dialog.replaceable(&early_only()), Err(Irreplaceable::NotEarly));
    }
}

#[test]
fn a_dialog_that_is_ending_or_has_ended_is_declined() {
    let mut rig = Rig::called();
    rig.hang_up();
    assert_eq!(rig.dialog.replaceable(&this()), Err(Irreplaceable::Ended));
    rig.respond(200, "BYE", 1, "", "");
    assert_eq!(rig.dialog.replaceable(&early_only()), Err(Irreplaceable::Ended));
    // The BYE waits for the ACK of our 200.
    let mut rig = Rig::incoming("");
    rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(SDP) });
    rig.command(Command::SendAnswer);
    assert_eq!(rig.dialog.replaceable(&this()), Ok(Replaceable::Confirmed));
    rig.hang_up();
    assert_eq!(rig.dialog.replaceable(&this()), Err(Irreplaceable::Ended));
}

#[test]
fn an_early_dialog_is_replaced_if_we_have_begun_it() {
    let mut rig = Rig::calling();
    assert_eq!(rig.dialog.replaceable(&this()), Err(Irreplaceable::Other), "nobody has said anything");
    rig.respond(100, "INVITE", 1, "", "");
    rig.respond_as("other", 180, "INVITE", 1, "", "");
    assert_eq!(rig.dialog.replaceable(&early_only()), Err(Irreplaceable::Other));
    rig.respond(180, "INVITE", 1, "", "");
    for replaces in [this(), early_only(), named("id;to-tag=ours;from-tag=other")] {
        assert_eq!(rig.dialog.replaceable(&replaces), Ok(Replaceable::Early));
    }
    // A branch that has failed (RFC 6228) is none.
    rig.respond_as("other", 199, "INVITE", 1, "", "");
    assert_eq!(rig.dialog.replaceable(&named("id;to-tag=ours;from-tag=other")), Err(Irreplaceable::Other));
    rig.hang_up();
    assert_eq!(rig.dialog.replaceable(&this()), Err(Irreplaceable::Ended), "it is being cancelled");
    for mut rig in [Rig::incoming(""), Rig::asked("")] {
        rig.command(Command::Progress { status: 180, sdp: None });
        assert_eq!(rig.dialog.replaceable(&this()), Err(Irreplaceable::NotOurs));
        rig.command(Command::PrepareAnswer { sdp: Bytes::from_static(SDP) });
        assert_eq!(rig.dialog.replaceable(&this()), Err(Irreplaceable::NotOurs), "the 200 is held");
    }
}

#[test]
fn the_peer_of_a_dialog_is_offered_a_newcomers_session_in_the_lines_that_it_has() {
    let mut rig = Rig::incoming("");
    rig.command(Command::PrepareAnswer { sdp: BOTH.into() });
    rig.command(Command::SendAnswer);
    rig.ack(1);
    rig.command(Command::Succeed { sdp: AUDIO.into() });
    let (reinvite, _) = rig.sent(Method::Invite).expect("a re-INVITE");
    let told = String::from_utf8_lossy(reinvite.body()).into_owned();
    assert!(told.ends_with("m=audio 4000 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n"), "{told}");
    rig.respond(200, "INVITE", 1, "", "v=0\r\n");
    assert_eq!(rig.events(), [LegEvent::ReofferAnswered { sdp: Bytes::from_static(SDP) }]);
    // Another kind of stream in the place of one that is there cannot be offered.
    let video = AUDIO.replace("audio", "video");
    rig.command(Command::Succeed { sdp: video.into() });
    assert_eq!(rig.events(), [LegEvent::ReofferRefused { status: 488 }]);
    assert!(rig.sent(Method::Invite).is_none());
}

#[test]
fn who_may_replace_a_call_is_told_so_and_goes_on_being_told() {
    let may = Arc::new(LocalSide { replaces: true, ..(*local()).clone() });
    let contact = "Contact: <sip:peer@10.0.0.2>\r\n";
    let invite = request("INVITE", 1, contact, "v=0\r\n");
    let mut dialog =
        Dialog::incoming(ServerTransactionId(1), invite, flow(), OURS.into(), may.clone(), Routing::Target);
    let mut out = Vec::new();
    dialog.handle(&Input::Command(Command::PrepareAnswer { sdp: Bytes::from_static(SDP) }), at(0), &mut out);
    dialog.handle(&Input::Command(Command::SendAnswer), at(0), &mut out);
    let mut rig = Rig { dialog, now: 0, out, transactions: 1 };
    let told = |rig: &Rig| {
        let answer = rig.out.iter().find_map(|output| match output {
            Output::Respond { message, .. } => Some(message.clone()),
            _ => None,
        });
        let answer = Message::parse(answer.expect("an answer"), &Limits::default()).unwrap();
        answer.values(Header::Supported).any(|value| value == "replaces")
    };
    assert!(told(&rig));
    rig.ack(1);
    rig.request("OPTIONS", 2, "", "");
    assert!(told(&rig));
    for (reliable, expected) in [(true, "100rel, replaces"), (false, "replaces")] {
        let mut out = Vec::new();
        Dialog::calling(InviteSpec { reliable, ..Rig::spec(SDP) }, may.clone(), &mut out);
        let Some(Output::Request { message, .. }) = out.first() else { panic!("{out:?}") };
        assert!(
            String::from_utf8_lossy(message).contains(&format!("Supported: {expected}\r\n")),
            "{message:?}"
        );
    }
}
