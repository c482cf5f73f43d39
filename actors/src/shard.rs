//! A shard: one thread's share of the engine. It owns the endpoint, the free ports and the calls, and supervises its actors.

mod adopt;
mod ask;
mod awaited;
mod dialogs;
mod flows;
mod icmp;
mod invite;
mod late_prack;
mod located;
mod moved;
mod named;
mod overload;
mod place;
mod refuse;
mod registered;
mod registering;
mod replaces;
mod restore;
mod stray;
mod streams;
mod succession;
mod toll_fraud;
mod trunks;

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use bytes::Bytes;
use serde_json::Value;
use smallvec::SmallVec;
use tandem_protocol::dialog::Input;
use tandem_protocol::flow::{ConnectionId, Flow};
use tandem_protocol::message::{Message, Method};
use tandem_protocol::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

use crate::call::{CallActor, Committed};
use crate::calls::{Asks, CallKey};
use crate::dialog::DialogActor;
use crate::env::{Datagram, Env, Fire, Leftover, Tell, TimerKey, Told};
use crate::ids::ShardId;
use crate::map::Map;
use crate::media_pool::leases::Leases;
use crate::media_pool::order::{Lease, MediaEvent};
use crate::metrics::ActorKind;
use crate::owner::{Address, WeakAddress};
use crate::registrar::{Register, RegisterDone};
use crate::registration_group::GroupActor;
use crate::sip::endpoint::{Endpoint, New};
use crate::sip::icmp::Undelivered;
use crate::supervisor::{Failures, Guard};
use crate::timer_wheel::TimerId;
use crate::trunk::TrunkActor;

pub(crate) use adopt::Adopted;
pub use adopt::{Adopt, Hear};
pub use ask::{Ask, Asked, parse_call_id};
pub use icmp::NotDelivered;
pub(crate) use invite::merge_key;
pub use located::{Named, ProxyLocated};
pub(crate) use moved::guest;
pub(crate) use named::{Fault, NamedDown, SendRequest, StationIdle};
pub use overload::Overflowed;
pub use place::place;
use place::place_call_id;
pub(crate) use registered::BindingsChanged;
pub(crate) use replaces::{Declined, Seeks, name_here};
pub use restore::{Found, Restore, Restored, read_records};
pub use streams::FromStream;
pub use succession::{Estate, Succession};
pub(crate) use toll_fraud::Watch;
pub use trunks::TrunkReport;

/// What crosses from one shard, from the store or from media to a shard.
pub enum LinkMessage {
    /// A datagram that another shard's socket received.
    Datagram(Datagram),
    /// A message to send by a connection of the receiving shard.
    Send {
        /// The connection.
        flow: Flow,
        /// The message.
        message: Bytes,
        /// What becomes of it if the connection is gone.
        leftover: Leftover,
        /// Who hears if it is gone.
        from: ShardId,
    },
    /// A connection of another shard has ended, or had ended already. `was_up`: it had come about before.
    Gone {
        /// Which.
        connection: ConnectionId,
        /// Whether it had come about.
        was_up: bool,
    },
    /// A request of the receiving shard that came to nobody.
    NotDelivered(Box<Undelivered>),
    /// Tickets of committed batches: the token, and whether it was committed.
    Committed(Vec<(u64, bool)>),
    /// A verified REGISTER, for the station's shard.
    Register(Box<Register>),
    /// Its answer, for the shard it came to.
    RegisterDone(Box<RegisterDone>),
    /// A media worker's news.
    Media(MediaEvent),
    /// What a call saw of a proxy, for the trunk's shard.
    Trunk(TrunkReport),
    /// A proxy of a trunk that lives here wants another share of its calls than before (RFC 7339).
    Restrained {
        /// The trunk.
        trunk: Arc<str>,
        /// The proxy.
        proxy: SocketAddr,
    },
    /// An INVITE that names a dialog of the receiving shard's, to take its place (RFC 3891).
    Seek(Box<Asks>),
    /// A message with the Call-ID of a dialog that lives on the receiving shard, though its Call-ID is another's.
    Follows(Datagram),
    /// One of them that has nothing to do with that dialog.
    Stays(Datagram),
    /// Such a dialog has ended: what its Call-ID is known by.
    Leaves(u64),
    /// What DNS has found for a named proxy of a trunk that lives here.
    Located(ProxyLocated),
    /// Told once all control that was sent before has been taken.
    Marker(UnboundedSender<ShardId>),
    /// Nothing: a shard that takes it has got on.
    Poke,
}

/// Datagrams that came together.
pub struct Datagrams(pub SmallVec<[Datagram; 16]>);

/// The time has come that was asked for with [`crate::env::Seams::wake_at`].
pub struct Tick;

/// Messages from elsewhere, in order.
pub struct Linked(pub Vec<LinkMessage>);

/// A call's actor has ended.
pub(crate) struct CallDown(pub(crate) CallKey);

/// Ports that a call never used.
pub(crate) struct Returned(pub(crate) Vec<Lease>);

struct KnownDialog {
    /// Held until it says that it is over: it may outlive its call, to end what it began.
    dialog: Address<DialogActor>,
    /// Identifies the INVITE that made it, if it was the peer's (RFC 3261 §8.2.2.2).
    merge_key: Option<u64>,
    restored: bool,
}

/// The actor.
pub struct Shard {
    env: Env,
    /// Its own address, while a call has it.
    me: WeakAddress<Shard>,
    /// Dialogs have it do what they want done at once.
    endpoint: Rc<RefCell<Endpoint>>,
    leases: Leases,
    /// Who asked when calls can be taken, before that was so.
    awaiting_ports: Vec<UnboundedSender<Value>>,
    calls: Map<CallKey, Address<CallActor>>,
    dialogs: Map<Arc<str>, KnownDialog>,
    merges: Map<u64, Arc<str>>,
    /// Dialogs that live elsewhere, though their Call-IDs belong here.
    moved: moved::Moved,
    /// Dialogs that live here, though their Call-IDs belong elsewhere: to whom, and what they are known by there.
    guests: Map<Arc<str>, (ShardId, u64)>,
    ended: replaces::Ended,
    stations: BTreeMap<Arc<str>, named::KnownStation>,
    station_tokens: Map<u64, Arc<str>>,
    trunks: BTreeMap<Arc<str>, Addr<TrunkActor>>,
    groups: BTreeMap<Arc<str>, Addr<GroupActor>>,
    /// The stations that live here and have bindings, whether or not they have an actor.
    registered: registered::RegisteredStations,
    /// What stations that have no actor are answered, once it is committed.
    registering: registering::Registering,
    /// By which connections devices of stations that live here keep flows.
    flows: flows::StationFlows,
    /// Named actors that rest after a fault, and how often each has failed.
    resting: BTreeSet<(Instant, ActorKind, Arc<str>)>,
    failures: BTreeMap<(ActorKind, Arc<str>), Failures>,
    /// Named actors that an operator's chaos has panic at every input.
    poisoned: BTreeSet<(ActorKind, Arc<str>)>,
    timer: Option<TimerId>,
    due: Vec<TimerKey>,
    tolls: toll_fraud::TollWatch,
    strays: stray::StrayLimit,
    overload: overload::Overload,
    late_pracks: late_prack::LatePracks,
    restoring_until: Option<Instant>,
    awaited: awaited::Awaited,
    _guard: Guard,
}

impl Shard {
    /// A shard that uses `env`.
    pub fn new(env: Env) -> Shard {
        let key = env.random();
        Shard {
            me: WeakAddress::default(),
            endpoint: env.share_endpoint(Endpoint::new(env.clone())),
            leases: Leases::new(&env.config().media, env.config().shards),
            awaiting_ports: Vec::new(),
            calls: crate::map::new(key),
            dialogs: crate::map::new(key ^ 1),
            merges: crate::map::new(key ^ 2),
            moved: moved::Moved::new(key ^ 4),
            guests: crate::map::new(key ^ 5),
            ended: replaces::Ended::default(),
            stations: BTreeMap::new(),
            station_tokens: crate::map::new(key ^ 3),
            trunks: BTreeMap::new(),
            groups: BTreeMap::new(),
            registered: registered::RegisteredStations::default(),
            registering: registering::Registering::new(&env),
            flows: flows::StationFlows::default(),
            resting: BTreeSet::new(),
            failures: BTreeMap::new(),
            poisoned: BTreeSet::new(),
            timer: None,
            due: Vec::new(),
            tolls: toll_fraud::TollWatch::default(),
            strays: stray::StrayLimit::default(),
            overload: overload::Overload::new(&env),
            late_pracks: late_prack::LatePracks::default(),
            restoring_until: None,
            awaited: awaited::Awaited::default(),
            _guard: Guard::new(&env, ActorKind::Shard, |_| {}),
            env,
        }
    }

    /// What it is asked to do takes effect on the wire and in its tables; it writes to actors, and never runs them.
    fn endpoint(&self) -> RefMut<'_, Endpoint> {
        self.endpoint.borrow_mut()
    }

    fn receive(&mut self, datagram: Datagram, ctx: &mut Context<Self>) {
        match place(self.env.shared(), self.env.directory(), &datagram.bytes) {
            Some(home) if home != self.env.shard() => self.env.link(home, LinkMessage::Datagram(datagram)),
            _ => self.take(&datagram, ctx),
        }
    }

    fn take(&mut self, datagram: &Datagram, ctx: &mut Context<Self>) {
        if let Some(arrived) = datagram.arrived {
            self.took(arrived);
        }
        if self.follows(datagram) {
            return;
        }
        let new = self.endpoint().receive(datagram);
        self.act_on(new, ctx);
    }

    fn act_on(&mut self, new: Option<New>, ctx: &mut Context<Self>) {
        match new {
            Some(New::Request(request, flow)) => self.request(request, flow, ctx),
            Some(New::Ack(ack, source)) => {
                if let Some(dialog) = self.dialog_of(&ack) {
                    dialog.tell(Input::Request { transaction: None, request: ack, source });
                }
            }
            Some(New::Answer(response, source)) => self.unclaimed_answer(response, source),
            None => {}
        }
    }

    /// A request that belongs to no transaction yet.
    fn request(&mut self, request: Message, flow: Flow, ctx: &mut Context<Self>) {
        if request.to_tag().is_some() {
            self.in_dialog(request, flow);
            return;
        }
        if self.is_retired(&request, flow) {
            return;
        }
        match request.method() {
            Method::Invite => self.invite(&request, flow, ctx),
            Method::Register => self.register(&request, flow, ctx),
            Method::Options => self.options(&request, flow),
            Method::Other => self.unknown_method(&request, flow),
            Method::Ack | Method::Cancel => {}
            Method::Bye
            | Method::Info
            | Method::Update
            | Method::Prack
            | Method::Refer
            | Method::Notify
            | Method::Subscribe
            | Method::Message
            | Method::Publish => self.refuse_stranger(&request, flow),
        }
    }

    fn linked(&mut self, message: LinkMessage, ctx: &mut Context<Self>) {
        match message {
            LinkMessage::Datagram(datagram) => self.take(&datagram, ctx),
            LinkMessage::Send { flow, message, leftover, from } => {
                self.send_for(flow, message, leftover, from);
            }
            LinkMessage::Gone { connection, was_up } => {
                self.endpoint().connection_gone(connection, was_up);
                self.flows_gone(connection, ctx);
            }
            LinkMessage::NotDelivered(error) => self.not_delivered(*error),
            LinkMessage::Committed(tickets) => {
                for (token, committed) in tickets {
                    self.committed(token, committed, ctx);
                }
            }
            LinkMessage::Register(register) => self.register_here(*register, ctx),
            LinkMessage::RegisterDone(done) => done.answer(&mut self.endpoint()),
            LinkMessage::Media(event) => self.media(event),
            LinkMessage::Trunk(report) => self.trunk_report(report),
            LinkMessage::Restrained { trunk, proxy } => self.trunk_restrained(&trunk, proxy),
            LinkMessage::Located(found) => self.located(found),
            LinkMessage::Seek(asks) => self.seek_here(*asks),
            LinkMessage::Follows(datagram) => self.follower(datagram, ctx),
            LinkMessage::Stays(datagram) => self.stays(&datagram, ctx),
            LinkMessage::Leaves(key) => self.moved_leaves(key),
            LinkMessage::Marker(passed) => {
                // Whoever waits may have given up.
                let _ = passed.send(self.env.shard());
            }
            LinkMessage::Poke => self.env.seat().beat(),
        }
    }

    fn committed(&mut self, token: u64, committed: bool, ctx: &Context<Self>) {
        let (station, place) = crate::station::place_of(token);
        if registering::Registering::is_its(station) {
            self.register_committed(place, committed);
        } else if let Some(call) = self.calls.get(&CallKey(token)) {
            call.tell(Committed(committed));
        } else if let Some(name) = self.station_tokens.get(&station).cloned() {
            self.tell_station(&name, crate::station::Committed { place, well: committed }, ctx);
        }
    }

    fn media(&mut self, event: MediaEvent) {
        match event {
            MediaEvent::Granted { worker, address, pairs } => self.granted(worker, address, pairs),
            MediaEvent::Returned(pairs) => self.leases.rested(&self.env, pairs),
            MediaEvent::Reclaimed { worker } => self.leases.reclaimed(worker),
            MediaEvent::Silent(session)
            | MediaEvent::Closed { session, .. }
            | MediaEvent::Refused { session, .. }
            | MediaEvent::Restarted { session, .. } => {
                if let Some(call) = self.calls.get(&session.call) {
                    call.tell(event);
                }
            }
            MediaEvent::RecordingFailed { call, .. } => {
                if let Some(call) = self.calls.get(&call) {
                    call.tell(event);
                }
            }
        }
    }

    fn granted(&mut self, worker: u16, address: IpAddr, pairs: Vec<Lease>) {
        self.leases.granted(&self.env, worker, address, pairs);
        if self.leases.primed() {
            for reply in self.awaiting_ports.drain(..) {
                // The asker may have gone.
                let _ = reply.send(Value::Bool(true));
            }
        }
    }

    fn rearm(&mut self) {
        let registered = self.registered.deadline(self.env.now());
        let rest = self.resting.first().map(|(at, ..)| *at);
        if let Some(timer) = self.timer {
            let further = self.tolls.next.into_iter().chain(self.overload_deadline());
            let further = further.chain(self.awaited.until).chain(self.registering.deadline());
            self.env.arm(timer, registered.into_iter().chain(rest).chain(further).min());
        }
    }

    /// How many transactions, dialogs, calls and free ports there are: for the check that nothing is left behind.
    pub fn count(&self) -> (usize, usize, usize, usize) {
        (self.endpoint().len(), self.dialogs.len(), self.calls.len(), self.leases.len())
    }
}

impl Actor for Shard {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.timer = Some(self.env.timer(TimerKey::Actor(ctx.address().downgrade().recipient())));
        self.leases.prime(&self.env);
        self.start_named(ctx);
        self.rearm();
        self.succeed_another();
        self.env.seat().begin();
    }
}

impl Handler<Told<Datagrams>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<Datagrams>, ctx: &mut Context<Self>) {
        for datagram in told.0.0 {
            self.receive(datagram, ctx);
        }
    }
}

impl Handler<Told<Linked>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<Linked>, ctx: &mut Context<Self>) {
        for message in told.0.0 {
            self.linked(message, ctx);
        }
    }
}

impl Handler<Told<Tick>> for Shard {
    type Result = ();
    fn handle(&mut self, _: Told<Tick>, _: &mut Context<Self>) {
        let mut due = std::mem::take(&mut self.due);
        self.env.sweep(&mut due);
        for key in due.drain(..) {
            match key {
                TimerKey::Transaction(transaction) => self.endpoint().timeout(transaction),
                TimerKey::Call(call) => {
                    if let Some(call) = self.calls.get(&call) {
                        call.tell(Fire);
                    }
                }
                TimerKey::Dialog(dialog) => {
                    if let Some(dialog) = dialog.upgrade() {
                        dialog.tell(Fire);
                    }
                }
                TimerKey::Actor(actor) => {
                    if let Some(actor) = actor.upgrade() {
                        actor.tell(Fire);
                    }
                }
            }
        }
        self.due = due;
    }
}

impl Handler<Told<Fire>> for Shard {
    type Result = ();
    fn handle(&mut self, _: Told<Fire>, ctx: &mut Context<Self>) {
        self.expire_bindings(ctx);
        self.wake_rested(ctx);
        self.keep_alive();
        self.watch_tolls();
        self.look_at_overload();
        self.give_up_awaited();
        self.answer_overdue();
        self.rearm();
    }
}

impl Handler<Told<CallDown>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<CallDown>, _: &mut Context<Self>) {
        self.calls.remove(&told.0.0);
    }
}

impl Handler<Told<Returned>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<Returned>, _: &mut Context<Self>) {
        self.leases.returned(&self.env, told.0.0);
    }
}
