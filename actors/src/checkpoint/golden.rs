//! Golden checkpoints: what a build wrote, kept in `actors/checkpoints/KIND-FORMAT.bin`, is what later builds have to restore.
//!
//! There is one of each kind of record, in the present format and, once that has been raised, in the one before.
//! [`WRITE`] says how those of the present formats are written.

mod call;
mod dialog;
mod registration_group;
mod station;
mod trunk;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use bytes::Bytes;
use tandem_protocol::time::{Instant, Now, UnixMillis};

use crate::shell::Machine;

/// Writes the checkpoints of the present formats.
const WRITE: &str = "TANDEM_WRITE_CHECKPOINTS=1 cargo test -p tandem-actors --lib golden";

/// A kind of record, and how it is kept.
pub(crate) struct Golden<M> {
    /// What its files are named by.
    pub(crate) kind: &'static str,
    pub(crate) freeze: fn(&M) -> Option<Bytes>,
    pub(crate) thaw: fn(&Bytes) -> Option<M>,
    /// Asserts what the sample says, whoever has written it.
    pub(crate) holds: fn(M),
}

impl<M: Machine> Golden<M> {
    /// One that is the checkpoint of a machine.
    fn of_machine(kind: &'static str, holds: fn(M)) -> Golden<M> {
        Golden { kind, freeze: M::freeze, thaw: |frozen| M::thaw(frozen), holds }
    }
}

impl<M> Golden<M> {
    /// Checks that what other builds have written is restored, and that this one writes the present format as they did.
    ///
    /// `sample` is what [`WRITE`] writes; the present format's number is taken from it.
    #[track_caller]
    pub(crate) fn check(&self, sample: &M) {
        let kind = self.kind;
        let written = (self.freeze)(sample).unwrap_or_else(|| panic!("{kind}: the sample is not kept"));
        let format = written[0];
        if std::env::var_os("TANDEM_WRITE_CHECKPOINTS").is_some() {
            let file = file(kind, format);
            fs::write(&file, &written).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
        }
        let Some(own) = self.thaw(&written) else {
            panic!("{kind}: this build does not read what it writes")
        };
        (self.holds)(own);
        let kept = kept(kind);
        assert!(
            kept.iter().any(|(known, _)| *known == format),
            "{kind}: there is no {}; write it by\n    {WRITE}\nand keep that of the format before, which this build has to read \
             (`checkpoint::thaw_of`)",
            file(kind, format).display()
        );
        for (known, frozen) in kept {
            assert_eq!(frozen.first(), Some(&known), "{kind}: {} is misnamed", file(kind, known).display());
            if known == format {
                self.check_present(format, &frozen);
            } else {
                self.check_former(known, &frozen);
            }
        }
    }

    fn thaw(&self, frozen: &Bytes) -> Option<M> {
        (self.thaw)(frozen)
    }

    #[track_caller]
    fn check_present(&self, format: u8, frozen: &Bytes) {
        let (kind, advice) = (self.kind, advice(self.kind, format));
        let Some(restored) = self.thaw(frozen) else {
            panic!(
                "{kind}: this build does not restore what was written in its own format {format}.\n{advice}"
            )
        };
        let again = (self.freeze)(&restored);
        assert!(
            again.as_ref() == Some(frozen),
            "{kind}: this build writes the same value in another way than was written in format {format}.\n{advice}\n\
             kept: {frozen:?}\nnow:  {again:?}"
        );
        self.check_value(restored, &advice);
    }

    #[track_caller]
    fn check_former(&self, format: u8, frozen: &Bytes) {
        let kind = self.kind;
        let Some(restored) = self.thaw(frozen) else {
            panic!(
                "{kind}: this build does not restore what was written in format {format}: calls and registrations would be lost by \
                 an upgrade. Write a reader of that format (`checkpoint::thaw_of`), or, if it is not the one just before the \
                 present one, remove {}",
                file(kind, format).display()
            )
        };
        self.check_value(restored, &format!("The reader of format {format} is wrong."));
    }

    /// Checks what was restored; says `advice` if that is something else than was written.
    fn check_value(&self, restored: M, advice: &str) {
        let holds = self.holds;
        if let Err(why) = catch_unwind(AssertUnwindSafe(|| holds(restored))) {
            let why = why.downcast::<String>().map_or_else(|_| "no reason".to_owned(), |why| *why);
            panic!("{}: this build restores something else than was written: {why}\n{advice}", self.kind);
        }
    }
}

/// What to do when the layout of a format has changed.
fn advice(kind: &str, format: u8) -> String {
    format!(
        "If a release has written format {format}: keep {}, raise FORMAT beside the type, write a reader of format {format} \
         (`checkpoint::thaw_of`), and write the new checkpoint by\n    {WRITE}\n\
         If none has, write this one anew by the same command.",
        file(kind, format).display()
    )
}

fn dir() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints"))
}

fn file(kind: &str, format: u8) -> PathBuf {
    dir().join(format!("{kind}-{format}.bin"))
}

/// The checkpoints of a kind, with their formats.
fn kept(kind: &str) -> Vec<(u8, Bytes)> {
    let files = fs::read_dir(dir()).unwrap().map(|entry| entry.unwrap().path());
    let of_kind = |path: PathBuf| {
        let (name, format) = path.file_stem()?.to_str()?.rsplit_once('-')?;
        (name == kind).then(|| (format.parse().unwrap(), Bytes::from(fs::read(&path).unwrap())))
    };
    files.filter_map(of_kind).collect()
}

/// A time on both clocks.
fn at(seconds: u64) -> Now {
    Now { mono: Instant(seconds * 1_000_000), wall: UnixMillis(1_800_000_000_000 + seconds * 1_000) }
}

mod tests {
    use super::*;

    /// A kind of record.
    fn golden<M>(freeze: fn(&M) -> Option<Bytes>, thaw: fn(&Bytes) -> Option<M>, holds: fn(M)) -> Golden<M> {
        Golden { kind: "example", freeze, thaw, holds }
    }

    fn told(check: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let why = catch_unwind(check).expect_err("a complaint");
        why.downcast_ref::<String>().cloned().unwrap_or_default()
    }

    #[test]
    fn a_golden_checkpoint_tells_of_a_layout_that_changed_within_a_format() {
        type Pair = (u8, u16);
        let freeze: fn(&Pair) -> Option<Bytes> = |pair| crate::checkpoint::freeze(1, pair);
        let frozen = freeze(&(7, 300)).unwrap();
        let same = golden(freeze, |b| crate::checkpoint::thaw(1, b), |pair| assert_eq!(pair, (7, 300)));
        same.check_present(1, &frozen);
        same.check_former(1, &frozen);
        let longer: Golden<(u8, u16, u8)> =
            golden(|m| crate::checkpoint::freeze(1, m), |b| crate::checkpoint::thaw(1, b), |_| {});
        let why = told(|| longer.check_present(1, &frozen));
        assert!(why.contains("does not restore") && why.contains("raise FORMAT"), "{why}");
        let shorter: Golden<u8> =
            golden(|m| crate::checkpoint::freeze(1, m), |b| crate::checkpoint::thaw(1, b), |_| {});
        let why = told(|| shorter.check_present(1, &frozen));
        assert!(why.contains("in another way") && why.contains("raise FORMAT"), "{why}");
        let other: Golden<Pair> = golden(same.freeze, same.thaw, |pair| assert_eq!(pair, (7, 301)));
        let why = told(|| other.check_present(1, &frozen));
        assert!(why.contains("something else") && why.contains("raise FORMAT"), "{why}");
        let later: Golden<Pair> =
            golden(|m| crate::checkpoint::freeze(2, m), |b| crate::checkpoint::thaw(2, b), |_| {});
        let why = told(|| later.check_former(1, &frozen));
        assert!(why.contains("Write a reader of that format"), "{why}");
    }
}
