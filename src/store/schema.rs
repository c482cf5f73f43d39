//! The database: its tables, how a connection to it is set up, and whether it can be trusted.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tandem_actors::store::Bucket;

/// The file's name in the data directory.
pub(super) const FILE: &str = "tandem.db";

/// The format this version writes; raised with each change of the tables.
pub(super) const FORMAT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE calls (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE event_log (first_n INTEGER PRIMARY KEY, last_n INTEGER NOT NULL, end_bytes INTEGER NOT NULL,
                            filed INTEGER NOT NULL, data BLOB NOT NULL);
    CREATE TABLE cdr (id INTEGER PRIMARY KEY, call_id TEXT NOT NULL, segment INTEGER NOT NULL,
                      end_ms INTEGER NOT NULL, json TEXT NOT NULL);
    CREATE TABLE cdr_key (call_id TEXT NOT NULL, segment INTEGER NOT NULL, id INTEGER NOT NULL,
                          PRIMARY KEY (call_id, segment)) WITHOUT ROWID;
    CREATE TABLE fact (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
";

/// How long a connection waits for a lock of the other. Readers never hold one for longer than a page.
const BUSY: Duration = Duration::from_millis(500);

/// Why a database is not used as it is.
#[derive(Debug)]
pub(super) enum Unfit {
    /// It could not be asked.
    Sql(rusqlite::Error),
    /// It is damaged.
    Corrupt(String),
    /// A later version of the engine made it.
    Newer(i64),
}

impl From<rusqlite::Error> for Unfit {
    fn from(error: rusqlite::Error) -> Unfit {
        if is_corrupt(&error) { Unfit::Corrupt(error.to_string()) } else { Unfit::Sql(error) }
    }
}

/// Whether an error says that the file itself is damaged.
pub(super) fn is_corrupt(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// Opens the connection that writes, checks what is there, and makes the tables of a new database.
pub(super) fn open_writer(path: &Path) -> Result<Connection, Unfit> {
    let mut conn = Connection::open(path)?;
    conn.busy_timeout(BUSY)?;
    // One transaction for each group: NORMAL syncs at checkpoints only, so a commit is a write to the page cache.
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    conn.pragma_update(None, "cache_size", -2_048)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "journal_size_limit", 64 << 20)?;
    conn.set_prepared_statement_cache_capacity(64);
    let format: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match format {
        0 => create(&mut conn)?,
        FORMAT => check(&conn)?,
        other => return Err(Unfit::Newer(other)),
    }
    Ok(conn)
}

/// Opens a connection that only reads, or moves the write-ahead log.
pub(super) fn open_reader(path: &Path) -> Result<Connection, rusqlite::Error> {
    // Not read-only, because a reader takes part in the locks of a write-ahead log.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    Ok(conn)
}

fn create(conn: &mut Connection) -> Result<(), Unfit> {
    let tx = conn.transaction()?;
    tx.execute_batch(TABLES)?;
    for bucket in Bucket::ALL.into_iter().filter(|bucket| *bucket != Bucket::Calls) {
        tx.execute_batch(&format!(
            "CREATE TABLE {0} (id INTEGER PRIMARY KEY, key TEXT NOT NULL, version INTEGER NOT NULL, value BLOB NOT NULL);
             CREATE UNIQUE INDEX {0}_key ON {0} (key);",
            bucket.name()
        ))?;
    }
    tx.pragma_update(None, "user_version", FORMAT)?;
    tx.commit()?;
    Ok(())
}

/// Checks the tables that the engine is about to read in full anyway. The log and the CDRs can be many gigabytes: their
/// damage shows when it is met.
fn check(conn: &Connection) -> Result<(), Unfit> {
    for bucket in Bucket::ALL {
        let found: String =
            conn.query_row(&format!("PRAGMA quick_check('{}')", bucket.name()), [], |row| row.get(0))?;
        if found != "ok" {
            return Err(Unfit::Corrupt(found));
        }
    }
    Ok(())
}
