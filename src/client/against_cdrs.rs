//! `tandem route --against-cdrs`: the calls of CDRs under two settings files.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use tandem_actors::config::EngineConfig;

use super::ClientError;
use crate::rerouted::{self, Plan};
use crate::settings::Settings;
use crate::wiring::{self, WiringError};

/// Prints each call of `files` that goes elsewhere by the second settings than by the first, and how many there are. True if there are any.
///
/// # Errors
/// A file cannot be read, the settings fit no engine, the answer cannot be written.
pub fn against_cdrs(
    (before, after): (&Settings, &Settings),
    files: &[PathBuf],
    out: &mut dyn Write,
) -> Result<bool, ClientError> {
    let (before, after) = (config(before)?, config(after)?);
    let found = rerouted::compare(&Plan::of(&before), &Plan::of(&after), files, None).map_err(|why| {
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        ClientError::Unreadable { file: names.join(", "), why }
    })?;
    write!(out, "{found}")?;
    Ok(found.differ > 0)
}

/// Where a listener would be bound says nothing of where calls lead.
fn config(settings: &Settings) -> Result<EngineConfig, WiringError> {
    let listeners: Vec<SocketAddr> = settings.listen.iter().map(|listen| listen.address.0).collect();
    wiring::engine_config(settings, &listeners, false)
}
