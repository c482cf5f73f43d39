//! The phones of a run, each on an address of its own, and the wires between them and the network.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tandem_phone::{AutoAnswer, CallHandle, Command, Event, Phone, PhoneConfig, Transport};
use tandem_protocol::message::framing::peek_call_id;

use crate::air::Air;
use crate::engine::{DOMAIN, LISTENER, PASSWORD, STATIONS, proxies, station};
use crate::plan::Part;
use crate::trunks;
use crate::verbs;
use crate::world::{self, World};

/// What a phone is in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A station of the engine; registers.
    Station,
    /// A proxy of a trunk.
    Proxy,
    /// What is behind a proxy of the trunks in `trunks`; only answers.
    Carrier,
    /// Has a station's name and a wrong password.
    Impostor,
    /// Has a name that nobody knows.
    Stranger,
}

/// One phone.
pub(crate) struct Handset {
    pub(crate) phone: Phone,
    pub(crate) kind: Kind,
    pub(crate) user: String,
    timer: Option<Duration>,
}

/// All phones.
pub(crate) struct Phones {
    pub(crate) handsets: Vec<Handset>,
    by_address: BTreeMap<SocketAddr, usize>,
    /// The Call-ID of what a phone is hearing, or has just said.
    pub(crate) call_id: Option<String>,
    air: Air,
    /// Where each phone's next call will hear.
    media: Vec<SocketAddr>,
}

/// An address that stands for one that is not chosen yet.
pub(crate) fn nowhere() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 0))
}

fn config(world: &World, index: usize, user: &str, local: SocketAddr, kind: Kind) -> PhoneConfig {
    let media = SocketAddr::new(local.ip(), 40_000);
    PhoneConfig {
        user: user.to_owned(),
        auth_user: None,
        password: match kind {
            Kind::Station => Some(PASSWORD.to_owned()),
            Kind::Impostor | Kind::Stranger => Some("guessed".to_owned()),
            Kind::Proxy | Kind::Carrier => None,
        },
        domain: match kind {
            Kind::Proxy | Kind::Carrier => "carrier.test".to_owned(),
            Kind::Station | Kind::Impostor | Kind::Stranger => DOMAIN.to_owned(),
        },
        display: None,
        local,
        transport: transport(world, index, kind, local),
        media,
        server: LISTENER,
        seed: world.plan().seed ^ (index as u64 + 1).wrapping_mul(0x9E37_79B9),
        expires: 60,
        auto: AutoAnswer::Manual,
        t1: Duration::from_millis(500),
        codecs: vec![0, 8],
        manners: verbs::manners(world, index),
    }
}

/// Every fifth station and the proxies of one trunk speak by streams.
fn transport(world: &World, index: usize, kind: Kind, local: SocketAddr) -> Transport {
    let streams = match kind {
        Kind::Station => index % 5 == 2,
        Kind::Proxy => proxies('c').contains(&local),
        Kind::Carrier => trunks::phones().iter().any(|(_, address, streams)| *streams && *address == local),
        Kind::Impostor | Kind::Stranger => false,
    };
    let always = matches!(kind, Kind::Proxy | Kind::Carrier);
    if streams && (always || world.plan().choice.has(Part::Streams)) {
        Transport::Tcp
    } else {
        Transport::Udp
    }
}

impl Phones {
    pub(crate) fn new(world: &World, air: &Air) -> Phones {
        let at = |net: u8, host: usize| SocketAddr::from(([10, 0, net, host as u8 + 1], 5060));
        let mut all: Vec<(String, SocketAddr, Kind)> =
            (0..STATIONS - 2).map(|n| (station(n), at(1, n), Kind::Station)).collect();
        // Two stations have a second phone: their calls fork.
        all.extend([3, 6].map(|n| (station(n), at(4, n), Kind::Station)));
        all.push((station(STATIONS - 2), at(1, STATIONS - 2), Kind::Impostor));
        all.push(("9999".to_owned(), at(1, STATIONS), Kind::Stranger));
        for (n, proxy) in proxies('a').into_iter().enumerate() {
            all.push((format!("555{n:04}"), proxy, Kind::Proxy));
        }
        all.push(("5551000".to_owned(), proxies('b')[2], Kind::Proxy));
        for (n, proxy) in proxies('c').into_iter().enumerate() {
            all.push((format!("555{:04}", 100 + n), proxy, Kind::Proxy));
        }
        all.extend(trunks::phones().into_iter().map(|(user, address, _)| (user, address, Kind::Carrier)));
        let by_address = all.iter().enumerate().map(|(index, (_, address, _))| (*address, index)).collect();
        let handsets = all
            .into_iter()
            .enumerate()
            .map(|(index, (user, local, kind))| {
                let phone = Phone::new(config(world, index, &user, local, kind));
                Handset { phone, kind, user, timer: None }
            })
            .collect();
        let handsets: Vec<Handset> = handsets;
        let media = handsets.iter().map(|handset| handset.phone.config().media).collect();
        Phones { handsets, by_address, call_id: None, air: air.clone(), media }
    }

    /// An address for a call's media that no other call has.
    pub(crate) fn fresh_media(&mut self, phone: usize, call: CallHandle) -> SocketAddr {
        let media = self.media[phone];
        let next = media.port().checked_add(2).unwrap_or(40_000);
        self.media[phone].set_port(next);
        self.handsets[phone].phone.set_media(self.media[phone]);
        self.air.own(media, phone, call);
        media
    }

    /// The phones of a kind.
    pub(crate) fn of(&self, kind: Kind) -> Vec<usize> {
        (0..self.handsets.len()).filter(|index| self.handsets[*index].kind == kind).collect()
    }

    /// Sends to the engine what stands before the phone at `address` says for it.
    pub(crate) fn send(&self, world: &World, address: SocketAddr, bytes: Bytes) {
        if let Some(phone) = self.at(address) {
            say(world, self.handsets[phone].phone.config(), LISTENER, bytes);
        }
    }

    pub(crate) fn at(&self, address: SocketAddr) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    pub(crate) fn command(
        &mut self,
        world: &World,
        phone: usize,
        command: Command,
        told: &mut Vec<(usize, Event)>,
    ) -> Option<CallHandle> {
        self.call_id = None;
        let handle = self.handsets[phone].phone.command(now(world), command);
        if let Some(call) = handle {
            self.fresh_media(phone, call);
        }
        self.collect(world, phone, told);
        handle
    }

    pub(crate) fn receive(
        &mut self,
        world: &World,
        phone: usize,
        from: SocketAddr,
        datagram: &[u8],
        told: &mut Vec<(usize, Event)>,
    ) {
        self.call_id = call_id(datagram);
        self.handsets[phone].phone.receive(now(world), from, datagram);
        self.collect(world, phone, told);
    }

    pub(crate) fn timer(&mut self, world: &World, phone: usize, told: &mut Vec<(usize, Event)>) {
        let handset = &mut self.handsets[phone];
        if handset.timer.is_some_and(|at| at <= now(world)) {
            handset.timer = None;
            self.call_id = None;
            handset.phone.handle_timeout(now(world));
            self.collect(world, phone, told);
        }
    }

    /// Takes what a phone wants done: sends, tells, and sets its timer.
    fn collect(&mut self, world: &World, phone: usize, told: &mut Vec<(usize, Event)>) {
        let handset = &mut self.handsets[phone];
        while let Some((to, bytes)) = handset.phone.poll_transmit() {
            if self.call_id.is_none() {
                self.call_id = call_id(&bytes);
            }
            say(world, handset.phone.config(), to, Bytes::from(bytes));
        }
        let mut incoming = None;
        while let Some(event) = handset.phone.poll_event() {
            if let Event::Incoming { call, .. } = event {
                incoming = Some(call);
            }
            told.push((phone, event));
        }
        let next = handset.phone.poll_timeout();
        if let Some(at) = next
            && handset.timer.is_none_or(|set| at < set)
        {
            handset.timer = Some(at);
            world.push(at.as_micros() as u64, world::Event::PhoneTimer { phone });
        }
        if let Some(call) = incoming {
            self.fresh_media(phone, call);
        }
    }
}

fn say(world: &World, config: &PhoneConfig, to: SocketAddr, bytes: Bytes) {
    match config.transport {
        Transport::Udp => world.send(config.local, to, bytes),
        Transport::Tcp => world.stream_send(config.local, bytes, world.plan().shards),
    }
}

fn call_id(datagram: &[u8]) -> Option<String> {
    peek_call_id(datagram).map(|id| String::from_utf8_lossy(id).into_owned())
}

fn now(world: &World) -> Duration {
    Duration::from_micros(world.now())
}
