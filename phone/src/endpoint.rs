//! The transaction layer of one phone: the table, the deadlines and the two queues out.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{Event, PhoneConfig, Transport};
use crate::digest::{Challenge, Identity};
use crate::manners::Reliability;
use crate::request::{Outgoing, allow};
use crate::rng::Rng;
use crate::timer::{T4, Timer, Timers};
use crate::transaction::{Client, ClientState, ClientStep, Owner, Server, ServerState, ServerStep};
use crate::wire::{self, Message, Reply, ReplyBase, Request, Response};

/// What a datagram means to the layer above.
#[derive(Debug)]
pub(crate) enum Input {
    /// Nothing: absorbed here.
    Absorbed,
    /// A new request with its server transaction.
    Request(u64, Request),
    /// An ACK that belongs to no server transaction: for a 2xx.
    Ack(Request),
    /// A response to be handled.
    Response(u64, Owner, Response),
    /// A 2xx of a second dialog; the request it answers is given.
    Fork(Box<Outgoing>, Response),
}

/// The state that the calls and the registration of a phone share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) config: PhoneConfig,
    pub(crate) rng: Rng,
    pub(crate) timers: Timers,
    pub(crate) events: VecDeque<Event>,
    pub(crate) outbox: VecDeque<(SocketAddr, Vec<u8>)>,
    clients: BTreeMap<u64, Client>,
    client_keys: BTreeMap<String, u64>,
    servers: BTreeMap<u64, Server>,
    server_keys: BTreeMap<String, u64>,
    next_id: u64,
    /// The last challenge of a user agent (0) and of a proxy (1), used again until it is replaced.
    challenges: [Option<Challenge>; 2],
}

fn client_key(branch: &str, method: &str) -> String {
    format!("{branch} {method}")
}

fn server_key(request: &Request, method: &str) -> String {
    format!("{} {} {method}", request.head.branch(), request.head.sent_by())
}

impl Endpoint {
    pub(crate) fn new(config: PhoneConfig) -> Endpoint {
        Endpoint {
            rng: Rng::new(config.seed),
            config,
            timers: Timers::default(),
            events: VecDeque::new(),
            outbox: VecDeque::new(),
            clients: BTreeMap::new(),
            client_keys: BTreeMap::new(),
            servers: BTreeMap::new(),
            server_keys: BTreeMap::new(),
            next_id: 0,
            challenges: [None, None],
        }
    }

    /// Everything is forgotten but the source of new names.
    pub(crate) fn restart(&mut self) {
        let fresh = Endpoint::new(self.config.clone());
        let old = std::mem::replace(self, fresh);
        (self.rng, self.next_id, self.events) = (old.rng, old.next_id, old.events);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.servers.is_empty()
    }

    /// Whether a client transaction still waits for its final response.
    pub(crate) fn is_open(&self, tx: u64) -> bool {
        let client = self.clients.get(&tx);
        client.is_some_and(|c| matches!(c.state, ClientState::Calling | ClientState::Proceeding))
    }

    pub(crate) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn protocol(&mut self, what: impl Into<String>) {
        self.events.push_back(Event::Protocol { what: what.into(), call_id: None });
    }

    /// A complaint of a timer about what this Call-ID names.
    pub(crate) fn protocol_of(&mut self, call_id: &str, what: impl Into<String>) {
        let call_id = Some(call_id.to_owned());
        self.events.push_back(Event::Protocol { what: what.into(), call_id });
    }

    /// The Contact of this phone.
    pub(crate) fn contact(&self) -> String {
        let transport = match self.config.transport {
            Transport::Udp => "",
            Transport::Tcp => ";transport=tcp",
        };
        format!("<sip:{}@{}{transport}>", self.config.user, self.config.local)
    }

    /// The Allow of this phone.
    pub(crate) fn allow(&self) -> &'static str {
        allow(self.config.manners.updates)
    }

    /// Whether a Require may ask for this option.
    pub(crate) fn supports(&self, option: &str) -> bool {
        let manners = &self.config.manners;
        option.eq_ignore_ascii_case("100rel") && manners.reliable != Reliability::None
            || option.eq_ignore_ascii_case("timer") && manners.timer.is_some()
    }

    /// The phone's From without tag.
    pub(crate) fn identity(&self) -> String {
        let uri = format!("<sip:{}@{}>", self.config.user, self.config.domain);
        match &self.config.display {
            Some(name) => format!("\"{}\" {uri}", name.replace(['"', '\\', '\r', '\n'], " ")),
            None => uri,
        }
    }

    /// Starts a client transaction; known challenges are answered in advance.
    pub(crate) fn send(&mut self, now: Duration, mut request: Outgoing, owner: Owner) -> u64 {
        let branch = format!("z9hG4bK{}", self.rng.token());
        if request.method != "CANCEL" && request.credentials.is_empty() {
            for proxy in [false, true] {
                self.add_credentials(&mut request, proxy);
            }
        }
        self.start(now, request, owner, branch)
    }

    /// Sends the CANCEL of an INVITE of ours: same branch, its own transaction (RFC 3261 section 9.1).
    pub(crate) fn send_cancel(&mut self, now: Duration, invite: u64, owner: Owner) {
        let Some(client) = self.clients.get(&invite) else { return };
        let (request, branch) = (client.request.cancel(), client.branch.clone());
        self.start(now, request, owner, branch);
    }

    /// Sends what is not part of a transaction of its own: the ACK of a 2xx.
    pub(crate) fn send_ack(&mut self, invite: Option<u64>, ack: &Outgoing) {
        let branch = format!("z9hG4bK{}", self.rng.token());
        let bytes = ack.print(self.config.local, self.config.transport, &branch, self.config.manners.updates);
        if let Some(client) = invite.and_then(|tx| self.clients.get_mut(&tx)) {
            client.ack = Some((ack.to_addr, bytes.clone()));
        }
        self.outbox.push_back((ack.to_addr, bytes));
    }

    /// The request of a client transaction.
    pub(crate) fn request(&self, tx: u64) -> Option<&Outgoing> {
        self.clients.get(&tx).map(|client| &client.request)
    }

    fn start(&mut self, now: Duration, request: Outgoing, owner: Owner, branch: String) -> u64 {
        let id = self.fresh_id();
        let t1 = self.config.t1;
        let bytes =
            request.print(self.config.local, self.config.transport, &branch, self.config.manners.updates);
        self.outbox.push_back((request.to_addr, bytes.clone()));
        if self.config.transport == Transport::Udp {
            self.timers.set(Timer::ClientRetransmit(id), now + t1);
        }
        self.timers.set(Timer::ClientEnd(id), now + t1 * 64);
        let key = client_key(&branch, &request.method);
        self.client_keys.insert(key.clone(), id);
        let (state, interval) = (ClientState::Calling, t1);
        let client = Client { key, branch, request, bytes, owner, state, interval, ack: None, answer: None };
        self.clients.insert(id, client);
        id
    }

    /// Ends a client transaction without a word.
    pub(crate) fn forget_client(&mut self, tx: u64) {
        self.timers.cancel(Timer::ClientRetransmit(tx));
        self.timers.cancel(Timer::ClientEnd(tx));
        if let Some(client) = self.clients.remove(&tx) {
            self.client_keys.remove(&client.key);
        }
    }

    fn forget_server(&mut self, tx: u64) {
        self.timers.cancel(Timer::ServerRetransmit(tx));
        self.timers.cancel(Timer::ServerEnd(tx));
        if let Some(server) = self.servers.remove(&tx) {
            self.server_keys.remove(&server.key);
        }
    }

    /// Answers a request; gives the bytes and their destination, which the user of an INVITE keeps for a 2xx.
    pub(crate) fn respond(
        &mut self,
        now: Duration,
        tx: u64,
        reply: Reply<'_>,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let t1 = self.config.t1;
        let server = self.servers.get_mut(&tx)?;
        let status = reply.status;
        // RFC 6026 section 7.1: the 2xx of another branch.
        let further = server.state == ServerState::Accepted && server.invite && (200..300).contains(&status);
        if server.state != ServerState::Proceeding && !further {
            return None;
        }
        let bytes = reply.print(&server.base);
        let to = server.base.to_addr;
        if further {
            self.outbox.push_back((to, bytes.clone()));
            return Some((to, bytes));
        }
        server.last = Some(bytes.clone());
        self.outbox.push_back((to, bytes.clone()));
        match server.on_answer(status) {
            ServerStep::Nothing => {}
            ServerStep::AwaitAck => {
                if self.config.transport == Transport::Udp {
                    self.timers.set(Timer::ServerRetransmit(tx), now + t1);
                }
                self.timers.set(Timer::ServerEnd(tx), now + t1 * 64);
            }
            ServerStep::Linger => self.timers.set(Timer::ServerEnd(tx), now + t1 * 64),
        }
        Some((to, bytes))
    }

    /// The INVITE server transaction that a CANCEL means, RFC 3261 section 9.2.
    pub(crate) fn cancelled_invite(&self, cancel: &Request) -> Option<u64> {
        self.server_keys.get(&server_key(cancel, "INVITE")).copied()
    }

    /// Takes a datagram.
    pub(crate) fn receive(&mut self, now: Duration, from: SocketAddr, datagram: &[u8]) -> Input {
        // Keep-alives, RFC 5626 section 4.4 and the single CRLF or NUL that others send.
        if datagram.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Input::Absorbed;
        }
        match wire::parse(datagram) {
            Ok(Message::Request(request)) => self.on_request(now, from, request),
            Ok(Message::Response(response)) => self.on_response(now, response),
            Err(error) => {
                self.protocol(format!("unreadable message from {from}: {error}"));
                Input::Absorbed
            }
        }
    }

    fn on_request(&mut self, now: Duration, from: SocketAddr, request: Request) -> Input {
        let is_ack = request.method == "ACK";
        let key = server_key(&request, if is_ack { "INVITE" } else { &request.method });
        let Some(&id) = self.server_keys.get(&key) else {
            return if is_ack { Input::Ack(request) } else { self.new_server(key, from, request) };
        };
        let Some(server) = self.servers.get_mut(&id) else { return Input::Absorbed };
        if !is_ack {
            if let Some(bytes) = server.on_repeat() {
                self.outbox.push_back((server.base.to_addr, bytes.to_vec()));
            }
            return Input::Absorbed;
        }
        match server.state {
            ServerState::Completed => {
                server.state = ServerState::Confirmed;
                self.timers.cancel(Timer::ServerRetransmit(id));
                self.timers.set(Timer::ServerEnd(id), now + T4);
                Input::Absorbed
            }
            ServerState::Accepted => {
                self.protocol("the ACK of a 2xx has the branch of its INVITE");
                Input::Ack(request)
            }
            ServerState::Proceeding => {
                self.protocol("an ACK came before any final response");
                Input::Absorbed
            }
            ServerState::Confirmed => Input::Absorbed,
        }
    }

    fn new_server(&mut self, key: String, from: SocketAddr, request: Request) -> Input {
        let id = self.fresh_id();
        self.server_keys.insert(key.clone(), id);
        let server = Server {
            key,
            base: ReplyBase::new(&request.head, from),
            invite: request.method == "INVITE",
            state: ServerState::Proceeding,
            last: None,
            interval: self.config.t1,
        };
        self.servers.insert(id, server);
        Input::Request(id, request)
    }

    /// Drops a request without an answer, as if it had never come.
    pub(crate) fn ignore(&mut self, tx: u64) {
        self.forget_server(tx);
    }

    fn on_response(&mut self, now: Duration, response: Response) -> Input {
        let (status, head) = (response.status, &response.head);
        let key = client_key(head.branch(), &head.cseq_method);
        let found = self.client_keys.get(&key).and_then(|id| Some((*id, self.clients.get_mut(id)?)));
        let Some((id, client)) = found else {
            self.protocol(format!("response {status} to {} without transaction", head.cseq_method));
            return Input::Absorbed;
        };
        let step = client.on_response(status, head.to.tag.as_deref());
        let owner = client.owner;
        match step {
            ClientStep::Provisional => {
                if client.is_invite() {
                    self.timers.cancel(Timer::ClientRetransmit(id));
                    // Timer B guards Calling only.
                    self.timers.cancel(Timer::ClientEnd(id));
                }
                Input::Response(id, owner, response)
            }
            ClientStep::Final => {
                let end = now + client.linger(self.config.t1);
                if client.is_invite() && status >= 300 {
                    let ack = client.request.ack(&head.to_text);
                    let bytes = ack.print(
                        self.config.local,
                        self.config.transport,
                        &client.branch,
                        self.config.manners.updates,
                    );
                    client.ack = Some((ack.to_addr, bytes.clone()));
                    self.outbox.push_back((ack.to_addr, bytes));
                }
                self.timers.cancel(Timer::ClientRetransmit(id));
                self.timers.set(Timer::ClientEnd(id), end);
                Input::Response(id, owner, response)
            }
            ClientStep::Repeated => {
                self.outbox.extend(client.ack.clone());
                Input::Absorbed
            }
            ClientStep::Fork => Input::Fork(Box::new(client.request.clone()), response),
            ClientStep::Contradiction => {
                let first = client.answer.as_ref().map_or(0, |(status, _)| *status);
                self.protocol(format!("two final answers to {}: {first}, then {status}", head.cseq_method));
                Input::Absorbed
            }
            ClientStep::Late => Input::Absorbed,
        }
    }

    /// Answers the challenge of a 401 or 407: the request to send again, with a new CSeq still to be set.
    ///
    /// A second challenge is answered only if it says that just the nonce was stale (RFC 7616 section 3.3).
    pub(crate) fn answer_challenge(&mut self, tx: u64, response: &Response) -> Option<Outgoing> {
        let proxy = match response.status {
            401 => false,
            407 => true,
            _ => return None,
        };
        self.config.password.as_ref()?;
        let challenge = response.head.challenges(proxy).into_iter().find_map(Challenge::parse)?;
        let mut request = self.clients.get(&tx)?.request.clone();
        let kind = usize::from(proxy);
        if request.challenged[kind] > u8::from(challenge.stale) {
            return None;
        }
        let known = &mut self.challenges[kind];
        let tried = request.credentials.iter().any(|(of_proxy, _)| *of_proxy == proxy);
        // The same nonce refused again, and not as stale: the password is wrong.
        if tried && !challenge.stale && known.as_ref().is_some_and(|k| k.same_nonce(&challenge)) {
            return None;
        }
        request.challenged[kind] += 1;
        *known = Some(challenge);
        request.credentials.clear();
        self.add_credentials(&mut request, false);
        self.add_credentials(&mut request, true);
        Some(request)
    }

    fn add_credentials(&mut self, request: &mut Outgoing, proxy: bool) {
        let (Some(password), Some(challenge)) =
            (&self.config.password, &mut self.challenges[usize::from(proxy)])
        else {
            return;
        };
        let user = self.config.auth_user.as_deref().unwrap_or(&self.config.user);
        let cnonce = self.rng.token();
        let who = Identity { user, password };
        let value = challenge.authorize(who, &request.method, &request.uri, &cnonce);
        request.credentials.push((proxy, value));
    }

    /// A transaction timer fired; gives the request that timed out and its owner, if one did.
    pub(crate) fn on_client_end(&mut self, tx: u64) -> Option<(Owner, String)> {
        let open = self.is_open(tx);
        let client = self.clients.get(&tx)?;
        let what = (client.owner, client.request.method.clone());
        self.forget_client(tx);
        open.then_some(what)
    }

    pub(crate) fn on_client_retransmit(&mut self, now: Duration, tx: u64) {
        let Some(client) = self.clients.get_mut(&tx) else { return };
        if let Some(interval) = client.on_retransmit() {
            self.outbox.push_back((client.request.to_addr, client.bytes.clone()));
            self.timers.set(Timer::ClientRetransmit(tx), now + interval);
        }
    }

    pub(crate) fn on_server_retransmit(&mut self, now: Duration, tx: u64) {
        let Some(server) = self.servers.get_mut(&tx) else { return };
        if let Some(interval) = server.on_retransmit() {
            let to = server.base.to_addr;
            self.outbox.extend(server.last.clone().map(|bytes| (to, bytes)));
            self.timers.set(Timer::ServerRetransmit(tx), now + interval);
        }
    }

    pub(crate) fn on_server_end(&mut self, tx: u64) {
        let Some(server) = self.servers.get(&tx) else { return };
        if server.invite && server.state == ServerState::Completed {
            let call_id = server.base.call_id.clone();
            self.protocol_of(&call_id, "ACK missing after a refused INVITE");
        }
        self.forget_server(tx);
    }
}
