//! What a trunk's numbers look like here, and ours there: rules for the called and the calling number, in and out.

use serde::{Deserialize, Serialize};

use crate::dial_plan::is_dialable;

/// Which calls of a trunk a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// Those that come by it.
    In,
    /// Those that leave by it.
    Out,
}

/// Whose number a rule changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Party {
    /// Who is called.
    Called,
    /// Who calls.
    Calling,
}

/// One rule: of a number that begins so, some characters are taken away in front and others put there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberRule {
    /// Which calls.
    pub direction: Direction,
    /// Whose number.
    pub party: Party,
    /// How a number begins that it fits; "": any.
    pub begins: String,
    /// How long a number is that it fits; `None`: of any length.
    pub length: Option<usize>,
    /// How many characters are taken away.
    pub strip: usize,
    /// What is put in their place.
    pub prefix: String,
}

impl NumberRule {
    fn fits(&self, number: &str) -> bool {
        number.starts_with(&self.begins) && self.length.is_none_or(|length| number.len() == length)
    }
}

/// A number as the first rule that fits it leaves it. What cannot be dialled, as the name of somebody anonymous, stays as it is, and
/// so does what would become nothing.
pub fn apply(rules: &[NumberRule], direction: Direction, party: Party, number: String) -> String {
    let fits = |rule: &&NumberRule| (rule.direction, rule.party) == (direction, party) && rule.fits(&number);
    let Some(rule) = rules.iter().find(fits).filter(|_| is_dialable(&number)) else { return number };
    let changed = format!("{}{}", rule.prefix, number.get(rule.strip..).unwrap_or_default());
    if is_dialable(&changed) { changed } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(begins: &str, length: Option<usize>, strip: usize, prefix: &str) -> NumberRule {
        let (begins, prefix) = (begins.to_owned(), prefix.to_owned());
        NumberRule { direction: Direction::In, party: Party::Calling, begins, length, strip, prefix }
    }

    #[test]
    fn the_first_rule_that_fits_changes_a_number() {
        let rules = [rule("+49", None, 3, "0"), rule("+", None, 1, "00"), rule("", Some(7), 0, "089")];
        let shown = |number: &str| apply(&rules, Direction::In, Party::Calling, number.to_owned());
        assert_eq!(shown("+4989555"), "089555");
        assert_eq!(shown("+15550100"), "0015550100");
        assert_eq!(shown("5550100"), "0895550100");
        assert_eq!(shown("555010"), "555010");
        assert_eq!(shown("anonymous"), "anonymous");
    }

    #[test]
    fn a_rule_is_for_one_direction_and_party_and_never_makes_nothing_of_a_number() {
        let rules = [rule("", None, 4, "")];
        let shown = |direction, party, number: &str| apply(&rules, direction, party, number.to_owned());
        assert_eq!(shown(Direction::Out, Party::Calling, "12345"), "12345");
        assert_eq!(shown(Direction::In, Party::Called, "12345"), "12345");
        assert_eq!(shown(Direction::In, Party::Calling, "12345"), "5");
        assert_eq!(shown(Direction::In, Party::Calling, "1234"), "1234");
        assert_eq!(shown(Direction::In, Party::Calling, "123"), "123");
    }
}
