//! What a trunk changes of the calls that cross it.

use tandem_actors::config::{Accept, TrunkRules};
use tandem_protocol::header_rules::HeaderRule;
use tandem_protocol::number_rules::{Direction, NumberRule, Party, apply};

use crate::settings::{self, RuleDirection, RuleParty, Trunk, TrunkTimers};

pub(super) fn rules(trunk: &Trunk, timers: &TrunkTimers) -> TrunkRules {
    TrunkRules {
        numbers: trunk.number_rules.iter().map(number_rule).collect(),
        // The settings have been checked: each can be read.
        headers: trunk.header_rules.iter().filter_map(header_rule).collect(),
        diversion_in: trunk.diversion_in,
        diversion_out: trunk.diversion_out,
        history_info_in: trunk.history_info_in,
        history_info_out: trunk.history_info_out,
        accept: Accept {
            presence: trunk.accept_presence,
            refer: trunk.accept_refer,
            unsolicited_notify: trunk.accept_unsolicited_notify,
            replaces: trunk.accept_replaces,
        },
        international: trunk.international,
        overload_control: trunk.overload_control,
        reinvite_delay: timers.reinvite_delay,
        reinvite_delayed: trunk.reinvite_media_timing == settings::MediaTiming::Delayed,
        dscp: trunk.dscp,
    }
}

/// A number that is called by a trunk, as its far end gets it.
pub fn called_by(trunk: &Trunk, number: &str) -> String {
    let rules: Vec<NumberRule> = trunk.number_rules.iter().map(number_rule).collect();
    apply(&rules, Direction::Out, Party::Called, number.to_owned())
}

fn direction(direction: RuleDirection) -> Direction {
    match direction {
        RuleDirection::In => Direction::In,
        RuleDirection::Out => Direction::Out,
    }
}

fn number_rule(rule: &settings::NumberRule) -> NumberRule {
    NumberRule {
        direction: direction(rule.direction),
        party: match rule.party {
            RuleParty::Called => Party::Called,
            RuleParty::Calling => Party::Calling,
        },
        begins: rule.begins.clone(),
        length: rule.length.map(|length| length as usize),
        strip: rule.strip as usize,
        prefix: rule.prefix.clone(),
    }
}

fn header_rule(rule: &settings::HeaderRule) -> Option<HeaderRule> {
    HeaderRule::new(direction(rule.direction), &rule.header, rule.value.parse().ok()?).ok()
}
