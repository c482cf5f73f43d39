//! Phones that fall silent in a call, or are gone without a word.

use tandem_phone::CallHandle;

use crate::phones::Phones;
use crate::script::Script;
use crate::world::World;

impl Script {
    /// One end of a call falls silent; which one, if it is still in the call.
    pub(crate) fn fade(
        &mut self,
        world: &World,
        phones: &Phones,
        n: usize,
        callee: bool,
        vanishes: bool,
    ) -> Option<(usize, CallHandle)> {
        let dial = self.dials[n].as_mut()?;
        let leg = dial.legs.iter().find(|leg| leg.answered.is_some() && leg.ends.is_empty());
        let (phone, handle) = match leg.filter(|_| callee) {
            Some(leg) => (leg.phone, leg.handle),
            None => (dial.caller, dial.handle),
        };
        if !dial.ends.is_empty() {
            return None;
        }
        // Who calls himself would vanish at both ends, and nobody would be left to hang up.
        let alone = dial.ears().filter(|(other, _)| *other == phone).count() > 1;
        if vanishes && !alone {
            let local = phones.handsets[phone].phone.config().local;
            for id in &dial.call_ids {
                world.cut(local, id);
            }
        }
        dial.faded = Some((world.now(), phone, vanishes && !alone));
        Some((phone, handle))
    }
}
