//! A user agent as the client: it calls, ends and registers (RFC 3261 §8.1).

use super::super::Msg;
use super::super::digest::Challenge;
use super::{Leg, Ua, token};

impl Ua {
    /// Sends the next request of a dialog.
    pub(crate) fn next(&self, leg: &mut Leg, method: &str, headers: &str, body: &str) {
        leg.cseq += 1;
        let branch = format!("z9hG4bK{}", token());
        let text = self.text(leg, method, &leg.target, &branch, headers, body);
        if method == "INVITE" {
            leg.branch = branch;
            leg.invite_uri = leg.target.clone();
            leg.invite = text.clone();
        }
        self.send(text);
    }

    /// Calls, and answers the challenge. The next message is the first response to the INVITE with credentials.
    #[track_caller]
    pub(crate) fn call(&self, number: &str, sdp: &str) -> Leg {
        self.call_with(number, "", sdp)
    }

    /// [`Ua::call`] with more headers.
    #[track_caller]
    pub(crate) fn call_with(&self, number: &str, headers: &str, sdp: &str) -> Leg {
        self.call_from(self.leg(number), headers, sdp)
    }

    /// [`Ua::call`] of whom this leg is for.
    #[track_caller]
    pub(crate) fn call_as(&self, leg: Leg, sdp: &str) -> Leg {
        self.call_from(leg, "", sdp)
    }

    #[track_caller]
    fn call_from(&self, mut leg: Leg, headers: &str, sdp: &str) -> Leg {
        self.next(&mut leg, "INVITE", headers, sdp);
        let challenge = self.response("INVITE", 401);
        self.ack(&leg, &challenge);
        let challenge = Challenge::parse(challenge.header("WWW-Authenticate"));
        let answer = challenge.answer(&self.user, &self.password, "INVITE", &leg.target, 1);
        self.next(&mut leg, "INVITE", &format!("{headers}Authorization: {answer}\r\n"), sdp);
        leg
    }

    /// Acknowledges a final response to our INVITE: within the transaction a refusal, on its own a 2xx.
    pub(crate) fn ack(&self, leg: &Leg, response: &Msg) {
        let mut ack = leg.clone();
        ack.cseq = response.cseq();
        ack.remote = response.header("To").to_owned();
        let text = if response.status().is_some_and(|status| status < 300) {
            self.text(&ack, "ACK", &response.contact(), &format!("z9hG4bK{}", token()), "", "")
        } else {
            self.text(&ack, "ACK", &leg.invite_uri, &leg.branch, "", "")
        };
        self.send(text);
    }

    /// Waits for the 200 to our INVITE, acknowledges it, and makes the leg a dialog.
    #[track_caller]
    pub(crate) fn established(&self, leg: &mut Leg) -> Msg {
        let answer = self.response("INVITE", 200);
        self.accept(leg, &answer);
        answer
    }

    /// Acknowledges a 200 to our INVITE and makes the leg a dialog.
    pub(crate) fn accept(&self, leg: &mut Leg, answer: &Msg) {
        if !leg.remote.contains(";tag=") {
            leg.routes = answer.record_routes();
            leg.routes.reverse();
        }
        self.ack(leg, answer);
        leg.remote = answer.header("To").to_owned();
        leg.target = answer.contact();
    }

    /// Waits for the refusal of our INVITE and acknowledges it.
    #[track_caller]
    pub(crate) fn refused(&self, leg: &Leg) -> Msg {
        let answer = self.final_response("INVITE");
        assert!(answer.status().is_some_and(|status| status >= 300), "{answer:?}");
        self.ack(leg, &answer);
        answer
    }

    /// Cancels our last INVITE.
    pub(crate) fn cancel(&self, leg: &Leg) {
        self.send(self.text(leg, "CANCEL", &leg.invite_uri, &leg.branch, "", ""));
    }

    /// Ends the dialog and waits for the 200.
    #[track_caller]
    pub(crate) fn hang_up(&self, leg: &mut Leg) {
        self.next(leg, "BYE", "", "");
        self.response("BYE", 200);
    }

    /// Registers `contacts` (Contact values; none is our own) and gives the final response.
    #[track_caller]
    pub(crate) fn register(&self, contacts: &[&str], headers: &str) -> Msg {
        let mut leg = self.registration();
        let first = self.register_once(&mut leg, contacts, headers);
        if first.status() != Some(401) {
            return first;
        }
        let challenge = Challenge::parse(first.header("WWW-Authenticate"));
        let answer = challenge.answer(&self.user, &self.password, "REGISTER", &leg.target, 1);
        self.register_once(&mut leg, contacts, &format!("{headers}Authorization: {answer}\r\n"))
    }

    /// A registration that has not begun.
    pub(crate) fn registration(&self) -> Leg {
        let mut leg = self.leg(&self.user);
        leg.target = leg.target.replacen(&format!("{}@", self.user), "", 1);
        leg
    }

    /// Sends one REGISTER and gives its final response.
    #[track_caller]
    pub(crate) fn register_once(&self, leg: &mut Leg, contacts: &[&str], headers: &str) -> Msg {
        leg.cseq += 1;
        let branch = format!("z9hG4bK{}", token());
        let text = self.text(leg, "REGISTER", &leg.target, &branch, headers, "");
        // The request of everything else has its own Contact; this one has those that are asked for.
        let own = format!("Contact: <{}>\r\n", self.contact());
        let asked: String = contacts.iter().map(|contact| format!("Contact: {contact}\r\n")).collect();
        self.send(if contacts.is_empty() { text } else { text.replacen(&own, &asked, 1) });
        self.final_response("REGISTER")
    }

    /// Registers its own contact for ten minutes.
    #[track_caller]
    pub(crate) fn registered(self) -> Ua {
        let answer = self.register(&[], "Expires: 600\r\n");
        assert_eq!(answer.status(), Some(200), "{answer:?}");
        self
    }
}
