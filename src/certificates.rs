//! Certificates are read again while the engine runs: when their files become others, and when somebody asks.

use std::time::Duration;

use tandem_actors::env::Shared;
use tandem_actors::metrics::not_after;
use tandem_actors::sip::tls::{Tls, TlsError};

/// How often the files are looked at.
pub const PACE: Duration = Duration::from_secs(5);

/// Why the certificate of a listener was not read again.
#[derive(Debug, thiserror::Error)]
#[error("listen {listener:?}: {}: {source}", source.key())]
pub struct NotReloaded {
    /// The listener's name.
    pub listener: String,
    /// Why.
    pub source: TlsError,
}

fn secure(shared: &Shared) -> impl Iterator<Item = (&str, &Tls)> {
    shared.config.listeners.iter().filter_map(|l| Some((l.name.as_str(), l.tls.as_deref()?)))
}

/// Reads the certificates, keys and authorities of every listener again. Connections stay, handshakes that begin from now on have what
/// was read. It waits for the disk.
///
/// What cannot be read stays as it was; it is logged, counted, and handed back.
pub fn reload(shared: &Shared) -> Vec<NotReloaded> {
    secure(shared).filter_map(|(listener, tls)| reload_one(shared, listener, tls).err()).collect()
}

fn reload_one(shared: &Shared, listener: &str, tls: &Tls) -> Result<(), NotReloaded> {
    let read = tls.reload();
    shared.metrics.tls.reload(read.is_ok());
    match read {
        Ok(()) => {
            show(shared, listener, tls);
            let facts = tls.facts();
            tracing::info!(listener, names = %facts.names, "certificate read again");
            Ok(())
        }
        Err(source) => {
            let error = NotReloaded { listener: listener.to_owned(), source };
            tracing::error!(%error, "the certificate was not read again; the one before stays in use");
            Err(error)
        }
    }
}

/// Shows until when the certificate of a listener is good.
fn show(shared: &Shared, listener: &str, tls: &Tls) {
    not_after(shared.metrics.registry(), listener).set(tls.facts().not_after_s as f64);
}

/// Finds files that have become others.
#[derive(Debug, Default)]
pub struct Watch {
    /// The listeners whose files were others at the last look, with what they were then: they may still be being written.
    changing: Vec<(String, u64)>,
    /// The listeners whose files could not be read as they are now.
    given_up: Vec<(String, u64)>,
}

impl Watch {
    /// Begins to watch the files of an engine that has read them.
    pub fn new(shared: &Shared) -> Watch {
        for (listener, tls) in secure(shared) {
            show(shared, listener, tls);
        }
        Watch::default()
    }

    /// Looks at the files once, and reads those again that have changed and are at rest since the last look: a certificate and its key
    /// are seldom written at once.
    pub fn look(&mut self, shared: &Shared) {
        let mut changing = Vec::new();
        for (listener, tls) in secure(shared) {
            let Some(change) = tls.change() else { continue };
            let seen = (listener.to_owned(), change);
            if self.given_up.contains(&seen) {
                continue;
            }
            if !self.changing.contains(&seen) {
                changing.push(seen);
                continue;
            }
            self.given_up.retain(|(name, _)| name != listener);
            if reload_one(shared, listener, tls).is_err() {
                self.given_up.push(seen);
            }
        }
        self.changing = changing;
    }
}
