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
mod tests {
    use super::*;

    thread_local! {
        static FROZEN: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
        static THAWED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    }

    /// Adds its inputs, and rests at each multiple of 5; panics half-way at 13, each time, and at 7 the first time in the process of
    /// a state.
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
            (self.sum == 100).then_some(at(60).mono)
        }
        fn is_kept(&self) -> bool {
            self.sum >= 10
        }
        fn rests(&self) -> bool {
            self.sum.is_multiple_of(5)
        }
        fn alters(input: &u32) -> bool {
            *input != 0
        }
        fn is_small(input: &u32) -> bool {
            *input == 10
        }
        fn freeze(&self) -> Option<Bytes> {
            FROZEN.set(FROZEN.get() + 1);
            self.is_kept().then(|| Bytes::from(self.sum.to_string()))
        }
        fn may_sleep(&self) -> bool {
            self.rests()
        }
        fn blank() -> Adder {
            Adder { sum: 0, frail: false }
        }
        fn thaw(frozen: &Bytes) -> Option<Adder> {
            THAWED.set(THAWED.get() + 1);
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
    fn inputs_since_the_machine_was_frozen_are_repeated_without_their_outputs() {
        let mut shell = Shell::new(Adder { sum: 10, frail: true });
        let mut out = Vec::new();
        for input in [1, 2, 4] {
            assert_eq!(shell.feed(&input, at(0), &mut out), Fed::Well);
        }
        assert_eq!(shell.feed(&7, at(0), &mut out), Fed::Rebuilt { panic: "seven".into() });
        assert_eq!(out, vec![11, 13, 17, 24]);
        assert_eq!(shell.machine().sum, 24);
    }

    #[test]
    fn a_machine_is_frozen_when_it_rests_when_it_is_wanted_and_after_some_inputs() {
        let mut shell = Shell::new(Adder { sum: 10, frail: false });
        let mut freezes = |inputs: &[u32]| {
            FROZEN.set(0);
            inputs.iter().for_each(|input| assert_eq!(shell.feed(input, at(0), &mut Vec::new()), Fed::Well));
            (FROZEN.get(), shell.frozen().cloned(), FROZEN.get())
        };
        assert_eq!(freezes(&[1, 3]), (0, Some("14".into()), 1), "wanted");
        assert_eq!(freezes(&[1]), (1, Some("15".into()), 1), "at rest");
        assert_eq!(
            freezes(&[5, 1, 5, 5, 5, 5, 5, 5, 5, 5, 1]),
            (2, Some("62".into()), 3),
            "rest, then nine in motion"
        );
    }

    #[test]
    fn a_machine_at_rest_keeps_small_inputs_in_place_of_another_checkpoint() {
        let mut shell = Shell::new(Adder { sum: 10, frail: true });
        let mut feed = |input| (shell.feed(&input, at(0), &mut Vec::new()), shell.frozen.clone());
        FROZEN.set(0);
        assert_eq!(feed(10), (Fed::Well, Some("10".into())));
        assert_eq!(feed(10), (Fed::Well, Some("10".into())));
        assert_eq!(FROZEN.get(), 0);
        assert_eq!(feed(7), (Fed::Rebuilt { panic: "seven".into() }, Some("10".into())));
        assert_eq!(feed(3), (Fed::Well, Some("40".into())), "at rest by more than small inputs");
    }

    #[test]
    fn what_leaves_a_machine_as_it_is_needs_no_other_checkpoint() {
        let mut shell = Shell::new(Adder { sum: 10, frail: true });
        FROZEN.set(0);
        for _ in 0..20 {
            assert_eq!(shell.feed(&0, at(0), &mut Vec::new()), Fed::Well);
        }
        assert_eq!((shell.frozen().cloned(), FROZEN.get()), (Some("10".into()), 0));
        assert_eq!(shell.feed(&7, at(0), &mut Vec::new()), Fed::Rebuilt { panic: "seven".into() });
        assert_eq!((shell.frozen().cloned(), FROZEN.get()), (Some("17".into()), 1));
    }

    #[test]
    fn a_machine_that_has_rested_for_long_sleeps_until_its_next_input() {
        let mut shell = Shell::new(Adder { sum: 10, frail: false });
        THAWED.set(0);
        assert_eq!(shell.feed(&5, at(1), &mut Vec::new()), Fed::Well);
        assert_eq!(shell.deadline(), Some(at(21).mono));
        assert!(!shell.sleep(at(20)), "too early");
        assert!(shell.sleep(at(21)) && shell.machine.get().is_none());
        assert_eq!(shell.deadline(), None);
        assert_eq!(shell.frozen(), Some(&"15".into()), "its checkpoint does not wake it");
        assert!(shell.sleep(at(30)));
        assert_eq!(THAWED.get(), 0);
        let mut out = Vec::new();
        assert_eq!(shell.feed(&1, at(40), &mut out), Fed::Well);
        assert_eq!((out, THAWED.get()), (vec![16], 1));
        assert!(!shell.sleep(at(70)) && shell.deadline().is_none(), "it does not rest");
    }

    #[test]
    fn a_machine_that_sleeps_has_its_deadline_and_is_awake_when_that_is_due() {
        let mut shell = Shell::new(Adder { sum: 50, frail: false });
        assert_eq!(shell.feed(&50, at(10), &mut Vec::new()), Fed::Well);
        assert_eq!(shell.deadline(), Some(at(30).mono));
        assert!(shell.sleep(at(30)));
        assert_eq!(shell.deadline(), Some(at(60).mono));
        assert!(!shell.sleep(at(60)), "it is due");
        assert_eq!(shell.machine().sum, 100, "who looks at it wakes it");
        assert!(shell.sleep(at(59)), "and does not keep it awake");
        assert_eq!(shell.deadline(), Some(at(60).mono));
    }

    #[test]
    fn what_a_machine_has_taken_since_its_checkpoint_is_not_lost_in_its_sleep() {
        let mut shell = Shell::new(Adder { sum: 10, frail: true });
        assert_eq!(shell.feed(&10, at(0), &mut Vec::new()), Fed::Well);
        FROZEN.set(0);
        assert!(shell.sleep(at(20)));
        assert_eq!((FROZEN.get(), shell.frozen.clone()), (0, Some("10".into())), "small");
        assert_eq!(shell.machine().sum, 20);
        assert!(shell.sleep(at(20)));
        assert_eq!(shell.frozen(), Some(&"20".into()));
        assert_eq!(shell.feed(&13, at(30), &mut Vec::new()), Fed::Lost { panic: "thirteen".into() });
        assert_eq!(shell.last_good(), Some(Adder { sum: 20, frail: false }));
        assert!(!shell.sleep(at(60)), "half a change must not be frozen");
    }

    #[test]
    fn a_machine_that_cannot_be_woken_is_lost() {
        let mut shell = Shell::new(Adder { sum: 10, frail: false });
        assert!(shell.sleep(at(20)));
        shell.frozen = Some("damaged".into());
        let lost = Fed::Lost { panic: "its checkpoint cannot be read".into() };
        assert_eq!(shell.feed(&1, at(21), &mut Vec::new()), lost);
        assert_eq!((shell.machine().sum, shell.last_good()), (0, None));
    }

    #[test]
    fn a_lost_machine_is_found_as_it_was_when_the_last_input_ended_well() {
        let mut shell = Shell::new(Adder { sum: 10, frail: true });
        let mut out = Vec::new();
        assert_eq!(shell.feed(&1, at(0), &mut out), Fed::Well);
        assert_eq!(shell.feed(&13, at(0), &mut out), Fed::Lost { panic: "thirteen".into() });
        assert_eq!(shell.last_good(), Some(Adder { sum: 11, frail: false }));
        assert_eq!(shell.frozen(), Some(&"10".into()), "half a change is in no checkpoint");
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
