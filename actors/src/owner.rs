//! Who owns a transaction, and hears what becomes of it.
//!
//! An address of actix is two allocations, and so is each that is made of a weak one to send a single message. So what is written to
//! often is held at one address for all, and tables have a weak share of that.

use std::sync::{Arc, Weak};

use actix::{Actor, Addr, AsyncContext, Context, WeakRecipient};
use tandem_protocol::dialog::Input;

use crate::dialog::DialogActor;
use crate::env::{Tell, Told};

/// One address for all who write to an actor: it lives as long as one of them does.
pub(crate) type Address<A> = Arc<Addr<A>>;

/// The same, of an actor that need not live.
#[derive(Debug)]
pub(crate) struct WeakAddress<A: Actor>(Weak<Addr<A>>);

/// Starts an actor that has its own address from the beginning.
pub(crate) fn start<A>(actor: impl FnOnce(WeakAddress<A>) -> A) -> Address<A>
where
    A: Actor<Context = Context<A>>,
{
    let ctx = Context::new();
    let address = Arc::new(ctx.address());
    ctx.run(actor(WeakAddress::of(&address)));
    address
}

impl<A: Actor> WeakAddress<A> {
    pub(crate) fn of(address: &Address<A>) -> WeakAddress<A> {
        WeakAddress(Arc::downgrade(address))
    }

    /// The address that others share already, else one for all from now on: for the actor itself.
    pub(crate) fn get_or_share(&mut self, ctx: &Context<A>) -> Address<A>
    where
        A: Actor<Context = Context<A>>,
    {
        self.0.upgrade().unwrap_or_else(|| {
            let address = Arc::new(ctx.address());
            self.0 = Arc::downgrade(&address);
            address
        })
    }

    /// The address; `None` if the actor has ended.
    pub(crate) fn upgrade(&self) -> Option<Address<A>> {
        self.0.upgrade().filter(|address| address.connected())
    }
}

impl<A: Actor> Default for WeakAddress<A> {
    /// That of nobody yet.
    fn default() -> WeakAddress<A> {
        WeakAddress(Weak::new())
    }
}

impl<A: Actor> Clone for WeakAddress<A> {
    fn clone(&self) -> WeakAddress<A> {
        WeakAddress(self.0.clone())
    }
}

/// Who hears of a transaction. Not kept alive by it.
#[derive(Clone)]
pub(crate) enum Owner {
    /// A dialog.
    Dialog(WeakAddress<DialogActor>),
    /// An actor that sends a request now and then.
    Other(WeakRecipient<Told<Input>>),
}

impl Owner {
    /// False once the owner has ended.
    pub(crate) fn lives(&self) -> bool {
        match self {
            Owner::Dialog(dialog) => dialog.upgrade().is_some(),
            Owner::Other(other) => other.upgrade().is_some(),
        }
    }

    /// Tells the owner, if there is still one.
    pub(crate) fn tell(&self, input: Input) {
        match self {
            Owner::Dialog(dialog) => {
                if let Some(dialog) = dialog.upgrade() {
                    dialog.tell(input);
                }
            }
            Owner::Other(other) => {
                if let Some(other) = other.upgrade() {
                    other.tell(input);
                }
            }
        }
    }
}
