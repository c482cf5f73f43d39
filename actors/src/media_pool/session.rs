//! A media session: the rules of one leg, their checkpoint, and the actor that takes orders for it.
//!
//! The worker's packet loop and the actor share the `Leg`. Whatever panics in it is caught there: the session is put back to the state
//! after the last input that ended well, so one bad packet is lost and no other session notices.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use smallvec::SmallVec;
use tandem_media::session::{Report, Session, SessionConfig};
use tandem_protocol::time::{Instant, Now};

use super::io::{Channel, MediaSeams, PairId};
use super::order::{MediaEvent, SessionId};
use crate::env::{Shared, Tell, Told};
use crate::ids::ShardId;
use crate::metrics::ActorKind;
use crate::shard::LinkMessage;
use crate::shell::{Injection, MAX_PANICS, WINDOW, words};
use crate::supervisor::Guard;

/// What a worker and its sessions take from outside.
pub(crate) struct Hub {
    pub(crate) shared: Arc<Shared>,
    pub(crate) seams: Box<dyn MediaSeams>,
}

impl Hub {
    pub(crate) fn tell(&self, shard: ShardId, event: MediaEvent) {
        self.seams.link(shard, LinkMessage::Media(event));
    }

    pub(crate) fn restarted(&self, kind: ActorKind) {
        self.shared.metrics.restarted(kind);
        self.shared.census.restarted(kind);
    }
}

/// The time as a session wants it.
pub(crate) fn at(now: Now) -> Duration {
    Duration::from_micros(now.mono.0)
}

/// One leg as the packet loop knows it.
pub(crate) struct Leg {
    pub(crate) id: SessionId,
    pub(crate) shard: ShardId,
    pub(crate) pair: PairId,
    /// The session whose packets this one sends.
    pub(crate) peer_id: Option<SessionId>,
    /// Its sockets, once it is open.
    pub(crate) peer: Option<PairId>,
    pub(crate) recording: Option<u64>,
    session: Session,
    /// The session after the last input that ended well.
    kept: Session,
    panics: SmallVec<[Instant; 2]>,
    injection: Injection,
    silent: bool,
    /// Its shard was fenced, and no other has claimed it.
    pub(crate) left: bool,
    /// It has reported: what still comes is not its own.
    closed: bool,
    /// It panicked too often; why.
    lost: Option<String>,
}

impl Leg {
    pub(crate) fn new(id: SessionId, shard: ShardId, pair: PairId, session: Session) -> Leg {
        Leg {
            id,
            shard,
            pair,
            peer_id: None,
            peer: None,
            recording: None,
            kept: session.clone(),
            session,
            panics: SmallVec::new(),
            injection: Injection::None,
            silent: false,
            left: false,
            closed: false,
            lost: None,
        }
    }

    /// It is a call's of this shard, which has not heard yet whether it is silent.
    pub(crate) fn belong_to(&mut self, shard: ShardId, peer: Option<SessionId>) {
        (self.shard, self.peer_id, self.silent, self.left) = (shard, peer, false, false);
    }

    /// The rules, to look at.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// True while packets are its business.
    pub(crate) fn is_open(&self) -> bool {
        !self.closed && self.lost.is_none()
    }

    /// It panicked too often and is to end.
    pub(crate) fn is_lost(&self) -> bool {
        !self.closed && self.lost.is_some()
    }

    /// Feeds an input. `None`: it panicked, the session is as before it, and that was told and counted.
    #[inline]
    pub(crate) fn feed<R>(
        &mut self,
        hub: &Hub,
        now: Now,
        input: impl FnOnce(&mut Session) -> R,
    ) -> Option<R> {
        let injected = self.injection != Injection::None || hub.seams.inject_panic(ActorKind::MediaSession);
        let session = &mut self.session;
        let fed = catch_unwind(AssertUnwindSafe(|| {
            let result = input(session);
            assert!(!injected, "injected");
            result
        }));
        match fed {
            Ok(result) => {
                self.kept.clone_from(&self.session);
                Some(result)
            }
            Err(payload) => {
                self.panicked(hub, now, words(payload.as_ref()));
                None
            }
        }
    }

    /// Counts a packet that was sent. It may be forgotten by a panic that follows before the leg's next input.
    #[inline]
    pub(crate) fn sent(&mut self, length: usize) {
        self.session.sent(length);
    }

    #[cold]
    fn panicked(&mut self, hub: &Hub, now: Now, panic: String) {
        if self.injection == Injection::Once {
            self.injection = Injection::None;
        }
        self.remake();
        hub.restarted(ActorKind::MediaSession);
        hub.tell(self.shard, MediaEvent::Restarted { session: self.id, panic: panic.clone() });
        self.panics.retain(|at| now.mono.since(*at) < WINDOW);
        self.panics.push(now.mono);
        if self.panics.len() > MAX_PANICS {
            self.lost = Some(panic);
        }
    }

    /// Puts the session back to its checkpoint, on the same sockets.
    pub(crate) fn remake(&mut self) {
        self.session.clone_from(&self.kept);
    }

    /// Takes over a new agreement; an input that panics is tried once more.
    fn configure(&mut self, hub: &Hub, now: Now, config: &SessionConfig) {
        let time = at(now);
        let mut attempt = || self.feed(hub, now, |session| session.reconfigure(config.clone(), time));
        if attempt().is_none() && attempt().is_none() {
            self.lost = Some("a new agreement made it panic twice".to_owned());
        }
    }

    /// The last figures.
    fn close(&mut self, hub: &Hub, now: Now) -> Report {
        let report = self.feed(hub, now, |session| session.report());
        self.closed = true;
        let kept = &self.kept;
        report.or_else(|| catch_unwind(AssertUnwindSafe(|| kept.report())).ok()).unwrap_or_default()
    }

    /// Tells once that nothing has come for the time-out, and keeps what was sent meanwhile.
    pub(crate) fn upkeep(&mut self, hub: &Hub, now: Now) {
        self.kept.clone_from(&self.session);
        let silent = self.is_open() && self.session.timed_out(at(now));
        if silent && !self.silent {
            hub.tell(self.shard, MediaEvent::Silent(self.id));
        }
        self.silent = silent;
    }

    /// The socket its RTCP leaves by (RFC 5761: the RTP socket if the peer shares a port).
    pub(crate) fn rtcp_channel(&self) -> Channel {
        let config = self.session.config();
        let shared = config.remote_rtp.is_some() && config.remote_rtp == config.remote_rtcp;
        if shared { Channel::Rtp } else { Channel::Rtcp }
    }
}

/// What a worker tells a session.
pub(crate) enum Control {
    /// New rules.
    Configure(Box<SessionConfig>),
    /// Report and end.
    Close,
    /// Panic.
    Inject(Injection),
    /// It was found lost by the packet loop.
    Check,
}

/// What a session tells its worker.
pub(crate) enum FromSession {
    /// Its rules, and so its next deadline, have changed.
    Changed,
    /// It has reported and ended: its sockets may rest.
    Ended(SessionId, PairId),
    /// A panic has escaped its shell and ended its actor.
    Down(SessionId),
}

/// The actor of one session.
pub struct MediaSession {
    leg: Rc<RefCell<Leg>>,
    hub: Rc<Hub>,
    worker: Recipient<Told<FromSession>>,
    _guard: Guard,
}

impl MediaSession {
    pub(crate) fn new(
        leg: Rc<RefCell<Leg>>,
        hub: Rc<Hub>,
        worker: Recipient<Told<FromSession>>,
    ) -> MediaSession {
        let (id, parent) = (leg.borrow().id, worker.clone());
        let down = move |panicked| {
            if panicked {
                parent.tell(FromSession::Down(id));
            }
        };
        let guard = Guard::with(hub.shared.clone(), ActorKind::MediaSession, down);
        MediaSession { leg, hub, worker, _guard: guard }
    }

    fn control(&mut self, control: Control, ctx: &mut Context<Self>) {
        let now = self.hub.seams.now();
        let mut leg = self.leg.borrow_mut();
        match control {
            Control::Configure(config) => {
                leg.configure(&self.hub, now, &config);
                self.worker.tell(FromSession::Changed);
            }
            Control::Close => {
                drop(leg);
                return self.end(None, now, ctx);
            }
            Control::Inject(injection) => {
                leg.injection = injection;
                // It shows at once, also where no packets come.
                leg.feed(&self.hub, now, |_| ());
            }
            Control::Check => {}
        }
        let lost = leg.is_lost().then(|| leg.lost.clone()).flatten();
        drop(leg);
        if lost.is_some() {
            self.end(lost, now, ctx);
        }
    }

    fn end(&mut self, lost: Option<String>, now: Now, ctx: &mut Context<Self>) {
        let mut leg = self.leg.borrow_mut();
        if let Some(why) = lost {
            let why = format!("the session panicked too often: {why}");
            self.hub.tell(leg.shard, MediaEvent::Refused { session: leg.id, why });
        }
        let report = Box::new(leg.close(&self.hub, now));
        self.hub.tell(leg.shard, MediaEvent::Closed { session: leg.id, report });
        self.worker.tell(FromSession::Ended(leg.id, leg.pair));
        ctx.stop();
    }
}

impl Actor for MediaSession {
    type Context = Context<Self>;
}

impl Handler<Told<Control>> for MediaSession {
    type Result = ();
    fn handle(&mut self, told: Told<Control>, ctx: &mut Context<Self>) {
        self.control(told.0, ctx);
    }
}
