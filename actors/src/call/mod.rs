//! The actor of one call: a shell around [`tandem_protocol::b2bua::Call`], its dialogs, its media sessions, its record.

mod ask;
mod commit;
mod invite;
mod legs;
mod media;
mod race;
mod record;
mod redirect;
mod replaces;
mod report;
mod setup;
mod toll_fraud;
mod trunks;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

use actix::prelude::*;
use bytes::Bytes;
use tandem_protocol::b2bua::{self, CALLER, Call, Input, LegId, Output, Side};
use tandem_protocol::decimal::socket_addr;
use tandem_protocol::dialog::{self, Command, EndedBy, LegEvent};
use tandem_protocol::time::{Instant, Now};

use crate::calls::{CallKey, Info};
use crate::dialog::{DialogActor, Kept, LegDown, LegFault, Origin};
use crate::directory::Permit;
use crate::env::{Env, Fire, Tell, TimerKey, Told};
use crate::events::{Event, EventKind};
use crate::media_pool::order::MediaEvent;
use crate::metrics::ActorKind;
use crate::owner::{self, Address, WeakAddress};
use crate::seat::Figure;
use crate::shard::{CallDown, Returned, Shard};
use crate::shell::{Fed, Injection, Machine, Shell};
use crate::store::{Batch, Urgency};
use crate::supervisor;
use crate::timer_wheel::TimerId;

pub(crate) use ask::AskCall;
pub(crate) use media::Media;
pub(crate) use record::{CallRecord, Counted, RecordView};
pub(crate) use replaces::{ReplaceLeg, Replaced};
pub(crate) use setup::{Caller, Outbound, Setup};

/// The number of the checkpoint's format.
const FORMAT: u8 = 8;

thread_local! {
    /// Room for what an input brings about, used again for the next.
    static ROOM: RefCell<Vec<Output>> = const { RefCell::new(Vec::new()) };
}

impl Machine for Call {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, input: &Input, now: Now, out: &mut Vec<Output>) {
        Call::handle(self, input, now, out);
    }

    fn deadline(&self) -> Option<Instant> {
        Call::deadline(self)
    }

    fn is_kept(&self) -> bool {
        Call::is_kept(self)
    }

    fn rests(&self) -> bool {
        self.is_up()
    }

    fn may_sleep(&self) -> bool {
        self.is_up()
    }

    fn blank() -> Call {
        Call::over()
    }

    fn freeze(&self) -> Option<Bytes> {
        if self.is_kept() { crate::checkpoint::freeze(FORMAT, self) } else { None }
    }

    fn alters(input: &Input) -> bool {
        input.alters()
    }

    fn is_small(input: &Input) -> bool {
        matches!(input, Input::Committed(_))
    }

    fn thaw(frozen: &Bytes) -> Option<Call> {
        crate::checkpoint::thaw_grown(FORMAT, frozen, Call::FORMER_LACKS)
    }
}

/// One leg as the actor knows it.
struct Leg {
    id: LegId,
    /// `None` once it is over.
    dialog: Option<Address<DialogActor>>,
    call_id: Box<str>,
    frozen: Kept,
    /// The trunk and proxy it leaves by.
    proxy: LeavesBy,
}

/// The trunk and proxy that a leg leaves by, if any.
type LeavesBy = Option<Box<(Arc<str>, SocketAddr)>>;

/// What few calls have.
#[derive(Default)]
struct Rare {
    diversion: redirect::Diversion,
    /// Somebody waits to take a leg's place.
    waiting: Option<replaces::Waiting>,
    /// Somebody has.
    replaced: Option<Replaced>,
}

/// The actor.
pub struct CallActor {
    env: Env,
    shard: Address<Shard>,
    /// Its own address.
    me: WeakAddress<CallActor>,
    key: CallKey,
    id: Arc<str>,
    info: Info,
    shell: Shell<Call>,
    /// For each trunk it may leave by, or one without a trunk.
    outbound: Vec<Outbound>,
    caller: Option<Box<Caller>>,
    legs: Vec<Leg>,
    media: Media,
    permits: Vec<Permit>,
    /// The trunk it came by.
    from_trunk: Option<Arc<str>>,
    /// What few calls have.
    rare: Option<Box<Rare>>,
    /// `None`: nobody has limits.
    charged: Option<Box<toll_fraud::Charged>>,
    /// Its place at the trunk it leaves by.
    place: Option<Permit>,
    racing: race::Racing,
    /// Events that wait for the next batch.
    events: Vec<Event>,
    timer: Option<TimerId>,
    /// The verdict, once every leg has ended and only media reports are waited for.
    ended: Option<Box<(b2bua::Ended, Instant)>>,
}

impl CallActor {
    /// Starts a call.
    pub(crate) fn launch(env: &Env, shard: Address<Shard>, setup: Setup) -> Address<CallActor> {
        supervisor::count(env, ActorKind::Call, 1);
        env.count(Figure::Calls, 1);
        owner::start(|me| CallActor {
            env: env.clone(),
            shard,
            me,
            key: setup.key,
            id: setup.info.id.clone(),
            info: setup.info,
            shell: Shell::new(setup.machine),
            outbound: setup.outbound,
            caller: Some(Box::new(setup.caller)),
            // Most have two.
            legs: Vec::with_capacity(2),
            media: setup.media,
            // The first is the caller's, or of who has taken his place since.
            from_trunk: match &setup.replaced {
                Some(replaced) => replaced.from_trunk.clone(),
                None => setup.permits.first().and_then(Permit::trunk),
            },
            permits: setup.permits,
            rare: setup
                .replaced
                .map(|replaced| Box::new(Rare { replaced: Some(replaced), ..Rare::default() })),
            charged: None,
            place: None,
            racing: race::Racing::default(),
            events: Vec::new(),
            timer: None,
            ended: None,
        })
    }

    fn feed(&mut self, input: &Input, ctx: &mut Context<Self>) {
        let now = self.env.now();
        if self.env.inject_panic(ActorKind::Call) {
            self.shell.inject(Injection::Once);
        }
        let mut out = ROOM.take();
        match self.shell.feed(input, now, &mut out) {
            Fed::Well => {}
            Fed::Rebuilt { panic } => self.note_restart(ActorKind::Call, &panic, false),
            Fed::Lost { panic } => {
                self.shell.inject(Injection::None);
                self.note_restart(ActorKind::Call, &panic, true);
                self.racing.clear();
                let legs: Vec<LegId> = self.legs.iter().map(|leg| leg.id).collect();
                let tried = self.shell.machine().attempts().to_vec();
                let call = Call::after_fault(&legs, &tried, now, &mut out);
                self.shell.replace(call);
            }
        }
        for output in out.drain(..) {
            self.act(output, now, ctx);
        }
        ROOM.set(out);
        self.flush_events();
        self.rearm();
    }

    /// Hands the store what has happened, if no batch has taken it along.
    fn flush_events(&mut self) {
        if !self.events.is_empty() {
            let mut batch = Batch::new(Urgency::Lazy);
            batch.events = std::mem::take(&mut self.events);
            self.env.submit(batch);
        }
    }

    fn rearm(&self) {
        let patience = self.ended.as_ref().map(|ended| ended.1);
        let machine = self.shell.deadline();
        if let Some(timer) = self.timer {
            self.env.arm(timer, patience.into_iter().chain(machine).min());
        }
    }

    fn act(&mut self, output: Output, now: Now, ctx: &mut Context<Self>) {
        match output {
            Output::Invite { leg, target, sdp, reliable } => {
                self.invite(leg, target, (sdp, reliable), now, ctx);
            }
            Output::Tell(leg, command) => {
                self.withdraw(leg, &command, ctx);
                self.tell_leg(leg, command);
            }
            Output::Towards(leg) => self.media.turn_to(&self.env, self.key, leg),
            Output::Media { side, view, held } => {
                // Who only rings or is rung may be silent for as long as he likes.
                let watched = !held && self.shell.machine().is_answered();
                self.media.configure(&self.env, self.key, side, view.as_ref(), watched)
            }
            Output::Commit => self.commit(),
            Output::Refresh => self.refresh(),
            Output::Ringing => self.event(now, EventKind::CallRinging, "the callee is alerting"),
            Output::Answered { protected } => self.answered(protected, now),
            Output::AnswerUnsent => self.info.answered_at = None,
            Output::Redirected { status, contacts, fresh, exhausted } => {
                self.redirected((status, fresh, exhausted), contacts, now, ctx);
            }
            Output::NoCodec { trunk } => self.passed_over(trunk, now),
            Output::AttemptFailed { attempt, retry_after, goes_on } => {
                self.attempt_failed(&attempt, (retry_after, goes_on), now);
            }
            Output::ProxyBusy(leg, seconds) => self.proxy_is_busy(leg, seconds),
            Output::Replaced { side, by } => self.replaced(side, by, now),
            Output::Succession(leg, became) => self.succession(leg, became, now),
            Output::Over(ended) => self.over(ended, now, ctx),
        }
    }

    fn start_leg(
        &mut self,
        leg: LegId,
        origin: Origin,
        (call_id, proxy): (String, LeavesBy),
        ctx: &mut Context<Self>,
    ) {
        let me = self.me.get_or_share(ctx);
        match DialogActor::launch(&self.env, &self.shard, me, leg, origin) {
            Some((dialog, frozen)) => {
                let call_id = call_id.into_boxed_str();
                self.legs.push(Leg { id: leg, dialog: Some(dialog), call_id, frozen, proxy });
            }
            None => self.me.get_or_share(ctx).tell(LegDown(leg)),
        }
    }

    fn dialog(&self, leg: LegId) -> Option<&Address<DialogActor>> {
        self.legs.iter().find(|l| l.id == leg)?.dialog.as_ref()
    }

    fn tell_leg(&self, leg: LegId, command: Command) {
        if let Some(dialog) = self.dialog(leg) {
            dialog.tell(dialog::Input::Command(command));
        }
    }

    fn answered(&mut self, protected: bool, now: Now) {
        // Nobody else is called any more.
        self.outbound = Vec::new();
        self.info.answered_at = self.shell.machine().answered_at();
        self.charge_answered(now);
        self.env.metrics().call_setup.record(now.mono.since(self.info.started_mono).as_secs_f64());
        if !protected {
            self.info.unprotected = true;
            self.env.metrics().unprotected_answers.increment(1);
            tracing::warn!(call = %self.id, "answered before the checkpoint was committed: a restart would lose this call");
        }
        tracing::debug!(call = %self.id, event = EventKind::CallAnswered.as_str());
        let event = Event::new(now.wall, EventKind::CallAnswered, "both sides are connected").of(&self.id);
        let callee = self.shell.machine().callee();
        let leg = self.legs.iter().find(|leg| Some(leg.id) == callee);
        let event = match self.note_answering_proxy(now) {
            Some((trunk, proxy)) => event.with("trunk", trunk).with("proxy", socket_addr(proxy)),
            None => event,
        };
        self.events.push(self.with_sip_call_id(event, leg));
        let unused = self.media.settle(&self.env, self.key);
        if !unused.is_empty() {
            self.shard.tell(Returned(unused));
        }
        self.media.record(&self.env, self.key, &self.id);
        if let Some(path) = self.media.recording() {
            let event = Event::new(now.wall, EventKind::Recording, "recording begun").of(&self.id);
            self.events.push(event.with("file", path.to_owned()));
        }
    }

    fn event(&mut self, now: Now, kind: EventKind, reason: &'static str) {
        tracing::debug!(call = %self.id, event = kind.as_str(), reason);
        self.events.push(Event::new(now.wall, kind, reason).of(&self.id));
    }

    fn note_restart(&mut self, kind: ActorKind, panic: &str, lost: bool) {
        self.env.metrics().restarted(kind);
        self.env.shared().census.restarted(kind);
        self.tell_restart(kind, panic, lost);
    }

    /// Logs a restart that its own supervisor has counted.
    fn tell_restart(&mut self, kind: ActorKind, panic: &str, lost: bool) {
        let now = self.env.now();
        let outcome = if lost { "ended: no state to rebuild it from" } else { "rebuilt from its checkpoint" };
        tracing::error!(call = %self.id, actor = kind.as_str(), panic, outcome, "an actor of a call panicked");
        let event = Event::new(now.wall, EventKind::ActorRestarted, outcome).of(&self.id);
        self.events.push(event.with("actor", kind.as_str()).with("panic", panic.to_owned()));
        self.flush_events();
    }

    fn begin(&mut self, ctx: &mut Context<Self>) {
        let now = self.env.now();
        match self.caller.take().map(|caller| *caller) {
            Some(Caller::Invite { origin, call_id }) => {
                self.start_leg(CALLER, origin, (call_id, None), ctx);
                self.started_events(now);
                self.feed(&Input::Begin, ctx);
            }
            Some(Caller::Restored(legs)) => {
                for (leg, frozen, call_id) in legs {
                    self.start_leg(leg, Origin::Restored(frozen.clone()), (call_id, None), ctx);
                    if let Some(known) = self.legs.iter_mut().find(|known| known.id == leg) {
                        known.frozen.replace(Some(frozen));
                    }
                }
                self.media.reopen(&self.env, self.key);
                self.media.record(&self.env, self.key, &self.id);
                self.rearm();
            }
            None => {}
        }
    }
}

impl Actor for CallActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.timer = Some(self.env.timer(TimerKey::Call(self.key)));
        self.begin(ctx);
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            self.env.forget(timer);
        }
        self.env.count(Figure::Calls, -1);
    }
}

impl Drop for CallActor {
    /// Its end, by a panic too that no shell has caught.
    fn drop(&mut self) {
        supervisor::count(&self.env, ActorKind::Call, -1);
        self.shard.tell(CallDown(self.key));
    }
}

impl Handler<Told<LegFault>> for CallActor {
    type Result = ();
    fn handle(&mut self, told: Told<LegFault>, ctx: &mut Context<Self>) {
        let LegFault { leg, panic, lost } = told.0;
        self.note_restart(ActorKind::Dialog, &panic, lost);
        if lost {
            self.feed(&Input::Leg(leg, LegEvent::Ended { by: EndedBy::Fault }), ctx);
        }
    }
}

/// The store has committed the answer's checkpoint, or could not.
pub(crate) struct Committed(pub(crate) bool);

impl Handler<Told<Committed>> for CallActor {
    type Result = ();
    fn handle(&mut self, told: Told<Committed>, ctx: &mut Context<Self>) {
        self.feed(&Input::Committed(told.0.0), ctx);
    }
}

impl Handler<Told<Fire>> for CallActor {
    type Result = ();
    fn handle(&mut self, _: Told<Fire>, ctx: &mut Context<Self>) {
        let now = self.env.now();
        if let Some((ended, at)) = self.ended.as_deref().copied()
            && at <= now.mono
        {
            self.close(ended, now, ctx);
        } else if self.shell.sleep(now) {
            self.rearm();
        } else {
            self.feed(&Input::Timeout, ctx);
        }
    }
}

impl Handler<Told<MediaEvent>> for CallActor {
    type Result = ();
    fn handle(&mut self, told: Told<MediaEvent>, ctx: &mut Context<Self>) {
        let now = self.env.now();
        match told.0 {
            MediaEvent::Silent(session) => {
                let side = if session.side == 0 { Side::Caller } else { Side::Callee };
                let event =
                    Event::new(now.wall, EventKind::MediaFault, "no RTP for rtp_timeout_s").of(&self.id);
                self.events.push(event.with("side", side.as_str()));
                self.feed(&Input::Silent(side), ctx);
            }
            MediaEvent::Closed { session, report } => {
                self.media.closed(session.side, report);
                self.close_if_reported(now, ctx);
            }
            MediaEvent::Restarted { session, panic } => {
                tracing::warn!(call = %self.id, side = session.side, "a media session was re-made");
                self.tell_restart(ActorKind::MediaSession, &panic, false);
            }
            MediaEvent::Refused { session, why } => {
                tracing::error!(call = %self.id, side = session.side, why, "a media session could not begin");
                let event = Event::new(now.wall, EventKind::MediaFault, "a media session could not begin")
                    .of(&self.id);
                self.events.push(event.with("why", why));
                self.media.refused(session.side);
                self.feed(&Input::MediaLost, ctx);
                self.close_if_reported(now, ctx);
            }
            MediaEvent::RecordingFailed { why, .. } => {
                tracing::error!(call = %self.id, why, "the recording died; the call goes on");
                let event = Event::new(now.wall, EventKind::Recording, "the recording died").of(&self.id);
                self.events.push(event.with("why", why));
                self.flush_events();
            }
            MediaEvent::Granted { .. } | MediaEvent::Returned(_) | MediaEvent::Reclaimed { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;

    /// To each, actix and tokio add 440 bytes; the sum is rounded up to a multiple of 128.
    #[test]
    fn the_actors_of_a_call_are_small() {
        assert!(size_of::<CallActor>() <= 584, "{}", size_of::<CallActor>());
        assert!(size_of::<DialogActor>() <= 200, "{}", size_of::<DialogActor>());
        assert!(size_of::<Leg>() <= 48, "{}", size_of::<Leg>());
    }
}
