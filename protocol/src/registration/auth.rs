//! The credentials of a registration: the last challenge of registrar and proxy, kept for the refreshes.

use serde::{Deserialize, Serialize};

use super::{DownCause, RegistrationSettings, Response};
use crate::digest::Challenge;

/// A challenge and how often it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Answered {
    challenge: Challenge,
    nc: u32,
}

/// Who challenges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Party {
    last: Option<Answered>,
    /// Fresh challenges answered in the present attempt.
    answered: u8,
}

/// How often one party may renew its nonce in one attempt.
const MAX_STALE: u8 = 3;

/// Both parties that may challenge a REGISTER: the registrar (401) and a proxy before it (407).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Authorizer {
    registrar: Party,
    proxy: Party,
}

impl Authorizer {
    /// A new attempt: challenges may be answered again.
    pub(super) fn begin(&mut self) {
        self.registrar.answered = 0;
        self.proxy.answered = 0;
    }

    /// Takes the challenge of a 401 or 407.
    pub(super) fn learn(
        &mut self,
        settings: &RegistrationSettings,
        response: &Response,
    ) -> Result<(), DownCause> {
        let party = if response.status == 407 { &mut self.proxy } else { &mut self.registrar };
        if settings.username.is_empty() {
            return Err(DownCause::Unanswerable("there is no user name to answer with".to_owned()));
        }
        let challenge = match Challenge::choose(&response.challenges) {
            Ok(challenge) => challenge,
            Err(why) => {
                party.last = None;
                return Err(DownCause::Unanswerable(why.to_string()));
            }
        };
        let renewed = party.last.as_ref().is_none_or(|last| last.challenge.nonce != challenge.nonce);
        // The first challenge of an attempt is answered even if old credentials were sent along: their nonce may
        // have ended without the registrar saying `stale`. After that only a stale nonce is worth another try.
        let worth = party.answered == 0 || (challenge.stale && party.answered < MAX_STALE);
        if !(worth && renewed) {
            party.last = None;
            return Err(DownCause::Rejected);
        }
        party.answered += 1;
        party.last = Some(Answered { challenge, nc: 0 });
        Ok(())
    }

    /// The values of `Authorization` and `Proxy-Authorization` for the next REGISTER, which has this Request-URI.
    pub(super) fn headers(
        &mut self,
        settings: &RegistrationSettings,
        uri: &str,
        random: u64,
    ) -> (Option<String>, Option<String>) {
        (self.registrar.header(settings, uri, random), self.proxy.header(settings, uri, random))
    }
}

impl Party {
    fn header(&mut self, settings: &RegistrationSettings, uri: &str, random: u64) -> Option<String> {
        let Answered { challenge, nc } = self.last.as_mut()?;
        *nc = nc.saturating_add(1);
        let (user, password) = (&settings.username, &settings.password);
        let cnonce = format!("{random:016x}");
        Some(challenge.answer("REGISTER", uri, user, password, &cnonce, *nc))
    }
}
