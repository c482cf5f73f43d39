//! The actor of one dialog: a shell around [`tandem_protocol::dialog::Dialog`].

mod known;
mod replaces;
mod stored;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use bytes::Bytes;
use smallvec::SmallVec;
use tandem_protocol::b2bua::LegId;
use tandem_protocol::dialog::{
    Command, Dialog, Input, InviteSpec, LegEvent, LocalSide, Output, Routing, ServerTransactionId,
};
use tandem_protocol::flow::{Flow, ListenerId};
use tandem_protocol::message::{Message, Method};
use tandem_protocol::time::{Instant, Now};

use crate::call::CallActor;
use crate::env::{Env, Fire, Tell, TimerKey, Told};
use crate::metrics::ActorKind;
use crate::owner::{self, Address, Owner, WeakAddress};
use crate::seat::{Hold, Loan};
use crate::shard::{Shard, guest, name_here};
use crate::shell::{Fed, Injection, Machine, Shell};
use crate::sip::endpoint::Outgoing;
use crate::supervisor;
use crate::timer_wheel::TimerId;

pub(crate) use known::{DialogDown, DialogUp};
use stored::Stored;

/// The number of the checkpoint's format.
const FORMAT: u8 = 8;

thread_local! {
    /// Room for what an input brings about, used again for the next.
    static ROOM: RefCell<Vec<Output>> = const { RefCell::new(Vec::new()) };
}

impl Machine for Dialog {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, input: &Input, now: Now, out: &mut Vec<Output>) {
        Dialog::handle(self, input, now, out);
    }

    fn deadline(&self) -> Option<Instant> {
        Dialog::deadline(self)
    }

    fn is_kept(&self) -> bool {
        Dialog::is_kept(self)
    }

    fn rests(&self) -> bool {
        Dialog::rests(self)
    }

    fn may_sleep(&self) -> bool {
        Dialog::may_sleep(self)
    }

    fn blank() -> Dialog {
        Dialog::ended()
    }

    fn freeze(&self) -> Option<Bytes> {
        if self.is_kept() { crate::checkpoint::freeze(FORMAT, self) } else { None }
    }

    fn thaw(frozen: &Bytes) -> Option<Dialog> {
        crate::checkpoint::thaw_grown(FORMAT, frozen, Dialog::FORMER_LACKS)
    }
}

/// How a dialog begins; also what it is ended from if its state is lost before there is a checkpoint.
#[derive(Clone)]
pub(crate) enum Origin {
    /// The peer's INVITE.
    Incoming {
        transaction: ServerTransactionId,
        invite: Message,
        source: Flow,
        tag: String,
        local: Arc<LocalSide>,
        routing: Routing,
        /// The trunk it comes from, if that may be asked who we are.
        account: Option<String>,
    },
    /// Our INVITE.
    Calling {
        spec: Arc<InviteSpec>,
        local: Arc<LocalSide>,
        /// What was sent last of it: CSeq and branch.
        last: Option<(u32, String)>,
    },
    /// A checkpoint.
    Restored(Bytes),
}

impl Origin {
    fn build(&self, now: Now, out: &mut Vec<Output>) -> Option<Dialog> {
        match self {
            Origin::Incoming { transaction, invite, source, tag, local, routing, account } => {
                let (invite, local) = (invite.clone(), local.clone());
                let dialog = Dialog::incoming(*transaction, invite, *source, tag.clone(), local, *routing);
                Some(dialog.with_account(account.clone()))
            }
            Origin::Calling { spec, local, .. } => Some(Dialog::calling(spec.clone(), local.clone(), out)),
            Origin::Restored(frozen) => Dialog::thaw(frozen).map(|dialog| Dialog::restore(dialog, now)),
        }
    }

    /// A dialog that only ends what was begun, `heard` included.
    fn build_to_end(&self, heard: Option<&Message>, now: Now, out: &mut Vec<Output>) -> Option<Dialog> {
        if let Origin::Calling { spec, local, last } = self {
            let last = last.as_ref().map(|(cseq, branch)| (*cseq, branch.as_str()));
            let (spec, local) = (spec.clone(), local.clone());
            return Some(Dialog::calling_after_fault(spec, local, last, heard, now, out));
        }
        Some(ended_after_fault(self.build(now, out)?, now, out))
    }
}

fn ended_after_fault(mut dialog: Dialog, now: Now, out: &mut Vec<Output>) -> Dialog {
    if dialog.is_over() {
        out.push(Output::Finished);
    }
    let end = Command::End { status: 500, reason: Some("SIP;cause=500;text=\"internal fault\"".to_owned()) };
    dialog.handle(&Input::Command(end), now, out);
    dialog
}

/// The checkpoint of a dialog that its call has: as it was when the call last heard of it, or when it came to rest after that.
pub(crate) type Kept = Rc<RefCell<Option<Bytes>>>;

/// What a dialog tells its call.
pub(crate) struct FromLeg {
    pub(crate) leg: LegId,
    pub(crate) events: SmallVec<[LegEvent; 2]>,
    /// The dialog's checkpoint after these events.
    pub(crate) frozen: Option<Bytes>,
    /// With these it is over.
    pub(crate) down: bool,
}

/// A dialog was rebuilt, or lost.
pub(crate) struct LegFault {
    pub(crate) leg: LegId,
    pub(crate) panic: String,
    pub(crate) lost: bool,
}

/// A dialog is over.
pub(crate) struct LegDown(pub(crate) LegId);

/// The actor.
pub struct DialogActor {
    env: Env,
    shard: Address<Shard>,
    call: Address<CallActor>,
    /// Its own.
    me: WeakAddress<DialogActor>,
    leg: LegId,
    /// Until there is a checkpoint.
    beginning: Option<Box<Beginning>>,
    shell: Shell<Dialog>,
    /// What the store has of it.
    stored: Stored,
    timer: Option<TimerId>,
    tag: Arc<str>,
    /// The checkpoint that its call has of it.
    kept: Kept,
    /// Shard and call have been told of its end.
    parted: bool,
    /// The listener that it is reached by stays while it is.
    in_use: Option<(ListenerId, Hold)>,
}

/// What a dialog is ended from while there is no checkpoint.
struct Beginning {
    origin: Origin,
    /// What the dialog did when it was built, done when its actor has started.
    first: Vec<Output>,
    /// Requests of the peer's within an early dialog that have no final response: a fault would lose them.
    unanswered: Vec<Input>,
}

impl DialogActor {
    /// Starts a dialog of `call`. `None` if the origin is a checkpoint that cannot be read.
    pub(crate) fn launch(
        env: &Env,
        shard: &Address<Shard>,
        call: Address<CallActor>,
        leg: LegId,
        origin: Origin,
    ) -> Option<(Address<DialogActor>, Kept)> {
        let mut first = Vec::new();
        let dialog = origin.build(env.now(), &mut first)?;
        let tag: Arc<str> = dialog.local_tag().into();
        supervisor::count(env, ActorKind::Dialog, 1);
        let mut actor = DialogActor {
            env: env.clone(),
            shard: shard.clone(),
            call,
            me: WeakAddress::default(),
            leg,
            beginning: Some(Box::new(Beginning { origin, first, unanswered: Vec::new() })),
            shell: Shell::new(dialog),
            stored: Stored::default(),
            timer: None,
            tag,
            kept: Kept::default(),
            parted: false,
            in_use: None,
        };
        actor.use_listener();
        let kept = actor.kept.clone();
        let address = owner::start(|me| {
            actor.me = me;
            actor
        });
        Some((address, kept))
    }

    /// Holds on to the listener that it is reached by.
    fn use_listener(&mut self) {
        let id = self.shell.machine().flow().listener;
        if self.in_use.as_ref().is_none_or(|(held, _)| *held != id) {
            let uses = self.env.config().listener(id).map(|listener| listener.uses.clone());
            self.in_use = uses.map(|uses| {
                uses.join();
                (id, self.env.seat().lend(Loan::Leg(uses)))
            });
        }
    }

    fn feed(&mut self, input: &Input) {
        let now = self.env.now();
        if self.env.inject_panic(ActorKind::Dialog) {
            self.shell.inject(Injection::Once);
        }
        let mut out = ROOM.take();
        match self.shell.feed(input, now, &mut out) {
            Fed::Well => {}
            Fed::Rebuilt { panic } => self.call.tell(LegFault { leg: self.leg, panic, lost: false }),
            Fed::Lost { panic } => {
                self.shell.inject(Injection::None);
                self.refuse_unanswered(input, &mut out);
                self.end_after_fault(input, now, &mut out);
                self.call.tell(LegFault { leg: self.leg, panic, lost: true });
            }
        }
        if let Input::Request { transaction: Some(_), .. } = input
            && let Some(beginning) = &mut self.beginning
            && !self.shell.is_kept()
        {
            beginning.unanswered.push(input.clone());
        }
        self.use_listener();
        self.stored.follow(input, self.shell.machine());
        self.release(out);
    }

    /// What waits for an answer that nobody will give any more: the request that has brought the dialog to its end, and any other that
    /// the dialog knows of no longer.
    fn refuse_unanswered(&mut self, input: &Input, out: &mut Vec<Output>) {
        let mut waiting = Vec::new();
        if let Some(beginning) = &mut self.beginning
            && !self.shell.is_kept()
        {
            waiting.append(&mut beginning.unanswered);
        }
        let machine = self.shell.machine();
        out.extend(waiting.iter().chain([input]).filter_map(|input| machine.refuse_after_fault(input)));
    }

    /// Ends in good order a dialog that cannot go on: from its last good state, else with 500 or CANCEL from its origin.
    fn end_after_fault(&mut self, input: &Input, now: Now, out: &mut Vec<Output>) {
        let heard = match input {
            Input::Response(response) if response.method() == Method::Invite && response.status() >= 200 => {
                Some(response)
            }
            Input::Response(_)
            | Input::Request { .. }
            | Input::Unanswered { .. }
            | Input::Cancelled { .. }
            | Input::Credentials { .. }
            | Input::Command(_)
            | Input::Timeout => None,
        };
        let ended = match self.shell.last_good() {
            Some(dialog) => Some(ended_after_fault(dialog, now, out)),
            None => {
                self.beginning.as_ref().and_then(|beginning| beginning.origin.build_to_end(heard, now, out))
            }
        };
        let Some(dialog) = ended else { return out.push(Output::Finished) };
        if heard.is_none() {
            return self.shell.replace(dialog);
        }
        // Its ACK, and the BYE of what it has accepted, do not wait until it comes again: it need not.
        self.shell.replace(dialog.clone());
        if let Fed::Lost { .. } = self.shell.feed(input, now, out) {
            self.shell.replace(dialog);
        }
    }

    /// Does what the machine wants done.
    fn release(&mut self, mut out: Vec<Output>) {
        let mut events = SmallVec::new();
        let mut finished = false;
        let mut challenged = None;
        for output in out.drain(..) {
            match output {
                Output::Up(event) => events.push(event),
                Output::Finished => finished = true,
                Output::Challenged { account, response } => challenged = Some((account, response)),
                Output::Request { .. } | Output::Ack { .. } | Output::Respond { .. } => self.send(output),
            }
        }
        ROOM.set(out);
        // It stays until shard and call have dropped its address, so that a request which is in its mailbox already, or on the way there,
        // still gets its answer.
        let parts = finished && !std::mem::replace(&mut self.parted, true);
        if parts {
            let awaited = self.shell.machine().awaited_prack();
            let name = name_here(&self.env, self.shell.machine());
            self.shard.tell(DialogDown { tag: self.tag.clone(), awaited, name });
        }
        if !events.is_empty() {
            let frozen = self.shell.frozen().cloned();
            self.call.tell(FromLeg { leg: self.leg, events, frozen, down: parts });
        } else if parts {
            self.call.tell(LegDown(self.leg));
        } else if self.shell.machine().rests() {
            // The one it had was larger: the INVITE was in it.
            if let (Some(kept), Some(now)) = (self.kept.borrow_mut().as_mut(), self.shell.frozen()) {
                kept.clone_from(now);
            }
        }
        // What it has agreed with the peer after the call had taken the news of the other side to the store is in no checkpoint yet.
        if self.stored.is_due(self.shell.machine()) {
            let frozen = self.shell.frozen().cloned();
            self.call.tell(FromLeg { leg: self.leg, events: SmallVec::new(), frozen, down: false });
        }
        if self.shell.is_kept() {
            self.beginning = None;
        }
        if let Some(timer) = self.timer {
            self.env.arm(timer, self.shell.deadline());
        }
        if let Some((account, challenge)) = challenged {
            // A password that was changed counts at once, for a call that is up too.
            let current = self.env.shared().current();
            let trunk = current.directory.trunk(&account).or_else(|| self.env.directory().trunk(&account));
            let credentials = trunk.and_then(|trunk| trunk.config.credentials.clone());
            self.feed(&Input::Credentials { credentials, challenge });
        }
    }

    /// Hands a message to the endpoint, which sends it at once.
    fn send(&mut self, output: Output) {
        self.note_invite(&output);
        self.note_answer(&output);
        let Some(endpoint) = self.env.endpoint() else { return };
        let mut endpoint = endpoint.borrow_mut();
        match output {
            Output::Request { message, method, branch, cseq, to, timers } => {
                let owner = Owner::Dialog(self.me.clone());
                endpoint.send(Outgoing { message, method, branch, cseq, to, timers }, Some(owner));
            }
            Output::Ack { message, to } => endpoint.send_ack(&message, to),
            Output::Respond { transaction, status, message, to } => {
                endpoint.respond(transaction, status, message, to);
            }
            Output::Challenged { .. } | Output::Up(_) | Output::Finished => {}
        }
    }

    /// A request of the peer's has its final response.
    fn note_answer(&mut self, output: &Output) {
        if let Output::Respond { transaction, status: 200.., .. } = output
            && let Some(beginning) = &mut self.beginning
        {
            let of = |input: &Input| matches!(input, Input::Request { transaction: Some(known), .. } if known == transaction);
            beginning.unanswered.retain(|input| !of(input));
        }
    }

    /// Our INVITE leaves, perhaps again with credentials or another session interval.
    fn note_invite(&mut self, output: &Output) {
        if let (
            Output::Request { method: Method::Invite, branch, cseq, .. },
            Some(Beginning { origin: Origin::Calling { last, .. }, .. }),
        ) = (output, self.beginning.as_deref_mut())
        {
            *last = Some((*cseq, branch.clone()));
        }
    }
}

impl Actor for DialogActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let me = self.me.get_or_share(ctx);
        self.timer = Some(self.env.timer(TimerKey::Dialog(self.me.clone())));
        let dialog = self.shell.machine();
        let invite = dialog.peers_invite();
        let merge_key = invite.map(|(from_tag, cseq)| {
            crate::shard::merge_key(self.env.shared(), dialog.call_id(), from_tag, cseq)
        });
        let origin = self.beginning.as_ref().map(|beginning| &beginning.origin);
        let restored = matches!(origin, Some(Origin::Restored(_)));
        let invite = match origin {
            Some(Origin::Incoming { transaction, .. }) => Some(*transaction),
            Some(Origin::Calling { .. } | Origin::Restored(_)) | None => None,
        };
        // What we have begun ourselves has a Call-ID of this shard's.
        let theirs = restored || invite.is_some();
        let guest = if theirs { guest(&self.env, dialog.call_id()) } else { None };
        self.shard.tell(DialogUp { tag: self.tag.clone(), dialog: me, merge_key, invite, restored, guest });
        if restored {
            // What it will send from now on is numbered above what an earlier process may have sent: the store must know.
            let frozen = self.shell.frozen().cloned();
            self.call.tell(FromLeg { leg: self.leg, events: SmallVec::new(), frozen, down: false });
        }
        let out = self.beginning.as_mut().map(|beginning| std::mem::take(&mut beginning.first));
        self.release(out.unwrap_or_default());
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            self.env.forget(timer);
        }
    }
}

impl Drop for DialogActor {
    /// Its end, by a panic too that no shell has caught.
    fn drop(&mut self) {
        supervisor::count(&self.env, ActorKind::Dialog, -1);
        if !self.parted {
            let name = name_here(&self.env, self.shell.machine());
            self.shard.tell(DialogDown { tag: self.tag.clone(), awaited: None, name });
            self.call.tell(LegDown(self.leg));
        }
    }
}

impl Handler<Told<Input>> for DialogActor {
    type Result = ();
    fn handle(&mut self, input: Told<Input>, _: &mut Context<Self>) {
        self.feed(&input.0);
    }
}

impl Handler<Told<Fire>> for DialogActor {
    type Result = ();
    fn handle(&mut self, _: Told<Fire>, _: &mut Context<Self>) {
        if !self.shell.sleep(self.env.now()) {
            self.feed(&Input::Timeout);
        } else if let Some(timer) = self.timer {
            self.env.arm(timer, self.shell.deadline());
        }
    }
}

impl Handler<Told<Injection>> for DialogActor {
    type Result = ();
    fn handle(&mut self, injection: Told<Injection>, _: &mut Context<Self>) {
        self.shell.inject(injection.0);
        self.feed(&Input::Timeout);
    }
}
