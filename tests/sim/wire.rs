//! The SIP of a run, read and sorted by call: what justifies a complaint is looked for here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use tandem_protocol::message::framing::peek_call_id;

use crate::engine::LISTENER;
use crate::ladder::header;
use crate::nonsense::is_stranger;
use crate::world::{Fate, Line, World};

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) at: u64,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) fate: Fate,
    /// When its copies arrive.
    pub(crate) arrives: Vec<u64>,
    /// Of a response.
    pub(crate) status: Option<u16>,
    /// As its CSeq has it.
    pub(crate) method: String,
    pub(crate) cseq: u32,
    /// That of To, which tells the branches of a fork apart.
    pub(crate) to_tag: String,
    pub(crate) has_sdp: bool,
    /// The version of its session description.
    pub(crate) version: Option<u64>,
    /// Of a reliable response.
    pub(crate) rseq: Option<u32>,
    /// RSeq and CSeq of what a PRACK acknowledges.
    pub(crate) rack: Option<(u32, u32)>,
    /// Session-Expires: seconds, and whether the sender of the request refreshes.
    pub(crate) session: Option<(u64, bool)>,
    pub(crate) reason: String,
}

impl Said {
    /// True of a request of this method.
    pub(crate) fn is(&self, method: &str) -> bool {
        self.status.is_none() && self.method == method
    }

    /// True of a final response.
    pub(crate) fn is_final(&self) -> bool {
        self.status.is_some_and(|status| status >= 200)
    }
}

/// All of it.
pub(crate) struct Wire {
    calls: BTreeMap<String, Vec<Said>>,
}

fn version_of(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("o="))?.split(' ').nth(2)?.parse().ok()
}

fn rack_of(value: &str) -> Option<(u32, u32)> {
    let mut words = value.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

fn session_of(value: &str) -> Option<(u64, bool)> {
    let seconds = value.split(';').next()?.trim().parse().ok()?;
    Some((seconds, !value.contains("refresher=uas")))
}

/// True if the engine said before `time` that a call is over: by a BYE, by accepting one, or by a CANCEL to this phone.
pub(crate) fn ended_before(lines: &[Line], call_ids: &[String], phone: IpAddr, time: u64) -> bool {
    let ends = |line: &Line| {
        let text = String::from_utf8_lossy(&line.bytes);
        let accepts = text.starts_with("SIP/2.0 200") && header(&text, ["CSeq", "CSeq"]).ends_with(" BYE");
        let cancels = text.starts_with("CANCEL ") && line.to.ip() == phone;
        text.starts_with("BYE ") || accepts || cancels
    };
    let of_call = |line: &Line| {
        peek_call_id(&line.bytes).is_some_and(|id| call_ids.iter().any(|wanted| wanted.as_bytes() == id))
    };
    let said = lines.iter().take_while(|line| line.at < time);
    said.filter(|line| line.from == LISTENER && of_call(line)).any(ends)
}

/// True if the engine offered a port of its own to this phone since a moment.
pub(crate) fn was_offered(lines: &[Line], phone: IpAddr, port: u16, since: u64) -> bool {
    let media = format!("m=audio {port} ");
    let offers = |line: &Line| {
        let text = String::from_utf8_lossy(&line.bytes);
        text.starts_with("INVITE ") && text.contains(&media)
    };
    lines
        .iter()
        .any(|line| line.from == LISTENER && line.to.ip() == phone && line.at >= since && offers(line))
}

impl Wire {
    /// Reads what was sent so far.
    pub(crate) fn read(world: &World) -> Wire {
        let mut calls: BTreeMap<String, Vec<Said>> = BTreeMap::new();
        world.with_lines(|lines| {
            let between_us = |line: &&Line| !is_stranger(line.from) && !is_stranger(line.to);
            for line in lines.iter().filter(between_us) {
                let Some(id) = peek_call_id(&line.bytes) else { continue };
                let text = String::from_utf8_lossy(&line.bytes);
                let (cseq, method) = header(&text, ["CSeq", "CSeq"]).split_once(' ').unwrap_or_default();
                let status = text.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)?.parse().ok());
                let said = Said {
                    at: line.at,
                    from: line.from,
                    to: line.to,
                    fate: line.fate,
                    arrives: line.arrives.into_iter().flatten().collect(),
                    status,
                    method: method.trim().to_owned(),
                    cseq: cseq.parse().unwrap_or(0),
                    has_sdp: text.contains("\r\n\r\nv=0"),
                    version: version_of(&text),
                    rseq: header(&text, ["RSeq", "RSeq"]).parse().ok(),
                    rack: rack_of(header(&text, ["RAck", "RAck"])),
                    session: session_of(header(&text, ["Session-Expires", "x"])),
                    reason: header(&text, ["Reason", "Reason"]).to_owned(),
                    to_tag: header(&text, ["To", "t"]).split_once(";tag=").unwrap_or_default().1.to_owned(),
                };
                calls.entry(String::from_utf8_lossy(id).into_owned()).or_default().push(said);
            }
        });
        Wire { calls }
    }

    /// True if the engine asked one of these dialogs between two moments to agree to a refresh of the other side, and had no final
    /// response by the second.
    pub(crate) fn refreshed_in_vain<'a>(
        &self,
        mut call_ids: impl Iterator<Item = &'a String>,
        from: u64,
        until: u64,
    ) -> bool {
        let in_vain = |dialog: &[Said]| {
            let asks = |said: &&Said| {
                (said.is("INVITE") || said.is("UPDATE")) && said.from == LISTENER && !said.to_tag.is_empty()
            };
            let answered = |asked: &Said| {
                let same = |said: &&Said| said.method == asked.method && said.cseq == asked.cseq;
                let finals =
                    dialog.iter().filter(|said| said.is_final() && said.from == asked.to).filter(same);
                finals.flat_map(|said| said.arrives.iter()).any(|came| *came <= until)
            };
            let mut asked = dialog.iter().filter(asks).filter(|said| (from..until).contains(&said.at));
            asked.any(|asked| !answered(asked))
        };
        call_ids.any(|id| in_vain(self.dialog(id)))
    }

    /// The messages of some Call-IDs, each Call-ID's in the order of sending.
    pub(crate) fn of<'a>(&'a self, call_ids: &'a [String]) -> impl Iterator<Item = &'a Said> {
        call_ids.iter().filter_map(|id| self.calls.get(id)).flatten()
    }

    /// True if the ACK of a 200 of the engine's had not come by `time`.
    pub(crate) fn is_unacknowledged_by(&self, call_id: &str, time: u64) -> bool {
        let said = self.dialog(call_id);
        let acknowledged = |cseq: u32| {
            said.iter().any(|ack| {
                ack.is("ACK")
                    && ack.cseq == cseq
                    && ack.to == LISTENER
                    && ack.arrives.iter().any(|at| *at <= time)
            })
        };
        let ours =
            |said: &&Said| said.from == LISTENER && said.method == "INVITE" && said.status == Some(200);
        said.iter().filter(ours).any(|answer| !acknowledged(answer.cseq))
    }

    /// The engine's first 200 to a caller.
    fn answer(&self, call_id: &str) -> Option<&Said> {
        let accepts =
            |said: &&Said| said.from == LISTENER && said.method == "INVITE" && said.status == Some(200);
        self.dialog(call_id).iter().find(accepts)
    }

    /// When the engine first accepted the INVITE of a caller.
    pub(crate) fn answered_at(&self, call_id: &str) -> Option<u64> {
        self.answer(call_id).map(|answer| answer.at)
    }

    /// The same, and when the first ACK of that came, or the re-INVITE that says as much.
    pub(crate) fn set_up(&self, call_id: &str) -> Option<(u64, u64)> {
        let answer = self.answer(call_id)?;
        let says_so = |said: &&Said| {
            said.to == LISTENER
                && (said.is("ACK") && said.cseq == answer.cseq
                    || said.is("INVITE") && said.cseq > answer.cseq)
        };
        let heard = self.dialog(call_id).iter().filter(says_so);
        Some((answer.at, heard.flat_map(|said| said.arrives.iter().copied()).min()?))
    }

    /// True if a 200 of the engine's to a caller was never acknowledged by `time`.
    pub(crate) fn callers_ack_is_missing(&self, call_ids: &[String], time: u64) -> bool {
        call_ids.iter().any(|id| self.is_unacknowledged_by(id, time))
    }

    /// When the last ACK came that was the first for its 200.
    pub(crate) fn acknowledged_at(&self, call_ids: &[String]) -> Option<u64> {
        let acks = |id: &String| {
            let mut first: BTreeMap<u32, u64> = BTreeMap::new();
            for ack in self.dialog(id).iter().filter(|said| said.is("ACK") && said.to == LISTENER) {
                for at in &ack.arrives {
                    first.entry(ack.cseq).and_modify(|known| *known = (*known).min(*at)).or_insert(*at);
                }
            }
            first.into_values().max()
        };
        call_ids.iter().filter_map(acks).max()
    }

    /// True if the engine sent a BYE before `time`.
    pub(crate) fn engine_hung_up(&self, call_ids: &[String], time: u64) -> bool {
        self.of(call_ids).any(|said| said.is("BYE") && said.from == LISTENER && said.at <= time)
    }

    /// When the engine first said that a call is over: by a BYE, by accepting one, or by a CANCEL to this phone.
    pub(crate) fn ended_at(&self, call_ids: &[String], phone: IpAddr) -> Option<u64> {
        let ends = |said: &&Said| {
            let by_bye = said.method == "BYE" && matches!(said.status, None | Some(200));
            said.from == LISTENER && (by_bye || said.is("CANCEL") && said.to.ip() == phone)
        };
        self.of(call_ids).filter(ends).map(|said| said.at).min()
    }

    /// When the engine first accepted a BYE of this phone's.
    pub(crate) fn bye_answered_at(&self, call_ids: &[String], phone: SocketAddr) -> Option<u64> {
        let accepts = |said: &&Said| said.method == "BYE" && said.status == Some(200) && said.to == phone;
        self.of(call_ids).filter(accepts).map(|said| said.at).min()
    }

    /// True if this phone answered a request of the engine's before `time` that it knows no such call.
    pub(crate) fn is_disowned(&self, call_ids: &[String], phone: SocketAddr, time: u64) -> bool {
        self.of(call_ids).any(|said| said.from == phone && said.status == Some(481) && said.at <= time)
    }

    /// True if the engine asked a peer in vain, half a minute before `time`, whether it is still there, or told it in vain that
    /// the call is over.
    pub(crate) fn was_told_in_vain(&self, call_ids: &[String], time: u64) -> bool {
        self.of(call_ids).any(|said| {
            (said.is("OPTIONS") || said.is("BYE"))
                && said.from == LISTENER
                && said.arrives.is_empty()
                && said.at + 30_000_000 <= time
        })
    }

    /// One Call-ID's.
    pub(crate) fn dialog(&self, call_id: &str) -> &[Said] {
        self.calls.get(call_id).map_or(&[], Vec::as_slice)
    }
}
