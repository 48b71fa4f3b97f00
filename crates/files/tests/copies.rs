//! Whole copies through memory: what arrives is what was sent, and what a hostile sender sends leaves
//! nothing.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use casemate_files::{
    Decoder, Limits, Modes, Outcome, Place, ReceiveError, Receiver, Reply, Sender, Sent, Sum,
    receive_single,
};

const GUEST: Modes = Modes { keep_executable: true, keep_room: false };

/// A home with `Incoming/work` in it, and a folder to send from.
struct Desk {
    home: tempfile::TempDir,
    from: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let folder = || tempfile::tempdir().expect("a folder");
        Self { home: folder(), from: folder() }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.from.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, content).expect("written");
        path
    }

    fn send(&self, paths: &[PathBuf], moving: bool) -> (Vec<u8>, Sent) {
        let mut stream = Vec::new();
        let sender = Sender::new(paths, moving).expect("it can go");
        let sent = sender.send(&mut stream, &mut |_| {}).expect("sent");
        (stream, sent)
    }

    fn receive(&self, mut stream: impl Read) -> (Result<(), ReceiveError>, Outcome, Reply) {
        let place = Place::open(self.home.path(), "work").expect("a place");
        let mut receiver = Receiver::new(&place, GUEST).expect("begun");
        let mut decoder = Decoder::new(Limits::default());
        let result = receiver.run(&mut decoder, &mut stream, &mut |_| Ok(()));
        let reply = receiver.reply(decoder.sum(), result.as_ref().err());
        (result, receiver.outcome().clone(), reply)
    }

    fn incoming(&self) -> PathBuf {
        self.home.path().join("Incoming/work")
    }

    /// What is there, hidden things too.
    fn there(&self) -> Vec<String> {
        let names = fs::read_dir(self.incoming()).expect("read");
        let mut names: Vec<String> =
            names.map(|entry| entry.expect("one").file_name().to_string_lossy().into()).collect();
        names.sort();
        names
    }
}

/// One byte at a time, as it never comes and may.
struct Drops<'a>(&'a [u8]);

impl Read for Drops<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = into.len().min(1).min(self.0.len());
        into[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

#[test]
fn files_and_folders_arrive_as_they_were() {
    let desk = Desk::new();
    let big: Vec<u8> = (0..700_000u32).map(|n| (n % 251) as u8).collect();
    let one = desk.file("report ä.pdf", &big);
    desk.file("folder/empty", "");
    desk.file("folder/deep/er/x", "x");
    let run = desk.file("folder/run", "#!");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o4755)).expect("set");
    fs::create_dir(desk.from.path().join("folder/nothing")).expect("made");
    symlink("/etc/passwd", desk.from.path().join("folder/link")).expect("linked");
    let paths = [one, desk.from.path().join("folder")];
    let (stream, sent) = desk.send(&paths, false);
    for whole in [true, false] {
        let (result, outcome, reply) = match whole {
            true => desk.receive(&stream[..]),
            false => desk.receive(Drops(&stream)),
        };
        result.expect("received");
        assert!(sent.is_confirmed_by(&reply), "{reply:?}");
        assert_eq!((outcome.totals.items, outcome.totals.entries), (2, 8));
    }
    assert_eq!(desk.there(), ["folder", "folder (2)", "report ä (2).pdf", "report ä.pdf"]);
    let incoming = desk.incoming();
    assert_eq!(fs::read(incoming.join("report ä (2).pdf")).expect("read"), big);
    assert_eq!(fs::read(incoming.join("folder/deep/er/x")).expect("read"), b"x");
    assert!(incoming.join("folder/nothing").is_dir());
    assert!(fs::symlink_metadata(incoming.join("folder/link")).is_err(), "no link goes");
    let mode = |name: &str| {
        fs::metadata(incoming.join(name)).expect("there").permissions().mode() & 0o7777
    };
    assert_eq!(mode("folder/run") & 0o7700, 0o700, "executable, and no more");
    assert_eq!(mode("folder/empty") & 0o7100, 0);
    assert_eq!(fs::metadata(&incoming).expect("there").permissions().mode() & 0o777, 0o700);
}

#[test]
fn nothing_is_executable_on_a_host() {
    let desk = Desk::new();
    let run = desk.file("run", "#!");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).expect("set");
    let (stream, _) = desk.send(&[run], false);
    let place = Place::open(desk.home.path(), "work").expect("a place");
    let modes = Modes { keep_executable: false, keep_room: true };
    let mut receiver = Receiver::new(&place, modes).expect("begun");
    let mut decoder = Decoder::new(Limits::default());
    receiver.run(&mut decoder, &mut &stream[..], &mut |_| Ok(())).expect("received");
    let mode = fs::metadata(desk.incoming().join("run")).expect("there").permissions().mode();
    assert_eq!(mode & 0o111, 0);
}

#[test]
fn every_stream_that_is_cut_or_altered_leaves_nothing_of_its_item() {
    let desk = Desk::new();
    let paths = [desk.file("a", "first"), desk.file("b", vec![7; 500])];
    let (stream, _) = desk.send(&paths, false);
    for end in 0..stream.len() {
        let (result, outcome, reply) = desk.receive(&stream[..end]);
        assert!(result.is_err() && reply.problem.is_some(), "{end}");
        let there = desk.there();
        assert_eq!(there.len(), outcome.totals.items as usize, "{end}: {there:?}");
        for name in there {
            fs::remove_file(desk.incoming().join(name)).expect("removed");
        }
    }
    for at in (0..stream.len()).step_by(7) {
        let mut altered = stream.clone();
        altered[at] ^= 0x10;
        let (result, _, _) = desk.receive(&altered[..]);
        assert!(result.is_err(), "{at}");
        for name in desk.there() {
            let content = fs::read(desk.incoming().join(&name)).expect("read");
            let whole = match name.as_str() {
                "a" => content == b"first",
                // Whole, and what was altered stands behind it.
                _ => name == "b" && content == vec![7; 500] && at + 9 >= stream.len(),
            };
            assert!(whole, "{name}, {at}");
            fs::remove_file(desk.incoming().join(name)).expect("removed");
        }
    }
}

/// A stream as somebody might write it who wishes no good.
struct Forged {
    bytes: Vec<u8>,
}

impl Forged {
    fn new(entries: u32, bytes: u64) -> Self {
        let mut all = b"casemate\x01\0".to_vec();
        all.extend(entries.to_le_bytes());
        all.extend(bytes.to_le_bytes());
        Self { bytes: all }
    }

    fn folder(mut self, name: &[u8]) -> Self {
        self.bytes.push(b'D');
        self.bytes.extend((name.len() as u16).to_le_bytes());
        self.bytes.extend(name);
        self
    }

    fn file(mut self, name: &[u8], size: u64) -> Self {
        self.bytes.extend(*b"F\0");
        self.bytes.extend(size.to_le_bytes());
        self.bytes.extend((name.len() as u16).to_le_bytes());
        self.bytes.extend(name);
        self
    }

    fn piece(mut self, length: u32, content: &[u8]) -> Self {
        self.bytes.push(b'B');
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(content);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    fn sum(mut self, kind: u8) -> Self {
        self.bytes.push(kind);
        let mut sum = Sum::default();
        sum.update(&self.bytes);
        self.bytes.extend(sum.value().to_le_bytes());
        self
    }
}

#[test]
fn hostile_streams_are_refused_and_leave_nothing() {
    let desk = Desk::new();
    let plain = || Forged::new(9, 99);
    let deep = (0..70).fold(Forged::new(99, 0), |stream, _| stream.folder(b"d"));
    let long = (0..20).fold(Forged::new(99, 0), |stream, _| stream.folder(&[b'd'; 200]));
    let cases: Vec<(&str, Forged)> = vec![
        ("out of the folder", plain().file(b"../x", 0)),
        ("an absolute path", plain().file(b"/etc/x", 0)),
        ("two dots", plain().folder(b"..")),
        ("one dot", plain().folder(b".")),
        ("no name", plain().file(b"", 0)),
        ("a zero byte", plain().file(b"a\0b", 0)),
        ("an escape", plain().file(b"a\x1b[2J", 0)),
        ("a turned name", plain().file("a\u{202e}fdp.exe".as_bytes(), 0)),
        ("no text", plain().file(b"\xff\xfe", 0)),
        ("our own name", plain().folder(b".incoming-1-0")),
        ("a long name", plain().file(&[b'a'; 256], 0)),
        ("more bytes than announced", plain().file(b"a", 100)),
        ("a file without end", plain().file(b"a", u64::MAX)),
        ("more entries than announced", Forged::new(0, 0).file(b"a", 0)),
        ("entries without end", Forged::new(u32::MAX, 0)),
        ("folders without end", deep),
        ("a path without end", long),
        ("a piece beyond the file", plain().file(b"a", 3).piece(4, b"abcd")),
        ("an empty piece", plain().file(b"a", 3).piece(0, b"")),
        ("a huge piece", Forged::new(9, u64::MAX).file(b"a", u64::MAX / 2).piece(u32::MAX, b"")),
        ("out of no folder", plain().raw(b"U")),
        ("out of the item", plain().folder(b"d").raw(b"UU")),
        ("a piece of nothing", plain().piece(1, b"a")),
        ("an item in an item", plain().file(b"a", 0).file(b"b", 0)),
        ("an end within", plain().folder(b"d").sum(b'E')),
        ("an item of nothing", plain().sum(b'S')),
        ("a wrong sum", plain().file(b"a", 0).raw(b"S12345678")),
        ("an unknown record", plain().raw(b"L")),
        ("an unknown flag", plain().raw(b"F\x02")),
        ("another version", Forged { bytes: b"casemate\x02".to_vec() }),
        ("no stream", Forged { bytes: b"GET / HTTP/1.1".to_vec() }),
        ("given up", plain().file(b"a", 3).piece(1, b"a").raw(b"X\x02\0no")),
        ("the same twice", plain().folder(b"d").file(b"a", 0).file(b"a", 0)),
        ("a file as folder", plain().folder(b"d").file(b"a", 0).folder(b"a")),
    ];
    for (what, forged) in cases {
        let (result, outcome, reply) = desk.receive(&forged.raw(&[0; 64]).bytes[..]);
        assert!(result.is_err(), "{what}");
        assert!(reply.problem.is_some() && outcome.names.is_empty(), "{what}");
        assert_eq!(desk.there(), [""; 0], "{what}");
    }
    assert_eq!(fs::read_dir(desk.home.path()).expect("read").count(), 1, "nothing beside it");
}

#[test]
fn links_in_the_way_are_neither_followed_nor_replaced() {
    let desk = Desk::new();
    let (stream, _) = desk.send(&[desk.file("a", "new")], false);
    fs::create_dir_all(desk.incoming()).expect("made");
    let victim = desk.home.path().join("victim");
    fs::write(&victim, "old").expect("written");
    symlink(&victim, desk.incoming().join("a")).expect("linked");
    let (result, outcome, _) = desk.receive(&stream[..]);
    result.expect("received");
    assert_eq!(outcome.names, ["a (2)"]);
    assert_eq!(fs::read(&victim).expect("read"), b"old");
    // The folder itself may be no link.
    let other = Desk::new();
    fs::create_dir(other.home.path().join("Incoming")).expect("made");
    symlink(desk.home.path(), other.home.path().join("Incoming/work")).expect("linked");
    assert!(Place::open(other.home.path(), "work").is_err());
    for source in ["", "..", "a/b", "a\0"] {
        assert!(Place::open(other.home.path(), source).is_err(), "{source:?}");
    }
}

#[test]
fn leftovers_of_the_dead_are_removed_and_those_of_the_living_stay() {
    let desk = Desk::new();
    let place = Place::open(desk.home.path(), "work").expect("a place");
    let living = Receiver::new(&place, GUEST).expect("begun");
    fs::create_dir_all(desk.incoming().join(".incoming-1-0/d/e")).expect("made");
    fs::write(desk.incoming().join(".incoming-1-0/d/half"), "half").expect("written");
    symlink("/etc", desk.incoming().join(".incoming-1-0/d/link")).expect("linked");
    assert_eq!(desk.there().len(), 2);
    let other = Receiver::new(&place, GUEST).expect("begun");
    assert_eq!(desk.there().len(), 2, "{:?}", desk.there());
    drop(other);
    assert_eq!(desk.there().len(), 1);
    drop(living);
    assert_eq!(desk.there(), [""; 0]);
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn what_was_moved_goes_and_what_changed_meanwhile_stays() {
    let desk = Desk::new();
    desk.file("d/a", "a");
    let changed = desk.file("d/changed", "b");
    let path = desk.from.path().join("d");
    let (stream, sent) = desk.send(std::slice::from_ref(&path), true);
    let (result, _, reply) = desk.receive(&stream[..]);
    result.expect("received");
    assert!(sent.is_confirmed_by(&reply));
    fs::write(&changed, "changed").expect("written");
    let new = desk.file("d/new", "new");
    let kept = sent.remove();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(!path.join("a").exists() && changed.exists() && new.exists());
    // And all of it where nothing changed.
    let whole = desk.file("e/f/g", "g").ancestors().nth(2).expect("e").to_owned();
    let (_, sent) = desk.send(std::slice::from_ref(&whole), true);
    assert!(sent.remove().is_empty());
    assert!(!whole.exists());
    // Links cannot go, so nothing that has one can.
    symlink("x", path.join("link")).expect("linked");
    assert!(Sender::new(std::slice::from_ref(&path), true).is_err());
    assert!(Sender::new(&[path.join("link")], true).is_err());
    let wrong = desk.file("x\u{202e}y", "");
    assert!(Sender::new(&[wrong], false).is_err());
}

#[test]
fn one_file_comes_back_and_no_more() {
    let desk = Desk::new();
    let paths = [desk.file("a", "aa"), desk.file("b", "b")];
    let take = |stream: &[u8], bytes| {
        let mut file = tempfile::tempfile().expect("a file");
        let limits = Limits { entries: 1, bytes };
        receive_single(&mut Decoder::new(limits), &mut &stream[..], &mut file)
    };
    let (one, _) = desk.send(&paths[..1], false);
    assert!(take(&one, 2).expect("taken"));
    assert!(take(&one, 1).is_err(), "too large");
    let (none, _) = desk.send(&[], false);
    assert!(!take(&none, 9).expect("taken"));
    assert!(take(&desk.send(&paths, false).0, 9).is_err());
    assert!(take(&Forged::new(1, 0).folder(b"d").bytes, 9).is_err());
    let mut refused = Vec::new();
    Sender::refuse(&mut refused, "no").expect("written");
    assert!(matches!(take(&refused, 9), Err(ReceiveError::Aborted(why)) if why == "no"));
}
