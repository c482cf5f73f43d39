//! How a connection ends: by the rules of `actors/src/sip/tcp`, with its process, or because a peer is gone.

use std::net::SocketAddr;

use tandem_actors::shard::FromStream;
use tandem_protocol::flow::{ConnectionId, Flow};

use super::{Connection, Streams, Told, Turn, limits};
use crate::world::World;

/// What is sent into a connection that is gone unnoticed is missed after so long (RFC 5482).
const USER_TIMEOUT_US: u64 = 30_000_000;
/// And one over which nothing goes is found out after so long.
const PROBED_US: u64 = 90_000_000;
/// A peer that does not read is given up after so long.
const WRITE_PATIENCE_US: u64 = 10_000_000;
/// What cannot be read is closed at once, or when what was sent into it has arrived.
const UNREADABLE_US: u64 = 3_000_000;

/// A phone that sends nothing more is waited for so long (`actors/src/sip/tcp/connection.rs`).
const HALF_CLOSED_US: u64 = 32_000_000;

/// The status of a response.
pub(super) fn status_of(message: &[u8]) -> Option<u16> {
    let status = message.strip_prefix(b"SIP/2.0 ")?.get(..3)?;
    std::str::from_utf8(status).ok()?.parse().ok()
}

/// True for a request that has an answer.
pub(super) fn wants_answer(message: &[u8]) -> bool {
    status_of(message).is_none() && !message.starts_with(b"ACK ")
}

impl World {
    /// A phone sends nothing more. While answers are owed to it they leave; for all else its connection has ended, and the shard hears.
    pub(super) fn half_close(&self, number: u64) -> Vec<Told> {
        let now = self.now();
        let waits = self.with_streams(|streams| {
            let connection = streams.connections.get_mut(&number).filter(|c| c.is_up && c.lost.is_none())?;
            connection.half_closed = connection.owed > 0;
            let phone = connection.phone;
            streams.ended.push((now, phone));
            let (waits, flow) = (connection.half_closed, connection.flow);
            streams.opened.retain(|_, opened| *opened != number || !waits);
            Some((waits, flow))
        });
        match waits {
            None => Vec::new(),
            Some((false, _)) => self.gone(number, true),
            Some((true, flow)) => {
                self.turn(self.now() + HALF_CLOSED_US, number, Turn::Paid);
                let gone = |connection: tandem_protocol::flow::ConnectionId| Told::Stream {
                    shard: connection.shard,
                    what: FromStream::Gone { connection, was_up: true, brought: true },
                };
                flow.connection.map(gone).into_iter().collect()
            }
        }
    }

    /// A final response leaves; the last that is owed to a phone that sends nothing more is the end.
    pub(super) fn pay(&self, number: u64) {
        let ends = self.with_streams(|streams| {
            let connection = streams.connections.get_mut(&number)?;
            connection.owed = connection.owed.saturating_sub(1);
            (connection.half_closed && connection.owed == 0).then_some(connection.to_phone.last)
        });
        if let Some(last) = ends {
            self.turn(last.max(self.now()) + 1, number, Turn::Paid);
        }
    }

    /// Now and then each connection is judged by the rules of its kind.
    pub(super) fn look(&self, number: u64) -> Vec<Told> {
        let now = self.now();
        let idle_us = limits().idle.as_micros() as u64;
        let ended = self.with_streams(|streams| {
            let connection = streams.connections.get(&number)?;
            let unread = connection.to_phone.pieces.front().is_some_and(|p| p.at + WRITE_PATIENCE_US <= now);
            let missed = connection.lost.is_some_and(|lost| {
                let unsaid = !connection.to_phone.pieces.is_empty();
                now >= lost + if unsaid { USER_TIMEOUT_US } else { PROBED_US }
            });
            let slow = connection.whole_by.is_some_and(|by| by <= now);
            let idle = connection.active + idle_us <= now;
            let unclosed = connection.unreadable.is_some_and(|since| since + UNREADABLE_US < now);
            if idle {
                streams.idle += 1;
            }
            Some((unread && connection.lost.is_none() || missed || slow || idle, unclosed, connection.phone))
        });
        if let Some((_, true, peer)) = ended {
            self.violation(format!("a connection of {peer} cannot be read and is not closed"));
        }
        match ended {
            None => Vec::new(),
            Some((true, ..)) => self.gone(number, true),
            Some((false, ..)) => {
                self.turn(now + 5_000_000, number, Turn::Looked);
                Vec::new()
            }
        }
    }

    /// A connection is no more; the shard hears.
    pub(super) fn gone(&self, number: u64, was_up: bool) -> Vec<Told> {
        let Some(flow) = self.drop_stream(number) else { return Vec::new() };
        let Some(connection) = flow.connection else { return Vec::new() };
        vec![Told::Stream {
            shard: connection.shard,
            what: FromStream::Gone { connection, was_up, brought: true },
        }]
    }

    /// What was under way by it is lost.
    pub(super) fn drop_stream(&self, number: u64) -> Option<Flow> {
        let now = self.now();
        let connection = self.with_streams(|streams| {
            let connection = streams.connections.remove(&number)?;
            streams.ended.push((now, connection.phone));
            if streams.homes.get(&connection.phone) == Some(&number) {
                streams.homes.remove(&connection.phone);
            }
            streams.opened.retain(|_, opened| *opened != number);
            Some(connection)
        })?;
        let pieces = connection.to_engine.pieces.iter().chain(&connection.to_phone.pieces);
        for line in pieces.filter_map(|piece| piece.line) {
            self.lost(line);
        }
        debug_assert_eq!(connection.number(), number);
        Some(connection.flow)
    }

    /// A host is gone: its connections are, with or without a word.
    pub(crate) fn streams_of_host(&self, host: SocketAddr, silent: bool) {
        let of_host = |streams: &mut Streams| {
            let all = streams.connections.iter().filter(|(_, connection)| connection.phone == host);
            all.map(|(number, _)| *number).collect::<Vec<u64>>()
        };
        for number in self.with_streams(of_host) {
            self.turn(self.now(), number, if silent { Turn::Lost } else { Turn::Broken });
        }
    }

    /// The engine is killed: its connections end, and the phones see it.
    pub(crate) fn streams_die(&self) {
        let all = self.with_streams(|streams| streams.connections.keys().copied().collect::<Vec<_>>());
        for number in all {
            self.drop_stream(number);
        }
    }

    /// The connections of a shard end with it, as far as they have come about.
    pub(crate) fn streams_of_shard_die(&self, shard: u16) -> Vec<ConnectionId> {
        let of_shard = |c: &&Connection| c.flow.connection.is_some_and(|id| id.shard == shard);
        let all = self.with_streams(|streams| {
            let all = streams.connections.values().filter(of_shard);
            all.filter_map(|c| Some((c.number(), c.flow.connection?))).collect::<Vec<_>>()
        });
        for (number, _) in &all {
            self.drop_stream(*number);
        }
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// Connections over which nothing went for longer than they may.
    pub(crate) fn idle_streams(&self) -> Vec<String> {
        let (now, allowed) = (self.now(), limits().idle.as_micros() as u64 + 6_000_000);
        self.with_streams(|streams| {
            let idle = streams.connections.values().filter(|c| c.is_up && c.active + allowed < now);
            idle.map(|c| format!("{:?} of {} by_engine {}", c.flow, c.phone, c.by_engine)).collect()
        })
    }
}
