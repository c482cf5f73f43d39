//! Behaviour of whole messages: views, limits, answers to malformed ones, and properties over arbitrary bytes.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const INVITE: &str = "INVITE sip:1002@example.com SIP/2.0\r\n\
Via: SIP/2.0/UDP 192.0.2.1:5062;rport;branch=z9hG4bK77, SIP/2.0/TCP [2001:db8::1]\r\n\
v: SIP/2.0/UDP last.example.com\r\n\
Max-Forwards: 70\r\n\
Record-Route: <sip:p1.example.com;lr>\r\n\
Record-Route: <sip:p2.example.com;lr>\r\n\
From: \"Alice, \\\"A\\\"\" <sip:alice@example.com>;tag=1928301774\r\n\
To: Bob <sip:bob@example.com>\r\n\
Call-ID: a84b4c76e66710@pc33.example.com\r\n\
CSeq: 314159 INVITE\r\n\
Contact: \"a,b\" <sip:alice@192.0.2.1:5062;x=1,2>;q=0.5, , sip:other@192.0.2.2\r\n\
Supported: timer , 100rel,\r\n\
k: replaces\r\n\
Expires: 120\r\n\
a: *;audio\r\n\
X-Note: one\r\n\
Content-Type: text/plain\r\n\
Content-Length: 4\r\n\
\r\n\
bodyextra";

fn parse(text: &str) -> Message {
    Message::parse(Bytes::copy_from_slice(text.as_bytes()), &Limits::default()).unwrap()
}

fn fails(text: &str, limits: &Limits) -> Malformed {
    Message::parse(Bytes::copy_from_slice(text.as_bytes()), limits).unwrap_err()
}

#[test]
fn every_view_is_a_slice_of_the_datagram() {
    let m = parse(INVITE);
    assert!(m.is_request());
    assert_eq!(
        (m.method(), m.method_name(), m.request_uri()),
        (Method::Invite, "INVITE", "sip:1002@example.com")
    );
    assert_eq!((m.status(), m.reason()), (0, ""));
    assert_eq!((m.call_id(), m.cseq()), ("a84b4c76e66710@pc33.example.com", 314_159));
    assert_eq!(m.from().display_unescaped().as_deref(), Some("Alice, \"A\""));
    assert_eq!((m.from_tag(), m.to_tag(), m.to().display), (Some("1928301774"), None, Some("Bob")));
    let via = m.via();
    assert_eq!((via.transport, via.host, via.port), ("UDP", "192.0.2.1", Some(5062)));
    assert_eq!((via.branch(), via.rport(), via.received()), (Some("z9hG4bK77"), Some(None), None));
    assert_eq!(m.values(Header::Via).count(), 3);
    assert_eq!(m.headers(Header::Via).count(), 2);
    assert_eq!(m.values(Header::Supported).collect::<Vec<_>>(), ["timer", "100rel", "replaces"]);
    assert!(m.has_token(Header::Supported, "REPLACES") && !m.has_token(Header::Supported, "gruu"));
    assert_eq!((m.expires(), m.max_forwards()), (Some(120), Some(Ok(70))));
    assert_eq!(m.body(), b"body");
    assert_eq!(m.raw(), INVITE);
}

#[test]
fn contacts_are_split_outside_quotes_and_brackets() {
    let m = parse(INVITE);
    let Contacts::List(list) = m.contacts().unwrap() else { panic!("no contacts") };
    assert_eq!(list.len(), 2);
    assert_eq!((list[0].display, list[0].uri), (Some("a,b"), "sip:alice@192.0.2.1:5062;x=1,2"));
    assert_eq!((list[0].param("Q"), list[1].uri), (Some("0.5"), "sip:other@192.0.2.2"));
}

#[test]
fn a_star_contact_stands_alone() {
    let with = |contact: &str| parse(&INVITE.replace("Expires: 120", &format!("Contact: {contact}")));
    let only = |contact: &str| {
        let at = INVITE.find("Contact:").unwrap();
        let end = at + INVITE[at..].find("\r\n").unwrap();
        parse(&format!("{}{contact}{}", &INVITE[..at], &INVITE[end..]))
    };
    assert_eq!(with("*").contacts(), Err(BadHeader::Star));
    assert_eq!(only("m: *").contacts(), Ok(Contacts::Star));
    assert_eq!(only("m: *, *").contacts(), Err(BadHeader::Star));
    assert_eq!(only("m: *, <sip:a@b>").contacts(), Err(BadHeader::Star));
    assert_eq!(only("X: 1").contacts(), Ok(Contacts::None));
}

#[test]
fn any_header_is_found_by_name() {
    let m = parse(INVITE);
    assert_eq!(m.other("x-note").collect::<Vec<_>>(), ["one"]);
    assert_eq!(m.other("accept-contact").collect::<Vec<_>>(), ["*;audio"]);
    assert_eq!(m.other("VIA").count(), 2);
    assert_eq!(m.other("T").collect::<Vec<_>>(), ["Bob <sip:bob@example.com>"]);
    assert_eq!(m.other("x").count(), 0);
    assert_eq!(m.iter().count(), 17);
    assert_eq!(m.iter().nth(1), Some(("v", "SIP/2.0/UDP last.example.com")));
}

#[test]
fn the_body_is_the_rest_when_no_length_is_given() {
    let m = parse(&INVITE.replace("Content-Length: 4", "X: 4"));
    assert_eq!(m.body(), b"bodyextra");
}

#[test]
fn leading_line_ends_are_skipped_and_bare_lf_ends_a_line() {
    let m = parse(&format!("\r\n\r\n{}", INVITE.replace("\r\n", "\n")));
    assert_eq!((m.call_id(), m.body()), ("a84b4c76e66710@pc33.example.com", &b"body"[..]));
}

#[test]
fn a_bare_cr_never_ends_a_line() {
    let smuggled = INVITE.replace("Expires: 120", "Expires: 120\rX-Evil: 1");
    assert_eq!(fails(&smuggled, &Limits::default()).why, MalformedKind::HeaderLine);
    let in_fold = INVITE.replace("Expires: 120", "Expires: 120\r\r\n 1");
    assert_eq!(fails(&in_fold, &Limits::default()).why, MalformedKind::HeaderLine);
}

#[test]
fn what_is_no_message_is_refused() {
    let cases = [
        ("", MalformedKind::Empty),
        ("\r\n\r\n", MalformedKind::Empty),
        ("hello", MalformedKind::Unterminated),
        ("INVITE sip:a SIP/2.0\r\n", MalformedKind::Unterminated),
        ("INVITE sip:a SIP/2.0\r\nVia: x\r\n", MalformedKind::Unterminated),
        ("INVITE sip:a SIP/2.0\r\nVia: x\r", MalformedKind::Unterminated),
        ("INVITE sip:a SIP/2.0\r\nno colon\r\n\r\n", MalformedKind::HeaderLine),
        ("INVITE sip:a SIP/2.0\r\n: x\r\n\r\n", MalformedKind::HeaderLine),
        ("INVITE sip:a SIP/2.0\r\nna(me: x\r\n\r\n", MalformedKind::HeaderLine),
        ("INVITE sip:a SIP/2.0\r\n\r\n", MalformedKind::Missing(Header::From)),
    ];
    for (text, why) in cases {
        let malformed = fails(text, &Limits::default());
        assert_eq!((malformed.why, malformed.answer), (why, None), "{text:?}");
    }
}

#[test]
fn headers_that_are_not_utf8_are_refused_and_answered() {
    let mut bytes = INVITE.replace("X-Note: one", "X-Note: \u{1}").into_bytes();
    let at = bytes.iter().position(|&b| b == 1).unwrap();
    bytes[at] = 0xff;
    let malformed = Message::parse(Bytes::from(bytes), &Limits::default()).unwrap_err();
    assert_eq!((malformed.why.clone(), malformed.status()), (MalformedKind::Encoding, 400));
    assert!(malformed.answer.is_some());
}

#[test]
fn each_limit_is_answered_513() {
    let d = Limits::default();
    let cases = [
        (Limits { max_bytes: INVITE.len() - 1, ..d }, MalformedKind::TooLarge(INVITE.len())),
        (Limits { max_header_line: 80, ..d }, MalformedKind::LineTooLong),
        (Limits { max_headers: 16, ..d }, MalformedKind::TooManyHeaders),
        (Limits { max_vias: 2, ..d }, MalformedKind::TooManyVias),
    ];
    for (limits, why) in cases {
        let malformed = fails(INVITE, &limits);
        assert_eq!((malformed.status(), malformed.why), (513, why));
    }
    let exact = Limits { max_bytes: INVITE.len(), max_headers: 17, max_vias: 3, ..d };
    assert!(Message::parse(Bytes::from_static(INVITE.as_bytes()), &exact).is_ok());
    let folded = INVITE.replace("X-Note: one", &format!("X-Note: one{}", "\r\n  more".repeat(2000)));
    assert_eq!(fails(&folded, &d).why, MalformedKind::LineTooLong);
}

#[test]
fn a_header_section_beyond_the_offsets_is_refused_whatever_the_limits() {
    let limits =
        Limits { max_bytes: usize::MAX, max_header_line: usize::MAX, max_headers: usize::MAX, max_vias: 9 };
    let long = INVITE.replace("X-Note: one", &format!("X-Note: {}", "x".repeat(70_000)));
    assert_eq!(fails(&long, &limits).status(), 513);
    let body = "b".repeat(100_000);
    let m = INVITE.replace("Content-Length: 4", "Content-Length: 100000").replace("bodyextra", &body);
    assert_eq!(Message::parse(Bytes::from(m), &limits).unwrap().body(), body.as_bytes());
}

#[test]
fn a_malformed_request_can_be_answered() {
    let malformed = fails(&INVITE.replace("Content-Length: 4", "Content-Length: 4000"), &Limits::default());
    assert_eq!(malformed.why, MalformedKind::Truncated);
    let answerable = malformed.answer.unwrap();
    assert!(answerable.is_request);
    assert_eq!((answerable.via.len(), answerable.method_name.as_str()), (2, "INVITE"));
    let source = "198.51.100.7:9999".parse().unwrap();
    let answer = parse(std::str::from_utf8(&bad_request(&answerable, source, 400, "a\r\nb")).unwrap());
    assert_eq!((answer.status(), answer.reason()), (400, "a  b"));
    assert_eq!(
        (answer.call_id(), answer.cseq(), answer.method()),
        ("a84b4c76e66710@pc33.example.com", 314_159, Method::Invite)
    );
    assert_eq!((answer.via().received(), answer.via().rport()), (Some("198.51.100.7"), Some(Some(9999))));
    assert_eq!(answer.values(Header::Via).count(), 3);
    assert!(answer.to_tag().is_some());
    let again = bad_request(&answerable, source, 400, "a\r\nb");
    assert_eq!(&again, answer.raw());
    let tagged = Answerable { to: "sip:bob@example.com;tag=7".into(), ..*answerable };
    let answer = parse(std::str::from_utf8(&bad_request(&tagged, source, 400, "Bad Request")).unwrap());
    assert_eq!(answer.to_tag(), Some("7"));
}

#[test]
fn a_malformed_response_has_no_answer() {
    let response = INVITE.replace("INVITE sip:1002@example.com SIP/2.0", "SIP/2.0 999 No");
    assert_eq!(fails(&response, &Limits::default()).answer, None);
}

#[test]
fn a_folded_request_that_is_refused_is_answered_unfolded() {
    let folded = INVITE.replace("To: Bob", "To:\r\n Bob").replace("Content-Length: 4", "Content-Length: no");
    let answerable = fails(&folded, &Limits::default()).answer.unwrap();
    assert_eq!(answerable.to, "Bob <sip:bob@example.com>");
}

#[test]
fn a_header_is_folded_after_its_colon_only() {
    let folded = |fold: &str| INVITE.replace("Call-ID: ", fold);
    assert_eq!(parse(&folded("Call-ID :\r\n ")).call_id(), parse(INVITE).call_id());
    for fold in ["Call-ID\r\n : ", "Call-ID\n\t: "] {
        assert_eq!(fails(&folded(fold), &Limits::default()).why, MalformedKind::HeaderLine);
    }
}

#[test]
fn hostile_repetition_is_read_in_linear_time() {
    // Each of these would take minutes if any step were quadratic.
    let d =
        Limits { max_bytes: 60_000_000, max_header_line: 60_000, max_headers: 100_000, max_vias: 100_000 };
    for filler in ["<", "\"", "\\\"", ",", ";", "<\"", ";a", "\"\",", "%", "@", "[", ":"] {
        for header in ["Contact: ", "X: ", "Via: SIP/2.0/UDP a", "To: "] {
            let text =
                INVITE.replace("X-Note: one", &format!("{header}{}", filler.repeat(50_000 / filler.len())));
            if let Ok(m) = Message::parse(Bytes::from(text), &d) {
                let _ = (m.contacts(), m.values(Header::Contact).count(), m.via(), m.to_tag());
            }
        }
    }
    let list = ";a".repeat(25_000);
    let uri = format!("sip:a@b{list}");
    let other = format!("sip:a@b{};z", ";b".repeat(25_000));
    assert!(Uri::parse(&uri).unwrap().same_as(&Uri::parse(&other).unwrap()));
}

#[test]
fn a_message_survives_serialisation() {
    let m = parse(INVITE);
    let bytes: Vec<u8> = m.raw().to_vec();
    let de = serde::de::value::SeqDeserializer::<_, serde::de::value::Error>::new(bytes.into_iter());
    let back = Message::deserialize(de).unwrap();
    assert_eq!((back.call_id(), &back), (m.call_id(), &m));
}

/// Reads everything there is, which must not panic for any message that parsed.
fn read_all(m: &Message) {
    let _ =
        (m.from(), m.to(), m.from_tag(), m.to_tag(), m.via(), m.contacts(), m.max_forwards(), m.expires());
    let _ = (m.understood(), m.session_description());
    let _ = (m.body(), m.reason(), m.status(), m.method_name(), m.has_token(Header::Supported, "timer"));
    for (name, value) in m.iter() {
        assert!(m.other(name).any(|v| v == value));
        let _ = (NameAddr::parse(value), Via::parse(value), Uri::parse(value));
    }
    assert!(!m.call_id().is_empty());
    assert_eq!(peek_call_id(m.raw()), Some(m.call_id().as_bytes()));
    if !m.to().params.contains('"') {
        // A fold within a quoted tag, which the grammar refuses, would be the one difference.
        assert_eq!(peek_to_tag(m.raw()), m.to_tag().map(str::as_bytes));
    }
    assert!(Via::parse(m.values(Header::Via).next().unwrap()).is_ok());
    if m.is_request() {
        Uri::parse(m.request_uri()).unwrap();
        let source = "203.0.113.9:4321".parse().unwrap();
        let response = response_to(m, Some(source), 200, "OK", Some("t")).finish(None);
        let response = Message::parse(response, &Limits::NONE).unwrap();
        assert_eq!((response.call_id(), response.cseq()), (m.call_id(), m.cseq()));
        assert_eq!(response.method_name(), m.method_name());
        assert_eq!(response.from(), m.from());
        assert!(response.to_tag().is_some());
        assert_eq!(response.values(Header::Via).count(), m.values(Header::Via).count());
        let asked = m.via().rport().is_some();
        assert_eq!(response.via().rport(), asked.then_some(Some(4321)));
    }
}

fn accept(bytes: Vec<u8>) {
    let _ = (peek_call_id(&bytes), peek_to_tag(&bytes), is_keepalive(&bytes));
    match Message::parse(Bytes::from(bytes), &Limits::default()) {
        Ok(m) => read_all(&m),
        Err(malformed) => {
            assert!([400, 505, 513].contains(&malformed.status()));
            if let Some(answerable) = malformed.answer {
                let answer =
                    bad_request(&answerable, "[2001:db8::2]:5060".parse().unwrap(), 400, "Bad Request");
                assert_eq!(answer.windows(4).filter(|w| w == b"\r\n\r\n").count(), 1);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        accept(bytes);
    }

    #[test]
    fn a_mutated_message_never_panics(
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0u8..4), 1..12),
    ) {
        let mut bytes = INVITE.as_bytes().to_vec();
        for (index, byte, how) in edits {
            let at = index.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => bytes.insert(at, b"\r\n \t,;:\"<>@%=\\"[usize::from(byte) % 14]),
                _ => { bytes.remove(at); }
            }
        }
        accept(bytes);
    }

    #[test]
    fn header_like_text_never_panics(text in "[ \t;,:<>\"\\\\@=%a-c\\[\\]/.0-9*\u{fc}]{0,60}") {
        if let Ok(address) = NameAddr::parse(&text) {
            let printed = address.to_string();
            let again = NameAddr::parse(&printed).unwrap();
            prop_assert_eq!((again.uri, again.params), (address.uri, address.params));
        }
        if let Ok(uri) = Uri::parse(&text) {
            let printed = uri.to_string();
            prop_assert_eq!(Uri::parse(&printed), Ok(uri));
            prop_assert!(uri.same_as(&uri));
        }
        if let Ok(via) = Via::parse(&text) {
            let printed = via.to_string();
            prop_assert_eq!(Via::parse(&printed), Ok(via));
        }
        accept(INVITE.replace("X-Note: one", &format!("Contact: {text}\r\nVia: {text}")).into_bytes());
        accept(INVITE.replace("Bob <sip:bob@example.com>", &text).into_bytes());
        accept(INVITE.replace("sip:1002@example.com", &text).into_bytes());
    }

    #[test]
    fn uri_text_is_read_back(text in "(sip|sips|tel):([a-c#;?%0-9]{1,5}(:[a-c]{0,2})?@)?(h.example|\\[::1\\]|1\\.2\\.3\\.4)(:[0-9]{1,5})?(;[a-c]=[a-c]?){0,3}(\\?a=b(&c=%41)?)?") {
        if let Ok(uri) = Uri::parse(&text) {
            let printed = uri.to_string();
            prop_assert!(Uri::parse(&printed).unwrap().same_as(&uri));
        }
    }

    #[test]
    fn a_built_message_reads_back(
        user in "\\PC{1,12}",
        values in proptest::collection::vec("\\PC{0,40}", 0..40),
        body in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let uri = format!("sip:{}@example.com", escape_user(&user));
        let mut builder = Builder::request("MESSAGE", &uri);
        builder
            .header(Header::Via, "SIP/2.0/UDP h;branch=z9hG4bK1")
            .header(Header::From, "<sip:a@b>;tag=1")
            .header(Header::To, format_args!("<{uri}>"))
            .header(Header::CallId, "c@h")
            .header(Header::CSeq, "1 MESSAGE");
        for value in &values {
            builder.raw_header("X-Value", value);
        }
        let wire = builder.finish(Some(("text/plain", &body)));
        let m = Message::parse(wire.clone(), &Limits::default()).unwrap();
        prop_assert_eq!(m.raw(), &wire);
        prop_assert_eq!(m.request_uri(), &uri);
        let parsed = Uri::parse(m.request_uri()).unwrap();
        prop_assert_eq!(parsed.user_unescaped().unwrap(), user);
        let read: Vec<_> = m.other("x-value").collect();
        let sent: Vec<_> = values.iter().map(|v| v.trim_matches([' ', '\t'])).collect();
        prop_assert_eq!(read, sent);
        prop_assert_eq!(m.body(), &body[..]);
        read_all(&m);
    }

    #[test]
    fn no_text_smuggles_in_a_header(text in "[\r\n\\x00 :;A-Za-z\u{85}\u{2028}]{0,40}\r\nEvil: yes\r\n\r\n[a\r\n]{0,8}") {
        let mut builder = Builder::request(&text, &text);
        builder.header(Header::Subject, &text).raw_header(&text, &text).raw_header("X", &text);
        let wire = builder.finish(Some((&text, b"body")));
        let expected = 6 + usize::from(Header::parse(&text) == Header::Other) - 1;
        let lines = wire.split(|&b| b == b'\n').count() - 2;
        prop_assert_eq!(lines, expected);
        prop_assert_eq!(wire.iter().filter(|&&b| b == b'\r' || b == 0).count(), lines + 1);
        prop_assert!(!wire.windows(6).any(|w| w == b"\nEvil:"));
        prop_assert!(wire.ends_with(b"\r\n\r\nbody"));
        let response = Builder::response(200, &text).finish(None);
        prop_assert_eq!(response.iter().filter(|&&b| b == b'\n').count(), 3);
    }
}
