//! Redirection (RFC 3261 §8.1.3.4, §21.3): a 3xx's contacts are tried in the order of their q, or handed to the caller.
//!
//! Where a contact leads is not decided here: [`Output::Redirected`] asks, [`Input::Rerouted`] answers.

use serde::{Deserialize, Serialize};

use super::{CALLER, Call, CalleeCodecs, Cause, Destination, LegId, Output, Phase, Side};
use crate::dialog::Command;
use crate::time::Now;

/// How many contacts of redirections one call tries: a ring of redirections ends here at the latest.
const MOST_DETOURS: u8 = 5;
/// How many contacts of one redirection are looked at.
const MOST_CONTACTS: usize = 8;

/// The answer to [`Output::Redirected`].
#[derive(Clone, Debug)]
pub enum Reroute {
    /// The call goes on to `destination`; the contacts in `rest` have not been tried.
    To {
        /// Where it goes.
        destination: Box<Destination>,
        /// What is left if that fails.
        rest: Vec<String>,
        /// The codecs of those who may be there.
        codecs: CalleeCodecs,
    },
    /// The caller gets the redirection with these contacts.
    Pass(Vec<String>),
    /// No contact leads anywhere.
    Nowhere,
}

/// Where redirections have led a call so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Detours {
    /// Contacts still to be tried, the best first.
    contacts: Vec<String>,
    tried: u8,
    /// Who was asked where the contacts lead has not answered yet.
    asked: bool,
}

impl Call {
    /// A callee answers with a 3xx, which its failure follows. Those of several devices of a station are put together.
    pub(super) fn leg_redirects(&mut self, leg: LegId, contacts: &[String]) {
        if self.phase == Phase::Hunting && self.leg(leg).is_some_and(|leg| !leg.ending && !leg.gone) {
            if !self.redirected {
                // Contacts of an earlier redirection have been overtaken by this one.
                self.detours.contacts.clear();
                self.redirected = true;
            }
            let room = MOST_CONTACTS.saturating_sub(self.detours.contacts.len());
            self.detours.contacts.extend(contacts.iter().take(room).cloned());
        }
    }

    /// The hunt has failed with `status`: true if the call can still go where a redirection leads.
    pub(super) fn take_detour(&mut self, status: u16, out: &mut Vec<Output>) -> bool {
        let fresh = std::mem::take(&mut self.redirected) && (300..400).contains(&status);
        let spent = self.detours.tried >= MOST_DETOURS && !fresh;
        if self.detours.contacts.is_empty() || status >= 600 || spent {
            return false;
        }
        let contacts = std::mem::take(&mut self.detours.contacts);
        let exhausted = self.detours.tried >= MOST_DETOURS;
        self.detours.asked = true;
        self.deadline = None;
        out.push(Output::Redirected { status, contacts, fresh, exhausted });
        true
    }

    /// Where the contacts lead.
    pub(super) fn rerouted(&mut self, status: u16, reroute: &Reroute, now: Now, out: &mut Vec<Output>) {
        if self.phase != Phase::Hunting || !std::mem::take(&mut self.detours.asked) {
            return;
        }
        match reroute {
            Reroute::To { destination, rest, codecs } => {
                self.codecs.lead_to(codecs.clone());
                self.detours.tried += 1;
                self.detours.contacts.clone_from(rest);
                self.refusal = None;
                self.destination = (**destination).clone();
                self.hunt(now, out);
            }
            Reroute::Pass(contacts) => {
                out.push(Output::Tell(CALLER, Command::Redirect { status, contacts: contacts.clone() }));
                self.clear(Cause::Redirected, Side::Callee, status, now, out);
            }
            Reroute::Nowhere => self.fail(status, now, out),
        }
    }
}
