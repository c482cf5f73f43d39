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
    report: Option<Report>,
}

/// The media of one call: none, one side (a service) or two (a relay).
pub(crate) struct Media {
    sides: Vec<SideMedia>,
    service: Option<ServiceKind>,
    record: bool,
    /// How many recordings the call has had: a restart begins a new one.
    segments: u32,
    recording: Option<String>,
    /// Who was asked, and where.
    callees: Vec<(LegId, IpAddr)>,
}

impl Media {
    /// No media of ours.
    pub(crate) fn none() -> Media {
        Media {
            sides: Vec::new(),
            service: None,
            record: false,
            segments: 0,
            recording: None,
            callees: Vec::new(),
        }
    }

    /// A relay between two leases.
    pub(crate) fn relay(caller: (Lease, IpAddr), callee: (Lease, IpAddr), record: bool) -> Media {
        let side =
            |(lease, signalling)| SideMedia { lease, signalling, config: None, open: false, report: None };
        Media { sides: vec![side(caller), side(callee)], record, ..Media::none() }
    }

    /// A service on one lease.
    pub(crate) fn service(caller: (Lease, IpAddr), kind: ServiceKind) -> Media {
        let (lease, signalling) = caller;
        let side = SideMedia { lease, signalling, config: None, open: false, report: None };
        Media { sides: vec![side], service: Some(kind), ..Media::none() }
    }

    /// The call has gone on to a callee elsewhere.
    pub(crate) fn callee_at(&mut self, signalling: IpAddr) {
        if let Some(side) = self.sides.get_mut(1) {
            side.signalling = signalling;
        }
    }

    /// A callee is asked, at this address: one of the contacts of a station, or the next proxy of a trunk. Its packets are taken
    /// before its description names where they come from; those of the proxy before are not.
    pub(crate) fn asks(&mut self, env: &Env, key: CallKey, leg: LegId, signalling: IpAddr) {
        self.callees.push((leg, signalling));
        self.callee_at(signalling);
        let open = self.sides.get(1).filter(|side| side.open).and_then(|side| side.config.as_ref());
        if let Some(config) = open.filter(|config| config.signalling_ip != signalling) {
            let config = SessionConfig { signalling_ip: signalling, ..config.clone() };
            self.apply(env, key, 1, config);
        }
    }

    /// This callee has the call.
    pub(crate) fn answered_by(&mut self, leg: LegId) {
        if let Some((_, signalling)) = self.callees.iter().find(|(asked, _)| *asked == leg) {
            self.callee_at(*signalling);
        }
    }

    /// The media of a restored call.
    pub(crate) fn restored(saved: SavedMedia) -> Media {
        let side = |s: SavedSide| SideMedia {
            lease: s.lease,
            signalling: s.config.as_ref().map_or(s.lease.rtp.ip(), |c| c.signalling_ip),
            config: s.config,
            open: false,
            report: None,
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
            sides: self.sides.iter().map(side).collect(),
            record: self.record,
            segments: self.segments,
            service: self.service,
        }
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

    fn number(side: Side) -> usize {
        usize::from(side != Side::Caller)
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
        let number = Media::number(side);
        let config = self.config(env, number, view, watched);
        self.apply(env, key, number, config);
        // Silence on one side is no fault while the other holds, either.
        let other = 1 - number.min(1);
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
        for number in 0..self.sides.len() {
            let side = &self.sides[number];
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
        let relay = self.sides.len() == 2;
        let Some(side) = self.sides.get_mut(number) else { return };
        let session = SessionId { call: key, side: number as u8 };
        side.config = Some(config.clone());
        let config = Box::new(config);
        let order = if side.open {
            MediaOrder::Configure { session, config }
        } else {
            side.open = true;
            let peer = relay.then_some(SessionId { call: key, side: 1 - number as u8 });
            MediaOrder::Open { session, lease: side.lease, config, shard: env.shard(), peer }
        };
        env.media(side.lease.worker, order);
    }

    /// Opens the sides of a relay before anyone knows their peers' addresses: the callee's early media may come with the first
    /// answer, and a caller that has offered nothing says where he is in his ACK.
    pub(crate) fn open_relay(&mut self, env: &Env, key: CallKey) {
        for number in 0..self.sides.len() {
            if self.sides.len() == 2 && self.sides.get(number).is_some_and(|side| !side.open) {
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
        self.recording = Some(path.display().to_string());
        env.media(self.sides[0].lease.worker, MediaOrder::Record { call: key, shard: env.shard(), path });
    }

    /// Ends every session; true if reports are to be waited for.
    pub(crate) fn close(&self, env: &Env, key: CallKey) -> bool {
        for (number, side) in self.sides.iter().enumerate().filter(|(_, side)| side.open) {
            env.media(
                side.lease.worker,
                MediaOrder::Close { session: SessionId { call: key, side: number as u8 } },
            );
        }
        self.outstanding()
    }

    pub(crate) fn outstanding(&self) -> bool {
        self.sides.iter().any(|side| side.open && side.report.is_none())
    }

    pub(crate) fn closed(&mut self, side: u8, report: Report) {
        if let Some(side) = self.sides.get_mut(usize::from(side)) {
            side.report = Some(report);
        }
    }

    pub(crate) fn refused(&mut self, side: u8) {
        self.closed(side, Report::default());
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
        self.sides.iter().filter_map(leg).collect()
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
