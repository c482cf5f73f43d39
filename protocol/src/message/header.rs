//! Header names: the known ones, their compact forms, and a look-up that needs one comparison.

use serde::{Deserialize, Serialize};

macro_rules! headers {
    ($($variant:ident $name:literal $compact:literal $rfc:literal,)*) => {
        /// A header field name, read without regard to case and in its compact form too (RFC 3261 section 7.3.3).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Header {
            $(#[doc = concat!("`", $name, "` (", $rfc, ").")] $variant,)*
            /// Any other header; see [`Message::other`](super::Message::other).
            Other,
        }

        const KNOWN: &[(&str, u8, Header)] = &[$(($name, $compact, Header::$variant),)*];

        impl Header {
            /// The full name as written on the wire; "Other" for [`Header::Other`], which has none.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Header::$variant => $name,)*
                    Header::Other => "Other",
                }
            }

            /// What a line of it begins with.
            pub(super) const fn line_start(self) -> &'static str {
                match self {
                    $(Header::$variant => concat!($name, ": "),)*
                    Header::Other => "Other: ",
                }
            }
        }
    };
}

headers! {
    Via "Via" b'v' "RFC 3261 section 20.42",
    From "From" b'f' "RFC 3261 section 20.20",
    To "To" b't' "RFC 3261 section 20.39",
    CallId "Call-ID" b'i' "RFC 3261 section 20.8",
    CSeq "CSeq" 0 "RFC 3261 section 20.16",
    Contact "Contact" b'm' "RFC 3261 section 20.10",
    MaxForwards "Max-Forwards" 0 "RFC 3261 section 20.22",
    Route "Route" 0 "RFC 3261 section 20.34",
    RecordRoute "Record-Route" 0 "RFC 3261 section 20.30",
    ContentType "Content-Type" b'c' "RFC 3261 section 20.15",
    ContentLength "Content-Length" b'l' "RFC 3261 section 20.14",
    Expires "Expires" 0 "RFC 3261 section 20.19",
    Authorization "Authorization" 0 "RFC 3261 section 20.7",
    WwwAuthenticate "WWW-Authenticate" 0 "RFC 3261 section 20.44",
    ProxyAuthenticate "Proxy-Authenticate" 0 "RFC 3261 section 20.27",
    ProxyAuthorization "Proxy-Authorization" 0 "RFC 3261 section 20.28",
    Allow "Allow" 0 "RFC 3261 section 20.5",
    Supported "Supported" b'k' "RFC 3261 section 20.37",
    Require "Require" 0 "RFC 3261 section 20.32",
    ProxyRequire "Proxy-Require" 0 "RFC 3261 section 20.29",
    Unsupported "Unsupported" 0 "RFC 3261 section 20.40",
    Accept "Accept" 0 "RFC 3261 section 20.1",
    UserAgent "User-Agent" 0 "RFC 3261 section 20.41",
    Server "Server" 0 "RFC 3261 section 20.35",
    Reason "Reason" 0 "RFC 3326",
    Warning "Warning" 0 "RFC 3261 section 20.43",
    RetryAfter "Retry-After" 0 "RFC 3261 section 20.33",
    MinExpires "Min-Expires" 0 "RFC 3261 section 20.23",
    AllowEvents "Allow-Events" b'u' "RFC 6665",
    Event "Event" b'o' "RFC 6665",
    SubscriptionState "Subscription-State" 0 "RFC 6665",
    ReferTo "Refer-To" b'r' "RFC 3515",
    ReferredBy "Referred-By" b'b' "RFC 3892",
    Replaces "Replaces" 0 "RFC 3891",
    SessionExpires "Session-Expires" b'x' "RFC 4028",
    MinSe "Min-SE" 0 "RFC 4028",
    RSeq "RSeq" 0 "RFC 3262",
    RAck "RAck" 0 "RFC 3262",
    PAssertedIdentity "P-Asserted-Identity" 0 "RFC 3325",
    PPreferredIdentity "P-Preferred-Identity" 0 "RFC 3325",
    Privacy "Privacy" 0 "RFC 3323",
    Diversion "Diversion" 0 "RFC 5806",
    HistoryInfo "History-Info" 0 "RFC 7044",
    AlertInfo "Alert-Info" 0 "RFC 3261 section 20.4",
    CallInfo "Call-Info" 0 "RFC 3261 section 20.9",
    Date "Date" 0 "RFC 3261 section 20.17",
    Subject "Subject" b's' "RFC 3261 section 20.36",
    Path "Path" 0 "RFC 3327",
    ServiceRoute "Service-Route" 0 "RFC 3608",
    ContentDisposition "Content-Disposition" 0 "RFC 3261 section 20.11",
    ContentEncoding "Content-Encoding" b'e' "RFC 3261 section 20.12",
    AcceptEncoding "Accept-Encoding" 0 "RFC 3261 section 20.2",
    AcceptLanguage "Accept-Language" 0 "RFC 3261 section 20.3",
    Join "Join" 0 "RFC 3911",
    Identity "Identity" b'y' "RFC 8224",
    FlowTimer "Flow-Timer" 0 "RFC 5626",
}

const SLOTS: usize = 256;
const EMPTY: u8 = u8::MAX;

/// Where a name is looked for first: its length and three of its letters tell nearly all known names apart.
const fn slot(name: &[u8]) -> usize {
    let n = name.len();
    let (first, middle, last) = (name[0] | 0x20, name[n / 2] | 0x20, name[n - 1] | 0x20);
    (n * 7 + first as usize * 31 + middle as usize * 5 + last as usize * 13) % SLOTS
}

const TABLE: [u8; SLOTS] = {
    let mut table = [EMPTY; SLOTS];
    let mut i = 0;
    while i < KNOWN.len() {
        let mut at = slot(KNOWN[i].0.as_bytes());
        while table[at] != EMPTY {
            at = (at + 1) % SLOTS;
        }
        table[at] = i as u8;
        i += 1;
    }
    table
};

const COMPACT: [Header; 26] = {
    let mut table = [Header::Other; 26];
    let mut i = 0;
    while i < KNOWN.len() {
        if KNOWN[i].1 != 0 {
            table[(KNOWN[i].1 - b'a') as usize] = KNOWN[i].2;
        }
        i += 1;
    }
    table
};

impl Header {
    /// The header of that name or compact form, in any case; [`Header::Other`] if there is none.
    pub fn parse(name: &str) -> Header {
        Header::from_bytes(name.as_bytes())
    }

    pub(super) fn from_bytes(name: &[u8]) -> Header {
        match name {
            // As nearly every message writes those that it must have.
            b"Via" => Header::Via,
            b"From" => Header::From,
            b"To" => Header::To,
            b"Call-ID" => Header::CallId,
            b"CSeq" => Header::CSeq,
            b"Contact" => Header::Contact,
            b"Max-Forwards" => Header::MaxForwards,
            b"Content-Type" => Header::ContentType,
            b"Content-Length" => Header::ContentLength,
            [] => Header::Other,
            [letter] if letter.is_ascii_alphabetic() => {
                COMPACT[usize::from(letter.to_ascii_lowercase() - b'a')]
            }
            _ => {
                let mut at = slot(name);
                while TABLE[at] != EMPTY {
                    let (known, _, header) = KNOWN[usize::from(TABLE[at])];
                    if known.as_bytes() == name || known.as_bytes().eq_ignore_ascii_case(name) {
                        return header;
                    }
                    at = (at + 1) % SLOTS;
                }
                Header::Other
            }
        }
    }
}

/// The full name of a compact form that has no variant of its own (RFC 3841, RFC 4474).
pub(super) fn long_name(name: &str) -> &str {
    match name {
        "a" | "A" => "Accept-Contact",
        "d" | "D" => "Request-Disposition",
        "j" | "J" => "Reject-Contact",
        "n" | "N" => "Identity-Info",
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for (name, _, header) in KNOWN {
            assert_eq!(Header::parse(name), *header);
            assert_eq!(Header::parse(&name.to_ascii_uppercase()), *header);
            assert_eq!(Header::parse(&name.to_ascii_lowercase()), *header);
            assert_eq!(header.name(), *name);
        }
    }

    #[test]
    fn compact_forms_are_the_ones_iana_lists() {
        let forms = [
            ("b", Header::ReferredBy),
            ("c", Header::ContentType),
            ("e", Header::ContentEncoding),
            ("f", Header::From),
            ("i", Header::CallId),
            ("k", Header::Supported),
            ("l", Header::ContentLength),
            ("m", Header::Contact),
            ("o", Header::Event),
            ("r", Header::ReferTo),
            ("s", Header::Subject),
            ("t", Header::To),
            ("u", Header::AllowEvents),
            ("v", Header::Via),
            ("x", Header::SessionExpires),
            ("y", Header::Identity),
        ];
        for (form, header) in forms {
            assert_eq!(Header::parse(form), header);
            assert_eq!(Header::parse(&form.to_ascii_uppercase()), header);
        }
        let known = ('a'..='z').filter(|c| Header::parse(&c.to_string()) != Header::Other).count();
        assert_eq!(known, forms.len());
    }

    #[test]
    fn an_unknown_name_is_other() {
        for name in ["", "X-Asterisk", "Vi", "Viaa", "Call_ID", "1", "[", "\u{fc}"] {
            assert_eq!(Header::parse(name), Header::Other, "{name}");
        }
    }
}
