//! The actor of one trunk: the health of its proxies, published in the directory, where calls read it.
//!
//! A call never asks this actor: while it rests after a fault, calls go on with the health last published.

use std::sync::Arc;

use actix::prelude::*;
use bytes::Bytes;
use tandem_protocol::time::{Instant, Now};
use tandem_protocol::trunk_health::{Changed, Input, TrunkHealth};

use crate::directory::TrunkEntry;
use crate::env::{Env, Fire, TimerKey, Told};
use crate::events::{Event, EventKind};
use crate::metrics::ActorKind;
use crate::shard::{Fault, NamedDown, Shard, TrunkReport};
use crate::shell::{Fed, Injection, Machine, Shell};
use crate::store::{Batch, Urgency};
use crate::supervisor::Guard;
use crate::timer_wheel::TimerId;

const FORMAT: u8 = 1;

impl Machine for TrunkHealth {
    type Input = Input;
    type Output = Changed;

    fn handle(&mut self, input: &Input, now: Now, out: &mut Vec<Changed>) {
        TrunkHealth::handle(self, *input, now.mono, out);
    }

    fn deadline(&self) -> Option<Instant> {
        TrunkHealth::deadline(self)
    }

    fn freeze(&self) -> Option<Bytes> {
        crate::checkpoint::freeze(FORMAT, self)
    }

    fn thaw(frozen: &Bytes, _now: Now) -> Option<TrunkHealth> {
        crate::checkpoint::thaw(FORMAT, frozen)
    }
}

/// The actor.
pub struct TrunkActor {
    env: Env,
    entry: Arc<TrunkEntry>,
    shell: Shell<TrunkHealth>,
    timer: Option<TimerId>,
    fault: Fault,
    _guard: Guard,
}

impl TrunkActor {
    pub(crate) fn launch(env: &Env, shard: &Addr<Shard>, entry: Arc<TrunkEntry>) -> Addr<TrunkActor> {
        let (fault, guard) = NamedDown::guard(env, shard, ActorKind::Trunk, &entry.config.name);
        for proxy in entry.proxies().list() {
            proxy.set_up(true);
        }
        TrunkActor {
            env: env.clone(),
            entry,
            shell: Shell::new(TrunkHealth::default()),
            timer: None,
            fault,
            _guard: guard,
        }
        .start()
    }

    fn feed(&mut self, input: Input, ctx: &mut Context<Self>) {
        if self.env.inject_panic(ActorKind::Trunk) {
            self.shell.inject(Injection::Once);
        }
        let now = self.env.now();
        let mut out = Vec::new();
        match self.shell.feed(&input, now, &mut out) {
            Fed::Well => {}
            Fed::Rebuilt { panic } => {
                NamedDown::note_rebuilt(&self.env, ActorKind::Trunk, &self.entry.config.name, &panic)
            }
            Fed::Lost { panic } => {
                *self.fault.borrow_mut() = Some(panic);
                ctx.stop();
            }
        }
        for Changed { proxy, up, reason } in out {
            self.entry.set_health(proxy, up);
            let trunk = self.entry.config.name.to_string();
            tracing::warn!(trunk, %proxy, up, reason, "a proxy changed");
            let event = Event::new(now.wall, EventKind::TrunkState, reason).with("trunk", trunk);
            let mut batch = Batch::new(Urgency::Lazy);
            batch.events.push(event.with("proxy", proxy.to_string()).with("up", i64::from(up)));
            self.env.submit(batch);
        }
        if let Some(timer) = self.timer {
            self.env.arm(timer, self.shell.machine().deadline());
        }
    }
}

impl Actor for TrunkActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.timer = Some(self.env.timer(TimerKey::Actor(ctx.address().downgrade().recipient())));
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
        let TrunkReport { proxy, up, .. } = told.0;
        self.feed(if up { Input::Answered(proxy) } else { Input::Silent(proxy) }, ctx);
    }
}

impl Handler<Told<Fire>> for TrunkActor {
    type Result = ();
    fn handle(&mut self, _: Told<Fire>, ctx: &mut Context<Self>) {
        self.feed(Input::Timeout, ctx);
    }
}

impl Handler<Told<Injection>> for TrunkActor {
    type Result = ();
    fn handle(&mut self, told: Told<Injection>, ctx: &mut Context<Self>) {
        self.shell.inject(told.0);
        self.feed(Input::Timeout, ctx);
    }
}
