//! The media sessions of a call, as orders to the worker that owns their sockets.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tandem_media::codec::Codec;
use tandem_media::session::{Direction, Learn, Mode, Report, SessionConfig};
use tandem_media::tone::TonePreset;
use tandem_protocol::b2bua::{LegId, Side};
use tandem_protocol::sdp;
use tandem_protocol::sdp::negotiate::AudioView;

use super::record::{SavedMedia, SavedSide};
use crate::calls::CallKey;
use crate::cdr::LegMedia;
use crate::config::ServiceKind;
use crate::env::Env;
use crate::media_pool::order::{Lease, MediaOrder, SessionId};
use crate::shell::Injection;

/// One side's sockets and session.
struct SideMedia {
    lease: Lease,
    signalling: IpAddr,
    config: Option<SessionConfig>,
    open: bool,
    /// It was opened, and another took its place.
    replaced: bool,
    report: Option<Box<Report>>,
}

impl SideMedia {
    fn new(lease: Lease, signalling: IpAddr) -> SideMedia {
        SideMedia { lease, signalling, config: None, open: false, replaced: false, report: None }
    }
}

/// The media of one call: none, one side (a service) or two (a relay), and until the answer perhaps a third: the callee's if he turns
/// out to be in the other address family.
pub(crate) struct Media {
    sides: Vec<SideMedia>,
    /// Which of them is the callee's.
    callee: u8,
    service: Option<ServiceKind>,
    record: bool,
    /// How many recordings the call has had: a restart begins a new one.
    segments: u32,
    recording: Option<Box<str>>,
    /// Who was asked, and where.
    callees: Vec<(LegId, IpAddr)>,
}

impl Media {
    /// No media of ours.
    pub(crate) fn none() -> Media {
        Media {
            sides: Vec::new(),
            callee: 1,
            service: None,
            record: false,
            segments: 0,
            recording: None,
            callees: Vec::new(),
        }
    }

    /// A relay between two leases; `other` is the callee's if he is in the other address family.
    pub(crate) fn relay(
        caller: (Lease, IpAddr),
        callee: (Lease, IpAddr),
        other: Option<Lease>,
        record: bool,
    ) -> Media {
        let sides = [caller, callee].into_iter().chain(other.map(|lease| (lease, callee.1)));
        let sides = sides.map(|(lease, signalling)| SideMedia::new(lease, signalling)).collect();
        Media { sides, record, ..Media::none() }
    }

    /// A service on one lease.
    pub(crate) fn service(caller: (Lease, IpAddr), kind: ServiceKind) -> Media {
        Media { sides: vec![SideMedia::new(caller.0, caller.1)], service: Some(kind), ..Media::none() }
    }

    /// A callee is asked, at this address: one of the contacts of a station, or the next proxy of a trunk. Its packets are taken
    /// before its description names where they come from; those of the proxy before are not.
    pub(crate) fn asks(&mut self, env: &Env, key: CallKey, leg: LegId, signalling: IpAddr) {
        if !self.sides.is_empty() {
            self.callees.push((leg, signalling));
            self.turn_to(env, key, leg);
        }
    }

    /// A callee has called us: it may turn out to be the one.
    pub(crate) fn knows(&mut self, leg: LegId, signalling: IpAddr) {
        if !self.sides.is_empty() {
            self.callees.push((leg, signalling));
        }
    }

    /// A side's peer signals from there from now on.
    pub(crate) fn signals_from(&mut self, side: Side, signalling: IpAddr) {
        let number = self.number(side);
        if let Some(side) = self.sides.get_mut(number) {
            side.signalling = signalling;
        }
    }

    /// The callee's side is this leg's from now on, in its address family.
    pub(crate) fn turn_to(&mut self, env: &Env, key: CallKey, leg: LegId) {
        let asked = self.callees.iter().find(|(asked, _)| *asked == leg);
        let Some(signalling) = asked.map(|(_, signalling)| *signalling) else { return };
        let fits = |number: &usize| self.sides[*number].lease.rtp.is_ipv4() == signalling.is_ipv4();
        let before = self.callee();
        let callee = (1..self.sides.len()).find(fits).unwrap_or(before);
        self.callee = callee as u8;
        let relinked = callee != before;
        let Some(side) = self.sides.get_mut(callee) else { return };
        side.signalling = signalling;
        let open = Some(&*side).filter(|side| side.open).and_then(|side| side.config.as_ref());
        if let Some(config) = open.filter(|config| relinked || config.signalling_ip != signalling) {
            let config = SessionConfig { signalling_ip: signalling, ..config.clone() };
            // Opening it again joins it to the caller's session.
            side.open = !relinked;
            self.apply(env, key, callee, config);
        } else if relinked {
            self.open_relay(env, key);
        }
    }

    /// The call is answered: what was kept for callees of the other address family ends, or is given back if it was not used.
    pub(crate) fn settle(&mut self, env: &Env, key: CallKey) -> Vec<Lease> {
        let callee = self.callee();
        for (number, side) in self.sides.iter_mut().enumerate().skip(1) {
            if number != callee && side.open {
                side.replaced = true;
                Media::close_side(env, key, number, side);
            }
        }
        // The numbers of sessions stay: one in the middle is given back when the call is over.
        let spare = self.sides.len() > 2 && callee == 1;
        let unused = self.sides.pop_if(|side| spare && !side.open);
        unused.map(|side| side.lease).into_iter().collect()
    }

    /// The media of a restored call.
    pub(crate) fn restored(saved: SavedMedia) -> Media {
        let side = |s: SavedSide| {
            let signalling = s.config.as_ref().map_or(s.lease.rtp.ip(), |c| c.signalling_ip);
            SideMedia { config: s.config, ..SideMedia::new(s.lease, signalling) }
        };
        Media {
            sides: saved.sides.into_iter().map(side).collect(),
            record: saved.record,
            segments: saved.segments,
            service: saved.service,
            ..Media::none()
        }
    }

    pub(crate) fn saved(&self) -> SavedMedia {
        let side = |s: &SideMedia| SavedSide { lease: s.lease, config: s.config.clone() };
        SavedMedia {
            sides: self.used().map(|(_, used)| side(used)).collect(),
            record: self.record,
            segments: self.segments,
            service: self.service,
        }
    }

    /// The caller's side, and the callee's.
    fn used(&self) -> impl Iterator<Item = (usize, &SideMedia)> {
        self.sides.iter().enumerate().filter(|(number, _)| [0, self.callee()].contains(number))
    }

    pub(crate) fn kind(&self) -> &'static str {
        match (self.sides.len(), self.service) {
            (0, _) => "bypass",
            (_, Some(_)) => "service",
            _ => "anchored",
        }
    }

    /// The sides that have a session now, each with its worker.
    pub(crate) fn open_sides(&self) -> impl Iterator<Item = (usize, u16)> {
        let open = self.sides.iter().enumerate().filter(|(_, side)| side.open && side.report.is_none());
        open.map(|(place, side)| (place, side.lease.worker))
    }

    pub(crate) fn recording(&self) -> Option<&str> {
        self.recording.as_deref()
    }

    /// The leases of sides that never opened: they can be used again at once.
    pub(crate) fn unused(&mut self) -> Vec<Lease> {
        self.sides.extract_if(.., |side| !side.open && side.report.is_none()).map(|side| side.lease).collect()
    }

    /// The leases of a call that never began.
    pub(crate) fn into_unused(mut self) -> Vec<Lease> {
        self.unused()
    }

    /// The number of the callee's side.
    fn callee(&self) -> usize {
        self.callee.into()
    }

    fn number(&self, side: Side) -> usize {
        if side == Side::Caller { 0 } else { self.callee() }
    }

    /// The side whose packets this one sends.
    fn peer_of(&self, number: usize) -> usize {
        if number == 0 { self.callee() } else { 0 }
    }

    /// Opens or changes a side's session by what its peer's description says. `watched`: silence ends the call.
    pub(crate) fn configure(
        &mut self,
        env: &Env,
        key: CallKey,
        side: Side,
        view: Option<&AudioView>,
        watched: bool,
    ) {
        let number = self.number(side);
        let config = self.config(env, number, view, watched);
        self.apply(env, key, number, config);
        // Silence on one side is no fault while the other holds, either.
        let other = self.peer_of(number);
        let timeout = self.timeout(env, watched);
        if let Some(mut config) = self.sides.get(other).filter(|s| s.open).and_then(|s| s.config.clone())
            && config.rtp_timeout != timeout
        {
            config.rtp_timeout = timeout;
            self.apply(env, key, other, config);
        }
    }

    /// The call is answered: from now on silence ends it.
    pub(crate) fn watch(&mut self, env: &Env, key: CallKey) {
        let timeout = self.timeout(env, true);
        for number in [0, self.callee()] {
            let Some(side) = self.sides.get(number) else { continue };
            let unwatched =
                |config: &&SessionConfig| config.remote_rtp.is_some() && config.rtp_timeout != timeout;
            if let Some(config) = side.config.as_ref().filter(|_| side.open).filter(unwatched) {
                let config = SessionConfig { rtp_timeout: timeout, ..config.clone() };
                self.apply(env, key, number, config);
            }
        }
    }

    fn timeout(&self, env: &Env, watched: bool) -> Option<std::time::Duration> {
        let timeout = env.config().media.rtp_timeout;
        (watched && !timeout.is_zero()).then_some(timeout)
    }

    fn config(&self, env: &Env, number: usize, view: Option<&AudioView>, watched: bool) -> SessionConfig {
        let side = self.sides.get(number);
        let signalling_ip = side.map_or(IpAddr::from([127, 0, 0, 1]), |side| side.signalling);
        let mode = match self.service {
            Some(ServiceKind::Echo) => Mode::Echo,
            Some(ServiceKind::Tone) => Mode::Tone(TonePreset::Dial),
            None => Mode::Relay,
        };
        SessionConfig {
            remote_rtp: view.map(|v| v.rtp).filter(|rtp| !rtp.ip().is_unspecified()),
            remote_rtcp: view.map(|v| v.rtcp).filter(|rtcp| !rtcp.ip().is_unspecified()),
            signalling_ip,
            learn: Learn::SameIp,
            direction: view.map_or(Direction::SendRecv, |v| ours(v.direction)),
            codec: view.and_then(|v| Codec::from_payload_type(v.payload_type)),
            payload_types: Vec::new(),
            telephone_event: view.and_then(|v| v.telephone_event),
            mode,
            // Without a description nobody knows yet that RTP may come.
            rtp_timeout: view.and_then(|_| self.timeout(env, watched)),
        }
    }

    fn apply(&mut self, env: &Env, key: CallKey, number: usize, config: SessionConfig) {
        let relay = self.sides.len() > 1;
        let peer = self.peer_of(number);
        let Some(side) = self.sides.get_mut(number) else { return };
        let session = SessionId { call: key, side: number as u8 };
        side.config = Some(config.clone());
        let config = Box::new(config);
        let order = if side.open {
            MediaOrder::Configure { session, config }
        } else {
            side.open = true;
            let peer = relay.then_some(SessionId { call: key, side: peer as u8 });
            MediaOrder::Open { session, lease: side.lease, config, shard: env.shard(), peer }
        };
        env.media(side.lease.worker, order);
    }

    /// Opens the sides of a relay before anyone knows their peers' addresses: the callee's early media may come with the first
    /// answer, and a caller that has offered nothing says where he is in his ACK.
    pub(crate) fn open_relay(&mut self, env: &Env, key: CallKey) {
        for number in [0, self.callee()] {
            if self.sides.len() > 1 && self.sides.get(number).is_some_and(|side| !side.open) {
                let config = self.config(env, number, None, false);
                self.apply(env, key, number, config);
            }
        }
    }

    /// Opens every side again, after a restart.
    pub(crate) fn reopen(&mut self, env: &Env, key: CallKey) {
        for number in 0..self.sides.len() {
            if let Some(config) = self.sides[number].config.clone() {
                self.apply(env, key, number, config);
            }
        }
    }

    /// Begins the recording, if there shall be one.
    pub(crate) fn record(&mut self, env: &Env, key: CallKey, id: &Arc<str>) {
        if !self.record || self.sides.is_empty() {
            return;
        }
        self.segments += 1;
        let name =
            if self.segments == 1 { format!("{id}.wav") } else { format!("{id}-{}.wav", self.segments) };
        let path: PathBuf = env.config().media.recording_dir.join(name);
        self.recording = Some(path.display().to_string().into());
        env.media(self.sides[0].lease.worker, MediaOrder::Record { call: key, shard: env.shard(), path });
    }

    /// Ends every session; true if reports are to be waited for.
    pub(crate) fn close(&self, env: &Env, key: CallKey) -> bool {
        let open = |side: &&SideMedia| side.open && !side.replaced;
        for (number, side) in self.sides.iter().enumerate().filter(|(_, side)| open(side)) {
            Media::close_side(env, key, number, side);
        }
        self.outstanding()
    }

    fn close_side(env: &Env, key: CallKey, number: usize, side: &SideMedia) {
        let session = SessionId { call: key, side: number as u8 };
        env.media(side.lease.worker, MediaOrder::Close { session });
    }

    pub(crate) fn outstanding(&self) -> bool {
        self.sides.iter().any(|side| side.open && side.report.is_none())
    }

    pub(crate) fn closed(&mut self, side: u8, report: Box<Report>) {
        if let Some(side) = self.sides.get_mut(usize::from(side)) {
            side.report = Some(report);
        }
    }

    pub(crate) fn refused(&mut self, side: u8) {
        self.closed(side, Box::default());
    }

    pub(crate) fn inject(&self, env: &Env, key: CallKey, side: u8, injection: Injection) {
        if let Some(known) = self.sides.get(usize::from(side)) {
            let session = SessionId { call: key, side };
            env.media(known.lease.worker, MediaOrder::InjectSession(session, injection));
        }
    }

    /// What each side counted, the caller's first.
    pub(crate) fn reports(&self) -> Vec<LegMedia> {
        let leg = |side: &SideMedia| {
            side.report.as_ref().map(|report| LegMedia {
                codec: report.codec.map_or_else(String::new, |codec| codec.name().to_owned()),
                tx: report.tx,
                rx: report.rx,
                lost: report.lost as i64,
                jitter_ms: report.jitter_ms,
                mos: report.mos.unwrap_or_default(),
            })
        };
        self.used().filter_map(|(_, side)| leg(side)).collect()
    }
}

/// A peer's direction, seen from our side.
fn ours(peer: sdp::Direction) -> Direction {
    match peer {
        sdp::Direction::SendRecv => Direction::SendRecv,
        sdp::Direction::SendOnly => Direction::RecvOnly,
        sdp::Direction::RecvOnly => Direction::SendOnly,
        sdp::Direction::Inactive => Direction::Inactive,
    }
}
