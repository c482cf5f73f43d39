//! The dial plan of the settings.

use std::sync::Arc;

use tandem_protocol::dial_plan::{
    self, CallingTransform, DialPlan, DialPlanError, DialPlanSpec, SearchSpace,
};

use super::WiringError;
use crate::settings::{self, Settings};

/// The dial plan: its own patterns, and one for each extension.
///
/// # Errors
/// Every fault of it.
pub fn dial_plan(settings: &Settings) -> Result<DialPlan, WiringError> {
    build_dial_plan(settings).map_err(WiringError::DialPlan)
}

pub(crate) fn build_dial_plan(settings: &Settings) -> Result<DialPlan, Vec<DialPlanError>> {
    dial_plan_of(settings, settings.station.iter().map(|station| station.name.as_str().into()))
}

/// The same, which calls the stations by these names: others may have them too.
pub(super) fn dial_plan_of(
    settings: &Settings,
    names: impl Iterator<Item = Arc<str>>,
) -> Result<DialPlan, Vec<DialPlanError>> {
    DialPlan::with_more(own_patterns(settings), extensions(settings, names))
}

/// The dial plan without the extensions.
pub(crate) fn own_patterns(settings: &Settings) -> DialPlanSpec {
    let plan = &settings.dial_plan;
    let patterns = plan
        .pattern
        .iter()
        .map(|p| {
            let mut pattern =
                dial_plan::Pattern::new(p.pattern.clone(), p.target.clone()).in_partition(&p.partition);
            pattern.strip = p.strip.map(|strip| strip as usize);
            pattern.prefix.clone_from(&p.prefix);
            pattern.calling = CallingTransform {
                mask: p.calling_party_mask.clone(),
                prefix: p.calling_party_prefix.clone(),
            };
            pattern.emergency = p.emergency;
            pattern
        })
        .collect();
    DialPlanSpec {
        partitions: plan.partition.iter().map(|p| p.name.clone()).collect(),
        search_spaces: plan
            .calling_search_space
            .iter()
            .map(|c| SearchSpace { name: c.name.clone(), partitions: c.partitions.clone() })
            .collect(),
        patterns,
    }
}

/// A pattern for each extension.
fn extensions(
    settings: &Settings,
    names: impl Iterator<Item = Arc<str>>,
) -> impl Iterator<Item = dial_plan::Pattern> {
    let extension = |number: &str, target, partition: &str| {
        dial_plan::Pattern::new(number, target).in_partition(partition)
    };
    let stations = settings
        .station
        .iter()
        .zip(names)
        .map(move |(s, name)| extension(&s.extension, dial_plan::Target::Station(name), &s.partition));
    let services = settings.service.iter().map(move |s| {
        extension(
            &s.extension,
            dial_plan::Target::Service(s.name.as_str().into()),
            settings::INTERNAL_PARTITION,
        )
    });
    let users = settings.user.iter().map(move |u| {
        extension(&u.extension, dial_plan::Target::User(u.name.as_str().into()), settings::INTERNAL_PARTITION)
    });
    stations.chain(services).chain(users)
}
