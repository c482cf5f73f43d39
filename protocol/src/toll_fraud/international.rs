//! Which numbers lead abroad, or to whatever else costs as much.

/// Numbers that are international, by what they begin with.
///
/// The longest prefix decides: with `+` international and `+1` national, `+1876` may be international again, as the numbers of
/// islands that look like a call next door are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct International {
    international: Vec<String>,
    national: Vec<String>,
}

/// What people write between digits (RFC 3966 §3); a carrier passes over it.
fn is_separator(byte: u8) -> bool {
    matches!(byte, b'-' | b'.' | b'(' | b')' | b' ')
}

fn begins(number: &str, prefix: &str) -> bool {
    let mut digits = number.bytes().filter(|byte| !is_separator(*byte));
    prefix.bytes().all(|wanted| digits.next() == Some(wanted))
}

fn longest<'a>(prefixes: &'a [String], number: &str) -> Option<&'a str> {
    prefixes.iter().map(String::as_str).filter(|prefix| begins(number, prefix)).max_by_key(|p| p.len())
}

impl International {
    /// Numbers that begin with one of `international` are, but those for which a longer one of `national` fits.
    pub fn new(international: Vec<String>, national: Vec<String>) -> International {
        International { international, national }
    }

    /// True if no number is.
    pub fn is_empty(&self) -> bool {
        self.international.is_empty()
    }

    /// The prefix that makes `number`, as it is sent to a trunk, an international one.
    pub fn prefix_of(&self, number: &str) -> Option<&str> {
        let abroad = longest(&self.international, number)?;
        let home = longest(&self.national, number);
        home.is_none_or(|home| home.len() < abroad.len()).then_some(abroad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_says_whether_a_number_is_international() {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let numbers = International::new(
            texts(&["+", "00", "011", "+1876", "1876"]),
            texts(&["+49", "0049", "+1", "0111"]),
        );
        for (number, prefix) in [
            ("+442079460000", Some("+")),
            ("+4989555", None),
            ("004989555", None),
            ("0044207", Some("00")),
            ("0-0 44(207)", Some("00")),
            ("+-49", None),
            ("011442079460000", Some("011")),
            ("01115550100", None),
            ("+15550100", None),
            ("+18765550100", Some("+1876")),
            ("18765550100", Some("1876")),
            ("089555", None),
            ("0", None),
            ("+", Some("+")),
            ("", None),
        ] {
            assert_eq!(numbers.prefix_of(number), prefix, "{number}");
        }
        assert_eq!(International::default().prefix_of("+44"), None);
        assert!(International::default().is_empty() && !numbers.is_empty());
    }
}
