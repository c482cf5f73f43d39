//! Digest authentication for a user agent client: RFC 2617, RFC 7616 and RFC 8760, qop=auth or none.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::text;

/// The hash functions that the phone can compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA-256",
        }
    }

    /// The hash of `data` in lower-case hexadecimal.
    fn hash(self, data: &str) -> String {
        match self {
            Algorithm::Md5 => hex(&<md5::Md5 as md5::Digest>::digest(data)),
            Algorithm::Sha256 => hex(&<sha2::Sha256 as sha2::Digest>::digest(data)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A server's challenge, and how often the phone used its nonce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    algorithm: Algorithm,
    /// Whether the server named the algorithm: then it is named back.
    named: bool,
    /// qop=auth was offered.
    qop: bool,
    /// The server says that only the nonce was wrong.
    pub(crate) stale: bool,
    uses: u32,
}

/// Who asks, for [`Challenge::authorize`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
}

impl Challenge {
    /// Reads a WWW-Authenticate or Proxy-Authenticate value; `None` if the phone cannot answer it.
    pub(crate) fn parse(value: &str) -> Option<Challenge> {
        let (scheme, rest) = value.trim().split_once(char::is_whitespace)?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        let parts = text::split(rest, ',');
        let get = |name| text::param(&parts, name).map(text::unquote);
        let algorithm = get("algorithm");
        let qops = get("qop");
        let qop = qops
            .as_ref()
            .is_some_and(|list| list.split(',').any(|qop| qop.trim().eq_ignore_ascii_case("auth")));
        // Only auth-int offered: nothing that we could send would be accepted.
        if qops.is_some_and(|list| !list.trim().is_empty()) && !qop {
            return None;
        }
        Some(Challenge {
            realm: get("realm")?,
            nonce: get("nonce")?,
            opaque: get("opaque"),
            named: algorithm.is_some(),
            algorithm: match algorithm.unwrap_or_default().to_ascii_uppercase().as_str() {
                "" | "MD5" => Algorithm::Md5,
                "SHA-256" => Algorithm::Sha256,
                _ => return None,
            },
            qop,
            stale: get("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
            uses: 0,
        })
    }

    /// Whether the other is the same nonce.
    pub(crate) fn same_nonce(&self, other: &Challenge) -> bool {
        self.nonce == other.nonce && self.realm == other.realm
    }

    /// The Authorization or Proxy-Authorization value for a request; counts one more use of the nonce.
    pub(crate) fn authorize(&mut self, who: Identity<'_>, method: &str, uri: &str, cnonce: &str) -> String {
        self.uses = self.uses.saturating_add(1);
        let nc = format!("{:08x}", self.uses);
        let ha1 = self.algorithm.hash(&format!("{}:{}:{}", who.user, self.realm, who.password));
        let ha2 = self.algorithm.hash(&format!("{method}:{uri}"));
        let response = self.algorithm.hash(&if self.qop {
            format!("{ha1}:{}:{nc}:{cnonce}:auth:{ha2}", self.nonce)
        } else {
            format!("{ha1}:{}:{ha2}", self.nonce)
        });
        let mut out = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\"",
            quote(who.user),
            quote(&self.realm),
            quote(&self.nonce),
            quote(uri)
        );
        if self.named {
            let _ = write!(out, ", algorithm={}", self.algorithm.name());
        }
        if let Some(opaque) = &self.opaque {
            let _ = write!(out, ", opaque={}", quote(opaque));
        }
        if self.qop {
            let _ = write!(out, ", qop=auth, nc={nc}, cnonce={}", quote(cnonce));
        }
        out
    }
}

fn quote(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUFASA: Identity<'_> = Identity { user: "Mufasa", password: "Circle Of Life" };

    #[test]
    fn the_example_of_rfc_2617_gives_its_response() {
        let mut challenge = Challenge::parse(
            "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", \
             nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
        )
        .unwrap();
        let value = challenge.authorize(MUFASA, "GET", "/dir/index.html", "0a4f113b");
        assert!(value.contains("response=\"6629fae49393a05397450978507c4ef1\""), "{value}");
        assert!(
            value.contains("nc=00000001") && value.contains("opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"")
        );
        assert!(!value.contains("algorithm"), "an unnamed algorithm is not named back: {value}");
        assert!(challenge.authorize(MUFASA, "GET", "/", "x").contains("nc=00000002"));
    }

    #[test]
    fn the_examples_of_rfc_7616_give_their_responses() {
        let who = Identity { user: "Mufasa", password: "Circle of Life" };
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        for (algorithm, response) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let mut challenge = Challenge::parse(&format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
                 opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            ))
            .unwrap();
            let value = challenge.authorize(who, "GET", "/dir/index.html", cnonce);
            assert!(value.contains(&format!("response=\"{response}\"")), "{value}");
            assert!(value.contains(&format!("algorithm={algorithm}")));
        }
    }

    #[test]
    fn a_challenge_without_qop_is_answered_the_old_way() {
        // RFC 2617 section 3.2.2.1 without qop: H(H(A1):nonce:H(A2)).
        let mut challenge = Challenge::parse("Digest realm=\"r\", nonce=\"n\", stale=TRUE").unwrap();
        assert!(challenge.stale);
        let who = Identity { user: "u", password: "p" };
        let value = challenge.authorize(who, "REGISTER", "sip:h", "unused");
        assert!(value.contains("response=\"f7949f33797a7abbe390eaa95b1ca294\""), "{value}");
        assert!(!value.contains("nc=") && !value.contains("cnonce="));
    }

    #[test]
    fn what_cannot_be_answered_is_refused() {
        for value in ["Basic realm=\"r\"", "Digest realm=\"r\"", "Digest nonce=\"n\"", "Digest", ""] {
            assert!(Challenge::parse(value).is_none(), "{value}");
        }
        assert!(Challenge::parse("Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\"").is_none());
        assert!(Challenge::parse("Digest realm=\"r\", nonce=\"n\", algorithm=SHA-512-256").is_none());
    }
}
