use super::*;
use crate::sdp::Attribute;

const OURS: LocalMedia =
    LocalMedia { addr: IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1)), rtp: 20_000, rtcp: 20_001 };

fn leg() -> LegDescription {
    LegDescription::new(7, OURS.addr)
}

fn sdp(rest: &str) -> SessionDescription {
    let text = format!("v=0\no=bob 1 1 IN IP4 192.0.2.9\ns=x\nc=IN IP4 192.0.2.9\nt=0 0\n{rest}");
    SessionDescription::parse(text.as_bytes()).unwrap()
}

fn codecs(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn read(text: &Bytes) -> SessionDescription {
    SessionDescription::parse(text).unwrap()
}

fn relay_offer(
    offer: &SessionDescription,
    leg: &mut LegDescription,
    anchor: Option<LocalMedia>,
    codecs: Option<&[String]>,
) -> Result<SessionDescription, NegotiationError> {
    super::relay_offer(offer, leg, anchor, codecs).map(|text| read(&text))
}

fn relay_answer(
    offer: &SessionDescription,
    answer: &SessionDescription,
    leg: &mut LegDescription,
) -> Result<SessionDescription, NegotiationError> {
    super::relay_answer(offer, answer, leg, Some(OURS), None).map(|text| read(&text))
}

const CALL: &str = "m=audio 4000 RTP/AVP 8 0 18 101\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-16\n\
    a=fmtp:18 annexb=no\n";

#[test]
fn an_anchored_offer_shows_our_address_alone() {
    let offer = sdp(&format!(
        "a=group:BUNDLE 0\na=ice-lite\n{CALL}a=candidate:1 1 UDP 1 10.0.0.9 4000 typ host\na=ice-ufrag:x\n\
         a=rtcp:4009 IN IP4 10.0.0.9\na=rtcp-mux\na=mid:0\na=ptime:20\n"
    ));
    let text = relay_offer(&offer, &mut leg(), Some(OURS), None).unwrap().to_string();
    assert_eq!(
        text,
        "v=0\r\no=- 7 1 IN IP4 203.0.113.1\r\ns=-\r\nc=IN IP4 203.0.113.1\r\nt=0 0\r\n\
         m=audio 20000 RTP/AVP 8 0 18 101\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n\
         a=fmtp:18 annexb=no\r\na=ptime:20\r\na=sendrecv\r\n"
    );
}

#[test]
fn an_rtcp_port_that_is_not_the_next_one_is_written() {
    let local = LocalMedia { rtcp: 30_000, ..OURS };
    let relayed = relay_offer(&sdp(CALL), &mut leg(), Some(local), None).unwrap();
    assert_eq!(relayed.media[0].rtcp().unwrap().port, 30_000);
    assert_eq!(media_view(&relayed).unwrap().rtcp, "203.0.113.1:30000".parse().unwrap());
}

#[test]
fn other_lines_keep_their_place_with_port_zero() {
    let offer = sdp(&format!(
        "m=video 5000 RTP/AVP 96\na=rtpmap:96 VP8/90000\nm=audio 4002 RTP/SAVP 0\n{CALL}m=audio 6000 RTP/AVP 0\n"
    ));
    let relayed = relay_offer(&offer, &mut leg(), Some(OURS), None).unwrap();
    let lines: Vec<(&str, u16)> = relayed.media.iter().map(|m| (m.kind.as_str(), m.port)).collect();
    assert_eq!(lines, [("video", 0), ("audio", 0), ("audio", 20_000), ("audio", 0)]);
    assert_eq!(relayed.media[0].formats, ["96"]);
}

#[test]
fn an_old_style_hold_crosses_as_sendonly() {
    let offer = sdp("m=audio 4000 RTP/AVP 0\nc=IN IP4 0.0.0.0\n");
    let relayed = relay_offer(&offer, &mut leg(), Some(OURS), None).unwrap();
    assert_eq!(relayed.direction(&relayed.media[0]), Direction::SendOnly);
    assert_eq!(media_view(&relayed).unwrap().rtp, "203.0.113.1:20000".parse().unwrap());
}

#[test]
fn session_level_directions_move_to_the_line_they_meant() {
    let relayed = relay_offer(&sdp(&format!("a=inactive\n{CALL}")), &mut leg(), Some(OURS), None).unwrap();
    assert!(relayed.attributes.is_empty());
    assert_eq!(relayed.media[0].attributes.last(), Some(&Attribute::flag("inactive")));
}

#[test]
fn a_codec_policy_filters_and_orders() {
    let policy = codecs(&["pcmu", "opus", "PCMA"]);
    for anchor in [Some(OURS), None] {
        let relayed = relay_offer(&sdp(CALL), &mut leg(), anchor, Some(&policy)).unwrap();
        assert_eq!(relayed.media[0].formats, ["0", "8", "101"]);
        assert_eq!(relayed.media[0].fmtp(18), None);
        assert_eq!(relayed.media[0].fmtp(101), Some("0-16"));
    }
    let none = relay_offer(&sdp(CALL), &mut leg(), Some(OURS), Some(&codecs(&["opus"])));
    assert_eq!(none, Err(NegotiationError::NoCommonCodec));
}

#[test]
fn each_refusal_has_its_status_and_warning() {
    let refusal = |offer: &SessionDescription| {
        let error = relay_offer(offer, &mut leg(), Some(OURS), None).unwrap_err();
        assert_eq!(
            answer_service(offer, &mut leg(), OURS, &["PCMU"]).unwrap_err(),
            error,
            "a relay and a service refuse alike"
        );
        (error.status(), error.warning_value("tandem").unwrap())
    };
    let secure = sdp("m=audio 4000 RTP/SAVP 0\n");
    assert_eq!(refusal(&secure), (488, "302 tandem \"Incompatible transport protocol\"".into()));
    let video = sdp("m=video 4000 RTP/AVP 96\n");
    assert_eq!(refusal(&video), (488, "304 tandem \"Media type not available\"".into()));
    let named = sdp("m=audio 4000 RTP/AVP 0\nc=IN IP4 phone.example\n");
    assert_eq!(refusal(&named), (488, "301 tandem \"Incompatible network address formats\"".into()));
    let mut nowhere = sdp("m=audio 4000 RTP/AVP 0\n");
    nowhere.connection = None;
    assert_eq!(refusal(&nowhere), (400, "399 tandem \"Malformed session description\"".into()));
    let codec = answer_service(&sdp("m=audio 4000 RTP/AVP 18\n"), &mut leg(), OURS, &["PCMU"]).unwrap_err();
    assert_eq!(codec.warning_value("h").unwrap(), "305 h \"Incompatible media format\"");
    assert_eq!(read_body("text/plain; x=y", b"").unwrap_err().status(), 415);
    assert_eq!(read_body("Application/SDP", b"").unwrap_err().status(), 400);
}

#[test]
fn an_offer_that_ends_the_media_crosses() {
    let offer = sdp("m=audio 0 RTP/AVP 0\n");
    let relayed = relay_offer(&offer, &mut leg(), Some(OURS), None).unwrap();
    assert_eq!(relayed.media[0].port, 0);
    assert_eq!(media_view(&relayed), None);
}

#[test]
fn an_answer_gets_the_lines_of_its_offer() {
    let offer = sdp(&format!("{CALL}m=video 5000 RTP/AVP 96\n"));
    let short = relay_answer(&offer, &sdp(CALL), &mut leg()).unwrap();
    assert_eq!(short.media.len(), 2);
    assert_eq!((short.media[1].kind.as_str(), short.media[1].port), ("video", 0));
    let long = sdp(&format!("{CALL}m=video 0 RTP/AVP 96\nm=image 0 udptl t38\n"));
    assert_eq!(relay_answer(&offer, &long, &mut leg()).unwrap().media.len(), 2);
}

#[test]
fn bypassed_media_passes_with_our_origin_only() {
    let offer = sdp(&format!("a=ice-lite\n{CALL}a=candidate:1 1 UDP 1 10.0.0.9 4000 typ host\n"));
    let mut relayed = relay_offer(&offer, &mut leg(), None, None).unwrap();
    assert_eq!(relayed.origin.to_string(), "- 7 1 IN IP4 203.0.113.1");
    relayed.origin = offer.origin.clone();
    assert_eq!(relayed, offer);
}

#[test]
fn the_version_grows_only_with_a_change() {
    let mut leg = leg();
    let mut tell = |text: &str| relay_offer(&sdp(text), &mut leg, Some(OURS), None).unwrap().origin.version;
    assert_eq!(tell(CALL), 1);
    assert_eq!(tell(CALL), 1);
    assert_eq!(tell("m=audio 4000 RTP/AVP 0\na=sendonly\n"), 2);
    assert_eq!(tell(CALL), 3);
    let again = super::relay_offer(&sdp(CALL), &mut leg, Some(OURS), None).unwrap();
    assert_eq!(super::relay_offer(&sdp(CALL), &mut leg, Some(OURS), None).unwrap(), again);
    assert_eq!(again, read(&again).to_string(), "one text, however it is made");
    let stored: LegDescription = serde_json::from_str(&serde_json::to_string(&leg).unwrap()).unwrap();
    assert_eq!(stored, leg);
}

#[test]
fn a_service_answers_each_form_of_hold() {
    let direction = |line: &str| {
        let offer = sdp(&format!("m=audio 4000 RTP/AVP 0\n{line}\n"));
        let (answer, chosen) = answer_service(&offer, &mut leg(), OURS, &["PCMU"]).unwrap();
        let answer = read(&answer);
        assert_eq!(answer.direction(&answer.media[0]), chosen.direction);
        assert!(!answer.is_held_by_address(&answer.media[0]), "an answer never uses the old form");
        chosen.direction
    };
    assert_eq!(direction("a=sendrecv"), Direction::SendRecv);
    assert_eq!(direction("a=sendonly"), Direction::RecvOnly);
    assert_eq!(direction("a=recvonly"), Direction::SendOnly);
    assert_eq!(direction("a=inactive"), Direction::Inactive);
    assert_eq!(direction("c=IN IP4 0.0.0.0"), Direction::RecvOnly);
}

#[test]
fn a_service_takes_the_offerer_s_first_codec_that_it_knows() {
    let offer =
        sdp("m=audio 4000 RTP/AVP 96 97 8 0 100 101\na=rtpmap:96 opus/48000/2\na=rtpmap:97 PCMA/16000\n\
         a=rtpmap:100 telephone-event/48000\na=rtpmap:101 telephone-event/8000\nm=video 5000 RTP/AVP 99\n");
    let (answer, chosen) = answer_service(&offer, &mut leg(), OURS, &["PCMU", "PCMA"]).unwrap();
    assert_eq!((chosen.payload_type, chosen.name.as_str(), chosen.telephone_event), (8, "PCMA", Some(101)));
    assert_eq!(
        answer,
        "v=0\r\no=- 7 1 IN IP4 203.0.113.1\r\ns=-\r\nc=IN IP4 203.0.113.1\r\nt=0 0\r\n\
         m=audio 20000 RTP/AVP 8 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
         a=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\nm=video 0 RTP/AVP 99\r\n"
    );
}

#[test]
fn a_service_offers_its_codecs_in_order() {
    let offer = service_offer(&mut leg(), OURS, &["PCMA", "PCMU"]).unwrap();
    let view = media_view(&read(&offer)).unwrap();
    assert_eq!(view.formats, [8, 0, 101]);
    assert_eq!((view.codec.as_str(), view.telephone_event, view.ptime), ("PCMA", Some(101), Some(20)));
    assert_eq!(service_offer(&mut leg(), OURS, &["opus"]), Err(NegotiationError::NoCommonCodec));
}

#[test]
fn the_media_view_tells_what_a_session_needs() {
    let view = media_view(&sdp(&format!("m=audio 0 RTP/AVP 0\n{CALL}a=recvonly\na=ptime:40\n"))).unwrap();
    assert_eq!(
        view,
        AudioView {
            rtp: "192.0.2.9:4000".parse().unwrap(),
            rtcp: "192.0.2.9:4001".parse().unwrap(),
            formats: vec![8, 0, 18, 101],
            codec: "PCMA".into(),
            payload_type: 8,
            clock_rate: 8_000,
            telephone_event: Some(101),
            ptime: Some(40),
            direction: Direction::RecvOnly,
        }
    );
}

#[test]
fn an_answer_flows_no_way_that_the_offer_does_not_leave_it() {
    for (offered, answered, told) in [
        ("a=sendonly", "a=sendrecv", Direction::RecvOnly),
        ("a=sendonly", "a=sendonly", Direction::Inactive),
        ("a=inactive", "", Direction::Inactive),
        ("c=IN IP4 0.0.0.0", "a=sendrecv", Direction::RecvOnly),
        ("", "c=IN IP4 0.0.0.0", Direction::SendOnly),
        ("a=sendrecv", "a=recvonly", Direction::RecvOnly),
    ] {
        let line = |more: &str| sdp(&format!("m=audio 4000 RTP/AVP 0\n{more}\n").replace("\n\n", "\n"));
        let relayed = relay_answer(&line(offered), &line(answered), &mut leg()).unwrap();
        assert_eq!(relayed.direction(&relayed.media[0]), told, "{offered} {answered}");
        assert!(!relayed.is_held_by_address(&relayed.media[0]), "the old form never crosses");
    }
}

#[test]
fn two_offers_answer_each_other_with_one_codec_that_means_the_same_to_both() {
    let caller = sdp("m=video 9 RTP/AVP 99\nm=audio 4000 RTP/AVP 8 0 96 101\na=rtpmap:96 opus/48000/2\n\
         a=rtpmap:101 telephone-event/8000\na=sendonly\n");
    let callee =
        sdp("m=audio 5000 RTP/AVP 96 0 8 101\na=rtpmap:96 iLBC/8000\na=rtpmap:101 telephone-event/8000\n");
    let (to_callee, to_caller) = cross_answers(&caller, &callee).unwrap();
    let lines = |sd: &SessionDescription| -> Vec<(u16, Vec<String>)> {
        sd.media.iter().map(|m| (m.port, m.formats.clone())).collect()
    };
    let formats = |list: &[&str]| list.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(&to_callee), [(4000, formats(&["0", "101"]))]);
    assert_eq!(lines(&to_caller), [(0, formats(&["99"])), (5000, formats(&["0", "101"]))]);
    let direction = |sd: &SessionDescription| sd.direction(sd.media.last().unwrap());
    assert_eq!((direction(&to_callee), direction(&to_caller)), (Direction::SendOnly, Direction::RecvOnly));
    let other = sdp("m=audio 5000 RTP/AVP 18 101\na=rtpmap:101 telephone-event/8000\n");
    assert_eq!(cross_answers(&caller, &other).unwrap_err(), NegotiationError::NoCommonCodec);
    assert_eq!(cross_answers(&caller, &sdp("m=audio 0 RTP/AVP 0\n")).unwrap_err().status(), 488);
}
