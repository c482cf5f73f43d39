//! Merges the layers, reads them as [`Settings`] and checks the whole.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use config::{Config, Value};

use super::decode::decode;
use super::layer::Layer;
use super::problem::{KeyPath, LoadError, Place, Places, Problem};
use super::types::{Listen, Service};
use super::validate::{Findings, validate};
use super::{DEFAULT_TOML, Settings, unbuilt};

/// Settings that may be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings, with every default in its place.
    pub settings: Settings,
    /// What the operator should know, though it stops nothing; to be shown by `check` and at start.
    pub warnings: Vec<Problem>,
    /// What keeps a part from working, such as a certificate that has expired: `check` refuses it, and a start only says it, for the
    /// rest works.
    pub faults: Vec<Problem>,
}

impl Settings {
    /// Reads `file`, if one is given, and the environment of the process over the defaults.
    ///
    /// # Errors
    ///
    /// [`LoadError::Unreadable`] if `file` cannot be read; [`LoadError::Invalid`] with every error
    /// of the file and the environment.
    pub fn load(file: Option<&Path>) -> Result<Loaded, LoadError> {
        let text = match file {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| LoadError::Unreadable {
                file: path.display().to_string(),
                reason: error.to_string(),
            })?),
            None => None,
        };
        let name = file.map(|path| path.display().to_string()).unwrap_or_default();
        Self::load_from(text.as_deref().map(|text| (name.as_str(), text)), std::env::vars_os())
    }

    /// The same from texts: `file` is a name for messages and what is in the file.
    ///
    /// # Errors
    ///
    /// [`LoadError::Invalid`] with every error of the file and the variables.
    pub fn load_from(
        file: Option<(&str, &str)>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Loaded, LoadError> {
        let built_in = Layer::from_toml(DEFAULT_TOML, |_| Place::BuiltIn);
        let mut texts = vec![(Place::BuiltIn, DEFAULT_TOML)];
        let from_file = file.map_or_else(Layer::default, |(name, text)| {
            let name: Arc<str> = name.into();
            texts.push((Place::File { file: name.clone(), line: None }, text));
            Layer::from_toml(text, |line| Place::File { file: name.clone(), line: Some(line) })
        });
        let mut environment = Layer::from_environment(variables);
        let unreadable = !from_file.problems.is_empty();
        let mut problems: Vec<Problem> =
            [&from_file, &environment].iter().flat_map(|layer| layer.problems.clone()).collect();
        if unreadable {
            // What a broken text seems to say is no ground for further errors.
            return Err(invalid(problems));
        }

        let places = Places::new(texts, std::mem::take(&mut environment.variables));
        let merged = merge([built_in, from_file, environment]).map_err(|error| {
            let text = format!("the layers cannot be merged: {error}");
            invalid(vec![Problem { place: Place::BuiltIn, key: KeyPath::root(), text }])
        })?;

        let decoded = decode::<Settings>(&merged);
        problems.extend(decoded.errors.into_iter().map(|(key, text)| Problem {
            place: places.locate(&key),
            key,
            text,
        }));
        let mut findings = Findings::new(&places, &decoded.repairs);
        let Some(mut settings) = decoded.value else { return Err(invalid(problems)) };
        complete(&mut settings);
        validate(&settings, &mut findings);
        unbuilt::warn(&merged, &mut findings);
        let (errors, faults, warnings) = findings.finish();
        problems.extend(errors);
        if problems.is_empty() { Ok(Loaded { settings, warnings, faults }) } else { Err(invalid(problems)) }
    }
}

fn merge(layers: [Layer; 3]) -> Result<Value, config::ConfigError> {
    let mut builder = Config::builder();
    for layer in layers {
        builder = builder.add_source(layer);
    }
    Ok(builder.build()?.cache)
}

fn invalid(mut problems: Vec<Problem>) -> LoadError {
    problems.sort();
    problems.dedup();
    LoadError::Invalid(problems)
}

/// Adds what exists without being named.
fn complete(settings: &mut Settings) {
    if settings.listen.is_empty() {
        settings.listen.push(Listen::default());
    }
    for listen in &mut settings.listen {
        if listen.name.is_empty() {
            listen.name = listen.transport.name().to_owned();
        }
    }
    for service in Service::built_in() {
        let number_taken = settings.station.iter().any(|station| station.extension == service.extension)
            || settings.user.iter().any(|user| user.extension == service.extension)
            || settings.dial_plan.pattern.iter().any(|entry| entry.pattern == service.extension)
            || settings.service.iter().any(|other| other.extension == service.extension);
        let named = settings.service.iter().any(|other| other.name == service.name);
        if !named && !number_taken {
            settings.service.push(service);
        }
    }
}
