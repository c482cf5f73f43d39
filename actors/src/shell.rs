//! The shell around each machine: feed it inside `catch_unwind`, release its outputs only if it came back, rebuild it where it stands
//! if it did not.
//!
//! A machine that has panicked is never used again: it may hold half a change. It is rebuilt as it was when the last
//! input ended well, and given the same input once more; if that panics too, or if it happens more than
//! [`MAX_PANICS`] times in [`WINDOW`], the actor ends in good order.
//!
//! To freeze a machine after each input would cost as much as half of what the inputs do. So it is frozen when it comes to rest (by more
//! than small inputs), when its checkpoint is wanted, and after some inputs at the latest; in between the inputs are kept, and a machine that is
//! thawed takes them again: it knows neither clock nor chance but what they brought, so it comes to the same state.
//!
//! A machine that has rested for [`AWAKE`] [sleeps](Shell::sleep): of it only the checkpoint is kept, which takes a fraction of its room, until
//! the next input, or anybody who looks at it, wakes it.

use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use tandem_protocol::time::{Instant, Now};

/// More panics than this in [`WINDOW`] end an actor.
pub const MAX_PANICS: usize = 5;
/// Inputs that are kept to be repeated; the next one freezes the machine.
const MOST_SINCE: usize = 8;
/// A machine that sleeps has had no input for so long: more than a call with nothing to say is awake for nothing, and one that has is not
/// woken for each word.
pub const AWAKE: Duration = Duration::from_secs(20);
/// The time over which panics are counted.
pub const WINDOW: Duration = Duration::from_secs(10);

/// A sans-IO state machine as an actor drives it.
pub trait Machine: Sized {
    /// What happens to it.
    type Input: Clone;
    /// What it wants done.
    type Output;

    /// Takes one input.
    fn handle(&mut self, input: &Self::Input, now: Now, out: &mut Vec<Self::Output>);

    /// When it wants to be told the time.
    fn deadline(&self) -> Option<Instant>;

    /// True in a state worth rebuilding.
    fn is_kept(&self) -> bool {
        true
    }

    /// True in a state in which it may stay for long: it is frozen then, so that it does not keep the inputs that led there.
    fn rests(&self) -> bool {
        true
    }

    /// True in a state that its checkpoint holds in full, and in which it may stay for long: it may sleep.
    fn may_sleep(&self) -> bool {
        false
    }

    /// One that has nothing to do: it stands for a machine whose checkpoint cannot be read.
    fn blank() -> Self;

    /// Its state as it must be found after a fault; `None` unless it [is kept](Machine::is_kept).
    fn freeze(&self) -> Option<Bytes>;

    /// False for an input that leaves the machine as it is, and only has it say something.
    fn alters(_input: &Self::Input) -> bool {
        true
    }

    /// True for an input that takes next to no room: a machine that rests keeps such inputs rather than be frozen anew.
    fn is_small(_input: &Self::Input) -> bool {
        false
    }

    /// The machine again.
    fn thaw(frozen: &Bytes) -> Option<Self>;
}

/// How an input ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fed {
    /// Well.
    Well,
    /// In a panic; the machine was rebuilt and took the input the second time.
    Rebuilt {
        /// What the panic said.
        panic: String,
    },
    /// In a panic, and there is no state to rebuild from or no sense in trying again.
    Lost {
        /// What the panic said.
        panic: String,
    },
}

/// What an operator or a simulation does to a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Injection {
    /// Nothing.
    #[default]
    None,
    /// It panics at the next input.
    Once,
    /// It panics at every input.
    Always,
}

/// A machine and what is needed to rebuild it.
pub struct Shell<M: Machine> {
    /// In a box: an actor is moved several times before it runs. Empty while it sleeps.
    machine: OnceCell<Box<M>>,
    frozen: Option<Bytes>,
    /// What has ended well since it was frozen, and when it happened.
    since: Vec<(M::Input, Now)>,
    /// It has panicked and was not rebuilt.
    lost: bool,
    /// In a box: few ever do.
    panics: Option<Box<SmallVec<[Instant; 4]>>>,
    injection: Injection,
    /// When the last input came, or the beginning of time if it was woken since; while it sleeps its deadline, or [`NEVER`].
    at: Cell<Instant>,
}

/// There is no deadline.
const NEVER: Instant = Instant(u64::MAX);

impl<M: Machine> Shell<M> {
    /// A shell around `machine`.
    pub fn new(machine: M) -> Shell<M> {
        let frozen = machine.freeze();
        let (machine, since, panics) = (OnceCell::from(Box::new(machine)), Vec::new(), None);
        Shell { machine, frozen, since, lost: false, panics, injection: Injection::None, at: Cell::default() }
    }

    /// The machine, to look at: that wakes it.
    pub fn machine(&self) -> &M {
        self.machine.get_or_init(|| {
            self.at.take();
            Box::new(self.rebuild().unwrap_or_else(M::blank))
        })
    }

    /// When the machine wants to be told the time, or may [sleep](Self::sleep).
    pub fn deadline(&self) -> Option<Instant> {
        let Some(machine) = self.machine.get() else { return Some(self.at.get()).filter(|at| *at != NEVER) };
        let sleep = (machine.may_sleep() && self.frozen.is_some()).then(|| self.at.get() + AWAKE);
        machine.deadline().into_iter().chain(sleep).min()
    }

    /// Has the machine sleep if it may and nothing is due, until the [deadline](Self::deadline) that there is then. False if it stays awake.
    pub fn sleep(&mut self, now: Now) -> bool {
        let Some(machine) = self.machine.get() else { return self.at.get() > now.mono };
        let until = machine.deadline().unwrap_or(NEVER);
        let wanted = until <= now.mono || now.mono.since(self.at.get()) < AWAKE;
        if wanted || self.lost || !machine.may_sleep() {
            return false;
        }
        // It takes small inputs again when it wakes.
        if !self.since.iter().all(|(input, _)| M::is_small(input)) {
            self.freeze();
        }
        if self.frozen.is_none() {
            return false;
        }
        self.machine = OnceCell::new();
        self.at.set(until);
        true
    }

    /// The machine's checkpoint: its state when the last input had ended well.
    pub fn frozen(&mut self) -> Option<&Bytes> {
        if !self.since.is_empty() && !self.lost {
            self.freeze();
        }
        self.frozen.as_ref()
    }

    /// True if the machine would be rebuilt after a fault.
    pub fn is_kept(&self) -> bool {
        self.frozen.is_some()
    }

    /// Another machine as it was when the last input had ended well, for one that is lost; where what came since the last freeze
    /// cannot be repeated, as it was then.
    pub fn last_good(&self) -> Option<M> {
        self.rebuild().or_else(|| M::thaw(self.frozen.as_ref()?))
    }

    /// Replaces a lost machine.
    pub fn replace(&mut self, machine: M) {
        self.machine = OnceCell::from(Box::new(machine));
        self.lost = false;
        self.freeze();
    }

    fn freeze(&mut self) {
        let frozen = self.machine().freeze();
        self.frozen = frozen;
        self.since = Vec::new();
    }

    /// An input has ended well.
    fn note(&mut self, machine: &M, input: &M::Input, now: Now) {
        if self.frozen.is_some() && !M::alters(input) {
            return;
        }
        let small = || M::is_small(input) && self.since.iter().all(|(input, _)| M::is_small(input));
        if self.frozen.is_none()
            || !machine.is_kept()
            || self.since.len() == MOST_SINCE
            || (machine.rests() && !small())
        {
            self.frozen = machine.freeze();
            self.since = Vec::new();
        } else {
            // Most have one at a time.
            self.since.reserve_exact(1);
            self.since.push((input.clone(), now));
        }
    }

    fn rebuild(&self) -> Option<M> {
        let mut machine = M::thaw(self.frozen.as_ref()?)?;
        let repeated = catch_unwind(AssertUnwindSafe(|| {
            let mut done = Vec::new();
            for (input, at) in &self.since {
                machine.handle(input, *at, &mut done);
                done.clear();
            }
        }));
        repeated.ok().map(|()| machine)
    }

    /// Makes the machine panic.
    pub fn inject(&mut self, injection: Injection) {
        self.injection = injection;
    }

    /// Feeds one input; what the machine wants done is pushed to `out` only if it came back.
    pub fn feed(&mut self, input: &M::Input, now: Now, out: &mut Vec<M::Output>) -> Fed {
        self.at.set(now.mono);
        let Err(panic) = self.attempt(input, now, out) else { return Fed::Well };
        let panics = self.panics.get_or_insert_default();
        panics.retain(|at| now.mono.since(*at) < WINDOW);
        panics.push(now.mono);
        self.lost = true;
        if panics.len() > MAX_PANICS {
            return Fed::Lost { panic };
        }
        let Some(machine) = self.rebuild() else { return Fed::Lost { panic } };
        self.machine = OnceCell::from(Box::new(machine));
        match self.attempt(input, now, out) {
            Ok(()) => {
                self.lost = false;
                Fed::Rebuilt { panic }
            }
            Err(panic) => Fed::Lost { panic },
        }
    }

    fn attempt(&mut self, input: &M::Input, now: Now, out: &mut Vec<M::Output>) -> Result<(), String> {
        let before = out.len();
        let injection = self.injection;
        if injection == Injection::Once {
            self.injection = Injection::None;
        }
        let taken = self.machine.take().or_else(|| self.rebuild().map(Box::new));
        let Some(mut machine) = taken else { return Err("its checkpoint cannot be read".to_owned()) };
        let result = catch_unwind(AssertUnwindSafe(|| {
            machine.handle(input, now, out);
            assert!(injection == Injection::None, "injected by an operator");
        }));
        let ended = match result {
            Ok(()) => {
                self.note(&machine, input, now);
                Ok(())
            }
            Err(payload) => {
                out.truncate(before);
                Err(words(payload.as_ref()))
            }
        };
        self.machine = OnceCell::from(machine);
        ended
    }
}

/// What a panic said.
pub fn words(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without words".to_owned()
    }
}

#[cfg(test)]
mod tests;
