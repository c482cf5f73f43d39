//! What is in the files of a listener, and whether they are still the same.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{TlsError, TlsFiles};

/// By what a file is known to be another: its inode, size and time of change. `None`: it is not there.
pub(super) type Stamp = Option<(u64, u64, i64, i64)>;

/// The stamps of all files.
pub(super) fn stamps(files: &TlsFiles) -> Vec<Stamp> {
    let stamp = |m: Metadata| (m.ino(), m.size(), m.mtime(), m.mtime_nsec());
    let all = [Some(&files.certificate), Some(&files.private_key)]
        .into_iter()
        .chain([files.client_ca.as_ref(), files.server_ca.as_ref()]);
    all.flatten().map(|file: &PathBuf| fs::metadata(file).ok().map(stamp)).collect()
}

fn read(key: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|source| TlsError::Unreadable { key, file: file.to_owned(), source })
}

/// The certificates of a file, at least one.
pub(super) fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(key, file)?;
    let all = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(TlsError::NoCertificate { key, file: file.to_owned() }),
        Err(why) => Err(TlsError::Unusable { key, file: file.to_owned(), why: format!("is damaged: {why}") }),
    }
}

pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read("private_key", file)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsError::NoKey { file: file.to_owned() })
}

/// The authorities of a file.
pub(super) fn authorities(key: &'static str, file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(key, file)? {
        roots.add(certificate).map_err(|why| TlsError::Unusable {
            key,
            file: file.to_owned(),
            why: format!("holds what is no certificate: {why}"),
        })?;
    }
    Ok(roots)
}

/// The authorities of servers: those of the file, else of the system. There may be none of the latter: then no server is believed.
pub(super) fn server_authorities(file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    match file {
        Some(file) => authorities("server_ca", file),
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Ok(roots)
        }
    }
}
