//! Operators: they end calls, and break actors.

use tandem_actors::env::Tell;
use tandem_actors::events::EventKind;
use tandem_actors::shard::{Ask, Asked, parse_call_id};
use tandem_actors::shell::Injection;

use crate::engine::Life;
use crate::run::Sim;
use crate::trunks::LINES;

impl Sim {
    /// An operator breaks the actor of a trunk.
    fn break_trunk(&mut self, life: &Life) {
        let name = self.rng.pick(&LINES.each_ref().map(|line| line.name));
        let ask = Ask::Inject(format!("trunk:{name}"), self.rng.pick(&[Injection::Once, Injection::Always]));
        let (reply, _) = tokio::sync::mpsc::unbounded_channel();
        let home = usize::from(life.shared.current().directory.home(name).0);
        if !life.is_stalled(home) {
            life.shards[home].tell(Asked(ask, reply));
        }
    }

    /// An operator does something to one of the calls that began last.
    pub(crate) fn operate(&mut self, life: &Life, breaks: bool) {
        if breaks && self.rng.permille(300) {
            return self.break_trunk(life);
        }
        let recent: Vec<String> = {
            let disk = self.disk.lock().expect("the disk is whole");
            let started = disk.events.iter().rev().filter(|(_, event)| event.kind == EventKind::CallStarted);
            started.take(8).filter_map(|(_, event)| Some(event.call_id.as_ref()?.to_string())).collect()
        };
        let Some(id) = recent.get(self.rng.below(recent.len() as u64) as usize) else { return };
        let Some((shard, key)) = parse_call_id(id) else { return };
        let ask = if breaks {
            let actors =
                ["call:ID", "dialog:ID/0", "dialog:ID/1", "media_session:ID/0", "media_session:ID/1"];
            let actor = self.rng.pick(&actors).replace("ID", id);
            Ask::Inject(actor, self.rng.pick(&[Injection::Once, Injection::Always]))
        } else {
            Ask::HangUp(key)
        };
        let (reply, _) = tokio::sync::mpsc::unbounded_channel();
        let there = life.shards.get(usize::from(shard.0)).filter(|_| !life.is_stalled(usize::from(shard.0)));
        if let Some(shard) = there {
            shard.tell(Asked(ask, reply));
        }
    }
}
