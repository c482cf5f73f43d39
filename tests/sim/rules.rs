//! What the RFCs demand of the engine in every dialog, read off the wire: reliable provisional responses (RFC 3262), session timers
//! (RFC 4028), and the end of a 2xx that nobody acknowledges (RFC 3261 section 13.3.1.4).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::account::Dial;
use crate::engine::LISTENER;
use crate::ladder;
use crate::run::Sim;
use crate::trunks::Mood;
use crate::wire::{Said, Wire};

/// 64*T1.
const LIFE_US: u64 = 32_000_000;
/// A deadline may be kept so much late: timers fire in turn, and what waits for the store waits with them.
const SLACK_US: u64 = 1_000_000;
/// What one cause does in several dialogs, it does within so long.
const AT_ONCE_US: u64 = 5_000;

/// The messages of one Call-ID between the engine and one peer.
struct Dialogue<'a> {
    sim: &'a Sim,
    wire: &'a Wire,
    dial: &'a Dial,
    id: &'a str,
    phone: SocketAddr,
    said: Vec<&'a Said>,
}

/// What is broken in a call.
pub(crate) fn broken(sim: &Sim, wire: &Wire, dial: &Dial) -> Vec<String> {
    let (mut wrong, mut expired, mut dialogues) = (Vec::new(), Vec::new(), Vec::new());
    for id in &dial.call_ids {
        let messages = wire.dialog(id);
        let peers: BTreeSet<SocketAddr> =
            messages.iter().map(|said| if said.from == LISTENER { said.to } else { said.from }).collect();
        for phone in peers {
            let said = messages.iter().filter(|said| said.from == phone || said.to == phone).collect();
            let dialogue = Dialogue { sim, wire, dial, id, phone, said };
            dialogue.reliable_responses(&mut wrong);
            dialogue.acknowledgements(&mut wrong);
            dialogue.neglected(&mut wrong);
            dialogue.unacknowledged_answers(&mut wrong);
            expired.extend(dialogue.expired());
            dialogues.push(dialogue);
        }
    }
    // The other side is told the same reason; whose BYE is here first depends on which has the longer way.
    let first = expired.iter().map(|(at, _)| *at).min().unwrap_or_default();
    if dialogues.iter().any(|dialogue| dialogue.expired_unsaid(first)) {
        return wrong;
    }
    let first = first + AT_ONCE_US;
    let of_timer = expired.into_iter().filter(|(at, _)| *at <= first);
    let mut of_timer = of_timer.map(|(_, wrong)| wrong).peekable();
    if of_timer.peek().is_some() && !of_timer.clone().any(|wrong| wrong.is_none()) {
        wrong.extend(of_timer.flatten());
    }
    wrong
}

impl Dialogue<'_> {
    fn ours(&self) -> impl Iterator<Item = &Said> {
        self.said.iter().copied().filter(|said| said.from == LISTENER)
    }

    fn theirs(&self) -> impl Iterator<Item = &Said> {
        self.said.iter().copied().filter(|said| said.from == self.phone)
    }

    /// The engine was killed between two moments.
    fn killed_between(&self, from: u64, until: u64) -> bool {
        self.sim.cuts().any(|(down, _)| from <= *down && *down <= until)
    }

    fn is_up(&self, at: u64) -> bool {
        // While one shard stands still the others do not.
        !self.sim.outages.iter().any(|(down, up)| *down <= at && at < *up)
    }

    /// When the PRACK of a response of ours came first.
    fn pracked_at(&self, response: &Said) -> Option<u64> {
        let rack = Some((response.rseq?, response.cseq));
        let pracks = self.theirs().filter(|said| said.is("PRACK") && said.rack == rack);
        pracks.flat_map(|said| said.arrives.iter().copied()).filter(|at| self.is_up(*at)).min()
    }

    /// RFC 3262 section 3: one at a time, numbered in a row, and no 2xx before the PRACK of what has a description.
    fn reliable_responses(&self, wrong: &mut Vec<String>) {
        let mut last: BTreeMap<(u32, &str), &Said> = BTreeMap::new();
        for said in self.ours().filter(|said| said.method == "INVITE" && said.status.is_some()) {
            let of = (said.cseq, said.to_tag.as_str());
            let before = last.get(&of).copied();
            let killed = before.is_some_and(|before| self.killed_between(before.at, said.at));
            let open = before.filter(|before| {
                !killed && before.rseq != said.rseq && self.pracked_at(before).is_none_or(|at| at > said.at)
            });
            let at = ladder::time(said.at);
            match (said.rseq, said.status) {
                (Some(rseq), _) => {
                    if let Some(open) = open {
                        wrong.push(format!("RSeq {rseq} goes at {at} before the PRACK of {:?}", open.rseq));
                    }
                    if let Some(next) = before.filter(|b| b.rseq != Some(rseq)).and_then(|b| b.rseq)
                        && rseq != next + 1
                    {
                        wrong.push(format!("RSeq {rseq} follows {next} at {at}"));
                    }
                    last.insert(of, said);
                }
                (None, Some(200..300)) if open.is_some_and(|open| open.has_sdp) => {
                    wrong.push(format!("a 2xx goes at {at} before the PRACK of a description"));
                }
                (None, _) => {}
            }
        }
    }

    /// RFC 3262 section 4: each response of the peer's is acknowledged by one PRACK, and each PRACK of the peer's is answered.
    fn acknowledgements(&self, wrong: &mut Vec<String>) {
        let mut pracks: BTreeMap<(u32, u32), BTreeSet<u32>> = BTreeMap::new();
        for prack in self.ours().filter(|said| said.is("PRACK")) {
            let Some(rack) = prack.rack else {
                wrong.push(format!("a PRACK without RAck at {}", ladder::time(prack.at)));
                continue;
            };
            let asked = self.theirs().any(|said| {
                said.rseq == Some(rack.0)
                    && said.cseq == rack.1
                    && said.arrives.iter().any(|at| *at <= prack.at)
            });
            if !asked {
                wrong.push(format!("a PRACK of nothing at {}", ladder::time(prack.at)));
            }
            pracks.entry(rack).or_default().insert(prack.cseq);
        }
        // Two forks may choose one number.
        let forked = |rack: &(u32, u32)| {
            let tags: BTreeSet<&str> = self
                .theirs()
                .filter(|said| said.rseq == Some(rack.0) && said.cseq == rack.1)
                .map(|said| said.to_tag.as_str())
                .collect();
            tags.len()
        };
        // A dialog that was lost in a fault, and only waits for its end, numbers its requests anew, a hundred higher.
        let faults = self.sim.world.plan().panics.dialog > 0;
        let ours = |cseqs: &BTreeSet<u32>| {
            let anew = |cseq: &&u32| faults && cseqs.iter().any(|first| first + 100 <= **cseq);
            cseqs.len() - cseqs.iter().filter(anew).count()
        };
        for (rack, cseqs) in pracks.iter().filter(|(rack, cseqs)| ours(cseqs) > forked(rack)) {
            wrong.push(format!("RAck {rack:?} is said by {} PRACKs", cseqs.len()));
        }
        for prack in self.theirs().filter(|said| said.is("PRACK")) {
            let answered =
                self.ours().any(|said| said.method == "PRACK" && said.cseq == prack.cseq && said.is_final());
            let heard = prack.arrives.iter().find(|at| self.is_up(**at));
            if let Some(heard) = heard.filter(|_| !answered)
                && !self.killed_between(*heard, heard + LIFE_US)
            {
                wrong.push(format!("the PRACK of {} has no answer", ladder::time(prack.at)));
            }
        }
    }

    /// The 2xx with Session-Expires that the engine knew last at `until`: when, its interval, and whether the peer refreshes.
    fn session_at(&self, until: u64) -> Option<(u64, u64, bool)> {
        let renewals = self.said.iter().copied().filter_map(|said| {
            let known = if said.from == LISTENER { Some(said.at) } else { said.arrives.first().copied() };
            let known = known.filter(|known| *known <= until)?;
            let renews = matches!(said.method.as_str(), "INVITE" | "UPDATE")
                && said.status.is_some_and(|status| status / 100 == 2);
            renews.then_some((known, said))
        });
        // Who says it again renews nothing.
        let mut first: BTreeMap<(bool, &str, u32), (u64, &Said)> = BTreeMap::new();
        for (known, said) in renewals {
            first.entry((said.from == LISTENER, &said.method, said.cseq)).or_insert((known, said));
        }
        let (at, said) = first.into_values().max_by_key(|(known, _)| *known)?;
        let (interval, by_uac) = said.session?;
        // The sender of the request is the one who did not answer it.
        let by_peer = by_uac == (said.from == LISTENER);
        Some((at, interval * 1_000_000, by_peer))
    }

    /// RFC 4028 section 10: when the engine ended the session for want of a refresh, if it did, and what is wrong with that: the one
    /// who refreshes it lives.
    fn expired(&self) -> Option<(u64, Option<String>)> {
        let expired = |said: &&Said| said.is("BYE") && said.reason.contains("session timer expired");
        let bye = self.ours().find(expired)?;
        Some((bye.at, self.unexpired(bye)))
    }

    /// True if the session was over at `at` for want of refreshes of the engine's, and neither they nor the BYE could be sent: no way led
    /// to the peer.
    fn expired_unsaid(&self, at: u64) -> bool {
        let Some((renewed, interval, false)) = self.session_at(at) else { return false };
        let end = renewed + interval - (interval / 3).min(LIFE_US);
        let asked = self.ours().any(|said| said.status.is_none() && !said.is("ACK") && said.at > renewed);
        let moods = self.sim.world.moods();
        let cut_off = moods.of(self.phone, at) == Mood::Unreachable
            && moods.was_unreachable(self.phone, renewed + interval / 2, at);
        cut_off && !asked && end.abs_diff(at) <= SLACK_US
    }

    fn unexpired(&self, bye: &Said) -> Option<String> {
        let at = ladder::time(bye.at);
        let Some((renewed, interval, by_peer)) = self.session_at(bye.at) else {
            return Some(format!("a session without timer has expired at {at}"));
        };
        if bye.at + SLACK_US < renewed + interval - (interval / 3).min(LIFE_US) {
            return Some(format!("a session has expired at {at}, renewed at {}", ladder::time(renewed)));
        }
        let phone = self.sim.phones.at(self.phone);
        let restarts = &self.sim.script.restarts;
        let dead = self.dial.neglected.iter().any(|(_, who)| Some(*who) == phone)
            || self.dial.faded.is_some_and(|(_, who, vanished)| vanished && Some(who) == phone)
            || self.theirs().any(|said| said.is("BYE") && said.at < bye.at)
            || restarts.iter().any(|(who, when)| Some(*who) == phone && (renewed..=bye.at).contains(when));
        let tried = self.said.iter().filter(|said| {
            let refreshes = said.is("UPDATE") || said.is("INVITE");
            let by = if by_peer { self.phone } else { LISTENER };
            refreshes && said.from == by && said.at > renewed && said.at < bye.at
        });
        let tried: Vec<_> = tried.collect();
        // It was lost, or each answer to it was: over a connection that is gone without a word neither is said again.
        let unheard = |asked: &&&Said| {
            let same = |said: &&&Said| said.method == asked.method && said.cseq == asked.cseq;
            let answers =
                self.said.iter().filter(|said| said.is_final() && said.to == asked.from).filter(same);
            let mut answers = answers.peekable();
            asked.arrives.is_empty()
                || (answers.peek().is_some()
                    && answers.all(|said| said.arrives.iter().all(|came| *came > bye.at)))
        };
        let lost = !tried.is_empty() && tried.iter().all(unheard);
        // The other side has to agree, and may be gone.
        let others = self.dial.call_ids.iter().filter(|id| *id != self.id);
        let in_vain = by_peer && self.wire.refreshed_in_vain(others, renewed, bye.at);
        let wrong = !dead && !lost && !in_vain && !self.killed_between(renewed, bye.at);
        wrong.then(|| format!("a session whose refresher lives has expired at {at}"))
    }

    /// RFC 4028 section 10: where the peer's timer has died the session is ended in time.
    fn neglected(&self, wrong: &mut Vec<String>) {
        let is_peer = |phone: usize| self.sim.phones.handsets[phone].phone.config().local == self.phone;
        if !self.dial.neglected.iter().any(|(_, phone)| is_peer(*phone)) {
            return;
        }
        let over = |said: &&&Said| said.is("BYE") || said.is("CANCEL");
        let over = self.said.iter().filter(over).map(|said| said.at);
        // Whoever knows nothing of the dialog has ended it (RFC 3261 section 12.2.1.2).
        let unknown = self.theirs().filter(|said| {
            matches!(said.status, Some(408 | 481)) && !matches!(said.method.as_str(), "CANCEL" | "PRACK")
        });
        let unknown = unknown.flat_map(|said| said.arrives.iter().copied());
        let over = over.chain(unknown).min().unwrap_or(u64::MAX);
        let Some((renewed, interval, true)) = self.session_at(over) else { return };
        let due = renewed + interval + SLACK_US;
        if over > due && !self.killed_between(renewed, due) {
            wrong.push(format!(
                "nobody refreshes the session of {} since {}, and it goes on until {}",
                self.phone,
                ladder::time(renewed),
                ladder::time(over)
            ));
        }
    }

    /// A 2xx of the engine's that gets no ACK ends the call after 64*T1.
    fn unacknowledged_answers(&self, wrong: &mut Vec<String>) {
        let mut answers: BTreeMap<u32, u64> = BTreeMap::new();
        for said in
            self.ours().filter(|said| said.method == "INVITE" && said.status.is_some_and(|s| s / 100 == 2))
        {
            answers.entry(said.cseq).or_insert(said.at);
        }
        // Who has heard of no answer waits for it; a BYE over his connection, which has broken, cannot be sent.
        let heard = |cseq: u32| {
            let mut same =
                self.ours().filter(|said| said.method == "INVITE" && said.cseq == cseq && said.is_final());
            same.any(|said| !said.arrives.is_empty())
        };
        answers.retain(|cseq, _| heard(*cseq));
        let byes: Vec<&&Said> = self.said.iter().filter(|said| said.is("BYE")).collect();
        for (cseq, at) in answers {
            let due = at + LIFE_US + SLACK_US;
            let acks = self.theirs().filter(|said| said.is("ACK") && said.cseq == cseq);
            // Who begins another re-INVITE has the answer to this one.
            let next = self.theirs().filter(|said| said.is("INVITE") && said.cseq > cseq);
            let acknowledged = acks.chain(next).flat_map(|said| said.arrives.iter()).any(|came| *came <= due);
            let ended = byes.iter().any(|bye| {
                let known = if bye.from == LISTENER { Some(&bye.at) } else { bye.arrives.first() };
                known.is_some_and(|known| *known <= due)
            });
            // Whoever knows nothing of the dialog has ended it (section 12.2.1.2).
            let unknown = self.theirs().filter(|said| matches!(said.status, Some(408 | 481)));
            let ended =
                ended || unknown.flat_map(|said| said.arrives.iter()).any(|came| (at..=due).contains(came));
            // Nor is a BYE sent where no way leads to the peer.
            let moods = self.sim.world.moods();
            let cut_off = moods.was_unreachable(self.phone, at + LIFE_US, due);
            if !acknowledged && !ended && !cut_off && !self.killed_between(at, due) {
                wrong.push(format!("the 2xx of {} has no ACK, and the call goes on", ladder::time(at)));
            }
        }
    }
}
