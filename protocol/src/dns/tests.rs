//! The procedure against zones that are written down here, and the life of answers in virtual time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;

use super::locate::Step;
use super::*;

mod life;
mod procedure;
mod weights;

/// Answers by what was asked.
#[derive(Clone, Debug, Default)]
struct Zone(BTreeMap<Query, Answer>);

const TTL: Duration = Duration::from_secs(60);

impl Zone {
    fn records(mut self, name: &str, kind: RecordType, records: Vec<Record>) -> Zone {
        self.0.insert(Query::new(name, kind), Answer::Records { records, ttl: TTL });
        self
    }

    fn a(self, name: &str, ips: &[&str]) -> Zone {
        let records = ips.iter().map(|ip| Record::Address(ip.parse().unwrap())).collect();
        self.records(name, RecordType::A, records)
    }

    fn srv(self, name: &str, all: &[(u16, u16, u16, &str)]) -> Zone {
        let record = |(priority, weight, port, target): &(u16, u16, u16, &str)| {
            Record::Srv(Srv {
                priority: *priority,
                weight: *weight,
                port: *port,
                target: (*target).to_owned(),
            })
        };
        self.records(name, RecordType::Srv, all.iter().map(record).collect())
    }

    fn naptr(self, name: &str, all: &[(u16, u16, &str, &str, &str)]) -> Zone {
        let record = |(order, preference, flags, service, replacement): &(u16, u16, &str, &str, &str)| {
            Record::Naptr(Naptr {
                order: *order,
                preference: *preference,
                flags: (*flags).to_owned(),
                service: (*service).to_owned(),
                regexp: String::new(),
                replacement: (*replacement).to_owned(),
            })
        };
        self.records(name, RecordType::Naptr, all.iter().map(record).collect())
    }

    fn failing(mut self, name: &str, kind: RecordType) -> Zone {
        self.0.insert(Query::new(name, kind), Answer::Failed { why: "timeout".to_owned() });
        self
    }

    fn answer(&self, query: &Query) -> Answer {
        let absent = Answer::Absent { how: Absence::NoName, ttl: Some(TTL) };
        self.0.get(query).cloned().unwrap_or(absent)
    }
}

fn at(s: u64) -> Instant {
    Instant(s * 1_000_000)
}
