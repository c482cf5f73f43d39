//! Transactions that we begin (RFC 3261 §17.1).

use bytes::Bytes;
use tandem_protocol::dialog::{Input, NoAnswer};
use tandem_protocol::flow::Flow;
use tandem_protocol::message::feedback::Feedback;
use tandem_protocol::message::{Builder, Header, Limits, Message, Method};
use tandem_protocol::time::Instant;
use tandem_protocol::transaction::{ClientAction, Expiry, InviteClient, NonInviteClient, Timers};

use super::{Endpoint, Name, New, Outgoing, TransactionKey};
use crate::env::{Leftover, TimerKey, Unsent};
use crate::owner::Owner;
use crate::seat::Figure;
use crate::shard::LinkMessage;
use crate::timer_wheel::TimerId;

pub(super) enum ClientMachine {
    Invite(InviteClient),
    NonInvite(NonInviteClient),
}

pub(super) struct Client {
    pub(super) machine: ClientMachine,
    name: Name,
    timer: TimerId,
    /// By which it went.
    pub(super) flow: Flow,
    /// By which it was to go.
    pub(super) asked: Flow,
    /// The datagram to send when the stream does not come about.
    pub(super) fallback: Option<(Flow, Bytes)>,
    /// It was sent once more because its connection had ended.
    pub(super) moved: bool,
    pub(super) method: Method,
    cseq: u32,
    pub(super) timers: Timers,
    /// The request, until nothing can ask for it again.
    pub(super) request: Option<Bytes>,
    owner: Option<Owner>,
}

impl ClientMachine {
    fn new(now: Instant, method: Method, timers: Timers, reliable: bool) -> ClientMachine {
        if method == Method::Invite {
            ClientMachine::Invite(InviteClient::new(now, timers, reliable))
        } else {
            ClientMachine::NonInvite(NonInviteClient::new(now, timers, reliable))
        }
    }

    pub(super) fn is_unanswered(&self) -> bool {
        match self {
            ClientMachine::Invite(machine) => machine.is_unanswered(),
            ClientMachine::NonInvite(machine) => machine.is_unanswered(),
        }
    }
}

impl Client {
    /// Begins the transaction again with this datagram in place of its message by a stream.
    pub(super) fn begin_anew(&mut self, now: Instant, datagram: Bytes) {
        self.machine = ClientMachine::new(now, self.method, self.timers, false);
        self.request = Some(datagram);
    }
}

impl Endpoint {
    pub(super) fn receive_response(&mut self, response: Message, flow: Flow) -> Option<New> {
        let now = self.env.now().mono;
        let method = response.method();
        let id = response
            .branch()
            .and_then(|branch| self.client_names.get(&self.client_name(branch, method)).copied());
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
        let asked = client.asked;
        if let Some(said) = Feedback::of(&response.via()) {
            for trunk in self.env.directory().hear_feedback(asked, said, now) {
                let home = self.env.directory().home(&trunk);
                self.env.link(home, LinkMessage::Restrained { trunk, proxy: asked.remote });
            }
        }
        let action = match &mut client.machine {
            ClientMachine::Invite(machine) => machine.response(now, response.status()),
            ClientMachine::NonInvite(machine) => machine.response(now, response.status()),
        };
        let owner = client.owner.clone();
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
        let is_refusal = response.status() >= 300;
        match owner.filter(Owner::lives) {
            Some(owner) => {
                owner.tell(Input::Response(response));
                None
            }
            // Its refusal is acknowledged by the transaction.
            None => unclaimed(response, flow).filter(|_| !is_refusal),
        }
    }

    /// Sends a request in a new client transaction.
    pub(crate) fn send(&mut self, out: Outgoing, owner: Option<Owner>) {
        let now = self.env.now().mono;
        if out.method == Method::Cancel {
            self.invite_cancelled(&out.branch, now);
        }
        let hop = self.hop(&out);
        let reliable = self.transport(hop.flow).is_reliable();
        self.next += 1;
        let id = self.next;
        let name = self.client_name(&out.branch, out.method);
        self.client_names.insert(name, id);
        let timer = self.env.timer(TimerKey::Transaction(TransactionKey::Client(id)));
        let how = (Leftover::Dropped, out.timers.connect);
        let sent = self.transmit_or_elsewhere(hop.flow, &hop.message, out.method, how);
        let client = Client {
            machine: ClientMachine::new(now, out.method, out.timers, reliable),
            name,
            timer,
            flow: hop.flow,
            asked: out.to,
            fallback: hop.fallback,
            moved: false,
            method: out.method,
            cseq: out.cseq,
            timers: out.timers,
            request: Some(hop.message),
            owner,
        };
        self.clients.insert(id, Box::new(client));
        self.env.count(Figure::Transactions, 1);
        match sent {
            Ok(flow) => self.went_by(id, flow),
            Err(Unsent::Full) => self.arm_client(id),
            Err(Unsent::Unreachable) => self.give_up(id, NoAnswer::Transport),
        }
    }

    fn invite_cancelled(&mut self, branch: &str, now: Instant) {
        let Some(id) = self.client_names.get(&self.client_name(branch, Method::Invite)).copied() else {
            return;
        };
        if let Some(ClientMachine::Invite(machine)) = self.clients.get_mut(&id).map(|c| &mut c.machine) {
            machine.cancelled(now);
            self.arm_client(id);
        }
    }

    /// The CSeq number of such a transaction of ours, while it goes on.
    pub(crate) fn sends(&self, branch: &str, method: Method) -> Option<u32> {
        let id = self.client_names.get(&self.client_name(branch, method))?;
        self.clients.get(id).map(|client| client.cseq)
    }

    pub(super) fn client_name(&self, branch: &str, method: Method) -> Name {
        Name::of_client(self.names_key, branch, method)
    }

    /// Sends an ACK for a 2xx.
    pub(crate) fn send_ack(&mut self, message: &Bytes, to: Flow) {
        self.post(to, message, Method::Ack);
    }

    pub(super) fn arm_client(&mut self, id: u64) {
        if let Some(client) = self.clients.get(&id) {
            let at = match &client.machine {
                ClientMachine::Invite(machine) => machine.deadline(),
                ClientMachine::NonInvite(machine) => machine.deadline(),
            };
            self.env.arm(client.timer, at);
        }
    }

    pub(super) fn client_timeout(&mut self, id: u64) {
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
                let sent = request.map(|request| self.transmit(flow, &request, method, Leftover::Dropped));
                if matches!(sent, Some(Err(Unsent::Unreachable))) {
                    self.give_up(id, NoAnswer::Transport);
                } else {
                    self.arm_client(id);
                }
            }
            Expiry::GaveUp => self.give_up(id, NoAnswer::Timeout),
            Expiry::Terminated => self.remove_client(id),
        }
    }

    pub(super) fn give_up(&mut self, id: u64, why: NoAnswer) {
        if let Some(client) = self.clients.get(&id)
            && let Some(owner) = &client.owner
        {
            owner.tell(Input::Unanswered { method: client.method, cseq: client.cseq, why });
        }
        self.remove_client(id);
    }

    fn remove_client(&mut self, id: u64) {
        if let Some(client) = self.clients.remove(&id) {
            self.client_names.remove(&client.name);
            self.forget_flow(id, client.flow);
            self.env.forget(client.timer);
            self.env.count(Figure::Transactions, -1);
        }
    }
}

/// A response to an INVITE that nobody waits for may have to be ended; 100 says nothing that could.
fn unclaimed(response: Message, flow: Flow) -> Option<New> {
    let tells = response.method() == Method::Invite && response.status() > 100;
    tells.then_some(New::Answer(response, flow))
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
