//! The transactions of one shard: values in a table, not actors.
//!
//! The endpoint parses what comes, finds its transaction, absorbs retransmissions, and says what is new. It knows who owns a
//! transaction only by a weak address: an owner that has ended simply hears nothing any more.

use actix::WeakRecipient;
use bytes::Bytes;
use tandem_protocol::dialog::{Input, NoAnswer, ServerTransactionId};
use tandem_protocol::flow::Flow;
use tandem_protocol::message::framing::is_keepalive;
use tandem_protocol::message::{
    Builder, Header, Limits, Malformed, Message, Method, bad_request, reason_of, reason_phrase, response_to,
};
use tandem_protocol::transaction::{
    ClientAction, Expiry, InviteClient, InviteServer, NonInviteClient, NonInviteServer, ServerAction, Timers,
};

use super::trace::{Direction, Trace};
use crate::env::{Datagram, Env, Tell, TimerKey, Told, Unsent};
use crate::map::Map;
use crate::timer_wheel::TimerId;

/// Names a transaction for its timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionKey {
    /// One that we answer.
    Server(u64),
    /// One that we began.
    Client(u64),
}

/// Who hears of a transaction.
pub(crate) type Owner = WeakRecipient<Told<Input>>;

enum ServerMachine {
    Invite(InviteServer),
    NonInvite(NonInviteServer),
}

struct Server {
    machine: ServerMachine,
    name: Box<str>,
    timer: TimerId,
    flow: Flow,
    /// Needed until the final response: a 100 and a 487 are written from it.
    request: Option<Message>,
    last_response: Option<Bytes>,
    owner: Option<Owner>,
    /// A CANCEL came before the owner did.
    cancelled: Option<Input>,
}

enum ClientMachine {
    Invite(InviteClient),
    NonInvite(NonInviteClient),
}

struct Client {
    machine: ClientMachine,
    name: Box<str>,
    timer: TimerId,
    flow: Flow,
    method: Method,
    cseq: u32,
    /// The request, until nothing can ask for it again.
    request: Option<Bytes>,
    owner: Option<Owner>,
}

/// What a datagram turned out to be, if it is nobody's yet.
pub(crate) enum New {
    /// A request outside all transactions. It has none until [`Endpoint::accept`] makes one.
    Request(Message, Flow),
    /// An ACK that belongs to no transaction: for a dialog.
    Ack(Message, Flow),
    /// A 2xx to an INVITE that nobody waits for: for a dialog, or to be ended.
    Answer(Message, Flow),
}

/// A request to send in a new client transaction.
pub(crate) struct Outgoing {
    pub(crate) message: Bytes,
    pub(crate) method: Method,
    pub(crate) branch: String,
    pub(crate) cseq: u32,
    pub(crate) to: Flow,
    pub(crate) timers: Timers,
}

/// The transaction table of a shard.
pub(crate) struct Endpoint {
    env: Env,
    servers: Map<u64, Server>,
    server_names: Map<Box<str>, u64>,
    clients: Map<u64, Client>,
    client_names: Map<Box<str>, u64>,
    next: u64,
    trace: Trace,
}

impl Endpoint {
    pub(crate) fn new(env: Env) -> Endpoint {
        let trace = Trace::new(env.config().sip_trace_bytes);
        // Unpredictable, so that a checkpoint of an earlier process cannot name a transaction of this one.
        let next = env.random() & 0x0000_ffff_ffff_0000;
        let key = env.random();
        Endpoint {
            env,
            servers: crate::map::new(key),
            server_names: crate::map::new(key ^ 1),
            clients: crate::map::new(key ^ 2),
            client_names: crate::map::new(key ^ 3),
            next,
            trace,
        }
    }

    pub(crate) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// How many transactions there are.
    pub(crate) fn len(&self) -> usize {
        self.servers.len() + self.clients.len()
    }

    fn timers(&self, listener: u16) -> Timers {
        self.env.config().listeners.get(usize::from(listener)).map_or_else(Timers::default, |l| l.timers)
    }

    fn limits(&self, listener: u16) -> Limits {
        self.env.config().listeners.get(usize::from(listener)).map_or_else(Limits::default, |l| l.limits)
    }

    /// Takes a datagram; what is new is handed back.
    pub(crate) fn receive(&mut self, datagram: &Datagram) -> Option<New> {
        if is_keepalive(&datagram.bytes) {
            return None;
        }
        let limits = self.limits(datagram.flow.listener);
        let message = match Message::parse(datagram.bytes.clone(), &limits) {
            Ok(message) => message,
            Err(malformed) => {
                self.refuse_malformed(&malformed, datagram.flow);
                return None;
            }
        };
        self.env.metrics().message_in(message.method());
        self.trace.keep(self.env.now().wall, Direction::In, datagram.flow, &datagram.bytes);
        if message.is_request() {
            self.receive_request(message, datagram.flow)
        } else {
            self.receive_response(message, datagram.flow)
        }
    }

    fn refuse_malformed(&mut self, malformed: &Malformed, flow: Flow) {
        self.env.metrics().sip_dropped.increment(1);
        tracing::debug!(peer = %flow.remote, why = %malformed, "not SIP");
        if let Some(answerable) = &malformed.answer
            && answerable.is_request
            && answerable.method_name != "ACK"
        {
            if answerable.method_name == "INVITE" {
                self.env.metrics().refuse(crate::metrics::Refusal::Malformed);
            }
            let reason = malformed.to_string();
            let answer = bad_request(answerable, flow.remote, malformed.status(), &reason);
            self.post(flow, &answer, Method::Other);
        }
    }

    fn receive_request(&mut self, request: Message, flow: Flow) -> Option<New> {
        let name = server_name(&request, request.method());
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
        if action == ServerAction::Send
            && let Some(response) = server.last_response.clone()
        {
            let flow = server.flow;
            self.post(flow, &response, request.method());
        }
        None
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
        let invite = self.server_names.get(&server_name(cancel, Method::Invite)).copied();
        let Some(server) = invite.and_then(|id| self.servers.get_mut(&id)) else {
            self.reply(cancel, flow, 481, &[]);
            return;
        };
        if matches!(&server.machine, ServerMachine::Invite(machine) if machine.may_cancel()) {
            let cancelled = Input::Cancelled { reason: reason_of(cancel) };
            match &server.owner {
                Some(owner) => owner.upgrade().into_iter().for_each(|owner| owner.tell(cancelled.clone())),
                None => server.cancelled = Some(cancelled),
            }
        }
        self.reply(cancel, flow, 200, &[]);
    }

    fn receive_response(&mut self, response: Message, flow: Flow) -> Option<New> {
        let now = self.env.now().mono;
        let method = response.method();
        let id = response
            .via()
            .branch()
            .and_then(|branch| self.client_names.get(&client_name(branch, method)).copied());
        let Some((id, client)) = id.and_then(|id| Some((id, self.clients.get_mut(&id)?))) else {
            tracing::debug!(
                status = response.status(),
                call = response.call_id(),
                "response without transaction"
            );
            return unclaimed(response, flow);
        };
        if client.cseq != response.cseq() {
            return None;
        }
        let action = match &mut client.machine {
            ClientMachine::Invite(machine) => machine.response(now, response.status()),
            ClientMachine::NonInvite(machine) => machine.response(now, response.status()),
        };
        let owner = client.owner.as_ref().and_then(WeakRecipient::upgrade);
        if matches!(action, ClientAction::Ack | ClientAction::PassUpAndAck) {
            let flow = client.flow;
            if let Some(ack) = client.request.as_ref().and_then(|invite| ack_of(invite, &response)) {
                self.post(flow, &ack, Method::Ack);
            }
        } else if response.status() >= 200 {
            client.request = None;
        }
        self.arm_client(id);
        if !matches!(action, ClientAction::PassUp | ClientAction::PassUpAndAck) {
            return None;
        }
        match owner {
            Some(owner) => {
                owner.tell(Input::Response(response));
                None
            }
            None => unclaimed(response, flow),
        }
    }

    /// Makes a server transaction for a new request. Its owner hears of a CANCEL.
    pub(crate) fn accept(&mut self, request: &Message, flow: Flow) -> ServerTransactionId {
        let now = self.env.now().mono;
        let timers = self.timers(flow.listener);
        let machine = if request.method() == Method::Invite {
            ServerMachine::Invite(InviteServer::new(now, timers, false))
        } else {
            ServerMachine::NonInvite(NonInviteServer::new(now, timers, false))
        };
        self.next += 1;
        let id = self.next;
        let name = server_name(request, request.method());
        self.server_names.insert(name.clone(), id);
        let timer = self.env.timer(TimerKey::Transaction(TransactionKey::Server(id)));
        let request = Some(request.clone());
        self.servers.insert(
            id,
            Server { machine, name, timer, flow, request, last_response: None, owner: None, cancelled: None },
        );
        self.env.metrics().transactions_active.increment(1.0);
        self.arm_server(id);
        ServerTransactionId(id)
    }

    /// Says who hears of a server transaction.
    pub(crate) fn own(&mut self, transaction: ServerTransactionId, owner: Owner) {
        if let Some(server) = self.servers.get_mut(&transaction.0) {
            if let Some(cancelled) = server.cancelled.take()
                && let Some(owner) = owner.upgrade()
            {
                owner.tell(cancelled);
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
        let now = self.env.now().mono;
        let Some(server) = self.servers.get_mut(&transaction.0) else {
            self.post(to, &message, Method::Other);
            return;
        };
        let (action, method) = match &mut server.machine {
            ServerMachine::Invite(machine) => (machine.respond(now, status), Method::Invite),
            ServerMachine::NonInvite(machine) => (machine.respond(now, status), Method::Other),
        };
        if action != ServerAction::Send {
            return;
        }
        let keep = method != Method::Invite || !(200..300).contains(&status);
        server.last_response = keep.then(|| message.clone());
        if status >= 200 {
            server.request = None;
        }
        let flow = server.flow;
        self.post(flow, &message, method);
        self.arm_server(transaction.0);
    }

    /// Answers a request without keeping anything: the same request gets the same answer again.
    pub(crate) fn reply(&mut self, request: &Message, flow: Flow, status: u16, extra: &[(Header, &str)]) {
        let response = answer(request, flow, status, extra);
        self.post(flow, &response, request.method());
    }

    /// Answers a request in a transaction of its own. For one whose credentials were accepted: its nonce count is
    /// used, so the same request that comes again must find its answer and not be judged anew.
    pub(crate) fn reply_once(
        &mut self,
        request: &Message,
        flow: Flow,
        status: u16,
        extra: &[(Header, &str)],
    ) {
        let transaction = self.accept(request, flow);
        self.respond(transaction, status, answer(request, flow, status, extra), flow);
    }

    /// Sends a request in a new client transaction.
    pub(crate) fn send(&mut self, out: Outgoing, owner: Option<Owner>) {
        let now = self.env.now().mono;
        let machine = if out.method == Method::Invite {
            ClientMachine::Invite(InviteClient::new(now, out.timers, false))
        } else {
            ClientMachine::NonInvite(NonInviteClient::new(now, out.timers, false))
        };
        self.next += 1;
        let id = self.next;
        let name = client_name(&out.branch, out.method);
        self.client_names.insert(name.clone(), id);
        let timer = self.env.timer(TimerKey::Transaction(TransactionKey::Client(id)));
        let sent = self.transmit(out.to, &out.message, out.method);
        let client = Client {
            machine,
            name,
            timer,
            flow: out.to,
            method: out.method,
            cseq: out.cseq,
            request: Some(out.message),
            owner,
        };
        self.clients.insert(id, client);
        self.env.metrics().transactions_active.increment(1.0);
        if sent == Err(Unsent::Unreachable) {
            self.give_up(id, NoAnswer::Transport);
        } else {
            self.arm_client(id);
        }
    }

    /// True while such a transaction of ours goes on.
    pub(crate) fn is_sending(&self, branch: &str, method: Method) -> bool {
        self.client_names.contains_key(&client_name(branch, method))
    }

    /// Sends an ACK for a 2xx.
    pub(crate) fn send_ack(&mut self, message: &Bytes, to: Flow) {
        self.post(to, message, Method::Ack);
    }

    /// Sends what retransmission will repeat if it is lost.
    fn post(&mut self, flow: Flow, message: &Bytes, method: Method) {
        if let Err(why) = self.transmit(flow, message, method) {
            tracing::debug!(peer = %flow.remote, %why, "a message was not sent");
        }
    }

    fn transmit(&mut self, flow: Flow, message: &Bytes, method: Method) -> Result<(), Unsent> {
        self.env.metrics().message_out(method);
        self.trace.keep(self.env.now().wall, Direction::Out, flow, message);
        self.env.transmit(flow, message.clone())
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

    fn arm_client(&mut self, id: u64) {
        if let Some(client) = self.clients.get(&id) {
            let at = match &client.machine {
                ClientMachine::Invite(machine) => machine.deadline(),
                ClientMachine::NonInvite(machine) => machine.deadline(),
            };
            self.env.arm(client.timer, at);
        }
    }

    /// A transaction's deadline has passed.
    pub(crate) fn timeout(&mut self, key: TransactionKey) {
        match key {
            TransactionKey::Server(id) => self.server_timeout(id),
            TransactionKey::Client(id) => self.client_timeout(id),
        }
    }

    fn server_timeout(&mut self, id: u64) {
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
                    self.env.metrics().transactions_active.decrement(1.0);
                }
            }
        }
    }

    fn client_timeout(&mut self, id: u64) {
        let now = self.env.now().mono;
        let Some(client) = self.clients.get_mut(&id) else { return };
        let expiry = match &mut client.machine {
            ClientMachine::Invite(machine) => machine.timeout(now),
            ClientMachine::NonInvite(machine) => machine.timeout(now),
        };
        match expiry {
            Expiry::Nothing | Expiry::Trying => self.arm_client(id),
            Expiry::Retransmit => {
                let (flow, method, request) = (client.flow, client.method, client.request.clone());
                let sent = request.map(|request| self.transmit(flow, &request, method));
                if sent == Some(Err(Unsent::Unreachable)) {
                    self.give_up(id, NoAnswer::Transport);
                } else {
                    self.arm_client(id);
                }
            }
            Expiry::GaveUp => self.give_up(id, NoAnswer::Timeout),
            Expiry::Terminated => self.remove_client(id),
        }
    }

    fn give_up(&mut self, id: u64, why: NoAnswer) {
        if let Some(client) = self.clients.get(&id)
            && let Some(owner) = client.owner.as_ref().and_then(WeakRecipient::upgrade)
        {
            owner.tell(Input::Unanswered { method: client.method, cseq: client.cseq, why });
        }
        self.remove_client(id);
    }

    fn remove_client(&mut self, id: u64) {
        if let Some(client) = self.clients.remove(&id) {
            self.client_names.remove(&client.name);
            self.env.forget(client.timer);
            self.env.metrics().transactions_active.decrement(1.0);
        }
    }
}

/// A response whose owner has gone matters only if the peer believes that it has made a dialog.
fn unclaimed(response: Message, flow: Flow) -> Option<New> {
    let answer = response.method() == Method::Invite && (200..300).contains(&response.status());
    answer.then_some(New::Answer(response, flow))
}

fn answer(request: &Message, flow: Flow, status: u16, extra: &[(Header, &str)]) -> Bytes {
    let tag = stateless_tag(request);
    let mut response = response_to(request, Some(flow.remote), status, reason_phrase(status), Some(&tag));
    for (header, value) in extra {
        response.header(*header, value);
    }
    response.finish(None)
}

/// RFC 3261 §17.2.3; without the magic cookie, RFC 2543's rule as far as it identifies a request.
fn server_name(request: &Message, method: Method) -> Box<str> {
    let via = request.via();
    let method = if method == Method::Ack { Method::Invite } else { method };
    let (host, port) = (via.host, via.port.unwrap_or(5060));
    match via.unique_branch() {
        Some(branch) => format!("{branch}|{host}:{port}|{}", method.as_str()).into(),
        None => {
            let (tag, call_id, cseq) = (request.from_tag().unwrap_or(""), request.call_id(), request.cseq());
            format!("{host}:{port}|{call_id}|{tag}|{cseq}|{}", method.as_str()).into()
        }
    }
}

fn client_name(branch: &str, method: Method) -> Box<str> {
    format!("{branch}|{}", method.as_str()).into()
}

/// The tag of an answer that is not kept: the same for the same request, and of no use to who has not seen it.
fn stateless_tag(request: &Message) -> String {
    let via = request.via();
    let seed = request.call_id().bytes().chain(via.branch().unwrap_or("").bytes());
    let hash = seed.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("s{hash:016x}")
}

/// The ACK of a non-2xx final (§17.1.1.3): the INVITE's Via, target and Route, the response's To.
fn ack_of(invite: &Bytes, response: &Message) -> Option<Bytes> {
    let invite = Message::parse(invite.clone(), &Limits::NONE).ok()?;
    let mut ack = Builder::request("ACK", invite.request_uri());
    ack.header(Header::Via, invite.header(Header::Via)?);
    ack.header(Header::MaxForwards, 70);
    ack.header(Header::From, invite.header(Header::From)?);
    ack.header(Header::To, response.header(Header::To)?);
    ack.header(Header::CallId, invite.call_id());
    ack.header(Header::CSeq, format_args!("{} ACK", invite.cseq()));
    for route in invite.headers(Header::Route) {
        ack.header(Header::Route, route);
    }
    Some(ack.finish(None))
}
