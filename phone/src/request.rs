//! A request that the phone sends, as data: it can be printed, cancelled, acknowledged and sent again with
//! credentials.

use std::net::SocketAddr;

use rsip::headers as h;
use rsip::headers::untyped::UntypedHeader;
use rsip::{Header, Headers};
use serde::{Deserialize, Serialize};

use crate::api::Transport;
use crate::wire;

/// The methods that the phone implements, for Allow; UPDATE if it has that.
pub(crate) fn allow(updates: bool) -> &'static str {
    if updates {
        "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, PRACK, UPDATE"
    } else {
        "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, PRACK"
    }
}

/// One request without its Via.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outgoing {
    pub(crate) method: String,
    pub(crate) uri: String,
    /// Where it is sent.
    pub(crate) to_addr: SocketAddr,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) call_id: String,
    pub(crate) cseq: u32,
    pub(crate) routes: Vec<String>,
    pub(crate) contact: Option<String>,
    /// Seconds for Expires (REGISTER).
    pub(crate) expires: Option<u32>,
    /// Further header fields, by name and value.
    pub(crate) extra: Vec<(String, String)>,
    /// SDP.
    pub(crate) body: Option<String>,
    /// Authorization (false) or Proxy-Authorization (true) and its value.
    pub(crate) credentials: Vec<(bool, String)>,
    /// How many challenges of a user agent and of a proxy this request has answered.
    pub(crate) challenged: [u8; 2],
}

impl Outgoing {
    /// The CANCEL of this INVITE, RFC 3261 section 9.1.
    pub(crate) fn cancel(&self) -> Outgoing {
        Outgoing {
            method: "CANCEL".into(),
            contact: None,
            extra: Vec::new(),
            body: None,
            credentials: Vec::new(),
            ..self.clone()
        }
    }

    /// The ACK of a final response other than 2xx, RFC 3261 section 17.1.1.3; `to` is the response's To.
    pub(crate) fn ack(&self, to: &str) -> Outgoing {
        let (contact, extra, body) = (None, Vec::new(), None);
        Outgoing { method: "ACK".into(), contact, extra, body, to: to.to_owned(), ..self.clone() }
    }

    /// The value of a further header field.
    pub(crate) fn extra(&self, name: &str) -> Option<&str> {
        self.extra.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The bytes to send.
    pub(crate) fn print(
        &self,
        local: SocketAddr,
        transport: Transport,
        branch: &str,
        updates: bool,
    ) -> Vec<u8> {
        let mut headers: Vec<Header> = vec![
            h::Via::new(format!("SIP/2.0/{} {local};branch={branch};rport", transport.via())).into(),
            h::MaxForwards::new("70").into(),
        ];
        headers.extend(self.routes.iter().map(|route| Header::from(h::Route::new(route.clone()))));
        headers.push(h::From::new(self.from.clone()).into());
        headers.push(h::To::new(self.to.clone()).into());
        headers.push(h::CallId::new(self.call_id.clone()).into());
        headers.push(h::CSeq::new(format!("{} {}", self.cseq, self.method)).into());
        headers.extend(self.contact.iter().map(|contact| Header::from(h::Contact::new(contact.clone()))));
        headers.extend(self.expires.map(|seconds| Header::from(h::Expires::new(seconds.to_string()))));
        for (proxy, value) in &self.credentials {
            headers.push(match proxy {
                true => h::ProxyAuthorization::new(value.clone()).into(),
                false => h::Authorization::new(value.clone()).into(),
            });
        }
        if self.method != "ACK" && self.method != "CANCEL" {
            headers.push(h::Allow::new(allow(updates)).into());
        }
        headers.extend(self.extra.iter().map(|(name, value)| Header::Other(name.clone(), value.clone())));
        headers.push(h::UserAgent::new("tandem-phone").into());
        if self.body.is_some() {
            headers.push(h::ContentType::new("application/sdp").into());
        }
        let body = self.body.clone().unwrap_or_default().into_bytes();
        headers.push(h::ContentLength::from(body.len() as u32).into());
        let request = rsip::Request {
            method: self.method.parse().unwrap_or(rsip::Method::Options),
            uri: wire::uri(&self.uri),
            version: rsip::Version::V2,
            headers: Headers::from(headers),
            body,
        };
        request.into()
    }
}
