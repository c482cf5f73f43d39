//! What a server that we send calls to has told us of its overload (RFC 7339 §5): which share of new calls we keep from it, and until when.
//!
//! Verbs: [`Restraint::hear`] takes what a response says; [`Restraint::percent`] is what holds now. By the algorithm `loss` (§7) each new
//! call is kept from the server with that chance; what is within a dialog, and calls to emergency numbers, go to it all the same.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::message::feedback::{Feedback, Sequence};
use crate::time::Instant;

/// No server keeps calls away for longer by one response.
const LONGEST: Duration = Duration::from_secs(3600);
/// So long what is older by its number is not believed: responses overtake each other by no more. Beyond it a lower number is that of a
/// server which has begun anew.
const DISORDER: Duration = Duration::from_secs(5);

/// What one server wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restraint {
    percent: u8,
    until: Instant,
    /// The latest number, and until when it counts.
    latest: Option<(Sequence, Instant)>,
}

impl Restraint {
    /// What a response says, which came at `now`. False if it is older than what was said before (§4.4).
    pub fn hear(&mut self, said: Feedback, now: Instant) -> bool {
        let holds = self.latest.filter(|(_, until)| now < *until).map(|(latest, _)| latest);
        if holds.is_some_and(|latest| said.sequence.is_some_and(|sequence| sequence < latest)) {
            return false;
        }
        let validity = said.validity.min(LONGEST);
        self.latest = said.sequence.map(|sequence| (sequence, now + validity.max(DISORDER))).or(self.latest);
        self.percent = if validity.is_zero() { 0 } else { said.percent };
        self.until = now + validity;
        true
    }

    /// The percentage of new calls that are kept from it now.
    pub fn percent(&self, now: Instant) -> u8 {
        if now < self.until { self.percent } else { 0 }
    }

    /// When what it wants ends, unless it says so again.
    pub fn until(&self) -> Instant {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Via;

    fn said(params: &str) -> Feedback {
        Feedback::of(&Via::parse(&format!("SIP/2.0/UDP a;{params}")).unwrap()).unwrap()
    }

    fn at(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    #[test]
    fn what_was_said_holds_for_its_time() {
        let mut server = Restraint::default();
        assert_eq!(server.percent(at(0)), 0);
        assert!(server.hear(said("oc=40;oc-validity=800;oc-seq=1.0"), at(100)));
        assert_eq!((server.percent(at(899)), server.percent(at(900))), (40, 0));
        assert!(server.hear(said("oc=30;oc-seq=1.5"), at(500)), "by default half a second");
        assert_eq!((server.percent(at(999)), server.percent(at(1000))), (30, 0));
        assert!(server.hear(said("oc=90;oc-validity=999999999;oc-seq=2.0"), at(0)));
        assert_eq!(server.until(), at(3_600_000));
    }

    #[test]
    fn an_older_word_changes_nothing_and_the_same_again_does() {
        let mut server = Restraint::default();
        server.hear(said("oc=40;oc-validity=1000;oc-seq=7.2"), at(0));
        assert!(!server.hear(said("oc=100;oc-validity=60000;oc-seq=7.1"), at(10)));
        assert_eq!(server.percent(at(20)), 40);
        assert!(server.hear(said("oc=40;oc-validity=1000;oc-seq=7.2"), at(500)));
        assert_eq!(server.percent(at(1400)), 40);
        assert!(
            server.hear(said("oc=10;oc-validity=1000"), at(600)),
            "who gives no numbers is taken as he comes"
        );
        assert!(!server.hear(said("oc=100;oc-seq=7.1"), at(700)));
    }

    #[test]
    fn a_validity_of_zero_ends_it_and_what_comes_late_does_not_begin_it_again() {
        let mut server = Restraint::default();
        server.hear(said("oc=40;oc-validity=1000;oc-seq=7.2"), at(0));
        assert!(server.hear(said("oc=40;oc-validity=0;oc-seq=7.3"), at(100)));
        assert_eq!(server.percent(at(100)), 0);
        assert!(!server.hear(said("oc=40;oc-validity=1000;oc-seq=7.25"), at(200)));
        assert!(server.hear(said("oc=20;oc-validity=1000;oc-seq=1.0"), at(5_200)), "it has begun anew");
        assert_eq!(server.percent(at(5_300)), 20);
    }
}
