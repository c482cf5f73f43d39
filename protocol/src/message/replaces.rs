//! The Replaces header (RFC 3891 §6.1): which dialog of its recipient an INVITE is to take the place of.

use super::syntax::{closing_quote, is_token, name_and_value, split};
use super::{Header, Message};

/// What an INVITE says of the dialog whose place it is to take; the tags as its recipient has them (§3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaces {
    /// The dialog's Call-ID.
    pub call_id: String,
    /// The recipient's own tag in it.
    pub to_tag: String,
    /// The tag of the recipient's peer; `0` also stands for a peer that has none.
    pub from_tag: String,
    /// The dialog is to be replaced only while it is early.
    pub early_only: bool,
}

/// Why an INVITE cannot take anybody's place, whichever dialog it names: 400 (§3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReplaces {
    /// It names more than one dialog.
    #[error("Several Replaces")]
    Several,
    /// It is to join a dialog at the same time (RFC 3911).
    #[error("Replaces And Join")]
    Join,
    /// A tag is missing or there twice, or the value cannot be read.
    #[error("Bad Replaces")]
    Malformed,
}

impl BadReplaces {
    /// The words of the 400 that says so.
    pub fn phrase(self) -> &'static str {
        match self {
            BadReplaces::Several => "Several Replaces",
            BadReplaces::Join => "Replaces And Join",
            BadReplaces::Malformed => "Bad Replaces",
        }
    }
}

impl Replaces {
    /// What a request says; `None` if it is to replace nothing.
    ///
    /// # Errors
    /// [`BadReplaces`].
    pub fn of(request: &Message) -> Result<Option<Replaces>, BadReplaces> {
        let mut all = request.headers(Header::Replaces);
        let Some(value) = all.next() else { return Ok(None) };
        if all.next().is_some() {
            return Err(BadReplaces::Several);
        }
        if request.header(Header::Join).is_some() {
            return Err(BadReplaces::Join);
        }
        Replaces::parse(value).map(Some)
    }

    /// Reads a header's value.
    ///
    /// # Errors
    /// [`BadReplaces`].
    pub fn parse(value: &str) -> Result<Replaces, BadReplaces> {
        // The characters of a Call-ID may be quotes and brackets, which enclose nothing there; a comma or a semicolon is none of them.
        let (call_id, params) = value.split_once(';').ok_or(BadReplaces::Malformed)?;
        if call_id.contains(',') || split(params, b',').nth(1).is_some() {
            return Err(BadReplaces::Several);
        }
        let call_id = call_id.trim();
        if call_id.is_empty() || call_id.contains(char::is_whitespace) {
            return Err(BadReplaces::Malformed);
        }
        let (mut to_tag, mut from_tag, mut early_only) = (None, None, false);
        for (name, value) in split(params, b';').map(name_and_value) {
            let tag = || value.filter(|tag| is_token(tag)).ok_or(BadReplaces::Malformed);
            let known = if name.eq_ignore_ascii_case("to-tag") {
                to_tag.replace(tag()?).is_some()
            } else if name.eq_ignore_ascii_case("from-tag") {
                from_tag.replace(tag()?).is_some()
            } else if name.eq_ignore_ascii_case("early-only") {
                std::mem::replace(&mut early_only, true) || value.is_some()
            } else {
                !is_token(name) || !value.is_none_or(is_value)
            };
            if known {
                return Err(BadReplaces::Malformed);
            }
        }
        let (Some(to_tag), Some(from_tag)) = (to_tag, from_tag) else { return Err(BadReplaces::Malformed) };
        let (call_id, to_tag, from_tag) = (call_id.to_owned(), to_tag.to_owned(), from_tag.to_owned());
        Ok(Replaces { call_id, to_tag, from_tag, early_only })
    }
}

/// Whether a parameter may have this value: a token, a host, or a quoted string that ends there.
fn is_value(value: &str) -> bool {
    match value.bytes().next() {
        Some(b'"') => closing_quote(value.as_bytes(), 0) == Some(value.len() - 1),
        Some(_) => !value.contains([' ', '\t', '"', '<', '>']),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::*;

    fn request(headers: &str) -> Message {
        let text = format!(
            "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:c@d>;tag=1\r\nTo: <sip:a@b>\r\n\
             Call-ID: 1\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n{headers}\r\n"
        );
        Message::parse(text.into(), &Limits::default()).unwrap()
    }

    #[test]
    fn a_dialog_is_named_by_call_id_and_both_tags() {
        // The examples of §6.1, and what its grammar allows besides.
        let cases = [
            ("98732@sip.example.com;from-tag=r33th4x0r;to-tag=ff87ff", "98732@sip.example.com", false),
            ("12adf2f34456gs5;to-tag=ff87ff;from-tag=r33th4x0r;early-only", "12adf2f34456gs5", true),
            (" <\"a>@b ; TO-TAG = ff87ff ; x=\"a;b,c\" ;From-Tag=r33th4x0r;Early-Only", "<\"a>@b", true),
        ];
        for (value, call_id, early_only) in cases {
            let (to_tag, from_tag) = ("ff87ff".to_owned(), "r33th4x0r".to_owned());
            let expected = Replaces { call_id: call_id.to_owned(), to_tag, from_tag, early_only };
            assert_eq!(Replaces::parse(value), Ok(expected), "{value}");
        }
    }

    #[test]
    fn what_names_no_dialog_or_more_than_one_is_refused() {
        let malformed = [
            "",
            "a",
            ";to-tag=a;from-tag=b",
            "a b;to-tag=a;from-tag=b",
            "a;to-tag=a",
            "a;from-tag=a",
            "a;to-tag=a;from-tag",
            "a;to-tag=a;from-tag=",
            "a;to-tag=a;from-tag=b;to-tag=c",
            "a;to-tag=a;from-tag=b;from-tag=b",
            "a;to-tag=a;from-tag=b;early-only=1",
            "a;to-tag=a;from-tag=b;early-only;early-only",
            "a;to-tag=a;from-tag=b;",
            "a;to-tag=a;from-tag=b;x=\"c",
            "a;to-tag=\"a\";from-tag=b",
        ];
        for value in malformed {
            assert_eq!(Replaces::parse(value), Err(BadReplaces::Malformed), "{value}");
        }
        let named = "Replaces: a;to-tag=b;from-tag=c";
        let of = |headers: &str| Replaces::of(&request(headers));
        assert_eq!(of(""), Ok(None));
        assert!(of(&format!("{named}\r\n")).unwrap().is_some());
        assert_eq!(of(&format!("{named}\r\n{named}\r\n")), Err(BadReplaces::Several));
        assert_eq!(of(&format!("{named}, b;to-tag=b;from-tag=c\r\n")), Err(BadReplaces::Several));
        assert_eq!(of(&format!("{named}\r\nJoin: a;to-tag=b;from-tag=c\r\n")), Err(BadReplaces::Join));
    }
}
