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
