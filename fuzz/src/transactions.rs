//! The four transactions of RFC 3261 §17 under any sequence of messages and times.
//!
//! Each gives its user one final response at most (an INVITE client any number of 2xx, RFC 6026 §7.2), and sends one at
//! most; it ends, and then has no timer and does nothing.

use std::fmt::Debug;
use std::time::Duration;

use arbitrary::Unstructured;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tandem_protocol::time::Instant;
use tandem_protocol::transaction::{
    ClientAction, Expiry, InviteClient, InviteServer, NonInviteClient, NonInviteServer, ServerAction, Timers,
};

/// More deadlines than any transaction has: Timer A, E or G of 10 ms over 64*T1, doubling or at T2.
const MOST_DEADLINES: usize = 10_000;

enum Machine {
    InviteClient(InviteClient),
    InviteServer(InviteServer),
    Client(NonInviteClient),
    Server(NonInviteServer),
}

/// What a machine has done so far.
#[derive(Default)]
struct Seen {
    finals: u32,
    successes: u32,
    ended: u32,
}

pub(super) fn run(data: &[u8]) {
    // Too short a sequence ends the same way as a whole one.
    let _ = sequence(&mut Unstructured::new(data));
}

fn sequence(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let (t1, t2) = (u.int_in_range(10..=2000)?, u.int_in_range(10..=8000)?);
    let timers = Timers::new(Duration::from_millis(t1), Duration::from_millis(t2.max(t1)));
    let (reliable, mut now) = (u.arbitrary()?, Instant(u64::from(u.arbitrary::<u32>()?)));
    let mut machine = match u.int_in_range(0..=3)? {
        0 => Machine::InviteClient(InviteClient::new(now, timers, reliable)),
        1 => Machine::InviteServer(InviteServer::new(now, timers, reliable)),
        2 => Machine::Client(NonInviteClient::new(now, timers, reliable)),
        _ => Machine::Server(NonInviteServer::new(now, timers, reliable)),
    };
    let mut seen = Seen::default();
    while !u.is_empty() {
        match u.int_in_range(0..=4)? {
            0 => now = now + Duration::from_millis(u.int_in_range(0..=40_000)?),
            1 => machine.respond(now, u.int_in_range(100..=699)?, &mut seen),
            2 => machine.repeat(now),
            3 => machine.fire(now, &mut seen),
            _ => machine = machine.restored(),
        }
    }
    // The other side, or the user, says the last word; then only time passes.
    machine.respond(now, 500, &mut seen);
    for _ in 0..MOST_DEADLINES {
        let Some(due) = machine.deadline() else { break };
        now = now.max(due);
        machine.fire(now, &mut seen);
        assert!(machine.deadline().is_none_or(|next| next > now), "a deadline that does not move");
    }
    assert_eq!((machine.deadline(), seen.ended), (None, 1), "it does not end");
    let before = (seen.finals, seen.successes);
    machine.respond(now, 200, &mut seen);
    machine.respond(now, 404, &mut seen);
    assert_eq!((seen.finals, seen.successes), before, "it goes on after its end");
    assert_eq!(machine.deadline(), None);
    Ok(())
}

impl Machine {
    fn deadline(&self) -> Option<Instant> {
        match self {
            Machine::InviteClient(machine) => machine.deadline(),
            Machine::InviteServer(machine) => machine.deadline(),
            Machine::Client(machine) => machine.deadline(),
            Machine::Server(machine) => machine.deadline(),
        }
    }

    /// A response comes (to a client), or the user gives one (to a server).
    fn respond(&mut self, now: Instant, status: u16, seen: &mut Seen) {
        let passed = match self {
            Machine::InviteClient(machine) => {
                let action = machine.response(now, status);
                assert!(!machine.may_cancel() || status < 200, "a CANCEL after a final response");
                let wants_ack = matches!(action, ClientAction::Ack | ClientAction::PassUpAndAck);
                assert!(!wants_ack || status >= 300, "the ACK of a {status} is the dialog's");
                matches!(action, ClientAction::PassUp | ClientAction::PassUpAndAck)
            }
            Machine::Client(machine) => machine.response(now, status) == ClientAction::PassUp,
            Machine::InviteServer(machine) => {
                let sent = machine.respond(now, status) == ServerAction::Send;
                assert!(!machine.may_cancel() || status < 200, "a CANCEL after a final response");
                sent
            }
            Machine::Server(machine) => machine.respond(now, status) == ServerAction::Send,
        };
        if !passed || status < 200 {
            return;
        }
        let of_invite = matches!(self, Machine::InviteClient(_) | Machine::InviteServer(_));
        if of_invite && status < 300 {
            seen.successes += 1;
        } else {
            assert_eq!(seen.successes, 0, "a refusal after an answer");
            seen.finals += 1;
        }
        // A fork that answers after another has refused makes a dialog that must be ended.
        let forks = matches!(self, Machine::InviteClient(_));
        assert!(seen.finals <= 1 && (forks || seen.finals + seen.successes.min(1) <= 1), "two final answers");
        assert_eq!(seen.ended, 0, "a final answer after the end");
    }

    /// The request, or its ACK, comes again.
    fn repeat(&mut self, now: Instant) {
        match self {
            Machine::InviteServer(machine) => {
                let before = machine.deadline();
                machine.retransmission();
                assert_eq!(machine.deadline(), before);
                machine.ack(now);
            }
            Machine::Server(machine) => {
                machine.retransmission();
            }
            Machine::InviteClient(_) | Machine::Client(_) => {}
        }
    }

    fn fire(&mut self, now: Instant, seen: &mut Seen) {
        let due = self.deadline().is_some_and(|at| at <= now);
        let expiry = match self {
            Machine::InviteClient(machine) => machine.timeout(now),
            Machine::InviteServer(machine) => machine.timeout(now),
            Machine::Client(machine) => machine.timeout(now),
            Machine::Server(machine) => machine.timeout(now),
        };
        assert_eq!(expiry != Expiry::Nothing, due, "{expiry:?}");
        if matches!(expiry, Expiry::GaveUp | Expiry::Terminated) {
            seen.ended += 1;
            assert_eq!((seen.ended, self.deadline()), (1, None));
        }
    }

    /// The same machine after its checkpoint was written and read.
    fn restored(self) -> Machine {
        match self {
            Machine::InviteClient(machine) => Machine::InviteClient(restored(&machine)),
            Machine::InviteServer(machine) => Machine::InviteServer(restored(&machine)),
            Machine::Client(machine) => Machine::Client(restored(&machine)),
            Machine::Server(machine) => Machine::Server(restored(&machine)),
        }
    }
}

/// What a value is after it was written and read.
pub(super) fn restored<T: Serialize + DeserializeOwned + Debug>(value: &T) -> T {
    let bytes = postcard::to_stdvec(value).unwrap_or_else(|why| panic!("{why}: {value:?}"));
    let again: T = postcard::from_bytes(&bytes).unwrap_or_else(|why| panic!("{why}: {value:?}"));
    assert_eq!(format!("{value:?}"), format!("{again:?}"));
    again
}
