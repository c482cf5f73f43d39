//! Transactions that we answer (RFC 3261 §17.2).

use bytes::Bytes;
use tandem_protocol::dialog::{Input, ServerTransactionId};
use tandem_protocol::flow::Flow;
use tandem_protocol::message::feedback::{is_asked_for, with_feedback};
use tandem_protocol::message::{Message, Method, reason_of, reason_phrase, response_to};
use tandem_protocol::transaction::{Expiry, InviteServer, NonInviteServer, ServerAction};

use super::{Endpoint, Name, New, TransactionKey};
use crate::env::TimerKey;
use crate::metrics::Refusal;
use crate::owner::Owner;
use crate::seat::{Figure, Hold, Loan};
use crate::sip::stateless::Answer;
use crate::timer_wheel::TimerId;

enum ServerMachine {
    Invite(InviteServer),
    NonInvite(NonInviteServer),
}

pub(super) struct Server {
    machine: ServerMachine,
    name: Name,
    timer: TimerId,
    flow: Flow,
    /// Needed until the final response: a 100 and a 487 are written from it.
    request: Option<Message>,
    /// Its sender asks for overload feedback (RFC 7339).
    feedback: bool,
    last_response: Option<Bytes>,
    owner: Option<Owner>,
    /// An INVITE without a final response: should the shard be fenced, somebody else answers it.
    unanswered: Option<Hold>,
    /// A CANCEL came before the owner did.
    cancelled: Option<Box<Input>>,
}

impl Server {
    /// A branch alone can be guessed with some clients: a CANCEL repeats more of its INVITE (§9.1), and comes from where that came; so
    /// does the INVITE itself when it comes again.
    fn is_of_its_sender(&self, other: &Message, flow: Flow) -> bool {
        let same = |request: &Message| {
            request.call_id() == other.call_id()
                && request.from_tag() == other.from_tag()
                && request.cseq() == other.cseq()
        };
        flow.remote.ip() == self.flow.remote.ip() && self.request.as_ref().is_none_or(same)
    }
}

impl Endpoint {
    pub(super) fn receive_request(&mut self, request: Message, flow: Flow) -> Option<New> {
        let name = self.server_name(&request, request.method());
        let Some(id) = self.server_names.get(&name).copied() else {
            return self.unmatched_request(request, flow);
        };
        let now = self.env.now().mono;
        let server = self.servers.get_mut(&id)?;
        if request.method() == Method::Ack {
            let action = match &mut server.machine {
                ServerMachine::Invite(machine) => machine.ack(now),
                ServerMachine::NonInvite(_) => ServerAction::Absorb,
            };
            self.arm_server(id);
            return (action == ServerAction::PassUp).then_some(New::Ack(request, flow));
        }
        let action = match &server.machine {
            ServerMachine::Invite(machine) => machine.retransmission(),
            ServerMachine::NonInvite(machine) => machine.retransmission(),
        };
        if flow.connection.is_some() && server.is_of_its_sender(&request, flow) {
            // Its connection has ended, and it waits at this one now (§18.2.2).
            server.flow = flow;
        }
        if action == ServerAction::Send
            && let Some(response) = server.last_response.clone()
        {
            let flow = server.flow;
            self.post(flow, &response, request.method());
        }
        None
    }

    fn server_name(&self, request: &Message, method: Method) -> Name {
        Name::of_server(self.names_key, request, method)
    }

    fn unmatched_request(&mut self, request: Message, flow: Flow) -> Option<New> {
        match request.method() {
            Method::Ack => Some(New::Ack(request, flow)),
            Method::Cancel => {
                self.cancel(&request, flow);
                None
            }
            _ => Some(New::Request(request, flow)),
        }
    }

    /// RFC 3261 §9.2.
    fn cancel(&mut self, cancel: &Message, flow: Flow) {
        let invite = self.server_names.get(&self.server_name(cancel, Method::Invite)).copied();
        let server = invite.and_then(|id| Some((id, self.servers.get_mut(&id)?)));
        let Some((id, server)) = server.filter(|(_, server)| server.is_of_its_sender(cancel, flow)) else {
            self.env.metrics().refuse_request(Method::Cancel, Refusal::NoDialog);
            self.reply(cancel, flow, Answer::new(481, &[]));
            return;
        };
        if matches!(&server.machine, ServerMachine::Invite(machine) if machine.may_cancel()) {
            let transaction = ServerTransactionId(id);
            let cancelled = Input::Cancelled { transaction, reason: reason_of(cancel) };
            match &server.owner {
                Some(owner) => owner.tell(cancelled),
                None => server.cancelled = Some(Box::new(cancelled)),
            }
        }
        self.reply(cancel, flow, Answer::new(200, &[]));
    }

    /// Makes a server transaction for a new request. Its owner hears of a CANCEL.
    pub(crate) fn accept(&mut self, request: &Message, flow: Flow) -> ServerTransactionId {
        let now = self.env.now().mono;
        let via = request.via();
        let (flow, feedback) = (flow.answering(&via), is_asked_for(&via));
        let timers = self.timers(flow.listener);
        let reliable = self.transport(flow).is_reliable();
        let machine = if request.method() == Method::Invite {
            ServerMachine::Invite(InviteServer::new(now, timers, reliable))
        } else {
            ServerMachine::NonInvite(NonInviteServer::new(now, timers, reliable))
        };
        self.next += 1;
        let id = self.next;
        let name = self.server_name(request, request.method());
        self.server_names.insert(name, id);
        let timer = self.env.timer(TimerKey::Transaction(TransactionKey::Server(id)));
        let is_invite = request.method() == Method::Invite;
        let unanswered =
            is_invite.then(|| self.env.seat().lend(Loan::Invite(Box::new((request.raw().clone(), flow)))));
        let request = Some(request.clone());
        let server = Server {
            machine,
            name,
            timer,
            flow,
            request,
            feedback,
            last_response: None,
            owner: None,
            unanswered,
            cancelled: None,
        };
        self.servers.insert(id, Box::new(server));
        self.env.count(Figure::Transactions, 1);
        self.arm_server(id);
        ServerTransactionId(id)
    }

    /// Says who hears of a server transaction.
    pub(crate) fn own(&mut self, transaction: ServerTransactionId, owner: Owner) {
        if let Some(server) = self.servers.get_mut(&transaction.0) {
            if let Some(cancelled) = server.cancelled.take() {
                owner.tell(*cancelled);
            }
            server.owner = Some(owner);
        }
    }

    /// Sends a response in its transaction, or to `to` if the transaction is gone.
    pub(crate) fn respond(
        &mut self,
        transaction: ServerTransactionId,
        status: u16,
        message: Bytes,
        to: Flow,
    ) {
        let now = self.env.now();
        let Some(server) = self.servers.get_mut(&transaction.0) else {
            self.post(to, &message, Method::Other);
            return;
        };
        let (action, method) = match &mut server.machine {
            ServerMachine::Invite(machine) => (machine.respond(now.mono, status), Method::Invite),
            ServerMachine::NonInvite(machine) => (machine.respond(now.mono, status), Method::Other),
        };
        if action != ServerAction::Send {
            return;
        }
        let message = if server.feedback { with_feedback(message, self.overload, now.wall) } else { message };
        let keep = method != Method::Invite || !(200..300).contains(&status);
        server.last_response = keep.then(|| message.clone());
        if status >= 200 {
            server.request = None;
            server.unanswered = None;
        }
        let flow = server.flow;
        self.post(flow, &message, method);
        self.arm_server(transaction.0);
    }

    /// Answers a request without keeping anything: the same request gets the same answer again.
    pub(crate) fn reply(&mut self, request: &Message, flow: Flow, answer: Answer<'_>) {
        let via = request.via();
        let response = answer.write_bounded(request, flow.remote);
        let response = if is_asked_for(&via) {
            with_feedback(response, self.overload, self.env.now().wall)
        } else {
            response
        };
        self.post_here(flow.answering(&via), &response, request.method());
    }

    /// Answers a request in a transaction of its own. For one whose credentials were accepted: its nonce count is
    /// used, so the same request that comes again must find its answer and not be judged anew.
    pub(crate) fn reply_once(&mut self, request: &Message, flow: Flow, answer: Answer<'_>) {
        self.respond_once(request, flow, answer.status, answer.write(request, flow.remote));
    }

    /// The same with a response that is written already.
    pub(crate) fn respond_once(&mut self, request: &Message, flow: Flow, status: u16, response: Bytes) {
        let transaction = self.accept(request, flow);
        self.respond(transaction, status, response, flow);
    }

    fn arm_server(&mut self, id: u64) {
        if let Some(server) = self.servers.get(&id) {
            let at = match &server.machine {
                ServerMachine::Invite(machine) => machine.deadline(),
                ServerMachine::NonInvite(machine) => machine.deadline(),
            };
            self.env.arm(server.timer, at);
        }
    }

    pub(super) fn server_timeout(&mut self, id: u64) {
        let now = self.env.now().mono;
        let Some(server) = self.servers.get_mut(&id) else { return };
        let expiry = match &mut server.machine {
            ServerMachine::Invite(machine) => machine.timeout(now),
            ServerMachine::NonInvite(machine) => machine.timeout(now),
        };
        let flow = server.flow;
        match expiry {
            Expiry::Nothing => self.arm_server(id),
            Expiry::Retransmit => {
                if let Some(response) = server.last_response.clone() {
                    self.post(flow, &response, Method::Invite);
                }
                self.arm_server(id);
            }
            Expiry::Trying => {
                if let Some(request) = server.request.clone() {
                    let trying =
                        response_to(&request, Some(flow.remote), 100, reason_phrase(100), None).finish(None);
                    self.respond(ServerTransactionId(id), 100, trying, flow);
                }
            }
            Expiry::GaveUp | Expiry::Terminated => {
                if let Some(server) = self.servers.remove(&id) {
                    self.server_names.remove(&server.name);
                    self.env.forget(server.timer);
                    self.env.count(Figure::Transactions, -1);
                }
            }
        }
    }
}
