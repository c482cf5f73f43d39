//! A dialog: what its requests have in common, RFC 3261 section 12.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::request::Outgoing;
use crate::text;
use crate::wire::{Head, Request, Response};

/// One dialog, from our side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Dialog {
    pub(crate) call_id: String,
    pub(crate) local_tag: String,
    pub(crate) remote_tag: Option<String>,
    /// Our From (or To), tag included.
    local: String,
    /// The peer's, with its tag once that is known.
    remote: String,
    /// The peer's Contact.
    target: String,
    routes: Vec<String>,
    cseq: u32,
    /// The highest CSeq of the peer's requests.
    pub(crate) remote_cseq: Option<u32>,
    /// Where requests go when neither route nor target names an address.
    server: SocketAddr,
}

impl Dialog {
    /// The dialog that an INVITE of ours to `uri` will make.
    pub(crate) fn calling(ep: &mut Endpoint, uri: &str) -> Dialog {
        let local_tag = ep.rng.token();
        Dialog {
            call_id: ep.rng.token(),
            local: format!("{};tag={local_tag}", ep.identity()),
            local_tag,
            remote_tag: None,
            remote: format!("<{uri}>"),
            target: uri.to_owned(),
            routes: Vec::new(),
            cseq: 0,
            remote_cseq: None,
            server: ep.config.server,
        }
    }

    /// The dialog that the INVITE of somebody else makes.
    pub(crate) fn called(ep: &mut Endpoint, invite: &Request) -> Dialog {
        let head = &invite.head;
        let local_tag = ep.rng.token();
        Dialog {
            call_id: head.call_id.clone(),
            local: format!("{};tag={local_tag}", head.to_text),
            local_tag,
            remote_tag: head.from.tag.clone(),
            remote: head.from_text.clone(),
            target: head.contact().map_or_else(|| head.from.uri.clone(), |contact| contact.uri),
            routes: head.record_routes(),
            cseq: 0,
            remote_cseq: Some(head.cseq),
            server: ep.config.server,
        }
    }

    /// The key of the table of dialogs: Call-ID and our tag.
    pub(crate) fn key(call_id: &str, local_tag: &str) -> String {
        format!("{call_id} {local_tag}")
    }

    /// Another phone has the same dialog but for our tag.
    pub(crate) fn rename(&mut self, local_tag: &str) {
        self.local = self.local.replacen(&self.local_tag, local_tag, 1);
        local_tag.clone_into(&mut self.local_tag);
    }

    /// Takes what a response to our initial INVITE says about the dialog, RFC 3261 section 12.1.2.
    pub(crate) fn learn(&mut self, response: &Response) {
        let head = &response.head;
        self.remote_tag.clone_from(&head.to.tag);
        self.remote.clone_from(&head.to_text);
        self.routes = head.record_routes();
        self.routes.reverse();
        self.refresh_target(head);
    }

    /// A target refresh: the Contact of an INVITE or of its 2xx.
    pub(crate) fn refresh_target(&mut self, head: &Head) {
        if let Some(contact) = head.contact() {
            self.target = contact.uri;
        }
    }

    /// The same dialog with another peer, for a forked 2xx.
    pub(crate) fn fork(&self, response: &Response) -> Dialog {
        let mut other = self.clone();
        other.learn(response);
        other
    }

    /// The next request, in the dialog that a provisional response to our INVITE names (RFC 3262 section 4).
    pub(crate) fn request_within(&mut self, ep: &Endpoint, response: &Response, method: &str) -> Outgoing {
        if self.remote_tag.is_none() {
            self.learn(response);
        }
        let mut early = self.fork(response);
        let request = early.request(ep, method);
        self.cseq = early.cseq;
        request
    }

    /// A request with the CSeq before the last one's, if there was one.
    pub(crate) fn request_too_late(&self, ep: &Endpoint, method: &str) -> Option<Outgoing> {
        (self.cseq > 1).then(|| self.outgoing(ep, method, self.cseq - 1))
    }

    /// Gives a request that is sent again with credentials its new CSeq.
    pub(crate) fn renumber(&mut self, request: &mut Outgoing) {
        self.cseq += 1;
        request.cseq = self.cseq;
    }

    /// The next request of this dialog.
    pub(crate) fn request(&mut self, ep: &Endpoint, method: &str) -> Outgoing {
        self.cseq += 1;
        self.outgoing(ep, method, self.cseq)
    }

    /// The ACK of the 2xx to `invite`, RFC 3261 section 13.2.2.4.
    pub(crate) fn ack(&self, ep: &Endpoint, invite: &Outgoing) -> Outgoing {
        let credentials = invite.credentials.clone();
        Outgoing { contact: None, credentials, ..self.outgoing(ep, "ACK", invite.cseq) }
    }

    fn outgoing(&self, ep: &Endpoint, method: &str, cseq: u32) -> Outgoing {
        Outgoing {
            method: method.to_owned(),
            uri: self.target.clone(),
            to_addr: self.next_hop(),
            from: self.local.clone(),
            to: self.remote.clone(),
            call_id: self.call_id.clone(),
            cseq,
            routes: self.routes.clone(),
            contact: matches!(method, "INVITE" | "UPDATE").then(|| ep.contact()),
            expires: None,
            extra: Vec::new(),
            body: None,
            credentials: Vec::new(),
            challenged: [0, 0],
        }
    }

    /// The first route's address, else the target's (every proxy is taken for a loose router).
    fn next_hop(&self) -> SocketAddr {
        let uri = match self.routes.first() {
            Some(route) => text::name_addr(route).map_or_else(|| self.target.clone(), |addr| addr.uri),
            None => self.target.clone(),
        };
        text::socket_addr(text::uri_host_port(&uri)).unwrap_or(self.server)
    }
}
