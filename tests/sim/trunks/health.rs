//! What the engine believes of its proxies: the gauges say so, and it is true once everything has come to rest.

use tandem_protocol::trunk_health::State;

use super::checks::rest_is_kept;
use super::{Book, LINES};
use crate::engine::{Life, NOWHERE};
use crate::run::Sim;
use crate::world::World;

/// The gauges of every trunk and of every proxy agree with what the directory says.
pub(crate) fn gauges(world: &World, life: &Life) {
    let check = |name: &str, labels: &[(&str, &str)], is: f64| {
        let said = life.gauges.labelled(name, labels);
        if said.is_none_or(|said| (said - is).abs() > 0.5) {
            world.violation(format!("{name} of {labels:?} is {is} and the gauge says {said:?}"));
        }
    };
    for trunk in life.shared.directory.trunks() {
        let name = ("trunk", &*trunk.config.name);
        check("tandem_trunk_calls_active", &[name], f64::from(trunk.calls.taken()));
        for proxy in trunk.proxies().iter() {
            let address = proxy.proxy.address.to_string();
            let labels = [name, ("proxy", address.as_str())];
            let flag = |is: bool| if is { 1.0 } else { 0.0 };
            check("tandem_trunk_up", &labels, flag(proxy.state() != State::Down));
            check("tandem_trunk_degraded", &labels, flag(proxy.state() == State::Degraded));
        }
    }
}

/// Everything has been well for minutes: whoever is asked by OPTIONS is known to be there, and whoever cannot be reached is not.
pub(crate) fn at_rest(sim: &Sim, life: &Life, book: &Book) {
    let plan = sim.world.plan();
    let calm = plan.faults.loss == 0 && plan.faults.resets == 0 && plan.is_orderly();
    if !calm {
        return;
    }
    for line in LINES.iter().filter(|line| line.qualify.is_some()) {
        let Some(trunk) = life.shared.directory.trunk(line.name) else { continue };
        for proxy in trunk.proxies().iter() {
            let (address, state) = (proxy.proxy.address, proxy.state());
            let wanted = if address.ip() == NOWHERE { State::Down } else { State::Up };
            if state != wanted {
                let what =
                    format!("{address} of trunk {} is believed {state:?} at rest, not {wanted:?}", line.name);
                sim.world.violation(what);
            }
        }
    }
    for what in rest_is_kept(sim, book) {
        sim.world.violation(what);
    }
}
