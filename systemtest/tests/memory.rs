//! Snapshots with the memory of a running guest: it goes on where it was, with a time and random
//! numbers of its own; and nothing half is left of one that was interrupted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use systemtest::{
    Background, Done, SHORT, SmallDisk, World, can_mount, has, here, is_root, skip, soak, until,
};

/// For writing or reading a memory of 256 MiB on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the guest has in its memory, and the host must not find in a file.
const WORD: &str = "only-in-the-memory-of-the-guest";

/// Where the volume is mounted.
const PLACE: &str = "/home/user/data";

/// A compartment with a volume, which goes with the test.
struct Den {
    world: World,
}

impl Den {
    fn new(test: &'static str, settings: &str) -> Option<Self> {
        if !["age", "cryptsetup", "qemu-img"].iter().all(|program| has(test, program)) {
            return None;
        }
        let world = World::new(test, "");
        let den = Self { world };
        den.configure(256, settings);
        Some(den)
    }

    fn configure(&self, memory: u32, settings: &str) {
        let name = self.world.name();
        let key = self.world.path("data.age").display().to_string();
        self.world.configure(&format!(
            "[compartment.{name}]\nmemory = {memory}\nidle-timeout = 600\n{settings}\n\
             [[compartment.{name}.volumes]]\nname = \"data\"\nsize = \"64MiB\"\n\
             mount-point = \"{PLACE}\"\nkey = {{ age = {key:?} }}\n"
        ));
    }

    #[track_caller]
    fn snapshot(&self, arguments: &[&str]) -> Done {
        self.snapshotting(arguments).done()
    }

    /// `what [--option…] NAME …`: the name of the compartment comes behind the options.
    fn snapshotting(&self, arguments: &[&str]) -> Background {
        let options = arguments.iter().skip(1).take_while(|word| word.starts_with("--")).count();
        let mut words = vec!["snapshot"];
        words.extend(&arguments[..=options]);
        words.push(self.world.name());
        words.extend(&arguments[options + 1..]);
        self.world.casemate(words).within(PATIENCE).start()
    }

    fn listed(&self) -> Vec<Value> {
        let rows = self.world.casemate(["snapshot", "list", "--json", self.world.name()]);
        rows.done().ok().json().as_array().expect("rows").clone()
    }

    /// The folder of kept memories.
    fn folder(&self) -> PathBuf {
        let listed = self.world.casemate(["image", "show", "debian", "--json"]).done().ok().json();
        let image = PathBuf::from(listed["directory"].as_str().expect("a directory"));
        let data = image.ancestors().nth(2).expect("images are in the data directory");
        data.join("memory").join(self.world.name())
    }

    fn files(&self) -> usize {
        fs::read_dir(self.folder()).map(Iterator::count).unwrap_or(0)
    }

    /// A program without a client that counts in memory, and keeps what it drew at each number.
    fn count(&self) {
        let line = format!(
            "my $word = '{WORD}'; open(my $log, '>>', '/tmp/log') or die; \
             open(my $r, '<:raw', '/dev/urandom') or die; \
             for (my $i = 1; ; $i++) {{ sysread($r, my $drawn, 8); \
               syswrite($log, \"$$ $i \" . unpack('H*', $drawn) . ' ' . time . \"\\n\"); \
               select(undef, undef, undef, 0.05); }}"
        );
        self.world.run_with(["--detach"], ["perl", "-e", &line]).done().ok();
        until("the program to count", SHORT, || (self.counted().len() > 3).then_some(()));
    }

    /// Process, number, what was drawn, and when.
    fn counted(&self) -> Vec<(u64, u64, String, u64)> {
        let done = self.world.run(["cat", "/tmp/log"]).done();
        let text = done.text().to_owned();
        let line = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let [pid, number, drawn, time] = words[..] else { return None };
            Some((pid.parse().ok()?, number.parse().ok()?, drawn.into(), time.parse().ok()?))
        };
        text.lines().filter_map(line).collect()
    }
}

impl Drop for Den {
    fn drop(&mut self) {
        let name = self.world.name();
        let _ = self.world.casemate(["stop", "--force", name]).within(SHORT).done();
        let _ = fs::remove_dir_all(self.folder());
        let volume = format!("{name}/data");
        let _ = self.world.casemate(["volume", "delete", "--yes", &volume]).within(SHORT).done();
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

#[test]
fn guest_goes_on_from_its_kept_memory_with_a_time_and_random_numbers_of_its_own() {
    let Some(den) = Den::new(here!(), "") else { return };
    let write = |word: &str| {
        den.world.shell(&format!("echo {word} >> {PLACE}/f; sync")).done().ok();
    };
    write("before");
    den.count();
    let before = den.counted().last().expect("counted").clone();
    let mut call = den.world.run(["cat"]).hold_input().start();
    call.give(b"one\n");
    call.expect("one");
    den.snapshot(&["create", "--memory", "s"]).ok();
    let kept = now();
    // In this life a session only stood still.
    call.give(b"two\n");
    call.expect("two");
    write("after");
    let rows = den.listed();
    assert!(rows[0]["memory"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{rows:?}");
    assert_eq!(rows[0]["volumes"].as_array().map(Vec::len), Some(1), "{rows:?}");
    let file = den.folder().join("s.age");
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    let bytes = fs::read(&file).expect("read");
    assert!(bytes.starts_with(b"age-encryption.org/"));
    assert!(!systemtest::call::contains(&bytes, WORD.as_bytes()));
    until("it to go on", SHORT, || (den.counted().last()?.1 > before.1 + 20).then_some(()));
    drop(call);
    let mut lives = Vec::new();
    for _ in 0..2 {
        // The clock of a memory stands still until it is set.
        std::thread::sleep(Duration::from_secs(4));
        den.snapshot(&["revert", "s"]).ok();
        let reverted = now();
        assert!(reverted >= kept + 4);
        let text = den.world.run(["cat", &format!("{PLACE}/f")]).done().ok();
        assert_eq!(text.text(), "before");
        let clock: u64 = den.world.run(["date", "+%s"]).done().ok().text().parse().expect("a time");
        assert!(now().abs_diff(clock) <= 2, "{} {clock}", now());
        until("it to go on", SHORT, || (den.counted().last()?.3 > reverted).then_some(()));
        let counted = den.counted();
        let numbers: Vec<u64> = counted.iter().map(|line| line.1).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "one process counts");
        assert!(counted.iter().all(|line| line.0 == before.0), "another process");
        lives.push(counted);
    }
    // They are alike until the snapshot, and nothing was drawn twice after it.
    let same = lives[0].iter().zip(&lives[1]).take_while(|(one, other)| one.2 == other.2).count();
    assert!(same as u64 >= before.1, "{same} {before:?}");
    let drawn = |life: &[(u64, u64, String, u64)]| -> Vec<String> {
        life[same..].iter().map(|line| line.2.clone()).collect()
    };
    let (one, other) = (drawn(&lives[0]), drawn(&lives[1]));
    assert!(!one.is_empty() && one.iter().all(|drawn| !other.contains(drawn)));
    assert!(lives[1][same].3 > kept, "it ran before its clock was set");
    // A session's client sees nothing of the life before.
    let status = den.world.status(den.world.name());
    assert_eq!(status["sessions"].as_array().map(Vec::len), Some(0), "{status}");
    // And a guest that went on may be kept again.
    write("again");
    den.snapshot(&["create", "--memory", "t"]).ok();
    write("later");
    den.snapshot(&["revert", "t"]).ok();
    let text = den.world.run(["cat", &format!("{PLACE}/f")]).done().ok();
    assert_eq!(text.text(), "before\nagain");
    den.world.casemate(["stop", den.world.name()]).within(SHORT).done().ok();
    den.snapshot(&["diff-size", "s"]).ok();
    den.snapshot(&["delete", "t"]).ok();
    den.snapshot(&["delete", "s"]).ok();
    assert_eq!((den.files(), den.listed().len()), (0, 0));
}

#[test]
fn damaged_or_foreign_memory_is_refused_and_the_compartment_boots() {
    let Some(den) = Den::new(here!(), "") else { return };
    den.world.shell(&format!("echo kept > {PLACE}/f; sync")).done().ok();
    den.snapshot(&["create", "--memory", "s"]).ok();
    let name = den.world.name();
    let boots = || {
        let text = den.world.run(["cat", &format!("{PLACE}/f")]).done().ok();
        assert_eq!(text.text(), "kept");
        den.world.casemate(["stop", name]).within(SHORT).done().ok();
    };
    boots();
    let file = den.folder().join("s.age");
    let good = fs::read(&file).expect("read");
    // Cut: noticed before anything is done.
    fs::write(&file, &good[..good.len() - 1]).expect("written");
    den.snapshot(&["revert", "s"]).exits(1).says("bytes, and");
    boots();
    // Another byte in the middle: noticed when it is decrypted.
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&file, &bad).expect("written");
    den.snapshot(&["revert", "s"]).exits(1).says("could not go on from the memory of s");
    boots();
    fs::write(&file, &good).expect("written");
    // Another machine.
    den.configure(320, "");
    let refused = den.snapshot(&["revert", "s"]).exits(1).says("the machine is not what it was");
    assert!(refused.error().contains("--without-memory"), "{refused}");
    boots();
    den.snapshot(&["revert", "--without-memory", "s"]).ok();
    boots();
    den.configure(256, "");
    den.snapshot(&["revert", "s"]).ok();
    boots();
}

#[test]
fn memory_is_not_kept_where_it_cannot_be() {
    let Some(den) = Den::new(here!(), "") else { return };
    let name = den.world.name();
    den.snapshot(&["create", "--memory", "s"]).exits(1).says("it is not running");
    den.world.start();
    den.world.casemate(["pause", name]).done().ok();
    den.snapshot(&["create", "--memory", "s"]).exits(1).says("paused");
    den.world.casemate(["resume", name]).done().ok();
    den.snapshot(&["create", "--memory", "s"]).ok();
    den.snapshot(&["create", "--memory", "s"]).exits(1).says("there is one of this name");
    den.world.run(["true"]).done().ok();
    assert_eq!(den.listed().len(), 1);
}

#[test]
fn full_disk_leaves_no_memory_and_the_guest_goes_on() {
    if !can_mount(here!()) {
        return;
    }
    let Some(den) = Den::new(here!(), "") else { return };
    den.world.start();
    let small = SmallDisk::over(&den.folder(), "30m");
    den.snapshot(&["create", "--memory", "s"]).exits(1).says("no space left");
    den.world.run(["true"]).done().ok();
    assert_eq!((den.files(), den.listed().len()), (0, 0));
    drop(small);
    // Who asks for what is not there loses nothing that runs.
    den.snapshot(&["revert", "s"]).exits(1).says("no snapshot `s`");
    assert_eq!(den.world.state(den.world.name()), "running");
    den.snapshot(&["create", "--memory", "s"]).ok();
}

/// A guest that counts goes on counting, as the same process.
fn goes_on(den: &Den) {
    den.count();
    let before = den.counted().last().expect("counted").clone();
    den.snapshot(&["create", "--memory", "s"]).ok();
    den.snapshot(&["revert", "s"]).ok();
    let goes_on = || den.counted().last().is_some_and(|line| line.1 > before.1).then_some(());
    until("it to go on", SHORT, goes_on);
    let counted = den.counted();
    assert!(counted.iter().all(|line| line.0 == before.0), "another process");
    assert!(counted.windows(2).all(|pair| pair[0].1 + 1 == pair[1].1), "it began anew");
}

#[test]
fn guest_with_systemd_goes_on_too() {
    let Some(den) = Den::new(here!(), "") else { return };
    den.configure(512, "guest.init = \"systemd\"");
    goes_on(&den);
    // And systemd still does what it is for.
    let restart = ["systemctl", "restart", "systemd-journald"];
    den.world.run_with(["--root"], restart).within(PATIENCE).done().ok();
}

#[test]
fn guest_of_a_microvm_goes_on_too() {
    let Some(den) = Den::new(here!(), "machine = \"microvm\"") else { return };
    goes_on(&den);
}

#[test]
fn memory_of_a_guest_with_shares_is_refused() {
    let Some(den) = Den::new(here!(), "") else { return };
    let folder = den.world.path("shared");
    fs::create_dir(&folder).expect("made");
    den.configure(256, &format!("shares = [{{ source = {folder:?}, mount-point = \"/mnt\" }}]"));
    den.world.start();
    den.snapshot(&["create", "--memory", "s"]).exits(1).says("shared with it");
    den.world.run(["true"]).done().ok();
    assert_eq!(den.listed().len(), 0);
    den.snapshot(&["create", "s"]).ok();
}

#[test]
fn memory_that_the_identity_does_not_open_is_refused() {
    if is_root() {
        return skip(here!(), "root's configuration is the machine's");
    }
    let Some(den) = Den::new(here!(), "") else { return };
    let (world, name) = (&den.world, den.world.name());
    // A folder of its own for the identity, and no volume, whose key would be asked for first.
    world.configure(&format!("[compartment.{name}]\nmemory = 256\nidle-timeout = 600\n"));
    let home = world.path("configuration");
    let identity = home.join("casemate/identity.txt");
    fs::create_dir_all(home.join("casemate")).expect("made");
    let casemate = |words: &[&str]| {
        world.casemate(words).env("XDG_CONFIG_HOME", &home).within(PATIENCE).done()
    };
    casemate(&["start", name]).ok();
    casemate(&["snapshot", "create", "--memory", name, "s"]).ok();
    let aside = home.join("aside");
    fs::rename(&identity, &aside).expect("moved");
    let refused = casemate(&["snapshot", "revert", name, "s"]);
    refused.exits(1).says("could not decrypt the memory").says("put the identity back");
    assert_eq!(world.state(name), "stopped");
    // That of somebody else.
    let other = world.path("other");
    world.call("age-keygen").arg("-o").arg(&other).done().ok();
    fs::rename(&other, &identity).expect("moved");
    let refused = casemate(&["snapshot", "revert", name, "s"]);
    refused.exits(1).says("no identity matched");
    fs::rename(&aside, &identity).expect("moved");
    casemate(&["snapshot", "revert", name, "s"]).ok();
    casemate(&["stop", name]).ok();
}

#[test]
fn kill_while_the_memory_is_written_leaves_nothing() {
    let Some(den) = Den::new(here!(), "") else { return };
    let mut interrupted = 0;
    for round in 0..if soak() { 20 } else { 3 } {
        den.world.shell(&format!("echo kept > {PLACE}/f; sync")).done().ok();
        let victim = match round % 2 {
            0 => den.world.member("qemu").pid,
            _ => den.world.supervisor(),
        };
        let mut create = den.snapshotting(&["create", "--memory", "s"]);
        let begin = Instant::now();
        let written = || {
            let entries = fs::read_dir(den.folder()).into_iter().flatten().flatten();
            entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).max().unwrap_or(0)
        };
        while written() < 4 << 20 && create.runs() && begin.elapsed() < SHORT {
            std::thread::sleep(Duration::from_millis(1));
        }
        kill(Pid::from_raw(victim), Signal::SIGKILL).expect("it can be killed");
        let created = create.done();
        let text = den.world.run(["cat", &format!("{PLACE}/f")]).done().ok();
        assert_eq!(text.text(), "kept");
        let rows = den.listed();
        assert!(!rows.is_empty() || created.code != Some(0), "{created}");
        let Some(row) = rows.first() else {
            interrupted += 1;
            den.snapshot(&["revert", "s"]).exits(1).says("no snapshot");
            continue;
        };
        // The kill came too late to interrupt it, so all of it is there.
        assert!(row["memory"].is_u64(), "half a snapshot: {row} {created}");
        den.snapshot(&["revert", "s"]).ok();
        den.world.casemate(["stop", den.world.name()]).within(SHORT).done().ok();
        den.snapshot(&["delete", "s"]).ok();
    }
    println!("{interrupted} kills came in between");
    den.world.start();
    den.snapshot(&["create", "--memory", "s"]).ok();
    // What the kills left went with it.
    assert_eq!(den.files(), 2);
}
