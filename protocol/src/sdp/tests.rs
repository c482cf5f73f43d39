use proptest::prelude::*;

use super::*;

const PHONE: &str = "v=0\no=alice 2890844526 2890844526 IN IP4 host.example.com\nc=IN IP4 192.0.2.10\n\
    t=0 0\na=sendonly\nm=audio 49170 RTP/AVP 0 8 97 101\na=rtpmap:97 iLBC/8000\na=fmtp:101 0-16\n\
    a=rtpmap:101 telephone-event/8000\na=ptime:30\nm=video 51372 RTP/AVP 99\nc=IN IP6 2001:db8::1\n\
    b=AS:256\na=rtpmap:99 H264/90000\na=recvonly\na=rtcp:53020 IN IP4 192.0.2.99\njunk\nx=what\n";

fn parse(text: &str) -> SessionDescription {
    SessionDescription::parse(text.as_bytes()).unwrap()
}

#[test]
fn a_phone_s_description_is_read_without_carriage_returns_and_subject() {
    let sd = parse(PHONE);
    assert_eq!(sd.session_name, "-");
    assert_eq!(sd.origin.addr, NetAddress::Name { name: "host.example.com".into(), v6: false });
    assert_eq!(sd.skipped_lines, 2);
    let [audio, video] = sd.media.as_slice() else { panic!("two lines") };
    assert_eq!(audio.payload_types().collect::<Vec<_>>(), [0, 8, 97, 101]);
    assert_eq!(audio.rtpmap(0).unwrap().to_string(), "PCMU/8000");
    assert_eq!(audio.rtpmap(97).unwrap().name, "iLBC");
    assert_eq!(audio.rtpmap(98), None);
    assert_eq!(audio.fmtp(101), Some("0-16"));
    assert_eq!(audio.telephone_event(8_000), Some(101));
    assert_eq!(audio.ptime(), Some(30));
    assert_eq!(sd.direction(audio), Direction::SendOnly);
    assert_eq!(sd.direction(video), Direction::RecvOnly);
    assert_eq!(sd.effective_rtp_addr(audio), Some("192.0.2.10:49170".parse().unwrap()));
    assert_eq!(sd.rtcp_addr(audio), Some("192.0.2.10:49171".parse().unwrap()));
    assert_eq!(sd.effective_rtp_addr(video), Some("[2001:db8::1]:51372".parse().unwrap()));
    assert_eq!(sd.rtcp_addr(video), Some("192.0.2.99:53020".parse().unwrap()));
    assert_eq!(video.bandwidths, [Bandwidth { kind: "AS".into(), value: 256 }]);
}

#[test]
fn printing_follows_the_order_of_the_rfc_with_crlf() {
    let text = "v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\ns=call\r\ni=info\r\nu=http://x\r\ne=a@b\r\np=+1\r\n\
        c=IN IP4 224.2.1.1/127/3\r\nb=CT:64\r\nt=0 0\r\nr=7d 1h 0 25h\r\nz=0 0\r\nk=prompt\r\na=tool:x y:z\r\n\
        m=audio 4000/2 RTP/AVP 0\r\ni=voice\r\nc=IN IP6 ::1\r\nb=AS:64\r\nk=clear:x\r\na=sendrecv\r\n";
    let sd = parse(text);
    assert_eq!(sd.to_string(), text);
    assert_eq!(sd.skipped_lines, 0);
    assert_eq!(sd.media[0].port_count, 2);
}

#[test]
fn the_unspecified_address_is_a_hold() {
    let hold = |attribute: &str| {
        let sd = parse(&format!(
            "v=0\no=- 1 1 IN IP4 1.1.1.1\nc=IN IP4 0.0.0.0\nm=audio 4000 RTP/AVP 0\n{attribute}"
        ));
        sd.direction(&sd.media[0])
    };
    assert_eq!(hold(""), Direction::SendOnly);
    assert_eq!(hold("a=sendrecv\n"), Direction::SendOnly);
    assert_eq!(hold("a=sendonly\n"), Direction::SendOnly);
    assert_eq!(hold("a=recvonly\n"), Direction::Inactive);
    assert_eq!(hold("a=inactive\n"), Direction::Inactive);
}

#[test]
fn every_direction_reversed_twice_is_itself() {
    for direction in [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive] {
        assert_eq!(direction.reverse().reverse(), direction);
        assert_eq!(Direction::from_name(direction.as_str()), Some(direction));
    }
    assert_eq!(Direction::SendOnly.reverse(), Direction::RecvOnly);
    assert_eq!(Direction::Inactive.reverse(), Direction::Inactive);
}

#[test]
fn what_decides_where_packets_go_must_be_right() {
    let refused = |text: &str| SessionDescription::parse(text.as_bytes()).unwrap_err();
    assert_eq!(refused(""), SdpError::BadVersion);
    assert_eq!(refused("v=1\r\n"), SdpError::BadVersion);
    assert_eq!(refused("hello"), SdpError::BadVersion);
    assert_eq!(refused("v=0\r\ns=-\r\n"), SdpError::MissingOrigin);
    let bad = |line, kind| SdpError::Malformed { line, kind };
    assert_eq!(refused("v=0\r\no=- 1 1 IP4 1.1.1.1\r\n"), bad(2, 'o'));
    assert_eq!(refused("v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\nc=IN IP4 1.1.1.1;x\r\n"), bad(3, 'c'));
    assert_eq!(refused("v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\nm=audio 65536 RTP/AVP 0\r\n"), bad(3, 'm'));
    assert_eq!(refused("v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\nm=audio 1/0 RTP/AVP 0\r\n"), bad(3, 'm'));
    assert_eq!(refused(&" ".repeat(MAX_BYTES + 1)), SdpError::TooLong(MAX_BYTES + 1));
    assert_eq!(refused(&format!("v=0\n{}", "a=x\n".repeat(MAX_LINES))), SdpError::TooManyLines);
    assert_eq!(refused(&format!("v=0\n{}", "m=a 0 b 0\n".repeat(MAX_MEDIA + 1))), SdpError::TooManyMedia);
}

#[test]
fn a_refused_stream_and_a_name_give_no_address() {
    let sd =
        parse("v=0\no=- 1 1 IN IP4 1.1.1.1\nm=audio 0 RTP/AVP 0\nm=audio 9 RTP/AVP 0\nc=IN IP4 a.example\n");
    assert_eq!(sd.effective_rtp_addr(&sd.media[0]), None);
    assert_eq!(sd.effective_rtp_addr(&sd.media[1]), None);
    assert_eq!(sd.rtcp_addr(&sd.media[1]), None);
}

#[test]
fn a_byte_that_is_not_utf8_does_no_harm() {
    let sd = SessionDescription::parse(b"v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\ns=Z\xfcrich\r\n").unwrap();
    assert_eq!(sd.session_name, "Z\u{fffd}rich");
}

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_-]{1,8}"
}

fn address() -> impl Strategy<Value = NetAddress> {
    prop_oneof![
        any::<std::net::IpAddr>().prop_map(NetAddress::Ip),
        ("[a-z]{1,8}\\.example", any::<bool>()).prop_map(|(name, v6)| NetAddress::Name { name, v6 }),
    ]
}

fn connection() -> impl Strategy<Value = Option<Connection>> {
    proptest::option::of(
        (address(), proptest::option::of("[1-9]{1,3}"))
            .prop_map(|(addr, suffix)| Connection { addr, suffix }),
    )
}

fn attributes() -> impl Strategy<Value = Vec<Attribute>> {
    let attribute = (word(), proptest::option::of("[!-~]([ -~]{0,10}[!-~])?"))
        .prop_map(|(name, value)| Attribute { name, value });
    proptest::collection::vec(attribute, 0..5)
}

fn media() -> impl Strategy<Value = MediaDescription> {
    (word(), any::<u16>(), 1..9_u16, proptest::collection::vec(word(), 0..4), connection(), attributes())
        .prop_map(|(kind, port, port_count, formats, connection, attributes)| {
            let mut media = MediaDescription::new(&kind, port, "RTP/AVP", formats);
            media.port_count = port_count;
            media.connection = connection;
            media.attributes = attributes;
            media
        })
}

fn session() -> impl Strategy<Value = SessionDescription> {
    let origin = (word(), "[0-9]{1,20}", any::<u64>(), address())
        .prop_map(|(username, session_id, version, addr)| Origin { username, session_id, version, addr });
    (origin, connection(), attributes(), proptest::collection::vec(media(), 0..4)).prop_map(
        |(origin, connection, attributes, media)| {
            let mut sd = SessionDescription::new(origin);
            sd.connection = connection;
            sd.attributes = attributes;
            sd.media = media;
            sd
        },
    )
}

/// Lines that look like a description but need not be one.
fn almost_sdp() -> impl Strategy<Value = String> {
    let line = ("[vosictbramkuepzx]", "[ -~\\x00\u{e9}]{0,40}").prop_map(|(k, v)| format!("{k}={v}"));
    let good = proptest::sample::select(PHONE.lines().map(str::to_owned).collect::<Vec<_>>());
    proptest::collection::vec(prop_oneof![line, good], 0..12)
        .prop_map(|lines| format!("v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\n{}", lines.join("\r\n")))
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = SessionDescription::parse(&bytes);
    }

    #[test]
    fn what_is_printed_is_read_back(sd in session()) {
        prop_assert_eq!(SessionDescription::parse(sd.to_string().as_bytes()).unwrap(), sd);
    }

    #[test]
    fn reading_and_printing_settles_at_once(text in almost_sdp()) {
        if let Ok(sd) = SessionDescription::parse(text.as_bytes()) {
            let printed = sd.to_string();
            let again = parse(&printed);
            prop_assert_eq!(again.skipped_lines, 0);
            prop_assert_eq!(again.to_string(), printed);
            for media in &sd.media {
                let _ = (sd.direction(media), sd.rtcp_addr(media), media.ptime(), media.telephone_event(8_000));
            }
        }
    }
}
