//! The messages of RFC 4475 and RFC 5118, whole, as they lie in `tests/torture`: what the parser makes of each.
//!
//! What the engine then does with them is seen on the wire (`tests/torture.rs` of the daemon).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use Verdict::{Dropped, Fits, Refused};
use bytes::Bytes;
use tandem_protocol::message::{Contacts, Header, Limits, Message, Uri};
use tandem_protocol::sdp::SessionDescription;

/// What the parser says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// A message; whether it is granted is for its user to say.
    Fits,
    /// Not a message, but a request that can be answered so.
    Refused(u16),
    /// Not a message, and nothing that an answer could be sent to.
    Dropped,
}

const MESSAGES: &[(&str, Verdict)] = &[
    // RFC 4475 §3.1.1: valid.
    ("wsinv", Fits),
    ("intmeth", Fits),
    ("esc01", Fits),
    ("escnull", Fits),
    ("esc02", Fits),
    ("lwsdisp", Fits),
    ("longreq", Fits),
    ("dblreq", Fits),
    ("semiuri", Fits),
    ("transports", Fits),
    ("mpart01", Fits),
    ("unreason", Fits),
    ("noreason", Fits),
    // §3.1.2: invalid.
    ("badinv01", Refused(400)),
    ("clerr", Refused(400)),
    ("ncl", Refused(400)),
    ("scalar02", Refused(400)),
    ("scalarlg", Dropped),
    ("quotbal", Refused(400)),
    ("ltgtruri", Refused(400)),
    ("lwsruri", Refused(400)),
    ("lwsstart", Refused(400)),
    ("trws", Refused(400)),
    ("escruri", Refused(400)),
    // A date in another zone harms nobody who does not read it.
    ("baddate", Fits),
    // The Contact is read by who needs it: see the test below.
    ("regbadct", Fits),
    ("badaspec", Refused(400)),
    ("baddn", Refused(400)),
    ("badvers", Refused(505)),
    ("mismatch01", Refused(400)),
    ("mismatch02", Refused(400)),
    ("bigcode", Dropped),
    // §3.2: transactions.
    ("badbranch", Fits),
    // §3.3: for the application.
    ("insuf", Dropped),
    ("unkscm", Fits),
    ("novelsc", Fits),
    ("unksm2", Fits),
    ("bext01", Fits),
    ("invut", Fits),
    ("regaut01", Fits),
    ("multi01", Refused(400)),
    ("mcl01", Refused(400)),
    ("bcast", Fits),
    ("zeromf", Fits),
    ("cparam01", Fits),
    ("cparam02", Fits),
    ("regescrt", Fits),
    ("sdp01", Fits),
    // §3.4: RFC 2543.
    ("inv2543", Fits),
    // RFC 5118 §4: IPv6.
    ("ipv6-good", Fits),
    ("ipv6-bad", Refused(400)),
    ("port-ambiguous", Fits),
    ("port-unambiguous", Fits),
    ("via-received-param-with-delim", Fits),
    ("via-received-param-no-delim", Fits),
    ("ipv6-in-sdp", Fits),
    ("mult-ip-in-header", Fits),
    ("mult-ip-in-sdp", Fits),
    ("ipv4-mapped-ipv6", Fits),
    ("ipv6-bug-abnf-3-colons", Refused(400)),
];

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/torture")
}

fn read(name: &str) -> Bytes {
    let path = directory().join(format!("{name}.sip"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into()
}

#[track_caller]
fn message(name: &str) -> Message {
    Message::parse(read(name), &Limits::default()).unwrap_or_else(|why| panic!("{name}: {why}"))
}

#[test]
fn each_message_is_understood_or_refused_as_its_rfc_says() {
    let known: BTreeSet<String> = MESSAGES.iter().map(|(name, _)| format!("{name}.sip")).collect();
    let there: BTreeSet<String> =
        fs::read_dir(directory()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(known, there);
    for (name, expected) in MESSAGES {
        let verdict = match Message::parse(read(name), &Limits::default()) {
            Ok(_) => Fits,
            Err(why) if why.answer.is_some() => Refused(why.status()),
            Err(_) => Dropped,
        };
        assert_eq!(verdict, *expected, "{name}");
    }
}

#[test]
fn the_bodies_of_the_valid_messages_are_whole() {
    for (name, _) in MESSAGES.iter().filter(|(_, verdict)| *verdict == Fits) {
        let message = message(name);
        let length = message.header(Header::ContentLength).map(|length| length.parse().unwrap());
        assert!(length.is_none_or(|length: usize| length == message.body().len()), "{name}");
        if message.header(Header::ContentType) == Some("application/sdp") {
            SessionDescription::parse(message.body()).unwrap_or_else(|why| panic!("{name}: {why}"));
        }
    }
    assert!(message("mpart01").body().contains(&0));
    assert_eq!(message("dblreq").body(), b"", "what follows is another message");
}

#[test]
fn the_long_request_keeps_all_of_its_vias_and_its_long_names() {
    let message = message("longreq");
    assert_eq!(message.values(Header::Via).count(), 34);
    assert!(message.iter().any(|(name, _)| name.starts_with("Unknown-long") && name.len() > 100));
    assert!(message.from().parsed_uri().unwrap().user.unwrap().len() > 200);
}

#[test]
fn header_components_of_a_contact_stand_in_brackets() {
    assert!(message("regbadct").contacts().is_err());
    let message = message("regescrt");
    let Contacts::List(contacts) = message.contacts().unwrap() else { panic!("no contacts") };
    assert_eq!(contacts[0].parsed_uri().unwrap().headers, "Route=%3Csip:sip.example.com%3E");
}

#[test]
fn a_parameter_belongs_to_the_contact_outside_brackets_and_to_the_uri_within() {
    let of = |message: Message| {
        let Contacts::List(contacts) = message.contacts().unwrap() else { panic!("no contacts") };
        let uri = contacts[0].parsed_uri().unwrap();
        (contacts[0].param("unknownparam").is_some(), uri.param("unknownparam").is_some())
    };
    assert_eq!((of(message("cparam01")), of(message("cparam02"))), ((true, false), (false, true)));
}

#[test]
fn a_bare_magic_cookie_names_no_transaction() {
    let bare = message("badbranch");
    assert_eq!((bare.via().branch(), bare.via().unique_branch()), (Some("z9hG4bK"), None));
    assert_eq!(message("semiuri").via().unique_branch(), Some("z9hG4bKkdjuw"));
}

#[test]
fn a_port_within_the_brackets_is_a_part_of_the_address() {
    let ambiguous = message("port-ambiguous");
    let uri = Uri::parse(ambiguous.request_uri()).unwrap();
    assert_eq!((uri.host, uri.port), ("2001:db8::10:5070", None));
    let unambiguous = message("port-unambiguous");
    let uri = Uri::parse(unambiguous.request_uri()).unwrap();
    assert_eq!((uri.host, uri.port), ("2001:db8::10", Some(5070)));
}

#[test]
fn a_received_address_is_read_with_its_brackets_and_without() {
    for name in ["via-received-param-with-delim", "via-received-param-no-delim"] {
        assert_eq!(message(name).via().received(), Some("2001:db8::9:255"), "{name}");
    }
}

#[test]
fn addresses_of_both_families_stand_side_by_side() {
    let header = message("mult-ip-in-header");
    assert_eq!((header.via().host, header.via().port), ("2001:db8::9:1", Some(6050)));
    assert_eq!(header.values(Header::Via).count(), 3);
    let body = message("mult-ip-in-sdp");
    let session = SessionDescription::parse(body.body()).unwrap();
    let v6: Vec<bool> =
        session.media.iter().map(|m| session.effective_rtp_addr(m).unwrap().is_ipv6()).collect();
    assert_eq!(v6, [false, true]);
    let mapped = message("ipv4-mapped-ipv6");
    assert_eq!((mapped.via().host, mapped.via().port), ("::ffff:192.0.2.10", Some(19823)));
}
