//! Digest authentication: RFC 7616 and RFC 2617 as SIP uses them (RFC 3261 §22, RFC 8760).
//!
//! # The server's rule
//!
//! [`authenticate`] holds it in one place. The nonce is judged first, the credentials second:
//!
//! | nonce | credentials | verdict |
//! | --- | --- | --- |
//! | expired, signed by someone else, or sent to another address | not judged | challenge with `stale=true`: the client tries again by itself |
//! | fresh, guessing is [throttled](Throttle) | of no effect | plain challenge, as for wrong ones |
//! | fresh | wrong | plain challenge: the user may have to type again |
//! | fresh, count used before | right | challenge with `stale=true`: a replay gains nothing, a client loses little |
//! | fresh, count new | right | accepted |
//!
//! So a password can be guessed only with a nonce that was sent to the guesser, whose address is thereby proved, and
//! whose failures count against him and nobody else. Only a client that knows the password ever occupies a slot of the
//! replay table, and a challenge costs no state at all: see [`NonceSigner`] and [`NonceWindows`].

mod client;
mod credentials;
mod nonce;
mod params;
#[cfg(test)]
mod tests;
pub mod throttle;

use std::fmt;
use std::net::IpAddr;

use md5::Md5;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::time::Now;

pub use client::{Challenge, answer};
pub use credentials::{Credentials, Qop, Secret};
pub use nonce::{Accept, NonceCheck, NonceSigner, NonceWindows};
pub use throttle::{Attempt, Throttle};

/// The hash of a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// `MD5`, which is what a challenge without `algorithm` means.
    Md5,
    /// `SHA-256` (RFC 8760).
    Sha256,
}

impl Algorithm {
    /// The token on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }

    /// Reads the token; `None` for the `-sess` forms and `SHA-512-256`, which nobody here ever challenges with.
    pub fn from_token(token: &str) -> Option<Self> {
        [Self::Md5, Self::Sha256].into_iter().find(|a| token.eq_ignore_ascii_case(a.as_str()))
    }

    /// The hash of the parts joined by colons.
    fn hash(self, parts: &[&[u8]]) -> Hex {
        match self {
            Self::Md5 => hash_with(Md5::new(), parts),
            Self::Sha256 => hash_with(Sha256::new(), parts),
        }
    }

    /// `H(user:realm:password)`, the form in which a password may be stored.
    pub fn ha1(self, user: &str, realm: &str, password: &str) -> String {
        self.hash_of_a1(user, realm, password).as_str().to_owned()
    }

    fn hash_of_a1(self, user: &str, realm: &str, password: &str) -> Hex {
        self.hash(&[user.as_bytes(), realm.as_bytes(), password.as_bytes()])
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
thread_local! {
    /// How often this thread has hashed: what judging costs.
    static HASHES: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

fn hash_with<D: Digest>(mut digest: D, parts: &[&[u8]]) -> Hex {
    #[cfg(test)]
    HASHES.set(HASHES.get() + 1);
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            digest.update(b":");
        }
        digest.update(part);
    }
    Hex::of(&digest.finalize())
}

/// A hash in lower-case hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hex {
    digits: [u8; Hex::LONGEST],
    len: usize,
}

impl Hex {
    /// The digits of SHA-256.
    const LONGEST: usize = 64;

    /// The digits of at most as many bytes as SHA-256 has.
    fn of(bytes: &[u8]) -> Hex {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; Hex::LONGEST];
        let (pairs, _) = digits.as_chunks_mut::<2>();
        for (pair, byte) in pairs.iter_mut().zip(bytes) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        Hex { digits, len: (2 * bytes.len()).min(Hex::LONGEST) }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    fn as_str(&self) -> &str {
        // Digits are UTF-8.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

/// Why a header of digest authentication cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The scheme is not `Digest`.
    #[error("the authentication scheme is not Digest")]
    OtherScheme,
    /// A parameter list that cannot be read, or is longer than the limits.
    #[error("malformed parameters")]
    Malformed,
    /// A parameter appears twice.
    #[error("parameter {0} appears twice")]
    Duplicate(String),
    /// A parameter without which nothing can be verified is missing.
    #[error("parameter {0} is missing")]
    Missing(&'static str),
    /// The algorithm is not one of [`Algorithm`].
    #[error("algorithm {0} is not supported")]
    UnsupportedAlgorithm(String),
    /// The quality of protection is neither absent nor `auth` (nor, from a client, `auth-int`).
    #[error("qop {0} is not supported")]
    UnsupportedQop(String),
    /// The user name is sent hashed (`userhash=true`), which we never ask for.
    #[error("hashed user names are not supported")]
    HashedUser,
}

/// The value of a `WWW-Authenticate` or `Proxy-Authenticate` header.
///
/// A server that takes more than one algorithm sends one header for each, the one it prefers first (RFC 8760 §2.4).
pub fn www_authenticate(realm: &str, nonce: &str, algorithm: Algorithm, stale: bool) -> String {
    let realm = params::quote(realm);
    let stale = if stale { ", stale=true" } else { "" };
    [
        "Digest realm=",
        &realm,
        ", nonce=\"",
        nonce,
        "\", algorithm=",
        algorithm.as_str(),
        ", qop=\"auth\"",
        stale,
    ]
    .concat()
}

/// What to do with a request that carries credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The user is who he says.
    Accepted,
    /// Challenge (401 or 407) with `stale=true`: nothing was said of the credentials.
    Stale,
    /// Challenge: the credentials are wrong. To be counted and logged.
    Wrong,
    /// Challenge as for wrong credentials, which were not judged: too many before them were wrong.
    Throttled,
}

/// What a server judges credentials with.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// The realm we challenge with.
    pub realm: &'a str,
    /// Signs and knows our nonces.
    pub signer: &'a NonceSigner,
    /// The replay table.
    pub windows: &'a NonceWindows,
    /// Who has guessed wrong.
    pub throttle: &'a Throttle,
}

/// A request to judge.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// Its credentials.
    pub credentials: &'a Credentials<'a>,
    /// Its method.
    pub method: &'a str,
    /// Its body.
    pub body: &'a [u8],
    /// Where it came from.
    pub source: IpAddr,
}

/// Judges a request's credentials by the rule at the top of this module.
///
/// `secret` is `None` for an unknown user, which takes the same path and time as a wrong password. `known_source` says whether the source is
/// known by other means, so that right credentials are not slowed by other users that fail there: asked where some have. The caller
/// compares `credentials.uri` with the Request-URI if its policy asks for that (RFC 7616 §3.4.6): a request that
/// crossed a proxy has often another one.
pub fn authenticate(
    server: Server<'_>,
    now: Now,
    request: Presented<'_>,
    secret: Option<&Secret>,
    known_source: impl FnOnce() -> bool,
) -> Verdict {
    let Presented { credentials, method, body, source } = request;
    let max_age = server.windows.max_age();
    let NonceCheck::Fresh { id } = server.signer.check(&credentials.nonce, now.wall, max_age, source) else {
        return Verdict::Stale;
    };
    let attempt = Attempt { source, user: &credentials.username };
    // Always: whether a guess was judged is not to be told by the time it takes.
    let nobody = Secret::Password(NOBODY.into());
    let equal = credentials.verify(method, Some(body), secret.unwrap_or(&nobody));
    let right = equal && secret.is_some() && credentials.realm == server.realm;
    if !server.throttle.pair_delay(attempt, now.mono).is_zero() {
        return Verdict::Throttled;
    }
    if !server.throttle.source_delay(source, now.mono).is_zero() {
        // Whoever is right or not: it is not to be told by the time it takes.
        let known = known_source();
        if known && !right {
            server.throttle.pair_failed(attempt, now.mono);
        }
        if !(known && right) {
            return Verdict::Throttled;
        }
    }
    if !right {
        server.throttle.failed(attempt, now.mono);
        return Verdict::Wrong;
    }
    match server.windows.accept(id, credentials.nonce_count(), now.wall) {
        Accept::Ok => {
            server.throttle.succeeded(attempt);
            Verdict::Accepted
        }
        // Another nonce falls into another bucket: nobody is refused because others keep the table busy.
        Accept::Replay | Accept::TableFull => Verdict::Stale,
    }
}

/// In place of the password of a user that does not exist: as long as one, so that its hash takes as long.
const NOBODY: &str = "................";
