//! Dial-plan patterns and extensions: their syntax, and whether two are the same.

use tandem_protocol::dial_plan::{PatternKey, pattern_key};

use crate::settings::values::InvalidValue;

const ALLOWED: InvalidValue = InvalidValue {
    allowed: "digits, letters, *, #, +, - and _ as dialled; X, Z and N for 0-9, 1-9 and 2-9; sets as [2-5] or [^9]; \
              ! once for one or more further digits, with # last after it or not; at most one dot, before any !, \
              which marks the end of what is stripped; \\ before what is meant as itself",
};

const EXTENSION: InvalidValue = InvalidValue {
    allowed: "as a pattern, without a dot: nothing is stripped from an extension; \\. is a dot that is dialled",
};

/// Reads a pattern of the dial plan, to compare it with others.
pub(super) fn pattern(text: &str) -> Result<PatternKey, InvalidValue> {
    pattern_key(text).map_err(|_| ALLOWED)
}

/// Reads an extension.
pub(super) fn extension(text: &str) -> Result<PatternKey, InvalidValue> {
    let key = pattern(text)?;
    let plain = text.replace("\\\\", "").replace("\\.", "");
    if plain.contains('.') { Err(EXTENSION) } else { Ok(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_the_field_are_accepted() {
        for text in [
            "1001",
            "*43",
            "9.X!",
            "X!#",
            "Z",
            "N11",
            "[2-5]XXX",
            "[^9]XX",
            "+49!",
            "\\+1XXX",
            "9.011!",
            "!",
            "#1",
            "alice",
            "john\\.doe",
        ] {
            assert!(pattern(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in
            ["", ".", "10 01", "9.1.X", "!!", "[", "[]", "[^]", "[5-2]", "[2-]", "[a]", "9!!", "9!.1", "a@b"]
        {
            assert_eq!(pattern(text), Err(ALLOWED), "{text}");
        }
    }

    #[test]
    fn an_extension_strips_nothing() {
        assert_eq!(extension("9.XXX"), Err(EXTENSION));
        assert!(extension("john\\.doe").is_ok() && extension("10XX").is_ok());
    }
}
