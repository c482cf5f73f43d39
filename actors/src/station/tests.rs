use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use tandem_protocol::dialog::ServerTransactionId;
use tandem_protocol::flow::{ConnectionId, Flow, ListenerId};
use tandem_protocol::message::{Limits, Message};
use tandem_protocol::registrar::{ContactSet, ContactUpdate};
use tandem_protocol::sdp::negotiate::CodecList;
use tandem_protocol::time::UnixMillis;

use super::*;
use crate::config::{MediaPath, Station, StationRules};
use crate::directory::Directory;
use crate::env::{Leftover, Seams, Shared, Unsent};
use crate::generation::Generations;
use crate::ids::{Names, ShardId};
use crate::media_pool::order::MediaOrder;
use crate::media_pool::tests::fixture;
use crate::registrar::RegisterDone;
use crate::shard::{Linked, Tick};
use crate::supervisor::Census;

/// Seams that record the answers to REGISTERs and count what is sent; the station's machine panics while `panics` says so.
#[derive(Clone, Default)]
struct Bench {
    panics: Rc<Cell<bool>>,
    done: Rc<RefCell<Vec<RegisterDone>>>,
    keep_alives: Rc<Cell<u32>>,
    /// The responses.
    sent: Rc<RefCell<Vec<Message>>>,
    wake_ups: Rc<Cell<u32>>,
    seconds: Rc<Cell<u64>>,
}

impl Bench {
    /// The responses sent so far: CSeq number and status.
    fn answers(&self) -> Vec<(u32, u16)> {
        self.sent.borrow().iter().map(|response| (response.cseq(), response.status())).collect()
    }
}

impl Seams for Bench {
    fn now(&self) -> Now {
        let seconds = self.seconds.get();
        Now { mono: Instant(1_000_000 * (1 + seconds)), wall: UnixMillis(1_000_000 + 1_000 * seconds) }
    }
    fn random(&self) -> u64 {
        7
    }
    fn transmit(&self, to: Flow, message: Bytes, _: Leftover) -> Result<(), Unsent> {
        self.keep_alives.update(|sent| sent + u32::from(to == flow() && message == "\r\n\r\n"));
        self.sent.borrow_mut().extend(Message::parse(message, &Limits::default()));
        Ok(())
    }
    fn link(&self, _: ShardId, message: LinkMessage) {
        if let LinkMessage::RegisterDone(done) = message {
            self.done.borrow_mut().push(*done);
        }
    }
    fn connect(&self, _: ListenerId, _: SocketAddr, _: Duration) -> Result<Flow, Unsent> {
        Err(Unsent::Unreachable)
    }
    fn close(&self, _: ConnectionId) {}
    fn wake_at(&self, _: Instant) {
        self.wake_ups.update(|asked| asked + 1);
    }
    fn media(&self, _: u16, _: MediaOrder) {}
    fn inject_panic(&self, kind: ActorKind) -> bool {
        kind == ActorKind::Station && self.panics.get()
    }
}

/// An engine with one station.
fn shared() -> Arc<Shared> {
    let base = fixture::shared(&Arc::default(), IpAddr::V4(Ipv4Addr::LOCALHOST), (20_000, 20_003));
    let base_settings = base.current();
    let mut config = base_settings.config.clone();
    config.keepalive = Duration::from_secs(25);
    config.stations.push(Station {
        name: "1001".into(),
        extension: "1001".into(),
        secret: None,
        connection: None,
        rules: Arc::new(StationRules {
            calling_search_space: None,
            media: MediaPath::Anchored,
            codecs: CodecList::ANY,
            record: false,
            ring_timeout: Duration::from_secs(60),
            fork_timeout: Duration::ZERO,
            identify_by_user_only: false,
            redirect: Default::default(),
            outbound_ani: None,
            external_number_mask: None,
            max_contacts: 10,
            max_calls: 0,
            toll: Default::default(),
        }),
    });
    let metrics = crate::metrics::Metrics::new(base.metrics.registry().clone());
    let nonces = base_settings.directory.nonces.clone();
    let windows = tandem_protocol::digest::NonceWindows::new(8, Duration::from_secs(300));
    let directory = Directory::new(&config, &metrics, nonces, windows);
    Arc::new(Shared {
        settings: Generations::new(config, directory),
        store: base.store.clone(),
        metrics,
        names: Names::new("test"),
        census: Census::default(),
        placement_key: 7,
    })
}

fn flow() -> Flow {
    Flow::to(ListenerId::default(), (Ipv4Addr::LOCALHOST, 5060).into())
}

fn register(cseq: u32) -> Register {
    let text = format!(
        "REGISTER sip:a SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK{cseq}\r\nFrom: <sip:1001@a>;tag=1\r\n\
         To: <sip:1001@a>\r\nCall-ID: c\r\nCSeq: {cseq} REGISTER\r\n\r\n"
    );
    let update = Update {
        call_id: "c".into(),
        cseq,
        contacts: ContactSet::List(vec![ContactUpdate::new("sip:1001@127.0.0.1")]),
        default_expires: Some(600),
        source: flow(),
        path: Vec::new(),
        user_agent: None,
        outbound: false,
        limits: Default::default(),
    };
    Register {
        station: "1001".into(),
        update: Arc::new(update),
        shard: ShardId(0),
        transaction: ServerTransactionId(cseq.into()),
        flow: flow(),
        request: Message::parse(text.into(), &Limits::default()).unwrap(),
    }
}

/// A station's actor and its answers so far: CSeq number, and whether it was answered with its bindings.
async fn run<F: Future>(bench: &Bench, test: impl FnOnce(Addr<StationActor>) -> F) -> Vec<(u32, bool)> {
    let env = Env::new(ShardId(0), shared(), Box::new(bench.clone()));
    let shard = Shard::new(env.clone()).start();
    let entry = env.directory().station("1001").unwrap().clone();
    test(StationActor::launch(&env, &shard, entry)).await;
    settle().await;
    let done = bench.done.borrow();
    // Transactions have the numbers of their requests.
    done.iter().map(|done| done.told()).map(|(id, status)| (id.0 as u32, status == 200)).collect()
}

/// Lets the actors empty their mailboxes.
async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

#[actix::test]
async fn the_register_that_meets_the_last_fault_is_answered_500() {
    let bench = Bench::default();
    bench.panics.set(true);
    let answers = run(&bench, async |station: Addr<StationActor>| {
        for cseq in 1..=6 {
            station.tell(register(cseq));
        }
    })
    .await;
    // Five wait for their commit when the sixth panic ends the actor: all are answered, and the sixth is told.
    assert_eq!(answers, [(1, true), (2, true), (3, true), (4, true), (5, true), (6, false)]);
}

#[actix::test]
async fn a_register_waits_for_its_own_commit() {
    let bench = Bench::default();
    let answers = run(&bench, async |station: Addr<StationActor>| {
        for cseq in 1..=3 {
            station.tell(register(cseq));
        }
        // A ticket of somebody who is answered already, then that of the second.
        station.tell(Committed { place: 6, well: true });
        station.tell(Committed { place: 8, well: true });
    })
    .await;
    assert_eq!(answers, [(2, true)]);
}

#[actix::test]
async fn the_way_to_who_is_registered_is_kept_open_once_in_each_round() {
    let bench = Bench::default();
    let env = Env::new(ShardId(0), shared(), Box::new(bench.clone()));
    let shard = Shard::new(env.clone()).start();
    settle().await;
    let mut rounds = Vec::new();
    for round in 0..4 {
        if round == 1 {
            assert_eq!(bench.wake_ups.get(), 0, "a shard where nobody is registered has nothing to do");
            let entry = env.directory().station("1001").unwrap().clone();
            StationActor::launch(&env, &shard, entry).tell(register(1));
            settle().await;
        }
        bench.keep_alives.set(0);
        for _ in 0..25 {
            bench.seconds.update(|seconds| seconds + 1);
            shard.tell(Tick);
            settle().await;
        }
        rounds.push(bench.keep_alives.get());
    }
    assert_eq!(rounds, [0, 1, 1, 1]);
}

#[actix::test]
async fn a_binding_ends_when_it_expires_and_not_when_it_would_have_without_a_refresh() {
    let bench = Bench::default();
    let env = Env::new(ShardId(0), shared(), Box::new(bench.clone()));
    let shard = Shard::new(env.clone()).start();
    settle().await;
    let entry = env.directory().station("1001").unwrap().clone();
    let mut ended = Vec::new();
    for second in 0..2_400_u64 {
        // It is refreshed when it is about to end, and comes again long after it has ended.
        if let Some(cseq) = [0, 590, 1_700].iter().position(|at| *at == second) {
            StationActor::launch(&env, &shard, entry.clone()).tell(register(1 + cseq as u32));
            settle().await;
        }
        let before = entry.binding_count();
        bench.seconds.update(|seconds| seconds + 1);
        shard.tell(Tick);
        settle().await;
        ended.extend((entry.binding_count() < before).then_some(second + 1));
    }
    assert_eq!(ended, [590 + 600, 1_700 + 600]);
}

/// A shard of its own, and what it is told.
fn shard(bench: &Bench) -> (Env, Addr<Shard>) {
    let env = Env::new(ShardId(0), shared(), Box::new(bench.clone()));
    let shard = Shard::new(env.clone()).start();
    (env, shard)
}

async fn link(shard: &Addr<Shard>, message: LinkMessage) {
    shard.tell(Linked(vec![message]));
    settle().await;
}

/// The ticket of the `n`th REGISTER, from 0, of stations that rest: the first place is chance.
fn ticket(n: u16) -> Vec<(u64, bool)> {
    vec![(token("") | u64::from(7 + n), true)]
}

#[actix::test]
async fn a_station_that_rests_registers_without_an_actor_and_each_answer_waits_for_its_own_commit() {
    let bench = Bench::default();
    let (env, shard) = shard(&bench);
    settle().await;
    for cseq in [1, 2, 2, 3] {
        link(&shard, LinkMessage::Register(Box::new(register(cseq)))).await;
    }
    let entry = env.directory().station("1001").unwrap().clone();
    assert_eq!(bench.answers(), [(2, 500)], "what is out of order changes nothing, and need not wait");
    assert_eq!((entry.binding_count(), entry.bindings()[0].cseq), (1, 3));
    // Two places are those of the first and the second; the refused one has none.
    link(&shard, LinkMessage::Committed(ticket(1))).await;
    link(&shard, LinkMessage::Committed(ticket(1))).await;
    assert_eq!(bench.answers(), [(2, 500), (2, 200)]);
    link(&shard, LinkMessage::Committed(ticket(0))).await;
    link(&shard, LinkMessage::Committed(ticket(2))).await;
    assert_eq!(bench.answers(), [(2, 500), (2, 200), (1, 200), (3, 200)]);
    assert_eq!(env.shared().census.alive(ActorKind::Station), 0);
}

#[actix::test]
async fn a_slow_store_keeps_no_station_that_rests_waiting() {
    let bench = Bench::default();
    let (_, shard) = shard(&bench);
    settle().await;
    link(&shard, LinkMessage::Register(Box::new(register(1)))).await;
    bench.seconds.update(|seconds| seconds + 1);
    // A sweep that comes so late is put off once.
    shard.tell(Tick);
    shard.tell(Tick);
    settle().await;
    assert_eq!(bench.answers(), [(1, 200)]);
    link(&shard, LinkMessage::Committed(ticket(0))).await;
    assert_eq!(bench.answers(), [(1, 200)], "its ticket comes too late");
}

#[actix::test]
async fn what_a_machine_at_rest_panics_at_is_taken_once_more_by_an_actor() {
    let bench = Bench::default();
    let (env, shard) = shard(&bench);
    settle().await;
    bench.panics.set(true);
    link(&shard, LinkMessage::Register(Box::new(register(1)))).await;
    let census = &env.shared().census;
    assert_eq!((census.alive(ActorKind::Station), census.restarts(ActorKind::Station)), (1, 2));
    bench.panics.set(false);
    link(&shard, LinkMessage::Register(Box::new(register(1)))).await;
    link(&shard, LinkMessage::Register(Box::new(register(2)))).await;
    let told: Vec<_> = bench.done.borrow().iter().map(RegisterDone::told).collect();
    assert_eq!(told, [(ServerTransactionId(1), 500)], "the actor knows what came before");
    assert_eq!(env.directory().station("1001").unwrap().bindings()[0].cseq, 2);
}
