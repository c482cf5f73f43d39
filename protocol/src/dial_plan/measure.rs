//! How many strings a pattern matches, exactly.

use std::fmt;

use super::MAX_NUMBER;

/// A natural number of 256 bits, the most significant word first so that the derived order is that of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Natural([u64; 4]);

impl Natural {
    const ONE: Self = Self([0, 0, 0, 1]);
    const ZERO: Self = Self([0; 4]);

    /// Saturates, which no pattern of at most 64 elements of at most 13 choices reaches.
    fn times(self, factor: u64) -> Self {
        let mut product = [0; 4];
        let mut carry = 0_u128;
        for (word, out) in self.0.iter().zip(&mut product).rev() {
            let sum = u128::from(*word) * u128::from(factor) + carry;
            *out = sum as u64;
            carry = sum >> 64;
        }
        if carry == 0 { Self(product) } else { Self([u64::MAX; 4]) }
    }

    fn plus(self, other: Self) -> Self {
        let mut total = [0; 4];
        let mut carry = 0_u128;
        for ((a, b), out) in self.0.iter().zip(&other.0).zip(&mut total).rev() {
            let sum = u128::from(*a) + u128::from(*b) + carry;
            *out = sum as u64;
            carry = sum >> 64;
        }
        if carry == 0 { Self(total) } else { Self([u64::MAX; 4]) }
    }
}

/// How wide a pattern is; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Width {
    /// First, so that a pattern with `!` is wider than any without.
    open: bool,
    strings: Natural,
}

impl Width {
    /// That of a pattern that matches one string.
    pub(super) const ONE: Self = Self { open: false, strings: Natural::ONE };

    /// The width of a pattern whose single-character elements have these numbers of choices, and that has a `!`
    /// if `open`.
    pub(super) fn new(choices: impl Iterator<Item = u32>, open: bool) -> Self {
        let mut strings = Natural::ONE;
        let mut length = 0;
        for count in choices {
            strings = strings.times(u64::from(count));
            length += 1;
        }
        if open {
            // Each length from one digit up to what fits: P * (10 + 100 + ...).
            let mut power = strings;
            strings = Natural::ZERO;
            for _ in length..MAX_NUMBER {
                power = power.times(10);
                strings = strings.plus(power);
            }
        }
        Self { open, strings }
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.strings.0;
        if (a, b, c) == (0, 0, 0) {
            write!(f, "{d} string{}", if d == 1 { "" } else { "s" })
        } else {
            let about = self.strings.0.iter().fold(0.0, |sum, word| sum * 2f64.powi(64) + *word as f64);
            write!(f, "{about:.1e} strings")
        }
    }
}
