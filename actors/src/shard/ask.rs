//! What the API may ask of a shard. Answers are JSON values on a channel that closes when everyone asked has answered.

use actix::prelude::*;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use tandem_protocol::b2bua::LegId;

use super::Shard;
use crate::call::AskCall;
use crate::calls::CallKey;
use crate::directory::Who;
use crate::env::{Tell, Told};
use crate::ids::ShardId;
use crate::media_pool::order::MediaOrder;
use crate::metrics::ActorKind;
use crate::registration_group::BeRegistered;
use crate::shell::Injection;

/// A question, or an operator's command.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Every call: one value each.
    Calls,
    /// One call: its value, or nothing.
    Call(CallKey),
    /// End a call: `true` if it was there.
    HangUp(CallKey),
    /// The named actors of this shard and its counts: one value.
    Tree,
    /// The SIP messages kept for these Call-IDs, and since when the ring is whole: one value.
    Trace(Vec<String>),
    /// Make an actor's machine panic, or the shard stall: `true` if it was there.
    Inject(String, Injection),
    /// Make a trunk or a registration group panic at every input, also when it was started again, or no longer: `true` if it lives here.
    Poison(String, bool),
    /// Make the shard's thread sleep this long, in milliseconds.
    Stall(u64),
    /// Make the shard's own actor panic.
    Panic,
    /// Whether calls can be taken, media ports being there: `true`, as soon as it is so.
    Ready,
    /// Be registered with providers from now on, or no longer, because the engine drains or stops; answered by nothing, when there is no
    /// registration left to give up.
    BeRegistered {
        /// Whether to be.
        registered: bool,
        /// The process ends.
        stopping: bool,
    },
    /// What the last hour of outside calls held counts no more for this one: of what there was suddenly too much, or nothing if nobody is
    /// called that.
    ClearTollAlarms(Who),
    /// What is left: transactions, dialogs, calls, free ports, timers.
    Count,
}

/// A question and the channel for its answers.
pub struct Asked(pub Ask, pub UnboundedSender<Value>);

/// The shard and key of a printed call id.
pub fn parse_call_id(id: &str) -> Option<(ShardId, CallKey)> {
    let rest = id.strip_prefix('c').filter(|rest| rest.len() == 18 && rest.is_ascii())?;
    let shard = u16::from_str_radix(&rest[..2], 16).ok()?;
    u64::from_str_radix(&rest[2..], 16).ok().map(|key| (ShardId(shard), CallKey(key)))
}

impl Shard {
    fn tree(&self) -> Value {
        let names = |kind: ActorKind, names: Vec<&str>| -> Vec<String> {
            names.into_iter().map(|name| format!("{}:{name}", kind.as_str())).collect()
        };
        json!({
            "id": format!("shard:{}", self.env.shard().0),
            "epoch": self.env.seat().epoch(),
            "trunks": names(ActorKind::Trunk, self.trunks.keys().map(AsRef::as_ref).collect()),
            "registration_groups":
                names(ActorKind::RegistrationGroup, self.groups.keys().map(AsRef::as_ref).collect()),
            "stations": names(ActorKind::Station, self.stations.keys().map(AsRef::as_ref).collect()),
            "calls": self.calls.len(),
            "dialogs": self.dialogs.len(),
            "failures": self.failures.iter()
                .map(|((kind, name), failures)| json!({"id": format!("{}:{name}", kind.as_str()), "failures": failures.count()}))
                .collect::<Vec<_>>(),
        })
    }

    fn trace(&self, call_ids: &[String]) -> Value {
        let messages: Vec<Value> = self
            .endpoint()
            .trace()
            .of(call_ids)
            .into_iter()
            .map(|traced| {
                let listener = self.env.config().listener(traced.flow.listener);
                json!({
                    "time": traced.time.0,
                    "direction": traced.direction,
                    "local": listener.map(|l| l.address.to_string()),
                    "peer": traced.flow.remote.to_string(),
                    "message": String::from_utf8_lossy(&traced.bytes),
                })
            })
            .collect();
        json!({ "messages": messages, "whole_since": self.endpoint().trace().dropped_until().map(|t| t.0) })
    }

    /// Finds the actor that `tree` prints as `id`.
    fn inject(&mut self, id: &str, injection: Injection, ctx: &Context<Self>) -> bool {
        let Some((kind, name)) = id.split_once(':') else { return false };
        let (call, place) =
            name.split_once('/').map_or((name, None), |(call, place)| (call, place.parse::<u8>().ok()));
        let call = || parse_call_id(call).and_then(|(_, key)| self.calls.get(&key));
        match kind {
            "trunk" => self.trunks.get(name).map(|trunk| trunk.tell(injection)).is_some(),
            "registration_group" => self.groups.get(name).map(|group| group.tell(injection)).is_some(),
            "call" => call().map(|call| call.tell(AskCall::Inject(None, injection))).is_some(),
            "dialog" => call().map(|call| call.tell(AskCall::Inject(place.map(LegId), injection))).is_some(),
            "media_session" => {
                let side = place.unwrap_or(0);
                call().map(|call| call.tell(AskCall::InjectSession(side, injection))).is_some()
            }
            "station" if self.env.directory().home(name) == self.env.shard() => {
                let found = self.env.directory().station(name).map(|s| s.config.name.clone());
                found.is_some_and(|name| self.tell_station(&name, injection, ctx))
            }
            "media_worker" if self.env.shard() == ShardId(0) => match name.parse::<u16>() {
                Ok(worker) if worker < self.env.config().media.workers => {
                    self.env.media(worker, MediaOrder::InjectWorker);
                    true
                }
                Ok(_) | Err(_) => false,
            },
            _ => false,
        }
    }
}

impl Handler<Told<Asked>> for Shard {
    type Result = ();
    fn handle(&mut self, told: Told<Asked>, ctx: &mut Context<Self>) {
        let Asked(ask, reply) = told.0;
        let answer = match ask {
            Ask::Calls => {
                for call in self.calls.values() {
                    call.tell(AskCall::Describe(reply.clone()));
                }
                return;
            }
            Ask::Call(key) => {
                if let Some(call) = self.calls.get(&key) {
                    call.tell(AskCall::Describe(reply));
                }
                return;
            }
            Ask::HangUp(key) => {
                Value::Bool(self.calls.get(&key).map(|call| call.tell(AskCall::HangUp)).is_some())
            }
            Ask::Tree => self.tree(),
            Ask::Trace(call_ids) => self.trace(&call_ids),
            Ask::Inject(id, injection) => Value::Bool(self.inject(&id, injection, ctx)),
            Ask::Stall(ms) => {
                // Only an operator's chaos asks for this: it is the fault itself.
                #[allow(clippy::disallowed_methods)]
                std::thread::sleep(std::time::Duration::from_millis(ms));
                Value::Bool(true)
            }
            Ask::Poison(id, poisoned) => Value::Bool(self.poison(&id, poisoned)),
            Ask::Panic => panic!("injected by an operator"),
            Ask::BeRegistered { registered, stopping } => {
                for group in self.groups.values() {
                    group.tell(BeRegistered { registered, stopping, done: reply.clone() });
                }
                return;
            }
            Ask::Ready if self.leases.primed() => Value::Bool(true),
            Ask::Ready => {
                self.awaiting_ports.push(reply);
                return;
            }
            Ask::ClearTollAlarms(who) => json!(self.clear_toll_alarms(&who)),
            Ask::Count => {
                let (transactions, dialogs, calls, free) = self.count();
                json!({"transactions": transactions, "dialogs": dialogs, "calls": calls, "free_ports": free, "timers": self.env.timers()})
            }
        };
        // The asker may have gone.
        let _ = reply.send(answer);
    }
}
