//! What is done to a log is found, and what happens to one is not taken for it.

use std::fs;
use std::path::{Path, PathBuf};

use casemate_audit::{Event, Head, Log, Reader, Verified, verify};
use proptest::prelude::*;

const LONG: u64 = 1 << 30;

/// A log with so many records, in a folder of its own.
fn log(records: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a directory");
    let mut log = Log::new(folder.path().into(), LONG);
    for number in 0..records {
        log.write(&Event::of("work", "test").with("n", number)).expect("written");
    }
    folder
}

fn current(folder: &Path) -> PathBuf {
    folder.join("audit.jsonl")
}

fn look(folder: &Path) -> Verified {
    verify(folder, None).expect("read")
}

fn whole(folder: &Path) -> Verified {
    let found = look(folder);
    assert_eq!(found.breaks, [], "{found:?}");
    found
}

/// Changes the lines of a log.
fn change(folder: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let text = fs::read_to_string(current(folder)).expect("read");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines);
    fs::write(current(folder), lines.join("\n") + "\n").expect("written");
}

#[test]
fn an_honest_log_is_whole_and_read_in_order() {
    let folder = log(5);
    let found = whole(folder.path());
    assert_eq!((found.records, found.sealed, found.begins_at), (5, 0, None));
    assert_eq!(found.head.as_ref().map(|head| head.number), Some(5));
    let mut reader = Reader::open(folder.path()).expect("opened");
    for number in 1..=5 {
        let record = reader.next_record().expect("read").expect("there");
        assert_eq!((record.number, record.event.as_str()), (number, "test"));
        assert_eq!(record.fields["n"], number - 1);
    }
    assert_eq!(reader.next_record().expect("read"), None);
    // It goes on with what comes.
    Log::new(folder.path().into(), LONG).write(&Event::general("more")).expect("written");
    assert_eq!(reader.next_record().expect("read").expect("there").event, "more");
    let none = tempfile::tempdir().expect("a directory");
    assert_eq!(look(none.path()).records, 0);
    assert_eq!(look(&none.path().join("not-there")).records, 0);
}

#[test]
fn a_change_names_the_record() {
    let folder = log(5);
    change(folder.path(), |lines| lines[2] = lines[2].replace("work", "play"));
    let found = look(folder.path());
    assert_eq!(found.breaks.len(), 1, "{found:?}");
    assert_eq!(
        (found.breaks[0].line, found.breaks[0].what.contains("record 3 was changed")),
        (4, true)
    );
}

#[test]
fn removal_reordering_and_repetition_name_the_records() {
    let folder = log(6);
    change(folder.path(), |lines| drop(lines.drain(2..4)));
    let found = look(folder.path());
    assert!(found.breaks[0].what.contains("records 3 to 4 were removed"), "{found:?}");

    let folder = log(6);
    change(folder.path(), |lines| lines.swap(2, 3));
    let found = look(folder.path());
    assert!(found.breaks[0].what.contains("record 3 was removed before it"), "{found:?}");
    assert!(found.breaks[1].what.contains("record 3 is not in its place"), "{found:?}");

    let folder = log(6);
    change(folder.path(), |lines| lines.insert(3, lines[2].clone()));
    assert!(look(folder.path()).breaks[0].what.contains("not in its place"));

    let folder = log(6);
    change(folder.path(), |lines| lines[3] = "nonsense".into());
    let found = look(folder.path());
    assert!(found.breaks[0].what.contains("it is no record"), "{found:?}");
    assert_eq!(found.breaks[0].line, 4);
}

#[test]
fn what_was_cut_off_is_found_by_a_head_that_was_kept() {
    let folder = log(6);
    let head = whole(folder.path()).head.expect("a head");
    assert_eq!(head.to_string().parse::<Head>().expect("parsed"), head);
    change(folder.path(), |lines| lines.truncate(4));
    assert_eq!(look(folder.path()).breaks, [], "nothing else can tell");
    let found = verify(folder.path(), Some(&head)).expect("read");
    assert!(found.breaks[0].what.contains("records 5 to 6 were cut off"), "{found:?}");
    // The same number again does not help.
    let mut log = Log::new(folder.path().into(), LONG);
    for _ in 0..5 {
        log.write(&Event::general("other")).expect("written");
    }
    let found = verify(folder.path(), Some(&head)).expect("read");
    assert!(found.breaks[0].what.contains("record 6 is not the one"), "{found:?}");
    for text in ["", "6", "6:abc", "x:0000"] {
        assert!(text.parse::<Head>().is_err(), "{text}");
    }
}

#[test]
fn a_torn_line_is_sealed_and_not_lost() {
    for keep in [1, 20, 60] {
        let folder = log(3);
        let bytes = fs::read(current(folder.path())).expect("read");
        let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("lines");
        let torn = &bytes[..last + 1 + keep];
        fs::write(current(folder.path()), torn).expect("written");
        assert_eq!(whole(folder.path()).records, 2, "the writer may be about to seal it");
        let mut log = Log::new(folder.path().into(), LONG);
        assert_eq!(log.write(&Event::general("next")).expect("written"), 4);
        let found = whole(folder.path());
        assert_eq!((found.records, found.sealed), (4, 1));
        let after = fs::read(current(folder.path())).expect("read");
        assert!(after.starts_with(torn));
        // What was torn cannot be changed either.
        change(folder.path(), |lines| lines[2].push('x'));
        assert!(!look(folder.path()).breaks.is_empty());
    }
    // Only the end of the line is missing: the record counts.
    let folder = log(3);
    let bytes = fs::read(current(folder.path())).expect("read");
    fs::write(current(folder.path()), &bytes[..bytes.len() - 1]).expect("written");
    let mut log = Log::new(folder.path().into(), LONG);
    assert_eq!(log.write(&Event::general("next")).expect("written"), 4);
    assert_eq!((whole(folder.path()).records, whole(folder.path()).sealed), (4, 0));
    // Of the very first record.
    let folder = tempfile::tempdir().expect("a directory");
    fs::write(current(folder.path()), "{\"numb").expect("written");
    Log::new(folder.path().into(), LONG).write(&Event::general("next")).expect("written");
    assert_eq!((whole(folder.path()).records, whole(folder.path()).sealed), (2, 1));
}

#[test]
fn what_is_no_record_at_the_end_is_sealed_whatever_it_is() {
    // Lines of somebody else, an empty one, and a seal that was torn itself.
    let seal = |folder: &Path| {
        let text = fs::read_to_string(current(folder)).expect("read");
        text.lines().find(|line| line.contains("sealed")).expect("a seal").to_owned()
    };
    let before = log(3);
    change(before.path(), |lines| lines.push("torn".into()));
    assert_eq!(whole(before.path()).unsealed, 4);
    Log::new(before.path().into(), LONG).write(&Event::general("next")).expect("written");
    assert_eq!((whole(before.path()).sealed, whole(before.path()).unsealed), (1, 0));
    let half = seal(before.path())[..40].to_owned();
    for end in ["nonsense\n", "\n\n", "a\nb", &format!("torn\n{half}")] {
        let folder = log(3);
        let mut bytes = fs::read(current(folder.path())).expect("read");
        bytes.extend_from_slice(end.as_bytes());
        fs::write(current(folder.path()), &bytes).expect("written");
        assert!(whole(folder.path()).unsealed > 0, "{end:?}");
        let mut log = Log::new(folder.path().into(), LONG);
        assert_eq!(log.write(&Event::general("next")).expect("written"), 5, "{end:?}");
        let found = whole(folder.path());
        assert_eq!((found.records, found.sealed, found.unsealed), (5, 1, 0), "{end:?}");
        change(folder.path(), |lines| lines[3].push('x'));
        assert!(!look(folder.path()).breaks.is_empty(), "{end:?}");
    }
}

#[test]
fn a_line_longer_than_any_hides_nothing() {
    for length in [70_000, 300_000] {
        let folder = log(4);
        change(folder.path(), |lines| lines.insert(2, "x".repeat(length)));
        let found = look(folder.path());
        assert_eq!((found.breaks.len(), found.breaks[0].line), (1, 3), "{found:?}");
    }
    // Far too much of it: nothing near the end to go on from.
    let folder = log(2);
    change(folder.path(), |lines| lines.push("x".repeat(300_000)));
    let mut log = Log::new(folder.path().into(), LONG);
    let error = log.write(&Event::general("next")).expect_err("nothing to bind it to");
    assert!(error.to_string().contains("no record in its last"), "{error}");
}

#[test]
fn files_are_closed_and_the_chain_goes_on() {
    let folder = tempfile::tempdir().expect("a directory");
    let mut log = Log::new(folder.path().into(), 600);
    for number in 0..20 {
        log.write(&Event::of("work", "test").with("n", number)).expect("written");
    }
    let files = fs::read_dir(folder.path()).expect("listed").count();
    assert!(files > 4, "{files}");
    assert_eq!((whole(folder.path()).records, whole(folder.path()).begins_at), (20, None));
    // Another process goes on.
    Log::new(folder.path().into(), 600).write(&Event::general("x")).expect("written");
    assert_eq!(whole(folder.path()).records, 21);
    // Killed between closing a file and beginning the next.
    fs::rename(current(folder.path()), folder.path().join("audit-000000000021.jsonl"))
        .expect("renamed");
    Log::new(folder.path().into(), 600).write(&Event::general("y")).expect("written");
    // (It is called by its first record, which may be before 21.)
    let found = look(folder.path());
    assert_eq!(found.records, 22, "{found:?}");
    // Old files may be put elsewhere; one in the middle may not.
    let mut all: Vec<PathBuf> = fs::read_dir(folder.path())
        .expect("listed")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().contains("audit-"))
        .collect();
    all.sort();
    fs::remove_file(&all[0]).expect("removed");
    let found = look(folder.path());
    assert!(found.breaks.is_empty() && found.begins_at.is_some_and(|first| first > 1), "{found:?}");
    fs::remove_file(&all[2]).expect("removed");
    assert!(look(folder.path()).breaks[0].what.contains("removed before it"));
}

#[test]
fn a_writer_that_stands_still_does_not_hold_up_others_for_ever() {
    let folder = log(1);
    let lock = fs::File::create(folder.path().join("audit.lock")).expect("opened");
    let held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).expect("locked");
    let mut log = Log::new(folder.path().into(), LONG);
    let error = log.write(&Event::general("next")).expect_err("not to be had");
    assert!(error.to_string().contains("could not lock"), "{error}");
    drop(held);
    assert_eq!(log.write(&Event::general("next")).expect("written"), 2);
}

#[test]
fn many_writers_make_one_chain() {
    let folder = tempfile::tempdir().expect("a directory");
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let path = folder.path().to_owned();
            std::thread::spawn(move || {
                let mut log = Log::new(path, 20_000);
                for number in 0..50 {
                    let event = Event::of("work", "test").with("writer", writer).with("n", number);
                    log.write(&event).expect("written");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().expect("written");
    }
    assert_eq!(whole(folder.path()).records, 400);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// One byte of a log that is another is found wherever it is.
    #[test]
    fn any_changed_byte_is_found(at in 0.0..1.0f64, with in any::<u8>()) {
        let folder = log(6);
        let head = whole(folder.path()).head.expect("a head");
        let mut bytes = fs::read(current(folder.path())).expect("read");
        let at = (at * bytes.len() as f64) as usize;
        prop_assume!(bytes[at] != with);
        bytes[at] = with;
        fs::write(current(folder.path()), bytes).expect("written");
        let found = verify(folder.path(), Some(&head)).expect("read");
        prop_assert!(!found.breaks.is_empty(), "{found:?}");
    }

    /// A log cut anywhere, as by a kill or a power cut, is gone on with.
    #[test]
    fn a_log_cut_anywhere_goes_on(cuts in prop::collection::vec(0.0..1.0f64, 1..4)) {
        let folder = log(4);
        for cut in cuts {
            let bytes = fs::read(current(folder.path())).expect("read");
            let keep = (cut * bytes.len() as f64) as usize;
            // What was sealed before stays: only the end is ever torn.
            let keep = keep.max(bytes.len().saturating_sub(200));
            fs::write(current(folder.path()), &bytes[..keep]).expect("written");
            let mut log = Log::new(folder.path().into(), LONG);
            log.write(&Event::general("next")).expect("written");
            log.write(&Event::general("next")).expect("written");
            let found = look(folder.path());
            prop_assert!(found.breaks.is_empty(), "{found:?}");
        }
    }
}
