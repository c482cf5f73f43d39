//! A full, read-only, vanished or damaged disk. Full and read-only disks are small tmpfs mounts: they need root, and a test that may
//! not mount says so and ends.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use super::*;

/// A file system of its own, unmounted at the end.
struct Mount(
    PathBuf,
    #[expect(dead_code, reason = "removes the directory after the unmount")] tempfile::TempDir,
);

impl Mount {
    fn new(size: &str) -> Option<Mount> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=700");
        let mounted = run("mount", &["-t", "tmpfs", "-o", &options, "tandem-test", dir.path().to_str()?]);
        if !mounted {
            // Shown by `--nocapture` only, as everything a test says.
            let _ = writeln!(std::io::stderr(), "not tested: no tmpfs can be mounted here");
            return None;
        }
        Some(Mount(dir.path().to_owned(), dir))
    }

    fn remount(&self, options: &str) {
        assert!(run("mount", &["-o", &format!("remount,{options}"), self.0.to_str().unwrap()]));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.to_str().unwrap_or_default()]);
    }
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|out| out.status.success())
}

fn fill(rig: &Rig) -> u64 {
    for n in 0..100_000 {
        if rig.put(put(&format!("k{n}"), &"x".repeat(4000)), n).is_err() {
            return n;
        }
    }
    panic!("the disk is never full");
}

#[test]
fn a_full_disk_fails_tickets_and_works_again_when_it_has_room_without_losing_what_waits() {
    let Some(mount) = Mount::new("3m") else { return };
    let rig = Rig::open(&mount.0);
    let full = fill(&rig);
    assert!(full > 10);
    assert!(!rig.store.is_healthy());
    let mut late = put("late", "x");
    late.events.push(event("late", "written when there was room"));
    late.cdrs.push(Cdr { call_id: "late".into(), ..Cdr::default() });
    assert!(matches!(rig.put(late, full + 1), Err(StoreFault::Backend(_))));
    let guarded = of(Urgency::Urgent, vec![write(Bucket::Calls, "guarded", Some("x"), Some(0))]);
    assert!(matches!(rig.put(guarded, full + 2), Err(StoreFault::Backend(_))));
    assert!(rig.counted.failed.load(Ordering::Relaxed) > 0);
    mount.remount("size=64m");
    rig.put_until_ok("again");
    assert!(rig.store.is_healthy());
    let keys: Vec<String> = rig.keys(Bucket::Calls).into_iter().map(|(key, ..)| key).collect();
    for n in 0..=full {
        assert!(keys.contains(&format!("k{n}")), "k{n} of {full} is there");
    }
    assert!(keys.contains(&"late".to_owned()) && !keys.contains(&"guarded".to_owned()));
    assert_eq!(rig.store.events_of("late", 10).unwrap().len(), 1);
    assert!(rig.store.cdr("late").unwrap().is_some());
    rig.store.flush();
    assert_eq!(lines(&mount.0.join("cdr.jsonl")).len(), 1);
}

#[test]
fn a_store_opens_on_a_full_disk_and_works_when_it_has_room() {
    let Some(mount) = Mount::new("1m") else { return };
    let _ = std::fs::write(mount.0.join("other"), vec![0; 2 << 20]);
    let rig = Rig::open(&mount.0);
    assert!(!rig.store.is_healthy());
    assert!(matches!(rig.put(put("a", "1"), 1), Err(StoreFault::Backend(_))));
    assert!(rig.store.scan(Bucket::Calls).is_err());
    std::fs::remove_file(mount.0.join("other")).unwrap();
    rig.put_until_ok("b");
    assert_eq!(rig.keys(Bucket::Calls).len(), 2);
}

#[test]
fn a_read_only_disk_fails_tickets_and_works_again() {
    let Some(mount) = Mount::new("16m") else { return };
    let rig = Rig::open(&mount.0);
    rig.put(put("a", "1"), 1).unwrap();
    drop(rig);
    mount.remount("ro");
    let rig = Rig::open(&mount.0);
    assert!(matches!(rig.put(put("b", "1"), 1), Err(StoreFault::Backend(_))));
    assert!(!rig.store.is_healthy());
    mount.remount("rw");
    rig.put_until_ok("c");
    assert_eq!(rig.keys(Bucket::Calls).len(), 3);
}

#[test]
fn a_deleted_directory_fails_tickets_until_it_is_back_and_numbers_go_on() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let rig = Rig::open(&dir);
    rig.put(events(vec![event("c", "x"); 3]), 1).unwrap();
    // What only the journal has would be saved in the new directory.
    rig.store.flush();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(matches!(rig.put(put("a", "1"), 2), Err(StoreFault::Backend(_))));
    assert!(matches!(rig.put(events(vec![event("c", "late")]), 3), Err(StoreFault::Backend(_))));
    assert!(!dir.exists());
    std::fs::create_dir(&dir).unwrap();
    rig.put_until_ok("b");
    assert_eq!(rig.keys(Bucket::Calls).len(), 2);
    let kept = rig.store.events_from(0, 10).unwrap();
    assert_eq!(kept.iter().map(|line| number(line)).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_file_that_is_no_database_is_set_aside_and_numbers_go_far_beyond_the_old_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tandem.db");
    std::fs::write(&path, "x".repeat(10_000)).unwrap();
    let rig = Rig::open(dir.path());
    assert!(rig.store.is_healthy());
    rig.put(events(vec![event("c", "x")]), 1).unwrap();
    let first = number(&rig.store.events_from(0, 1).unwrap()[0]);
    assert!(first > 1_600_000_000_000_000);
    assert_eq!(aside(dir.path(), "tandem.db.corrupt-"), 1);
    drop(rig);
    let rig = Rig::open(dir.path());
    rig.put(events(vec![event("c", "x")]), 1).unwrap();
    assert_eq!(number(&rig.store.events_from(0, 2).unwrap()[1]), first + 1);
}

#[test]
fn what_can_be_read_of_a_damaged_database_is_carried_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tandem.db");
    let rig = Rig::open(dir.path());
    let binding = of(Urgency::Urgent, vec![write(Bucket::Bindings, "1001", Some("sip:1001@a"), None)]);
    rig.put(binding.clone(), 1).unwrap();
    rig.put(binding, 2).unwrap();
    for n in 0..200 {
        rig.put(put(&format!("k{n}"), &"x".repeat(1200)), 3).unwrap();
    }
    drop(rig);
    // The newest pages are those of the calls.
    let mut bytes = std::fs::read(&path).unwrap();
    let from = bytes.len() - 8 * 4096;
    bytes[from..].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let rig = Rig::open(dir.path());
    assert_eq!(aside(dir.path(), "tandem.db.corrupt-"), 1);
    assert_eq!(rig.keys(Bucket::Bindings), [("1001".into(), 2, "sip:1001@a".into())]);
    assert_eq!(rig.put(put("new", "1"), 4), Ok(()));
}

#[test]
fn damage_that_is_met_while_writing_sets_the_database_aside() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    rig.put(put("a", "1"), 1).unwrap();
    for n in 0..2000 {
        rig.store.submit(events(vec![event("c", &"x".repeat(3000)); 2]));
        if n % 100 == 0 {
            rig.store.flush();
        }
    }
    drop(rig);
    let path = dir.path().join("tandem.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let pages = bytes.len() / 4096;
    for page in 20..pages {
        bytes[page * 4096..(page + 1) * 4096].fill(0xff);
    }
    std::fs::write(&path, bytes).unwrap();
    let rig = Rig::open(dir.path());
    let mut token = 0;
    while rig.put(events(vec![event("c", "x"); 10]), token).is_ok() && token < 100 {
        token += 1;
    }
    rig.put_until_ok("b");
    assert_eq!(aside(dir.path(), "tandem.db.corrupt-"), 1);
    assert!(rig.store.is_healthy());
}

#[test]
fn a_database_of_a_later_version_is_set_aside_with_its_entries_carried_over() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    rig.put(put("a", "1"), 1).unwrap();
    drop(rig);
    let conn = rusqlite::Connection::open(dir.path().join("tandem.db")).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    let rig = Rig::open(dir.path());
    assert_eq!(rig.keys(Bucket::Calls).len(), 1);
    assert_eq!(aside(dir.path(), "tandem.db.format99-"), 1);
}

#[test]
fn two_engines_cannot_share_a_directory_and_a_file_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path| {
        Embedded::open(path, Options::default(), Arc::new(Sent(Mutex::new(channel().0))), Box::new(()))
    };
    let first = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(super::super::OpenError::InUse(_))));
    drop(first);
    assert!(open(dir.path()).is_ok());
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(open(&file), Err(super::super::OpenError::Directory { .. })));
}

/// How many files have a name that begins so and are databases, not their logs.
fn aside(dir: &Path, prefix: &str) -> usize {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| {
            let name = name.to_string_lossy();
            name.starts_with(prefix) && !name.ends_with("-wal") && !name.ends_with("-shm")
        })
        .count()
}
