//! The thread that finds names.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tandem_protocol::dns::{
    Answer, Because, Input, Located, Output, Query, RecordType, Resolver, Target, Trouble,
};
use tandem_protocol::time::Instant;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::kept::Kept;
use super::servers::Servers;
use crate::env::Shared;
use crate::events::{Event, EventKind};
use crate::media_pool::threads::Link;
use crate::metrics::DnsMetrics;
use crate::runtime::Clock;
use crate::shard::{LinkMessage, Named, ProxyLocated};
use crate::store::{Batch, Urgency};

/// Questions that may be under way at once.
const AT_ONCE: usize = 64;
/// How often /etc/resolv.conf is looked at and what was found is written.
const LOOK: Duration = Duration::from_secs(5);
/// The wait after a fault, so that one that comes back at once does not burn a core.
const REST: Duration = Duration::from_secs(1);

/// The thread, as long as this lives.
pub struct Finder {
    /// Its end is the thread's.
    _stop: mpsc::Sender<()>,
    settled: watch::Receiver<bool>,
}

impl Finder {
    /// Waits until something is known of every name, if only that it cannot be found.
    pub async fn settled(&mut self) {
        // A thread that has ended will know no more.
        let _ = self.settled.wait_for(|settled| *settled).await;
    }
}

/// Finds the named proxies of every trunk and the named registrars from now on. `None`: there are none.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(shared: &Arc<Shared>, clock: Clock, link: &Link) -> io::Result<Option<Finder>> {
    let mut wanted: BTreeMap<Target, Vec<Wanted>> = BTreeMap::new();
    for trunk in &shared.config.trunks {
        for (place, named) in trunk.named.iter().enumerate() {
            let one = Wanted { of: Named::Trunk(trunk.name.clone()), place };
            wanted.entry(named.target.clone()).or_default().push(one);
        }
    }
    for group in &shared.config.registration_groups {
        for (number, registration) in group.registrations.iter().enumerate() {
            for (place, named) in registration.named.iter().enumerate() {
                let one = Wanted { of: Named::Registration(group.name.clone(), number), place };
                wanted.entry(named.target.clone()).or_default().push(one);
            }
        }
    }
    if wanted.is_empty() {
        return Ok(None);
    }
    let (stop, stopped) = mpsc::channel(1);
    let (told, settled) = watch::channel(false);
    let (shared, link) = (shared.clone(), link.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut stopped = stopped;
    std::thread::Builder::new().name("dns".to_owned()).spawn(move || {
        let wanted = Arc::new(wanted);
        loop {
            let desk = || Desk::new(shared.clone(), clock, link.clone(), wanted.clone(), told.clone());
            let life = || runtime.block_on(async { desk().run(&mut stopped).await });
            match catch_unwind(AssertUnwindSafe(life)) {
                Ok(()) => return,
                Err(_) => note_restart(&shared, clock),
            }
            std::thread::sleep(REST);
        }
    })?;
    Ok(Some(Finder { _stop: stop, settled }))
}

/// What was published stays, and what was found last is in the store; so a fault costs a round of questions.
fn note_restart(shared: &Shared, clock: Clock) {
    tracing::error!("the finding of names has panicked and begins again; what was found stays in use");
    let event = Event::new(clock.now().wall, EventKind::ActorRestarted, "restarted after a rest");
    let mut batch = Batch::new(Urgency::Lazy);
    batch.events.push(event.with("actor", "dns".to_owned()));
    shared.store.submit(batch);
}

/// Who wants a target.
struct Wanted {
    of: Named,
    /// Its place among those that are named there.
    place: usize,
}

struct Desk {
    shared: Arc<Shared>,
    clock: Clock,
    link: Link,
    metrics: DnsMetrics,
    wanted: Arc<BTreeMap<Target, Vec<Wanted>>>,
    /// What was told last of each.
    told: BTreeMap<Target, Located>,
    kept: Kept,
    settled: watch::Sender<bool>,
    machine: Resolver,
    servers: Arc<Servers>,
    /// When the servers were looked at and what was found was written.
    looked: Option<Instant>,
    asking: JoinSet<(Query, Answer)>,
    at_once: Arc<Semaphore>,
}

impl Desk {
    fn new(
        shared: Arc<Shared>,
        clock: Clock,
        link: Link,
        wanted: Arc<BTreeMap<Target, Vec<Wanted>>>,
        settled: watch::Sender<bool>,
    ) -> Desk {
        let metrics = shared.metrics.dns.clone();
        let servers = Arc::new(Servers::new(&shared.config, clock, &metrics));
        let machine = Resolver::new(shared.config.dns.bounds);
        let kept = Kept::load(shared.store.as_ref(), |target| wanted.contains_key(target));
        Desk {
            kept,
            clock,
            link,
            metrics,
            wanted,
            told: BTreeMap::new(),
            settled,
            machine,
            servers,
            looked: Some(clock.now().mono),
            asking: JoinSet::new(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            shared,
        }
    }

    async fn run(mut self, stopped: &mut mpsc::Receiver<()>) {
        self.begin_with_what_is_kept();
        let targets: Vec<Target> = self.wanted.keys().cloned().collect();
        for target in targets {
            self.feed(&Input::Watch(target));
        }
        loop {
            let due = self.machine.deadline();
            let wait = due.map_or(LOOK, |at| at.since(self.clock.now().mono)).min(LOOK);
            let input = tokio::select! {
                biased;
                _ = stopped.recv() => return,
                Some(done) = self.asking.join_next() => match done {
                    Ok((query, answer)) => Input::Answered(query, answer),
                    // Which question it was is not known any more: all of them are asked again.
                    Err(fault) => {
                        tracing::error!(%fault, "the asking for a name failed");
                        self.machine.resume(self.clock.now().mono);
                        Input::Timeout
                    }
                },
                () = tokio::time::sleep(wait) => Input::Timeout,
            };
            self.feed(&input);
            self.look();
        }
    }

    /// Until the first answers come, what the process before has found last is used.
    fn begin_with_what_is_kept(&self) {
        let now = self.clock.now();
        for (target, servers) in self.kept.usable(now.wall, self.shared.config.dns.bounds.max_stale) {
            let query = Query { name: target.host.clone(), kind: RecordType::Srv };
            let why = "not asked for yet since the start".to_owned();
            let because = Some(Because { trouble: Trouble::Stale, query, why });
            self.publish(target, &Located { servers: servers.to_vec(), because, until: now.mono });
        }
    }

    /// Follows /etc/resolv.conf, and writes what was found.
    fn look(&mut self) {
        let now = self.clock.now().mono;
        if self.looked.is_some_and(|looked| now.since(looked) < LOOK) {
            return;
        }
        self.looked = Some(now);
        if let Some(batch) = self.kept.batch(self.clock.now().wall) {
            self.shared.store.submit(batch);
        }
        if !self.servers.are_current(&self.shared.config) {
            tracing::info!("/etc/resolv.conf has changed: other servers are asked for names from now on");
            self.servers = Arc::new(Servers::new(&self.shared.config, self.clock, &self.metrics));
        }
    }

    fn feed(&mut self, input: &Input) {
        let now = self.clock.now().mono;
        let mut out = Vec::new();
        self.machine.handle(input, now, &mut out);
        for output in out {
            match output {
                Output::Ask(query) => self.ask(query),
                Output::Located(target, located) => self.located(target, located),
            }
        }
    }

    fn ask(&mut self, query: Query) {
        let (servers, at_once) = (self.servers.clone(), self.at_once.clone());
        self.asking.spawn(async move {
            // It is never closed.
            let _place = at_once.acquire().await;
            let answer = servers.ask(&query).await;
            (query, answer)
        });
    }

    /// Publishes what was found, and tells what has changed.
    fn located(&mut self, target: Target, mut located: Located) {
        let max_stale = self.shared.config.dns.bounds.max_stale;
        self.kept.take(&target, &mut located, self.clock.now().wall, max_stale);
        if located.trouble() == Some(Trouble::Stale) {
            self.metrics.stale_used.increment(1);
        }
        let news = News::of(self.told.get(&target), &located);
        if news != News::None {
            self.tell(&target, &located, news);
        }
        self.publish(&target, &located);
        self.told.insert(target, located);
        if news != News::None {
            let told = &self.told;
            self.metrics.targets(|trouble| told.values().filter(|l| l.trouble() == trouble).count());
        }
        if self.told.len() == self.wanted.len() && !self.settled.send_replace(true) {
            // What was found first is written at once.
            self.looked = None;
        }
    }

    fn publish(&self, target: &Target, located: &Located) {
        let published = Arc::new(located.clone());
        for Wanted { of, place } in self.wanted.get(target).into_iter().flatten() {
            let home = self.shared.directory.home(of.name());
            let (of, place, located) = (of.clone(), *place, published.clone());
            (self.link)(home, LinkMessage::Located(ProxyLocated { of, place, located }));
        }
    }

    fn tell(&self, target: &Target, located: &Located, news: News) {
        let addresses: Vec<String> = located.addresses().map(|address| address.to_string()).collect();
        let addresses = addresses.join(" ");
        let wanted = || self.wanted.get(target).into_iter().flatten();
        let by: Vec<&str> = wanted().map(|wanted| wanted.of.name()).collect();
        let (why, todo) = match &located.because {
            Some(because) => (because.to_string(), todo(because, located)),
            None => (String::new(), ""),
        };
        match news {
            News::Worse => {
                tracing::warn!(name = %target, ?by, addresses, why, todo, "a name gives trouble")
            }
            News::Better => tracing::info!(name = %target, ?by, addresses, "a name is found again"),
            News::Moved => tracing::info!(name = %target, ?by, addresses, "a name has other addresses"),
            News::None => return,
        }
        let mut batch = Batch::new(Urgency::Lazy);
        for Wanted { of, .. } in wanted() {
            let reason = match &located.because {
                Some(because) => format!("dns: {}", because.trouble.as_str()),
                None => "dns: found".to_owned(),
            };
            let (kind, key) = match of {
                Named::Trunk(_) => (EventKind::TrunkState, "trunk"),
                Named::Registration(..) => (EventKind::Registration, "registration_group"),
            };
            let event = Event::new(self.clock.now().wall, kind, reason);
            let event = event.with(key, of.name().to_owned()).with("name", target.to_string());
            batch.events.push(event.with("addresses", addresses.clone()).with("why", why.clone()));
        }
        self.shared.store.submit(batch);
    }
}

/// What is new in what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    None,
    /// Something is wrong, or something else than before.
    Worse,
    /// Nothing is wrong any more.
    Better,
    /// Nothing is wrong, and nothing was, and the addresses are others.
    Moved,
}

impl News {
    fn of(before: Option<&Located>, now: &Located) -> News {
        let was = before.and_then(Located::trouble);
        let same_addresses = before.is_some_and(|before| before.addresses().eq(now.addresses()));
        match (was, now.trouble()) {
            (None, None) if same_addresses => News::None,
            (None, None) => News::Moved,
            (Some(_), None) => News::Better,
            (Some(was), Some(is)) if was == is && same_addresses => News::None,
            (_, Some(_)) => News::Worse,
        }
    }
}

/// What an operator can do about it.
fn todo(because: &Because, located: &Located) -> &'static str {
    match because.trouble {
        Trouble::Stale => {
            "no DNS server answers; calls go on by the last answer. Look at the servers of [dns] or /etc/resolv.conf"
        }
        Trouble::Absent => "calls by it fail. Correct `proxies` or `domain` of the trunk, or the zone",
        Trouble::NotOffered => "calls by it fail. The domain says that it offers no SIP by this transport",
        Trouble::Unreachable if located.servers.is_empty() => {
            "no DNS server answers and no earlier answer is left; calls by it fail. Look at the servers of [dns] or \
             /etc/resolv.conf"
        }
        Trouble::Unreachable => "calls go to the servers that were found. Look at the zone and its servers",
    }
}
