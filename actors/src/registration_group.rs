//! The actor of one registration group: keeps us registered with a provider (RFC 3261 §10.2).

mod flow;
mod kept;
mod part;
mod race;
mod request;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use serde_json::Value;
use tandem_protocol::dialog;
use tandem_protocol::registration::{
    DownCause, GroupInput, GroupOutput, GroupSettings, Output, Registration, RegistrationGroup,
    RegistrationSettings, Request,
};
use tandem_protocol::time::{Instant, Now, UnixMillis};
use tokio::sync::mpsc::UnboundedSender;

use crate::directory::{MemberStatus, RegistrationEntry, RegistrationStatus};
use crate::env::{Env, Fire, Tell, TimerKey, Told};
use crate::events::{Event, EventKind};
use crate::generation::Generation;
use crate::metrics::ActorKind;
use crate::owner::Owner;
use crate::shard::{Adopted, Fault, NamedDown, SendRequest, Shard};
use crate::shell::{Fed, Injection, Machine, Shell};
use crate::store::{Batch, Urgency};
use crate::supervisor::Guard;
use crate::timer_wheel::TimerId;

pub(crate) use flow::FlowEnded;
use flow::{FlowNames, Flows};
pub use kept::{KeptRegistration, restore};
use part::Parting;
use request::Line;

const FORMAT: u8 = 2;
/// At a start so much time is taken for each group there is, so that they do not all register in one moment.
const SPREAD: Duration = Duration::from_millis(10);
/// However many groups there are, all have begun after this.
const MAX_SPREAD: Duration = Duration::from_secs(30);
/// A response says only by its CSeq number which registration of the group it is for: each has so many of them.
const CSEQ_BITS: u32 = 24;
/// As many registrations as CSeq has room for.
pub const MAX_REGISTRATIONS: usize = 64;

/// What happens, with the chance that waits and client nonces need.
#[derive(Clone)]
pub struct Step(GroupInput, u64);

impl Machine for RegistrationGroup {
    type Input = Step;
    type Output = GroupOutput;

    fn handle(&mut self, step: &Step, now: Now, out: &mut Vec<GroupOutput>) {
        let Step(input, random) = step;
        out.extend(RegistrationGroup::handle(self, now, input, *random));
    }

    fn deadline(&self) -> Option<Instant> {
        RegistrationGroup::deadline(self)
    }

    fn blank() -> RegistrationGroup {
        let settings = GroupSettings { active: 1, return_after: Duration::ZERO };
        RegistrationGroup::new(settings, Vec::new())
    }

    fn freeze(&self) -> Option<Bytes> {
        crate::checkpoint::freeze(FORMAT, self)
    }

    fn thaw(frozen: &Bytes) -> Option<RegistrationGroup> {
        crate::checkpoint::thaw(FORMAT, frozen)
    }
}

/// DNS has found a server of a registration.
pub(crate) struct ServersFound;

/// Whether to be registered. Who asks hears nothing but the end of the channel, when it is done.
pub(crate) struct BeRegistered {
    pub(crate) registered: bool,
    /// The process ends: some groups keep what they have over a restart.
    pub(crate) stopping: bool,
    pub(crate) done: UnboundedSender<Value>,
}

/// Other settings are in force, and another actor has this one's place, if anybody: what is registered and is not to be any more is
/// given up.
pub(crate) struct Part {
    /// The settings that still have the group; `None`: none has.
    pub(crate) next: Option<Arc<Generation>>,
}

/// The actor.
pub struct GroupActor {
    env: Env,
    shard: Addr<Shard>,
    entry: Arc<RegistrationEntry>,
    shell: Shell<RegistrationGroup>,
    lines: Vec<Line>,
    flows: Flows,
    racing: race::Racing,
    /// Where each registration's REGISTERs may go, as the machine has it.
    servers: Vec<Vec<SocketAddr>>,
    /// The one that was in use last.
    used: Option<usize>,
    /// Who waits until it is unregistered.
    waiting: Vec<UnboundedSender<Value>>,
    parting: Option<Parting>,
    timer: Option<TimerId>,
    fault: Fault,
    _guard: Guard,
}

impl GroupActor {
    pub(crate) fn launch(env: &Env, shard: &Addr<Shard>, entry: Arc<RegistrationEntry>) -> Addr<GroupActor> {
        let config = &entry.config;
        let (fault, guard) = NamedDown::guard(env, shard, ActorKind::RegistrationGroup, &config.name);
        let (lines, registrations): (Vec<Line>, Vec<Registration>) =
            (0..config.registrations.len().min(MAX_REGISTRATIONS))
                .filter_map(|place| kept::begin(env, &entry, place))
                .unzip();
        let settings = GroupSettings { active: config.active, return_after: config.return_after };
        GroupActor {
            env: env.clone(),
            shard: shard.clone(),
            servers: vec![Vec::new(); lines.len()],
            flows: Flows::new(lines.len()),
            racing: race::Racing::default(),
            lines,
            shell: Shell::new(RegistrationGroup::new(settings, registrations)),
            entry,
            used: None,
            waiting: Vec::new(),
            parting: None,
            timer: None,
            fault,
            _guard: guard,
        }
        .start()
    }

    fn feed(&mut self, input: GroupInput, ctx: &mut Context<Self>) {
        if self.env.inject_panic(ActorKind::RegistrationGroup) {
            self.shell.inject(Injection::Once);
        }
        let now = self.env.now();
        let mut out = Vec::new();
        match self.shell.feed(&Step(input, self.env.random()), now, &mut out) {
            Fed::Well => {}
            Fed::Rebuilt { panic } => NamedDown::note_rebuilt(
                &self.env,
                ActorKind::RegistrationGroup,
                &self.entry.config.name,
                &panic,
            ),
            Fed::Lost { panic } => {
                *self.fault.borrow_mut() = Some(panic);
                ctx.stop();
            }
        }
        let before = self.entry.status();
        let mut failures: Vec<_> = before.members.iter().map(|member| member.last_failure.clone()).collect();
        for output in out {
            match output {
                // It is another's now.
                GroupOutput::Of(place, _) if !self.is_own(place) => {}
                GroupOutput::Of(place, Output::Send(request)) => self.register(place, &request, ctx),
                GroupOutput::Of(place, Output::Up { expires }) => self.note_up(place, expires, &before, now),
                GroupOutput::Of(place, Output::Down { cause }) => {
                    self.note_down(place, &cause, now);
                    if let Some(failure) = failures.get_mut(place).filter(|_| cause != DownCause::Stopped) {
                        *failure = Some((now.wall, cause.to_string()));
                    }
                }
                GroupOutput::InUse(_) if self.parting.is_some() => {}
                GroupOutput::InUse(place) => self.note_in_use(place, now),
            }
        }
        if self.parting.as_ref().is_none_or(|parting| !parting.replaced) {
            self.publish(&before, failures);
        }
        if self.shell.machine().is_idle() {
            self.waiting.clear();
        }
        if self.has_parted() {
            ctx.stop();
        }
        self.arm();
    }

    fn arm(&self) {
        if let Some(timer) = self.timer {
            let machine = self.shell.machine().deadline();
            self.env.arm(timer, machine.into_iter().chain(self.flows.deadline()).min());
        }
    }

    fn publish(&self, before: &RegistrationStatus, failures: Vec<Option<(UnixMillis, String)>>) {
        let machine = self.shell.machine();
        let each = machine.registrations().zip(&self.lines).zip(failures);
        let members = each.map(|((registration, line), last_failure)| MemberStatus {
            state: registration.state(),
            granted: registration.granted().cloned(),
            last_failure,
            line: Some(line.token.clone()),
        });
        let status = RegistrationStatus {
            running: machine.is_running(),
            in_use: machine.in_use(),
            members: members.collect(),
        };
        let granted = |status: &RegistrationStatus| -> Vec<_> {
            status.members.iter().map(|member| member.granted.clone()).collect()
        };
        if granted(before) != granted(&status) {
            kept::keep(&self.env, &self.entry, &self.lines, machine);
        }
        if *before != status {
            self.entry.publish(status);
        }
    }

    /// Tells the machine where its registrars are, if they are elsewhere than before.
    fn look_for_servers(&mut self, ctx: &mut Context<Self>) {
        for place in 0..self.lines.len() {
            let found = self.entry.servers(place, &mut || self.env.random());
            let Some(known) = self.servers.get_mut(place) else { continue };
            let same = known.len() == found.len() && found.iter().all(|server| known.contains(server));
            if !same {
                known.clone_from(&found);
                self.feed(GroupInput::Servers(place, found), ctx);
            }
        }
    }

    fn note_up(&self, place: usize, expires: u32, before: &RegistrationStatus, now: Now) {
        let (group, label) = self.names(place);
        let refreshed = before.members.get(place).is_some_and(|m| m.granted.is_some());
        if refreshed {
            tracing::debug!(registration_group = group, registration = label, expires, "registered again");
            return;
        }
        tracing::info!(registration_group = group, registration = label, expires, "registered");
        self.event(now, "registered", Some(label), format!("for {expires} s"));
    }

    fn note_down(&self, place: usize, cause: &DownCause, now: Now) {
        let (group, label) = self.names(place);
        let why = cause.to_string();
        if *cause == DownCause::Stopped {
            tracing::info!(registration_group = group, registration = label, "no longer registered");
        } else {
            tracing::warn!(registration_group = group, registration = label, why, "not registered");
            self.entry.metrics.failed(cause);
        }
        self.event(now, "not registered", Some(label), why);
    }

    /// Another registration is in use: calls leave by its route, and come by it.
    fn note_in_use(&mut self, place: Option<usize>, now: Now) {
        let group = &*self.entry.config.name;
        let Some(place) = place else {
            if self.shell.machine().is_running() {
                tracing::error!(
                    registration_group = group,
                    "no registration of the group holds: the account cannot be called"
                );
                self.event(now, "lost", None, "no registration holds".to_owned());
            }
            return;
        };
        if self.used.replace(place).is_some_and(|used| used != place) {
            let (_, label) = self.names(place);
            tracing::warn!(
                registration_group = group,
                registration = label,
                "another registration is in use"
            );
            self.entry.metrics.failovers.increment(1);
            self.event(now, "in use", Some(label), "in place of another".to_owned());
        }
    }

    fn names(&self, place: usize) -> (&str, &str) {
        let config = &self.entry.config;
        (&config.name, config.registrations.get(place).map_or("", |registration| &registration.label))
    }

    fn event(&self, now: Now, what: &'static str, label: Option<&str>, detail: String) {
        let group = self.entry.config.name.to_string();
        let mut event = Event::new(now.wall, EventKind::Registration, what).with("registration_group", group);
        if let Some(label) = label {
            event = event.with("registration", label.to_owned());
        }
        let mut batch = Batch::new(Urgency::Lazy);
        batch.events.push(event.with("detail", detail));
        self.env.submit(batch);
    }

    fn send(&mut self, place: usize, request: &Request, ctx: &Context<Self>) {
        let config = self.entry.config.registrations.get(place);
        if let Some((line, config)) = self.lines.get(place).zip(config) {
            let first = self.lines.first().map_or(&*line.token, |first| &*first.token);
            let outgoing = line.register(&self.env, config, request, &FlowNames::new(first, place));
            self.flows.note_sent(place, outgoing.to);
            let owner = Owner::Other(ctx.address().downgrade().recipient());
            self.shard.tell(SendRequest { outgoing, owner });
        }
    }
}

/// Which registration of the group a CSeq number is of.
fn place_of(cseq: u32) -> usize {
    (cseq >> CSEQ_BITS) as usize
}

/// How long the first REGISTERs of a process may wait.
fn start_within(env: &Env) -> Duration {
    let groups = u32::try_from(env.config().registration_groups.len()).unwrap_or(u32::MAX);
    SPREAD.saturating_mul(groups).min(MAX_SPREAD)
}

/// The settings of a registration as its machine takes them.
fn settings_of(env: &Env, entry: &RegistrationEntry, place: usize) -> Option<RegistrationSettings> {
    let (group, config) = (&entry.config, entry.config.registrations.get(place)?);
    let who = &config.credentials;
    let uri = format!("sip:{}", config.domain);
    let mut settings = RegistrationSettings::new(uri, who.username.clone(), who.password.clone());
    settings.transport = env.config().transport(env.config().listener_id(config.listener));
    settings.expires = u32::try_from(config.expires.as_secs()).unwrap_or(u32::MAX);
    (settings.base_retry, settings.max_retry) = (group.base_retry, group.max_retry);
    settings.refused_retry = settings.refused_retry.max(group.max_retry);
    settings.rest = group.return_after;
    Some(settings)
}

impl Actor for GroupActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.timer = Some(self.env.timer(TimerKey::Actor(ctx.address().downgrade().recipient())));
        self.look_for_servers(ctx);
        if !self.env.directory().draining() {
            self.feed(GroupInput::Start { within: start_within(&self.env) }, ctx);
        }
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            self.env.forget(timer);
        }
    }
}

impl Handler<Told<dialog::Input>> for GroupActor {
    type Result = ();
    fn handle(&mut self, told: Told<dialog::Input>, ctx: &mut Context<Self>) {
        let input = match told.0 {
            dialog::Input::Response(response) if response.status() >= 200 => {
                let place = place_of(response.cseq());
                let Some(line) = self.lines.get(place) else { return };
                self.feed(GroupInput::Response(place, line.response(&response)), ctx);
                return self.note_flow(place, &response, ctx);
            }
            dialog::Input::Unanswered { cseq, .. } => GroupInput::NoResponse(place_of(cseq), cseq),
            dialog::Input::Response(_)
            | dialog::Input::Request { .. }
            | dialog::Input::Cancelled { .. }
            | dialog::Input::Credentials { .. }
            | dialog::Input::Command(_)
            | dialog::Input::Timeout => return,
        };
        self.feed(input, ctx);
    }
}

impl Handler<Told<Adopted>> for GroupActor {
    type Result = ();
    fn handle(&mut self, told: Told<Adopted>, _: &mut Context<Self>) {
        self.env.adopt(&told.0.0);
    }
}

impl Handler<Told<Fire>> for GroupActor {
    type Result = ();
    fn handle(&mut self, _: Told<Fire>, ctx: &mut Context<Self>) {
        self.keep_flows_alive();
        self.feed(GroupInput::Timeout, ctx);
    }
}

impl Handler<Told<ServersFound>> for GroupActor {
    type Result = ();
    fn handle(&mut self, _: Told<ServersFound>, ctx: &mut Context<Self>) {
        self.look_for_servers(ctx);
    }
}

impl Handler<Told<BeRegistered>> for GroupActor {
    type Result = ();
    fn handle(&mut self, told: Told<BeRegistered>, ctx: &mut Context<Self>) {
        let BeRegistered { registered, stopping, done } = told.0;
        if stopping && !self.entry.config.unregister_on_stop {
            return;
        }
        match (registered, self.shell.machine().is_running()) {
            (true, false) => self.feed(GroupInput::Start { within: start_within(&self.env) }, ctx),
            (false, _) => {
                self.waiting.push(done);
                self.feed(GroupInput::Stop, ctx);
            }
            (true, true) => {}
        }
    }
}

impl Handler<Told<Injection>> for GroupActor {
    type Result = ();
    fn handle(&mut self, told: Told<Injection>, ctx: &mut Context<Self>) {
        self.shell.inject(told.0);
        self.feed(GroupInput::Timeout, ctx);
    }
}
