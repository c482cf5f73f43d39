//! The actor of one trunk: the health of its proxies, published in the directory, where calls read it.
//!
//! A call never asks this actor: while it rests after a fault, calls go on with the health last published. What is believed is not kept
//! over a restart of the process: every proxy begins as unknown, in its place.

mod restraint;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use tandem_protocol::dialog::{self, NoAnswer};
use tandem_protocol::flow::Flow;
use tandem_protocol::message::{Builder, Header, Message, Method};
use tandem_protocol::proxy_list::Proxy;
use tandem_protocol::time::{Instant, Now};
use tandem_protocol::transaction::Timers;
use tandem_protocol::trunk_health::{Cause, Input, Output, Qualified, State, TrunkHealth};

use crate::calls::check;
use crate::directory::{ProxyStatus, TrunkEntry};
use crate::env::{Env, Fire, Tell, TimerKey, Told};
use crate::events::{Event, EventKind};
use crate::metrics::ActorKind;
use crate::owner::Owner;
use crate::shard::{Adopted, Fault, NamedDown, SendRequest, Shard, TrunkReport};
use crate::shell::{Fed, Injection, Machine, Shell};
use crate::sip::endpoint::Outgoing;
use crate::store::{Batch, Urgency};
use crate::supervisor::Guard;
use crate::timer_wheel::TimerId;

pub(crate) use restraint::Restrained;
use restraint::Restraints;

const FORMAT: u8 = 2;
/// OPTIONS are given up after so many T1, and so repeated three times: what takes longer is of no use to a call.
const QUALIFY_T1: u32 = 8;

impl Machine for TrunkHealth {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, input: &Input, now: Now, out: &mut Vec<Output>) {
        TrunkHealth::handle(self, input, now.mono, out);
    }

    fn deadline(&self) -> Option<Instant> {
        TrunkHealth::deadline(self)
    }

    fn blank() -> TrunkHealth {
        TrunkHealth::new(&[], None, 0, Instant::default())
    }

    fn freeze(&self) -> Option<Bytes> {
        crate::checkpoint::freeze(FORMAT, self)
    }

    fn thaw(frozen: &Bytes) -> Option<TrunkHealth> {
        crate::checkpoint::thaw(FORMAT, frozen)
    }
}

/// A trunk's calls go to these from now on: what DNS says, while the trunk runs.
#[derive(Clone, Debug)]
pub struct Proxies(pub Vec<Proxy>);

/// The actor.
pub struct TrunkActor {
    env: Env,
    shard: Addr<Shard>,
    entry: Arc<TrunkEntry>,
    shell: Shell<TrunkHealth>,
    /// Of its OPTIONS.
    call_id: String,
    tag: String,
    /// The proxies that want fewer calls.
    restrained: Restraints,
    timer: Option<TimerId>,
    fault: Fault,
    _guard: Guard,
}

impl TrunkActor {
    pub(crate) fn launch(env: &Env, shard: &Addr<Shard>, entry: Arc<TrunkEntry>) -> Addr<TrunkActor> {
        let (fault, guard) = NamedDown::guard(env, shard, ActorKind::Trunk, &entry.config.name);
        let proxies: Vec<_> = entry.proxies().iter().map(|p| p.proxy.address).collect();
        for proxy in entry.proxies().iter() {
            proxy.publish(ProxyStatus::default());
        }
        let interval = entry.config.qualify_interval;
        let health = TrunkHealth::new(&proxies, interval, env.random(), env.now().mono);
        TrunkActor {
            env: env.clone(),
            shard: shard.clone(),
            call_id: env.name(),
            tag: env.name(),
            entry,
            shell: Shell::new(health),
            restrained: Restraints::default(),
            timer: None,
            fault,
            _guard: guard,
        }
        .start()
    }

    fn feed(&mut self, input: &Input, ctx: &mut Context<Self>) {
        if self.env.inject_panic(ActorKind::Trunk) {
            self.shell.inject(Injection::Once);
        }
        let now = self.env.now();
        let mut out = Vec::new();
        match self.shell.feed(input, now, &mut out) {
            Fed::Well => {}
            Fed::Rebuilt { panic } => {
                NamedDown::note_rebuilt(&self.env, ActorKind::Trunk, &self.entry.config.name, &panic)
            }
            Fed::Lost { panic } => {
                *self.fault.borrow_mut() = Some(panic);
                ctx.stop();
            }
        }
        for output in out {
            match output {
                Output::Changed { proxy, state, cause } => self.changed(proxy, state, cause, now),
                Output::Trial(proxy) => {
                    if let Some(entry) = self.entry.proxy(proxy) {
                        entry.offer_trial();
                    }
                }
                Output::Qualify { proxy, number } => self.qualify(proxy, number, ctx),
            }
        }
        self.arm();
    }

    fn arm(&self) {
        if let Some(timer) = self.timer {
            let machine = self.shell.machine().deadline();
            self.env.arm(timer, machine.into_iter().chain(self.restrained.deadline()).min());
        }
    }

    /// A proxy's state is another: calls, people and the log learn it.
    fn changed(&self, proxy: SocketAddr, state: State, cause: Cause, now: Now) {
        let Some(entry) = self.entry.proxy(proxy).filter(|_| !self.env.is_fenced()) else { return };
        let before = entry.state();
        let (trunk, reason) = (self.entry.config.name.to_string(), cause.to_string());
        entry.publish(ProxyStatus { state, since: Some(now.wall), cause: Some(reason.clone()) });
        let (was, is) = (before.as_str(), state.as_str());
        if before == State::Unknown && state == State::Up {
            tracing::info!(trunk, %proxy, was, is, reason, "a proxy changed");
        } else {
            tracing::warn!(trunk, %proxy, was, is, reason, "a proxy changed");
        }
        let event = Event::new(now.wall, EventKind::TrunkState, reason).with("trunk", trunk);
        let event = event.with("proxy", proxy.to_string()).with("state", is).with("was", was);
        let mut batch = Batch::new(Urgency::Lazy);
        batch.events.push(event.with("up", i64::from(state != State::Down)));
        self.env.submit(batch);
    }

    /// Sends OPTIONS outside any dialog (RFC 3261 §11).
    fn qualify(&self, proxy: SocketAddr, number: u32, ctx: &Context<Self>) {
        let config = &self.entry.config;
        let place = self.env.config().listener_id(config.listener);
        let local = self.entry.local_side(false);
        let uri = format!("sip:{proxy}");
        let us =
            self.env.config().listener(place).map_or_else(String::new, |l| l.external.as_str().to_owned());
        let branch = format!("z9hG4bK{}.{number:x}", self.tag);
        let mut message = Builder::request("OPTIONS", &uri);
        message.header(Header::Via, format_args!("{};branch={branch};rport", local.via));
        message.header(Header::MaxForwards, 70);
        message.header(Header::From, format_args!("<sip:{us}>;tag={}", self.tag));
        message.header(Header::To, format_args!("<{uri}>"));
        message.header(Header::CallId, &self.call_id);
        message.header(Header::CSeq, format_args!("{number} OPTIONS"));
        message.header(Header::Contact, &local.contact);
        message.header(Header::Accept, check::ACCEPT);
        let give_up = config.timers.t1 * QUALIFY_T1;
        let connect = config.timers.connect.map(|connect| connect.min(give_up));
        let timers = Timers { give_up, connect, timer_f: None, ..config.timers };
        let outgoing = Outgoing {
            message: message.finish(None),
            method: Method::Options,
            branch,
            cseq: number,
            to: Flow::to(place, proxy),
            timers,
        };
        self.shard.tell(SendRequest { outgoing, owner: Owner::Other(ctx.address().downgrade().recipient()) });
    }

    /// Any response shows that somebody is there (RFC 3261 §11 asks for nothing more of it).
    fn qualified(&mut self, response: &Message, ctx: &mut Context<Self>) {
        let asked = self.shell.machine().asked(response.cseq());
        if let Some(entry) = asked.and_then(|proxy| self.entry.proxy(proxy)) {
            entry.note_alive(self.env.now().mono);
        }
        let busy = response.retry_after().filter(|_| response.status() == 503);
        let rest = busy.map(|seconds| Duration::from_secs(seconds.into()));
        self.feed(&Input::Qualified(response.cseq(), Qualified::Answered(rest)), ctx);
    }
}

impl Actor for TrunkActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.timer = Some(self.env.timer(TimerKey::Actor(ctx.address().downgrade().recipient())));
        self.resume_restraints();
        self.arm();
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            self.env.forget(timer);
        }
    }
}

impl Handler<Told<TrunkReport>> for TrunkActor {
    type Result = ();
    fn handle(&mut self, told: Told<TrunkReport>, ctx: &mut Context<Self>) {
        let TrunkReport { proxy, seen, .. } = told.0;
        self.feed(&Input::Seen(proxy, seen), ctx);
    }
}

impl Handler<Told<Proxies>> for TrunkActor {
    type Result = ();
    fn handle(&mut self, told: Told<Proxies>, ctx: &mut Context<Self>) {
        let addresses: Vec<SocketAddr> = told.0.0.iter().map(|proxy| proxy.address).collect();
        let listener = self.env.config().listener_id(self.entry.config.listener);
        if self.env.config().transport(listener).is_reliable() {
            addresses.iter().for_each(|address| self.env.directory().stream_peers.note(address.ip()));
        }
        self.entry.set_proxies(&told.0.0, self.env.metrics());
        self.feed(&Input::Proxies(addresses), ctx);
    }
}

/// What is believed of the proxies that stay is kept.
impl Handler<Told<Adopted>> for TrunkActor {
    type Result = ();
    fn handle(&mut self, told: Told<Adopted>, ctx: &mut Context<Self>) {
        self.env.adopt(&told.0.0);
        let Some(entry) = self.env.directory().trunk(&self.entry.config.name) else { return };
        if !Arc::ptr_eq(entry, &self.entry) {
            self.entry = entry.clone();
            let addresses = self.entry.proxies().iter().map(|entry| entry.proxy.address).collect();
            self.feed(&Input::Proxies(addresses), ctx);
        }
    }
}

impl Handler<Told<dialog::Input>> for TrunkActor {
    type Result = ();
    fn handle(&mut self, told: Told<dialog::Input>, ctx: &mut Context<Self>) {
        match told.0 {
            dialog::Input::Response(response) if response.status() >= 200 => self.qualified(&response, ctx),
            dialog::Input::Unanswered { cseq, why, .. } => {
                let what = match why {
                    NoAnswer::Timeout => Qualified::Silent,
                    NoAnswer::Transport => Qualified::Unreachable,
                };
                self.feed(&Input::Qualified(cseq, what), ctx);
            }
            dialog::Input::Response(_)
            | dialog::Input::Request { .. }
            | dialog::Input::Cancelled { .. }
            | dialog::Input::Credentials { .. }
            | dialog::Input::Command(_)
            | dialog::Input::Timeout => {}
        }
    }
}

impl Handler<Told<Fire>> for TrunkActor {
    type Result = ();
    fn handle(&mut self, _: Told<Fire>, ctx: &mut Context<Self>) {
        self.look_at_restraints();
        self.feed(&Input::Timeout, ctx);
    }
}

impl Handler<Told<Injection>> for TrunkActor {
    type Result = ();
    fn handle(&mut self, told: Told<Injection>, ctx: &mut Context<Self>) {
        self.shell.inject(told.0);
        self.feed(&Input::Timeout, ctx);
    }
}
