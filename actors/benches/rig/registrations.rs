//! Stations that register in turn, each with a fresh nonce: REGISTER, 401, REGISTER, 200.

use std::time::Duration;

use bytes::Bytes;
use tandem_protocol::digest::Challenge;
use tandem_protocol::message::{Header, Message};

use super::{LISTENER, NEAR, Observer, Rig, TOGETHER};

fn register(user: &str, turn: u64, cseq: u32, authorization: &str) -> Bytes {
    format!(
        "REGISTER sip:{LISTENER} SIP/2.0\r\nVia: SIP/2.0/UDP {NEAR};branch=z9hG4bK-{turn}-{cseq}\r\n\
         From: <sip:{user}@{LISTENER}>;tag=1T{turn}\r\nTo: <sip:{user}@{LISTENER}>\r\nCall-ID: {turn}-1@10.0.0.2\r\n\
         CSeq: {cseq} REGISTER\r\nContact: <sip:{user}@{NEAR}>\r\n{authorization}Expires: 36000\r\nMax-Forwards: 70\r\n\
         Content-Length: 0\r\n\r\n"
    )
    .into()
}

fn authorized(user: &str, turn: u64, refused: &Message) -> Bytes {
    let challenges: Vec<&str> = refused.headers(Header::WwwAuthenticate).collect();
    let uri = format!("sip:{LISTENER}");
    let challenge = Challenge::choose(&challenges).unwrap();
    let value = challenge.answer("REGISTER", &uri, user, "secret", "0a4f113b", 1);
    register(user, turn, 2, &format!("Authorization: {value}\r\n"))
}

impl Rig {
    /// Several stations register.
    pub(super) fn registrations(&mut self, observer: &mut dyn Observer) {
        let stations = self.stations;
        let user = |turn: u64| format!("u{}", turn % stations);
        let turns = self.begun..self.begun + TOGETHER;
        self.receive(observer, NEAR, turns.clone().map(|turn| register(&user(turn), turn, 1, "")).collect());
        let refused = self.sent(NEAR, "SIP/2.0 401 ");
        self.pass(observer, Duration::from_millis(1));
        let second =
            turns.zip(&refused).map(|(turn, refused)| authorized(&user(turn), turn, refused)).collect();
        self.receive(observer, NEAR, second);
        self.commit(observer);
        self.sent(NEAR, "SIP/2.0 200 ");
        self.pass(observer, Duration::from_secs(4));
        self.commit(observer);
    }
}
