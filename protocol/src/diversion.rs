//! Whom a call was for before it came where it goes: Diversion (RFC 5806), the last first, and History-Info (RFC 7044), the first first.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::message::{Header, Message, NameAddr, escape_user};

/// Values that are handed on; a call that has been diverted more often goes in a circle.
const MAX_VALUES: usize = 20;

/// What is known of the way a call has taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Values of Diversion as they came.
    diversions: Vec<String>,
    /// Values of History-Info as they came.
    entries: Vec<String>,
    /// The Request-URI that came, without parameters.
    asked: String,
    /// Who has diverted the call here, in order.
    here: Vec<Diverted>,
}

/// A diversion that we have followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Diverted {
    /// The number that was called.
    number: String,
    /// The status that diverted it.
    status: u16,
}

impl History {
    /// What an INVITE says of it; `(diversion, history_info)`: whether either is believed.
    pub fn of(invite: &Message, (diversion, history_info): (bool, bool)) -> History {
        let values = |header: Header, believed: bool| -> Vec<String> {
            let well = |value: &&str| NameAddr::parse(value).is_ok();
            let values = invite.values(header).filter(well).take(if believed { MAX_VALUES } else { 0 });
            values.map(str::to_owned).collect()
        };
        let asked = invite.request_uri().split([';', '?']).next().unwrap_or_default().to_owned();
        History {
            diversions: values(Header::Diversion, diversion),
            entries: values(Header::HistoryInfo, history_info),
            asked,
            here: Vec::new(),
        }
    }

    /// The same once `number` has diverted the call with this status.
    #[must_use]
    pub fn diverted(&self, number: &str, status: u16) -> History {
        let mut history = self.clone();
        history.here.push(Diverted { number: number.to_owned(), status });
        history
    }

    /// The values of Diversion for whoever is called now, the last diversion first; `host` is ours (RFC 5806 §7).
    pub fn diversions(&self, host: &str) -> Vec<String> {
        let own = self.here.iter().rev().map(|diverted| {
            let Diverted { number, status } = diverted;
            format!("<sip:{}@{host}>;reason={};counter=1", escape_user(number), reason(*status))
        });
        own.chain(self.diversions.iter().cloned()).take(MAX_VALUES).collect()
    }

    /// The values of History-Info when `target` is called now; `host` is ours (RFC 7044 §9 and §10).
    pub fn entries(&self, host: &str, target: &str) -> Vec<String> {
        let mut entries = self.entries.clone();
        if entries.is_empty() {
            entries.push(format!("<{}>;index=1", self.asked));
        }
        // What we do is one level below the last that came.
        let last =
            entries.last().and_then(|last| NameAddr::parse(last).ok()?.param("index").map(str::to_owned));
        let parent = last.unwrap_or_else(|| "1".to_owned());
        let mut mapped = String::new();
        for (place, Diverted { number, status }) in self.here.iter().enumerate() {
            let uri = format!("sip:{}@{host}?Reason=SIP%3Bcause%3D{status}", escape_user(number));
            let index = format!("{parent}.{}", place + 1);
            entries.push(format!("<{uri}>;index={index}{mapped}"));
            mapped = format!(";mp={index}");
        }
        let mut entry = String::new();
        let index = self.here.len() + 1;
        // Writing to a String cannot fail.
        let _ = write!(entry, "{target};index={parent}.{index}{mapped}");
        entries.push(entry);
        entries
    }
}

/// The reason of a diversion by a response (RFC 5806 §4, RFC 7544 §4.2).
fn reason(status: u16) -> &'static str {
    match status {
        301 | 302 => "unconditional",
        380 | 305 => "deflection",
        486 | 600 => "user-busy",
        408 | 487 => "no-answer",
        480 | 404 | 503 => "unavailable",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::sample;

    fn invite(headers: &[(Header, &str)]) -> Message {
        sample::invite(
            "sip:2001@us;user=phone",
            headers.iter().map(|(header, value)| (header.name(), *value)),
        )
    }

    #[test]
    fn the_last_diversion_comes_first_and_each_keeps_its_reason_and_counter() {
        let came = "<sip:b@x>;reason=user-busy;counter=2;privacy=full, \"A\" <sip:a@x>;reason=no-answer";
        let history = History::of(&invite(&[(Header::Diversion, came)]), (true, true));
        assert_eq!(
            history.diverted("2001", 302).diversions("192.0.2.1"),
            [
                "<sip:2001@192.0.2.1>;reason=unconditional;counter=1",
                "<sip:b@x>;reason=user-busy;counter=2;privacy=full",
                "\"A\" <sip:a@x>;reason=no-answer",
            ]
        );
        let doubted = History::of(&invite(&[(Header::Diversion, came)]), (false, false));
        assert_eq!(doubted.diversions("h"), [""; 0]);
    }

    #[test]
    fn history_goes_on_below_what_came_and_begins_with_what_was_asked_for() {
        let fresh = History::of(&invite(&[]), (true, true));
        assert_eq!(fresh.entries("h", "<sip:9@p>"), ["<sip:2001@us>;index=1", "<sip:9@p>;index=1.1"]);
        let came = "<sip:a@x?Reason=SIP%3Bcause%3D302>;index=1, <sip:2001@us>;index=1.1;mp=1";
        let history = History::of(&invite(&[(Header::HistoryInfo, came)]), (true, true));
        assert_eq!(
            history.diverted("2001", 302).entries("h", "<sip:9@p>"),
            [
                "<sip:a@x?Reason=SIP%3Bcause%3D302>;index=1",
                "<sip:2001@us>;index=1.1;mp=1",
                "<sip:2001@h?Reason=SIP%3Bcause%3D302>;index=1.1.1",
                "<sip:9@p>;index=1.1.2;mp=1.1.1",
            ]
        );
    }

    #[test]
    fn what_is_no_address_is_not_handed_on() {
        let history = History::of(&invite(&[(Header::Diversion, "<sip:b@x, nonsense<")]), (true, true));
        assert_eq!(history.diversions("h"), [""; 0]);
    }
}
