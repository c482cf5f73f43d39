//! By what the transaction of a message is found (RFC 3261 §17.1.3, §17.2.3).

use tandem_protocol::message::{Message, Method};

use crate::map;

/// What a message says of its transaction, as a number that nobody outside can foresee. Two names that share one are not to be expected
/// in the life of a process: as text, kept twice for each transaction, they would take a good deal of what a transaction takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name(u64);

impl Name {
    /// That of a transaction of ours.
    pub(super) fn of_client(key: u64, branch: &str, method: Method) -> Name {
        Name(map::hash(key, &(branch, method)))
    }

    /// That of a peer's transaction; without the magic cookie by RFC 2543's rule as far as it identifies a request. The ACK of a
    /// non-2xx response has its INVITE's.
    pub(super) fn of_server(key: u64, request: &Message, method: Method) -> Name {
        let via = request.via();
        let method = if method == Method::Ack { Method::Invite } else { method };
        let sender = (via.host, via.sent_by_port(), method);
        Name(match request.unique_branch() {
            Some(branch) => map::hash(key, &(branch, sender)),
            None => {
                let tag = request.from_tag().unwrap_or("");
                map::hash(key, &(request.call_id(), tag, request.cseq(), sender))
            }
        })
    }
}
