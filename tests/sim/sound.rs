//! What must hold of the sound of every call: it flows both ways while the call is steady, and the records agree with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tandem_actors::cdr::Cdr;
use tandem_actors::events::{Event, EventKind, Field};
use tandem_actors::metrics::ActorKind;

use crate::account::Dial;
use crate::air::{Ear, Packet};
use crate::engine::{LISTENER, RTP_TIMEOUT_US};
use crate::run::Sim;
use crate::store::Disk;
use crate::trunks::{Book, route};
use crate::voices::Voice;
use crate::wire::{Said, Wire};
use crate::world::WALL_START_MS;

/// After an agreement that the other end may not know yet, for as long as a 2xx is repeated (T2), and a little.
const UNSETTLED_US: u64 = 5_000_000;
/// What is known of a session is kept so often (`media_pool::packets::UPKEEP`), at a step, and an event's time is that of the last
/// millisecond.
const KEPT_US: u64 = 100_000 + 2_000 + 2_000;
/// What a session may forget with one panic: what it sent since it last took anything.
const FORGOTTEN: u64 = 16;

/// 64*T1: for so long the ACK of a 2xx is waited for.
const LIFE_US: u64 = 32_000_000;

/// What of the sound of a run is known, by call.
pub(crate) struct Sound {
    /// The packets that each end said.
    said: BTreeMap<Ear, Vec<Packet>>,
    /// By the engine's call id: when a session of it panicked.
    panics: BTreeMap<String, Vec<u64>>,
    /// Calls one of whose sessions could not go on.
    refused: BTreeSet<String>,
    /// The numbers of calls that have asked a proxy which may come too late for another call.
    haunted: BTreeSet<String>,
    /// Packets of steady calls that were checked.
    pub(crate) steady: usize,
}

/// One end of a call, and its voice.
type End<'a> = (Ear, &'a Voice);

/// When nothing changes in a call.
struct Steady {
    from: u64,
    until: u64,
    /// Except for these.
    not: Vec<(u64, u64)>,
}

impl Steady {
    fn covers(&self, at: u64) -> bool {
        self.from <= at && at < self.until && !self.not.iter().any(|(from, until)| *from <= at && at < *until)
    }
}

impl Sound {
    pub(crate) fn read(sim: &Sim, disk: &Disk, book: &Book) -> Sound {
        let (said, panics, refused) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut sound = Sound { said, panics, refused, haunted: book.haunted(), steady: 0 };
        for packet in sim.air.packets().iter() {
            if let Some(ear) = packet.ear {
                sound.said.entry(ear).or_default().push(packet.clone());
            }
        }
        let is_of = |event: &Event, kind: ActorKind| {
            event.data.iter().any(|(name, field)| match field {
                Field::Text(text) => *name == "actor" && text == kind.as_str(),
                Field::Number(_) => false,
            })
        };
        for (_, event) in &disk.events {
            let at = wall_us(event.time.0);
            let Some(id) = &event.call_id else { continue };
            if event.kind == EventKind::ActorRestarted && is_of(event, ActorKind::MediaSession) {
                sound.panics.entry(id.to_string()).or_default().push(at);
            } else if event.kind == EventKind::MediaFault && event.reason.contains("could not begin") {
                sound.refused.insert(id.to_string());
            }
        }
        sound
    }

    /// Checks one call; `records` are its own. Gives what is wrong.
    pub(crate) fn of_call(&mut self, sim: &Sim, wire: &Wire, dial: &Dial, records: &[&Cdr]) -> Vec<String> {
        let mut wrong = Vec::new();
        let panics = records.iter().filter_map(|cdr| self.panics.get(&cdr.call_id));
        let panics = panics.map(|times| times.len() as u64).sum();
        if let Some(steady) = steady(sim, wire, dial)
            && let Some((a, b)) = ends(sim, dial)
        {
            let mut swallowed = Vec::new();
            for (from, to) in [(a, b), (b, a)].into_iter().take(if dial.is_echo() { 1 } else { 2 }) {
                self.flows(sim, &steady, from, to, &mut swallowed, &mut wrong);
            }
            if swallowed.len() as u64 > panics {
                let what = "packets were taken from a phone and sent to nobody";
                wrong.push(format!("{} {what}, with {panics} panics: {swallowed:?}", swallowed.len()));
            }
        }
        if let [cdr] = records {
            self.counts_agree(sim, wire, (dial, cdr), panics, &mut wrong);
            self.silence_agrees(sim, wire, dial, cdr, &mut wrong);
        }
        wrong
    }

    /// True if nothing that an end has said was taken for so long that its address counts as silent.
    fn is_silent(&self, end: Ear, at: u64) -> bool {
        let patience = tandem_media::session::PATIENCE.as_micros() as u64;
        let taken = self.said.get(&end).into_iter().flatten().filter_map(|packet| packet.taken);
        // What is taken in the same moment may be taken after it.
        !taken.filter(|taken| *taken < at).any(|taken| at < taken + patience)
    }

    /// True if what is left over of another call of the same phone's has come meanwhile to the port that an end speaks to.
    fn is_spoken_for(&self, end: Ear, since: u64, until: u64) -> bool {
        let ports: BTreeSet<SocketAddr> =
            self.said.get(&end).into_iter().flatten().map(|packet| packet.to).collect();
        let others = self.said.iter().filter(|(ear, _)| ear.0 == end.0 && **ear != end);
        let mut came = others.flat_map(|(_, said)| said).filter(|packet| ports.contains(&packet.to));
        came.any(|packet| packet.taken.is_some_and(|taken| (since..=until).contains(&taken)))
    }

    /// Every packet of a steady call gets through, if the network lets it.
    fn flows(
        &mut self,
        sim: &Sim,
        steady: &Steady,
        from: End<'_>,
        to: End<'_>,
        swallowed: &mut Vec<u64>,
        wrong: &mut Vec<String>,
    ) {
        let way = sim.world.plan().longest_way_us();
        for packet in self.said.get(&from.0).into_iter().flatten() {
            let whole = steady.covers(packet.at) && steady.covers(packet.at + way);
            if packet.lost || !whole {
                continue;
            }
            // Who holds the other does not listen.
            let Some(there) = to.1.home_at(packet.at) else { continue };
            self.steady += 1;
            if packet.to.ip() != LISTENER.ip() {
                if packet.heard.is_none() {
                    wrong.push(format!("nobody hears {packet:?}"));
                }
                continue;
            }
            let Some((forwarded, target)) = packet.forwarded else {
                match packet.taken {
                    Some(at) => swallowed.push(at),
                    None => wrong.push(format!("no worker takes {packet:?}")),
                }
                continue;
            };
            // What is left over of another call may speak from the same host while the address that SDP names is silent.
            if there != target && there.ip() == target.ip() && self.is_silent(to.0, forwarded) {
                continue;
            }
            if there != target {
                wrong.push(format!("a packet goes to {target}, and {there} is what SDP says: {packet:?}"));
            }
            if packet.heard.is_none() && !packet.lost_behind {
                wrong.push(format!("the other end does not hear {packet:?}"));
            }
        }
    }

    /// The counts of a record are those of the sockets.
    fn counts_agree(
        &self,
        sim: &Sim,
        wire: &Wire,
        (dial, cdr): (&Dial, &Cdr),
        panics: u64,
        wrong: &mut Vec<String>,
    ) {
        let end = wall_us(cdr.end.0);
        let epoch = 1 + sim.outages.iter().filter(|(_, up)| *up <= end).count() as u32;
        let worker_panics = sim.world.plan().panics.worker > 0;
        let callee = dial.legs.iter().map(|leg| (leg.phone, leg.handle)).collect();
        for (leg, ears) in cdr.legs.iter().zip([vec![(dial.caller, dial.handle)], callee]) {
            let homes = ears.iter().flat_map(|ear| sim.air.addresses(*ear));
            let counts: Vec<_> = homes.map(|home| sim.air.count(epoch, home)).collect();
            let taken: u64 = counts.iter().map(|count| count.taken).sum();
            let sent: u64 = counts.iter().map(|count| count.sent).sum();
            let forgotten = if worker_panics { FORGOTTEN * (panics + 1) } else { 0 };
            // Of a proxy that comes too late nobody can tell which call it means.
            if route(&dial.to).is_some_and(|(_, callee)| self.haunted.contains(callee)) {
                continue;
            }
            if sim.cuts().next().is_some() || ears.iter().any(|ear| shares_host(sim, wire, dial, ear.0)) {
                // What a call says that is left over counts with the call of the same host that has its port now.
                let homes = ears.iter().flat_map(|ear| sim.air.addresses_of(ear.0));
                let counts: Vec<_> = homes.map(|home| sim.air.count(epoch, home)).collect();
                let (taken, sent): (u64, u64) =
                    (counts.iter().map(|c| c.taken).sum(), counts.iter().map(|c| c.sent).sum());
                if leg.tx > sent || leg.rx > taken {
                    wrong
                        .push(format!("the record says {leg:?} of {ears:?}, the sockets {taken} and {sent}"));
                }
                continue;
            }
            if leg.tx > sent || leg.tx + forgotten < sent {
                wrong.push(format!("the record says {} packets to {ears:?}, the sockets {sent}", leg.tx));
            }
            if leg.rx > taken {
                wrong.push(format!("the record says {} packets from {ears:?}, the sockets {taken}", leg.rx));
            }
        }
    }

    /// A call ends by silence when one end is silent, and not otherwise.
    fn silence_agrees(&self, sim: &Sim, wire: &Wire, dial: &Dial, cdr: &Cdr, wrong: &mut Vec<String>) {
        // The record's end waits for the answers to the BYEs.
        let last = wall_us(cdr.end.0);
        let born = sim.cuts().map(|(_, up)| *up).filter(|up| *up <= last).max().unwrap_or(0);
        let byes = |of| {
            // A surplus branch of a fork is not the call.
            let of_call = |said: &&crate::wire::Said| {
                said.is("BYE") && said.from == LISTENER && !said.reason.contains("answered elsewhere")
            };
            let byes = wire.of(of).filter(of_call);
            byes.map(|said| said.at).filter(|at| *at >= born).min()
        };
        // The callee's side may have had one before: one of two branches that both answered. The caller's waits for the ACK of the
        // 200 (RFC 3261 §15).
        let any = byes(&dial.call_ids);
        let of_caller =
            dial.call_ids.first().filter(|id| any.is_none_or(|any| !wire.is_unacknowledged_by(id, any)));
        let end = of_caller.and_then(|id| byes(std::slice::from_ref(id))).or(any).unwrap_or(last);
        let Some(((a, voice), (b, other))) = ends(sim, dial) else { return };
        let of_workers = sim.air.worker_panics();
        let panics: Vec<u64> =
            self.panics.get(&cdr.call_id).into_iter().flatten().chain(&of_workers).copied().collect();
        // A session that panics goes back to what was kept of it.
        let forgotten = |taken: u64| panics.iter().any(|at| (taken..taken + KEPT_US).contains(&(at + 1_000)));
        let quiet = |ear: Ear, since: u64| {
            let said = self.said.get(&ear).into_iter().flatten().filter_map(|packet| packet.taken);
            !said.filter(|taken| !forgotten(*taken)).any(|taken| taken > since && taken <= end)
        };
        let since = end.saturating_sub(RTP_TIMEOUT_US - 200_000);
        // Of two branches that both answered, the one of which there is no account may be the one that was kept.
        let elsewhere = dial.legs.iter().any(|leg| {
            leg.answered.is_some() && leg.ends.first().is_some_and(|(at, _)| at + 1_000_000 < last)
        });
        // A BYE that waited for the ACK of the 200, or for the end of the wait for one (RFC 3261 §13.3.1.4), says nothing of when the
        // silence was noticed.
        let waited = dial.call_ids.first().and_then(|id| match wire.set_up(id) {
            Some(set_up) => Some(set_up),
            None => wire.answered_at(id).map(|answered| (answered, answered + LIFE_US)),
        });
        let waited = waited.filter(|(_, over)| (*over..over + 1_000_000).contains(&end));
        let paused = |ear: Ear| {
            let Some((answered, over)) = waited else { return false };
            let said = self.said.get(&ear).into_iter().flatten().filter_map(|packet| packet.taken);
            let said = said.filter(|taken| (answered..over).contains(taken) && !forgotten(*taken));
            let marks: Vec<u64> = [answered].into_iter().chain(said).chain([over]).collect();
            marks.windows(2).any(|pair| pair[1].saturating_sub(pair[0]) >= RTP_TIMEOUT_US - 200_000)
        };
        let silent = [a, b].into_iter().any(|ear| quiet(ear, since) || paused(ear)) || elsewhere;
        if cdr.cause == "rtp_timeout" && !silent && !self.refused.contains(&cdr.call_id) {
            let last = |ear: Ear| {
                let mut said = self.said.get(&ear).into_iter().flatten();
                said.rfind(|packet| packet.taken.is_some_and(|taken| taken <= end))
            };
            let heard = [a, b].map(last);
            wrong.push(format!("the call ended for silence at {end} and nobody was silent: {heard:?}"));
        }
        // No BYE before the ACK of our 200, or its end (RFC 3261 §15).
        let unacknowledged = dial.call_ids.iter().any(|id| wire.is_unacknowledged_by(id, end));
        let Some((at, who, _)) = dial.faded.filter(|_| dial.killed.is_none() && !unacknowledged) else {
            return;
        };
        // A late ACK may bring the answer, and the session begins with it.
        let began = wire
            .acknowledged_at(&dial.call_ids)
            .filter(|began| *began <= end)
            .map_or(at, |began| at.max(began));
        let due = began + RTP_TIMEOUT_US + sim.world.plan().longest_way_us() + 500_000;
        let spoken_for = [a, b].iter().any(|ear| ear.0 == who && self.is_spoken_for(*ear, at, end));
        if voice.is_anchored() && other.is_anchored() && end > due && !spoken_for {
            wrong.push(format!("one end is silent since {at} and the call goes on until {end}"));
        }
    }
}

/// True if a phone did not know yet that one of its calls was over when another one began, and one of them is this.
fn shares_host(sim: &Sim, wire: &Wire, dial: &Dial, phone: usize) -> bool {
    let host = sim.phones.handsets[phone].phone.config().local.ip();
    let left_over = |left: &Dial, new: &Dial| {
        let knew = left.over_at().unwrap_or(u64::MAX);
        left.number != new.number
            && (left.at..knew).contains(&new.at)
            && wire.ended_at(&left.call_ids, host).is_some_and(|over| over < new.at)
    };
    let others = sim.script.dials.iter().flatten().filter(|d| d.ears().any(|(other, _)| other == phone));
    others.into_iter().any(|other| left_over(other, dial) || left_over(dial, other))
}

fn wall_us(wall_ms: u64) -> u64 {
    wall_ms.saturating_sub(WALL_START_MS) * 1000
}

/// The two ends between which sound flows; the caller twice if he hears himself.
fn ends<'a>(sim: &'a Sim, dial: &Dial) -> Option<(End<'a>, End<'a>)> {
    let voice = |ear: Ear| Some((ear, sim.voices.voices.get(&ear)?));
    let caller = voice((dial.caller, dial.handle))?;
    if dial.is_echo() {
        return Some((caller, caller));
    }
    let mut answered = dial.legs.iter().filter(|leg| leg.answered.is_some());
    let leg = answered.next()?;
    // Two phones of a station that both answered: only one of them is in the call.
    answered.next().is_none().then(|| Some((caller, voice((leg.phone, leg.handle))?)))?
}

/// From the answer to the first sign of the end, without the changes and kills in between.
fn steady(sim: &Sim, wire: &Wire, dial: &Dial) -> Option<Steady> {
    let plan = sim.world.plan();
    let way = plan.longest_way_us();
    let legs = dial.legs.iter();
    let answered = legs.clone().filter_map(|leg| leg.answered).chain([dial.answered?]).max()?;
    let ends = legs.filter(|leg| leg.answered.is_some()).filter_map(|leg| leg.ends.first());
    let ended = ends.chain(dial.ends.first()).map(|(at, _)| *at).min()?;
    let bye = wire.of(&dial.call_ids).filter(|said| said.is("BYE")).map(|said| said.at).min();
    let mut steady = Steady {
        from: answered + 1_000,
        until: bye.map_or(ended, |bye| bye.min(ended)).saturating_sub(1_000),
        not: Vec::new(),
    };
    // A proxy that is down hears nothing in any weather.
    let moods = sim.world.moods();
    let local = |phone: usize| sim.phones.handsets[phone].phone.config().local;
    let cut_off = dial.ears().any(|(phone, _)| moods.was_down(local(phone), answered, ended));
    let settles = plan.is_orderly() && plan.faults.loss == 0 && !cut_off;
    let unsettled = if settles { 2 * way } else { UNSETTLED_US };
    for id in &dial.call_ids {
        let dialog = wire.dialog(id);
        let first =
            dialog.iter().find(|said| said.method == "INVITE" && said.status.is_some_and(|s| s / 100 == 2));
        let initial = first.map_or(0, |said| said.cseq);
        // Who has offered nothing says where he is in his ACK or PRACK, and is nowhere until it comes.
        if let Some(asked) = dialog.iter().find(|said| said.is("INVITE") && said.cseq == initial)
            && !asked.has_sdp
        {
            let tells = |said: &&Said| (said.is("ACK") || said.is("PRACK")) && said.has_sdp;
            let told = dialog.iter().filter(tells).filter(|said| said.from == asked.from);
            steady.from = steady.from.max(told.flat_map(|said| said.arrives.iter()).min()? + 1_000);
        }
        let invites =
            dialog.iter().filter(|said| matches!(said.method.as_str(), "INVITE" | "ACK" | "UPDATE"));
        // The callee numbers its own requests as it likes.
        let asks = |said: &Said| first.is_some_and(|f| f.from == said.from && said.status.is_none());
        for said in invites.filter(|said| {
            said.cseq > initial || asks(said) || first.is_some_and(|f| f.from != said.from && f.to != said.to)
        }) {
            steady.not.push((said.at.saturating_sub(2 * way), said.at + unsettled));
        }
    }
    for (down, up) in sim.cuts() {
        let changing = steady.not.iter().any(|(from, until)| *from < *down && *down <= *until);
        if *down > answered && (changing || *down < answered + 500_000) {
            // What was agreed last may not have been kept.
            steady.until = steady.until.min(down.saturating_sub(2 * way));
        }
        steady.not.push((down.saturating_sub(2 * way), up + 1_000_000));
    }
    Some(steady)
}
