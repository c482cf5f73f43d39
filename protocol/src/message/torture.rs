//! The cases of RFC 4475 as far as they concern the parser: what each section is about, in the shortest message that has it.

use bytes::Bytes;

use super::*;

fn wire(text: &str) -> Bytes {
    Bytes::from(text.replace("\r\n", "\n").replace('\n', "\r\n"))
}

fn parse(text: &str) -> Result<Message, Malformed> {
    Message::parse(wire(text), &Limits::default())
}

#[track_caller]
fn valid(text: &str) -> Message {
    parse(text).unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn refused(text: &str) -> MalformedKind {
    let malformed = parse(text).unwrap_err();
    assert_eq!(malformed.status(), 400);
    malformed.why
}

/// An OPTIONS in which each `line` replaces the header of its name, or is added.
fn options(start_line: &str, lines: &[&str]) -> String {
    let mut headers = vec![
        "Via: SIP/2.0/UDP t1.example.org;branch=z9hG4bKkdjuw",
        "Max-Forwards: 70",
        "From: sip:j.user@example.com;tag=fromtag",
        "To: sip:user@example.com",
        "Call-ID: one.0ha0isndaksdj",
        "CSeq: 8 OPTIONS",
    ];
    for line in lines {
        let name = Header::parse(line.split(':').next().unwrap().trim_end());
        match headers.iter().position(|h| Header::parse(h.split(':').next().unwrap()) == name) {
            Some(at) => headers[at] = line,
            None => headers.push(line),
        }
    }
    format!("{start_line}\n{}\n\n", headers.join("\n"))
}

const OPTIONS: &str = "OPTIONS sip:user@example.com SIP/2.0";

#[test]
fn section_3_1_1_1_wsinv_folds_and_white_space_everywhere() {
    let text = r#"INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0
TO :
 sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n
from   : "J Rosenberg \\\""       <sip:jdrosen@example.com>
  ;
  tag = 98asjd8
MaX-fOrWaRdS: 0068
Call-ID: wsinv.ndaksdj@192.0.2.1
Content-Length   : 3
cseq: 0009
  INVITE
Via  : SIP  /   2.0
 /UDP
    192.0.2.2;branch=390skdjuw
s :
NewFangledHeader:   newfangled value
 continued newfangled value
UnknownHeaderWithUnusualValue: ;;,,;;,;
Content-Type: application/sdp
Route:
 <sip:services.example.com;lr;unknownwith=value;unknown-no-value>
v:  SIP  / 2.0  / TCP     spindle.example.com   ;
  branch  =   z9hG4bK9ikj8  ,
 SIP  /    2.0   / UDP  192.168.255.111   ; branch=
 z9hG4bK30239
m:"Quoted string \"\"" <sip:jdrosen@example.com> ; newparam =
      newvalue ;
  secondparam ; q = 0.33

v=0"#;
    let m = valid(text);
    assert_eq!((m.method(), m.cseq(), m.max_forwards()), (Method::Invite, 9, Some(Ok(68))));
    assert_eq!((m.to_tag(), m.from_tag()), (Some("1918181833n"), Some("98asjd8")));
    assert_eq!(m.from().display_unescaped().as_deref(), Some("J Rosenberg \\\""));
    assert_eq!(m.header(Header::Subject), Some(""));
    assert_eq!(m.other("newfangledheader").next(), Some("newfangled value   continued newfangled value"));
    assert_eq!(m.other("UnknownHeaderWithUnusualValue").next(), Some(";;,,;;,;"));
    let vias: Vec<_> = m.values(Header::Via).map(|v| Via::parse(v).unwrap()).collect();
    let seen: Vec<_> = vias.iter().map(|v| (v.transport, v.host, v.branch().unwrap())).collect();
    let expected = [
        ("UDP", "192.0.2.2", "390skdjuw"),
        ("TCP", "spindle.example.com", "z9hG4bK9ikj8"),
        ("UDP", "192.168.255.111", "z9hG4bK30239"),
    ];
    assert_eq!(seen, expected);
    let Contacts::List(contacts) = m.contacts().unwrap() else { panic!("no contact") };
    assert_eq!(contacts[0].display_unescaped().as_deref(), Some("Quoted string \"\""));
    assert_eq!(contacts[0].uri, "sip:jdrosen@example.com");
    assert_eq!(
        (contacts[0].param("newparam"), contacts[0].param("secondparam")),
        (Some("newvalue"), Some(""))
    );
    assert_eq!(contacts[0].param("q"), Some("0.33"));
    let route = NameAddr::parse(m.header(Header::Route).unwrap()).unwrap().parsed_uri().unwrap();
    assert_eq!((route.param("lr"), route.param("unknownwith")), (Some(""), Some("value")));
    assert_eq!(m.body(), b"v=0");
    assert_eq!(peek_call_id(m.raw()), Some(m.call_id().as_bytes()));
    assert_eq!(peek_to_tag(m.raw()), Some(&b"1918181833n"[..]));
}

#[test]
fn section_3_1_1_2_intmeth_every_character_the_grammar_allows() {
    let text = "!interesting-Method0123456789_*+`.%indeed'~ \
sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0
Via: SIP/2.0/TCP host1.example.com;branch=z9hG4bK-.!%66*_+`'~
To: \"BEL:\\\u{7} NUL:\\\0 DEL:\\\u{7f}\" <sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com>
From: token1~` token2'+_ token3*%!.- <sip:mundane@example.com>;fromParam''~+*_!.-%=\"работающий\";tag=_token~1'+`*%!-.
Call-ID: intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{
CSeq: 139122385 !interesting-Method0123456789_*+`.%indeed'~
Max-Forwards: 255
extensionHeader-!.%*+_`'~:\u{5927}\u{505c}\u{96fb}
Content-Length: 0

";
    let m = valid(text);
    assert_eq!((m.method(), m.method_name()), (Method::Other, "!interesting-Method0123456789_*+`.%indeed'~"));
    let uri = Uri::parse(m.request_uri()).unwrap();
    assert_eq!(uri.user, Some("1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"));
    assert_eq!(uri.password, Some("&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"));
    assert_eq!((uri.host, uri.params, uri.headers), ("example.com", "", ""));
    assert_eq!(m.to().display_unescaped().as_deref(), Some("BEL:\u{7} NUL:\0 DEL:\u{7f}"));
    assert_eq!(m.from().display, Some("token1~` token2'+_ token3*%!.-"));
    assert_eq!(m.from().param("fromParam''~+*_!.-%"), Some("работающий"));
    assert_eq!(m.from_tag(), Some("_token~1'+`*%!-."));
    assert_eq!(m.via().branch(), Some("z9hG4bK-.!%66*_+`'~"));
    assert_eq!(m.other("EXTENSIONheader-!.%*+_`'~").next(), Some("大停電"));
    assert_eq!(m.max_forwards(), Some(Ok(255)));
    let echoed = response_to(&m, None, 200, "OK", Some("t")).finish(None);
    let echoed = Message::parse(echoed, &Limits::default()).unwrap();
    assert_eq!((echoed.to().display, echoed.call_id()), (m.to().display, m.call_id()));
}

#[test]
fn sections_3_1_1_3_to_5_escapes_are_left_and_read() {
    let m = valid(&options(
        "INVITE sip:sips%3Auser%40example.com@example.net SIP/2.0",
        &[
            "To: sip:%75se%72@example.com",
            "From: <sip:I%20have%20spaces@example.net>;tag=938",
            "CSeq: 234234 INVITE",
            "Contact: <sip:caller@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31>",
        ],
    ));
    let uri = Uri::parse(m.request_uri()).unwrap();
    assert_eq!((uri.scheme, uri.host), ("sip", "example.net"));
    assert_eq!(uri.user_unescaped().as_deref(), Some("sips:user@example.com"));
    assert_eq!(m.from().parsed_uri().unwrap().user_unescaped().as_deref(), Some("I have spaces"));
    assert!(m.to().parsed_uri().unwrap().same_as(&Uri::parse("sip:user@example.com").unwrap()));
    let Contacts::List(contacts) = m.contacts().unwrap() else { panic!("no contact") };
    let contact = contacts[0].parsed_uri().unwrap();
    assert_eq!((contact.param("lr"), contact.param("name")), (Some(""), Some("v%61lue%25%34%31")));

    let nulls = ["To: sip:null-%00-null@example.com", "Contact: <sip:%00@host5.example.com>"];
    let m = valid(&options(OPTIONS, &nulls));
    assert_eq!(m.to().parsed_uri().unwrap().user_unescaped().as_deref(), Some("null-\0-null"));

    let m = valid(&options(
        "RE%47IST%45R sip:registrar.example.com SIP/2.0",
        &["To: \"%Z%45\" <sip:resource@example.com>", "CSeq: 29344 RE%47IST%45R"],
    ));
    assert_eq!((m.method(), m.to().display), (Method::Other, Some("%Z%45")));
}

#[test]
fn section_3_1_1_6_lwsdisp_needs_no_space_before_the_bracket() {
    let m = valid(&options(OPTIONS, &["From: caller<sip:caller@example.com>;tag=323"]));
    assert_eq!((m.from().display, m.from_tag()), (Some("caller"), Some("323")));
}

#[test]
fn section_3_1_1_7_longreq_long_values() {
    let long = "long".repeat(120);
    let vias: Vec<_> = (0..34).map(|n| format!("v: SIP/2.0/TCP sip{n}.example.com")).collect();
    let text = format!(
        "INVITE sip:user@example.com SIP/2.0\nVia: SIP/2.0/TCP first.example.net;branch=z9{long}\n{}\n\
To: \"I have a user name of {long} proportion\" <sip:user@example.com:6000;unknownparam1=very{long}value>\n\
F: sip:{long}@example.net;tag=12{long}424;unknown{long}name={long}\n\
Call-ID: {long}.onereallylongcallid\nCSeq: 3882340 INVITE\nUnknown-{long}-Name: unknown-{long}-value\n\n",
        vias.join("\n")
    );
    let m = valid(&text);
    assert_eq!(m.values(Header::Via).count(), 35);
    assert_eq!(m.from().parsed_uri().unwrap().user, Some(long.as_str()));
    assert_eq!(m.to().parsed_uri().unwrap().port, Some(6000));
}

#[test]
fn section_3_1_1_8_dblreq_what_follows_the_body_is_ignored() {
    let first = options("REGISTER sip:example.com SIP/2.0", &["CSeq: 8 REGISTER", "Content-Length: 0"]);
    let m = valid(&format!("{first}INVITE sip:joe@example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.125\n\n"));
    assert_eq!((m.method(), m.body()), (Method::Register, &b""[..]));
}

#[test]
fn section_3_1_1_9_semiuri_the_semicolon_belongs_to_the_user() {
    let m = valid(&options("OPTIONS sip:user;par=u%40example.net@example.com SIP/2.0", &[]));
    let uri = Uri::parse(m.request_uri()).unwrap();
    assert_eq!((uri.user, uri.params), (Some("user;par=u%40example.net"), ""));
    assert_eq!(uri.user_unescaped().as_deref(), Some("user;par=u@example.net"));
}

#[test]
fn section_3_1_1_10_transports_known_and_unknown() {
    for transport in ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP", "WS", "WSS"] {
        let via = format!("Via: SIP/2.0/{transport} t1.example.com;branch=z9hG4bKkdjuw");
        assert_eq!(valid(&options(OPTIONS, &[&via])).via().transport, transport);
    }
}

#[test]
fn section_3_1_1_11_mpart01_the_body_is_any_bytes() {
    let mut datagram = options(OPTIONS, &["Content-Length: 6", "Content-Type: multipart/mixed;boundary=7a"]);
    datagram = datagram.replace('\n', "\r\n");
    let mut datagram = datagram.into_bytes();
    datagram.extend_from_slice(b"\xff\0\r\n\x80\r");
    let m = Message::parse(Bytes::from(datagram), &Limits::default()).unwrap();
    assert_eq!(m.body(), b"\xff\0\r\n\x80\r");
    assert_eq!(m.body_bytes(), m.body());
}

#[test]
fn sections_3_1_1_12_and_13_the_reason_phrase_is_any_text_or_none() {
    let m = valid(&options("SIP/2.0 200 = 2**3 * 5**2 но сто девяносто девять - простое", &[]));
    assert_eq!((m.status(), m.reason()), (200, "= 2**3 * 5**2 но сто девяносто девять - простое"));
    assert!(!m.is_request());
    let m = valid(&options("SIP/2.0 100 ", &[]));
    assert_eq!((m.status(), m.reason(), m.method(), m.request_uri()), (100, "", Method::Options, ""));
    assert_eq!(valid(&options("SIP/2.0 100", &[])).reason(), "");
}

#[test]
fn section_3_1_2_1_badinv01_empty_parameters() {
    for via in
        ["Via: SIP/2.0/UDP 192.0.2.15;;,;,,", "Via: SIP/2.0/UDP 192.0.2.15;", "Via: ,SIP/2.0/UDP 192.0.2.15"]
    {
        assert!(
            matches!(refused(&options(OPTIONS, &[via])), MalformedKind::Header { header: Header::Via, .. }),
            "{via}"
        );
    }
    let m = valid(&options(OPTIONS, &["Contact: \"Joe\" <sip:joe@example.org>;;;;"]));
    assert_eq!(m.contacts(), Err(BadHeader::Parameter));
}

#[test]
fn sections_3_1_2_2_and_3_content_length_beyond_the_datagram_or_negative() {
    assert_eq!(refused(&options(OPTIONS, &["Content-Length: 9999"])), MalformedKind::Truncated);
    for length in ["-999", "", "+1", "1 1", "99999999999999999999999"] {
        let why = MalformedKind::Header { header: Header::ContentLength, why: BadHeader::Number };
        assert_eq!(refused(&options(OPTIONS, &[&format!("Content-Length: {length}")])), why, "{length}");
    }
}

#[test]
fn sections_3_1_2_4_and_5_scalar_fields_with_overlarge_values() {
    let why = MalformedKind::Header { header: Header::CSeq, why: BadHeader::Number };
    for number in ["36893488147419103232", "4294967296", "2147483648", "-1", ""] {
        assert_eq!(refused(&options(OPTIONS, &[&format!("CSeq: {number} OPTIONS")])), why);
        assert_eq!(refused(&options("SIP/2.0 503 No", &[&format!("CSeq: {number} OPTIONS")])), why);
    }
    assert_eq!(valid(&options(OPTIONS, &["CSeq: 2147483647 OPTIONS"])).cseq(), 2_147_483_647);
    let m = valid(&options(OPTIONS, &["Max-Forwards: 300", "Expires: 10000000000000000000000"]));
    assert_eq!((m.max_forwards(), m.expires()), (Some(Err(BadHeader::Number)), None));
}

#[test]
fn section_3_1_2_6_quotbal_an_unclosed_quote() {
    let why = MalformedKind::Header { header: Header::To, why: BadHeader::UnclosedQuote };
    assert_eq!(refused(&options(OPTIONS, &["To: \"Mr. J. User <sip:j.user@example.com>"])), why);
}

#[test]
fn sections_3_1_2_7_to_11_request_lines() {
    let character = MalformedKind::RequestUri(BadUri::Character);
    let cases = [
        ("OPTIONS <sip:user@example.com> SIP/2.0", MalformedKind::RequestUri(BadUri::Scheme)),
        ("OPTIONS sip:<user>@example.com SIP/2.0", character),
        ("OPTIONS sip:user@example.com; lr SIP/2.0", MalformedKind::StartLine),
        ("OPTIONS  sip:user@example.com  SIP/2.0", MalformedKind::StartLine),
        ("OPTIONS sip:user@example.com SIP/2.0  ", MalformedKind::StartLine),
        (
            "OPTIONS sip:user@example.com?Route=%3Csip:example.com%3E SIP/2.0",
            MalformedKind::RequestUri(BadUri::Headers),
        ),
        ("OPTIONS SIP/2.0", MalformedKind::StartLine),
        ("OPTIONS", MalformedKind::StartLine),
        ("OPT(IONS sip:user@example.com SIP/2.0", MalformedKind::StartLine),
        ("OPTIONS sip:user@example.com\n SIP/2.0", MalformedKind::StartLine),
        ("OPTIONS sip:user@example.com SIP/two", MalformedKind::StartLine),
    ];
    for (line, why) in cases {
        assert_eq!(refused(&options(line, &[])), why, "{line}");
    }
}

#[test]
fn section_3_1_2_12_baddate_is_not_the_parsers_concern() {
    let m = valid(&options(OPTIONS, &["Date: Fri, 01 Jan 2010 16:00:00 EST"]));
    assert_eq!(m.header(Header::Date), Some("Fri, 01 Jan 2010 16:00:00 EST"));
}

#[test]
fn section_3_1_2_13_regbadct_a_question_mark_needs_brackets() {
    let m = valid(&options(OPTIONS, &["Contact: sip:user@example.com?Route=%3Csip:sip.example.com%3E"]));
    assert_eq!(m.contacts(), Err(BadHeader::Uri(BadUri::Character)));
    let m = valid(&options(OPTIONS, &["Contact: <sip:user@example.com?Route=%3Csip:sip.example.com%3E>"]));
    assert!(matches!(m.contacts(), Ok(Contacts::List(_))));
}

#[test]
fn sections_3_1_2_14_and_15_badaspec_and_baddn() {
    let why = MalformedKind::Header { header: Header::To, why: BadHeader::Uri(BadUri::Scheme) };
    assert_eq!(refused(&options(OPTIONS, &["To: \"Watson, Thomas\" < sip:t.watson@example.org >"])), why);
    let why = MalformedKind::Header { header: Header::From, why: BadHeader::DisplayName };
    assert_eq!(refused(&options(OPTIONS, &["From: Bell, Alexander <sip:a.g.bell@example.com>;tag=43"])), why);
}

#[test]
fn section_3_1_2_16_badvers_is_505() {
    let malformed = parse(&options("OPTIONS sip:t.watson@example.org SIP/7.0", &[])).unwrap_err();
    assert_eq!((malformed.why.clone(), malformed.status()), (MalformedKind::Version, 505));
    assert_eq!(malformed.answer.unwrap().method_name, "OPTIONS");
}

#[test]
fn sections_3_1_2_17_and_18_the_cseq_method_must_match() {
    assert_eq!(refused(&options(OPTIONS, &["CSeq: 8 INVITE"])), MalformedKind::MethodMismatch);
    assert_eq!(
        refused(&options("NEWMETHOD sip:a SIP/2.0", &["CSeq: 8 INVITE"])),
        MalformedKind::MethodMismatch
    );
    for cseq in ["8OPTIONS", "8", "8 OPTIONS INVITE", "8 (OPTIONS)"] {
        let why = MalformedKind::Header { header: Header::CSeq, why: BadHeader::Method };
        assert_eq!(refused(&options(OPTIONS, &[&format!("CSeq: {cseq}")])), why, "{cseq}");
    }
}

#[test]
fn section_3_1_2_19_bigcode_and_other_bad_status_codes() {
    for code in ["4294967301", "99", "099", "700", "1xx", "", "+20"] {
        assert_eq!(
            refused(&options(&format!("SIP/2.0 {code} better not break"), &[])),
            MalformedKind::StatusCode
        );
    }
}

#[test]
fn section_3_3_1_insuf_each_mandatory_header_is_missed() {
    let whole = options(OPTIONS, &[]);
    let mandatory = [
        ("Via", Header::Via),
        ("From", Header::From),
        ("To", Header::To),
        ("Call-ID", Header::CallId),
        ("CSeq", Header::CSeq),
    ];
    for (name, header) in mandatory {
        let without: Vec<_> =
            whole.split('\n').filter(|line| !line.starts_with(&format!("{name}:"))).collect();
        let malformed = parse(&without.join("\n")).unwrap_err();
        assert_eq!((malformed.why, malformed.answer), (MalformedKind::Missing(header), None));
    }
}

#[test]
fn sections_3_3_2_to_4_unknown_schemes_are_the_users_concern() {
    let m = valid(&options(
        "OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0",
        &["To: isbn:2983792873", "From: name:John_Smith;tag=1"],
    ));
    assert_eq!(Uri::parse(m.request_uri()).unwrap().scheme, "soap.beep");
    assert_eq!((m.to().uri, m.from_tag()), ("isbn:2983792873", Some("1")));
    valid(&options("OPTIONS nobodyKnowsThisScheme:totallyopaquecontent SIP/2.0", &[]));
}

#[test]
fn sections_3_3_8_and_9_multi01_and_mcl01_single_headers_stand_once() {
    let repeats = [
        ("CSeq: 8 OPTIONS", Header::CSeq),
        ("i: other", Header::CallId),
        ("To: <sip:b@b>", Header::To),
        ("f: <sip:b@b>", Header::From),
        ("Max-Forwards: 5", Header::MaxForwards),
    ];
    for (line, header) in repeats {
        let text = options(OPTIONS, &[]).replace("\n\n", &format!("\n{line}\n\n"));
        assert_eq!(refused(&text), MalformedKind::Repeated(header));
    }
    let text = options(OPTIONS, &["Content-Length: 0"]).replace("\n\n", "\nl: 0\n\n");
    assert_eq!(refused(&text), MalformedKind::Repeated(Header::ContentLength));
}

#[test]
fn section_3_4_1_inv2543_needs_neither_branch_nor_tag() {
    let text = "INVITE sip:UserB@example.com SIP/2.0\nVia: SIP/2.0/UDP iftgw.example.com\nFrom: <sip:+13035551111@ift.client.example.net;user=phone>\n\
Record-Route: <sip:UserB@example.com;maddr=ss1.example.com>\nTo: sip:+16505552222@ss1.example.net;user=phone\n\
Call-ID: inv2543.1717@ift.client.example.com\nCSeq: 56 INVITE\n\n";
    let m = valid(text);
    assert_eq!((m.via().branch(), m.from_tag(), m.max_forwards()), (None, None, None));
    assert_eq!(m.to().param("user"), Some("phone"));
}
