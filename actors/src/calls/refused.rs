//! A request that is refused.

use tandem_protocol::message::{Header, reason_phrase};

use crate::metrics::Refusal;

/// How a request is refused, and why.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    /// What the status line says.
    pub(crate) phrase: &'static str,
    pub(crate) headers: Vec<(Header, String)>,
    pub(crate) why: Refusal,
    /// Its sender has proved who he is: he gets the whole answer, and the same when the request comes again.
    pub(crate) known: bool,
}

impl Refused {
    pub(crate) fn new(status: u16, why: Refusal) -> Refused {
        Refused { status, phrase: reason_phrase(status), headers: Vec::new(), why, known: false }
    }

    /// 400, which says what is wrong (RFC 3261 §21.4.1).
    pub(crate) fn bad(phrase: &'static str) -> Refused {
        Refused { phrase, ..Refused::new(400, Refusal::Malformed) }
    }

    /// The same to somebody we know.
    pub(crate) fn for_known(self) -> Refused {
        Refused { known: true, ..self }
    }

    pub(crate) fn headers(&self) -> Vec<(Header, &str)> {
        self.headers.iter().map(|(header, value)| (*header, value.as_str())).collect()
    }

    pub(crate) fn with(mut self, header: Header, value: impl Into<String>) -> Refused {
        self.headers.push((header, value.into()));
        self
    }
}
