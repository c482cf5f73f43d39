//! The ways into the shards from any thread: traffic, of which a flood is shed, and control, which is never.
//!
//! Traffic is what peers make: messages of SIP on their way to the shard whose they are. Control is what the shard itself has
//! asked for: commits, media ports, answers of its stations. There is no more of it than was asked, and a shard that did not hear of
//! it would hold back an answer or lose a port for good; so it overtakes traffic too.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use crate::ids::ShardId;
use crate::registrar::RegisterDone;
use crate::shard::LinkMessage;
use crate::store::{Completions, StoreFault, Ticket};

/// Messages of peers that may wait for a shard; more are shed and counted.
const TRAFFIC_DEPTH: usize = 65_536;
/// Messages taken from a link before the shard's actors get their turn.
const BATCH: usize = 32;

/// How a message is treated on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Made by peers: shed when too much of it waits.
    Traffic,
    /// Never shed, but in its place behind the traffic it ends.
    Follows,
    /// Never shed, and ahead of all traffic.
    Control,
}

fn class(message: &LinkMessage) -> Class {
    match message {
        LinkMessage::Datagram(_)
        | LinkMessage::Send { .. }
        | LinkMessage::NotDelivered(_)
        | LinkMessage::Seek(_)
        | LinkMessage::Follows(_)
        | LinkMessage::Stays(_)
        | LinkMessage::Register(_) => Class::Traffic,
        // A station must hear of the REGISTER that came by a connection before it hears that this is gone.
        LinkMessage::Gone { .. } => Class::Follows,
        LinkMessage::Committed(_)
        | LinkMessage::RegisterDone(_)
        | LinkMessage::Media(_)
        | LinkMessage::Trunk(_)
        | LinkMessage::Restrained { .. }
        | LinkMessage::Located(_)
        | LinkMessage::Leaves(_)
        | LinkMessage::Marker(_)
        | LinkMessage::Poke => Class::Control,
    }
}

/// The way into one shard.
struct Way {
    control: mpsc::UnboundedSender<LinkMessage>,
    traffic: mpsc::UnboundedSender<LinkMessage>,
    /// How much traffic waits.
    waiting: Arc<AtomicUsize>,
}

impl Way {
    /// Puts a message in, or hands it back if too much waits.
    fn offer(&self, message: LinkMessage) -> Result<(), LinkMessage> {
        let queue = match class(&message) {
            Class::Traffic => {
                if self.waiting.fetch_add(1, Ordering::Relaxed) >= TRAFFIC_DEPTH {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    return Err(message);
                }
                &self.traffic
            }
            Class::Follows => &self.traffic,
            Class::Control => &self.control,
        };
        // Refused only by a shard that has ended, and with it whatever could miss the message.
        let _ = queue.send(message);
        Ok(())
    }
}

/// The ways into the shards, from any thread.
#[derive(Clone)]
pub struct Links {
    ways: Arc<Vec<Way>>,
    shed: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Links {
    /// Hands a message to a shard. It never waits: traffic that does not fit is shed and counted.
    pub fn send(&self, to: ShardId, message: LinkMessage) {
        let Some(way) = self.ways.get(usize::from(to.0)) else { return };
        if let Err(message) = way.offer(message) {
            (self.shed)(1);
            self.missed(message);
        }
    }

    /// What is lost with a message that was shed. A SIP message comes again; a REGISTER has a transaction already, which
    /// would swallow its repeats: it is answered.
    fn missed(&self, message: LinkMessage) {
        if let LinkMessage::Register(register) = message {
            let done = RegisterDone::of_none(&register);
            self.send(register.shard, LinkMessage::RegisterDone(Box::new(done)));
        }
    }
}

impl Completions for Links {
    fn committed(&self, done: Vec<(Ticket, Result<(), StoreFault>)>) {
        let mut per_shard: Vec<Vec<(u64, bool)>> = self.ways.iter().map(|_| Vec::new()).collect();
        for (ticket, result) in done {
            if let Some(tokens) = per_shard.get_mut(usize::from(ticket.shard)) {
                tokens.push((ticket.token, result.is_ok()));
            }
        }
        for (shard, tokens) in per_shard.into_iter().enumerate().filter(|(_, tokens)| !tokens.is_empty()) {
            self.send(ShardId(shard as u16), LinkMessage::Committed(tokens));
        }
    }
}

struct Queues {
    control: mpsc::UnboundedReceiver<LinkMessage>,
    traffic: mpsc::UnboundedReceiver<LinkMessage>,
    waiting: Arc<AtomicUsize>,
}

impl Queues {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Vec<LinkMessage>>> {
        let mut taken = Vec::new();
        if let Poll::Ready(1..) = self.control.poll_recv_many(cx, &mut taken, BATCH) {
            return Poll::Ready(Some(taken));
        }
        self.traffic.poll_recv_many(cx, &mut taken, BATCH).map(|count| {
            let counted = taken.iter().filter(|message| class(message) == Class::Traffic).count();
            self.waiting.fetch_sub(counted, Ordering::Relaxed);
            (count > 0).then_some(taken)
        })
    }
}

/// The receiving end of one shard. What waits in it can be taken over from a shard that does not.
pub(crate) struct Inlet(Arc<Mutex<Option<Queues>>>);

impl Inlet {
    /// Waits for messages and takes some, control first; `None` once nobody can send any more. Waits for ever once it was taken over.
    pub(crate) async fn next(&mut self) -> Option<Vec<LinkMessage>> {
        poll_fn(|cx| {
            let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            queues.as_mut().map_or(Poll::Pending, |queues| queues.poll(cx))
        })
        .await
    }

    /// The same end, for whoever takes it over.
    pub(crate) fn handle(&self) -> Inlet {
        Inlet(self.0.clone())
    }

    /// Takes it over with everything that waits; `None` if somebody just takes from it.
    pub(crate) fn take_over(&self) -> Option<Inlet> {
        let queues = match self.0.try_lock() {
            Ok(mut queues) => queues.take(),
            Err(TryLockError::Poisoned(queues)) => queues.into_inner().take(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Inlet(Arc::new(Mutex::new(queues))))
    }
}

/// The receiving ends of [`Links`], one a shard.
pub struct Inlets(pub(crate) Vec<Inlet>);

/// The ways into `shards` shards. `shed` counts the traffic that a full one refused.
pub fn links(shards: u16, shed: impl Fn(u64) + Send + Sync + 'static) -> (Links, Inlets) {
    let way = |_| {
        let (to_control, control) = mpsc::unbounded_channel();
        let (to_traffic, traffic) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let queues = Queues { control, traffic, waiting: waiting.clone() };
        let inlet = Inlet(Arc::new(Mutex::new(Some(queues))));
        (Way { control: to_control, traffic: to_traffic, waiting }, inlet)
    };
    let (ways, inlets) = (0..shards).map(way).unzip();
    (Links { ways: Arc::new(ways), shed: Arc::new(shed) }, Inlets(inlets))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tandem_protocol::dialog::ServerTransactionId;
    use tandem_protocol::flow::{ConnectionId, Flow, ListenerId};
    use tandem_protocol::message::{Limits, Message};
    use tandem_protocol::registrar;

    use super::*;
    use crate::env::Datagram;
    use crate::media_pool::order::MediaEvent;
    use crate::registrar::Register;

    const FLOW: fn() -> Flow = || Flow::to(ListenerId::default(), ([192, 0, 2, 1], 5060).into());

    /// So many shards, and the count of what was shed.
    fn shards(count: u16) -> (Links, Vec<Inlet>, Arc<AtomicUsize>) {
        let shed = Arc::new(AtomicUsize::new(0));
        let counter = shed.clone();
        let (links, Inlets(inlets)) = links(count, move |more| {
            counter.fetch_add(more as usize, Ordering::Relaxed);
        });
        (links, inlets, shed)
    }

    fn flood(links: &Links, to: ShardId, count: usize) {
        for _ in 0..count {
            links.send(to, LinkMessage::Datagram(Datagram::by(FLOW(), Bytes::from_static(b"x"))));
        }
    }

    /// Everything that waits, in the order it is taken.
    fn drain(mut inlet: Inlet) -> Vec<LinkMessage> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut all = Vec::new();
            while let Some(batch) = inlet.next().await {
                all.extend(batch);
            }
            all
        })
    }

    #[test]
    fn a_flood_sheds_traffic_and_neither_commits_nor_ports_nor_the_end_of_connections() {
        let (links, mut inlets, shed) = shards(1);
        flood(&links, ShardId(0), TRAFFIC_DEPTH + 10);
        let connection = ConnectionId { shard: 0, generation: 1 };
        links.send(ShardId(0), LinkMessage::Gone { connection, was_up: true });
        links.committed(vec![(Ticket { shard: 0, token: 7 }, Ok(()))]);
        links.send(ShardId(0), LinkMessage::Media(MediaEvent::Returned(Vec::new())));
        assert_eq!(shed.load(Ordering::Relaxed), 10);
        drop(links);
        let all = drain(inlets.remove(0));
        assert_eq!(all.len(), TRAFFIC_DEPTH + 3);
        assert!(matches!(&all[0], LinkMessage::Committed(tokens) if *tokens == [(7, true)]));
        assert!(matches!(&all[1], LinkMessage::Media(MediaEvent::Returned(_))));
        assert!(
            matches!(all.last(), Some(LinkMessage::Gone { .. })),
            "a connection ends after what it has brought"
        );
    }

    #[test]
    fn whoever_takes_an_inlet_over_gets_what_waits_and_what_comes() {
        let (links, mut inlets, _) = shards(1);
        let connection = ConnectionId { shard: 0, generation: 1 };
        flood(&links, ShardId(0), 2);
        let mut stuck = inlets.remove(0);
        let taken = stuck.handle().take_over().unwrap();
        links.send(ShardId(0), LinkMessage::Gone { connection, was_up: true });
        links.committed(vec![(Ticket { shard: 0, token: 7 }, Ok(()))]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let before = runtime.block_on(async {
            tokio::select! { biased; batch = stuck.next() => batch, () = std::future::ready(()) => None }
        });
        assert!(before.is_none(), "nothing comes to whom it was taken from");
        drop(links);
        let all = drain(taken);
        assert!(matches!(&all[0], LinkMessage::Committed(_)) && all.len() == 4);
    }

    #[test]
    fn what_was_taken_makes_room_again() {
        let (links, mut inlets, shed) = shards(1);
        flood(&links, ShardId(0), TRAFFIC_DEPTH);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let taken = runtime.block_on(inlets[0].next()).unwrap();
        flood(&links, ShardId(0), taken.len());
        assert_eq!(shed.load(Ordering::Relaxed), 0);
        flood(&links, ShardId(0), 1);
        assert_eq!(shed.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_register_that_is_shed_is_answered() {
        let (links, mut inlets, shed) = shards(2);
        flood(&links, ShardId(1), TRAFFIC_DEPTH);
        let text = "REGISTER sip:a SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:1@a>;tag=1\r\n\
                    To: <sip:1@a>\r\nCall-ID: 1\r\nCSeq: 1 REGISTER\r\nContact: <sip:1@192.0.2.1>\r\n\r\n";
        let request = Message::parse(text.into(), &Limits::default()).unwrap();
        let update = registrar::read(&request, FLOW(), registrar::Limits::default(), false).unwrap();
        let register = Register {
            station: "1".into(),
            update: Arc::new(update),
            shard: ShardId(0),
            transaction: ServerTransactionId(5),
            flow: FLOW(),
            request,
        };
        links.send(ShardId(1), LinkMessage::Register(Box::new(register)));
        assert_eq!(shed.load(Ordering::Relaxed), 1);
        drop(links);
        let answers = drain(inlets.remove(0));
        let [LinkMessage::RegisterDone(done)] = answers.as_slice() else { panic!("no answer") };
        assert_eq!(done.told(), (ServerTransactionId(5), 500));
    }
}
