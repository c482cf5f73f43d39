//! Trunks whose proxies fail in every way that proxies do, and the calls that hunt over them.
//!
//! | file | is |
//! | --- | --- |
//! | here | the trunks, and the numbers that lead to them |
//! | `moods` | what each proxy is like at what time, all of it decided beforehand |
//! | `front` | what stands before a proxy's phone and behaves as its mood is |
//! | `book` | the attempts of each call as the wire shows them |
//! | `checks`, `health` | what must hold: of each call, and of what the engine believes of its proxies |

mod book;
mod checks;
mod front;
mod health;
mod moods;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tandem_actors::config::{MediaPath, RouteGroup, RouteList, Source, Trunk};
use tandem_protocol::dial_plan::{Pattern, Target};
use tandem_protocol::proxy_list::{Proxy, Selection};

use crate::engine::{NOWHERE, STREAMS, trunk};
use crate::rng::Rng;

pub(crate) use book::{Book, was_given_up};
pub(crate) use checks::of_call;
pub(crate) use front::{Front, Turn};
pub(crate) use health::{at_rest, gauges};
pub(crate) use moods::{Mood, Moods};

/// A trunk of the run.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    /// What is dialled for it, before the callee's number.
    prefix: &'static str,
    /// The third number of its proxies' addresses.
    net: u8,
    proxies: u8,
    /// Its last proxy is at an address that no way leads to.
    cut_off: bool,
    by_stream: bool,
    round_robin: bool,
    anchored: bool,
    qualify: Option<Duration>,
    /// Silence after which an INVITE is given up.
    give_up: Duration,
    max_calls: u32,
}

const NORTH: Line = Line {
    name: "north",
    prefix: "94",
    net: 3,
    proxies: 3,
    cut_off: false,
    by_stream: false,
    round_robin: true,
    anchored: false,
    qualify: Some(Duration::from_secs(10)),
    give_up: Duration::from_secs(4),
    max_calls: 0,
};

/// Its health is known from its calls alone.
const SOUTH: Line = Line {
    name: "south",
    prefix: "93",
    net: 4,
    proxies: 2,
    cut_off: true,
    round_robin: false,
    anchored: true,
    qualify: None,
    give_up: Duration::from_secs(2),
    max_calls: 12,
    ..NORTH
};

const WEST: Line = Line {
    name: "west",
    prefix: "92",
    net: 5,
    proxies: 2,
    by_stream: true,
    round_robin: false,
    qualify: Some(Duration::from_secs(15)),
    ..NORTH
};

/// All of them.
pub(crate) const LINES: [Line; 3] = [NORTH, SOUTH, WEST];
/// What is dialled for all of them, one after the other.
const ALL: &str = "91";
/// 100 and nothing more for so long leads on to the next.
const PROGRESS: Duration = Duration::from_secs(6);
/// The streams of chance of the proxies are numbered from here.
const OF_MOODS: u64 = 700_000;

impl Line {
    /// The addresses of its proxies, in the order of its settings.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let reached = (0..self.proxies).map(|n| SocketAddr::from(([10, 2, self.net, 1 + n], 5060)));
        reached.chain(self.cut_off.then(|| SocketAddr::new(NOWHERE, 5060))).collect()
    }

    fn settings(&self) -> Trunk {
        let selection = match self.round_robin {
            true => Selection::RoundRobin { offset: 0 },
            false => Selection::Priority,
        };
        let media = if self.anchored { MediaPath::Anchored } else { MediaPath::Bypass };
        let mut settings = trunk('a', selection, media);
        settings.name = self.name.into();
        settings.proxies = self.addresses().into_iter().map(Proxy::new).collect();
        settings.progress_timeout = PROGRESS;
        settings.timers.give_up = self.give_up;
        settings.qualify_interval = self.qualify;
        settings.max_calls = self.max_calls;
        if self.by_stream {
            settings.listener = STREAMS;
            let network = Ipv4Addr::new(10, 2, self.net, 0).into();
            settings.accept_from = vec![Source { network, prefix: 24, port: None }];
        }
        settings
    }
}

/// Silence after which an INVITE to this proxy is given up.
pub(crate) fn give_up_us(proxy: SocketAddr) -> Option<u64> {
    let line = LINES.iter().find(|line| line.addresses().contains(&proxy))?;
    Some(line.give_up.as_micros() as u64)
}

/// What the engine's settings have of them.
pub(crate) fn settings() -> Vec<Trunk> {
    LINES.iter().map(Line::settings).collect()
}

pub(crate) fn patterns() -> Vec<Pattern> {
    let by_trunk = LINES.iter().map(|line| (line.prefix, Target::Trunk(line.name.into())));
    let all = [(ALL, Target::RouteList("all".into()))];
    by_trunk.chain(all).map(|(prefix, target)| Pattern::new(format!("{prefix}.!"), target)).collect()
}

pub(crate) fn route_groups() -> Vec<RouteGroup> {
    let group = |name: &str, trunks: &[&str], selection| RouteGroup {
        name: name.into(),
        trunks: trunks.iter().map(|name| (*name).into()).collect(),
        selection,
    };
    vec![
        group("nearby", &["north", "south"], Selection::RoundRobin { offset: 0 }),
        group("far", &["west", "north"], Selection::Priority),
    ]
}

pub(crate) fn route_lists() -> Vec<RouteList> {
    vec![RouteList { name: "all".into(), groups: vec!["nearby".into(), "far".into()], enabled: true }]
}

/// The phones behind the proxies: name, address, and whether they speak by streams.
pub(crate) fn phones() -> Vec<(String, SocketAddr, bool)> {
    let of = |line: &'static Line| {
        let reached = line.addresses().into_iter().filter(|address| address.ip() != NOWHERE);
        reached.zip(1..).map(|(address, n)| (format!("5{}{n}", line.net), address, line.by_stream))
    };
    LINES.iter().flat_map(of).collect()
}

/// A number that leads to a callee by trunks.
pub(crate) fn number(rng: &mut Rng, callee: &str) -> String {
    let prefix = rng.pick(&[NORTH.prefix, SOUTH.prefix, WEST.prefix, ALL, ALL]);
    format!("{prefix}{callee}")
}

/// The trunks that a number leads to, and the callee's number; nothing if it leads elsewhere.
pub(crate) fn route(dialled: &str) -> Option<(Vec<&'static Line>, &str)> {
    let (prefix, callee) = dialled.split_at_checked(2).filter(|(_, callee)| callee.len() == 6)?;
    let lines: Vec<&'static Line> = match prefix {
        ALL => LINES.iter().collect(),
        _ => LINES.iter().filter(|line| line.prefix == prefix).collect(),
    };
    (!lines.is_empty()).then_some((lines, callee))
}
