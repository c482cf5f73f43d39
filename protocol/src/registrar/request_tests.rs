use std::net::SocketAddr;

use bytes::Bytes;

use super::*;
use crate::flow::ListenerId;
use crate::message::{Header, Limits as MessageLimits, Message, response_to};

const NOW: UnixMillis = UnixMillis(1_000_000);

fn source() -> Flow {
    Flow::to(ListenerId::default(), SocketAddr::from(([192, 0, 2, 1], 5060)))
}

/// A REGISTER by `transport` with these header lines besides those it must have.
fn register_by(transport: &str, headers: &[&str]) -> Message {
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let text = format!(
        "REGISTER sip:h SIP/2.0\r\nVia: SIP/2.0/{transport} 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n\
         To: <sip:a@h>\r\nCall-ID: c\r\nCSeq: 7 REGISTER\r\n{lines}Content-Length: 0\r\n\r\n"
    );
    Message::parse(Bytes::from(text), &MessageLimits::default()).unwrap()
}

fn asked(headers: &[&str]) -> Result<Update, BadRegister> {
    read(&register_by("UDP", headers), source(), Limits::default(), false)
}

fn contact(value: &str) -> Result<ContactUpdate, BadRegister> {
    let update = asked(&["Supported: outbound", &format!("Contact: {value}")])?;
    match update.contacts {
        ContactSet::List(mut list) => Ok(list.remove(0)),
        other => panic!("{other:?}"),
    }
}

/// What of a 200 is in this header.
fn granted(request: &Message, header: Header) -> Vec<String> {
    let update = read(request, source(), Limits::default(), false).unwrap();
    let bindings = Bindings::default().register(NOW, update.clone()).unwrap();
    let mut response = response_to(request, None, 200, "OK", Some("t"));
    grant(&mut response, request, &update, &bindings, NOW);
    let response = Message::parse(response.finish(None), &MessageLimits::NONE).unwrap();
    response.headers(header).map(str::to_owned).collect()
}

#[test]
fn the_parameters_of_a_contact_are_read() {
    let own = contact("<sip:a@h;ob>;q=0.25;expires=90;reg-id=2;+sip.instance=\"<urn:uuid:1>\"").unwrap();
    assert_eq!((own.uri.as_str(), own.q, own.expires), ("sip:a@h;ob", 250, Some(90)));
    assert_eq!((own.instance.as_deref(), own.reg_id), (Some("<urn:uuid:1>"), Some(2)));
    assert_eq!(contact("<sip:a@h>;expires=soon").unwrap().expires, Some(3_600));
    assert_eq!(contact("<sip:a@h>;reg-id=1").unwrap().reg_id, None, "it means nothing without an instance");
    for (q, thousandths) in [("0", 0), ("1", 1_000), ("1.000", 1_000), ("0.5", 500), ("0.05", 50), ("0.", 0)]
    {
        assert_eq!(contact(&format!("<sip:a@h>;q={q}")).unwrap().q, thousandths, "{q}");
    }
    for bad in ["q=1.1", "q=2", "q=0.0001", "q=nan", "q=-1", "q=.", "q", "reg-id=0;+sip.instance=\"<x>\""] {
        assert_eq!(contact(&format!("<sip:a@h>;{bad}")), Err(BadRegister::Malformed), "{bad}");
    }
    let without = asked(&["Contact: <sip:a@h>;reg-id=1;+sip.instance=\"<x>\""]).unwrap();
    assert!(!without.outbound, "a device that does not say that it knows outbound");
}

#[test]
fn a_path_needs_a_device_that_knows_it() {
    let path = "Path: <sip:edge.example;lr>, \"name\" <sip:192.0.2.9:5070;lr;ob>";
    let refused = asked(&["Contact: <sip:a@h>", path]).unwrap_err();
    assert_eq!((refused.status(), refused.unsupported()), (420, Some("path")));
    let update = asked(&["Contact: <sip:a@h>", "Supported: gruu, path", path]).unwrap();
    assert_eq!(update.path, ["<sip:edge.example;lr>", "<sip:192.0.2.9:5070;lr;ob>"]);
    let lenient = read(&register_by("UDP", &["Contact: <sip:a@h>", path]), source(), Limits::default(), true);
    assert_eq!(lenient.unwrap().path.len(), 2);
    for bad in ["Path: <tel:1>", "Path: nonsense", "Path: <sip:a@h"] {
        assert_eq!(asked(&["Supported: path", bad]), Err(BadRegister::Malformed), "{bad}");
    }
}

#[test]
fn what_is_required_and_unknown_is_named() {
    assert!(asked(&["Require: path, Outbound"]).is_ok());
    let refused = asked(&["Require: path, gruu", "Require: x"]).unwrap_err();
    assert_eq!((refused.status(), refused.unsupported()), (420, Some("gruu, x")));
}

const FLOW: &str = "Contact: <sip:a@h>;reg-id=1;+sip.instance=\"<urn:uuid:1>\"";

#[test]
fn outbound_needs_a_first_hop_that_knows_it() {
    let by_proxy = |path: &str| {
        asked(&["Via: SIP/2.0/UDP 192.0.2.5;branch=z9hG4bK2", "Supported: path, outbound", FLOW, path])
    };
    assert_eq!(by_proxy("Path: <sip:edge;lr>").unwrap_err().status(), 439);
    assert_eq!(by_proxy("Path: <sip:edge;lr;ob>, <sip:first;lr>").unwrap_err().status(), 439);
    assert!(by_proxy("Path: <sip:edge;lr>, <sip:first;lr;ob>").unwrap().outbound);
    let two = "Contact: <sip:b@h>;reg-id=2;+sip.instance=\"<urn:uuid:1>\"";
    assert_eq!(asked(&["Supported: outbound", FLOW, two]), Err(BadRegister::Malformed));
    assert!(asked(&["Supported: outbound", FLOW, &format!("{two};expires=0")]).is_ok());
}

#[test]
fn the_200_says_what_was_done() {
    let request =
        register_by("UDP", &["Supported: path, outbound", &format!("{FLOW};q=0.5"), "Path: <sip:e;lr>"]);
    let contact = "<sip:a@h>;expires=3600;q=0.500;+sip.instance=\"<urn:uuid:1>\";reg-id=1";
    assert_eq!(granted(&request, Header::Contact), [contact]);
    assert_eq!(granted(&request, Header::Path), ["<sip:e;lr>"]);
    assert_eq!(granted(&request, Header::Require), ["outbound"]);
    assert!(granted(&request, Header::FlowTimer).is_empty(), "no STUN over UDP");
    let tcp = register_by("TCP", &["Supported: outbound", FLOW]);
    assert_eq!(granted(&tcp, Header::FlowTimer), ["120"]);
    let plain = register_by("TCP", &["Contact: <sip:a@h>"]);
    assert!(granted(&plain, Header::Require).is_empty() && granted(&plain, Header::FlowTimer).is_empty());
}
