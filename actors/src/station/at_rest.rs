//! A REGISTER for a station that has no actor: carried out where it stands, from the bindings that everybody knows, by the machine that the
//! actor would have.
//!
//! To make an actor for each, and to end it again, would cost more than all else that is done for a refresh. Who writes the bindings of
//! a station is one and the same thread either way: its shard's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use smallvec::SmallVec;
use tandem_protocol::registrar::{BindingRef, ContactSet};

use super::changed::Changed;
use super::{Registered, freeze_bindings};
use crate::directory::StationEntry;
use crate::env::Env;
use crate::metrics::ActorKind;
use crate::registrar::{Register, RegisterDone};
use crate::shell::words;

/// What came of a REGISTER.
pub(crate) enum Done {
    /// Nothing has changed: it is answered at once.
    Unchanged(RegisterDone),
    /// Its answer is for when the store has committed the ticket.
    Changed(RegisterDone),
}

/// Carries out a REGISTER; `ticket` names its commit.
///
/// # Errors
/// The machine has panicked, and said this. Nothing has changed.
pub(crate) fn register(
    env: &Env,
    entry: &Arc<StationEntry>,
    register: &Register,
    ticket: u64,
) -> Result<Done, String> {
    let now = env.now();
    let kept = entry.kept();
    let before: SmallVec<[BindingRef<'_>; 1]> = kept.iter().flat_map(|kept| kept.iter()).collect();
    let injected = env.inject_panic(ActorKind::Station);
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        let mut machine = Registered(before.iter().map(BindingRef::to_owned).collect());
        let result = machine.register(&register.update, now);
        assert!(!injected, "injected by an operator");
        (machine.0, result)
    }));
    let (bindings, result) = attempt.map_err(|panic| words(panic.as_ref()))?;
    let done = RegisterDone::of(register, result.map(|()| bindings.as_slice()), now.wall);
    if result.is_err() || register.update.contacts == ContactSet::Query {
        return Ok(Done::Unchanged(done));
    }
    let frozen = freeze_bindings(&bindings);
    let changed = Changed { env, entry, bindings: &bindings, frozen: frozen.as_ref() };
    changed.publish();
    changed.registered(&before, register.flow.remote, now.wall, ticket);
    Ok(Done::Changed(done))
}
