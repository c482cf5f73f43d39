//! Stations that are kept in the store: `tandem import`. Each is one line of JSON with the keys of `[[station]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use config::Value;
use serde::Deserialize;

use super::Settings;
use super::decode::{Repairs, decode};
use super::problem::{KeyPath, Places, Problem, Step};
use super::types::Station;
use super::validate::{Findings, validate};

/// What is wrong in one line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// The key, what was found and what is allowed.
    pub text: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

/// A station as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationLine {
    /// Its name.
    pub name: String,
    /// Its line.
    pub json: String,
}

/// All that is read of a station that is to be removed.
#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

/// The lines that are not blank, with their numbers from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(n, line)| (n + 1, line.trim())).filter(|(_, line)| !line.is_empty())
}

/// The names in lines of which nothing else is looked at.
///
/// # Errors
/// Every line that is not an object of JSON with a name.
pub fn names_of_stations(text: &str) -> Result<Vec<String>, Vec<BadLine>> {
    let (mut names, mut bad) = (Vec::new(), Vec::new());
    for (line, json) in lines(text) {
        match serde_json::from_str::<Named>(json) {
            Ok(named) => names.push(named.name),
            Err(why) => bad.push(BadLine { line, text: why.to_string() }),
        }
    }
    if bad.is_empty() { Ok(names) } else { Err(bad) }
}

impl Settings {
    /// Reads stations and checks them beside these settings and each other.
    ///
    /// # Errors
    /// Every error of every line.
    pub fn read_stations(&self, text: &str) -> Result<Vec<StationLine>, Vec<BadLine>> {
        let (mut stations, mut kept, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        for (line, json) in lines(text) {
            match read(json) {
                Ok(station) => {
                    kept.push((line, StationLine { name: station.name.clone(), json: json.to_owned() }));
                    stations.push(station);
                }
                Err(texts) => bad.extend(texts.into_iter().map(|text| BadLine { line, text })),
            }
        }
        let (_, unfit) = self.beside(stations);
        for (place, text) in unfit {
            let line = place.and_then(|place| kept.get(place)).or(kept.first()).map_or(1, |(line, _)| *line);
            bad.push(BadLine { line, text });
        }
        bad.sort();
        if bad.is_empty() { Ok(kept.into_iter().map(|(_, station)| station).collect()) } else { Err(bad) }
    }

    /// These settings with the stations of the store. One that fits no more, because the settings have changed since it was
    /// imported, is left out; the second value says which and why.
    pub fn with_stations<'a>(&self, kept: impl IntoIterator<Item = &'a [u8]>) -> (Settings, Vec<String>) {
        let (mut stations, mut left_out) = (Vec::new(), Vec::new());
        for json in kept {
            match serde_json::from_slice::<Station>(json) {
                Ok(station) => stations.push(station),
                // What cannot be read has no name either.
                Err(why) => left_out.push(format!("an imported station: {why}")),
            }
        }
        let (mut all, unfit) = self.beside(stations);
        let own = self.station.len();
        let mut places = BTreeSet::new();
        for (place, text) in unfit {
            let Some(place) = place else {
                // Whose fault it is cannot be told.
                left_out.push(format!("all imported stations: {text}"));
                return (self.clone(), left_out);
            };
            if places.insert(place) {
                let name = all.station.get(own + place).map_or("", |station| station.name.as_str());
                left_out.push(format!("imported station {name:?}: {text}"));
            }
        }
        let mut place = 0;
        all.station.retain(|_| {
            place += 1;
            place <= own || !places.contains(&(place - 1 - own))
        });
        (all, left_out)
    }

    /// These settings with further stations, and every error that they bring: the place of the station if it is one's, counted
    /// from 0, and the text.
    fn beside(&self, stations: Vec<Station>) -> (Settings, Vec<(Option<usize>, String)>) {
        let own = self.station.len();
        let mut all = self.clone();
        all.station.extend(stations);
        let (places, repairs) = (Places::default(), Repairs::default());
        let mut findings = Findings::new(&places, &repairs);
        validate(&all, &mut findings);
        let (errors, _, _) = findings.finish();
        let mut unfit: BTreeMap<Option<usize>, BTreeSet<String>> = BTreeMap::new();
        for Problem { key, text, .. } in errors {
            let (place, text) = match key.steps() {
                [Step::Key(list), Step::Index(index), rest @ ..] if list == "station" && *index >= own => {
                    (Some(index - own), told(rest, &text))
                }
                _ => (None, told(key.steps(), &text)),
            };
            unfit.entry(place).or_default().insert(text);
        }
        let each =
            |(place, texts): (Option<usize>, BTreeSet<String>)| texts.into_iter().map(move |t| (place, t));
        (all, unfit.into_iter().flat_map(each).collect())
    }
}

/// A key and what is wrong with it.
fn told(steps: &[Step], text: &str) -> String {
    let path = steps.iter().fold(KeyPath::root(), |path, step| match step {
        Step::Key(key) => path.raw_key(key),
        Step::Index(index) => path.index(*index),
    });
    if steps.is_empty() { text.to_owned() } else { format!("{path}: {text}") }
}

/// One station, or every error in its line.
fn read(json: &str) -> Result<Station, Vec<String>> {
    let value: Value = serde_json::from_str(json).map_err(|why| vec![why.to_string()])?;
    let decoded = decode::<Station>(&value);
    match decoded.value {
        Some(station) if decoded.errors.is_empty() => Ok(station),
        Some(_) | None => Err(decoded.errors.iter().map(|(key, text)| told(key.steps(), text)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &str = "[[station]]\nname = \"a\"\nextension = \"1001\"\npassword = \"x\"\n";

    fn settings() -> Settings {
        Settings::load_from(Some(("test", SETTINGS)), []).unwrap().settings
    }

    fn refused(text: &str) -> Vec<String> {
        settings().read_stations(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn stations_are_read_with_the_keys_of_the_settings() {
        let text = "{\"name\": \"b\", \"extension\": \"1002\", \"password\": \"y\", \"media\": \"bypass\"}\n\n  \
                    {\"name\": \"c\", \"extension\": \"1003\", \"max_contacts\": 2}";
        let read = settings().read_stations(text).unwrap();
        assert_eq!(read.iter().map(|station| station.name.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        let (all, left_out) = settings().with_stations(read.iter().map(|station| station.json.as_bytes()));
        assert_eq!(left_out, Vec::<String>::new());
        assert_eq!(all.station.len(), 3);
        assert_eq!(all.station[1].media, crate::settings::MediaPath::Bypass);
        assert_eq!(all.station[2].max_contacts, 2);
        assert_eq!(all.station[2].ring_timeout_s, 60);
    }

    #[test]
    fn every_line_that_is_wrong_is_named_with_key_and_reason() {
        let bad = refused(
            "{\"name\": \"b\", \"extension\": \"1002\"}\n{\"name\": \"c\", \"extenson\": \"1003\"}\n\
             {\"name\": \"d\", \"extension\": \"1004\", \"max_contacts\": 0}\nnonsense",
        );
        assert!(bad.iter().any(|text| text.starts_with("line 2: extenson")), "{bad:?}");
        assert!(bad.iter().any(|text| text.starts_with("line 3: max_contacts: found 0")), "{bad:?}");
        assert!(bad.iter().any(|text| text.starts_with("line 4: ")), "{bad:?}");
        assert!(!bad.iter().any(|text| text.starts_with("line 1: ")), "{bad:?}");
    }

    #[test]
    fn a_name_or_number_that_the_settings_have_is_refused() {
        let bad = refused("{\"name\": \"a\", \"extension\": \"1002\"}");
        assert!(bad.iter().any(|text| text.starts_with("line 1: name: ")), "{bad:?}");
        let bad =
            refused("{\"name\": \"b\", \"extension\": \"1002\"}\n{\"name\": \"c\", \"extension\": \"1001\"}");
        assert!(bad.iter().any(|text| text.starts_with("line 2: extension: ")), "{bad:?}");
    }

    #[test]
    fn a_password_is_not_shown() {
        let bad = refused("{\"name\": \"b\", \"extension\": \"1002\", \"password\": [\"geheim\"]}");
        assert!(!bad.is_empty() && !bad.iter().any(|text| text.contains("geheim")), "{bad:?}");
    }

    #[test]
    fn a_kept_station_that_fits_no_more_is_left_out_alone() {
        let kept = [
            "{\"name\": \"b\", \"extension\": \"1001\"}",
            "{\"name\": \"c\", \"extension\": \"1003\"}",
            "{\"name\": \"d\", \"extension\": \"1004\", \"calling_search_space\": \"gone\"}",
            "{",
        ];
        let (all, left_out) = settings().with_stations(kept.map(str::as_bytes));
        let names: Vec<&str> = all.station.iter().map(|station| station.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(left_out.len(), 3, "{left_out:?}");
        assert!(left_out[1].starts_with("imported station \"b\": extension: "), "{left_out:?}");
    }

    #[test]
    fn to_remove_a_station_its_name_is_enough() {
        assert_eq!(
            names_of_stations("{\"name\": \"b\"}\n{\"name\": \"c\", \"other\": 1}").unwrap(),
            ["b", "c"]
        );
        assert_eq!(names_of_stations("{\"name\": \"b\"}\n{}").unwrap_err()[0].line, 2);
    }
}
