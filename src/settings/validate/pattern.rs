//! The syntax of dial-plan patterns.

use crate::settings::values::InvalidValue;

const ALLOWED: InvalidValue = InvalidValue {
    allowed: "digits, * and # as dialled; X, Z and N for 0-9, 1-9 and 2-9; sets as [2-5] or [^9]; + first; \
              ! last for one or more further digits, with or without # after it; at most one dot, \
              which marks the end of what is stripped",
};

/// Checks that `text` is a pattern, and not that it makes sense.
pub(super) fn check_pattern(text: &str) -> Result<(), InvalidValue> {
    let rest = text.strip_prefix("\\+").or_else(|| text.strip_prefix('+')).unwrap_or(text);
    let rest = rest.strip_suffix("!#").or_else(|| rest.strip_suffix('!')).unwrap_or(rest);
    let dots = rest.matches('.').count();
    let mut left = rest;
    while let Some(symbol) = left.chars().next() {
        left = match symbol {
            '0'..='9' | '*' | '#' | 'X' | 'x' | 'Z' | 'z' | 'N' | 'n' | 'A'..='D' | '.' => &left[1..],
            '[' => set(left)?,
            _ => return Err(ALLOWED),
        };
    }
    let says_something = text.chars().any(|symbol| symbol != '.');
    if says_something && dots <= 1 { Ok(()) } else { Err(ALLOWED) }
}

/// Reads a set such as `[^2-5*]` and returns what follows it.
fn set(text: &str) -> Result<&str, InvalidValue> {
    let (inside, rest) = text.strip_prefix('[').and_then(|text| text.split_once(']')).ok_or(ALLOWED)?;
    let mut symbols = inside.strip_prefix('^').unwrap_or(inside).bytes().peekable();
    if symbols.peek().is_none() {
        return Err(ALLOWED);
    }
    while let Some(symbol) = symbols.next() {
        match symbol {
            b'0'..=b'9' if symbols.peek() == Some(&b'-') => {
                symbols.next();
                let last = symbols.next().filter(|last| last.is_ascii_digit() && *last >= symbol);
                last.ok_or(ALLOWED)?;
            }
            b'0'..=b'9' | b'*' | b'#' => {}
            _ => return Err(ALLOWED),
        }
    }
    Ok(rest)
}

/// The pattern as it is compared: what it matches, without the mark for stripping.
pub(super) fn comparable(text: &str) -> String {
    text.replace(['.', '\\'], "").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_the_field_are_accepted() {
        for text in
            ["1001", "*43", "9.X!", "X!#", "Z", "[2-5]XXX", "[^9]XX", "+49!", "\\+1XXX", "9.011!", "!", "#1"]
        {
            assert_eq!(check_pattern(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "", ".", "10 01", "alice", "9.1.X", "1!1", "[", "[]", "[^]", "[5-2]", "[2-]", "1+1", "[a]", "9!!",
        ] {
            assert_eq!(check_pattern(text), Err(ALLOWED), "{text}");
        }
    }
}
