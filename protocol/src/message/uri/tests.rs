use super::*;

fn same(a: &str, b: &str) -> bool {
    let (a, b) = (Uri::parse(a).unwrap(), Uri::parse(b).unwrap());
    assert_eq!(a.same_as(&b), b.same_as(&a));
    a.same_as(&b)
}

#[test]
fn every_part_is_found() {
    let uri = Uri::parse("sips:al%20ice:pw@[2001:db8::1]:5071;transport=tcp;lr?Subject=x&to=y").unwrap();
    assert_eq!((uri.scheme, uri.user, uri.password), ("sips", Some("al%20ice"), Some("pw")));
    assert_eq!((uri.host, uri.port), ("2001:db8::1", Some(5071)));
    assert_eq!((uri.params, uri.headers), (";transport=tcp;lr", "Subject=x&to=y"));
    assert_eq!((uri.param("TRANSPORT"), uri.param("lr"), uri.param("x")), (Some("tcp"), Some(""), None));
    assert_eq!(uri.user_unescaped().as_deref(), Some("al ice"));
}

#[test]
fn a_tel_uri_has_its_number_as_user() {
    let uri = Uri::parse("tel:+1-201-555-0123;phone-context=example.com").unwrap();
    assert_eq!(
        (uri.user, uri.host, uri.param("phone-context")),
        (Some("+1-201-555-0123"), "", Some("example.com"))
    );
    assert!(same("tel:+1-201-555-0123", "TEL:+1(201)5550123"));
    assert!(!same("tel:5550123;phone-context=a", "tel:5550123"));
    assert!(!same("tel:+12015550123", "sip:+12015550123@h"));
}

#[test]
fn what_is_no_uri_is_refused() {
    let cases = [
        ("", BadUri::Scheme),
        ("sip", BadUri::Scheme),
        ("sip:", BadUri::Scheme),
        (":a", BadUri::Scheme),
        ("1sip:a", BadUri::Scheme),
        ("si p:a", BadUri::Scheme),
        ("sip:a b", BadUri::Character),
        ("sip:a%2@b", BadUri::Character),
        ("sip:a%zz@b", BadUri::Character),
        ("sip:\u{fc}@b", BadUri::Character),
        ("sip:a@b@c", BadUri::Host),
        ("sip:a@b;x=@", BadUri::Character),
        ("sip:@b", BadUri::User),
        ("sip:a[@b", BadUri::User),
        ("sip:a@", BadUri::Host),
        ("sip:a@:5060", BadUri::Host),
        ("sip:b:", BadUri::Host),
        ("sip:b:65536", BadUri::Host),
        ("sip:b:5x", BadUri::Host),
        ("sip:[::1", BadUri::Host),
        ("sip:[::g]", BadUri::Host),
        ("sip:[::1]x", BadUri::Host),
        ("tel:;x", BadUri::User),
    ];
    for (text, why) in cases {
        assert_eq!(Uri::parse(text), Err(why), "{text}");
    }
}

#[test]
fn a_feature_code_may_hold_a_hash() {
    assert_eq!(Uri::parse("sip:*21*1002#@b").unwrap().user, Some("*21*1002#"));
    assert_eq!(escape_user("*21#"), "*21%23");
    assert_eq!(escape_user("a b@c/\u{fc}"), "a%20b%40c/%C3%BC");
    assert!(matches!(escape_user("+1(2)&=;"), Cow::Borrowed(_)));
}

#[test]
fn an_address_is_given_only_for_ip_literals() {
    let at = |uri| Uri::parse(uri).unwrap().socket_addr().map(|a| a.to_string());
    assert_eq!(at("sip:a@192.0.2.1").as_deref(), Some("192.0.2.1:5060"));
    assert_eq!(at("sips:a@192.0.2.1").as_deref(), Some("192.0.2.1:5061"));
    assert_eq!(at("sip:a@[::1];transport=TLS").as_deref(), Some("[::1]:5061"));
    assert_eq!(at("sip:a@[::1]:99").as_deref(), Some("[::1]:99"));
    assert_eq!(at("sip:a@example.com"), None);
    assert_eq!(at("tel:1"), None);
}

#[test]
fn equal_uris_of_rfc_3261_section_19_1_4() {
    let pairs = [
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtlanTa.CoM;Transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5"),
        (
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
        ),
        (
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
        ),
        ("sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0::1]"),
    ];
    for (a, b) in pairs {
        assert!(same(a, b), "{a} {b}");
    }
}

#[test]
fn different_uris_of_rfc_3261_section_19_1_4() {
    let pairs = [
        ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
        ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
        ("sip:a@h", "sips:a@h"),
        ("sip:a@h", "sip:h"),
        ("sip:a:p@h", "sip:a@h"),
        ("sip:a%3bb@h", "sip:a;b@h"),
        ("sip:a@h;maddr=x", "sip:a@h"),
        ("urn:service:sos", "urn:service:fire"),
    ];
    for (a, b) in pairs {
        assert!(!same(a, b), "{a} {b}");
    }
}
