//! The client's side: answering 401 and 407.

use serde::{Deserialize, Serialize};

use super::credentials::response;
use super::{Algorithm, DigestError, Qop, params};

/// One challenge of a 401 or 407 that we can answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// The realm.
    pub realm: String,
    /// The nonce.
    pub nonce: String,
    /// The hash.
    pub algorithm: Algorithm,
    /// Whether `qop=auth` is offered; else the form of RFC 2069 is used.
    pub qop_auth: bool,
    /// Whether only the nonce was wrong.
    pub stale: bool,
    /// To be returned as it came.
    pub opaque: Option<String>,
}

impl Challenge {
    /// Reads the values of all `WWW-Authenticate` (or all `Proxy-Authenticate`) headers of a response and
    /// returns the one to answer: the first SHA-256, else the first MD5.
    ///
    /// # Errors
    /// Why the first one cannot be answered, if none can.
    pub fn choose<S: AsRef<str>>(values: &[S]) -> Result<Self, DigestError> {
        let mut best: Option<Self> = None;
        for challenge in Self::one_of_each_realm(values)? {
            if best.as_ref().is_none_or(|b| challenge.algorithm > b.algorithm) {
                best = Some(challenge);
            }
        }
        best.ok_or(DigestError::OtherScheme)
    }

    /// The same for each realm: several proxies, or the branches of one that forks, may ask at once (RFC 3261 §22.3), and each
    /// wants its answer. Never empty.
    ///
    /// # Errors
    /// Why the first challenge cannot be answered, if none can.
    pub fn one_of_each_realm<S: AsRef<str>>(values: &[S]) -> Result<Vec<Self>, DigestError> {
        let mut first_error = None;
        let mut best: Vec<Self> = Vec::new();
        for value in values {
            let schemes = params::schemes(value.as_ref(), params::MAX_CHALLENGE);
            let challenges = match &schemes {
                Ok(schemes) => schemes.iter().map(Self::read).collect(),
                Err(error) => vec![Err(error.clone())],
            };
            for challenge in challenges {
                match challenge {
                    Ok(c) => match best.iter_mut().find(|b| b.realm == c.realm) {
                        Some(known) if c.algorithm > known.algorithm => *known = c,
                        Some(_) => {}
                        None => best.push(c),
                    },
                    Err(error) => {
                        first_error.get_or_insert(error);
                    }
                }
            }
        }
        if best.is_empty() { Err(first_error.unwrap_or(DigestError::OtherScheme)) } else { Ok(best) }
    }

    fn read(scheme: &params::Scheme<'_>) -> Result<Self, DigestError> {
        if !scheme.is_digest() {
            return Err(DigestError::OtherScheme);
        }
        let algorithm = match scheme.get("algorithm") {
            None => Algorithm::Md5,
            Some(token) => Algorithm::from_token(token)
                .ok_or_else(|| DigestError::UnsupportedAlgorithm(token.to_owned()))?,
        };
        let qop = scheme.get("qop").map(str::trim).filter(|q| !q.is_empty());
        let qop_auth = match qop {
            None => false,
            Some(list) if list.split(',').any(|q| q.trim().eq_ignore_ascii_case("auth")) => true,
            Some(list) => return Err(DigestError::UnsupportedQop(list.to_owned())),
        };
        Ok(Self {
            realm: scheme.need("realm")?.to_owned(),
            nonce: scheme.need("nonce")?.to_owned(),
            algorithm,
            qop_auth,
            stale: scheme.get("stale").is_some_and(|s| s.eq_ignore_ascii_case("true")),
            opaque: scheme.get("opaque").map(str::to_owned),
        })
    }

    /// The value of the `Authorization` or `Proxy-Authorization` header that answers this challenge.
    ///
    /// `nc` counts the requests sent with this nonce, from 1. `cnonce` is random text of the caller's.
    pub fn answer(
        &self,
        method: &str,
        uri: &str,
        user: &str,
        password: &str,
        cnonce: &str,
        nc: u32,
    ) -> String {
        let ha1 = self.algorithm.hash_of_a1(user, &self.realm, password);
        let ha2 = self.algorithm.hash(&[method.as_bytes(), uri.as_bytes()]);
        let nc = format!("{nc:08x}");
        let counted = self.qop_auth.then_some((nc.as_str(), cnonce, Qop::Auth));
        let response = response(self.algorithm, &ha1, &self.nonce, counted, &ha2);
        let mut value = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, response=\"{}\", algorithm={}",
            params::quote(user),
            params::quote(&self.realm),
            params::quote(&self.nonce),
            params::quote(uri),
            response.as_str(),
            self.algorithm,
        );
        if self.qop_auth {
            value.push_str(&format!(", qop=auth, nc={nc}, cnonce={}", params::quote(cnonce)));
        }
        if let Some(opaque) = &self.opaque {
            value.push_str(&format!(", opaque={}", params::quote(opaque)));
        }
        value
    }
}

/// Answers the best of a response's challenges: [`Challenge::choose`], then [`Challenge::answer`].
///
/// # Errors
/// [`DigestError`] if no challenge can be answered.
pub fn answer<S: AsRef<str>>(
    challenges: &[S],
    method: &str,
    uri: &str,
    user: &str,
    password: &str,
    cnonce: &str,
    nc: u32,
) -> Result<String, DigestError> {
    Ok(Challenge::choose(challenges)?.answer(method, uri, user, password, cnonce, nc))
}
