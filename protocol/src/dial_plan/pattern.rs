//! The pattern language: reading and matching.

use super::MAX_NUMBER;
use super::measure::Width;

/// Why a pattern cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternFault {
    /// Nothing is to be matched.
    #[error("is empty")]
    Empty,
    /// More elements than a number has characters.
    #[error("has more than {MAX_NUMBER} elements")]
    TooLong,
    /// A character that is no element; write it after `\` to mean itself.
    #[error("{0:?} is not an element of a pattern")]
    BadCharacter(char),
    /// A set that is not closed, is empty, or has a range that is none.
    #[error("has a set that cannot be read")]
    BadSet,
    /// `\` at the end.
    #[error("ends in \\")]
    NothingEscaped,
    /// `!` twice.
    #[error("has more than one !")]
    TwoRuns,
    /// `.` twice, or after `!`.
    #[error("has a . after another . or after !")]
    BadSeparator,
}

/// One element of a pattern, in the form in which equal patterns are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    /// One character that is itself.
    Literal(u8),
    /// One of a set, as bits in the order of [`SET`].
    OneOf(u16),
    /// One or more digits.
    Run,
}

/// What a set may hold.
const SET: &[u8; 13] = b"0123456789*#+";
const DIGITS: u16 = 0x3FF;

impl Element {
    fn set(bits: u16) -> Self {
        match SET.get(bits.trailing_zeros() as usize) {
            Some(only) if bits.count_ones() == 1 => Self::Literal(*only),
            _ => Self::OneOf(bits),
        }
    }

    fn accepts(self, byte: u8) -> bool {
        match self {
            Self::Literal(own) => own == byte,
            Self::OneOf(bits) => set_bit(byte).is_some_and(|bit| bits & bit != 0),
            Self::Run => byte.is_ascii_digit(),
        }
    }

    fn choices(self) -> Option<u32> {
        match self {
            Self::Literal(_) => Some(1),
            Self::OneOf(bits) => Some(bits.count_ones()),
            Self::Run => None,
        }
    }
}

fn set_bit(byte: u8) -> Option<u16> {
    match byte {
        b'0'..=b'9' => Some(1 << (byte - b'0')),
        b'*' => Some(1 << 10),
        b'#' => Some(1 << 11),
        b'+' => Some(1 << 12),
        _ => None,
    }
}

/// A pattern ready to match.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    elements: Vec<Element>,
    separator: usize,
    run: Option<usize>,
    width: Width,
}

impl Compiled {
    pub(super) fn parse(text: &str) -> Result<Self, PatternFault> {
        let mut elements = Vec::new();
        let mut separator = None;
        let mut run = None;
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let element = match c {
                'X' => Element::OneOf(DIGITS),
                'Z' => Element::OneOf(DIGITS & !1),
                '[' => read_set(&mut chars)?,
                '\\' => literal(chars.next().ok_or(PatternFault::NothingEscaped)?, |c| c.is_ascii_graphic())?,
                '.' if separator.is_some() || run.is_some() => return Err(PatternFault::BadSeparator),
                '.' => {
                    separator = Some(elements.len());
                    continue;
                }
                '!' if run.is_some() => return Err(PatternFault::TwoRuns),
                '!' => {
                    run = Some(elements.len());
                    Element::Run
                }
                c => literal(c, |c| c.is_ascii_alphanumeric() || matches!(c, '*' | '#' | '+' | '-' | '_'))?,
            };
            elements.push(element);
        }
        if elements.is_empty() {
            return Err(PatternFault::Empty);
        }
        if elements.len() > MAX_NUMBER {
            return Err(PatternFault::TooLong);
        }
        let width = Width::new(elements.iter().filter_map(|e| e.choices()), run.is_some());
        Ok(Self { elements, separator: separator.unwrap_or(0), run, width })
    }

    pub(super) fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// How many characters stand before the `.`.
    pub(super) fn separator(&self) -> usize {
        self.separator
    }

    pub(super) fn width(&self) -> &Width {
        &self.width
    }

    /// The only string that it matches, if there is only one.
    pub(super) fn exact(&self) -> Option<String> {
        self.elements
            .iter()
            .map(|element| match element {
                Element::Literal(byte) => Some(char::from(*byte)),
                Element::OneOf(_) | Element::Run => None,
            })
            .collect()
    }

    /// How many characters of `dialled` were matched, if it matches: all, or all but a final `#`.
    pub(super) fn matches(&self, dialled: &str) -> Option<usize> {
        let number = dialled.as_bytes();
        if self.matches_all(number) {
            return Some(number.len());
        }
        let number = number.strip_suffix(b"#")?;
        let ends_in_hash = self.elements.last() == Some(&Element::Literal(b'#'));
        (!ends_in_hash && self.matches_all(number)).then_some(number.len())
    }

    fn matches_all(&self, number: &[u8]) -> bool {
        let pairs = |elements: &[Element], bytes: &[u8]| {
            elements.len() == bytes.len() && elements.iter().zip(bytes).all(|(e, b)| e.accepts(*b))
        };
        if number.len() > MAX_NUMBER {
            return false;
        }
        let Some(run) = self.run else { return pairs(&self.elements, number) };
        let (before, after) = (&self.elements[..run], &self.elements[run + 1..]);
        if number.len() < self.elements.len() {
            return false;
        }
        let (head, rest) = number.split_at(before.len());
        let (middle, tail) = rest.split_at(rest.len() - after.len());
        pairs(before, head) && middle.iter().all(u8::is_ascii_digit) && pairs(after, tail)
    }
}

fn literal(c: char, allowed: impl Fn(char) -> bool) -> Result<Element, PatternFault> {
    let byte = u8::try_from(c).ok().filter(|_| allowed(c)).ok_or(PatternFault::BadCharacter(c))?;
    Ok(Element::Literal(byte))
}

fn read_set(chars: &mut std::str::Chars<'_>) -> Result<Element, PatternFault> {
    let (inside, rest) = chars.as_str().split_once(']').ok_or(PatternFault::BadSet)?;
    *chars = rest.chars();
    let mut bits = 0;
    let mut bytes = inside.as_bytes();
    while let [first, others @ ..] = bytes {
        match others {
            [b'-', last, more @ ..] => {
                if !(first.is_ascii_digit() && last.is_ascii_digit() && first <= last) {
                    return Err(PatternFault::BadSet);
                }
                (*first..=*last).filter_map(set_bit).for_each(|bit| bits |= bit);
                bytes = more;
            }
            _ => {
                bits |= set_bit(*first).ok_or(PatternFault::BadSet)?;
                bytes = others;
            }
        }
    }
    if bits == 0 { Err(PatternFault::BadSet) } else { Ok(Element::set(bits)) }
}
