//! Request methods.

use serde::{Deserialize, Serialize};

/// The method of a request, or of the request that a response answers. Names are case-sensitive (RFC 3261 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Method {
    /// Opens a session (RFC 3261 section 13) or changes it (section 14).
    Invite,
    /// Confirms the final response to an INVITE (RFC 3261 section 17.1.1.3).
    Ack,
    /// Ends a session (RFC 3261 section 15).
    Bye,
    /// Cancels a pending INVITE (RFC 3261 section 9).
    Cancel,
    /// Asks for capabilities (RFC 3261 section 11).
    Options,
    /// Binds an address to an address of record (RFC 3261 section 10).
    Register,
    /// Carries application information within a dialog (RFC 6086).
    Info,
    /// Changes a session without touching the dialog state (RFC 3311).
    Update,
    /// Acknowledges a reliable provisional response (RFC 3262).
    Prack,
    /// Asks the recipient to send a request (RFC 3515).
    Refer,
    /// Reports an event (RFC 6665).
    Notify,
    /// Asks for reports of an event (RFC 6665).
    Subscribe,
    /// An instant message (RFC 3428).
    Message,
    /// Publishes event state (RFC 3903).
    Publish,
    /// Any other method; its name is [`Message::method_name`](super::Message::method_name).
    Other,
}

impl Method {
    /// The method of that name; [`Method::Other`] if there is none.
    pub fn parse(name: &str) -> Method {
        match name {
            "INVITE" => Method::Invite,
            "ACK" => Method::Ack,
            "BYE" => Method::Bye,
            "CANCEL" => Method::Cancel,
            "OPTIONS" => Method::Options,
            "REGISTER" => Method::Register,
            "INFO" => Method::Info,
            "UPDATE" => Method::Update,
            "PRACK" => Method::Prack,
            "REFER" => Method::Refer,
            "NOTIFY" => Method::Notify,
            "SUBSCRIBE" => Method::Subscribe,
            "MESSAGE" => Method::Message,
            "PUBLISH" => Method::Publish,
            _ => Method::Other,
        }
    }

    /// The name on the wire; "OTHER" for [`Method::Other`].
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Invite => "INVITE",
            Method::Ack => "ACK",
            Method::Bye => "BYE",
            Method::Cancel => "CANCEL",
            Method::Options => "OPTIONS",
            Method::Register => "REGISTER",
            Method::Info => "INFO",
            Method::Update => "UPDATE",
            Method::Prack => "PRACK",
            Method::Refer => "REFER",
            Method::Notify => "NOTIFY",
            Method::Subscribe => "SUBSCRIBE",
            Method::Message => "MESSAGE",
            Method::Publish => "PUBLISH",
            Method::Other => "OTHER",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_name_is_case_sensitive() {
        assert_eq!(Method::parse("INVITE"), Method::Invite);
        assert_eq!(Method::parse("invite"), Method::Other);
        assert_eq!(Method::parse(""), Method::Other);
    }

    #[test]
    fn every_name_is_read_back() {
        for name in ["ACK", "BYE", "CANCEL", "OPTIONS", "REGISTER", "INFO", "UPDATE", "PRACK", "REFER"] {
            assert_eq!(Method::parse(name).as_str(), name);
        }
        for name in ["INVITE", "NOTIFY", "SUBSCRIBE", "MESSAGE", "PUBLISH"] {
            assert_eq!(Method::parse(name).as_str(), name);
        }
    }
}
