//! Why a reload is refused.

use std::io;
use std::net::SocketAddr;

use tandem_actors::store::StoreFault;

use crate::settings::token::TokenError;
use crate::settings::{LoadError, Transport};
use crate::wiring::WiringError;

/// Why a reload is refused. The settings in force are what they were.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There is nothing to read.
    #[error("this engine was not started from a settings file, so that there is none to read again")]
    Nowhere,
    /// The file or a variable is wrong; every error, with file, key and what is allowed.
    #[error(transparent)]
    Settings(#[from] LoadError),
    /// They do not hold together with what only a restart can change.
    #[error("with what stays as it is until a restart ({kept}): {}", faults.join("\n"))]
    Unfit {
        /// What stays.
        kept: String,
        /// What does not hold.
        faults: Vec<String>,
    },
    /// Imported stations that are in force would not be any more.
    #[error("imported stations do not fit: {}", .0.join("\n"))]
    Imported(Vec<String>),
    /// A listener that is to come cannot be bound.
    #[error("{file}: listen {name:?}: address: cannot bind {transport} {address}: {why}")]
    Listen {
        /// The file that has it.
        file: String,
        /// The listener's name.
        name: String,
        /// Its transport.
        transport: Transport,
        /// Its address.
        address: SocketAddr,
        /// Why.
        why: io::Error,
    },
    /// The imported stations cannot be read.
    #[error("the imported stations cannot be read: {0}")]
    Store(#[from] StoreFault),
    /// The settings fit no engine.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// The token of the API can be neither read nor made.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The CDRs cannot be read.
    #[error("the CDRs cannot be read: {0}")]
    Cdrs(io::Error),
    /// A fault of ours.
    #[error("reading the settings has failed; the log tells why")]
    Fault,
}
