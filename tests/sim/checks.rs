//! What must hold: while it runs, and when everything has come to rest.

use std::collections::BTreeMap;

use serde_json::Value;
use tandem_actors::cdr::Cdr;
use tandem_actors::events::EventKind;
use tandem_actors::metrics::ActorKind;
use tandem_actors::shard::Ask;

use crate::account::{Dial, End};
use crate::complaints;
use crate::engine::Life;
use crate::ladder;
use crate::rules;
use crate::run::Sim;
use crate::sound::Sound;
use crate::store::Disk;
use crate::trunks;
use crate::wire::Wire;
use crate::world::{WALL_START_MS, World};

/// A slow disk takes so long for what is urgent.
const SLOW_DISK_US: u64 = 150_000 + 2_000;

/// What the gauges say is what lives.
pub(crate) fn gauges(world: &World, life: &Life) {
    let alive = life.shared.census.alive(ActorKind::Call) as f64;
    trunks::gauges(world, life);
    let said = life.gauges.gauge("tandem_calls_active");
    if (alive - said).abs() > 0.5 {
        world.violation(format!("{alive} calls live and tandem_calls_active says {said}"));
    }
    let bindings: usize = life.shared.current().directory.stations().map(|s| s.binding_count()).sum();
    let said = life.gauges.gauge("tandem_registrations_active");
    if (bindings as f64 - said).abs() > 0.5 {
        world.violation(format!("{bindings} bindings live and tandem_registrations_active says {said}"));
    }
}

/// Calls that go on although their phones have hung up.
async fn no_call_is_left(sim: &Sim, life: &Life) {
    for call in life.engine.ask_all(Ask::Calls).await {
        let text = |name: &str| call[name].as_str().unwrap_or_default().to_owned();
        let started = call["start"].as_u64().unwrap_or_default();
        let known = dials_of(sim, &text("from"), &text("to")).into_iter().find(|dial| covers(dial, started));
        let ladder = known.map_or_else(String::new, |dial| show(sim, &dial));
        sim.world.violation(format!("a call is left: {call}\n{ladder}"));
    }
}

/// Everything that must hold once nothing happens any more.
pub(crate) async fn at_rest(sim: &mut Sim, life: &Life) {
    no_call_is_left(sim, life).await;
    nothing_is_left(sim, life).await;
    gauges(&sim.world, life);
    phones_are_idle(sim);
    for what in sim.world.idle_streams() {
        sim.world.violation(format!("an idle connection is left: {what}"));
    }
    for what in sim.nonsense.wrong(&sim.world) {
        sim.world.violation(what);
    }
    let disk = std::mem::take(&mut *sim.disk.lock().expect("the disk is whole"));
    let cdrs = one_record_a_call(sim, &disk);
    let wire = Wire::read(&sim.world);
    let book = trunks::Book::read(&sim.world, &disk.cdrs);
    let mut sound = Sound::read(sim, &disk, &book);
    trunks::at_rest(sim, life, &book);
    for dial in sim.script.dials.iter().flatten() {
        each_end_was_told_once(sim, dial);
        for what in complaints::unexplained(sim, &wire, dial) {
            violation(sim, dial, &what);
        }
        nobody_was_forgotten(sim, &wire, dial);
        for what in rules::broken(sim, &wire, dial) {
            violation(sim, dial, &what);
        }
        let of_call = |cdr: &&Cdr| cdr.from == dial.from && cdr.to == dial.to && covers(dial, cdr.start.0);
        let records: Vec<&Cdr> = cdrs.iter().filter(of_call).collect();
        record_agrees(sim, dial, &records);
        for what in trunks::of_call(sim, &wire, &book, dial, &records) {
            violation(sim, dial, &what);
        }
        for what in sound.of_call(sim, &wire, dial, &records) {
            violation(sim, dial, &what);
        }
    }
    for what in complaints::unexplained_strays(sim, &wire) {
        sim.world.violation(what);
    }
    let steady = sound.steady;
    for (n, dial) in sim.script.dials.iter().enumerate() {
        let made = sim.world.plan().choice.only.as_ref().is_none_or(|only| only.contains(&n));
        if dial.is_none() && made {
            sim.world.violation(format!("call {n} was never dialled"));
        }
    }
    *sim.disk.lock().expect("the disk is whole") = disk;
    sim.steady = steady;
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}

async fn nothing_is_left(sim: &Sim, life: &Life) {
    let world = &sim.world;
    let counts = life.engine.ask_all(Ask::Count).await;
    let sum = |name: &str| counts.iter().map(|count| number(count, name)).sum::<u64>();
    let census = &life.shared.census;
    let alive = |kind| census.alive(kind) as u64;
    let timers = alive(ActorKind::Shard)
        + alive(ActorKind::Trunk)
        + alive(ActorKind::RegistrationGroup)
        + alive(ActorKind::Station);
    // Stations register again and again, and the engine with its provider: their transactions are no leak.
    let transactions = sum("transactions");
    let expected = [
        ("calls", sum("calls"), 0),
        ("dialogs", sum("dialogs"), 0),
        ("timers", sum("timers"), timers + transactions),
        ("free ports", sum("free_ports"), u64::from(world.plan().pairs * world.plan().workers)),
        ("media sessions", alive(ActorKind::MediaSession), 0),
        ("media sessions by the gauge", life.gauges.gauge("tandem_media_sessions_active") as u64, 0),
        ("media workers", alive(ActorKind::MediaWorker), u64::from(world.plan().workers)),
        ("call actors", alive(ActorKind::Call), 0),
        ("dialog actors", alive(ActorKind::Dialog), 0),
        ("shards", alive(ActorKind::Shard), u64::from(world.plan().shards)),
        ("trunk actors", alive(ActorKind::Trunk), life.shared.current().directory.trunks().count() as u64),
        ("registration groups", alive(ActorKind::RegistrationGroup), 1),
        ("transactions by the gauge", life.gauges.gauge("tandem_transactions_active") as u64, transactions),
        ("free ports by the gauge", life.gauges.gauge("tandem_media_ports_free") as u64, sum("free_ports")),
        ("trunk calls by the gauge", life.gauges.gauge("tandem_trunk_calls_active") as u64, 0),
    ];
    for (what, found, wanted) in expected {
        if found != wanted {
            world.violation(format!("at rest there are {found} {what}, not {wanted}"));
        }
    }
    if transactions > 4 * sim.phones.handsets.len() as u64 {
        world.violation(format!("at rest there are {transactions} transactions"));
    }
    for station in life.shared.current().directory.stations().filter(|station| station.calls() != 0) {
        world.violation(format!("station {} holds {} permits", station.config.name, station.calls()));
    }
    for trunk in life.shared.current().directory.trunks().filter(|trunk| trunk.calls.taken() != 0) {
        world.violation(format!("trunk {} holds {} permits", trunk.config.name, trunk.calls.taken()));
    }
    let current = life.shared.current();
    let stations = current.directory.stations().filter_map(|station| station.watched());
    let trunks = current.directory.trunks().filter_map(|trunk| trunk.toll.watched());
    for watched in stations.chain(trunks).filter(|watched| watched.calls_up() != 0) {
        world.violation(format!("{:?} has {} outside calls up", watched.who, watched.calls_up()));
    }
}

fn phones_are_idle(sim: &Sim) {
    for handset in &sim.phones.handsets {
        for (call, state) in handset.phone.calls() {
            sim.world.violation(format!("{} has {call:?} in state {state:?}", handset.user));
        }
    }
}

/// Exactly one `call.started`, one `call.ended` and one CDR for each call; at most one `call.answered`. Gives the CDRs.
fn one_record_a_call(sim: &Sim, disk: &Disk) -> Vec<Cdr> {
    #[derive(Default, Debug)]
    struct Seen {
        started: usize,
        answered: usize,
        ended: usize,
        cdrs: usize,
    }
    let mut calls: BTreeMap<String, Seen> = BTreeMap::new();
    for (_, event) in &disk.events {
        let Some(id) = &event.call_id else { continue };
        let seen = calls.entry(id.to_string()).or_default();
        match event.kind {
            EventKind::CallStarted => seen.started += 1,
            EventKind::CallAnswered => seen.answered += 1,
            EventKind::CallEnded => seen.ended += 1,
            EventKind::CallRinging
            | EventKind::CallReplaced
            | EventKind::RouteDecided
            | EventKind::TrunkAttempt
            | EventKind::TrunkState
            | EventKind::Registration
            | EventKind::ActorRestarted
            | EventKind::MediaFault
            | EventKind::Recording
            | EventKind::TollAlarm
            | EventKind::Settings => {}
        }
    }
    for cdr in &disk.cdrs {
        calls.entry(cdr.call_id.clone()).or_default().cdrs += 1;
    }
    for (id, seen) in &calls {
        let whole = seen.started == 1 && seen.ended == 1 && seen.cdrs == 1 && seen.answered <= 1;
        if !whole {
            let cdr = disk.cdrs.iter().find(|cdr| cdr.call_id == *id);
            sim.world.violation(format!("call {id} is recorded as {seen:?}: {cdr:?}"));
        }
    }
    for pair in disk.events.windows(2).filter(|pair| pair[1].0 != pair[0].0 + 1) {
        sim.world.violation(format!("event {} follows event {}", pair[1].0, pair[0].0));
    }
    disk.cdrs.clone()
}

/// The ladder of a call, for a violation.
fn show(sim: &Sim, dial: &Dial) -> String {
    let header = format!(
        "    {} dialled {} at {}; rang {}, answered {:?}, hung up {:?}, ends {:?}, killed {:?}; legs {:?}\n",
        dial.from,
        dial.to,
        ladder::time(dial.at),
        dial.rang,
        dial.answered,
        dial.hung_up,
        dial.ends,
        dial.killed,
        dial.legs
    );
    header + &ladder::of_call(&sim.world, &dial.call_ids, 60)
}

fn violation(sim: &Sim, dial: &Dial, what: &str) {
    sim.world.violation(format!("call {}: {what}\n{}", dial.number, show(sim, dial)));
}

fn dials_of(sim: &Sim, from: &str, to: &str) -> Vec<Dial> {
    sim.script.dials.iter().flatten().filter(|dial| dial.from == from && dial.to == to).cloned().collect()
}

/// True if a call that the engine began at `wall_ms` is this one.
fn covers(dial: &Dial, wall_ms: u64) -> bool {
    let at = (wall_ms - WALL_START_MS) * 1000;
    let over = dial.ends.first().map_or(u64::MAX, |(over, _)| *over);
    at + 1000 >= dial.at && at <= over.saturating_add(40_000_000)
}

fn each_end_was_told_once(sim: &Sim, dial: &Dial) {
    if dial.ends.len() != 1 {
        violation(sim, dial, "the caller's phone was not told exactly one end");
    }
    if dial.legs.iter().any(|leg| leg.ends.len() != 1) {
        violation(sim, dial, "a callee's phone was not told exactly one end");
    }
}

/// An established call is known to the engine until a phone ends it: whoever hangs up gets 200, not 481, kill or no kill.
fn nobody_was_forgotten(sim: &Sim, wire: &Wire, dial: &Dial) {
    let caller = dial.ends.first().map(|end| (dial.hung_up, end.clone(), dial.answered, dial.caller));
    let legs = dial
        .legs
        .iter()
        .filter_map(|leg| Some((leg.hung_up, leg.ends.first()?.clone(), leg.answered, leg.phone)));
    let sides: Vec<_> = caller.into_iter().chain(legs).collect();
    for (place, (hung_up, (at, end), answered, phone)) in sides.iter().enumerate() {
        let End::Ended { by_us: true, status: Some(status) } = end else { continue };
        let established = answered.is_some() && hung_up.is_some();
        // The other side, or another fork, ended it at the same time.
        let crossed = sides
            .iter()
            .enumerate()
            .any(|(other, (_, (theirs, _), ..))| other != place && *theirs < *at + 40_000_000);
        let alone = sides.len() < 2 || !crossed;
        // A 200 of a set-up that a kill has lost, or that another leg was quicker than, is ended at once, and its phone's own BYE
        // crosses that.
        let callees = dial.legs.iter().filter(|leg| leg.answered.is_some());
        let beside =
            *phone != dial.caller && callees.clone().any(|leg| leg.phone == *phone) && callees.count() > 1;
        let stray = (dial.killed.is_some() || beside) && wire.engine_hung_up(&dial.call_ids, *at);
        // The 200 of the process before got lost, and this one knows only that the call is over.
        let local = sim.phones.handsets[*phone].phone.config().local;
        let answered_before = wire
            .bye_answered_at(&dial.call_ids, local)
            .is_some_and(|answered| sim.cuts().any(|(down, _)| answered <= *down && down <= at));
        // Its BYE got lost, and it told the engine meanwhile that it knows no call.
        let forgotten = wire.is_disowned(&dial.call_ids, local, *at);
        let given_up = stray || answered_before || forgotten || wire.was_told_in_vain(&dial.call_ids, *at);
        if established && *status != 200 && alone && !given_up {
            violation(sim, dial, &format!("a BYE of an established call got {status}"));
        }
    }
}

/// The engine's record of a call agrees with what its phones saw.
fn record_agrees(sim: &Sim, dial: &Dial, records: &[&Cdr]) {
    let plan = sim.world.plan();
    if dial.killed.is_none() && records.len() > 1 {
        violation(sim, dial, &format!("one call has {} records: {records:?}", records.len()));
    }
    let answered = records.iter().any(|cdr| cdr.answer.is_some());
    // A store that takes too long does not hold an answer for ever: until it has caught up, a kill loses the call.
    let unprotected = dial.answered.is_some_and(|at| {
        plan.slow_disk > 0 && sim.outages.iter().any(|(down, _)| (at..at + SLOW_DISK_US).contains(down))
    });
    if dial.answered.is_some() && !answered && !unprotected {
        violation(sim, dial, &format!("the caller was answered, which no record says: {records:?}"));
    }
    let Some((told_at, End::Failed(status))) = dial.ends.first() else { return };
    // Refused before it was a call, or silence.
    let unadmitted = matches!(status, 401 | 403 | 408 | 482 | 488 | 503);
    // A panic in the caller's leg before its answer ends it with 500, whatever was decided for the call.
    let fault = *status == 500 && plan.panics.dialog > 0 && !records.is_empty();
    // A call that loses its state afterwards has lost what it had told the caller.
    let forgotten = plan.panics.call > 0
        && records.iter().any(|cdr| {
            let ended = cdr.end.0.saturating_sub(WALL_START_MS) * 1000;
            cdr.cause == "fault" && *told_at < ended
        });
    let told = fault || forgotten || records.iter().any(|cdr| cdr.sip_status == *status);
    if !unadmitted && !told && dial.killed.is_none() {
        violation(sim, dial, &format!("the caller got {status}, which no record says: {records:?}"));
    }
}
