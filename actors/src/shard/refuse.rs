//! Answers to requests that have no transaction yet, nearly all refusals.

use tandem_protocol::dialog::{SUPPORTED, SUPPORTED_WITH_REPLACES};
use tandem_protocol::flow::Flow;
use tandem_protocol::message::{Header, Message, Method};

use super::Shard;
use crate::calls::{Besides, Refused, besides_calls, check, identify};
use crate::metrics::Refusal;
use crate::sip::stateless::Answer;

impl Shard {
    /// What we are, to whoever asks; a trunk that may replace calls is told that too.
    pub(super) fn options(&mut self, request: &Message, flow: Flow) {
        let transport = self.env.config().transport(flow.listener);
        match check::well_formed(request).and_then(|()| check::acceptable(request, transport)) {
            Ok(()) => {
                let accept = (Header::Accept, check::ACCEPT);
                let trunk = self.env.directory().trunk_of_source(flow, transport);
                let replaces = trunk.is_some_and(|trunk| trunk.config.rules.accept.replaces);
                let supported = if replaces { SUPPORTED_WITH_REPLACES } else { SUPPORTED };
                let headers = [(Header::Allow, check::ALLOW), accept, (Header::Supported, supported)];
                self.endpoint().reply(request, flow, Answer::new(200, &headers));
            }
            Err(refused) => self.refuse(request, flow, &refused),
        }
    }

    /// A method that we do not recognise: 501 (RFC 3261 §8.2.1, §21.5.2) to those we know. A stranger is not asked who he is; he gets
    /// what everybody gets who asks for what is not allowed.
    pub(super) fn unknown_method(&mut self, request: &Message, flow: Flow) {
        let known = check::well_formed(request).and_then(|()| identify(&self.env, request, flow));
        let refused = match known {
            Ok(_) => Refused::new(501, Refusal::NotAllowed).with(Header::Allow, check::ALLOW).for_known(),
            Err(_) => check::not_taken(request),
        };
        self.refuse(request, flow, &refused);
    }

    /// Methods that no call is made of: what a trunk may send is taken, the rest is refused plainly to those we know, and strangers must say who they are first.
    pub(super) fn refuse_stranger(&mut self, request: &Message, flow: Flow) {
        let known = check::well_formed(request).and_then(|()| identify(&self.env, request, flow));
        let refused = match known {
            Ok(caller) => {
                let transport = self.env.config().transport(flow.listener);
                match check::acceptable(request, transport).map(|()| besides_calls(&caller, request)) {
                    Ok(Besides::Taken) => {
                        return self.endpoint().reply_once(request, flow, Answer::new(200, &[]));
                    }
                    Ok(Besides::Refused(refused)) | Err(refused) => refused.for_known(),
                }
            }
            Err(refused) => refused,
        };
        self.refuse(request, flow, &refused);
    }

    /// True if a request has come by a listener that is only kept for the calls that it has. Whoever sent it is told to go elsewhere;
    /// what ends a transaction is for one that is there or never was.
    pub(super) fn is_retired(&mut self, request: &Message, flow: Flow) -> bool {
        if self.env.config().listeners.has(flow.listener) {
            return false;
        }
        if !matches!(request.method(), Method::Ack | Method::Cancel) {
            self.refuse(request, flow, &Refused::new(503, Refusal::Draining));
        }
        true
    }

    /// Every refusal of a request that has no transaction yet.
    pub(super) fn refuse(&mut self, request: &Message, flow: Flow, refused: &Refused) {
        self.env.metrics().refuse_request(request.method(), refused.why);
        tracing::debug!(
            peer = %flow.remote,
            sip_call_id = request.call_id(),
            method = request.method_name(),
            status = refused.status,
            reason = refused.why.as_str(),
            "refused"
        );
        let headers = refused.headers();
        let answer = Answer { status: refused.status, phrase: refused.phrase, headers: &headers };
        if refused.known {
            self.endpoint().reply_once(request, flow, answer);
        } else {
            self.endpoint().reply(request, flow, answer);
        }
    }
}
