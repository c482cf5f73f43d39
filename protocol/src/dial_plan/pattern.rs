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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// One digit.
    pub(super) const DIGIT: Self = Self::OneOf(DIGITS);

    /// The characters that both accept, digits first.
    pub(super) fn common(self, other: Self) -> Vec<u8> {
        let own = match self {
            Self::Literal(byte) => return if other.accepts(byte) { vec![byte] } else { Vec::new() },
            Self::OneOf(bits) => bits,
            Self::Run => DIGITS,
        };
        let in_both = |byte: &u8| set_bit(*byte).is_some_and(|bit| own & bit != 0) && other.accepts(*byte);
        SET.iter().copied().filter(in_both).collect()
    }

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

/// What a pattern matches, whatever it is written like: equal for patterns that match the same numbers element by element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PatternKey(Vec<Element>);

impl PatternKey {
    /// The number it matches, if that is the only one.
    pub fn only_number(&self) -> Option<String> {
        only_number(&self.0)
    }
}

fn only_number(elements: &[Element]) -> Option<String> {
    let literal = |element: &Element| match element {
        Element::Literal(byte) => Some(char::from(*byte)),
        Element::OneOf(_) | Element::Run => None,
    };
    elements.iter().map(literal).collect()
}

/// Reads a pattern to compare it with others.
///
/// # Errors
/// It is no pattern.
pub fn pattern_key(text: &str) -> Result<PatternKey, PatternFault> {
    Compiled::parse(text).map(|compiled| PatternKey(compiled.elements))
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
                'N' => Element::OneOf(DIGITS & !3),
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
        // After `!` a final `#` only ends dialling, dialled or not; it is dropped from every number that has one.
        let hash = Element::Literal(b'#');
        if run.is_some_and(|run| elements.get(run + 1..) == Some(&[hash][..])) {
            elements.pop();
        }
        if elements.len() > MAX_NUMBER {
            return Err(PatternFault::TooLong);
        }
        let width = Width::new(elements.iter().filter_map(|e| e.choices()), run.is_some());
        Ok(Self { elements, separator: separator.unwrap_or(0), run, width })
    }

    /// The one that matches this number and no other.
    pub(super) fn of_number(number: &str) -> Self {
        let elements = number.bytes().map(Element::Literal).collect();
        Self { elements, separator: 0, run: None, width: Width::ONE }
    }

    pub(super) fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// Where the `!` stands.
    pub(super) fn run(&self) -> Option<usize> {
        self.run
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
        only_number(&self.elements)
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
    let (negated, inside) = inside.strip_prefix('^').map_or((false, inside), |inside| (true, inside));
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
    // Of what is not in it only the digits are meant, as by X.
    let meant = if negated && bits != 0 { DIGITS & !bits } else { bits };
    if meant == 0 { Err(PatternFault::BadSet) } else { Ok(Element::set(meant)) }
}
