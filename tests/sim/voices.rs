//! What is said and heard in calls: every phone sends marked packets to where its peer's SDP says, and knows whom it may hear.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tandem_phone::{CallState, Direction, Event};

use crate::account::Dial;
use crate::air::{self, Air, Ear, Packet};
use crate::engine::LISTENER;
use crate::phones::Phones;
use crate::rng::Rng;
use crate::script::Script;
use crate::trunks;
use crate::wire;
use crate::world::{self, Fate, World};

/// How often somebody may say something, in microseconds.
pub(crate) const TALK_US: u64 = 250_000;
/// An address that belongs to nobody.
const STRANGER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 66, 0, 1)), 6_000);

/// One end of a call.
#[derive(Debug)]
pub(crate) struct Voice {
    /// Where it hears and sends from, what it may do, and since when; the newest last.
    pub(crate) history: Vec<(u64, SocketAddr, Direction)>,
    /// Where its peer's descriptions told it to send, the newest last.
    pub(crate) remotes: Vec<SocketAddr>,
    codec: u8,
    sequence: u16,
    ssrc: u32,
}

impl Voice {
    /// True if its packets go by the engine.
    pub(crate) fn is_anchored(&self) -> bool {
        self.remotes.last().is_some_and(|remote| remote.ip() == LISTENER.ip())
    }

    /// Where it hears at a moment; `None` before it has any media, and while it does not listen.
    pub(crate) fn home_at(&self, at: u64) -> Option<SocketAddr> {
        let (_, home, direction) = self.history.iter().rev().find(|(since, ..)| *since <= at)?;
        direction.receives().then_some(*home)
    }
}

/// Everybody's.
pub(crate) struct Voices {
    air: Air,
    rng: Rng,
    pub(crate) voices: BTreeMap<Ear, Voice>,
    talking: BTreeSet<Ear>,
    muted: BTreeSet<Ear>,
    ticking: bool,
}

impl Voices {
    pub(crate) fn new(world: &World, air: &Air) -> Voices {
        Voices {
            air: air.clone(),
            rng: Rng::new(world.plan().seed, 7),
            voices: BTreeMap::new(),
            talking: BTreeSet::new(),
            muted: BTreeSet::new(),
            ticking: false,
        }
    }

    /// A phone says something about a call, which may change what it says in it.
    pub(crate) fn told(
        &mut self,
        world: &World,
        phones: &Phones,
        script: &Script,
        phone: usize,
        event: &Event,
    ) {
        let (call, remote, codec, direction) = match event {
            Event::EarlyMedia { call, remote_media, codec } => {
                (*call, *remote_media, *codec, Direction::RecvOnly)
            }
            Event::Answered { call, remote_media, codec } => {
                (*call, *remote_media, *codec, Direction::SendRecv)
            }
            Event::MediaChanged { call, remote_media, codec, direction } => {
                (*call, *remote_media, *codec, *direction)
            }
            Event::Ended { call, .. } | Event::Failed { call, .. } => {
                self.talking.remove(&(phone, *call));
                return;
            }
            Event::Registered { .. }
            | Event::RegistrationFailed { .. }
            | Event::Unregistered
            | Event::Incoming { .. }
            | Event::Ringing { .. }
            | Event::ReInviteFailed { .. }
            | Event::OptionsAnswered { .. }
            | Event::Timeout { .. }
            | Event::Protocol { .. } => return,
        };
        let ear = (phone, call);
        let (Some(home), Some(_)) = (phones.handsets[phone].phone.media_of(call), script.whose(phone, call))
        else {
            return;
        };
        let random = self.rng.next();
        let voice = self.voices.entry(ear).or_insert_with(|| Voice {
            history: Vec::new(),
            remotes: Vec::new(),
            codec,
            sequence: random as u16,
            ssrc: (random >> 32) as u32,
        });
        voice.codec = codec;
        voice.history.push((world.now(), home, direction));
        if voice.remotes.last() != Some(&remote) {
            voice.remotes.push(remote);
        }
        self.talking.insert(ear);
        self.say(world, ear);
        if !self.ticking {
            self.ticking = true;
            world.push(world.now() + self.rng.below(TALK_US), world::Event::Talk);
        }
    }

    /// One end says nothing any more.
    pub(crate) fn mute(&mut self, ear: Ear) {
        self.muted.insert(ear);
    }

    /// Everybody has a chance to say something; a stranger too.
    pub(crate) fn talk(&mut self, world: &World, phones: &Phones) {
        for ear in self.talking.clone() {
            // Who has sent a BYE says nothing more, answered or not (RFC 3261 §15.1.1).
            let in_session = |(handle, state)| handle == ear.1 && state != CallState::Ending;
            if !phones.handsets[ear.0].phone.calls().any(in_session) {
                self.talking.remove(&ear);
            } else if self.rng.permille(700) {
                self.say(world, ear);
            }
        }
        self.ticking = !self.talking.is_empty();
        if self.ticking {
            world.push(world.now() + TALK_US, world::Event::Talk);
        }
    }

    fn say(&mut self, world: &World, ear: Ear) {
        let Some(voice) = self.voices.get_mut(&ear) else { return };
        let (Some(remote), Some((_, home, direction))) =
            (voice.remotes.last().copied(), voice.history.last().copied())
        else {
            return;
        };
        if !direction.sends() || remote.port() == 0 || self.muted.contains(&ear) {
            return;
        }
        voice.sequence = voice.sequence.wrapping_add(1);
        let stream = (voice.codec, voice.ssrc, voice.sequence);
        let (number, packet) = self.air.say(world.now(), Some(ear), remote, stream);
        let lost = world.send_sound(home, remote, &packet) == Fate::Lost;
        self.air.note(number, |packet| packet.lost = lost);
        if remote.ip() == LISTENER.ip() && self.rng.permille(5) {
            let (_, packet) = self.air.say(world.now(), None, remote, (0, 1, 1));
            world.send_sound(STRANGER, remote, &packet);
        }
    }

    /// A packet comes to a phone.
    pub(crate) fn hear(
        &self,
        world: &World,
        script: &Script,
        from: SocketAddr,
        to: SocketAddr,
        datagram: &[u8],
    ) {
        let Some(ear) = self.air.owner(to) else { return };
        let Some((n, _)) = script.whose(ear.0, ear.1) else { return };
        let Some((number, said)) =
            air::number(datagram).and_then(|number| Some((number, self.air.packet(number)?)))
        else {
            world.violation(format!("{to} hears from {from} what nobody has said"));
            return;
        };
        self.air.note(number, |packet| {
            packet.heard.get_or_insert(world.now());
        });
        let Some(dial) = &script.dials[n] else { return };
        let theirs = said.ear.and_then(|(phone, call)| script.whose(phone, call)).map(|(n, _)| n);
        if theirs != Some(n) && !self.is_left_over(world, script, ear, &said) {
            world.violation(format!("call {n}: {to} hears a packet of call {theirs:?}: {said:?}"));
        }
        if said.ear == Some(ear) && !dial.is_echo() {
            world.violation(format!("call {n}: {to} hears itself: {said:?}"));
        }
        let voice = self.voices.get(&ear);
        let named = voice.is_none_or(|voice| voice.remotes.contains(&from));
        let peer = self.air.owner(from).and_then(|(phone, call)| script.whose(phone, call));
        if theirs == Some(n) && !named && peer.map(|(n, _)| n) != Some(n) {
            world.violation(format!("call {n}: {to} hears {from}, which no SDP has named: {said:?}"));
        }
    }

    /// True if one of two calls that hear each other is left over: from a process that was killed before it had kept the call, or since
    /// the phone has lost what said that it is over. It talks on to a port that has another call now. If that call is one of the same
    /// phone's, symmetric RTP takes the host for its own while the address that its SDP names is silent.
    fn is_left_over(&self, world: &World, script: &Script, hears: Ear, said: &Packet) -> bool {
        let Some(says) = said.ear else { return false };
        let dial = |(phone, call)| script.whose(phone, call).and_then(|(n, _)| script.dials[n].as_ref());
        let (Some(one), Some(other)) = (dial(hears), dial(says)) else { return false };
        // The other call's INVITE may have come to the next process only when it was said again.
        let is_killed = |dial: &Dial| dial.first_killed.is_some_and(|killed| killed < said.at);
        let is_over = |left: &Dial, ear: Ear, new: &Dial| {
            let home = self.voices.get(&ear).and_then(|voice| voice.history.last());
            home.is_some_and(|(_, home, _)| {
                world.with_lines(|lines| {
                    wire::ended_before(lines, &left.call_ids, home.ip(), new.at)
                        || trunks::was_given_up(lines, &left.call_ids, home.ip())
                })
            })
        };
        // The phone of the new call need not have heard of it yet.
        let is_asked = |ear: Ear, new: &Dial| {
            let home = self.voices.get(&ear).and_then(|voice| voice.history.last());
            home.is_some_and(|(_, home, _)| {
                world.with_lines(|lines| wire::was_offered(lines, home.ip(), said.to.port(), new.at))
            })
        };
        let shares = |left: &Dial, ear: Ear, new: &Dial| {
            let is_its = new.ears().any(|(phone, _)| phone == ear.0) || is_asked(ear, new);
            let is_theirs = left.at < new.at && is_its;
            is_theirs && (is_killed(left) || is_over(left, ear, new))
        };
        shares(one, hears, other) || shares(other, says, one)
    }
}
