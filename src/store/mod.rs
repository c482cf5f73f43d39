//! Store backends. Embedded: SQLite in the data directory and a journal before it, with group commit on a thread of its own.
//!
//! ```text
//! submit ──▶ queue (bounded in bytes) ──▶ writer ──▶ group (last write of a key) ──▶ disk: one write to the journal
//!                                           │                                         └──▶ unsaved (last write of a key)
//!                                           ├──▶ completions (tickets)
//!                                           │
//!                                           ├──▶ unsaved, 50 ms later ──▶ disk: one transaction of the database
//!                                           │                              entries, log of calls, event log, CDRs
//!                                           └──▶ cdr.jsonl (one write a transaction)
//! scan, events, cdr ──▶ what is unsaved is saved ──▶ reader: a second connection
//! ```
//!
//! | file | is |
//! | --- | --- |
//! | `tandem.journal` | the groups that the database lacks, the last 50 ms; empty after an orderly end |
//! | `tandem.db`, `-wal`, `-shm` | bindings, stations and meta by key; calls as a log of changes; events, a page to a row; CDRs |
//! | `cdr.jsonl`, `cdr.jsonl.1` ... | the CDRs as lines, rotated by size; after a crash completed from the database |
//! | `tandem.lock` | held while an engine uses the directory |
//!
//! # What is promised
//!
//! A ticket's `Ok` means: the group is in the journal, in the page cache of the kernel. It survives the death of the process: the next start
//! saves in the database what the journal has beyond it. The database and `cdr.jsonl` have it 50 ms after its submission, or as soon as somebody
//! reads or flushes. After a power failure the database is sound, but the newest groups may be gone (`synchronous = NORMAL`).
//!
//! # Faults
//!
//! An engine that does not start takes no emergency call, so only a misconfiguration (no such directory can be made, another
//! engine uses it) refuses to open. With a full, read-only or vanished disk the store opens *failing*: every ticket is told
//! [`StoreFault::Backend`](tandem_actors::store::StoreFault::Backend) at once, and its batch is kept within the bound of the queue
//! and written when the disk works again, so that events, CDRs and deletes are late, not lost. A batch with an expected version
//! is not kept: its owner was told that it failed and will decide anew. What the journal has and the database does not take is kept
//! by both the journal and the queue's bound; no group is committed before the database works again.
//!
//! A database that is corrupt, or of a newer format, is set aside as `tandem.db.corrupt-<ms>` or `tandem.db.format<N>-<ms>`, what can
//! still be read of its entries is carried over to a fresh one, and event numbers go on at the microseconds since 1970,
//! so that none is given twice.
//!
//! # Clocks
//!
//! The writer is a thread in front of the seams: it reads the operating system's clocks for its own deadlines.
#![allow(clippy::disallowed_methods)]

mod calls;
mod cdr_file;
mod cdrs;
mod checkpoint;
mod disk;
mod embedded;
mod group;
mod journal;
mod log;
mod meter;
mod queue;
mod reader;
mod render;
mod salvage;
mod schema;
mod unsaved;
mod writer;

#[cfg(test)]
mod tests;

pub use embedded::{Embedded, OpenError, Options, stations};
pub use meter::StoreMeter;
pub(crate) use render::Rfc3339;
pub use writer::{Dropped, Meter};
