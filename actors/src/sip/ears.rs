//! One shard's share of the listeners: its sockets, and the tasks that read them.
#![allow(clippy::disallowed_methods)]

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tandem_protocol::flow::{ListenerId, Transport};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use super::dscp::MarkedSocket;
use super::listening::{Heard, Listening};
use super::tcp::{self, Door, Streams};
use super::{tls::Tls, udp};
use crate::config::Listener;
use crate::env::Shared;
use crate::ids::ShardId;
use crate::runtime::ListenSocket;
use crate::seat::Seat;

/// A listener as this shard has it.
pub(crate) struct Ear {
    pub(crate) listener: Listener,
    pub(crate) door: Arc<Door>,
    /// What datagrams are sent by; connections have their own.
    pub(crate) datagrams: Option<MarkedSocket>,
    /// Its socket, until it is read.
    unread: Option<ListenSocket>,
    reading: Option<JoinHandle<()>>,
}

impl Ear {
    fn new(heard: Heard) -> io::Result<Ear> {
        let datagrams = match &heard.socket {
            Some(ListenSocket::Udp(socket)) => Some(MarkedSocket::new(socket.try_clone()?)),
            Some(ListenSocket::Tcp(_)) | None => None,
        };
        let Heard { listener, door, socket, read: _ } = heard;
        Ok(Ear { listener, door, datagrams, unread: socket, reading: None })
    }

    /// The certificate and what else belongs to it.
    pub(crate) fn tls(&self) -> Option<&Arc<Tls>> {
        self.listener.tls.as_ref()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        if let Some(reading) = &self.reading {
            reading.abort();
        }
    }
}

/// The listeners of one shard.
pub(crate) struct Ears {
    shard: ShardId,
    seat: Arc<Seat>,
    shared: Arc<Shared>,
    listening: Arc<Listening>,
    own: RefCell<Vec<Rc<Ear>>>,
}

impl Ears {
    /// None yet.
    pub(crate) fn new(
        shard: ShardId,
        seat: Arc<Seat>,
        shared: Arc<Shared>,
        listening: Arc<Listening>,
    ) -> Ears {
        Ears { shard, seat, shared, listening, own: RefCell::default() }
    }

    /// The listener that a flow names; if it is not there any more, the one that stands in for it.
    pub(crate) fn of(&self, id: ListenerId) -> Option<Rc<Ear>> {
        let own = self.own.borrow();
        let find = |id| own.iter().find(|ear| ear.listener.id == id).cloned();
        find(id).or_else(|| {
            let current = self.shared.settings.peek();
            find(current.config.listener(id)?.id)
        })
    }

    /// How a listener carries SIP, also if it is not there any more.
    pub(crate) fn transport(&self, id: ListenerId) -> Transport {
        self.of(id).map_or_else(|| id.transport(), |ear| ear.listener.transport)
    }

    /// Has what it is to have: opens what has come, reads what may be read, and closes what has gone; that is given back.
    ///
    /// # Errors
    /// A socket cannot be had. What could be is there.
    pub(crate) fn adopt(&self, streams: &Rc<Streams>) -> io::Result<Vec<ListenerId>> {
        let wanted = self.listening.of(self.shard)?;
        let mut before = self.own.take();
        let mut after = Vec::with_capacity(wanted.len());
        let mut failed = None;
        for heard in wanted {
            let known = before.iter().position(|ear| ear.listener.id == heard.listener.id);
            match self.next(known.map(|at| before.swap_remove(at)), heard, streams) {
                Ok(ear) => after.push(Rc::new(ear)),
                Err(why) => failed = Some(why),
            }
        }
        *self.own.borrow_mut() = after;
        match failed {
            Some(why) => Err(why),
            None => Ok(before.iter().map(|ear| ear.listener.id).collect()),
        }
    }

    /// A listener as it is to be, of what it was.
    fn next(&self, before: Option<Rc<Ear>>, heard: Heard, streams: &Rc<Streams>) -> io::Result<Ear> {
        let (read, accepts) = (heard.read, heard.socket.is_some());
        let mut ear = match before.and_then(Rc::into_inner) {
            // Datagrams go on by the socket that is there. One of connections that has no socket any more accepts none.
            Some(ear) if accepts && (ear.reading.is_some() || ear.unread.is_some()) => {
                let (mut ear, listener) = (ear, heard.listener);
                ear.listener = listener;
                ear
            }
            Some(_) | None => Ear::new(heard)?,
        };
        if read && let Some(socket) = ear.unread.take() {
            ear.reading = Some(self.read(socket, ear.listener.id, streams)?);
        }
        Ok(ear)
    }

    fn read(
        &self,
        socket: ListenSocket,
        id: ListenerId,
        streams: &Rc<Streams>,
    ) -> io::Result<JoinHandle<()>> {
        let shard = streams.owner().ok_or_else(|| io::Error::other("the shard has no address yet"))?;
        Ok(match socket {
            ListenSocket::Udp(socket) => {
                let socket = UdpSocket::from_std(socket)?;
                actix::spawn(udp::listen(socket, id, shard, self.seat.clone()))
            }
            ListenSocket::Tcp(socket) => {
                actix::spawn(tcp::accept(TcpListener::from_std(socket)?, id, streams.clone()))
            }
        })
    }
}
