//! What a phone complains of must have its cause on the wire, in messages of the very dialog, or in a kill in the midst of it.

use std::net::SocketAddr;

use crate::account::Dial;
use crate::engine::{LISTENER, proxies};
use crate::ladder;
use crate::run::Sim;
use crate::wire::{Said, Wire};
use crate::world::Fate;

/// 64*T1: Timers B, D, F, H, and the life of a repeated 2xx.
const LIFE_US: u64 = 32_000_000;
/// What nobody waits for is in the store after so long, on a slow disk too.
const KEPT_US: u64 = 50_000 + 150_000 + 1_000;
/// The session interval of the engine.
const SESSION_US: u64 = 180_000_000;
/// T4: Timer K, the least that a client remembers a transaction.
const T4_US: u64 = 5_000_000;

/// The complaints about a call that nothing explains.
pub(crate) fn unexplained(sim: &Sim, wire: &Wire, dial: &Dial) -> Vec<String> {
    let said = |(at, phone, what): &(u64, usize, String)| {
        let local = sim.phones.handsets[*phone].phone.config().local;
        let is_explained = dial.call_ids.iter().any(|id| {
            let dialog: Vec<&Said> =
                wire.dialog(id).iter().filter(|said| said.from == local || said.to == local).collect();
            let restarted = sim.script.restarts.iter().any(|(who, when)| {
                who == phone && when <= at && dialog.first().is_some_and(|said| said.at <= *when)
            });
            // Who was switched off and on knows nothing of what it began.
            // A callee that was asked for the offer has its ACK when the caller's has come with the answer.
            let waits = what.starts_with("ACK missing") && wire.callers_ack_is_missing(&dial.call_ids, *at);
            // Who is gone without a word hears no refresh, and its own get nowhere.
            let gone = what.starts_with("session timer: not refreshed")
                && dial.faded.is_some_and(|(since, who, vanished)| vanished && who == *phone && since <= *at);
            // Nor is a session refreshed to which no way leads: what cannot be sent is not on the wire.
            let cut_off = what.starts_with("session timer: not refreshed")
                && is_unreachable(sim, dial, renewed_at(&dialog, *at), *at);
            // Nor where the other side of the call does not hear what it is asked.
            let others = dial.call_ids.iter().filter(|other| *other != id);
            let in_vain = what.starts_with("session timer: not refreshed")
                && wire.refreshed_in_vain(others, at.saturating_sub(SESSION_US), *at);
            restarted
                || waits
                || gone
                || cut_off
                || in_vain
                || Case { sim, phone: local, at: *at, dialog: &dialog }.explains(what)
        });
        (!is_explained).then(|| format!("a phone complains at {}: {what}", ladder::time(*at)))
    };
    dial.complaints.iter().filter_map(said).collect()
}

/// True if no way led to a proxy of the call at some time from `since` to `at`.
fn is_unreachable(sim: &Sim, dial: &Dial, since: u64, at: u64) -> bool {
    dial.ears().any(|(phone, _)| {
        let local = sim.phones.handsets[phone].phone.config().local;
        sim.world.moods().was_unreachable(local, since, at)
    })
}

/// When a session was last begun or refreshed before `at`.
fn renewed_at(dialog: &[&Said], at: u64) -> u64 {
    let renews = |said: &&&Said| {
        let accepts = said.status.is_some_and(|status| status / 100 == 2);
        matches!(said.method.as_str(), "INVITE" | "UPDATE")
            && accepts
            && said.at <= at
            && !said.arrives.is_empty()
    };
    dialog.iter().filter(renews).map(|said| said.at).max().unwrap_or(0)
}

/// The same of what phones have refused before it was a call.
pub(crate) fn unexplained_strays(sim: &Sim, wire: &Wire) -> Vec<String> {
    let said = |(at, phone, what, id): &(u64, usize, String, String)| {
        let handset = &sim.phones.handsets[*phone];
        let local = handset.phone.config().local;
        let dialog: Vec<&Said> =
            wire.dialog(id).iter().filter(|said| said.from == local || said.to == local).collect();
        let began = dialog.first().map_or(0, |said| said.at);
        let restarted =
            sim.script.restarts.iter().any(|(who, when)| who == phone && began <= *when && when <= at);
        let explained = restarted || Case { sim, phone: local, at: *at, dialog: &dialog }.explains(what);
        let ladder = || ladder::of_call(&sim.world, std::slice::from_ref(id), 40);
        (!explained).then(|| {
            let user = &handset.user;
            format!(
                "phone {phone} ({user}) complains at {}, of no call: {what}\n{}",
                ladder::time(*at),
                ladder()
            )
        })
    };
    sim.script.strays.iter().filter_map(said).collect()
}

/// A complaint and the messages between the engine and the phone.
struct Case<'a> {
    sim: &'a Sim,
    phone: SocketAddr,
    at: u64,
    dialog: &'a [&'a Said],
}

impl Case<'_> {
    fn explains(&self, what: &str) -> bool {
        match what {
            what if what.contains("without transaction") => self.is_forgotten_response(),
            what if what.contains("CSeq backwards") => self.is_overtaken(),
            "an ACK came before any final response" => self.is_forgotten_ack(),
            "the CANCEL of a pending INVITE got 481" => {
                self.was_killed_since("CANCEL", true) || self.is_unanswered()
            }
            "ACK missing after a refused INVITE" => self.is_unacknowledged(false),
            "no final response to an INVITE that was cancelled or whose call ended" => {
                self.is_unanswered() || self.is_unheard("CANCEL")
            }
            // It has one, which refuses the offer of a callee whose call is over: its CANCEL was lost.
            what if what.starts_with("the PRACK has no SDP") => {
                let declines =
                    |said: &&Said| said.is("PRACK") && said.has_sdp && said.arrives.contains(&self.at);
                self.theirs().find(declines).is_some_and(|prack| {
                    let cancelled = self.theirs().any(|said| said.is("CANCEL") && said.at <= prack.at);
                    // Or another branch has answered the INVITE (RFC 3261 section 13.2.2.4).
                    let answers = |said: &&Said| {
                        said.method == "INVITE" && said.status.is_some_and(|status| status / 100 == 2)
                    };
                    let mut others = self.ours().filter(answers).filter(|said| said.to_tag != prack.to_tag);
                    cancelled || others.any(|said| said.arrives.iter().any(|at| *at <= prack.at))
                })
            }
            what if what.starts_with("ACK missing") => self.is_unacknowledged(true),
            // What changes no session is in no checkpoint.
            what if what.starts_with("a request with a low CSeq got") => {
                self.was_killed_since("INVITE", true) || self.has_overtaken()
            }
            // The fault that ends a dialog ends what it was asked with 500, and the INVITE.
            "a PRACK got 500" | "a PRACK got 481" if self.sim.world.plan().panics.dialog > 0 => {
                let mut faults =
                    self.dialog.iter().filter(|said| said.from == LISTENER && said.method == "INVITE");
                faults.any(|said| said.status == Some(500)) || self.was_killed_since("INVITE", true)
            }
            // There is no session any more where the INVITE was refused meanwhile (RFC 3262 section 3).
            "the 2xx to a PRACK refuses all that is offered" => {
                let heard = |said: &&Said| said.method == "PRACK" && said.arrives.contains(&self.at);
                let refused = |said: &Said| said.method == "INVITE" && said.status.is_some_and(|s| s >= 300);
                self.theirs()
                    .find(heard)
                    .is_some_and(|answer| self.theirs().any(|said| refused(said) && said.at <= answer.at))
            }
            what if what.starts_with("a PRACK got") => self.was_killed_since("INVITE", true),
            what if what.starts_with("PRACK missing") => self.is_unpracked(),
            what if what.starts_with("session timer: not refreshed") => self.is_unrefreshed(),
            // Who follows on a process that was killed cannot know whether its reliable response has come.
            "the 2xx has SDP after the answer in a reliable response" => {
                self.was_killed_since("INVITE", true)
            }
            // A process that had to begin again with an INVITE that its predecessor had answered and not kept.
            // A copy waited for a shard that stood still until its transaction was over.
            what if what.starts_with("two final answers to REGISTER") => {
                self.was_killed_since("REGISTER", true)
            }
            what if what.starts_with("two final answers") => self.was_killed_since("INVITE", true),
            // A process that had to begin again with an INVITE has a session of its own.
            what if what.starts_with("SDP origin changed") => {
                self.was_killed_since("INVITE", false) || self.is_repeated()
            }
            what if what.starts_with("SDP ") => self.is_repeated() || self.is_unkept(),
            what if what.starts_with("the ACK has no SDP") => self.is_stray(),
            _ => false,
        }
    }

    /// A 2xx that nobody knows any more is acknowledged and ended from its own headers, which do not say whether it offers.
    fn is_stray(&self) -> bool {
        let Some(ack) = self.theirs().find(|said| said.is("ACK") && said.arrives.contains(&self.at)) else {
            return false;
        };
        let invites = || self.theirs().filter(|said| said.is("INVITE") && said.cseq == ack.cseq);
        let (Some(first), Some(last)) = (invites().next(), invites().last()) else { return false };
        let given_up = self.theirs().find(|said| said.is("CANCEL") && said.cseq == ack.cseq);
        let forgotten = given_up.map_or(last.at, |cancel| cancel.at) + LIFE_US <= self.at;
        let answers = self.ours().filter(|said| said.method == "INVITE" && said.cseq == ack.cseq);
        let heard = answers.flat_map(|said| said.arrives.iter()).min();
        let silent = heard.is_none_or(|heard| *heard >= first.at + self.patience_us());
        // A fork that had answered on two branches, of which the other is over: nothing is kept of the call.
        let over = self.theirs().any(|said| said.is("BYE") && said.at < ack.at);
        // Or the call has ended while no way led to the phone: it could not be told (RFC 3261 section 18.4).
        let cut_off = self.sim.world.moods().was_unreachable(self.phone, first.at, self.at);
        // Or the process that asked was killed, and the next one knows nothing of its INVITE.
        forgotten || silent || over || cut_off || self.killed_since(first.at)
    }

    /// What comes was said before, and says again what stood then.
    fn is_repeated(&self) -> bool {
        let mut here = self.theirs().filter(|said| said.arrives.contains(&self.at) && said.has_sdp);
        here.any(|said| {
            let same = |other: &&Said| {
                other.status == said.status && other.method == said.method && other.cseq == said.cseq
            };
            self.theirs().filter(same).any(|other| other.at < said.at)
        })
    }

    /// What comes is older than what was agreed on last before a kill, so shortly that it was not kept.
    fn is_unkept(&self) -> bool {
        // A phone that ponders says what is wrong when it answers.
        let came = |said: &&Said| said.arrives.iter().copied().filter(|at| *at <= self.at).min();
        let here = self.theirs().filter(|said| said.has_sdp).max_by_key(|said| came(said));
        let Some(here) = here else { return false };
        let mut newer = self.theirs().filter(|said| said.at < here.at && said.version >= here.version);
        newer.any(|said| {
            let same = |other: &&Said| other.method == said.method && other.cseq == said.cseq;
            let answers = self.ours().filter(|other| other.is_final()).filter(same);
            // What a request offers is agreed with its answer.
            let agreed = match said.status {
                Some(_) => Some(said.at),
                None => answers.flat_map(|answer| answer.arrives.iter().copied()).min(),
            };
            let lost = |down: u64| said.at <= down && agreed.is_none_or(|at| down <= at + KEPT_US);
            self.sim.cuts().any(|(down, _)| *down < here.at && lost(*down))
        })
    }

    /// The phone has sent such requests, and none has come.
    fn is_unheard(&self, method: &str) -> bool {
        let mut sent = self.ours().filter(|said| said.is(method)).peekable();
        sent.peek().is_some() && sent.all(|said| said.arrives.is_empty())
    }

    /// How long the engine waits for the first response to an INVITE to this phone, at least.
    fn patience_us(&self) -> u64 {
        let of_trunk = proxies('b').contains(&self.phone).then_some(4_000_000);
        crate::trunks::give_up_us(self.phone).or(of_trunk).unwrap_or(LIFE_US)
    }

    /// A reliable response has no PRACK: the engine has not heard it, or each PRACK was lost, or the engine was killed.
    fn is_unpracked(&self) -> bool {
        let Some(last) = self.ours().filter(|said| said.rseq.is_some()).last() else { return false };
        let mut copies = self.ours().filter(|said| said.rseq == last.rseq && said.to_tag == last.to_tag);
        let unheard = copies.all(|said| said.arrives.is_empty());
        let pracks = || self.theirs().filter(|said| said.rack == last.rseq.map(|rseq| (rseq, last.cseq)));
        let lost = pracks().next().is_some() && pracks().all(|said| said.arrives.is_empty());
        // A proxy that says nothing for long is given up: what it says then finds nobody.
        let asked =
            self.theirs().find(|said| said.is("INVITE") && said.cseq == last.cseq).map(|said| said.at);
        let mut said = self.ours().filter(|said| said.method == "INVITE" && said.cseq == last.cseq);
        let first = said.find_map(|said| said.arrives.first().copied());
        let given_up = asked.zip(first).is_some_and(|(asked, first)| first >= asked + self.patience_us());
        unheard || lost || given_up || self.was_killed_since("INVITE", true)
    }

    /// A session was not refreshed: each refresh or its answer was lost, or the BYE by which the engine has ended it, or the engine was killed.
    fn is_unrefreshed(&self) -> bool {
        let renewed = renewed_at(self.dialog, self.at);
        let since = |said: &&Said| said.at > renewed;
        let refreshes = |said: &&Said| said.is("UPDATE") || said.is("INVITE");
        let mut tried = self.ours().chain(self.theirs()).filter(since).filter(refreshes).peekable();
        let unheard = |said: &Said| said.arrives.is_empty();
        // Each branch of a fork is ended by a BYE of its own.
        let byes = || self.theirs().filter(since).filter(|said| said.is("BYE"));
        let mut ends = byes();
        let ended = ends.any(|bye| byes().filter(|other| other.to_tag == bye.to_tag).all(unheard));
        // By a stream an answer is not repeated, and may be lost with it.
        let unanswered = |ask: &Said| {
            let answers = |said: &&&Said| said.to == ask.from && said.cseq == ask.cseq && said.is_final();
            self.dialog.iter().any(|said| answers(&said))
                && self.dialog.iter().filter(answers).all(|said| unheard(said))
        };
        let lost = tried.peek().is_some() && tried.all(|said| unheard(said) || unanswered(said));
        lost || ended || self.is_renewed_late() || self.killed_since(renewed)
    }

    /// The engine heard the phone's 2xx so late that half of the interval from then (RFC 4028 sections 7.2 and 10) is too late for the
    /// phone, for which it began when the 2xx left.
    fn is_renewed_late(&self) -> bool {
        let renews = |said: &&Said| {
            matches!(said.method.as_str(), "INVITE" | "UPDATE") && said.status.is_some_and(|s| s / 100 == 2)
        };
        let Some(last) = self.ours().filter(renews).max_by_key(|said| said.cseq) else { return false };
        // The sender of the request, which is the engine, is to refresh it.
        let Some((interval, true)) = last.session else { return false };
        let copies = self.ours().filter(renews).filter(|said| said.cseq == last.cseq);
        let heard = copies.flat_map(|said| said.arrives.iter().copied()).min();
        let is_last = self.theirs().filter(renews).all(|said| said.at < last.at);
        is_last && heard.is_some_and(|heard| heard + interval * 500_000 >= self.at)
    }

    fn ours(&self) -> impl Iterator<Item = &Said> {
        self.dialog.iter().copied().filter(|said| said.from == self.phone && said.at <= self.at)
    }

    fn theirs(&self) -> impl Iterator<Item = &Said> {
        self.dialog.iter().copied().filter(|said| said.from == LISTENER && said.at <= self.at)
    }

    /// True if the engine was killed since a moment.
    fn killed_since(&self, since: u64) -> bool {
        self.sim.cuts().any(|(down, _)| since <= *down && *down <= self.at)
    }

    /// True if the engine was killed after the first, or the last, request of this method began.
    fn was_killed_since(&self, method: &str, first: bool) -> bool {
        let invite = if method == "CANCEL" { "INVITE" } else { method };
        let mut begun = self.dialog.iter().filter(|said| said.is(invite) && said.at <= self.at);
        let begun = if first { begun.next() } else { begun.next_back() };
        begun.is_some_and(|said| self.killed_since(said.at.saturating_sub(T4_US)))
    }

    /// A response comes to a phone that asked, had its answer, and has forgotten both as its timers say; or that has given up.
    fn is_forgotten_response(&self) -> bool {
        let mut heard = self.theirs().filter(|said| said.status.is_some() && said.arrives.contains(&self.at));
        let Some(response) = heard.next() else { return false };
        let same = |said: &&Said| said.method == response.method && said.cseq == response.cseq;
        let Some(asked) = self.ours().filter(|said| said.status.is_none()).find(same) else { return false };
        let given_up = asked.at + LIFE_US <= self.at;
        let finals = self.theirs().filter(|said| said.is_final()).filter(same);
        let first = finals.flat_map(|said| said.arrives.iter()).min();
        let memory = if asked.method == "INVITE" { LIFE_US } else { T4_US };
        let forgotten = first.is_some_and(|first| first + memory <= self.at);
        // A CANCEL or BYE without a final response to its INVITE for 64*T1 ends it.
        let ended = self.ours().filter(|said| said.is("CANCEL") || said.is("BYE")).map(|said| said.at).min();
        let cancelled = asked.method == "INVITE" && ended.is_some_and(|at| at + LIFE_US <= self.at);
        given_up || forgotten || cancelled
    }

    /// What is answered here came before every request of the phone's with a higher number that the dialog has taken (481: it has not),
    /// and was not low then.
    fn has_overtaken(&self) -> bool {
        let answered = self.theirs().find(|said| said.status.is_some() && said.arrives.contains(&self.at));
        let Some((cseq, method)) = answered.map(|said| (said.cseq, &said.method)) else { return false };
        let came = |said: &Said| said.arrives.iter().min().copied();
        let requests = || self.ours().filter(|said| said.status.is_none() && said.method != "ACK");
        let low =
            requests().filter(|said| said.cseq == cseq && said.method == *method).filter_map(came).min();
        let same = |a: &Said, b: &Said| a.cseq == b.cseq && a.method == b.method;
        let taken = |said: &&Said| !self.theirs().any(|other| other.status == Some(481) && same(other, said));
        let higher = requests().filter(|said| said.cseq > cseq).filter(taken).filter_map(came).min();
        low.is_some_and(|low| higher.is_none_or(|higher| low <= higher))
    }

    /// A request comes after one that was sent later: it was overtaken, or is a repetition of one that got lost.
    fn is_overtaken(&self) -> bool {
        let requests = || self.theirs().filter(|said| said.status.is_none() && said.method != "ACK");
        let Some(late) = requests().find(|said| said.arrives.contains(&self.at)) else { return false };
        let first = |cseq| requests().find(|said| said.cseq == cseq).map(|said| said.at);
        let later = requests().filter(|said| said.cseq > late.cseq).map(|said| said.at).min();
        // Both may have been sent in one turn.
        let in_order = first(late.cseq) <= later && later.is_some();
        // The number of a request that was not kept is used again.
        in_order || first(late.cseq).is_some_and(|first| self.killed_since(first))
    }

    /// The ACK of a refusal comes when the phone has forgotten the INVITE and taken a late copy of it for a new one.
    fn is_forgotten_ack(&self) -> bool {
        let Some(ack) = self.theirs().find(|said| said.is("ACK") && said.arrives.contains(&self.at)) else {
            return false;
        };
        let invites = self.theirs().filter(|said| said.is("INVITE") && said.cseq == ack.cseq);
        let arrived: Vec<u64> = invites.flat_map(|said| said.arrives.iter().copied()).collect();
        let last = arrived.iter().filter(|at| **at <= self.at).max();
        last.is_some_and(|last| arrived.iter().any(|at| at + T4_US <= *last))
    }

    /// No ACK came: the engine did not hear the final response, or each of its ACKs was lost; or it was killed and had not kept the
    /// call; or it had given the proxy up, whose 200 then finds nobody.
    fn is_unacknowledged(&self, success: bool) -> bool {
        let kind =
            |said: &&Said| said.status.is_some_and(|status| (status / 100 == 2) == success && status >= 200);
        let finals = || self.ours().filter(|said| said.method == "INVITE").filter(kind);
        // Complained of is what was first said 64*T1 ago: by one of the branches, if it was a fork that answered on two.
        let since = self.at.saturating_sub(LIFE_US);
        let up = |at: &u64| !self.sim.cuts().any(|(down, up)| down <= at && at < up);
        finals().filter(|said| said.at == since).any(|said| {
            let (cseq, tag) = (said.cseq, &said.to_tag);
            let same = |other: &&Said| other.cseq == cseq && other.to_tag == *tag;
            let heard = finals().filter(same).flat_map(|said| said.arrives.iter());
            let first = heard.filter(|at| up(at)).min();
            let acks = || self.theirs().filter(|said| said.is("ACK") && said.at >= since).filter(same);
            let lost =
                acks().all(|said| said.fate == Fate::Lost || said.arrives.iter().all(|at| *at > self.at));
            let asked = self.theirs().find(|said| said.is("INVITE") && said.cseq == cseq).map(|said| said.at);
            let given_up =
                asked.zip(first.copied()).is_some_and(|(asked, first)| first >= asked + self.patience_us());
            // Or the INVITE could not be sent again: no way led to the phone just then.
            let moods = self.sim.world.moods();
            let unsent = asked.is_some_and(|asked| moods.was_unreachable(self.phone, asked, self.at));
            let answered = acks().next().is_some();
            lost && (first.is_none()
                || answered
                || given_up
                || unsent
                || asked.is_some_and(|asked| self.killed_since(asked) || self.is_cut_off(asked, since))
                || self.is_closed(cseq, first.copied()))
        })
    }

    /// The connection by which the engine asked had ended before the answer left: it has heard that the phone cannot be reached
    /// (RFC 3261 section 18.4), and waits for nothing more.
    fn is_cut_off(&self, asked: u64, answered: u64) -> bool {
        let until = answered + self.sim.world.plan().longest_way_us();
        self.sim.world.with_streams(|streams| {
            streams.ended.iter().any(|(at, phone)| *phone == self.phone && (asked..=until).contains(at))
        })
    }

    /// The engine had ended the dialog itself, by CANCEL or BYE, before the final response came.
    fn is_closed(&self, cseq: u32, heard: Option<u64>) -> bool {
        let ends = self.theirs().filter(|said| said.is("BYE") || said.is("CANCEL") && said.cseq == cseq);
        ends.map(|said| said.at).min().zip(heard).is_some_and(|(ended, heard)| ended + T4_US <= heard)
    }

    /// No final response: each was lost, or the engine that was asked was killed.
    fn is_unanswered(&self) -> bool {
        let Some(invite) = self.ours().filter(|said| said.is("INVITE") && said.at < self.at).last() else {
            return false;
        };
        let finals =
            || self.theirs().filter(|s| s.method == "INVITE" && s.is_final() && s.cseq == invite.cseq);
        let lost = finals().next().is_some() && finals().all(|said| said.arrives.is_empty());
        // By a process that was killed before it had answered, if at all.
        let is_up = |at: &u64| !self.sim.outages.iter().any(|(down, up)| down <= at && at < up);
        let copies = self.ours().filter(|s| s.is("INVITE") && s.cseq == invite.cseq);
        let heard = copies.flat_map(|said| said.arrives.iter().copied()).filter(is_up).max();
        let unheard = heard.is_none_or(|at| self.killed_since(at));
        // What cannot be sent, for no way leads to the phone just then, is not on the wire.
        let moods = self.sim.world.moods();
        let unsent = finals().next().is_none() && moods.was_unreachable(self.phone, invite.at, self.at);
        lost || unheard || unsent || self.killed_since(invite.at)
    }
}
