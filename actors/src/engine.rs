//! One engine: shards and media workers on arbiter threads, a store, and the questions that may be asked of them.

use std::sync::Arc;

use actix::Addr;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::env::{Shared, Tell};
use crate::generation::Change;
use crate::ids::ShardId;
use crate::shard::{Adopt, Ask, Asked, Hear, Shard};

/// The actors of one engine, for those who ask.
#[derive(Clone)]
pub struct Engine {
    shards: Vec<Addr<Shard>>,
    shared: Arc<Shared>,
}

impl Engine {
    /// An engine whose shards have been started.
    pub fn new(shards: Vec<Addr<Shard>>, shared: Arc<Shared>) -> Engine {
        Engine { shards, shared }
    }

    /// What all shards share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Asks one shard. The answers are all there when this returns.
    pub async fn ask(&self, shard: ShardId, ask: Ask) -> Vec<Value> {
        let (reply, answers) = mpsc::unbounded_channel();
        if let Some(shard) = self.shards.get(usize::from(shard.0)) {
            shard.tell(Asked(ask, reply));
        }
        collect(answers).await
    }

    /// Puts other settings into force. Each shard that has taken them over is told by the channel, which closes after the last one. One
    /// that is silent takes them over before whatever comes to it later.
    pub fn adopt(&self, change: Change) -> mpsc::UnboundedReceiver<ShardId> {
        let (done, adopted) = mpsc::unbounded_channel();
        self.shared.settings.put(change.generation.clone());
        let change = Arc::new(change);
        for shard in &self.shards {
            shard.tell(Adopt { change: change.clone(), done: done.clone() });
        }
        adopted
    }

    /// Which listeners there are has changed: each shard has them soon.
    pub fn hear(&self) {
        for shard in &self.shards {
            shard.tell(Hear);
        }
    }

    /// Asks every shard, for the sake of what it does.
    pub fn tell_all(&self, ask: &Ask) {
        let (reply, _) = mpsc::unbounded_channel();
        for shard in &self.shards {
            shard.tell(Asked(ask.clone(), reply.clone()));
        }
    }

    /// Asks every shard.
    pub async fn ask_all(&self, ask: Ask) -> Vec<Value> {
        let (reply, answers) = mpsc::unbounded_channel();
        for shard in &self.shards {
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
