//! Digest answers (RFC 7616, RFC 8760), written apart from the engine's.

use md5::Md5;
use sha2::{Digest, Sha256};

/// One challenge of a 401.
#[derive(Clone, Debug)]
pub(crate) struct Challenge {
    pub(crate) realm: String,
    pub(crate) nonce: String,
    pub(crate) algorithm: String,
    pub(crate) stale: bool,
}

impl Challenge {
    /// Reads the value of a WWW-Authenticate header.
    #[track_caller]
    pub(crate) fn parse(value: &str) -> Challenge {
        Challenge {
            realm: param(value, "realm").expect("a realm"),
            nonce: param(value, "nonce").expect("a nonce"),
            algorithm: param(value, "algorithm").unwrap_or_else(|| "MD5".to_owned()),
            stale: param(value, "stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        }
    }

    /// The value of the Authorization header that answers it, for the `nc`th use of the nonce.
    pub(crate) fn answer(&self, user: &str, password: &str, method: &str, uri: &str, nc: u32) -> String {
        let hash = |parts: &[&str]| hash(&self.algorithm, &parts.join(":"));
        let ha1 = hash(&[user, &self.realm, password]);
        let ha2 = hash(&[method, uri]);
        let (count, cnonce) = (format!("{nc:08x}"), "0a4f113b");
        let response = hash(&[&ha1, &self.nonce, &count, cnonce, "auth", &ha2]);
        format!(
            "Digest username=\"{user}\", realm=\"{}\", nonce=\"{}\", uri=\"{uri}\", response=\"{response}\", \
             algorithm={}, cnonce=\"{cnonce}\", qop=auth, nc={count}",
            self.realm, self.nonce, self.algorithm
        )
    }
}

/// `H(text)` in hexadecimal.
pub(crate) fn hash(algorithm: &str, text: &str) -> String {
    match algorithm {
        "SHA-256" => hex(&Sha256::digest(text)),
        "MD5" => hex(&Md5::digest(text)),
        other => panic!("the engine asks for {other}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A parameter of a header's value, without its quotes.
fn param(value: &str, name: &str) -> Option<String> {
    value.split([',', ' ']).find_map(|part| {
        let (key, text) = part.trim().split_once('=')?;
        (key == name).then(|| text.trim_matches('"').to_owned())
    })
}
