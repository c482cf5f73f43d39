//! What must hold of every call that leaves by trunks. The rules know the settings, the moods of the proxies and the wire, not how the
//! engine decides.

use tandem_actors::cdr::{Attempt as Told, Cdr};

use super::book::{Attempt, Book, Heard};
use super::{LINES, Line, PROGRESS, route};
use crate::account::{Dial, End};
use crate::engine::{LIMITED, LISTENER, NOWHERE, station};
use crate::run::Sim;
use crate::wire::{Said, Wire};
use crate::world::WALL_START_MS;

/// Whoever is told something does it within this time, whatever shards and stores take.
const SOON_US: u64 = 1_000_000;
/// What comes by a connection of another shard crosses within this time.
const CROSSING_US: u64 = 1_000;
/// What is answered at once may cross from one shard to another first.
const AT_ONCE_US: u64 = 5_000;
/// A request within a dialog is given up after 64*T1.
const LIFE_US: u64 = 32_000_000;
/// The retryable codes of every trunk.
const RETRYABLE: [std::ops::RangeInclusive<u16>; 2] = [480..=480, 500..=599];

/// One call and all that is known of it.
struct Case<'a> {
    sim: &'a Sim,
    wire: &'a Wire,
    dial: &'a Dial,
    lines: Vec<&'static Line>,
    attempts: &'a [Attempt],
    book: &'a Book,
    callee: &'a str,
}

/// What is wrong with a call; `records` are its own.
pub(crate) fn of_call(sim: &Sim, wire: &Wire, book: &Book, dial: &Dial, records: &[&Cdr]) -> Vec<String> {
    let Some((lines, callee)) = route(&dial.to) else { return Vec::new() };
    let case = Case { sim, wire, dial, lines, attempts: book.of(callee), book, callee };
    let mut wrong = Vec::new();
    case.each_proxy_is_asked_once(&mut wrong);
    if dial.killed.is_some() {
        return wrong;
    }
    match records {
        // It was over for everybody and waited for a leg when the engine was killed.
        [cdr] if cdr.cause == "restart" => {}
        [cdr] => {
            case.only_one_answer_is_kept(Some(cdr), &mut wrong);
            case.record_has_each_attempt(cdr, &mut wrong);
            case.fails_only_if_every_proxy_failed(cdr, &mut wrong);
            case.is_untouched_once_established(cdr, &mut wrong);
        }
        _ => case.only_one_answer_is_kept(None, &mut wrong),
    }
    if records.is_empty() && !case.attempts.is_empty() {
        wrong.push("proxies were asked for a call that has no record".to_owned());
    }
    wrong.into_iter().map(|what| format!("{what}; {}", case.show(records))).collect()
}

fn wall_us(wall_ms: u64) -> u64 {
    wall_ms.saturating_sub(WALL_START_MS) * 1000
}

fn is_retryable(status: u16) -> bool {
    RETRYABLE.iter().any(|codes| codes.contains(&status))
}

/// True if the engine lost its own state of a leg or of the call.
fn is_fault(cdr: &Cdr) -> bool {
    cdr.cause == "fault"
}

impl Case<'_> {
    fn show(&self, records: &[&Cdr]) -> String {
        let attempts: Vec<String> = self
            .attempts
            .iter()
            .map(|a| {
                let heard: Vec<(u64, u16)> = a.heard.iter().map(|h| (h.at, h.status)).collect();
                let mood = self.sim.world.moods().of(a.proxy, a.at);
                format!("{} at {} ({mood:?}) {} heard {heard:?}", a.proxy, a.at, a.call_id)
            })
            .collect();
        let told: Vec<_> = records.iter().map(|cdr| (&cdr.cause, &cdr.ended_by, &cdr.attempts)).collect();
        format!("the wire: {attempts:#?}, the records: {told:?}")
    }

    fn each_proxy_is_asked_once(&self, wrong: &mut Vec<String>) {
        // Another process that goes on with an INVITE it finds has not kept whom the one before has asked.
        if self.dial.killed.is_some() {
            return;
        }
        for (n, attempt) in self.attempts.iter().enumerate() {
            if self.attempts[..n].iter().any(|before| before.proxy == attempt.proxy) {
                wrong.push(format!("{} is asked twice for one call", attempt.proxy));
            }
            if !self.lines.iter().any(|line| line.addresses().contains(&attempt.proxy)) {
                wrong.push(format!("{} is asked, to which {} does not lead", attempt.proxy, self.dial.to));
            }
        }
    }

    /// Every 2xx is acknowledged, and all but the one of the call are ended by BYE: however late they come.
    fn only_one_answer_is_kept(&self, cdr: Option<&Cdr>, wrong: &mut Vec<String>) {
        let kept = cdr.filter(|cdr| cdr.answer.is_some()).and_then(|cdr| cdr.proxy.as_ref());
        let (held, moods) = (self.held_until(), self.sim.world.moods());
        for attempt in self.attempts {
            let answers = attempt.answers();
            // What comes when no way leads back is answered when it comes again.
            let answerable = |answer: &Heard| {
                let same = |heard: &&Heard| heard.status / 100 == 2 && heard.to_tag == answer.to_tag;
                let mut copies = attempt.heard.iter().filter(same).map(|heard| heard.at);
                copies.find(|at| !moods.was_unreachable(attempt.proxy, *at, *at + AT_ONCE_US))
            };
            let soon = |method, answer: &Heard| {
                let Some(at) = answerable(answer).map(|at| self.sim.taken_at(at)) else { return true };
                let since = held.filter(|_| method == "BYE").map_or(at, |held| held.max(at));
                attempt.first(method, &answer.to_tag).is_some_and(|at| at <= since + SOON_US)
            };
            // One answer of the proxy that has the call is the call's: of two that come together, either.
            let is_kept = kept.is_some_and(|proxy| *proxy == attempt.proxy.to_string());
            let more = answers.iter().filter(|answer| !soon("BYE", answer));
            for answer in more.skip(usize::from(is_kept)) {
                wrong.push(format!("a 200 of {} at {} is kept beside the call", attempt.proxy, answer.at));
            }
            for answer in answers.iter().filter(|answer| !is_kept && !soon("ACK", answer)) {
                wrong.push(format!("a 200 of {} at {} is not acknowledged", attempt.proxy, answer.at));
            }
        }
    }

    /// When the engine gave up a caller that has never acknowledged a description in a reliable response: no 2xx leaves for it before
    /// (RFC 3262 §3), and the callee whose answer that is waits for so long.
    fn held_until(&self) -> Option<u64> {
        let dialog = self.wire.dialog(self.dial.call_ids.first()?);
        let ours = || dialog.iter().filter(|said| said.from == LISTENER && said.method == "INVITE");
        let open = ours().rfind(|said| said.rseq.is_some() && said.has_sdp)?;
        let rack = open.rseq.map(|rseq| (rseq, open.cseq));
        let refusal = ours().find(|said| said.cseq == open.cseq && said.status.is_some_and(|s| s >= 300))?;
        let heard = |said: &Said| {
            said.is("PRACK") && said.rack == rack && said.arrives.iter().any(|at| *at <= refusal.at)
        };
        (!dialog.iter().any(heard)).then_some(refusal.at)
    }

    /// The record has each attempt in order, with what came of it.
    fn record_has_each_attempt(&self, cdr: &Cdr, wrong: &mut Vec<String>) {
        let mut wire = self.attempts.iter().peekable();
        for told in cdr.attempts.iter().filter(|told| told.cause != "limit") {
            let asked = wire.next_if(|attempt| attempt.proxy.to_string() == told.proxy);
            match asked {
                Some(attempt) if !self.agrees(told, attempt, cdr) => {
                    wrong.push(format!("the record says {told:?}, which the wire does not show"));
                }
                Some(_) => {}
                // Nothing leaves for a place that no way leads to.
                None if told.cause == "transport" && self.cannot_be_reached(told, cdr) => {}
                // The caller gave up before the call had heard that.
                None if told.cause == "cancelled" && told.ms <= 1 && self.cannot_be_reached(told, cdr) => {}
                // Or its leg was lost before it left.
                None if told.cause == "500" && self.sim.world.plan().panics.dialog > 0 => {}
                None => wrong.push(format!("the record says {told:?}, and nobody was asked then")),
            }
        }
        // A call that lost its state has lost what it was trying with it.
        if let Some(attempt) = wire.nth(usize::from(is_fault(cdr))) {
            wrong.push(format!("the record does not have the attempt at {}", attempt.proxy));
        }
    }

    fn cannot_be_reached(&self, told: &Told, cdr: &Cdr) -> bool {
        let Ok(proxy) = told.proxy.parse::<std::net::SocketAddr>() else { return false };
        let over = wall_us(cdr.end.0);
        proxy.ip() == NOWHERE || self.sim.world.moods().ailed(proxy, self.dial.at, over)
    }

    /// True if the wire shows the cause that the record gives.
    fn agrees(&self, told: &Told, attempt: &Attempt, cdr: &Cdr) -> bool {
        let plan = self.sim.world.plan();
        let Some(line) = self.lines.iter().find(|line| line.name == told.trunk) else { return false };
        let give_up = attempt.asked + line.give_up.as_micros() as u64;
        let spent = attempt.at + told.ms * 1000;
        let by = |at: u64| attempt.heard.iter().filter(move |heard| heard.at <= at);
        match told.cause.as_str() {
            "answered" => !attempt.answers().is_empty(),
            // A connection that breaks leads to the same proxy by another.
            // What has just come, or has come to a shard that stood still, may still be on its way to the shard of the call.
            "timeout" => {
                let taken =
                    |heard: &Heard| self.sim.taken_at(heard.at) <= give_up.saturating_sub(CROSSING_US);
                !attempt.heard.iter().any(taken) && (spent + 2_000 >= give_up || line.by_stream)
            }
            "progress_timeout" => {
                let patient = by(spent).next().is_some_and(|first| {
                    first.status == 100 && spent + 2_000 >= first.at + PROGRESS.as_micros() as u64
                });
                patient && by(spent).all(|heard| heard.status == 100)
            }
            "cancelled" => cdr.answer.is_none(),
            // Its time is in whole milliseconds.
            "transport" => {
                line.by_stream || self.sim.world.moods().ailed(attempt.proxy, attempt.at, spent + 1_000)
            }
            status => {
                let Ok(status) = status.parse::<u16>() else { return false };
                attempt.answer().is_some_and(|heard| heard.status == status)
                    // Its dialog was lost.
                    || status == 500 && plan.panics.dialog > 0
            }
        }
    }

    /// A call fails only if every proxy that it may leave by has failed, or one has refused it for good.
    fn fails_only_if_every_proxy_failed(&self, cdr: &Cdr, wrong: &mut Vec<String>) {
        let answered = cdr.answer.is_some();
        let given_up = matches!(cdr.ended_by.as_str(), "caller" | "operator");
        // A caller that does not acknowledge what it asks to be reliable has no call, whoever rings.
        if answered || given_up || is_fault(cdr) || matches!(cdr.cause.as_str(), "media" | "no_ack") {
            return;
        }
        // Its own limit kept the caller from calling at all.
        if cdr.cause == "limit" && cdr.attempts.is_empty() && cdr.from == station(LIMITED) {
            return;
        }
        let last = cdr.attempts.last().map(|told| told.cause.as_str());
        let status = last.and_then(|cause| cause.parse::<u16>().ok());
        if status.is_some_and(|status| !is_retryable(status)) || self.has_early_media() {
            return;
        }
        // A proxy that rings has the call for as long as it may ring.
        if cdr.cause == "no_answer" && self.attempts.last().is_some_and(Attempt::rang) {
            return;
        }
        for line in &self.lines {
            // Where all were full to begin with, none is told.
            let said = cdr.attempts.iter().any(|told| told.trunk == line.name && told.cause == "limit");
            let full = (said || cdr.cause == "limit") && self.was_full(line);
            let tried = |address| {
                let mut such = cdr.attempts.iter().filter(|told| told.trunk == line.name);
                such.any(|told| told.proxy == address && told.cause != "answered")
            };
            for address in line.addresses() {
                if !full && !tried(address.to_string()) {
                    wrong
                        .push(format!("the call failed, and {address} of trunk {} was not tried", line.name));
                }
            }
        }
        if let Some((_, End::Failed(told))) = self.dial.ends.first()
            && let Some(status) = cdr.attempts.iter().rev().find_map(|told| told.cause.parse::<u16>().ok())
            && *told != status
            && !matches!(told, 408 | 500)
        {
            wrong.push(format!("the caller got {told}, and the last word of a proxy was {status}"));
        }
    }

    /// True if a trunk may have had as many calls as it may when this one wanted a place.
    fn was_full(&self, line: &Line) -> bool {
        let over = self.dial.ends.first().map_or(u64::MAX, |(at, _)| *at);
        let others = self.book.others_at(line.name, self.callee, self.dial.at, over);
        line.max_calls > 0 && others >= line.max_calls as usize
    }

    /// The caller has heard a proxy's early media: no other can take that over.
    fn has_early_media(&self) -> bool {
        let early = |heard: &Heard| heard.sdp && (101..200).contains(&heard.status);
        self.attempts.last().is_some_and(|attempt| attempt.heard.iter().any(early))
    }

    /// An established call does not end because of what becomes of its proxy: only if that leaves a request unanswered for good.
    fn is_untouched_once_established(&self, cdr: &Cdr, wrong: &mut Vec<String>) {
        if cdr.answer.is_none() || cdr.ended_by == "operator" {
            return;
        }
        let plan = self.sim.world.plan();
        let end = wall_us(cdr.end.0);
        let explained = match cdr.cause.as_str() {
            // What ends for silence is judged with its sound; without an ACK there is no call.
            "normal" | "rtp_timeout" | "no_ack" | "media" => true,
            // The CANCEL has crossed the answer within the engine.
            "abandoned" => self.dial.hung_up.is_some() && self.dial.answered.is_none(),
            "lost" | "session_expired" => self.was_unanswered(end),
            "fault" => plan.panics.call > 0,
            _ => false,
        };
        if !explained {
            wrong.push(format!("an established call ended by {} for {}", cdr.ended_by, cdr.cause));
        }
    }

    /// A request of the engine's in one of the call's dialogs had no answer for as long as one is waited for, or a refusal that says
    /// that the peer has forgotten the call.
    fn was_unanswered(&self, end: u64) -> bool {
        let asks = |said: &&Said| {
            said.from == LISTENER
                && ["UPDATE", "INVITE", "OPTIONS", "INFO"].iter().any(|method| said.is(method))
                && said.at <= end
        };
        let in_vain = |id: &String| {
            let dialog = self.wire.dialog(id);
            dialog.iter().filter(asks).any(|ask| {
                let answer = dialog.iter().find(|other| {
                    other.to == LISTENER
                        && other.cseq == ask.cseq
                        && other.method == ask.method
                        && other.is_final()
                });
                answer.is_none_or(|answer| {
                    matches!(answer.status, Some(408 | 481))
                        || answer.arrives.iter().all(|at| *at >= ask.at + LIFE_US - 1_000_000)
                })
            })
        };
        self.dial.call_ids.iter().any(in_vain) || self.peer_never_refreshed(end)
    }

    /// Whoever was to refresh the session has not been heard of for two thirds of the shortest (RFC 4028 §10).
    fn peer_never_refreshed(&self, end: u64) -> bool {
        let silent = |id: &String| {
            let dialog = self.wire.dialog(id);
            let heard = dialog.iter().filter(|said| said.to == LISTENER && said.status.is_none());
            let last = heard.flat_map(|said| said.arrives.iter()).filter(|at| **at <= end).max();
            last.is_none_or(|last| last + 59_000_000 <= end)
        };
        self.dial.call_ids.iter().any(silent)
    }
}

/// A proxy that wants to be left alone is not asked first by a call that begins meanwhile, while another of its trunk is well.
pub(super) fn rest_is_kept(sim: &Sim, book: &Book) -> Vec<String> {
    let moods = sim.world.moods();
    let mut wrong = Vec::new();
    let answers = || book.all().flat_map(|(_, attempts)| attempts);
    let wants_rest = answers().flat_map(|attempt| {
        let heard = attempt.heard.iter().filter(|heard| heard.status == 503);
        heard.filter_map(|heard| Some((attempt.proxy, heard.at, heard.retry_after? * 1_000_000)))
    });
    for (proxy, at, rest) in wants_rest {
        let Some(line) = LINES.iter().find(|line| line.addresses().contains(&proxy)) else { continue };
        for (number, attempts) in book.all() {
            let Some(first) = attempts.iter().find(|a| line.addresses().contains(&a.proxy)) else { continue };
            // A call decides when it begins; this trunk may be its second.
            let began = attempts.iter().map(|a| a.at).min().unwrap_or(first.at);
            let meanwhile = at + SOON_US <= began && first.at < (at + rest).saturating_sub(SOON_US);
            // One that has failed of late may be worse than one that rests.
            let well = |other: &std::net::SocketAddr| {
                let since = first.at.saturating_sub(180_000_000);
                let failed = |a: &Attempt| {
                    let refused =
                        |heard: &Heard| heard.status >= 480 && (since..=first.at).contains(&heard.at);
                    a.proxy == *other && a.heard.iter().any(refused)
                };
                *other != proxy
                    && other.ip() != NOWHERE
                    && !moods.ailed(*other, since, first.at)
                    && !answers().any(failed)
            };
            if meanwhile && first.proxy == proxy && line.addresses().iter().any(well) {
                let until = at + rest;
                wrong.push(format!(
                    "call {number} begins with {proxy} at {}, which wanted none until {until}",
                    first.at
                ));
            }
        }
    }
    wrong
}
