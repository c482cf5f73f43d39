//! The packet rules of one leg: whom it listens to, what it takes, where to send, what it counts.
//!
//! A [`Session`] has no sockets. Its worker feeds it what arrives and asks it where to send:
//!
//! - inputs: [`Session::receive_rtp`], [`Session::receive_rtcp`], [`Session::sent`], [`Session::reconfigure`];
//! - output: [`Session::tick`], due at [`Session::next_tick`];
//! - queries: [`Session::send_to`], [`Session::rtcp_to`], [`Session::timed_out`], [`Session::report`].
//!
//! **The source of a leg.** Packets are taken from the address that the SDP names. While that address is
//! silent, that is, has not spoken for [`PATIENCE`] since it was named or since its last packet, the first
//! valid packet of an accepted payload type from another port of its IP, or from the IP of the signalling
//! ([`Learn`] narrows or widens this), makes its source the learned one: it is listened to and sent to. The
//! learned source is given up as soon as the named one speaks, and replaced by another permitted source only
//! when it has been silent for [`PATIENCE`] itself. While the SDP has named no address there is none to wait
//! for, and a permitted source is learned at once. Every other source is refused and counted.

mod config;
mod report;
mod source;
mod tone_sender;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::SAMPLE_RATE;
use crate::dtmf::TelephoneEvent;
use crate::rtcp::{Compound, RtcpPacket};
use crate::rtp::{HEADER_LEN, PacketKind, RtpPacket, classify};
use crate::stats::{ReceiveStats, SendStats, mos};
use source::{Source, Standing};
use tone_sender::ToneSender;

pub use config::{Direction, Learn, Mode, SessionConfig};
pub use report::{Refused, RefusedCounts, Report, RtcpCounters, Verdict};

/// How long a source of RTP must not have spoken to count as silent: 25 packets.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// The same for RTCP, which speaks every 2.5 to 7.5 s (RFC 3550 §6.2).
pub const RTCP_PATIENCE: Duration = Duration::from_secs(10);

/// One leg.
///
/// Serialised, it is the leg's checkpoint: configuration, learned source and figures. After a restart whose
/// clock has another epoch, [`Session::resume`] must follow.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    config: SessionConfig,
    // The accepted payload types as bits, so that the test costs the same for any number of them.
    #[serde(with = "crate::bits128")]
    accepted: u128,
    rtp: Source,
    rtcp: Source,
    received: ReceiveStats,
    received_bytes: u64,
    sent: SendStats,
    refused: RefusedCounts,
    rtcp_counters: RtcpCounters,
    // When the leg last spoke, or was last told to.
    heard_at: Duration,
    own_ssrc: u32,
    tone: Option<ToneSender>,
}

impl Clone for Session {
    fn clone(&self) -> Session {
        Session {
            config: self.config.clone(),
            received: self.received.clone(),
            rtp: self.rtp.clone(),
            rtcp: self.rtcp.clone(),
            tone: self.tone.clone(),
            ..*self
        }
    }

    /// Allocates nothing: who is to have the state before a packet that makes a panic takes it after each.
    fn clone_from(&mut self, source: &Session) {
        let Session {
            config,
            accepted,
            rtp,
            rtcp,
            received,
            received_bytes,
            sent,
            refused,
            rtcp_counters,
            heard_at,
            own_ssrc,
            tone,
        } = source;
        self.config.clone_from(config);
        self.rtp.clone_from(rtp);
        self.rtcp.clone_from(rtcp);
        self.received.clone_from(received);
        self.tone.clone_from(tone);
        (self.accepted, self.received_bytes, self.own_ssrc) = (*accepted, *received_bytes, *own_ssrc);
        (self.sent, self.refused, self.rtcp_counters) = (*sent, *refused, *rtcp_counters);
        self.heard_at = *heard_at;
    }
}

impl Session {
    /// A leg that begins now. Its own SSRC and first sequence are mixed from the configuration and the time;
    /// [`Session::seed`] makes them unforeseeable.
    pub fn new(config: SessionConfig, now: Duration) -> Session {
        let named_rtcp = config.named_rtcp();
        let source = |named, patience| Source::new(named, config.signalling_ip, config.learn, patience, now);
        let mut session = Session {
            accepted: config.accepted(),
            rtp: source(config.remote_rtp, PATIENCE),
            rtcp: source(named_rtcp, RTCP_PATIENCE),
            received: ReceiveStats::new(config.codec.map_or(SAMPLE_RATE, |codec| codec.clock_rate())),
            received_bytes: 0,
            sent: SendStats::default(),
            refused: RefusedCounts::default(),
            rtcp_counters: RtcpCounters::default(),
            heard_at: now,
            own_ssrc: 0,
            tone: None,
            config,
        };
        session.seed(session.default_seed(now));
        session.tone = session.tone_sender(now);
        session
    }

    /// Gives the leg's own stream its SSRC, first sequence and first timestamp, which RFC 3550 §5.1 wants
    /// random. To be called before the first packet is sent.
    pub fn seed(&mut self, random: u64) {
        self.own_ssrc = (random >> 32) as u32;
        if let Some(tone) = &mut self.tone {
            tone.seed(random);
        }
    }

    /// Takes over a new agreement (re-INVITE, UPDATE). Figures go on. If the named address stays the same,
    /// what was learned in its place stays too, so a session refresh changes nothing. A tone goes on if it is
    /// still the same, otherwise it starts anew within the same stream.
    pub fn reconfigure(&mut self, config: SessionConfig, now: Duration) {
        let addressed_anew = config.remote_rtp != self.config.remote_rtp;
        let received_before = self.config.direction.receives();
        let watched_before = self.config.rtp_timeout.is_some();
        let tone_changes = config.mode != self.config.mode || config.codec != self.config.codec;
        self.rtp.rename(config.remote_rtp, config.signalling_ip, config.learn, now);
        self.rtcp.rename(config.named_rtcp(), config.signalling_ip, config.learn, now);
        self.accepted = config.accepted();
        self.config = config;
        // Waiting for packets begins again, but not with each refresh: it would never end. Nor did it begin while silence was in order:
        // before the answer, and while either end holds.
        if self.config.direction.receives() && (addressed_anew || !received_before || !watched_before) {
            self.heard_at = now;
        }
        if received_before && !self.config.direction.receives() {
            self.received.pause();
        }
        if tone_changes {
            let before = self.tone.take();
            self.tone = self.tone_sender(now).map(|tone| tone.after(before.as_ref()));
        }
    }

    /// Goes on from a checkpoint under a clock of another epoch: every wait begins anew.
    pub fn resume(&mut self, now: Duration) {
        self.rtp.restart_clocks(now);
        self.rtcp.restart_clocks(now);
        self.received.pause();
        self.heard_at = now;
        if let Some(tone) = &mut self.tone {
            tone.restart_clock(now);
        }
    }

    /// Judges a datagram from the RTP socket. RTCP on the same port ([`classify`]) is to be given to
    /// [`Session::receive_rtcp`]; here it is refused as [`Refused::NotRtp`]. Allocates nothing.
    #[inline]
    pub fn receive_rtp(&mut self, now: Duration, from: SocketAddr, packet: &[u8]) -> Verdict {
        match self.judge_rtp(now, from, packet) {
            Ok(()) => Verdict::Deliver,
            Err(reason) => {
                self.refused.count(reason);
                Verdict::Refuse(reason)
            }
        }
    }

    #[inline]
    fn judge_rtp(&mut self, now: Duration, from: SocketAddr, datagram: &[u8]) -> Result<(), Refused> {
        // The source comes first: a stranger learns nothing from what is refused, and changes nothing.
        let standing = self.rtp.standing(now, from);
        if standing == Standing::Foreign {
            return Err(Refused::ForeignSource);
        }
        if classify(datagram) != PacketKind::Rtp {
            return Err(Refused::NotRtp);
        }
        let packet = RtpPacket::parse(datagram).map_err(|_| Refused::NotRtp)?;
        let accepted = self.accepted >> packet.payload_type & 1 == 1;
        // The named source need not be right to be there; a source to be learned must be.
        if accepted || standing != Standing::Candidate {
            self.rtp.spoke(now, from, standing);
            self.heard_at = now;
        }
        if !accepted {
            return Err(Refused::WrongPayloadType);
        }
        if !self.config.direction.receives() {
            return Err(Refused::Direction);
        }
        self.received_bytes += datagram.len() as u64;
        self.received.receive(now, packet.ssrc, packet.sequence, self.moment(&packet));
        Ok(())
    }

    /// The timestamp, if it says when the packet was sent: those of a telephone event all say when it began.
    #[inline]
    fn moment(&self, packet: &RtpPacket<'_>) -> Option<u32> {
        (self.config.telephone_event != Some(packet.payload_type)).then_some(packet.timestamp)
    }

    /// Judges a datagram of RTCP, from either socket, and counts what it tells. To be relayed it goes to the
    /// other leg's [`Session::rtcp_to`]. RTCP is taken on hold too (RFC 3264 §5.1).
    pub fn receive_rtcp(&mut self, now: Duration, from: SocketAddr, packet: &[u8]) -> Verdict {
        let source = if self.config.is_multiplexed() { &mut self.rtp } else { &mut self.rtcp };
        let standing = source.standing(now, from);
        // On a shared port the source is learned from RTP alone.
        let foreign = match standing {
            Standing::Named | Standing::Learned => false,
            Standing::Candidate => self.config.is_multiplexed(),
            Standing::Foreign => true,
        };
        let judged = if foreign {
            Err(Refused::ForeignSource)
        } else {
            Compound::parse(packet).map_err(|_| Refused::NotRtp)
        };
        match judged {
            Ok(compound) => {
                if !self.config.is_multiplexed() {
                    source.spoke(now, from, standing);
                }
                self.note_rtcp(&compound);
                Verdict::Deliver
            }
            Err(reason) => {
                self.rtcp_counters.refused.count(reason);
                Verdict::Refuse(reason)
            }
        }
    }

    fn note_rtcp(&mut self, compound: &Compound<'_>) {
        self.rtcp_counters.received += 1;
        for packet in compound.packets() {
            let blocks = match packet {
                RtcpPacket::SenderReport { blocks, .. } => {
                    self.rtcp_counters.sender_reports += 1;
                    blocks
                }
                RtcpPacket::ReceiverReport { blocks, .. } => blocks,
                RtcpPacket::Bye(_) => {
                    self.rtcp_counters.byes += 1;
                    continue;
                }
                RtcpPacket::SourceDescription(_) | RtcpPacket::App { .. } | RtcpPacket::Unknown { .. } => {
                    continue;
                }
            };
            if let Some(block) = blocks.iter().next() {
                self.rtcp_counters.remote_lost = block.cumulative_lost;
                self.rtcp_counters.remote_jitter = block.jitter;
            }
        }
    }

    /// Where RTP for this leg goes now: to the learned source or the named address. `None` while neither is
    /// known, the direction forbids sending, or the SDP names an address that forbids it.
    pub fn send_to(&self) -> Option<SocketAddr> {
        let forbidden = self.config.remote_rtp.is_some_and(|named| !source::is_usable(&named));
        if forbidden || !self.config.direction.sends() {
            return None;
        }
        self.rtp.current()
    }

    /// Where RTCP for this leg goes now; the direction does not matter to it.
    pub fn rtcp_to(&self) -> Option<SocketAddr> {
        if self.config.is_multiplexed() { self.rtp.current() } else { self.rtcp.current() }
    }

    /// Counts an RTP packet of so many bytes that the socket took for this leg, of a tick too.
    #[inline]
    pub fn sent(&mut self, bytes: usize) {
        self.sent.sent(bytes);
    }

    /// Writes the packet of a tone that is due into `out`, which is emptied first, and says where it goes.
    /// To be called until it returns `None`; late calls catch up, but what is more than 100 ms late is
    /// skipped. Without an address the tone's time passes in silence.
    pub fn tick(&mut self, now: Duration, out: &mut Vec<u8>) -> Option<SocketAddr> {
        out.clear();
        let to = self.send_to();
        self.tone.as_mut()?.tick(now, self.own_ssrc, to.is_some(), out).then_some(to)?
    }

    /// When [`Session::tick`] has something to do next; `None` if the leg sends no tone.
    pub fn next_tick(&self) -> Option<Duration> {
        self.tone.as_ref().map(ToneSender::due)
    }

    /// Makes a packet that is to be echoed the leg's own: it must not carry back the SSRC of its sender, who
    /// would take that for a loop (RFC 3550 §8.2). Does nothing to what is shorter than an RTP header.
    pub fn stamp_echo(&self, packet: &mut [u8]) {
        if packet.len() >= HEADER_LEN {
            packet[8..HEADER_LEN].copy_from_slice(&self.own_ssrc.to_be_bytes());
        }
    }

    /// The telephone event in a delivered packet, if it is one: to be given to a
    /// [`DtmfReceiver`](crate::dtmf::DtmfReceiver).
    pub fn telephone_event(&self, packet: &RtpPacket<'_>) -> Option<TelephoneEvent> {
        let ours = self.config.telephone_event == Some(packet.payload_type);
        ours.then(|| TelephoneEvent::parse(packet.payload).ok()).flatten()
    }

    /// Whether the leg should be speaking and has not for `rtp_timeout`. Any valid RTP from its source counts
    /// as speaking. Never while we do not receive (hold), or without a time-out.
    pub fn timed_out(&self, now: Duration) -> bool {
        self.timeout_at().is_some_and(|at| now >= at)
    }

    /// When [`Session::timed_out`] turns true if nothing arrives until then.
    pub fn timeout_at(&self) -> Option<Duration> {
        let timeout = self.config.rtp_timeout.filter(|_| self.config.direction.receives())?;
        Some(self.heard_at.saturating_add(timeout))
    }

    /// The agreement in force.
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// The SSRC of what the leg is sent by ourselves (tone, echo, RTCP).
    pub fn own_ssrc(&self) -> u32 {
        self.own_ssrc
    }

    /// Reception in detail, also to build RTCP reports from.
    pub fn receive_stats(&mut self) -> &mut ReceiveStats {
        &mut self.received
    }

    /// The figures so far.
    pub fn report(&self) -> Report {
        let received = &self.received;
        let jitter_ms = received.jitter_ms();
        Report {
            codec: self.config.codec,
            tx: self.sent.packets,
            tx_bytes: self.sent.bytes,
            rx: received.received,
            rx_bytes: self.received_bytes,
            lost: received.lost(),
            duplicates: received.duplicates,
            reordered: received.reordered,
            jitter_ms,
            mos: self
                .config
                .codec
                .filter(|_| received.received > 0)
                .map(|codec| mos(codec, received.loss(), jitter_ms, 0.0)),
            max_gap_ms: received.max_gap.as_millis().min(u128::from(u32::MAX)) as u32,
            ssrc_changes: received.ssrc_changes,
            refused: self.refused,
            learned: self.rtp.learned(),
            rtcp: self.rtcp_counters,
        }
    }

    fn tone_sender(&self, now: Duration) -> Option<ToneSender> {
        match (self.config.mode, self.config.codec) {
            (Mode::Tone(preset), Some(codec)) => {
                let mut tone = ToneSender::new(preset, codec, now);
                tone.seed(self.default_seed(now));
                Some(tone)
            }
            (Mode::Tone(_), None) | (Mode::Relay | Mode::Echo, _) => None,
        }
    }

    /// Numbers that differ between legs and times, not secret.
    fn default_seed(&self, now: Duration) -> u64 {
        let port = self.config.remote_rtp.map_or(0, |address| u64::from(address.port()));
        let mut z = (now.as_nanos() as u64) ^ port << 48 ^ u64::from(self.own_ssrc) << 16;
        z = (z ^ (z >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
#[path = "session/tests.rs"]
mod tests;
