//! TLS: a layer under the framing of [`crate::sip::tcp`], whose connections, limits and flows it shares (RFC 3261 §26.2, RFC 5246,
//! RFC 8446). Peers are who their certificates say they are (RFC 5922).
//!
//! A listener has one certificate, which is shown to clients, and to servers that ask for one. What was read of the files is
//! replaced whole by [`Tls::reload`]: handshakes that begin afterwards have the new, connections that are there stay.

mod files;
mod handshake;
mod names;
mod peers;
mod verify;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use self::files::Stamp;
use self::verify::{ClientVerifier, ServerVerifier};

pub(crate) use handshake::{failed_because, refusal_of_peer};
pub use names::{Expected, PeerNames};
pub use peers::SecurePeers;

/// The files of a listener, as the settings name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate and those of the authorities between it and a known one, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub private_key: PathBuf,
    /// The authorities of clients; `None`: clients are not asked who they are.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is refused.
    pub require_client_certificate: bool,
    /// The authorities of servers; `None`: those of the system.
    pub server_ca: Option<PathBuf>,
}

/// Why the files of a listener cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Unreadable {
        /// The settings' key.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no certificate in it.
    #[error("{}: holds no certificate in PEM", file.display())]
    NoCertificate {
        /// The settings' key.
        key: &'static str,
        /// The file.
        file: PathBuf,
    },
    /// There is no key in it.
    #[error("{}: holds no private key in PEM, or one that needs a password", file.display())]
    NoKey {
        /// The file.
        file: PathBuf,
    },
    /// The key is not that of the certificate.
    #[error("{}: is not the key of the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// What is in it cannot be used.
    #[error("{}: {why}", file.display())]
    Unusable {
        /// The settings' key.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        why: String,
    },
}

impl TlsError {
    /// The settings' key that names the file.
    pub fn key(&self) -> &'static str {
        match self {
            TlsError::Unreadable { key, .. }
            | TlsError::NoCertificate { key, .. }
            | TlsError::Unusable { key, .. } => key,
            TlsError::NoKey { .. } | TlsError::Mismatch { .. } => "private_key",
        }
    }
}

/// What our certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// From when it is good, in seconds since 1970.
    pub not_before_s: u64,
    /// Until when it is good, in seconds since 1970.
    pub not_after_s: u64,
    /// For whom.
    pub names: PeerNames,
}

/// What was read of the files at one time.
struct Live {
    server: Arc<ServerConfig>,
    key: Arc<SingleCertAndKey>,
    server_roots: Arc<RootCertStore>,
    facts: Facts,
    stamps: Vec<Stamp>,
}

/// How one listener speaks TLS.
pub struct Tls {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    live: ArcSwap<Live>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files of a listener. It may wait for a disk.
    ///
    /// # Errors
    /// [`TlsError`]. A certificate that has expired is none: peers will refuse it, and [`Tls::facts`] tells.
    pub fn load(files: TlsFiles) -> Result<Tls, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let live = ArcSwap::from_pointee(Live::read(&files, &provider)?);
        Ok(Tls { files, provider, live })
    }

    /// Reads them again. Connections that are there stay; handshakes that begin from now on have what was read. It may wait for a disk.
    ///
    /// # Errors
    /// [`TlsError`]: what was read before stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.live.store(Arc::new(Live::read(&self.files, &self.provider)?));
        Ok(())
    }

    /// If a file is another than when it was last read: a number that stands for what they are now. It may wait for a disk.
    pub fn change(&self) -> Option<u64> {
        let now = files::stamps(&self.files);
        (self.live.load().stamps != now).then(|| crate::map::hash(0, &now))
    }

    /// The files.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// What our certificate says.
    pub fn facts(&self) -> Facts {
        self.live.load().facts.clone()
    }

    fn server(&self) -> Arc<ServerConfig> {
        self.live.load().server.clone()
    }

    /// How a connection is opened to one who must be `expected`.
    fn client(&self, expected: Expected) -> Result<ClientConfig, rustls::Error> {
        let live = self.live.load();
        let verifier = ServerVerifier::new(live.server_roots.clone(), expected, self.provider.clone());
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(live.key.clone());
        // A resumed session would be that of whoever had the name before, and unverified.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

impl Live {
    fn read(files: &TlsFiles, provider: &Arc<CryptoProvider>) -> Result<Live, TlsError> {
        // First, so that a change in between is seen as one.
        let stamps = files::stamps(files);
        let chain = files::certificates("certificate", &files.certificate)?;
        let key = files::private_key(&files.private_key)?;
        let unusable =
            |why: String| TlsError::Unusable { key: "certificate", file: files.certificate.clone(), why };
        let facts = chain.first().and_then(|own| names::facts(own));
        let facts = facts.ok_or_else(|| unusable("is no certificate that can be read".to_owned()))?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { key: files.private_key.clone(), certificate: files.certificate.clone() }
            }
            other => TlsError::Unusable {
                key: "private_key",
                file: files.private_key.clone(),
                why: format!("cannot be used: {other}"),
            },
        })?;
        let key = Arc::new(SingleCertAndKey::from(certified));
        let server_roots = Arc::new(files::server_authorities(files.server_ca.as_deref())?);
        let server = server(files, provider, key.clone())?;
        Ok(Live { server, key, server_roots, facts, stamps })
    }
}

fn server(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
    key: Arc<SingleCertAndKey>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |key: &'static str, file: &PathBuf, why: &dyn fmt::Display| TlsError::Unusable {
        key,
        file: file.clone(),
        why: why.to_string(),
    };
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("certificate", &files.certificate, &error))?;
    let mut config = match &files.client_ca {
        None => config.with_no_client_auth().with_cert_resolver(key),
        Some(file) => {
            let roots = Arc::new(files::authorities("client_ca", file)?);
            let known = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
            let known = if files.require_client_certificate { known } else { known.allow_unauthenticated() };
            let known = known.build().map_err(|error| unusable("client_ca", file, &error))?;
            let verifier = ClientVerifier::new(known, roots, provider.clone());
            config.with_client_cert_verifier(Arc::new(verifier)).with_cert_resolver(key)
        }
    };
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match &files.client_ca {
        // A ticket would let a client in whose certificate has been refused since.
        Some(_) => config.send_tls13_tickets = 0,
        // It keeps nothing here, and saves a fleet of phones that comes back most of its work.
        None => {
            config.ticketer = rustls::crypto::ring::Ticketer::new()
                .map_err(|error| unusable("certificate", &files.certificate, &error))?;
        }
    }
    Ok(Arc::new(config))
}
