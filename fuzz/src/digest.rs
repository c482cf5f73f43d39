//! Digest headers: a challenge that can be answered is answered so that the answer proves the password, and no other.

use std::time::Duration;

use tandem_protocol::digest::{Challenge, Credentials, NonceSigner, Secret};
use tandem_protocol::time::UnixMillis;

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // No header has a carriage return or NUL in it; a line feed separates the headers here.
    if text.contains(['\r', '\0']) {
        return;
    }
    let right = Secret::Password("secret".into());
    if let Ok(credentials) = Credentials::parse(text) {
        let _ = (credentials.verify("INVITE", Some(data), &right), credentials.nonce_count());
        assert!(!credentials.verify("INVITE", Some(b""), &Secret::Password(text.into())));
        NonceSigner::new([7; 32], UnixMillis(0)).check(
            &credentials.nonce,
            UnixMillis(1),
            Duration::MAX,
            [127, 0, 0, 1].into(),
        );
    }
    let challenges: Vec<&str> = text.split('\n').collect();
    let Ok(challenge) = Challenge::choose(&challenges) else { return };
    let answer = challenge.answer("INVITE", "sip:a@b", "alice", "secret", "cn\"once", 1);
    assert!(!answer.contains(['\r', '\n']), "an injected line: {answer:?}");
    let credentials = Credentials::parse(&answer).unwrap_or_else(|why| panic!("{why}: {answer}"));
    assert!(credentials.verify("INVITE", None, &right), "{answer}");
    assert!(!credentials.verify("BYE", None, &right), "{answer}");
    assert!(!credentials.verify("INVITE", None, &Secret::Password("Secret".into())), "{answer}");
}
