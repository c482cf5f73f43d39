//! Reloads: other settings come into force while calls are made, ring and are up. None of them leads a call elsewhere.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tandem_actors::config::{EngineConfig, MediaPath};
use tandem_protocol::proxy_list::{Proxy, Selection};

use crate::engine::{Life, config, trunk};
use crate::world::World;

/// What the settings of one turn have that those of others have not.
fn settings(world: &World, turn: u64) -> EngineConfig {
    let mut config = config(world);
    let stations = config.stations.len() as u64;
    // A limit that nobody reaches, at another station each time; and one that comes and goes.
    if let Some(station) =
        config.stations.get_mut((turn % stations) as usize).filter(|s| s.rules.max_calls == 0)
    {
        Arc::make_mut(&mut station.rules).max_calls = 10_000;
    }
    if let Some(mut spare) = config.stations.first().cloned().filter(|_| turn % 2 == 1) {
        spare.name = "spare".into();
        spare.extension = "9999".into();
        config.stations.push(spare);
    }
    for (number, trunk) in
        config.trunks.iter_mut().enumerate().filter(|(n, _)| (*n as u64 + turn).is_multiple_of(3))
    {
        trunk.max_calls = 10_000 + number as u32;
    }
    if turn % 4 >= 2 {
        let mut spare = trunk('z', Selection::Priority, MediaPath::Bypass);
        let nobody = SocketAddr::from((Ipv4Addr::new(10, 8, 0, (turn % 200) as u8), 5060));
        (spare.name, spare.proxies) = ("spare".into(), vec![Proxy::new(nobody)]);
        config.trunks.push(spare);
    }
    if turn % 5 == 4 {
        config.registrar.max_expires += Duration::from_secs(1);
    }
    config
}

/// The settings of turn `turn` come into force, as by `tandem reload`.
pub(crate) fn reload(world: &World, life: &Life, turn: u64) {
    let current = life.shared.current();
    let config = settings(world, turn);
    let comparison = current.compare(&config);
    let change = current.next(config, comparison, &life.shared.metrics);
    // Who asks does not wait: shards take it over as they come to it.
    drop(life.engine.adopt(change));
    life.shared.settings.reap();
}
