//! The shell around each machine: feed it inside `catch_unwind`, release its outputs only if it came back, rebuild it where it stands
//! if it did not.
//!
//! A machine that has panicked is never used again: it may hold half a change. It is rebuilt from the last state in which
//! an input ended well, and given the same input once more; if that panics too, or if it happens more than
//! [`MAX_PANICS`] times in [`WINDOW`], the actor ends in good order.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use tandem_protocol::time::{Instant, Now};

/// More panics than this in [`WINDOW`] end an actor.
pub const MAX_PANICS: usize = 5;
/// The time over which panics are counted.
pub const WINDOW: Duration = Duration::from_secs(10);

/// A sans-IO state machine as an actor drives it.
pub trait Machine: Sized {
    /// What happens to it.
    type Input;
    /// What it wants done.
    type Output;

    /// Takes one input.
    fn handle(&mut self, input: &Self::Input, now: Now, out: &mut Vec<Self::Output>);

    /// When it wants to be told the time.
    fn deadline(&self) -> Option<Instant>;

    /// Its state as it must be found after a fault; `None` while it is in no state worth rebuilding.
    fn freeze(&self) -> Option<Bytes>;

    /// The machine again.
    fn thaw(frozen: &Bytes, now: Now) -> Option<Self>;
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
#[derive(Debug)]
pub struct Shell<M> {
    machine: M,
    frozen: Option<Bytes>,
    panics: SmallVec<[Instant; 2]>,
    injection: Injection,
}

impl<M: Machine> Shell<M> {
    /// A shell around `machine`.
    pub fn new(machine: M) -> Shell<M> {
        let frozen = machine.freeze();
        Shell { machine, frozen, panics: SmallVec::new(), injection: Injection::None }
    }

    /// The machine, to look at.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The state from which the machine would be rebuilt.
    pub fn frozen(&self) -> Option<&Bytes> {
        self.frozen.as_ref()
    }

    /// Replaces a lost machine.
    pub fn replace(&mut self, machine: M) {
        self.frozen = machine.freeze();
        self.machine = machine;
    }

    /// Makes the machine panic.
    pub fn inject(&mut self, injection: Injection) {
        self.injection = injection;
    }

    /// Feeds one input; what the machine wants done is pushed to `out` only if it came back.
    pub fn feed(&mut self, input: &M::Input, now: Now, out: &mut Vec<M::Output>) -> Fed {
        let Err(panic) = self.attempt(input, now, out) else { return Fed::Well };
        self.panics.retain(|at| now.mono.since(*at) < WINDOW);
        self.panics.push(now.mono);
        if self.panics.len() > MAX_PANICS {
            return Fed::Lost { panic };
        }
        let Some(machine) = self.frozen.as_ref().and_then(|frozen| M::thaw(frozen, now)) else {
            return Fed::Lost { panic };
        };
        self.machine = machine;
        match self.attempt(input, now, out) {
            Ok(()) => Fed::Rebuilt { panic },
            Err(panic) => Fed::Lost { panic },
        }
    }

    fn attempt(&mut self, input: &M::Input, now: Now, out: &mut Vec<M::Output>) -> Result<(), String> {
        let before = out.len();
        let injection = self.injection;
        if injection == Injection::Once {
            self.injection = Injection::None;
        }
        let machine = &mut self.machine;
        let result = catch_unwind(AssertUnwindSafe(|| {
            machine.handle(input, now, out);
            assert!(injection == Injection::None, "injected by an operator");
        }));
        match result {
            Ok(()) => {
                self.frozen = self.machine.freeze();
                Ok(())
            }
            Err(payload) => {
                out.truncate(before);
                Err(words(payload.as_ref()))
            }
        }
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
mod tests {
    use super::*;

    /// Adds its inputs; panics half-way at 13, each time, and at 7 the first time in the process of a state.
    #[derive(Debug, PartialEq)]
    struct Adder {
        sum: u32,
        frail: bool,
    }

    impl Machine for Adder {
        type Input = u32;
        type Output = u32;
        fn handle(&mut self, input: &u32, _now: Now, out: &mut Vec<u32>) {
            self.sum += input;
            out.push(self.sum);
            assert!(*input != 13, "thirteen");
            assert!(!(*input == 7 && self.frail), "seven");
        }
        fn deadline(&self) -> Option<Instant> {
            None
        }
        fn freeze(&self) -> Option<Bytes> {
            (self.sum >= 10).then(|| Bytes::from(self.sum.to_string()))
        }
        fn thaw(frozen: &Bytes, _now: Now) -> Option<Adder> {
            Some(Adder { sum: std::str::from_utf8(frozen).ok()?.parse().ok()?, frail: false })
        }
    }

    fn at(s: u64) -> Now {
        Now { mono: Instant(s * 1_000_000), ..Now::default() }
    }

    #[test]
    fn a_rebuilt_machine_has_the_state_before_the_panic_and_gets_the_input_again() {
        let mut shell = Shell::new(Adder { sum: 10, frail: true });
        let mut out = Vec::new();
        assert_eq!(shell.feed(&7, at(0), &mut out), Fed::Rebuilt { panic: "seven".into() });
        assert_eq!(out, vec![17]);
    }

    #[test]
    fn an_input_that_panics_twice_is_the_end_and_leaves_no_output() {
        let mut shell = Shell::new(Adder { sum: 10, frail: true });
        let mut out = Vec::new();
        assert_eq!(shell.feed(&13, at(0), &mut out), Fed::Lost { panic: "thirteen".into() });
        assert!(out.is_empty());
    }

    #[test]
    fn without_a_checkpoint_there_is_nothing_to_rebuild() {
        let mut shell = Shell::new(Adder { sum: 0, frail: true });
        assert!(matches!(shell.feed(&7, at(0), &mut Vec::new()), Fed::Lost { .. }));
    }

    #[test]
    fn the_sixth_panic_in_ten_seconds_is_the_end_but_not_in_a_minute() {
        let run = |gap: u64| {
            let mut shell = Shell::new(Adder { sum: 10, frail: false });
            (0..6)
                .map(|n| {
                    shell.inject(Injection::Once);
                    shell.feed(&1, at(n * gap), &mut Vec::new())
                })
                .filter(|fed| matches!(fed, Fed::Lost { .. }))
                .count()
        };
        assert_eq!(run(1), 1);
        assert_eq!(run(12), 0);
    }
}
