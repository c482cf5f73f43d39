//! Which proxies want fewer calls (RFC 7339), for every shard to know: whoever hears it first has all shards heed it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tandem_protocol::flow::{Flow, ListenerId};
use tandem_protocol::message::feedback::Feedback;
use tandem_protocol::overload_control::Restraint;
use tandem_protocol::time::Instant;

use super::{Directory, TrunkEntry};

/// So many servers are remembered; a domain may name others for ever.
const MOST: usize = 4096;

type Servers = BTreeMap<(ListenerId, SocketAddr), Arc<ArcSwap<Restraint>>>;

/// What servers want, by how and where they are reached: what one trunk hears holds for another that leads there too. Any shard reads and
/// writes it without waiting.
#[derive(Default)]
pub struct OverloadControl(ArcSwap<Servers>);

impl OverloadControl {
    /// The percentage of new calls that the server at the end of this way wants less of now.
    pub fn percent(&self, to: Flow, now: Instant) -> u8 {
        self.0.load().get(&(to.listener, to.remote)).map_or(0, |server| server.load().percent(now))
    }

    /// When what it wants ends, unless it says so again.
    pub fn until(&self, to: Flow) -> Option<Instant> {
        self.0.load().get(&(to.listener, to.remote)).map(|server| server.load().until())
    }

    fn knows(&self, to: Flow) -> bool {
        self.0.load().contains_key(&(to.listener, to.remote))
    }

    /// Takes what a server says. True if it wants another percentage than before.
    fn hear(&self, to: Flow, said: Feedback, now: Instant) -> bool {
        let at = (to.listener, to.remote);
        if !self.knows(to) {
            self.0.rcu(|servers| {
                let mut next = Servers::clone(servers);
                if next.len() >= MOST {
                    next.retain(|_, server| server.load().percent(now) > 0);
                }
                if next.len() < MOST {
                    next.entry(at).or_default();
                }
                next
            });
        }
        let Some(server) = self.0.load().get(&at).cloned() else { return false };
        let before = server.rcu(|restraint| {
            let mut next = **restraint;
            next.hear(said, now);
            next
        });
        before.percent(now) != server.load().percent(now)
    }
}

impl TrunkEntry {
    /// True if the proxy at the end of this way is the trunk's, and asked what it can take.
    fn asks(&self, place: Option<usize>, to: Flow) -> bool {
        self.config.rules.overload_control
            && Some(usize::from(self.config.listener)) == place
            && self.has_proxy(to.remote)
    }
}

impl Directory {
    /// Takes what a response to a request of ours says, which went to `to`. The trunks that learn something by it.
    pub(crate) fn hear_feedback(&self, to: Flow, said: Feedback, now: Instant) -> Vec<Arc<str>> {
        let place = self.listeners.iter().position(|id| *id == to.listener);
        let trunks = || self.trunks.values().filter(|trunk| trunk.asks(place, to));
        let is_asked = self.overload_control.knows(to) || trunks().next().is_some();
        if !is_asked || !self.overload_control.hear(to, said, now) {
            return Vec::new();
        }
        trunks().map(|trunk| trunk.config.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use tandem_protocol::message::Via;

    use super::*;

    #[test]
    fn a_server_is_heeded_by_everybody_for_as_long_as_it_says() {
        let servers = OverloadControl::default();
        let to = |port| Flow::to(ListenerId::default(), ([192, 0, 2, 1], port).into());
        let said =
            |params: &str| Feedback::of(&Via::parse(&format!("SIP/2.0/UDP a;{params}")).unwrap()).unwrap();
        let at = |ms: u64| Instant(ms * 1000);
        assert!(servers.hear(to(1), said("oc=40;oc-validity=1000;oc-seq=1.0"), at(0)));
        assert!(
            !servers.hear(to(1), said("oc=40;oc-validity=1000;oc-seq=1.1"), at(500)),
            "it wants the same"
        );
        assert_eq!((servers.percent(to(1), at(1400)), servers.percent(to(1), at(1500))), (40, 0));
        assert_eq!((servers.percent(to(2), at(500)), servers.until(to(1))), (0, Some(at(1500))));
        for port in 2..5000 {
            servers.hear(to(port), said("oc=1;oc-validity=10"), at(2000 + u64::from(port)));
        }
        assert!(servers.0.load().len() <= MOST);
    }
}
