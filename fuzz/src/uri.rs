//! URIs, addresses and Via values: what is printed is read as the same.

use tandem_protocol::message::{NameAddr, Uri, Via, escape_user};

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(uri) = Uri::parse(text) {
        let printed = uri.to_string();
        let again = Uri::parse(&printed).unwrap_or_else(|why| panic!("{why}: {printed}"));
        assert!(uri.same_as(&again) && again.same_as(&uri), "{text} and {printed}");
        assert_eq!((uri.host, uri.port, uri.user), (again.host, again.port, again.user));
        assert_eq!(again.to_string(), printed);
        let _ = (uri.user_unescaped(), uri.socket_addr(), uri.is_sips(), uri.param("lr"));
        if uri.scheme == "sip" {
            escaped(text, &uri);
        }
    }
    if let Ok(address) = NameAddr::parse(text) {
        let printed = address.to_string();
        let again = NameAddr::parse(&printed).unwrap_or_else(|why| panic!("{why}: {printed}"));
        assert_eq!((address.uri, address.tag()), (again.uri, again.tag()), "{text}");
        let _ = (address.parsed_uri(), address.display_unescaped());
    }
    if let Ok(via) = Via::parse(text) {
        let printed = via.to_string();
        let again = Via::parse(&printed).unwrap_or_else(|why| panic!("{why}: {printed}"));
        assert_eq!((via.host, via.port, via.branch()), (again.host, again.port, again.branch()), "{text}");
        let _ = (via.received(), via.rport(), via.unique_branch());
    }
}

/// Any text can be a user part once it is escaped, and is the same text again.
fn escaped(text: &str, uri: &Uri<'_>) {
    let made = format!("sip:{}@{}", escape_user(text), "example.com");
    let read = Uri::parse(&made).unwrap_or_else(|why| panic!("{why}: {made}"));
    assert_eq!(read.user_unescaped().as_deref(), Some(text));
    assert!(!read.same_as(uri) || uri.user_unescaped().as_deref() == Some(text));
}
