//! What people do with their phones: the grammar of a run, and the account of every call as its phones saw it.

use std::collections::BTreeMap;

use tandem_phone::{CallHandle, CallState, Command, Event};

use crate::engine::{STATIONS, station};
use crate::phones::{Kind, Phones, nowhere};
use crate::rng::Rng;
use crate::world::{self, World};
use tandem_protocol::message::framing::peek_call_id;

/// The longest anybody talks or rings, in microseconds.
const LONG_US: u64 = 15_000_000;
/// A pair of numbers is not used again for so long: an INVITE may be on its way for 32 s.
const COOLING_US: u64 = 40_000_000;

/// Something that a person does.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Begins call number `n`.
    Dial(usize),
    /// Anything with one phone.
    Phone(usize, Command),
    /// Something at the callee's end of a call.
    Callee(usize, AtCallee),
    /// One end of a call goes silent, or is gone altogether, without a word.
    Fade { call: usize, callee: bool, vanishes: bool },
}

/// What a callee may do in a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AtCallee {
    Hangup,
    Hold,
    Retrieve,
    ReInvite,
    Move,
}

/// How a call ended for one phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// [`Event::Failed`]
    Failed(u16),
    /// [`Event::Ended`]
    Ended { by_us: bool, status: Option<u16> },
}

/// A callee's phone in a call.
#[derive(Clone, Debug)]
pub(crate) struct Leg {
    pub(crate) phone: usize,
    pub(crate) handle: CallHandle,
    pub(crate) answered: Option<u64>,
    pub(crate) refused: Option<u16>,
    pub(crate) hung_up: Option<u64>,
    pub(crate) ends: Vec<(u64, End)>,
}

/// One call, as its phones saw it.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    pub(crate) at: u64,
    pub(crate) caller: usize,
    pub(crate) handle: CallHandle,
    pub(crate) from: String,
    /// As dialled.
    pub(crate) to: String,
    /// The Call-IDs of both sides.
    pub(crate) call_ids: Vec<String>,
    pub(crate) rang: bool,
    pub(crate) answered: Option<u64>,
    pub(crate) hung_up: Option<u64>,
    pub(crate) ends: Vec<(u64, End)>,
    pub(crate) legs: Vec<Leg>,
    /// One of its phones fell silent, and when; true if it took no part in the signalling either.
    pub(crate) faded: Option<(u64, usize, bool)>,
    /// It was not over when the engine was killed; when that was last.
    pub(crate) killed: Option<u64>,
    /// When the engine was first killed in it.
    pub(crate) first_killed: Option<u64>,
    /// What its phones complained of.
    pub(crate) complaints: Vec<(u64, usize, String)>,
}

impl Dial {
    /// Its ends, the caller's first.
    pub(crate) fn ears(&self) -> impl Iterator<Item = (usize, CallHandle)> {
        std::iter::once((self.caller, self.handle)).chain(self.legs.iter().map(|leg| (leg.phone, leg.handle)))
    }

    /// True if the caller hears himself.
    pub(crate) fn is_echo(&self) -> bool {
        self.to == "*43"
    }

    /// When the last phone had done with it.
    pub(crate) fn over_at(&self) -> Option<u64> {
        let caller = self.ends.first()?.0;
        self.legs.iter().try_fold(caller, |last, leg| Some(last.max(leg.ends.first()?.0)))
    }
}

/// The script and its account.
pub(crate) struct Script {
    rng: Rng,
    pub(crate) dials: Vec<Option<Dial>>,
    /// Which call a phone's handle belongs to; `None` for the caller, else the leg.
    handles: BTreeMap<(usize, CallHandle), (usize, Option<usize>)>,
    /// The last call between two numbers.
    pairs: BTreeMap<(String, String), usize>,
    pub(crate) registered: u64,
    pub(crate) refused_registrations: u64,
    /// When the last call begins, unless its number is still in use.
    pub(crate) last_dial: u64,
}

impl Script {
    pub(crate) fn new(world: &World, phones: &Phones) -> Script {
        let plan = world.plan();
        let mut rng = Rng::new(plan.seed, 4);
        for (index, handset) in phones.handsets.iter().enumerate() {
            if handset.kind != Kind::Proxy {
                world.push(rng.below(2_000_000), world::Event::Do(Action::Phone(index, Command::Register)));
            }
        }
        let mut at = 5_000_000;
        for n in 0..plan.calls {
            at += rng.below(2 * plan.gap_us);
            world.push(at, world::Event::Do(Action::Dial(n)));
        }
        for index in phones.of(Kind::Station) {
            if rng.permille(300) {
                let when = 5_000_000 + rng.below(at - 4_000_000);
                let again = if rng.permille(500) { Command::Register } else { Command::Unregister };
                world.push(when, world::Event::Do(Action::Phone(index, again)));
                let later = when + rng.delay(20_000_000);
                world.push(later, world::Event::Do(Action::Phone(index, Command::Register)));
            }
            if rng.permille(200) {
                world.push(rng.below(at), world::Event::Do(Action::Phone(index, Command::Options)));
            }
        }
        for _ in 0..plan.calls / 40 {
            world.push(8_000_000 + rng.below(at), world::Event::Operator);
            if plan.panics.call > 0 {
                world.push(8_000_000 + rng.below(at), world::Event::Chaos);
            }
        }
        for _ in 0..plan.kills {
            world.push(8_000_000 + rng.below(at), world::Event::Kill);
        }
        Script {
            rng,
            dials: vec![None; plan.calls],
            handles: BTreeMap::new(),
            pairs: BTreeMap::new(),
            registered: 0,
            refused_registrations: 0,
            last_dial: at,
        }
    }

    /// Does one action.
    pub(crate) fn act(
        &mut self,
        world: &World,
        phones: &mut Phones,
        action: Action,
        told: &mut Vec<(usize, Event)>,
    ) {
        match action {
            Action::Dial(n) => self.dial(world, phones, n, told),
            Action::Phone(phone, command) => {
                if let Command::Hangup(handle) = command {
                    self.note_hangup(world, phones, phone, handle);
                }
                let command = match command {
                    Command::Move { call, .. } => {
                        Command::Move { call, media: phones.fresh_media(phone, call) }
                    }
                    other => other,
                };
                phones.command(world, phone, command, told);
            }
            Action::Fade { .. } => {}
            Action::Callee(n, what) => {
                let Some(dial) = &self.dials[n] else { return };
                let Some(leg) = dial.legs.iter().find(|leg| leg.answered.is_some() && leg.ends.is_empty())
                else {
                    return;
                };
                let (phone, handle) = (leg.phone, leg.handle);
                let command = match what {
                    AtCallee::Hangup => Command::Hangup(handle),
                    AtCallee::Hold => Command::Hold(handle),
                    AtCallee::Retrieve => Command::Retrieve(handle),
                    AtCallee::ReInvite => Command::ReInvite(handle),
                    AtCallee::Move => {
                        Command::Move { call: handle, media: phones.fresh_media(phone, handle) }
                    }
                };
                self.act(world, phones, Action::Phone(phone, command), told);
            }
        }
    }

    /// A hang-up counts only while the call is there.
    fn note_hangup(&mut self, world: &World, phones: &Phones, phone: usize, handle: CallHandle) {
        let ending = |(h, state): (CallHandle, CallState)| h == handle && state != CallState::Ending;
        if !phones.handsets[phone].phone.calls().any(ending) {
            return;
        }
        let Some((n, leg)) = self.handles.get(&(phone, handle)) else { return };
        let Some(dial) = &mut self.dials[*n] else { return };
        let hung_up = match leg {
            Some(leg) => &mut dial.legs[*leg].hung_up,
            None => &mut dial.hung_up,
        };
        hung_up.get_or_insert(world.now());
    }

    fn dial(&mut self, world: &World, phones: &mut Phones, n: usize, told: &mut Vec<(usize, Event)>) {
        let kind = match self.rng.below(100) {
            0..2 => Kind::Impostor,
            2..4 => Kind::Stranger,
            4..14 => Kind::Proxy,
            _ => Kind::Station,
        };
        let caller = self.rng.pick(&phones.of(kind));
        let (to, number) = self.target(kind, n);
        let from = phones.handsets[caller].user.clone();
        let pair = (from.clone(), number.clone());
        let free = self.pairs.get(&pair).is_none_or(|last| {
            let dial = self.dials[*last].as_ref();
            dial.and_then(Dial::over_at).is_some_and(|over| over + COOLING_US < world.now())
        });
        if !free {
            // Somebody else calls a little later.
            world.push(world.now() + 10_000, world::Event::Do(Action::Dial(n)));
            return;
        }
        let Some(handle) = phones.command(world, caller, Command::Dial { number: to.clone() }, told) else {
            return;
        };
        self.pairs.insert(pair, n);
        self.handles.insert((caller, handle), (n, None));
        self.dials[n] = Some(Dial {
            at: world.now(),
            caller,
            handle,
            from,
            to,
            call_ids: phones.call_id.clone().into_iter().collect(),
            rang: false,
            answered: None,
            hung_up: None,
            ends: Vec::new(),
            legs: Vec::new(),
            faded: None,
            killed: None,
            first_killed: None,
            complaints: Vec::new(),
        });
        if self.rng.permille(200) {
            let when = world.now() + self.rng.delay(LONG_US);
            self.later(world, when, caller, Command::Hangup(handle));
        }
        self.later(world, world.now() + 70_000_000, caller, Command::Hangup(handle));
    }

    /// What is dialled, and what the callee will be asked for.
    fn target(&mut self, kind: Kind, n: usize) -> (String, String) {
        let somebody = station(self.rng.below(STATIONS as u64 - 2) as usize);
        let unique = format!("{n:06}");
        if kind != Kind::Station {
            return (somebody.clone(), somebody);
        }
        let dialled = match self.rng.below(100) {
            0..8 => "*43".to_owned(),
            8..18 => return (format!("96{unique}"), unique),
            18..24 => return (format!("97{unique}"), unique),
            24..27 => "7777".to_owned(),
            27..29 => "5550".to_owned(),
            29..31 => station(STATIONS - 1),
            31..39 => station(self.rng.pick(&[3, 6])),
            _ => somebody,
        };
        (dialled.clone(), dialled)
    }

    fn later(&self, world: &World, at: u64, phone: usize, command: Command) {
        world.push(at, world::Event::Do(Action::Phone(phone, command)));
    }

    /// A phone says something.
    pub(crate) fn told(&mut self, world: &World, phones: &Phones, phone: usize, event: Event) {
        world.hash(format!("{phone} {event:?}").as_bytes());
        match event {
            Event::Incoming { call, from, number } => {
                let call_id = phones.call_id.clone();
                self.incoming(world, (phone, call), (from, number), call_id);
            }
            Event::Ringing { call } => self.with(phone, call, |dial, _| dial.rang = true),
            Event::Answered { call, .. } => self.answered(world, phone, call),
            Event::Ended { call, by_us, status, .. } => {
                self.ended(world, phone, call, End::Ended { by_us, status });
            }
            Event::Failed { call, status } => self.ended(world, phone, call, End::Failed(status)),
            Event::Protocol { what } => self.complaint(world, phones, phone, what),
            Event::Registered { .. } => self.registered += 1,
            Event::RegistrationFailed { .. } => self.refused_registrations += 1,
            Event::EarlyMedia { .. }
            | Event::MediaChanged { .. }
            | Event::ReInviteFailed { .. }
            | Event::Unregistered
            | Event::OptionsAnswered { .. }
            | Event::Timeout { .. } => {}
        }
    }

    fn with(&mut self, phone: usize, call: CallHandle, f: impl FnOnce(&mut Dial, Option<usize>)) {
        if let Some((n, leg)) = self.handles.get(&(phone, call))
            && let Some(dial) = &mut self.dials[*n]
        {
            f(dial, *leg);
        }
    }

    fn incoming(
        &mut self,
        world: &World,
        (phone, call): (usize, CallHandle),
        pair: (String, String),
        call_id: Option<String>,
    ) {
        let Some(n) = self.pairs.get(&pair).copied() else {
            world.violation(format!("phone {phone} gets a call that nobody has dialled: {pair:?}"));
            return;
        };
        let Some(dial) = &mut self.dials[n] else { return };
        let leg = dial.legs.len();
        dial.call_ids.extend(call_id);
        self.handles.insert((phone, call), (n, Some(leg)));
        dial.legs.push(Leg {
            phone,
            handle: call,
            answered: None,
            refused: None,
            hung_up: None,
            ends: Vec::new(),
        });
        let when = world.now() + self.rng.delay(LONG_US);
        match self.rng.below(100) {
            0..15 => {
                let status = self.rng.pick(&[486, 480, 503, 500, 404, 600, 603]);
                dial.legs[leg].refused = Some(status);
                self.later(world, when, phone, Command::Reject(call, status));
            }
            15..23 => {}
            _ => self.later(world, when, phone, Command::Answer(call)),
        }
        // Nobody lets a phone ring for ever.
        self.later(world, world.now() + 100_000_000, phone, Command::Hangup(call));
    }

    fn answered(&mut self, world: &World, phone: usize, call: CallHandle) {
        let now = world.now();
        let Some((n, leg)) = self.handles.get(&(phone, call)).copied() else { return };
        self.with(phone, call, |dial, leg| match leg {
            Some(leg) => dial.legs[leg].answered = Some(now),
            None => dial.answered = Some(now),
        });
        self.later(world, now + 60_000_000, phone, Command::Hangup(call));
        if leg.is_some() {
            return;
        }
        if self.rng.permille(60) {
            let (callee, vanishes) = (self.rng.permille(500), self.rng.permille(500));
            let at = now + self.rng.delay(6_000_000);
            world.push(at, world::Event::Do(Action::Fade { call: n, callee, vanishes }));
            return;
        }
        let end = now + self.rng.delay(LONG_US);
        let who = self.rng.below(100);
        if who < 60 {
            self.later(world, end, phone, Command::Hangup(call));
        }
        if who >= 40 {
            world.push(end, world::Event::Do(Action::Callee(n, AtCallee::Hangup)));
        }
        for _ in 0..self.rng.pick(&[0, 0, 0, 1, 2, 4]) {
            let at = now + self.rng.below((end - now).max(1));
            self.reinvite(world, n, (phone, call), at);
        }
    }

    /// Which call a phone's handle belongs to, and which leg of it: `None` is the caller's.
    pub(crate) fn whose(&self, phone: usize, call: CallHandle) -> Option<(usize, Option<usize>)> {
        self.handles.get(&(phone, call)).copied()
    }

    fn reinvite(&mut self, world: &World, n: usize, caller: (usize, CallHandle), at: u64) {
        let (phone, call) = caller;
        let callee = |what| world.push(at, world::Event::Do(Action::Callee(n, what)));
        match self.rng.below(9) {
            7 => {
                let media = nowhere();
                self.later(world, at, phone, Command::Move { call, media });
            }
            8 => callee(AtCallee::Move),
            0 => self.later(world, at, phone, Command::Hold(call)),
            1 => self.later(world, at, phone, Command::Retrieve(call)),
            2 => self.later(world, at, phone, Command::ReInvite(call)),
            3 => callee(AtCallee::Hold),
            4 => callee(AtCallee::Retrieve),
            5 => callee(AtCallee::ReInvite),
            _ => {
                self.later(world, at, phone, Command::ReInvite(call));
                callee(AtCallee::Hold);
            }
        }
    }

    fn ended(&mut self, world: &World, phone: usize, call: CallHandle, end: End) {
        let now = world.now();
        self.with(phone, call, |dial, leg| match leg {
            Some(leg) => dial.legs[leg].ends.push((now, end)),
            None => dial.ends.push((now, end)),
        });
    }

    /// A complaint is about the call whose message the phone is hearing; one of a timer, about what it sent 64*T1 before.
    fn complaint(&mut self, world: &World, phones: &Phones, phone: usize, what: String) {
        let now = world.now();
        let local = phones.handsets[phone].phone.config().local;
        let began = now.saturating_sub(32_000_000);
        let heard = phones.call_id.clone().or_else(|| {
            world.with_lines(|lines| {
                let first = lines.partition_point(|line| line.at < began);
                let then = lines[first..].iter().take_while(|line| line.at == began);
                let ours = |line: &&world::Line| line.from == local;
                let id = then.filter(ours).find_map(|line| peek_call_id(&line.bytes))?;
                Some(String::from_utf8_lossy(id).into_owned())
            })
        });
        let dials = self.dials.iter_mut().flatten();
        let of_call = heard.as_ref().and_then(|id| dials.rev().find(|dial| dial.call_ids.contains(id)));
        match of_call {
            Some(dial) => dial.complaints.push((now, phone, what)),
            // A REGISTER that was sent twice is answered twice.
            None if what.contains("to REGISTER without transaction") && world.plan().repeats() => {}
            None => {
                let user = &phones.handsets[phone].user;
                world.violation(format!("phone {phone} ({user}) complains, of no call ({heard:?}): {what}"));
            }
        }
    }

    /// The engine was killed: calls that were not established may now hang for long; people give up.
    pub(crate) fn killed(&mut self, world: &World) {
        let now = world.now();
        let mut commands = Vec::new();
        for dial in self.dials.iter_mut().flatten() {
            if dial.over_at().is_some_and(|over| over + COOLING_US < now) {
                continue;
            }
            dial.killed = Some(now);
            dial.first_killed.get_or_insert(now);
            if dial.answered.is_none() {
                commands.push((dial.caller, dial.handle));
                commands.extend(dial.legs.iter().map(|leg| (leg.phone, leg.handle)));
            }
        }
        for (phone, call) in commands {
            let at = now + 5_000_000 + self.rng.below(20_000_000);
            self.later(world, at, phone, Command::Hangup(call));
        }
    }
}
