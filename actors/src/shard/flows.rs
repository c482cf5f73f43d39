//! Which stations have bindings by which connection, so that a connection's end takes them along (RFC 5626 §5.3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tandem_protocol::flow::ConnectionId;

use crate::directory::KeptBindings;

/// The connections by which the devices of a shard's stations keep flows.
#[derive(Debug, Default)]
pub(super) struct StationFlows {
    stations: BTreeSet<(ConnectionId, Arc<str>)>,
    connections: BTreeMap<Arc<str>, Vec<ConnectionId>>,
}

impl StationFlows {
    /// A REGISTER for a station comes by a connection: should that end before the binding is published, the station hears of it.
    pub(super) fn expect(&mut self, station: &Arc<str>, connection: ConnectionId) {
        if self.stations.insert((connection, station.clone())) {
            self.connections.entry(station.clone()).or_default().push(connection);
        }
    }

    /// A station has these bindings now.
    pub(super) fn set(&mut self, station: &Arc<str>, bindings: Option<&KeptBindings>) {
        for old in self.connections.remove(station).unwrap_or_default() {
            self.stations.remove(&(old, station.clone()));
        }
        let kept = bindings.filter(|kept| kept.keeps_flow()).into_iter().flatten();
        for connection in kept.filter_map(|binding| binding.kept_flow()) {
            self.expect(station, connection);
        }
    }

    /// The stations that have had a flow by this connection, which has ended.
    pub(super) fn ended(&mut self, connection: ConnectionId) -> Vec<Arc<str>> {
        let first = (connection, Arc::from(""));
        let of_it = self.stations.range(first..).take_while(|(id, _)| *id == connection);
        let stations: Vec<Arc<str>> = of_it.map(|(_, station)| station.clone()).collect();
        for station in &stations {
            self.stations.remove(&(connection, station.clone()));
            if let Some(connections) = self.connections.get_mut(station) {
                connections.retain(|other| *other != connection);
                if connections.is_empty() {
                    self.connections.remove(station);
                }
            }
        }
        stations
    }
}

#[cfg(test)]
mod tests {
    use tandem_protocol::flow::{Flow, ListenerId};
    use tandem_protocol::registrar::Binding;
    use tandem_protocol::time::UnixMillis;

    use super::*;

    fn connection(generation: u64) -> ConnectionId {
        ConnectionId { shard: 1, generation }
    }

    fn binding(generation: u64, reg_id: Option<u32>) -> Binding {
        let flow = Flow::to(ListenerId::default(), ([192, 0, 2, 1], 5060).into());
        Binding {
            contact: "sip:a@192.0.2.1".to_owned(),
            call_id: "c".to_owned(),
            cseq: 1,
            expires_at: UnixMillis(1),
            q: 1000,
            source: Flow { connection: Some(connection(generation)), ..flow },
            path: Vec::new(),
            instance: Some("i".to_owned()),
            reg_id,
            user_agent: None,
        }
    }

    fn kept(bindings: &[Binding]) -> Option<KeptBindings> {
        KeptBindings::new(&crate::station::freeze_bindings(bindings).unwrap(), bindings)
    }

    #[test]
    fn a_connection_ends_the_flows_that_are_there_and_those_that_are_on_their_way() {
        let mut flows = StationFlows::default();
        let (a, b): (Arc<str>, Arc<str>) = ("1001".into(), "1002".into());
        flows.set(&a, kept(&[binding(1, Some(1)), binding(2, Some(2)), binding(3, None)]).as_ref());
        flows.expect(&b, connection(1));
        assert_eq!(flows.ended(connection(1)), [a.clone(), b]);
        assert!(flows.ended(connection(1)).is_empty() && flows.ended(connection(3)).is_empty());
        // Refreshed by another connection.
        flows.set(&a, kept(&[binding(4, Some(2))]).as_ref());
        assert!(flows.ended(connection(2)).is_empty());
        assert_eq!(flows.ended(connection(4)), std::slice::from_ref(&a));
        flows.set(&a, None);
        assert!(flows.stations.is_empty() && flows.connections.is_empty());
    }
}
