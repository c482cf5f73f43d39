//! What the embedded store costs a call: 2,000 calls a second in real time, each with an attempt, an urgent checkpoint of
//! 1.2 KB, a delete, 6 events and a CDR.
//!
//! `cargo bench --bench store -- [calls_per_s=2000] [seconds=20] [ring_ms=200] [hold_ms=3000] [urgent_ms=2] [dir=/some/disk]`
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tandem::store::{Dropped, Embedded, Meter, Options};
use tandem_actors::cdr::{Attempt, Cdr, LegMedia};
use tandem_actors::events::{Event, EventKind};
use tandem_actors::store::{Batch, Bucket, Completions, Store, StoreFault, Ticket, Urgency, Write};
use tandem_protocol::time::UnixMillis;

/// From submission to the ticket's report, and how long commits took, in microseconds.
#[derive(Default)]
struct Seen {
    sent: Mutex<BTreeMap<u64, Instant>>,
    waits: Mutex<Vec<u64>>,
    commits: Mutex<Vec<u64>>,
    saves: Mutex<Vec<u64>>,
    failed: AtomicU64,
}

impl Completions for Seen {
    fn committed(&self, done: Vec<(Ticket, Result<(), StoreFault>)>) {
        let now = Instant::now();
        let (Ok(mut sent), Ok(mut waits)) = (self.sent.lock(), self.waits.lock()) else { return };
        for (ticket, result) in done {
            if result.is_err() {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(at) = sent.remove(&ticket.token) {
                waits.push((now - at).as_micros() as u64);
            }
        }
    }
}

struct Counts(Arc<Seen>);

impl Meter for Counts {
    fn committed(&self, took: Duration, _: usize) {
        if let Ok(mut commits) = self.0.commits.lock() {
            commits.push(took.as_micros() as u64);
        }
    }
    fn saved(&self, took: Duration) {
        if let Ok(mut saves) = self.0.saves.lock() {
            saves.push(took.as_micros() as u64);
        }
    }
    fn failed(&self) {
        self.0.failed.fetch_add(1, Ordering::Relaxed);
    }
    fn dropped(&self, _: Dropped, count: u64) {
        self.0.failed.fetch_add(count, Ordering::Relaxed);
    }
    fn waiting(&self, _: usize, _: usize) {}
}

struct Load {
    store: Embedded,
    seen: Arc<Seen>,
    now: u64,
    value: Bytes,
    call_ids: BTreeMap<u64, Arc<str>>,
}

/// A spread-out number for each call, the same in each run.
fn mixed(n: u64) -> u64 {
    let x = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^ (x >> 29)
}

impl Load {
    fn event(&self, id: &Arc<str>, kind: EventKind, reason: &'static str) -> Event {
        Event::new(UnixMillis(self.now), kind, reason).of(id)
    }

    fn write(&self, id: &Arc<str>, len: usize) -> Write {
        let value = (len > 0).then(|| self.value.slice(..len));
        Write { bucket: Bucket::Calls, key: id.to_string(), value, expect: None }
    }

    fn start(&mut self, n: u64) {
        let id: Arc<str> = format!("{:x}-{:012x}-{:08x}", 1, n, mixed(n) as u32).into();
        let mut batch = Batch::new(Urgency::Lazy);
        batch.writes.push(self.write(&id, 300));
        batch.events.push(
            self.event(&id, EventKind::CallStarted, "station 1001 authenticated")
                .with("from", "1001")
                .with("to", "95551234"),
        );
        batch.events.push(
            self.event(&id, EventKind::RouteDecided, "9.X! in internal, longest match")
                .with("target", "trunk:a")
                .with("pattern", "9.X!"),
        );
        batch.events.push(
            self.event(&id, EventKind::TrunkAttempt, "first in priority").with("proxy", "127.0.0.1:5070"),
        );
        self.store.submit(batch);
        self.call_ids.insert(n, id);
    }

    fn answer(&mut self, n: u64) {
        let Some(id) = self.call_ids.get(&n).cloned() else { return };
        let mut ringing = Batch::new(Urgency::Lazy);
        ringing.events.push(self.event(&id, EventKind::CallRinging, "180 from 127.0.0.1:5070"));
        self.store.submit(ringing);
        let mut batch = Batch::new(Urgency::Urgent);
        batch.writes.push(self.write(&id, 1200));
        batch.events.push(self.event(&id, EventKind::CallAnswered, "200 from 127.0.0.1:5070"));
        batch.ticket = Some(Ticket { shard: 0, token: n });
        if let Ok(mut sent) = self.seen.sent.lock() {
            sent.insert(n, Instant::now());
        }
        self.store.submit(batch);
    }

    fn end(&mut self, n: u64) {
        let Some(id) = self.call_ids.remove(&n) else { return };
        let mut batch = Batch::new(Urgency::Lazy);
        batch.writes.push(self.write(&id, 0));
        batch.events.push(self.event(&id, EventKind::CallEnded, "BYE from caller").with("duration_ms", 3000));
        let leg = LegMedia { codec: "PCMU".into(), tx: 150, rx: 149, lost: 1, jitter_ms: 0.4, mos: 4.3 };
        batch.cdrs.push(Cdr {
            call_id: id.to_string(),
            segment: 1,
            from: "1001".into(),
            from_trunk: None,
            to: "95551234".into(),
            trunk: Some("a".into()),
            proxy: Some("127.0.0.1:5070".into()),
            start: UnixMillis(self.now - 3200),
            answer: Some(UnixMillis(self.now - 3000)),
            end: UnixMillis(self.now),
            duration_s: 3.0,
            cause: "normal".into(),
            sip_status: 200,
            ended_by: "caller".into(),
            attempts: vec![Attempt {
                trunk: "a".into(),
                proxy: "127.0.0.1:5070".into(),
                cause: "answered".into(),
                ms: 200,
            }],
            legs: vec![leg.clone(), leg],
            replaced: Vec::new(),
            unprotected: false,
            emergency: false,
            recording: None,
        });
        self.store.submit(batch);
    }
}

/// CPU time of each thread of this process, in microseconds, by name.
fn cpu() -> Result<BTreeMap<String, u64>, Box<dyn Error>> {
    let mut by_name = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        let name = std::fs::read_to_string(path.join("comm"))?.trim().to_owned();
        let stat = std::fs::read_to_string(path.join("schedstat"))?;
        let ns: u64 = stat.split_whitespace().next().unwrap_or("0").parse()?;
        *by_name.entry(name).or_insert(0) += ns / 1000;
    }
    Ok(by_name)
}

fn quantiles(name: &str, all: &Mutex<Vec<u64>>) -> String {
    let Ok(mut all) = all.lock() else { return String::new() };
    all.sort_unstable();
    let at = |share: f64| all.get(((all.len() as f64 - 1.0) * share) as usize).copied().unwrap_or(0);
    format!(
        "{name}: {} of them, p50 {} us, p99 {} us, p99.9 {} us, max {} us",
        all.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    )
}

struct Args {
    per_s: u64,
    seconds: u64,
    ring_ms: u64,
    hold_ms: u64,
    urgent_ms: u64,
    dir: Option<PathBuf>,
}

fn args() -> Result<Args, Box<dyn Error>> {
    let mut args = Args { per_s: 2000, seconds: 20, ring_ms: 200, hold_ms: 3000, urgent_ms: 2, dir: None };
    for arg in std::env::args().skip(1) {
        match arg.split_once('=') {
            Some(("calls_per_s", value)) => args.per_s = value.parse()?,
            Some(("seconds", value)) => args.seconds = value.parse()?,
            Some(("ring_ms", value)) => args.ring_ms = value.parse()?,
            Some(("hold_ms", value)) => args.hold_ms = value.parse()?,
            Some(("urgent_ms", value)) => args.urgent_ms = value.parse()?,
            Some(("dir", value)) => args.dir = Some(value.into()),
            _ => {}
        }
    }
    Ok(args)
}

fn run(args: &Args, dir: &Path) -> Result<String, Box<dyn Error>> {
    let seen = Arc::new(Seen::default());
    let options = Options { urgent: Duration::from_millis(args.urgent_ms), ..Options::default() };
    let store = Embedded::open(dir, options, seen.clone(), Box::new(Counts(seen.clone())))?;
    let mut load =
        Load { store, seen: seen.clone(), now: 0, value: vec![b'x'; 1200].into(), call_ids: BTreeMap::new() };
    let mut ends: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let (began, mut started, mut answered, mut ended) = (Instant::now(), 0, 0, 0_u64);
    let warm = Duration::from_millis(args.hold_ms * 2 + 1000);
    let mut before = None;
    while began.elapsed() < warm + Duration::from_secs(args.seconds) {
        if before.is_none() && began.elapsed() > warm {
            before = Some((cpu()?, ended));
        }
        load.now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
        let ms = began.elapsed().as_millis() as u64;
        while started < ms * args.per_s / 1000 {
            load.start(started);
            started += 1;
        }
        while answered < ms.saturating_sub(args.ring_ms) * args.per_s / 1000 {
            load.answer(answered);
            // Between nothing and twice the mean.
            ends.entry(ms + mixed(answered) % (2 * args.hold_ms + 1)).or_default().push(answered);
            answered += 1;
        }
        while let Some(due) = ends.first_entry().filter(|e| *e.key() <= ms) {
            for n in due.remove() {
                load.end(n);
                ended += 1;
            }
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    let (after, (before, ended_before)) = (cpu()?, before.ok_or("too short")?);
    load.store.flush();
    let calls = ended - ended_before;
    let mut report = format!("{calls} calls in {} s\n", args.seconds);
    for (name, us) in after {
        let us = us - before.get(&name).copied().unwrap_or(0);
        report += &format!("thread {name}: {:.1} us of CPU a call\n", us as f64 / calls as f64);
    }
    for (name, all) in [("tickets", &seen.waits), ("commits", &seen.commits), ("saves", &seen.saves)] {
        report += &format!("{}\n", quantiles(name, all));
    }
    report += &format!("failed or dropped: {}\n", seen.failed.load(Ordering::Relaxed));
    Ok(report)
}

#[expect(clippy::print_stdout, reason = "a benchmark reports on its standard output")]
fn main() -> Result<(), Box<dyn Error>> {
    let args = args()?;
    let own = tempfile::tempdir()?;
    let dir = args.dir.clone().unwrap_or_else(|| own.path().to_owned());
    println!("{}", run(&args, &dir)?);
    Ok(())
}
