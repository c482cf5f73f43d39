//! Phones on a virtual network in virtual time, with seeded loss and reordering.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod peer;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tandem_phone::{AutoAnswer, CallHandle, Command, Event, Phone, PhoneConfig};

/// The address of phone `index`.
pub(crate) fn addr(index: u16) -> SocketAddr {
    ([127, 0, 0, 1], 5061 + index).into()
}

/// The settings of phone `index`, whose server is phone `server`.
pub(crate) fn config(index: u16, server: u16, auto: AutoAnswer) -> PhoneConfig {
    PhoneConfig {
        user: format!("100{index}"),
        auth_user: None,
        password: Some("secret".into()),
        domain: "example.test".into(),
        display: None,
        local: addr(index),
        transport: tandem_phone::Transport::Udp,
        media: ([127, 0, 0, 1], 40_000 + 2 * index).into(),
        server: addr(server),
        seed: 7 + u64::from(index),
        expires: 60,
        auto,
        t1: Duration::from_millis(500),
        codecs: vec![0, 8],
        manners: tandem_phone::Manners::default(),
    }
}

/// Rings at once, answers a second later.
pub(crate) const QUICK: AutoAnswer =
    AutoAnswer::After { ring: Duration::ZERO, answer: Duration::from_secs(1) };

/// What the network does to a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// Lost, per cent.
    pub(crate) loss: u64,
    /// Delayed by up to this in addition to 1 ms.
    pub(crate) jitter: Duration,
}

/// Phones, the datagrams between them and the time.
pub(crate) struct Net {
    pub(crate) now: Duration,
    pub(crate) phones: Vec<Phone>,
    /// What each phone told its script.
    pub(crate) events: Vec<Vec<Event>>,
    /// First line and destination port of everything that was sent, lost or not.
    pub(crate) sent: Vec<String>,
    pub(crate) faults: Faults,
    /// Datagrams that are dropped: called with the first line.
    pub(crate) drop: fn(&str) -> bool,
    flight: BTreeMap<(Duration, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sequence: u64,
    random: u64,
}

impl Net {
    pub(crate) fn new(seed: u64, phones: Vec<PhoneConfig>) -> Net {
        let phones: Vec<Phone> = phones.into_iter().map(Phone::new).collect();
        Net {
            now: Duration::from_secs(1),
            events: vec![Vec::new(); phones.len()],
            phones,
            sent: Vec::new(),
            faults: Faults { loss: 0, jitter: Duration::ZERO },
            drop: |_| false,
            flight: BTreeMap::new(),
            sequence: 0,
            random: seed,
        }
    }

    /// Two phones that call each other directly; the second answers as `auto` says.
    pub(crate) fn pair(seed: u64, auto: AutoAnswer) -> Net {
        Net::new(seed, vec![config(0, 1, AutoAnswer::Manual), config(1, 0, auto)])
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random >> 33
    }

    /// Gives a command and takes what comes out.
    pub(crate) fn command(&mut self, phone: usize, command: Command) -> Option<CallHandle> {
        let handle = self.phones[phone].command(self.now, command);
        self.collect(phone);
        handle
    }

    /// Phone 0 dials.
    pub(crate) fn dial(&mut self) -> CallHandle {
        self.command(0, Command::Dial { number: "1001".into() }).expect("a dialled call has a handle")
    }

    fn collect(&mut self, phone: usize) {
        while let Some(event) = self.phones[phone].poll_event() {
            self.events[phone].push(event);
        }
        let from = self.phones[phone].config().local;
        while let Some((to, bytes)) = self.phones[phone].poll_transmit() {
            let line = String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned();
            let lost = (self.drop)(&line) || self.random() % 100 < self.faults.loss;
            self.sent.push(format!("{phone} {line}"));
            if lost {
                continue;
            }
            let jitter = self.faults.jitter.as_micros() as u64;
            let extra = if jitter == 0 { 0 } else { self.random() % jitter };
            self.sequence += 1;
            let at = self.now + Duration::from_millis(1) + Duration::from_micros(extra);
            self.flight.insert((at, self.sequence), (from, to, bytes));
        }
    }

    /// Does the next thing that is due before `until`; false when there is none.
    fn step(&mut self, until: Duration) -> bool {
        let packet = self.flight.keys().next().map(|key| key.0);
        let timer = (0..self.phones.len())
            .filter_map(|index| Some((self.phones[index].poll_timeout()?, index)))
            .min();
        let next = [packet, timer.map(|t| t.0)].into_iter().flatten().min();
        let Some(at) = next.filter(|at| *at <= until) else { return false };
        self.now = self.now.max(at);
        if packet == Some(at) {
            let (_, (from, to, bytes)) = self.flight.pop_first().expect("a packet is due");
            if let Some(index) = self.phones.iter().position(|phone| phone.config().local == to) {
                self.phones[index].receive(self.now, from, &bytes);
                self.collect(index);
            }
        } else if let Some((_, index)) = timer {
            self.phones[index].handle_timeout(self.now);
            self.collect(index);
        }
        true
    }

    /// Runs for so long.
    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// Runs for so many seconds.
    pub(crate) fn secs(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    /// Runs until both phones are idle.
    pub(crate) fn settle(&mut self) {
        self.secs(300);
        for (index, phone) in self.phones.iter().enumerate() {
            assert!(phone.is_idle(), "phone {index} is not idle: {phone:#?}");
        }
    }

    /// The events of a phone that `pick` accepts.
    pub(crate) fn count(&self, phone: usize, pick: fn(&Event) -> bool) -> usize {
        self.events[phone].iter().filter(|event| pick(event)).count()
    }

    /// No phone saw the other break a rule.
    pub(crate) fn assert_clean(&self) {
        for events in &self.events {
            let faults: Vec<_> = events.iter().filter(|e| matches!(e, Event::Protocol { .. })).collect();
            assert!(faults.is_empty(), "{faults:?}\n{:#?}", self.sent);
        }
    }

    /// The call that phone 1 was told of last.
    pub(crate) fn incoming(&self) -> CallHandle {
        let found = self.events[1].iter().rev().find_map(|event| match event {
            Event::Incoming { call, .. } => Some(*call),
            _ => None,
        });
        found.expect("phone 1 is called")
    }
}
