//! The number that a URI dials (RFC 3966 §5.1, RFC 3261 §19.1.6).

use std::borrow::Cow;

use super::Uri;

/// What people write between digits, and no digit is.
const VISUAL_SEPARATORS: [char; 4] = ['-', '.', '(', ')'];

impl<'a> Uri<'a> {
    /// The user as it is dialled. That of a telephone number (`tel`, or `user=phone`) is without visual separators and without its
    /// parameters, which RFC 3261 §19.1.6 has in the user part.
    pub fn dialled(&self) -> Option<Cow<'a, str>> {
        let user = self.user_unescaped()?;
        let is_phone =
            self.scheme == "tel" || self.param("user").is_some_and(|u| u.eq_ignore_ascii_case("phone"));
        let number = user.split(';').next().unwrap_or_default();
        let digits = number.chars().filter(|c| !VISUAL_SEPARATORS.contains(c));
        if !is_phone
            || !is_number(digits.clone())
            || number.chars().eq(user.chars()) && is_number(number.chars())
        {
            return Some(user);
        }
        Some(Cow::Owned(digits.collect()))
    }
}

/// Whether these are digits and what else a telephone has keys for; `+` is of a global number.
fn is_number(mut digits: impl Iterator<Item = char> + Clone) -> bool {
    digits.clone().next().is_some() && digits.all(|c| c.is_ascii_digit() || matches!(c, '+' | '*' | '#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_telephone_number_is_dialled_without_what_is_written_for_people() {
        for (uri, number) in [
            ("tel:+49-(89)-555.123", "+4989555123"),
            ("TEL:555-123;phone-context=+49", "555123"),
            ("tel:*21%23", "*21#"),
            ("sip:+49-89-555;phone-context=a@h;user=phone", "+4989555"),
            ("sip:+4989555@h;user=phone", "+4989555"),
            // These are names.
            ("sip:9-555@h", "9-555"),
            ("sip:9555;ext=1@h", "9555;ext=1"),
            ("sip:meet-me@h;user=phone", "meet-me"),
            ("sip:-@h;user=phone", "-"),
        ] {
            assert_eq!(Uri::parse(uri).unwrap().dialled().as_deref(), Some(number), "{uri}");
        }
        assert_eq!(Uri::parse("sip:h").unwrap().dialled(), None);
    }
}
