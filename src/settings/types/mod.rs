//! The sections of a settings file, one file for each part of the engine.

mod dial_plan;
mod dns;
mod listen;
mod media;
mod node;
mod overload;
mod registrar;
mod registration;
mod station;
mod toll_fraud;
mod trunk;
mod trunk_rules;

pub use dial_plan::{CallingSearchSpace, DialPlan, Partition, Pattern, RouteGroup, RouteList};
pub use dns::Dns;
pub use listen::{Listen, Transport};
pub use media::{Location, Media, MediaPath, MediaPool};
pub use node::{Http, Node};
pub use overload::Overload;
pub use registrar::Registrar;
pub use registration::{CallsFrom, Registration, RegistrationGroup};
pub use station::{Credential, Service, ServiceKind, Station, User};
pub use toll_fraud::{AlarmAction, TollFraud};
pub use trunk::{MediaTiming, Redirect, Selection, Srtp, Trunk, TrunkTimers};
pub use trunk_rules::{HeaderRule, NumberRule, RuleDirection, RuleParty, TimerFigures, TimerPreset};

/// The partition that always exists, and that an entry without one is in.
pub const INTERNAL_PARTITION: &str = "internal";

fn internal() -> String {
    INTERNAL_PARTITION.to_owned()
}
