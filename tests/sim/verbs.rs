//! The grammar of what people and machines do: each verb is one line of one of the tables here.

use tandem_phone::{CallHandle, Command};

use crate::phones::nowhere;
use crate::plan::Part;
use crate::rng::Rng;
use crate::script::{Action, LONG_US};
use crate::world::{Event, World};

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
