//! `tandem reload`, SIGHUP and `POST /api/v1/reload`: the settings are read again while calls are up.
//!
//! ```text
//! read and check all ── wrong ──► refused: nothing has changed
//!        │
//! leave what only a restart can change (keep.rs) ── the rest does not hold without it ──► refused
//!        │
//! plan: what differs from what runs (plan.rs) ── a dry run, or nothing differs ──► told
//!        │
//! the next generation beside the one in force ──► every shard takes it over between two messages
//! ```
//!
//! All up to the last step is done on a thread of its own, which no call waits for. What can fail comes before it.

#![allow(clippy::disallowed_methods)]

mod error;
mod keep;
mod listeners;
mod plan;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tandem_actors::config::EngineConfig;
use tandem_actors::dns::Finder;
use tandem_actors::engine::Engine;
use tandem_actors::env::Shared;
use tandem_actors::events::{Event, EventKind};
use tandem_actors::generation::{Change, Comparison, Generation};
use tandem_actors::ids::ShardId;
use tandem_actors::runtime::Clock;
use tandem_actors::sip::listening::Listening;
use tandem_actors::store::{Batch, Bucket, Urgency};
use tokio::sync::Mutex;

use crate::certificates;
use crate::rerouted::{self, Rerouted};
use crate::settings::token::{self, TokenError};
use crate::settings::{Loaded, Secret, Settings};
use crate::wiring::{self, WiringError};

pub use error::ReloadError;
use listeners::Bound;
pub use plan::{Action, Item, Plan};

/// Shards have taken over after this, unless one is stuck.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many reasons of one refusal are told.
const MOST_TOLD: usize = 20;

/// Where the settings are read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This file, if one is named, and the environment.
    File(Option<PathBuf>),
    /// Nowhere: they were made by a program.
    Nowhere,
}

/// Who wants a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The API, which `tandem reload` uses.
    Api,
    /// SIGHUP.
    Signal,
}

impl Asker {
    fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Signal => "SIGHUP",
        }
    }
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// What has changed comes into force.
    Apply,
    /// It is only told.
    DryRun {
        /// The calls of so many last hours are routed again.
        against_cdrs_h: Option<u32>,
    },
}

/// What came of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The plan is in force.
    Applied,
    /// Nothing was different.
    Unchanged,
    /// The plan was only to be told.
    DryRun,
}

/// What came of a reload, and how.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What came of it.
    pub result: Outcome,
    /// The number of the settings in force.
    pub generation: u64,
    /// How long it took until every shard had them, in milliseconds.
    pub took_ms: f64,
    /// Shards that did not say in time that they have them; each takes them over before its next message.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<String>,
    /// What changes.
    #[serde(flatten)]
    pub plan: Plan,
    /// Which calls of before would go elsewhere, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerouted: Option<Rerouted>,
}

/// Finds the names of trunks anew, under the settings in force.
pub type FindNames = Box<dyn Fn(&Arc<Shared>) -> io::Result<Option<Finder>> + Send + Sync>;

/// The settings of a running engine.
pub struct Reloader {
    engine: Engine,
    clock: Clock,
    source: Source,
    listening: Arc<Listening>,
    chaos: bool,
    /// In force, without the stations of the store.
    settings: RwLock<Arc<Settings>>,
    tokens: RwLock<Arc<Vec<Secret>>>,
    find_names: FindNames,
    /// Finds named proxies as long as it lives. Held while a reload is under way, so that there is never more than one.
    names: Mutex<Option<Finder>>,
}

/// Settings that have been read, checked and compared.
struct Prepared {
    settings: Settings,
    tokens: Vec<Secret>,
    plan: Plan,
    /// `None`: nothing differs, or nothing shall.
    change: Option<(Change, Bound)>,
    /// Whether names are to be found for other trunks, or otherwise.
    names: bool,
    rerouted: Option<Rerouted>,
}

impl Reloader {
    /// For an engine that runs with `settings` and `tokens`, and hears what is in `listening`.
    pub fn new(
        engine: Engine,
        clock: Clock,
        source: Source,
        (settings, tokens): (&Settings, Vec<Secret>),
        (listening, chaos): (Arc<Listening>, bool),
        (find_names, names): (FindNames, Option<Finder>),
    ) -> Reloader {
        Reloader {
            engine,
            clock,
            source,
            listening,
            chaos,
            tokens: RwLock::new(Arc::new(tokens)),
            settings: RwLock::new(Arc::new(settings.clone())),
            find_names,
            names: Mutex::new(names),
        }
    }

    /// The settings in force, without the stations of the store.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who may use the API.
    pub fn tokens(&self) -> Arc<Vec<Secret>> {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the finding of names.
    pub(crate) fn end(&self) {
        if let Ok(mut names) = self.names.try_lock() {
            *names = None;
        }
    }

    /// Reads the settings again and puts what has changed into force; as is wished. One reload at a time.
    ///
    /// # Errors
    /// See [`ReloadError`]: nothing has changed then.
    pub async fn reload(self: &Arc<Self>, wish: Wish, asker: Asker) -> Result<Report, ReloadError> {
        let this = self.clone();
        // A task of its own: whoever asked may go away in the middle.
        let done = tokio::spawn(async move { this.reload_here(wish, asker).await }).await;
        done.unwrap_or_else(|fault| {
            tracing::error!(%fault, "a reload has failed");
            Err(ReloadError::Fault)
        })
    }

    async fn reload_here(self: &Arc<Self>, wish: Wish, asker: Asker) -> Result<Report, ReloadError> {
        let begun = self.clock.now().mono;
        let mut names = self.names.lock().await;
        let this = self.clone();
        let prepared = tokio::task::spawn_blocking(move || this.prepare(wish)).await;
        let prepared = prepared.unwrap_or_else(|fault| {
            tracing::error!(%fault, "reading the settings has failed");
            Err(ReloadError::Fault)
        });
        let prepared = prepared.inspect_err(|why| self.refused(why, wish, asker))?;
        let Prepared { settings, tokens, plan, change, names: find_names, rerouted } = prepared;
        let (mut result, mut silent) = (Outcome::Unchanged, Vec::new());
        match change {
            _ if wish != Wish::Apply => result = Outcome::DryRun,
            None => {}
            Some((change, bound)) => {
                result = Outcome::Applied;
                let opened = bound.hand_over(&change.generation.config, &self.listening);
                *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
                *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens);
                silent = self.adopt(change).await;
                listeners::settle(&self.engine, &self.listening, opened);
                if find_names {
                    self.find_names_anew(&mut names);
                }
            }
        }
        if wish == Wish::Apply {
            self.read_certificates().await;
        }
        let took = self.clock.now().mono.since(begun);
        let generation = self.engine.shared().current().number;
        let report =
            Report { result, generation, took_ms: took.as_secs_f64() * 1000.0, silent, plan, rerouted };
        self.reloaded(&report, took, asker);
        Ok(report)
    }

    /// Everything that takes time or may fail, while the settings in force stay so.
    fn prepare(&self, wish: Wish) -> Result<Prepared, ReloadError> {
        let file = match &self.source {
            Source::File(file) => file,
            Source::Nowhere => return Err(ReloadError::Nowhere),
        };
        let Loaded { settings: wanted, warnings, faults } = Settings::load(file.as_deref())?;
        let running = self.settings();
        let (settings, needs_restart) = keep::keep(&running, wanted);
        if !needs_restart.is_empty() {
            let faults = told(settings.faults());
            if !faults.is_empty() {
                let kept: Vec<&str> = needs_restart.iter().map(|kept| kept.key.as_str()).collect();
                return Err(ReloadError::Unfit { kept: kept.join(", "), faults });
            }
        }
        let current = self.engine.shared().current();
        let all = self.with_imported(&settings, &current)?;
        let all = all.as_ref().unwrap_or(&settings);
        let file = file.as_ref().map_or_else(|| "environment".to_owned(), |file| file.display().to_string());
        let bound = listeners::bind((&running, &current), &settings, &self.listening, &file)?;
        let mut config = wiring::engine_config(all, &bound.addresses, self.chaos)
            .inspect_err(|why| self.note_certificate(why))?;
        let media_stays = listeners::share(&mut config, &current, &self.listening);
        let comparison = current.compare(&config);
        let mut plan = Plan::new((&running, &current), &settings, &comparison);
        plan.needs_restart = needs_restart;
        plan.needs_restart.extend(media_stays);
        plan.warnings = faults.iter().chain(&warnings).map(ToString::to_string).collect();
        let names = self.names_differ(&running, &settings, &comparison);
        let tokens = tokens(&settings)?;
        let rerouted = match wish {
            Wish::DryRun { against_cdrs_h: Some(hours) } => Some(self.rerouted(&current, &config, hours)?),
            Wish::DryRun { against_cdrs_h: None } | Wish::Apply => None,
        };
        let differs = !plan.is_empty() && wish == Wish::Apply;
        let metrics = &self.engine.shared().metrics;
        let change = differs.then(|| (current.next(config, comparison, metrics), bound));
        Ok(Prepared { settings, tokens, plan, change, names, rerouted })
    }

    /// The settings with the stations of the store, if there are any. At a start one that fits no more is left out; here it would be
    /// taken away from somebody who uses it.
    fn with_imported(
        &self,
        settings: &Settings,
        current: &Generation,
    ) -> Result<Option<Settings>, ReloadError> {
        let kept = self.engine.shared().store.scan(Bucket::Stations)?;
        if kept.is_empty() {
            return Ok(None);
        }
        let (all, left_out) = settings.with_stations(kept.iter().map(|entry| entry.value.as_ref()));
        let there: BTreeSet<&str> = all.station.iter().map(|station| station.name.as_str()).collect();
        let is_lost = |name: &str| current.station(name).is_some() && !there.contains(name);
        if !left_out.is_empty() && kept.iter().any(|entry| is_lost(entry.key.as_str())) {
            return Err(ReloadError::Imported(told(left_out)));
        }
        Ok(Some(all))
    }

    /// Which calls of the last `hours` would go elsewhere.
    fn rerouted(
        &self,
        current: &Generation,
        config: &EngineConfig,
        hours: u32,
    ) -> Result<Rerouted, ReloadError> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(self.clock.now().wall.0);
        let since = rerouted::hours_ago(now, hours);
        // Those of the last calls are on their way to the file.
        self.engine.shared().store.flush();
        let files = rerouted::files(&self.settings().node.data_dir, since);
        let (before, after) = (rerouted::Plan::in_force(current), rerouted::Plan::of(config));
        rerouted::compare(&before, &after, &files, Some(since)).map_err(ReloadError::Cdrs)
    }

    fn names_differ(&self, running: &Settings, settings: &Settings, comparison: &Comparison) -> bool {
        let named = |settings: &Settings, name: &str| {
            let trunk = settings.trunk.iter().find(|trunk| trunk.name == name);
            trunk.is_some_and(|t| t.domain.is_some() || t.proxies.iter().any(|proxy| proxy.ip().is_none()))
        };
        let trunks = &comparison.trunks;
        let mut touched = trunks.added.iter().chain(&trunks.changed).chain(&trunks.removed);
        !comparison.registration_groups.is_empty()
            || running.dns != settings.dns
            || touched.any(|name| named(running, name) || named(settings, name))
    }

    /// Every shard takes it over; those that do not say so in time.
    async fn adopt(&self, change: Change) -> Vec<String> {
        let mut adopted = self.engine.adopt(change);
        let mut silent: Vec<ShardId> =
            (0..self.engine.shared().current().directory.shards()).map(ShardId).collect();
        let all = async {
            while let Some(shard) = adopted.recv().await {
                silent.retain(|waiting| *waiting != shard);
            }
        };
        // Whoever is late is told of below.
        let _ = tokio::time::timeout(PATIENCE, all).await;
        silent.into_iter().map(|shard| format!("shard:{}", shard.0)).collect()
    }

    /// A certificate is counted as refused, as whenever its file is read again.
    fn note_certificate(&self, why: &WiringError) {
        match why {
            WiringError::Tls { .. } => self.engine.shared().metrics.tls.reload(false),
            WiringError::DialPlan(_) => {}
        }
    }

    /// Handshakes that begin from now on have what is in the files of certificates now.
    async fn read_certificates(&self) {
        let shared = self.engine.shared().clone();
        let read = tokio::task::spawn_blocking(move || certificates::reload(&shared)).await;
        if let Err(fault) = read {
            tracing::error!(%fault, "reading the certificates has failed");
        }
    }

    /// The one before ends first: what it has found last is in the store, where this one begins.
    fn find_names_anew(&self, names: &mut Option<Finder>) {
        *names = None;
        match (self.find_names)(self.engine.shared()) {
            Ok(finder) => *names = finder,
            Err(why) => {
                tracing::error!(%why, "the names of trunks are no longer looked up; what was found stays in use")
            }
        }
    }

    fn reloaded(&self, report: &Report, took: Duration, asker: Asker) {
        let metrics = &self.engine.shared().metrics.reloads;
        let (plan, by) = (&report.plan, asker.as_str());
        match report.result {
            Outcome::DryRun => {
                tracing::info!(by, changes = plan.summary(), "a reload was tried dry: nothing has changed");
                return;
            }
            Outcome::Unchanged => metrics.unchanged.increment(1),
            Outcome::Applied => metrics.applied.increment(1),
        }
        metrics.seconds.record(took.as_secs_f64());
        metrics.generation.set(report.generation as f64);
        metrics.pending.set(plan.needs_restart.len() as f64);
        for warning in &plan.warnings {
            tracing::warn!("{warning}");
        }
        for kept in &plan.needs_restart {
            tracing::warn!(
                key = kept.key,
                from = kept.from,
                to = kept.to,
                "needs a restart; it stays as it is until then"
            );
        }
        if !report.silent.is_empty() {
            tracing::error!(shards = ?report.silent, "shards have not taken over the settings in time");
        }
        let (changes, took_ms) = (plan.summary(), report.took_ms);
        match report.result {
            Outcome::Applied => {
                for item in plan.changes.iter().take(MOST_TOLD) {
                    tracing::info!("{item}");
                }
                tracing::info!(
                    by,
                    changes,
                    took_ms,
                    generation = report.generation,
                    "the settings were reloaded"
                );
            }
            Outcome::Unchanged | Outcome::DryRun => {
                tracing::info!(by, took_ms, "the settings were reloaded; nothing was different");
            }
        }
        let reason = if report.result == Outcome::Applied { "reloaded" } else { "unchanged" };
        let event = Event::new(self.clock.now().wall, EventKind::Settings, reason).with("by", by);
        let event = event.with("generation", report.generation as i64).with("changes", changes);
        self.record(event.with("needs_restart", plan.needs_restart.len() as i64));
    }

    fn refused(&self, why: &ReloadError, wish: Wish, asker: Asker) {
        let (by, why, dry_run) = (asker.as_str(), why.to_string(), wish != Wish::Apply);
        tracing::error!(by, dry_run, why, "the reload was refused; the settings are what they were");
        if !dry_run {
            self.engine.shared().metrics.reloads.refused.increment(1);
            let event = Event::new(self.clock.now().wall, EventKind::Settings, "refused").with("by", by);
            self.record(event.with("why", why));
        }
    }

    fn record(&self, event: Event) {
        let mut batch = Batch::new(Urgency::Lazy);
        batch.events.push(event);
        self.engine.shared().store.submit(batch);
    }
}

/// The first of many reasons, and how many more there are.
fn told(mut reasons: Vec<String>) -> Vec<String> {
    let more = reasons.len().saturating_sub(MOST_TOLD);
    reasons.truncate(MOST_TOLD);
    reasons.extend((more > 0).then(|| format!("and {more} more")));
    reasons
}

/// The tokens of the settings, else the one in the data directory.
///
/// # Errors
/// That one can be neither read nor made.
pub(crate) fn tokens(settings: &Settings) -> Result<Vec<Secret>, TokenError> {
    if !settings.http.tokens.is_empty() {
        return Ok(settings.http.tokens.clone());
    }
    Ok(vec![token::load_or_create(&settings.node.data_dir)?])
}
