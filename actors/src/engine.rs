//! One engine: shards and media workers on arbiter threads, a store, and the questions that may be asked of them.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use actix::Addr;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::env::{Shared, Tell};
use crate::generation::Change;
use crate::ids::ShardId;
use crate::shard::{Adopt, Ask, Asked, Hear, Shard};

/// Threads of shards that were stuck and were given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abandoned {
    /// How many.
    pub threads: u32,
    /// For the last of them there is no other.
    pub unreplaced: bool,
}

struct Inner {
    /// Whoever puts another into the place of one keeps the lock meanwhile, so that no change of settings passes it by.
    shards: Mutex<Vec<Addr<Shard>>>,
    abandoned: watch::Sender<Abandoned>,
    shared: Arc<Shared>,
}

/// The actors of one engine, for those who ask.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

/// The same for one who does not keep it.
pub(crate) struct WeakEngine(Weak<Inner>);

impl WeakEngine {
    /// The engine, if anybody keeps it.
    pub(crate) fn upgrade(&self) -> Option<Engine> {
        self.0.upgrade().map(Engine)
    }
}

impl Engine {
    /// An engine whose shards have been started.
    pub fn new(shards: Vec<Addr<Shard>>, shared: Arc<Shared>) -> Engine {
        let (abandoned, _) = watch::channel(Abandoned::default());
        Engine(Arc::new(Inner { shards: Mutex::new(shards), abandoned, shared }))
    }

    pub(crate) fn downgrade(&self) -> WeakEngine {
        WeakEngine(Arc::downgrade(&self.0))
    }

    /// What all shards share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Addr<Shard>>> {
        self.0.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the shard that `start` starts into the place of another.
    ///
    /// # Errors
    /// It could not be started: the other keeps its place.
    pub fn replace(
        &self,
        shard: ShardId,
        start: impl FnOnce() -> io::Result<Addr<Shard>>,
    ) -> io::Result<Addr<Shard>> {
        let mut shards = self.lock();
        let next = start()?;
        if self.shared().current().directory.draining() {
            let (reply, _) = mpsc::unbounded_channel();
            next.tell(Asked(Ask::BeRegistered { registered: false, stopping: false }, reply));
        }
        if let Some(place) = shards.get_mut(usize::from(shard.0)) {
            *place = next.clone();
        }
        Ok(next)
    }

    pub(crate) fn tell_abandoned(&self, abandoned: Abandoned) {
        self.0.abandoned.send_replace(abandoned);
    }

    /// Tells of each thread that is given up.
    pub fn abandoned(&self) -> watch::Receiver<Abandoned> {
        self.0.abandoned.subscribe()
    }

    /// Asks one shard. The answers are all there when this returns.
    pub async fn ask(&self, shard: ShardId, ask: Ask) -> Vec<Value> {
        let (reply, answers) = mpsc::unbounded_channel();
        if let Some(shard) = self.lock().get(usize::from(shard.0)) {
            shard.tell(Asked(ask, reply));
        }
        collect(answers).await
    }

    /// Puts other settings into force. Each shard that has taken them over is told by the channel, which closes after the last one. One
    /// that is silent takes them over before whatever comes to it later.
    pub fn adopt(&self, change: Change) -> mpsc::UnboundedReceiver<ShardId> {
        let (done, adopted) = mpsc::unbounded_channel();
        let shards = self.lock();
        self.shared().settings.put(change.generation.clone());
        let change = Arc::new(change);
        for shard in shards.iter() {
            shard.tell(Adopt { change: change.clone(), done: done.clone() });
        }
        adopted
    }

    /// Which listeners there are has changed: each shard has them soon.
    pub fn hear(&self) {
        for shard in self.lock().iter() {
            shard.tell(Hear);
        }
    }

    /// Asks every shard, for the sake of what it does.
    pub fn tell_all(&self, ask: &Ask) {
        let (reply, _) = mpsc::unbounded_channel();
        for shard in self.lock().iter() {
            shard.tell(Asked(ask.clone(), reply.clone()));
        }
    }

    /// Asks every shard.
    pub async fn ask_all(&self, ask: Ask) -> Vec<Value> {
        let (reply, answers) = mpsc::unbounded_channel();
        for shard in self.lock().iter() {
            shard.tell(Asked(ask.clone(), reply.clone()));
        }
        drop(reply);
        collect(answers).await
    }
}

/// All answers, in the order they came.
async fn collect(mut answers: mpsc::UnboundedReceiver<Value>) -> Vec<Value> {
    let mut all = Vec::new();
    while let Some(answer) = answers.recv().await {
        all.push(answer);
    }
    all
}
