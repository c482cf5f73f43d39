//! Who a caller is said to be, and to whom (RFC 3323, RFC 3325): an identity is believed only from within the trust domain, and
//! what the caller wants kept private leaves it for nobody outside.

use serde::{Deserialize, Serialize};

use crate::message::{Header, Message, NameAddr, Uri};

/// The From of a caller who wants to be anonymous (RFC 3323 §4.1.1.3), without a tag.
pub const ANONYMOUS: &str = "\"Anonymous\" <sip:anonymous@anonymous.invalid>";

/// What is asserted of a caller, and whether he wants it kept from strangers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Values of P-Asserted-Identity: one `sip` or `sips`, one `tel` at most (RFC 3325 §9.1).
    asserted: Vec<String>,
    /// The caller asked for privacy in any form.
    private: bool,
}

/// How an identity appears in an INVITE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presented {
    /// From must be [`ANONYMOUS`].
    pub anonymous: bool,
    /// P-Asserted-Identity and Privacy.
    pub headers: Vec<(Header, String)>,
}

impl Identity {
    /// Of a caller that a member of the trust domain sends: what it asserts is believed.
    pub fn of_trusted(invite: &Message) -> Identity {
        let mut asserted: Vec<String> = Vec::new();
        let mut kinds = [false; 2];
        for value in invite.values(Header::PAssertedIdentity) {
            let scheme = NameAddr::parse(value).ok().and_then(|name| Some(Uri::parse(name.uri).ok()?.scheme));
            let kind = match scheme {
                Some("sip" | "sips") => 0,
                Some("tel") => 1,
                Some(_) | None => continue,
            };
            if !std::mem::replace(&mut kinds[kind], true) {
                asserted.push(value.to_owned());
            }
        }
        Identity { asserted, private: is_private(invite) }
    }

    /// Of a station that has proved who it is: we assert `party`, a name-addr, whatever the station says of itself.
    pub fn of_station(invite: &Message, party: String) -> Identity {
        Identity { asserted: vec![party], private: is_private(invite) }
    }

    /// Of a caller from outside the trust domain: nothing he says of himself is passed on as if it were known (RFC 3325 §5).
    pub fn of_stranger(invite: &Message) -> Identity {
        Identity { asserted: Vec::new(), private: is_private(invite) }
    }

    /// What a next hop is told: all of it if it is `trusted`, with the wish for privacy beside it (RFC 3325 §7); else nothing
    /// but what From says.
    pub fn towards(&self, trusted: bool) -> Presented {
        let mut headers = Vec::new();
        if trusted {
            let values = self.asserted.iter().map(|value| (Header::PAssertedIdentity, value.clone()));
            headers.extend(values);
            if self.private {
                headers.push((Header::Privacy, "id".to_owned()));
            }
        }
        Presented { anonymous: self.private, headers }
    }
}

/// RFC 3323 §4.2 and RFC 3325 §9.3: any value but `none`. One that is unknown is a wish for privacy too.
fn is_private(invite: &Message) -> bool {
    let mut wishes = invite.headers(Header::Privacy).flat_map(|line| line.split([';', ',']));
    wishes.any(|wish| {
        let wish = wish.trim();
        !(wish.is_empty() || wish.eq_ignore_ascii_case("none") || wish.eq_ignore_ascii_case("critical"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::sample;

    fn invite(headers: &[(Header, &str)]) -> Message {
        sample::invite("sip:b@example.com", headers.iter().map(|(header, value)| (header.name(), *value)))
    }

    const PAI: (Header, &str) = (Header::PAssertedIdentity, "\"A\" <sip:+1555@carrier>, <tel:+1555>");

    #[test]
    fn an_asserted_identity_is_believed_from_the_trust_domain_and_told_only_there() {
        let identity = Identity::of_trusted(&invite(&[PAI]));
        let told = identity.towards(true);
        let values: Vec<&str> = told.headers.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["\"A\" <sip:+1555@carrier>", "<tel:+1555>"]);
        assert!(!told.anonymous);
        assert_eq!(identity.towards(false), Presented::default());
    }

    #[test]
    fn nobody_outside_the_trust_domain_is_believed() {
        assert_eq!(Identity::of_stranger(&invite(&[PAI])).towards(true), Presented::default());
        let station = Identity::of_station(&invite(&[PAI]), "<sip:1001@us>".into());
        assert_eq!(station.towards(true).headers, [(Header::PAssertedIdentity, "<sip:1001@us>".to_owned())]);
    }

    #[test]
    fn privacy_hides_the_caller_from_strangers_and_is_handed_on_to_the_trust_domain() {
        for wish in ["id", "header;id", "user", "session; critical", "ID"] {
            let identity = Identity::of_trusted(&invite(&[PAI, (Header::Privacy, wish)]));
            let stranger = identity.towards(false);
            assert!(stranger.anonymous && stranger.headers.is_empty(), "{wish}");
            let trusted = identity.towards(true);
            assert!(trusted.anonymous && trusted.headers.contains(&(Header::Privacy, "id".into())), "{wish}");
        }
        for wish in ["none", "", "none;critical"] {
            let identity = Identity::of_trusted(&invite(&[PAI, (Header::Privacy, wish)]));
            assert!(!identity.towards(false).anonymous, "{wish}");
        }
    }

    #[test]
    fn one_identity_of_each_kind_is_kept() {
        let many = "<sip:a@x>, <sip:b@x>, <tel:+1>, <tel:+2>, <mailto:a@x>, nonsense<";
        let identity = Identity::of_trusted(&invite(&[(Header::PAssertedIdentity, many)]));
        assert_eq!(identity.asserted, ["<sip:a@x>", "<tel:+1>"]);
    }
}
