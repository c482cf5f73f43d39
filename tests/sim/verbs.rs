//! The grammar of what people and machines do: each verb is one line of one of the tables here.

use std::time::Duration;

use tandem_phone::{CallHandle, Command, Manners, Refresher, Reliability, SessionTimers};

use crate::phones::nowhere;
use crate::plan::Part;
use crate::rng::Rng;
use crate::script::{Action, LONG_US};
use crate::world::{Event, World};

/// The streams of chance of the phones' manners are numbered from here.
const OF_MANNERS: u64 = 600_000;

/// What a verb makes of a phone's end of a call.
pub(crate) type Does = fn(CallHandle) -> Command;

/// A verb, and how often it is chosen beside the others of its table.
pub(crate) type Weighed<Verb> = (u64, Verb);

/// One of a table.
pub(crate) fn choose<Verb: Copy>(rng: &mut Rng, table: &[Weighed<Verb>]) -> Verb {
    let mut place = rng.below(table.iter().map(|(weight, _)| weight).sum());
    for (weight, verb) in table {
        if place < *weight {
            return *verb;
        }
        place -= weight;
    }
    table[0].1
}

/// An established call.
struct Talk<'a> {
    world: &'a World,
    rng: &'a mut Rng,
    call: usize,
    at: u64,
}

impl Talk<'_> {
    fn end(&self, callee: bool, does: Does) {
        self.world.push(self.at, Event::Do(Action::InCall { call: self.call, callee, does }));
    }

    /// At one end, whichever.
    fn one(&mut self, does: Does) {
        let callee = self.rng.permille(500);
        self.end(callee, does);
    }

    /// At both ends at once.
    fn both(&mut self, caller: Does, callee: Does) {
        self.end(false, caller);
        self.end(true, callee);
    }
}

/// What is done in an established call.
const TALK: &[Weighed<fn(&mut Talk<'_>)>] = &[
    (2, |talk| talk.one(Command::Hold)),
    (2, |talk| talk.one(Command::Retrieve)),
    (2, |talk| talk.one(Command::ReInvite)),
    (2, |talk| talk.one(|call| Command::Move { call, media: nowhere() })),
    (2, |talk| talk.one(Command::ReInviteWithoutOffer)),
    (1, |talk| talk.one(Command::Info)),
    (2, |talk| talk.one(Command::Update)),
    // Glare.
    (1, |talk| talk.both(Command::ReInvite, Command::Hold)),
    (1, |talk| talk.both(Command::ReInvite, Command::ReInviteWithoutOffer)),
    (1, |talk| talk.both(Command::Update, Command::Update)),
    (1, |talk| talk.both(Command::ReInvite, Command::Update)),
    // Hold and retrieve at one end while the other one holds.
    (1, |talk| {
        talk.both(Command::Hold, Command::Hold);
        talk.at += talk.rng.below(2_000_000);
        talk.one(Command::Retrieve);
    }),
    // A re-INVITE and a BYE that cross.
    (1, |talk| talk.both(Command::ReInvite, Command::Hangup)),
    // A re-INVITE that is taken back, at once or while its answer is on the way.
    (3, |talk| {
        let begins: Does =
            talk.rng.pick(&[Command::ReInvite as Does, Command::Hold, Command::ReInviteWithoutOffer]);
        let callee = talk.rng.permille(500);
        talk.end(callee, begins);
        talk.at += talk.rng.pick(&[0, 2_000, 30_000, 250_000, 1_000_000]);
        talk.end(callee, Command::CancelReInvite);
    }),
    // Both ends offer, and one of them takes it back.
    (1, |talk| {
        talk.both(Command::ReInvite, Command::Hold);
        talk.at += talk.rng.below(300_000);
        talk.one(Command::CancelReInvite);
    }),
    // The ACK of a re-INVITE's 2xx never comes.
    (1, |talk| {
        let callee = talk.rng.permille(500);
        talk.end(callee, Command::WithholdAck);
        talk.at += 1;
        talk.end(callee, talk.rng.clone().pick(&[Command::ReInvite as Does, Command::ReInviteWithoutOffer]));
    }),
    (1, |talk| talk.one(Command::LowCseq)),
    // Nobody at this end refreshes the session any more.
    (1, |talk| talk.one(Command::Neglect)),
];

/// A call that was answered goes on: what is done in it, and how it ends.
pub(crate) fn talk(world: &World, rng: &mut Rng, call: usize, long: bool) {
    let now = world.now();
    if rng.permille(60) && !long {
        let (callee, vanishes) = (rng.permille(500), rng.permille(500));
        let at = now + rng.delay(6_000_000);
        world.push(at, Event::Do(Action::Fade { call, callee, vanishes }));
        return;
    }
    let end = now + if long { 100_000_000 + rng.below(100_000_000) } else { rng.delay(LONG_US) };
    let who = rng.below(100);
    let mut talk = Talk { world, rng, call, at: end };
    if who < 60 {
        talk.end(false, Command::Hangup);
    }
    if who >= 40 {
        talk.end(true, Command::Hangup);
    }
    for _ in 0..talk.rng.pick(&[0, 0, 0, 1, 2, 4]) {
        talk.at = now + talk.rng.below((end - now).max(1));
        let verb = choose(talk.rng, TALK);
        if world.plan().choice.has(Part::Verbs) {
            verb(&mut talk);
        }
    }
}

/// A phone that rings.
struct Ring<'a> {
    world: &'a World,
    rng: &'a mut Rng,
    phone: usize,
    call: CallHandle,
    at: u64,
}

impl Ring<'_> {
    fn does(&self, command: Command) {
        self.world.push(self.at, Event::Do(Action::Phone(self.phone, command)));
    }
}

/// What is done with a phone that rings.
const RING: &[Weighed<fn(&mut Ring<'_>)>] = &[
    (70, |ring| ring.does(Command::Answer(ring.call))),
    (15, |ring| {
        let status = ring.rng.pick(&[486, 480, 503, 500, 404, 600, 603, 300, 305, 380]);
        ring.does(Command::Reject(ring.call, status));
    }),
    (6, |ring| {
        let divert = Action::Divert { phone: ring.phone, call: ring.call };
        ring.world.push(ring.at, Event::Do(divert));
    }),
    // Nobody is there.
    (8, |_| {}),
    // A proxy forks the call to two phones, which both answer.
    (3, |ring| {
        ring.world.push(ring.world.now(), Event::Do(Action::Phone(ring.phone, Command::Fork(ring.call))));
        ring.does(Command::Answer(ring.call));
    }),
    // Early media, reliably if both ends can, and what may follow on it before the answer.
    (20, |ring| {
        let answers = ring.at;
        for does in [Command::Progress as Does, Command::Update, Command::Update, Command::Progress] {
            ring.at = ring.world.now() + ring.rng.below((answers - ring.world.now()).max(1));
            if ring.rng.permille(600) || matches!(does(ring.call), Command::Progress(_)) {
                ring.does(does(ring.call));
            }
        }
        ring.at = answers;
        match ring.rng.below(10) {
            0 => {}
            1 => ring.does(Command::Reject(ring.call, 486)),
            _ => ring.does(Command::Answer(ring.call)),
        }
    }),
    // Early media and the answer at once: the PRACK is still on its way.
    (6, |ring| {
        ring.does(Command::Progress(ring.call));
        ring.at += ring.rng.pick(&[0, 1_000, 20_000, 600_000]);
        ring.does(Command::Answer(ring.call));
    }),
    // It does not heed a CANCEL, and answers when the caller is long gone.
    (4, |ring| {
        ring.world.push(ring.world.now(), Event::Do(Action::Phone(ring.phone, Command::Defy(ring.call))));
        ring.at += ring.rng.pick(&[0, 10_000_000, 40_000_000]);
        ring.does(Command::Answer(ring.call));
    }),
];

/// A phone begins to ring: what its owner does.
pub(crate) fn ring(world: &World, rng: &mut Rng, phone: usize, call: CallHandle) {
    let at = world.now() + rng.delay(LONG_US);
    let verb = choose(rng, RING);
    let mut ring = Ring { world, rng, phone, call, at };
    match world.plan().choice.has(Part::Verbs) {
        true => verb(&mut ring),
        false => ring.does(Command::Answer(call)),
    }
}

/// A call that has begun.
struct Calling<'a> {
    world: &'a World,
    rng: &'a mut Rng,
    phone: usize,
    call: CallHandle,
}

impl Calling<'_> {
    fn does(&self, after: u64, command: Command) {
        let at = self.world.now() + after;
        self.world.push(at, Event::Do(Action::Phone(self.phone, command)));
    }
}

/// What is done by whoever has dialled, beside giving up.
const CALLING: &[Weighed<fn(&mut Calling<'_>)>] = &[
    (80, |_| {}),
    // It never acknowledges the answer.
    (2, |calling| calling.does(0, Command::WithholdAck(calling.call))),
    // It offers again as soon as the early exchange is over.
    (18, |calling| {
        for _ in 0..3 {
            let after = calling.rng.delay(LONG_US);
            calling.does(after, Command::Update(calling.call));
        }
    }),
];

/// A call begins: what the caller does before it is answered.
pub(crate) fn calling(world: &World, rng: &mut Rng, phone: usize, call: CallHandle) {
    let verb = choose(rng, CALLING);
    if world.plan().choice.has(Part::Verbs) {
        verb(&mut Calling { world, rng, phone, call });
    }
}

/// What a phone has beyond RFC 3261.
pub(crate) fn manners(world: &World, index: usize) -> Manners {
    let plan = world.plan();
    let mut rng = Rng::new(plan.seed, OF_MANNERS + index as u64);
    let reliable =
        choose(&mut rng, &[(4, Reliability::None), (5, Reliability::Supported), (1, Reliability::Required)]);
    let offers_in_prack = rng.permille(300);
    let refresher = rng.pick(&[None, None, Some(Refresher::Uac), Some(Refresher::Uas)]);
    let timers = SessionTimers {
        interval: rng.pick(&[90, 100, 120, 600]),
        min_se: rng.pick(&[90, 90, 90, 120, 200, 240]),
        refresher,
        by_update: rng.permille(500),
    };
    let has_timers = rng.permille(600);
    let updates = rng.permille(850);
    let ponders = rng.pick(&[0, 0, 0, 20, 300, 5_000]);
    let has = |part| plan.choice.has(part);
    Manners {
        reliable: if has(Part::Reliable) { reliable } else { Reliability::None },
        offers_in_prack,
        timer: (has_timers && has(Part::Timers)).then_some(timers),
        updates,
        ponders: Duration::from_millis(if has(Part::Ponders) { ponders } else { 0 }),
    }
}

/// A phone beside its calls.
struct Desk<'a> {
    world: &'a World,
    rng: &'a mut Rng,
    phone: usize,
    at: u64,
}

impl Desk<'_> {
    fn does(&self, command: Command) {
        self.world.push(self.at, Event::Do(Action::Phone(self.phone, command)));
    }

    /// And registers a while after.
    fn and_registers(&mut self) {
        self.at += self.rng.delay(20_000_000);
        self.does(Command::Register);
    }
}

/// What is done with a phone beside its calls.
const DESK: &[Weighed<fn(&mut Desk<'_>)>] = &[
    (10, |_| {}),
    (2, |desk| {
        desk.does(Command::Register);
        desk.and_registers();
    }),
    (2, |desk| {
        desk.does(Command::Unregister);
        desk.and_registers();
    }),
    (3, |desk| desk.does(Command::Options)),
    // It is switched off and on again: its calls are gone without a word.
    (2, |desk| {
        desk.does(Command::Restart);
        desk.and_registers();
    }),
];

/// What happens to a phone in the course of a run that lasts until `last`.
pub(crate) fn of_phone(world: &World, rng: &mut Rng, phone: usize, last: u64) {
    for _ in 0..2 {
        let at = 5_000_000 + rng.below(last);
        let verb = choose(rng, DESK);
        verb(&mut Desk { world, rng, phone, at });
    }
}
