//! The connection by which a registrar reaches us (RFC 5626): behind a NAT, and by TLS where we are no server, there is no other way.
//!
//! A registration by a stream says that it knows such flows; where the registrar does too, the connection is kept alive, and its end is the
//! end of what was registered by it.

use std::time::Duration;

use actix::prelude::*;
use tandem_protocol::flow::{ConnectionId, Flow};
use tandem_protocol::fnv::fnv1a;
use tandem_protocol::message::{Header, Message};
use tandem_protocol::registration::{GroupInput, State};
use tandem_protocol::time::Instant;

use super::GroupActor;
use crate::env::Told;

/// The longest time between two signs of life that are asked for (§4.4.1), where the registrar names none.
const ALIVE_EVERY: Duration = Duration::from_secs(120);
/// The longest that a registrar may name.
const LONGEST: Duration = Duration::from_secs(3600);
/// What a registrar says of it that knows flows, and what we say (§4.2.1).
const OUTBOUND: &str = "outbound";

/// By which names the registrar knows one of our flows.
pub(super) struct FlowNames {
    /// The same for all registrations of a group: they are ways to one and the same.
    pub(super) instance: String,
    /// Another for each.
    pub(super) reg_id: usize,
}

impl FlowNames {
    /// Those of the registration at `place` of a group; `token` is kept over restarts, and so are the names.
    pub(super) fn new(token: &str, place: usize) -> FlowNames {
        let half = |salt: u8| fnv1a(token.bytes().chain([salt]));
        let (a, b) = (half(0), half(1));
        // RFC 9562 §5.8: of our own making.
        let instance = format!(
            "urn:uuid:{:08x}-{:04x}-8{:03x}-{:04x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            0x8000 | b >> 48 & 0x3fff,
            b & 0xffff_ffff_ffff
        );
        FlowNames { instance, reg_id: place + 1 }
    }

    /// The parameters of our Contact.
    pub(super) fn params(&self) -> String {
        format!(";reg-id={};+sip.instance=\"<{}>\"", self.reg_id, self.instance)
    }
}

/// A flow that is kept alive.
#[derive(Clone, Copy, Debug)]
struct KeptFlow {
    connection: ConnectionId,
    every: Duration,
    next: Instant,
}

/// The flows of a group, one for each registration.
#[derive(Default)]
pub(super) struct Flows {
    /// Where the last REGISTER of each went.
    sent: Vec<Option<Flow>>,
    kept: Vec<Option<KeptFlow>>,
}

impl Flows {
    pub(super) fn new(registrations: usize) -> Flows {
        Flows { sent: vec![None; registrations], kept: vec![None; registrations] }
    }

    /// A REGISTER goes there.
    pub(super) fn note_sent(&mut self, place: usize, to: Flow) {
        if let Some(sent) = self.sent.get_mut(place) {
            *sent = Some(to);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.kept.iter().flatten().map(|flow| flow.next).min()
    }
}

impl GroupActor {
    /// A final response to a REGISTER has been dealt with. If it registers us by a flow, that is looked after from now on.
    pub(super) fn note_flow(&mut self, place: usize, response: &Message, ctx: &mut Context<Self>) {
        let state = self.shell.machine().registrations().nth(place).map(|registration| registration.state());
        let knows = response.values(Header::Require).any(|tag| tag.eq_ignore_ascii_case(OUTBOUND));
        let to = self.flows.sent.get(place).copied().flatten();
        let to = to
            .filter(|to| knows && state == Some(State::Registered) && to.listener.transport().is_reliable());
        let connection = to.and_then(|to| self.env.opened(to.listener, to.remote));
        let every = flow_timer(response);
        let next = self.env.now().mono.roughly_after(self.spread(every));
        if let Some(kept) = self.flows.kept.get_mut(place) {
            *kept = connection.map(|connection| KeptFlow { connection, every, next });
        }
        if to.is_some() && connection.is_none() {
            self.feed(GroupInput::FlowFailed(place), ctx);
        }
        self.arm();
    }

    /// From four fifths of it to all of it (§4.4.1): whoever came at once does not stay together.
    fn spread(&self, every: Duration) -> Duration {
        every.mul_f64(0.8 + 0.2 * (self.env.random() >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// Asks those for a sign of life whose time has come.
    pub(super) fn keep_flows_alive(&mut self) {
        let now = self.env.now().mono;
        for place in 0..self.flows.kept.len() {
            let Some(mut flow) = self.flows.kept[place].filter(|flow| flow.next <= now) else { continue };
            self.env.ping(flow.connection);
            flow.next = now.roughly_after(self.spread(flow.every));
            self.flows.kept[place] = Some(flow);
        }
    }
}

/// How often a registrar wants to hear of us at least (RFC 5626 §10).
fn flow_timer(response: &Message) -> Duration {
    let seconds = response.header(Header::FlowTimer).and_then(|value| value.trim().parse().ok());
    seconds.filter(|seconds| *seconds > 0).map_or(ALIVE_EVERY, Duration::from_secs).min(LONGEST)
}

/// A connection that we had opened has ended.
pub(crate) struct FlowEnded(pub(crate) ConnectionId);

impl Handler<Told<FlowEnded>> for GroupActor {
    type Result = ();
    fn handle(&mut self, told: Told<FlowEnded>, ctx: &mut Context<Self>) {
        for place in 0..self.flows.kept.len() {
            if self.flows.kept[place].is_some_and(|flow| flow.connection == told.0.0) {
                self.flows.kept[place] = None;
                self.feed(GroupInput::FlowFailed(place), ctx);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrations_of_a_group_are_flows_of_one_instance() {
        let (first, second) = (FlowNames::new("t1", 0), FlowNames::new("t1", 1));
        assert_eq!(first.instance, second.instance);
        assert_ne!(first.instance, FlowNames::new("t2", 0).instance);
        assert!(second.params().starts_with(";reg-id=2;+sip.instance=\"<urn:uuid:"), "{}", second.params());
        let uuid = first.instance.trim_start_matches("urn:uuid:");
        let parts: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{uuid}");
        assert!(uuid[14..].starts_with('8') && matches!(&uuid[19..20], "8" | "9" | "a" | "b"), "{uuid}");
    }
}
