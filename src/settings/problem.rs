//! What is wrong in the settings, and where: the errors and warnings of [`load`](super::load).

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::layer;

/// One step of a [`KeyPath`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A key of a table. Those that we look at have names that we know: nothing is allocated for a path that no complaint needs.
    Key(Cow<'static, str>),
    /// A place in a list, counted from 0.
    Index(usize),
}

/// The full path of a key, printed as `station[1].media`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPath(SmallVec<[Step; 4]>);

impl KeyPath {
    /// The path of the whole of the settings.
    pub fn root() -> Self {
        Self::default()
    }

    /// The path of `key` in the table at this path. A dot in `key` starts a further step.
    pub fn key(&self, key: &'static str) -> Self {
        let mut path = self.clone();
        path.0.extend(key.split('.').map(|step| Step::Key(Cow::Borrowed(step))));
        path
    }

    /// The path of one key exactly as it was written, dots included.
    pub(super) fn raw_key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Key(Cow::Owned(key.to_owned())));
        path
    }

    /// The path of item `index`, counted from 0, of the list at this path.
    pub fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Index(index));
        path
    }

    /// The table or list that holds this key; `None` at the root.
    pub fn parent(&self) -> Option<Self> {
        let mut path = self.clone();
        path.0.pop().map(|_| path)
    }

    /// The steps from the root.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The last step if it is a key.
    pub fn last_key(&self) -> Option<&str> {
        match self.0.last() {
            Some(Step::Key(key)) => Some(key),
            Some(Step::Index(_)) | None => None,
        }
    }

    /// The last key on the way, whether or not an index follows it.
    pub(super) fn nearest_key(&self) -> Option<&str> {
        self.0.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(&**key),
            Step::Index(_) => None,
        })
    }

    /// Whether this key is `other` or lies inside it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// The path without its indexes, as `station.media`: the name of the key in the documentation.
    pub fn pattern(&self) -> String {
        let keys: Vec<&str> = self
            .0
            .iter()
            .filter_map(|step| match step {
                Step::Key(key) => Some(&**key),
                Step::Index(_) => None,
            })
            .collect();
        keys.join(".")
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if n == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Where a value came from. Ordered by source, then line, which is the order of printing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The defaults compiled into the program.
    BuiltIn,
    /// A settings file.
    File {
        /// Its path as the operator gave it.
        file: Arc<str>,
        /// The line, counted from 1; `None` for the file as a whole.
        line: Option<usize>,
    },
    /// An environment variable, by name.
    Environment(String),
}

impl Place {
    /// A line of it, if it is a file.
    fn at_line(&self, line: usize) -> Self {
        match self {
            Self::File { file, .. } => Self::File { file: file.clone(), line: Some(line) },
            Self::BuiltIn | Self::Environment(_) => self.clone(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in defaults"),
            Self::File { file, line: Some(line) } => write!(f, "{file}:{line}"),
            Self::File { file, line: None } => f.write_str(file),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// The place of every key of the merged settings.
#[derive(Debug, Default)]
pub(super) struct Places<'a> {
    /// The texts, each over those before it: whose it is, with no line, and what it says.
    texts: Vec<(Place, &'a str)>,
    /// The variables, which are over all texts.
    variables: Vec<(KeyPath, Place)>,
    /// Made when something is looked for: settings that are right seldom need it, and it takes as long as all the rest.
    known: OnceCell<BTreeMap<KeyPath, Place>>,
}

impl<'a> Places<'a> {
    pub(super) fn new(texts: Vec<(Place, &'a str)>, variables: Vec<(KeyPath, Place)>) -> Self {
        Self { texts, variables, known: OnceCell::new() }
    }

    fn known(&self) -> &BTreeMap<KeyPath, Place> {
        self.known.get_or_init(|| {
            let mut known = BTreeMap::new();
            for (whole, text) in &self.texts {
                known.insert(KeyPath::root(), whole.clone());
                for (path, line, replaces) in layer::places(text) {
                    set(&mut known, path, whole.at_line(line), replaces);
                }
            }
            for (path, place) in &self.variables {
                set(&mut known, path.clone(), place.clone(), true);
            }
            known
        })
    }

    /// The place of `path`, or of the nearest table or list around it.
    pub(super) fn locate(&self, path: &KeyPath) -> Place {
        let known = self.known();
        let mut at = Some(path.clone());
        while let Some(path) = at {
            if let Some(place) = known.get(&path) {
                return place.clone();
            }
            at = path.parent();
        }
        Place::BuiltIn
    }
}

/// Notes where `path` was set. A list is replaced whole by a later layer, so what an earlier one said about its items is forgotten.
fn set(known: &mut BTreeMap<KeyPath, Place>, path: KeyPath, place: Place, replaces: bool) {
    if replaces {
        // What lies within a path follows it at once in the order of paths.
        let within = known.range(&path..).map(|(known, _)| known);
        let within: Vec<KeyPath> = within.take_while(|known| known.is_within(&path)).cloned().collect();
        for known_path in within {
            known.remove(&known_path);
        }
    }
    known.insert(path, place);
}

/// One error or warning about the settings.
///
/// Printed as `tandem.toml:7: station[1].media: found "both"; allowed: "anchored" or "bypass"`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file and line, or the environment variable.
    pub place: Place,
    /// The full path of the key; the root when the file as a whole is meant.
    pub key: KeyPath,
    /// What was found and what is allowed, in words.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key == KeyPath::root() {
            write!(f, "{}: {}", self.place, self.text)
        } else {
            write!(f, "{}: {}: {}", self.place, self.key, self.text)
        }
    }
}

/// The settings cannot be used. Prints every problem, one a line.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// The file named by `--config` could not be read.
    #[error("{file}: cannot read the settings file: {reason}")]
    Unreadable {
        /// Its path as the operator gave it.
        file: String,
        /// The operating system's words.
        reason: String,
    },
    /// Errors in a file or a variable, sorted by place.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
