//! Draining to an end: the process ends with its last call, or at a limit.
//!
//! A process that drains refuses new calls (`actors/src/calls.rs`) and otherwise runs on. Told to exit, it ends once no call is left, with
//! status 0. At the limit, if there is one, the calls that are left are ended in order, BYE on every leg and a record for each, and the
//! status is [`EXIT_CUT`]. Emergency calls are not ended: they stay in the store for the next start, as all calls do at SIGTERM.
// A task of the process, not of an actor.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use tandem_actors::engine::{Abandoned, Engine};
use tandem_actors::env::Shared;
use tandem_actors::metrics::ActorKind;
use tandem_actors::runtime::Clock;
use tandem_actors::shard::{Ask, parse_call_id};
use tandem_protocol::time::{Now, UnixMillis};
use tokio::sync::watch;

/// The status of a process that has ended calls at the limit of its draining.
pub const EXIT_CUT: u8 = 3;
/// The status of a process that has given up too many threads: its service manager starts another. EX_TEMPFAIL of sysexits.h.
pub const EXIT_ABANDONED: u8 = 75;
/// So many threads of shards may be given up before the process drains and ends.
pub const MOST_ABANDONED: u32 = 3;
/// The limit of that: calls that are up then are taken up by the next start, which costs them less than a process that takes no new ones
/// costs everybody else.
const LEAVE: Duration = Duration::from_secs(30);
/// How often it is looked whether a call is left.
const LOOK: Duration = Duration::from_millis(100);
/// So long calls that were told to end may take: their BYE is answered, or given up (RFC 3261 Timer F) soon after.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How a draining process ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Whether it exits with its last call.
    pub exit: bool,
    /// When it exits at the latest.
    pub limit: Option<Now>,
}

/// Whether and how the process ends by draining. `None`: nobody waits for it, so that it cannot.
pub struct Drainer {
    wish: Option<watch::Sender<Wish>>,
}

/// The other end, for whoever runs the process.
pub struct Drained(watch::Receiver<Wish>);

impl Drainer {
    /// One whose process can end, and its other end.
    pub fn new() -> (Drainer, Drained) {
        let (wish, wished) = watch::channel(Wish::default());
        (Drainer { wish: Some(wish) }, Drained(wished))
    }

    /// One whose process ends otherwise.
    pub fn idle() -> Drainer {
        Drainer { wish: None }
    }

    /// True if the process can end by draining.
    pub fn may_exit(&self) -> bool {
        self.wish.is_some()
    }

    /// How it ends now.
    pub fn wish(&self) -> Wish {
        self.wish.as_ref().map(|wish| *wish.borrow()).unwrap_or_default()
    }

    /// Begins to drain or stops it; the last wish counts.
    pub fn drain(&self, shared: &Shared, on: bool, wish: Wish) {
        let directory = &shared.current().directory;
        if directory.draining() != on || self.wish() != wish {
            let limit = wish.limit.map(|limit| crate::store::Rfc3339(UnixMillis(limit.wall.0)).to_string());
            tracing::warn!(on, exit = wish.exit, limit, "an operator has changed draining");
        }
        directory.set_draining(on);
        if let Some(sender) = &self.wish {
            sender.send_replace(if on { wish } else { Wish::default() });
        }
    }
}

/// How draining has ended the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// No call was left.
    LastCall,
    /// So many calls were left at the limit and were ended.
    Cut(usize),
}

impl Drained {
    /// Returns when the process is to end.
    pub async fn wait(&mut self, engine: &Engine, clock: Clock) -> Ending {
        loop {
            let wish = *self.0.borrow_and_update();
            if !wish.exit {
                if self.0.changed().await.is_err() {
                    // Nobody can wish any more.
                    std::future::pending::<()>().await;
                }
                continue;
            }
            // A new wish is looked at within this time, and whoever wished gets his answer before the process ends.
            tokio::time::sleep(LOOK).await;
            let wish = *self.0.borrow_and_update();
            if !wish.exit {
                continue;
            }
            if engine.shared().census.alive(ActorKind::Call) <= 0 {
                tracing::info!("drained: no call is left");
                return Ending::LastCall;
            }
            if wish.limit.is_some_and(|limit| clock.now().mono >= limit.mono) {
                return cut(engine).await;
            }
        }
    }
}

/// Returns when the process is to end because threads of shards have been given up.
pub async fn given_up(engine: &Engine) {
    let mut abandoned = engine.abandoned();
    let too_many = |abandoned: &Abandoned| abandoned.unreplaced || abandoned.threads >= MOST_ABANDONED;
    let Ok(abandoned) = abandoned.wait_for(too_many).await.map(|abandoned| *abandoned) else {
        return std::future::pending().await;
    };
    if abandoned.unreplaced {
        tracing::error!("the process ends at once; the next start takes up its calls");
        return;
    }
    tracing::error!(
        threads = abandoned.threads,
        "too many threads of shards have been given up: new calls are refused, and the process ends with the last call, or soon"
    );
    engine.shared().current().directory.set_draining(true);
    let all_gone = async {
        while engine.shared().census.alive(ActorKind::Call) > 0 {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(LEAVE, all_gone).await.is_err() {
        tracing::warn!("calls are left: they are taken up by the next start");
    }
}

/// Ends the calls that are left and waits for their last words.
async fn cut(engine: &Engine) -> Ending {
    let asked = tokio::time::timeout(LAST_WORDS, engine.ask_all(Ask::Calls)).await;
    let calls = asked.unwrap_or_default();
    let ids =
        calls.iter().filter(|call| call["emergency"] != true).filter_map(|call| call["call_id"].as_str());
    let ids: Vec<_> = ids.filter_map(parse_call_id).collect();
    let stay = calls.len() - ids.len();
    tracing::warn!(
        calls = ids.len(),
        emergency = stay,
        "the limit of draining has come: the calls that are left are ended"
    );
    let (cut, stay) = (ids.len(), stay as i64);
    for (shard, call) in ids {
        // Its end is seen below; an answer of a shard that is stuck is not waited for.
        let _ = tokio::time::timeout(LOOK, engine.ask(shard, Ask::HangUp(call))).await;
    }
    let all_gone = async {
        while engine.shared().census.alive(ActorKind::Call) > stay {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(LAST_WORDS, all_gone).await.is_err() {
        tracing::error!("not every call has ended; those that are left are taken up by the next start");
    }
    Ending::Cut(cut)
}
