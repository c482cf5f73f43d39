//! The actor of one registration group: keeps us registered with a provider (RFC 3261 §10.2).

use std::sync::Arc;

use actix::prelude::*;
use bytes::Bytes;
use tandem_protocol::dialog;
use tandem_protocol::flow::Flow;
use tandem_protocol::message::{Builder, Contacts, Header, Message, Method};
use tandem_protocol::registration::{Input, Output, Registration, RegistrationSettings, Response};
use tandem_protocol::time::{Instant, Now, UnixMillis};
use tandem_protocol::transaction::Timers;

use crate::directory::RegistrationEntry;
use crate::env::{Env, Fire, Tell, TimerKey, Told};
use crate::events::{Event, EventKind};
use crate::metrics::ActorKind;
use crate::shard::{Adopted, Fault, NamedDown, SendRequest, Shard};
use crate::shell::{Fed, Injection, Machine, Shell};
use crate::sip::endpoint::Outgoing;
use crate::store::{Batch, Urgency};
use crate::supervisor::Guard;
use crate::timer_wheel::TimerId;

const FORMAT: u8 = 1;

/// What happens, with the chance that back-off and client nonce need.
#[derive(Clone)]
pub enum Step {
    /// An input.
    Happened(Input, u64),
    /// Its deadline has passed.
    Timeout(u64),
}

impl Machine for Registration {
    type Input = Step;
    type Output = Output;

    fn handle(&mut self, step: &Step, now: Now, out: &mut Vec<Output>) {
        match step {
            Step::Happened(input, random) => {
                out.extend(Registration::handle(self, now, input.clone(), *random))
            }
            Step::Timeout(random) => out.extend(self.handle_timeout(now, *random)),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        Registration::deadline(self)
    }

    fn freeze(&self) -> Option<Bytes> {
        crate::checkpoint::freeze(FORMAT, self)
    }

    fn thaw(frozen: &Bytes, _now: Now) -> Option<Registration> {
        crate::checkpoint::thaw(FORMAT, frozen)
    }
}

/// The actor.
pub struct GroupActor {
    env: Env,
    shard: Addr<Shard>,
    entry: Arc<RegistrationEntry>,
    shell: Shell<Registration>,
    call_id: String,
    tag: String,
    sent: u32,
    timer: Option<TimerId>,
    fault: Fault,
    _guard: Guard,
}

impl GroupActor {
    pub(crate) fn launch(env: &Env, shard: &Addr<Shard>, entry: Arc<RegistrationEntry>) -> Addr<GroupActor> {
        let config = &entry.config;
        let (fault, guard) = NamedDown::guard(env, shard, ActorKind::RegistrationGroup, &config.name);
        let uri = format!("sip:{}", config.domain);
        let who = &config.credentials;
        let mut settings = RegistrationSettings::new(uri, who.username.clone(), who.password.clone());
        settings.expires = u32::try_from(config.expires.as_secs()).unwrap_or(u32::MAX);
        // Above whatever an earlier process sent with another Call-ID; the registrar compares only within one (§10.3).
        let registration = Registration::new(settings, 1);
        GroupActor {
            env: env.clone(),
            shard: shard.clone(),
            call_id: env.name(),
            tag: env.name(),
            entry,
            shell: Shell::new(registration),
            sent: 0,
            timer: None,
            fault,
            _guard: guard,
        }
        .start()
    }

    fn feed(&mut self, step: &Step, ctx: &mut Context<Self>) {
        if self.env.inject_panic(ActorKind::RegistrationGroup) {
            self.shell.inject(Injection::Once);
        }
        let now = self.env.now();
        let mut out = Vec::new();
        match self.shell.feed(step, now, &mut out) {
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
        let mut status = (*before).clone();
        for output in out {
            match output {
                Output::Send { cseq, expires, authorization, proxy_authorization } => {
                    let credentials = authorization
                        .map(|value| (Header::Authorization, value))
                        .or(proxy_authorization.map(|value| (Header::ProxyAuthorization, value)));
                    self.send(cseq, expires, credentials, ctx);
                }
                Output::Up { expires } => {
                    let until = now.wall.0.saturating_add(u64::from(expires) * 1_000);
                    status.expires_at = Some(UnixMillis(until));
                    self.note(now, "registered", format!("for {expires} s"));
                }
                Output::Down { cause } => {
                    status.expires_at = None;
                    status.last_failure = Some((now.wall, cause.to_string()));
                    self.note(now, "not registered", cause.to_string());
                }
            }
        }
        status.state = self.shell.machine().state();
        if *before != status {
            self.entry.publish(status);
        }
        if let Some(timer) = self.timer {
            self.env.arm(timer, self.shell.machine().deadline());
        }
    }

    fn send(&mut self, cseq: u32, expires: u32, credentials: Option<(Header, String)>, ctx: &Context<Self>) {
        let local = self.env.local_side(self.env.config().listener_id(self.entry.config.listener));
        self.sent += 1;
        let branch = format!("z9hG4bK{}.{:x}", self.tag, self.sent);
        let account =
            format!("<sip:{}@{}>", self.entry.config.credentials.username, self.entry.config.domain);
        let contact =
            local.contact.replacen("sip:", &format!("sip:{}@", self.entry.config.credentials.username), 1);
        let mut message = Builder::request("REGISTER", &format!("sip:{}", self.entry.config.domain));
        message.header(Header::Via, format_args!("{};branch={branch};rport", local.via));
        message.header(Header::MaxForwards, 70);
        message.header(Header::From, format_args!("{account};tag={}", self.tag));
        message.header(Header::To, &account);
        message.header(Header::CallId, &self.call_id);
        message.header(Header::CSeq, format_args!("{cseq} REGISTER"));
        message.header(Header::Contact, contact);
        message.header(Header::Expires, expires);
        if let Some((header, value)) = credentials {
            message.header(header, value);
        }
        let outgoing = Outgoing {
            message: message.finish(None),
            method: Method::Register,
            branch,
            cseq,
            to: Flow::to(
                self.env.config().listener_id(self.entry.config.listener),
                self.entry.config.registrar,
            ),
            timers: Timers::new(local.timers.t1, local.timers.t2),
        };
        self.shard.tell(SendRequest { outgoing, owner: ctx.address().downgrade().recipient() });
    }

    fn note(&self, now: Now, what: &'static str, detail: String) {
        let group = self.entry.config.name.to_string();
        tracing::info!(registration_group = group, registrar = %self.entry.config.registrar, detail, "{what}");
        let event = Event::new(now.wall, EventKind::Registration, what).with("registration_group", group);
        let mut batch = Batch::new(Urgency::Lazy);
        batch.events.push(event.with("detail", detail));
        self.env.submit(batch);
    }

    fn response(&self, response: &Message) -> Response {
        let challenge =
            if response.status() == 401 { Header::WwwAuthenticate } else { Header::ProxyAuthenticate };
        let ours = &self.entry.config.credentials.username;
        let granted = match response.contacts() {
            Ok(Contacts::List(list)) => list
                .iter()
                .find(|c| c.parsed_uri().is_ok_and(|uri| uri.user == Some(ours)))
                .and_then(|c| c.param("expires")?.parse().ok()),
            Ok(Contacts::None | Contacts::Star) | Err(_) => None,
        };
        let number =
            |header| response.header(header).and_then(|v| v.split([' ', ';', '(']).next()?.parse().ok());
        Response {
            status: response.status(),
            expires: granted.or_else(|| response.expires()),
            challenges: response.headers(challenge).map(str::to_owned).collect(),
            min_expires: number(Header::MinExpires),
            retry_after: number(Header::RetryAfter),
        }
    }
}

impl Actor for GroupActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.timer = Some(self.env.timer(TimerKey::Actor(ctx.address().downgrade().recipient())));
        let random = self.env.random();
        self.feed(&Step::Happened(Input::Start, random), ctx);
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
                Input::Response(self.response(&response))
            }
            dialog::Input::Unanswered { .. } => Input::NoResponse,
            dialog::Input::Response(_)
            | dialog::Input::Request { .. }
            | dialog::Input::Cancelled { .. }
            | dialog::Input::Credentials { .. }
            | dialog::Input::Command(_)
            | dialog::Input::Timeout => return,
        };
        let random = self.env.random();
        self.feed(&Step::Happened(input, random), ctx);
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
        let random = self.env.random();
        self.feed(&Step::Timeout(random), ctx);
    }
}

impl Handler<Told<Injection>> for GroupActor {
    type Result = ();
    fn handle(&mut self, told: Told<Injection>, ctx: &mut Context<Self>) {
        self.shell.inject(told.0);
        let random = self.env.random();
        self.feed(&Step::Timeout(random), ctx);
    }
}
