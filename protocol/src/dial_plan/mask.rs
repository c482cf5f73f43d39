//! What the far end is shown of the caller: masks and prefixes of the calling party's number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest mask, in characters.
const MAX_MASK: usize = 32;

/// A calling party mask such as `+4989555XXXX`: from the right, each `X` takes a character of the caller's number and every other
/// character stands for itself. What the mask has no place for is dropped, and so is a `+` of the number; an `X` without a character
/// is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NumberMask(String);

/// A text that is no mask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no mask: up to {MAX_MASK} digits, X, * and #, after + or not")]
pub struct BadMask(pub String);

/// Whether `number` can be dialled: digits, `*` and `#`, after `+` or not. A name, as that of an anonymous caller, cannot.
pub fn is_dialable(number: &str) -> bool {
    let digits = number.strip_prefix('+').unwrap_or(number);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'*' | b'#'))
}

impl NumberMask {
    /// The number as the mask shows it. What cannot be dialled stays as it is: a mask must not make a number of a name.
    pub fn apply(&self, number: &str) -> String {
        if !is_dialable(number) {
            return number.to_owned();
        }
        let mut own = number.strip_prefix('+').unwrap_or(number).chars().rev();
        let shown = self.0.chars().rev().filter_map(|c| if c == 'X' { own.next() } else { Some(c) });
        let mut shown: Vec<char> = shown.collect();
        shown.reverse();
        shown.into_iter().collect()
    }
}

impl FromStr for NumberMask {
    type Err = BadMask;

    fn from_str(text: &str) -> Result<Self, BadMask> {
        let places = text.strip_prefix('+').unwrap_or(text);
        let fits = |b: u8| b.is_ascii_digit() || matches!(b, b'X' | b'*' | b'#');
        let well = !places.is_empty() && text.len() <= MAX_MASK && places.bytes().all(fits);
        if well { Ok(Self(text.to_owned())) } else { Err(BadMask(text.to_owned())) }
    }
}

impl TryFrom<String> for NumberMask {
    type Error = BadMask;
    fn try_from(text: String) -> Result<Self, BadMask> {
        text.parse()
    }
}

impl From<NumberMask> for String {
    fn from(mask: NumberMask) -> Self {
        mask.0
    }
}

impl fmt::Display for NumberMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a pattern does to the caller's number: first the mask, then the prefix, in the place of a `+`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallingTransform {
    /// The mask, if any.
    pub mask: Option<NumberMask>,
    /// What is put in front.
    pub prefix: String,
}

impl CallingTransform {
    /// The number as the far end sees it.
    pub fn apply(&self, number: &str) -> String {
        let masked = self.mask.as_ref().map_or_else(|| number.to_owned(), |mask| mask.apply(number));
        if self.prefix.is_empty() || !is_dialable(&masked) {
            return masked;
        }
        format!("{}{}", self.prefix, masked.strip_prefix('+').unwrap_or(&masked))
    }

    /// Whether it leaves every number as it is.
    pub fn is_none(&self) -> bool {
        self.mask.is_none() && self.prefix.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_takes_digits_from_the_right() {
        let shown = |mask: &str, number: &str| mask.parse::<NumberMask>().unwrap().apply(number);
        assert_eq!(shown("+4989555XXXX", "1001"), "+49895551001");
        assert_eq!(shown("55XXX", "35453"), "55453");
        assert_eq!(shown("XXX", "35453"), "453");
        assert_eq!(shown("5XXXX", "12"), "512");
        assert_eq!(shown("5550100", "1001"), "5550100");
        assert_eq!(shown("0XXXX", "anonymous"), "anonymous");
        assert_eq!(shown("0XXXXXXXX", "+4912"), "04912");
    }

    #[test]
    fn what_is_no_mask_is_refused() {
        for text in ["", "+", "1-2", "x", "12+", &"X".repeat(33)] {
            assert_eq!(text.parse::<NumberMask>(), Err(BadMask(text.to_owned())));
        }
    }

    #[test]
    fn the_prefix_goes_before_what_the_mask_left() {
        let transform = CallingTransform { mask: "XX".parse().ok(), prefix: "00".into() };
        assert_eq!(transform.apply("1001"), "0001");
        assert_eq!(transform.apply("anonymous"), "anonymous");
        let prefix = CallingTransform { mask: None, prefix: "00".into() };
        assert_eq!(prefix.apply("+4989"), "004989");
        assert_eq!(CallingTransform::default().apply("+4989"), "+4989");
        assert!(CallingTransform::default().is_none() && !transform.is_none());
    }
}
