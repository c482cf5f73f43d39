//! The HTTP token that is made when none is configured.
//!
//! The daemon makes it in its data directory; the CLI, run by the same user, finds it there.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::values::Secret;

/// The name of the file in the data directory.
pub const FILE_NAME: &str = "http_token";

/// The bits of a new token, in bytes; it is written in hexadecimal.
const TOKEN_BYTES: usize = 32;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file or its directory could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Others than the owner may read the file.
    #[error("{}: its mode is {mode:o}; allowed: 600, so that only its owner can read it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no token.
    #[error("{}: holds no token; remove it and start the daemon, which makes another", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The operating system gave no randomness.
    #[error("no randomness for a token: {0}")]
    Randomness(getrandom::Error),
}

/// Reads the token in `data_dir`, or makes the directory and a token of 256 random bits there, in
/// a file of mode 0600. Two processes that start at once end with the same token.
///
/// # Errors
///
/// [`TokenError`]: also if others may read the file, since the token then protects nothing.
pub fn load_or_create(data_dir: &Path) -> Result<Secret, TokenError> {
    match load(data_dir) {
        Err(TokenError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let failed = |path: &Path, source| TokenError::File { path: path.to_owned(), source };
    fs::create_dir_all(data_dir).map_err(|source| failed(data_dir, source))?;
    let mut random = [0; TOKEN_BYTES];
    getrandom::fill(&mut random).map_err(TokenError::Randomness)?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();

    // Written aside and linked into place, so that nobody ever reads half a token and the first wins.
    let path = data_dir.join(FILE_NAME);
    let aside = data_dir.join(format!("{FILE_NAME}.{}", &token[..16]));
    let written = write_new(&aside, &token).map_err(|source| failed(&aside, source));
    let linked = written.and_then(|()| match fs::hard_link(&aside, &path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(failed(&path, source)),
        Ok(()) | Err(_) => Ok(()),
    });
    // Removed even after a failure; if that fails too, a stray file of mode 0600 harms nobody.
    let _ = fs::remove_file(&aside);
    linked?;
    load(data_dir)
}

/// Reads the token in `data_dir`, for a client of the daemon.
///
/// # Errors
///
/// [`TokenError::File`] if there is none or it cannot be read; the rest as [`load_or_create`].
pub fn load(data_dir: &Path) -> Result<Secret, TokenError> {
    let path = data_dir.join(FILE_NAME);
    let failed = |source| TokenError::File { path: path.clone(), source };
    let mode = fs::metadata(&path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(TokenError::Exposed { path, mode });
    }
    let text = fs::read_to_string(&path).map_err(failed)?;
    match text.trim() {
        "" => Err(TokenError::Empty { path }),
        token => Ok(Secret::from(token.to_owned())),
    }
}

fn write_new(path: &Path, token: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(token.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("deep/data");
        let made = load_or_create(&data_dir).unwrap();
        assert_eq!(made.reveal().len(), 2 * TOKEN_BYTES);
        assert_eq!(load_or_create(&data_dir).unwrap(), made);
        assert_eq!(load(&data_dir).unwrap(), made);
        let mode = fs::metadata(data_dir.join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let names: Vec<_> =
            fs::read_dir(&data_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [FILE_NAME]);
    }

    #[test]
    fn two_data_directories_have_different_tokens() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_ne!(load_or_create(one.path()).unwrap(), load_or_create(other.path()).unwrap());
    }

    #[test]
    fn a_token_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        load_or_create(dir.path()).unwrap();
        let path = dir.path().join(FILE_NAME);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load_or_create(dir.path()).unwrap_err();
        assert!(matches!(error, TokenError::Exposed { mode: 0o640, .. }), "{error}");
    }

    #[test]
    fn an_empty_token_file_is_no_token() {
        let dir = tempfile::tempdir().unwrap();
        write_new(&dir.path().join(FILE_NAME), " ").unwrap();
        assert!(matches!(load_or_create(dir.path()).unwrap_err(), TokenError::Empty { .. }));
    }

    #[test]
    fn a_client_makes_no_token() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(load(dir.path()).unwrap_err(), TokenError::File { .. }));
        assert!(!dir.path().join(FILE_NAME).exists());
    }
}
