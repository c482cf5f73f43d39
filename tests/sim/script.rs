//! What people do with their phones: who calls whom and when, and what happens then. What they do within a call is in `verbs`.

use std::collections::BTreeMap;

use tandem_phone::{CallHandle, CallState, Command, Event};

use crate::account::{Dial, End, Leg};
use crate::engine::{STATIONS, station};
use crate::phones::{Kind, Phones};
use crate::plan::Part;
use crate::rng::Rng;
use crate::trunks;
use crate::verbs::{self, Does};
use crate::world::{self, World};

/// The longest anybody talks or rings, in microseconds.
pub(crate) const LONG_US: u64 = 15_000_000;
/// The longest that a call lasts in which the session timers come round.
pub(crate) const LONG_TALK_US: u64 = 220_000_000;
/// A pair of numbers is not used again for so long: an INVITE may be on its way for 32 s.
const COOLING_US: u64 = 40_000_000;
/// The streams of chance of the calls are numbered from here.
const OF_DIALS: u64 = 1_000_000;
/// The stream of chance of the reloads.
const OF_RELOADS: u64 = 400_000;
/// And that of shards that stand still.
const OF_FENCES: u64 = 450_000;
/// And those of the phones from here.
const OF_PHONES: u64 = 500_000;

/// Something that a person does.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Begins call number `n`.
    Dial(usize),
    /// Anything with one phone.
    Phone(usize, Command),
    /// Something at one end of a call.
    InCall { call: usize, callee: bool, does: Does },
    /// A phone that rings sends its caller to another number.
    Divert { phone: usize, call: CallHandle },
    /// One end of a call goes silent, or is gone altogether, without a word.
    Fade { call: usize, callee: bool, vanishes: bool },
}

/// The script and its account.
pub(crate) struct Script {
    seed: u64,
    /// Each call has its own chance, so that it is the same without the others.
    chances: BTreeMap<usize, Rng>,
    pub(crate) dials: Vec<Option<Dial>>,
    /// Which call a phone's handle belongs to; `None` for the caller, else the leg.
    handles: BTreeMap<(usize, CallHandle), (usize, Option<usize>)>,
    /// The last call between two numbers.
    pairs: BTreeMap<(String, String), usize>,
    /// What phones complained of that belongs to no call that they were told of, by Call-ID.
    pub(crate) strays: Vec<(u64, usize, String, String)>,
    pub(crate) registered: u64,
    pub(crate) refused_registrations: u64,
    /// When the last call begins, unless its number is still in use.
    pub(crate) last_dial: u64,
    /// Which phones were switched off and on, and when.
    pub(crate) restarts: Vec<(usize, u64)>,
}

impl Script {
    pub(crate) fn new(world: &World, phones: &Phones) -> Script {
        let plan = world.plan();
        let mut rng = Rng::new(plan.seed, 4);
        for (index, handset) in phones.handsets.iter().enumerate() {
            let registers = match handset.kind {
                Kind::Station | Kind::Impostor | Kind::Stranger => !plan.choice.trunks,
                Kind::Proxy | Kind::Carrier => false,
            };
            if registers {
                world.push(rng.below(2_000_000), world::Event::Do(Action::Phone(index, Command::Register)));
            }
        }
        let mut at = 5_000_000;
        let times: Vec<u64> = (0..plan.calls)
            .map(|_| {
                at += rng.below(2 * plan.gap_us);
                at
            })
            .collect();
        let mut last_dial = 0;
        for n in plan.choice.dials() {
            last_dial = times[n];
            world.push(times[n], world::Event::Do(Action::Dial(n)));
        }
        if plan.choice.has(Part::Registrations) {
            for index in phones.of(Kind::Station) {
                let mut rng = Rng::new(plan.seed, OF_PHONES + index as u64);
                verbs::of_phone(world, &mut rng, index, at);
            }
        }
        for _ in 0..plan.calls / if plan.choice.trunks { 10 } else { 40 } {
            let (operator, chaos) = (8_000_000 + rng.below(at), 8_000_000 + rng.below(at));
            if plan.choice.has(Part::Operators) {
                world.push(operator, world::Event::Operator);
            }
            if plan.is_chaotic() {
                world.push(chaos, world::Event::Chaos);
            }
        }
        if plan.choice.has(Part::Reloads) {
            let mut rng = Rng::new(plan.seed, OF_RELOADS);
            let end = at + LONG_US;
            for turn in 0..(plan.calls / 20) as u64 {
                world.push(3_000_000 + rng.below(end), world::Event::Reload(turn));
            }
        }
        for (at, proxy, mood) in world.moods().downs() {
            world.push(at, world::Event::Carrier(trunks::Turn::Down(proxy, mood)));
        }
        let mut rng = Rng::new(plan.seed, OF_FENCES);
        for _ in 0..plan.fences {
            world.push(6_000_000 + rng.below(at), world::Event::Stall);
        }
        for _ in 0..plan.kills {
            world.push(8_000_000 + rng.below(at), world::Event::Kill);
        }
        Script {
            seed: plan.seed,
            chances: BTreeMap::new(),
            dials: vec![None; plan.calls],
            handles: BTreeMap::new(),
            pairs: BTreeMap::new(),
            strays: Vec::new(),
            registered: 0,
            refused_registrations: 0,
            last_dial,
            restarts: Vec::new(),
        }
    }

    /// True if nobody is in a call between these two numbers, or has been lately.
    fn is_free(&self, world: &World, pair: &(String, String)) -> bool {
        self.pairs.get(pair).is_none_or(|last| {
            let dial = self.dials[*last].as_ref();
            dial.and_then(Dial::over_at).is_some_and(|over| over + COOLING_US < world.now())
        })
    }

    /// Where a call goes on that is diverted: to a number that its caller has not called lately.
    fn divert(&mut self, world: &World, phone: usize, call: CallHandle) -> Option<String> {
        let (n, _) = self.whose(phone, call)?;
        let number = station(self.chance(n).below(STATIONS as u64) as usize);
        let pair = (self.dials[n].as_ref()?.from.clone(), number.clone());
        if !self.is_free(world, &pair) {
            return None;
        }
        self.pairs.insert(pair, n);
        Some(number)
    }

    /// The chance of one call.
    fn chance(&mut self, n: usize) -> &mut Rng {
        let seed = self.seed;
        self.chances.entry(n).or_insert_with(|| Rng::new(seed, OF_DIALS + n as u64))
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
                if command == Command::Restart {
                    self.restarts.push((phone, world.now()));
                }
                if let Command::Neglect(handle) = command {
                    let now = world.now();
                    self.with(phone, handle, |dial, _| dial.neglected.push((now, phone)));
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
            Action::Divert { phone, call } => {
                if let Some(number) = self.divert(world, phone, call) {
                    phones.command(world, phone, Command::Redirect { call, number }, told);
                }
            }
            Action::InCall { call, callee, does } => {
                let Some(dial) = &self.dials[call] else { return };
                let leg = dial.legs.iter().find(|leg| leg.answered.is_some() && leg.ends.is_empty());
                let end = match leg {
                    Some(leg) if callee => Some((leg.phone, leg.handle)),
                    None if callee => None,
                    Some(_) | None => Some((dial.caller, dial.handle)),
                };
                if let Some((phone, handle)) = end {
                    self.act(world, phones, Action::Phone(phone, does(handle)), told);
                }
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
        let rng = self.chance(n);
        let kind = match rng.below(100) {
            _ if world.plan().choice.trunks => Kind::Station,
            0..2 => Kind::Impostor,
            2..4 => Kind::Stranger,
            4..14 => Kind::Proxy,
            _ => Kind::Station,
        };
        let caller = rng.pick(&phones.of(kind));
        let (to, number) = match world.plan().choice.trunks {
            true => by_trunk(rng, n),
            false => target(rng, kind, n),
        };
        let from = phones.handsets[caller].user.clone();
        let pair = (from.clone(), number);
        if !self.is_free(world, &pair) {
            // Somebody else calls a little later.
            world.push(world.now() + 10_000, world::Event::Do(Action::Dial(n)));
            return;
        }
        let long = self.chance(n).permille(20);
        let without_offer = self.chance(n).permille(100);
        let command = match without_offer && world.plan().choice.has(Part::Verbs) {
            true => Command::DialWithoutOffer { number: to.clone() },
            false => Command::Dial { number: to.clone() },
        };
        let Some(handle) = phones.command(world, caller, command, told) else {
            return;
        };
        self.pairs.insert(pair, n);
        self.handles.insert((caller, handle), (n, None));
        self.dials[n] = Some(Dial {
            number: n,
            at: world.now(),
            caller,
            handle,
            from,
            long,
            to,
            call_ids: phones.call_id.clone().into_iter().collect(),
            rang: false,
            answered: None,
            hung_up: None,
            ends: Vec::new(),
            legs: Vec::new(),
            faded: None,
            neglected: Vec::new(),
            killed: None,
            first_killed: None,
            complaints: Vec::new(),
        });
        let after = if long { LONG_TALK_US } else { 0 };
        let mut rng = self.chance(n).clone();
        verbs::calling(world, &mut rng, caller, handle);
        *self.chance(n) = rng;
        let rng = self.chance(n);
        let gives_up = rng.permille(200).then(|| rng.delay(LONG_US));
        if let Some(after) = gives_up {
            self.later(world, world.now() + after, caller, Command::Hangup(handle));
        }
        self.later(world, world.now() + 70_000_000 + after, caller, Command::Hangup(handle));
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
            Event::Protocol { what, call_id } => {
                let of = call_id.or_else(|| phones.call_id.clone());
                self.complaint(world, phones, phone, of, what);
            }
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
        dial.legs.push(Leg { phone, handle: call, answered: None, hung_up: None, ends: Vec::new() });
        let mut rng = self.chance(n).clone();
        verbs::ring(world, &mut rng, phone, call);
        *self.chance(n) = rng;
        // Nobody lets a phone ring for ever.
        self.later(world, world.now() + 100_000_000, phone, Command::Hangup(call));
    }

    fn answered(&mut self, world: &World, phone: usize, call: CallHandle) {
        let now = world.now();
        let Some((n, leg)) = self.handles.get(&(phone, call)).copied() else {
            // The other branch of a fork, which the engine ends, unless it is killed before its BYE has come.
            return self.later(world, now + 60_000_000, phone, Command::Hangup(call));
        };
        self.with(phone, call, |dial, leg| match leg {
            Some(leg) => dial.legs[leg].answered = Some(now),
            None => dial.answered = Some(now),
        });
        let long = self.dials[n].as_ref().is_some_and(|dial| dial.long);
        let longest = if long { LONG_TALK_US } else { 60_000_000 };
        self.later(world, now + longest, phone, Command::Hangup(call));
        if leg.is_some() {
            return;
        }
        let mut rng = self.chance(n).clone();
        verbs::talk(world, &mut rng, n, long);
        *self.chance(n) = rng;
    }

    /// Which call a phone's handle belongs to, and which leg of it: `None` is the caller's.
    pub(crate) fn whose(&self, phone: usize, call: CallHandle) -> Option<(usize, Option<usize>)> {
        self.handles.get(&(phone, call)).copied()
    }

    fn ended(&mut self, world: &World, phone: usize, call: CallHandle, end: End) {
        let now = world.now();
        self.with(phone, call, |dial, leg| match leg {
            Some(leg) => dial.legs[leg].ends.push((now, end)),
            None => dial.ends.push((now, end)),
        });
    }

    /// A complaint is about the call that the phone names, else about the one whose message it is hearing.
    fn complaint(
        &mut self,
        world: &World,
        phones: &Phones,
        phone: usize,
        heard: Option<String>,
        what: String,
    ) {
        let now = world.now();
        let dials = self.dials.iter_mut().flatten();
        let of_call = heard.as_ref().and_then(|id| dials.rev().find(|dial| dial.call_ids.contains(id)));
        match of_call {
            Some(dial) => dial.complaints.push((now, phone, what)),
            // A REGISTER that was sent twice is answered twice.
            None if what.ends_with("without transaction") && world.plan().repeats() => {}
            // Of an INVITE that a phone has refused before it was a call.
            None if heard.is_some() => self.strays.push((now, phone, what, heard.unwrap_or_default())),
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
        for (n, dial) in self.dials.iter_mut().enumerate() {
            let Some(dial) = dial else { continue };
            if dial.over_at().is_some_and(|over| over + COOLING_US < now) {
                continue;
            }
            dial.killed = Some(now);
            dial.first_killed.get_or_insert(now);
            if dial.answered.is_none() {
                commands.push((n, dial.caller, dial.handle));
                commands.extend(dial.legs.iter().map(|leg| (n, leg.phone, leg.handle)));
            }
        }
        for (n, phone, call) in commands {
            let at = now + 5_000_000 + self.chance(n).below(20_000_000);
            self.later(world, at, phone, Command::Hangup(call));
        }
    }
}

/// What is dialled for one of the trunks in `trunks`, and what the callee will be asked for.
fn by_trunk(rng: &mut Rng, n: usize) -> (String, String) {
    let callee = format!("{n:06}");
    (trunks::number(rng, &callee), callee)
}

/// What is dialled, and what the callee will be asked for.
fn target(rng: &mut Rng, kind: Kind, n: usize) -> (String, String) {
    let somebody = station(rng.below(STATIONS as u64 - 2) as usize);
    let unique = format!("{n:06}");
    if kind != Kind::Station {
        return (somebody.clone(), somebody);
    }
    let dialled = match rng.below(100) {
        0..8 => "*43".to_owned(),
        8..16 => return (format!("96{unique}"), unique),
        16..20 => return (format!("97{unique}"), unique),
        20..24 => return (format!("98{unique}"), unique),
        24..36 => return by_trunk(rng, n),
        36..38 => "7777".to_owned(),
        38..40 => "5550".to_owned(),
        40..42 => station(STATIONS - 1),
        42..50 => station(rng.pick(&[3, 6])),
        _ => somebody,
    };
    (dialled.clone(), dialled)
}
