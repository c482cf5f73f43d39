//! `Authorization` and `Proxy-Authorization`: reading and verifying.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::{Algorithm, DigestError, Hex, params};

/// The quality of protection of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Qop {
    /// Method and URI are protected.
    Auth,
    /// The body is too.
    AuthInt,
}

impl Qop {
    fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::AuthInt => "auth-int",
        }
    }
}

/// What a server knows of a user's password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Secret {
    /// The password itself: every algorithm works.
    Password(Box<str>),
    /// `MD5(user:realm:password)`: only MD5 works.
    Ha1Md5([u8; 16]),
    /// `SHA-256(user:realm:password)`: only SHA-256 works.
    Ha1Sha256(Box<[u8; 32]>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(..)",
            Self::Ha1Md5(_) => "Ha1Md5(..)",
            Self::Ha1Sha256(_) => "Ha1Sha256(..)",
        })
    }
}

impl Secret {
    /// A hash that is written in hexadecimal, as [`Algorithm::ha1`] does; `None` if it is none of this algorithm.
    pub fn ha1_of_hex(algorithm: Algorithm, text: &str) -> Option<Self> {
        match algorithm {
            Algorithm::Md5 => bytes_of_hex(text).map(Self::Ha1Md5),
            Algorithm::Sha256 => bytes_of_hex(text).map(|ha1| Self::Ha1Sha256(Box::new(ha1))),
        }
    }

    /// Whether it can verify credentials of that algorithm.
    pub fn serves(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Password(_) => true,
            Self::Ha1Md5(_) => algorithm == Algorithm::Md5,
            Self::Ha1Sha256(_) => algorithm == Algorithm::Sha256,
        }
    }

    /// H(A1). What is stored as a hash is hashed all the same, so that it takes as long as a password, and so is what
    /// cannot serve: nobody learns from the time which users exist, and in which form their passwords are kept.
    fn ha1(&self, algorithm: Algorithm, user: &str, realm: &str) -> Hex {
        let (password, stored): (&str, Option<&[u8]>) = match self {
            Self::Password(password) => (password, None),
            Self::Ha1Md5(ha1) => (super::NOBODY, Some(ha1)),
            Self::Ha1Sha256(ha1) => (super::NOBODY, Some(&**ha1)),
        };
        let hashed = algorithm.hash_of_a1(user, realm, password);
        stored.filter(|_| self.serves(algorithm)).map_or(hashed, Hex::of)
    }
}

/// The bytes that as many pairs of hexadecimal digits stand for.
fn bytes_of_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes = pairs.iter().map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok());
    let bytes: Option<Vec<u8>> = bytes.collect();
    bytes.filter(|_| rest.is_empty())?.try_into().ok()
}

/// The credentials of a request (RFC 7616 §3.4), as they stand in its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// The user.
    pub username: Cow<'a, str>,
    /// The realm the client answers to.
    pub realm: Cow<'a, str>,
    /// The nonce it answers to.
    pub nonce: Cow<'a, str>,
    /// The URI it protected, normally the Request-URI.
    pub uri: Cow<'a, str>,
    /// The digest.
    pub response: Cow<'a, str>,
    /// The hash used.
    pub algorithm: Algorithm,
    /// `None` for the form of RFC 2069.
    pub qop: Option<Qop>,
    /// The client's own nonce; present when `qop` is.
    pub cnonce: Option<Cow<'a, str>>,
    /// The nonce count as written; present when `qop` is.
    nc: Option<Cow<'a, str>>,
}

impl<'a> Credentials<'a> {
    /// Reads the value of an `Authorization` or `Proxy-Authorization` header.
    ///
    /// Parameters may come in any order and quoting; unknown ones are ignored.
    ///
    /// # Errors
    /// [`DigestError`]; a server answers any of them as if no credentials were given, or with 400.
    pub fn parse(value: &'a str) -> Result<Self, DigestError> {
        let mut schemes = params::schemes(value, params::MAX_CREDENTIALS)?;
        let scheme = match schemes.as_mut_slice() {
            [one] if one.is_digest() => one,
            [] | [_] => return Err(DigestError::OtherScheme),
            _ => return Err(DigestError::Malformed),
        };
        let algorithm = match scheme.get("algorithm") {
            None => Algorithm::Md5,
            Some(token) => Algorithm::from_token(token)
                .ok_or_else(|| DigestError::UnsupportedAlgorithm(token.to_owned()))?,
        };
        if scheme.get("userhash").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            return Err(DigestError::HashedUser);
        }
        let qop = match scheme.get("qop") {
            None => None,
            Some(word) if word.eq_ignore_ascii_case("auth") => Some(Qop::Auth),
            Some(word) if word.eq_ignore_ascii_case("auth-int") => Some(Qop::AuthInt),
            Some(word) => return Err(DigestError::UnsupportedQop(word.to_owned())),
        };
        let (cnonce, nc) = match qop {
            None => (None, None),
            Some(_) => {
                let nc = scheme.take("nc")?;
                parse_nc(&nc)?;
                (Some(scheme.take("cnonce")?), Some(nc))
            }
        };
        Ok(Self {
            username: scheme.take("username")?,
            realm: scheme.take("realm")?,
            nonce: scheme.take("nonce")?,
            uri: scheme.take("uri")?,
            response: scheme.take("response")?,
            algorithm,
            qop,
            cnonce,
            nc,
        })
    }

    /// The nonce count. The form of RFC 2069 has none and counts as 1, so that it can use a nonce only once.
    pub fn nonce_count(&self) -> u32 {
        self.nc.as_deref().and_then(|nc| parse_nc(nc).ok()).unwrap_or(1)
    }

    /// Whether the digest is that of `secret` for this request. Compared in constant time.
    ///
    /// It takes the same time whatever the secret is. `body` is needed for `qop=auth-int` only; without it such credentials are wrong. Nothing is said of the
    /// nonce: see [`authenticate`](super::authenticate).
    pub fn verify(&self, method: &str, body: Option<&[u8]>, secret: &Secret) -> bool {
        let ha1 = secret.ha1(self.algorithm, &self.username, &self.realm);
        let Some(expected) = self.expected(method, body, &ha1) else { return false };
        // A longer one is wrong by its length, whatever it begins with.
        let mut response = [0; Hex::LONGEST + 1];
        let len = self.response.len().min(response.len());
        response[..len].copy_from_slice(&self.response.as_bytes()[..len]);
        response.make_ascii_lowercase();
        let equal: bool = expected.as_bytes().ct_eq(&response[..len]).into();
        equal && secret.serves(self.algorithm)
    }

    fn expected(&self, method: &str, body: Option<&[u8]>, ha1: &Hex) -> Option<Hex> {
        let (method, uri) = (method.as_bytes(), self.uri.as_bytes());
        // RFC 7616 §3.4.3
        let ha2 = match self.qop {
            None | Some(Qop::Auth) => self.algorithm.hash(&[method, uri]),
            Some(Qop::AuthInt) => {
                let body_hash = self.algorithm.hash(&[body?]);
                self.algorithm.hash(&[method, uri, body_hash.as_bytes()])
            }
        };
        let counted = match (self.qop, &self.nc, &self.cnonce) {
            (None, ..) => None,
            (Some(qop), Some(nc), Some(cnonce)) => Some((&**nc, &**cnonce, qop)),
            (Some(_), ..) => return None,
        };
        Some(response(self.algorithm, ha1, &self.nonce, counted, &ha2))
    }
}

/// RFC 7616 §3.4.1, and RFC 2069 without `counted` (nonce count, cnonce, qop).
pub(super) fn response(
    algorithm: Algorithm,
    ha1: &Hex,
    nonce: &str,
    counted: Option<(&str, &str, Qop)>,
    ha2: &Hex,
) -> Hex {
    let (ha1, nonce, ha2) = (ha1.as_bytes(), nonce.as_bytes(), ha2.as_bytes());
    match counted {
        None => algorithm.hash(&[ha1, nonce, ha2]),
        Some((nc, cnonce, qop)) => {
            algorithm.hash(&[ha1, nonce, nc.as_bytes(), cnonce.as_bytes(), qop.as_str().as_bytes(), ha2])
        }
    }
}

fn parse_nc(text: &str) -> Result<u32, DigestError> {
    let hexadecimal = !text.is_empty() && text.len() <= 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !hexadecimal {
        return Err(DigestError::Malformed);
    }
    u32::from_str_radix(text, 16).map_err(|_| DigestError::Malformed)
}
