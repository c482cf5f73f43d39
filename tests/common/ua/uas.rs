//! A user agent as the server: it answers (RFC 3261 §8.2).

use super::super::Msg;
use super::{Leg, Ua, token};

impl Ua {
    /// Answers a request. `tag` is our To tag, if it is to have one.
    pub(crate) fn respond(&self, request: &Msg, status: &str, tag: &str, headers: &str, body: &str) {
        let mut text = format!("SIP/2.0 {status}\r\n");
        for via in request.headers("Via") {
            text += &format!("Via: {via}\r\n");
        }
        for route in request.headers("Record-Route") {
            text += &format!("Record-Route: {route}\r\n");
        }
        let to = request.header("To");
        let to =
            if tag.is_empty() || to.contains(";tag=") { to.to_owned() } else { format!("{to};tag={tag}") };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        text += &format!(
            "From: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {}\r\nContact: <{}>\r\n{headers}{kind}Content-Length: {}\r\n\r\n{body}",
            request.header("From"),
            request.header("Call-ID"),
            request.header("CSeq"),
            self.contact(),
            body.len()
        );
        self.send(text);
    }

    /// The leg that an INVITE to us makes.
    pub(crate) fn leg_of(&self, invite: &Msg, tag: &str) -> Leg {
        Leg {
            call_id: invite.header("Call-ID").to_owned(),
            local: format!("{};tag={tag}", invite.header("To")),
            remote: invite.header("From").to_owned(),
            target: invite.contact(),
            routes: invite.record_routes(),
            cseq: 100,
            branch: String::new(),
            invite_uri: String::new(),
            invite: String::new(),
        }
    }

    /// Answers an INVITE with 200 and waits for its ACK.
    #[track_caller]
    pub(crate) fn answer(&self, invite: &Msg, sdp: &str) -> Leg {
        let tag = token();
        self.respond(invite, "200 OK", &tag, "", sdp);
        self.request("ACK");
        self.leg_of(invite, &tag)
    }
}
