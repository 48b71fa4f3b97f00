//! Volumes: what lasts of a compartment, encrypted; power cuts, passphrases, growing, snapshots.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use systemtest::{SHORT, Terminal, World, has, here, soak, until};

/// Where the guest mounts the volume `data`.
const PLACE: &str = "/home/user/data";

/// A compartment with a volume, which goes with the test.
struct Bank {
    world: World,
}

impl Bank {
    /// A volume whose key is in a file of the test's own; none when a program is missing.
    fn new(test: &'static str) -> Option<Self> {
        if !["age", "cryptsetup", "qemu-img"].iter().all(|program| has(test, program)) {
            return None;
        }
        let bank = Self { world: World::new(test, "") };
        let key = bank.world.path("key.age").display().to_string();
        bank.configure(&format!("{{ age = {key:?} }}"), "64MiB");
        Some(bank)
    }

    fn configure(&self, key: &str, size: &str) {
        let name = self.world.name();
        let key = if key.starts_with('{') { key.to_owned() } else { format!("{key:?}") };
        self.world.configure(&format!(
            "[compartment.{name}]\nmemory = 320\nidle-timeout = 600\n\n\
             [[compartment.{name}.volumes]]\nname = \"data\"\nsize = \"{size}\"\n\
             mount-point = \"{PLACE}\"\nkey = {key}\n"
        ));
    }

    fn volume(&self) -> String {
        format!("{}/data", self.world.name())
    }

    /// Its folder on the host.
    fn folder(&self) -> PathBuf {
        let listed = self.world.casemate(["image", "show", "debian", "--json"]).done().ok().json();
        let image = PathBuf::from(listed["directory"].as_str().expect("a directory"));
        let data = image.ancestors().nth(2).expect("images are in the data directory");
        data.join("volumes").join(self.world.name()).join("data")
    }

    #[track_caller]
    fn stop(&self) {
        self.world.casemate(["stop", self.world.name()]).within(SHORT).done().ok();
    }

    #[track_caller]
    fn snapshot(&self, what: &str, arguments: &[&str]) -> systemtest::Done {
        let mut words = vec!["snapshot", what, self.world.name()];
        words.extend(arguments);
        self.world.casemate(words).within(SHORT).done()
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        let name = self.world.name();
        let _ = self.world.casemate(["stop", "--force", name]).within(SHORT).done();
        let _ =
            self.world.casemate(["volume", "delete", "--yes", &self.volume()]).within(SHORT).done();
    }
}

#[test]
fn volume_lasts_and_its_disk_shows_nothing() {
    let Some(bank) = Bank::new(here!()) else { return };
    let word = "a-word-that-nobody-else-writes";
    let line =
        format!("for i in $(seq 2000); do echo {word}; done > {PLACE}/file; stat -c %U {PLACE}");
    assert_eq!(bank.world.shell(&line).done().ok().text(), "user");
    bank.stop();
    let done = bank.world.shell(&format!("sort -u {PLACE}/file; mount | grep {PLACE}")).done().ok();
    assert!(done.text().starts_with(word), "{done}");
    assert!(done.text().contains("type ext4"), "{done}");
    bank.stop();
    for entry in fs::read_dir(bank.folder()).expect("listed") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("read");
        let shows = bytes.windows(word.len()).any(|window| window == word.as_bytes());
        assert!(!shows, "{} shows what was written", path.display());
    }
    // Nor does the configuration's print, and the key is in no argument.
    let plan = bank.world.casemate(["plan", bank.world.name()]).done().ok();
    assert!(plan.text().contains("take the volume `data`"), "{plan}");
}

#[test]
fn volume_in_use_is_nobody_elses() {
    let Some(bank) = Bank::new(here!()) else { return };
    bank.world.start();
    let volume = bank.volume();
    for words in [
        vec!["volume", "delete", "--yes", &volume],
        vec!["volume", "resize", &volume],
        vec!["snapshot", "delete", bank.world.name(), "x"],
        vec!["snapshot", "diff-size", bank.world.name(), "x"],
    ] {
        let done = bank.world.casemate(words).within(SHORT).done().exits(1);
        done.says("has it");
    }
    let listed = bank.world.casemate(["volume", "list", "--json"]).done().ok().json();
    let rows = listed.as_array().expect("rows");
    let row = rows.iter().find(|row| row["volume"] == *volume).expect("it is listed");
    assert_eq!(row["state"], "in use");
    let text = row["warning"].as_str().unwrap_or_default().to_owned();
    assert!(text.contains("nothing but deletion"), "the identity lies beside it: {text}");
}

/// Numbered records are appended, each synced before its number is printed. After a power cut all
/// that were printed are there and whole.
#[test]
fn power_cut_in_a_write_load_loses_nothing_that_was_synced() {
    let Some(bank) = Bank::new(here!()) else { return };
    let rounds = if soak() { 50 } else { 3 };
    let writer = format!(
        "use IO::Handle; $| = 1; \
         open(F, '>>', '{PLACE}/log') or die; \
         for ($i = $ARGV[0] + 1; ; $i++) {{ \
           print F \"$i \" . ($i % 10) x 4000 . \"\\n\" or die; F->flush or die; F->sync or die; \
           open(G, '>', \"{PLACE}/scratch-\" . $i % 7) or die; print G 'x' x 100000; close(G); \
           print \"$i\\n\"; }}"
    );
    let checker = format!(
        "open(F, '<', '{PLACE}/log') or exit 0; \
         while (<F>) {{ last unless /^(\\d+) (\\d+)\\n/ && $1 == $n + 1 && $2 eq ($1 % 10) x 4000; $n = $1; }} \
         print $n + 0, \"\\n\";"
    );
    let mut synced = 0_u64;
    for round in 0..rounds {
        let call = bank.world.run(["perl", "-e", &writer, &synced.to_string()]).start();
        until("some records", SHORT, || (call.stdout().lines().count() >= 8).then_some(()));
        std::thread::sleep(Duration::from_millis(37 * (round % 9)));
        let machine = bank.world.member("qemu");
        kill(Pid::from_raw(machine.pid), Signal::SIGKILL).expect("it can be killed");
        let done = call.within(SHORT).done().exits(125);
        let last = done.text().lines().last().and_then(|line| line.parse().ok()).unwrap_or(synced);
        let there = bank.world.run(["perl", "-e", &checker]).done().ok().text();
        let there: u64 = there.parse().expect("a number");
        assert!(there >= last, "round {round}: {last} records were synced, {there} are there");
        // What follows the last whole record is cut off, as a journal's reader would do.
        let cut = format!(
            "head -n {there} {PLACE}/log > {PLACE}/whole && mv {PLACE}/whole {PLACE}/log && sync"
        );
        bank.world.shell(&cut).done().ok();
        synced = there;
    }
}

#[test]
fn passphrase_is_asked_for_at_the_terminal() {
    let Some(bank) = Bank::new(here!()) else { return };
    bank.configure("passphrase", "64MiB");
    let start = || {
        let call = bank.world.casemate(["start", bank.world.name()]);
        Terminal::start(call, 24, 100)
    };
    let volume = bank.volume();
    let mut terminal = start();
    terminal.expect(&format!("New passphrase for {volume}: "));
    terminal.send("a quiet word\n");
    terminal.expect("The same again: ");
    terminal.send("a quiet word\n");
    assert_eq!(terminal.code(), 0, "{}", terminal.shown());
    assert!(!terminal.showed("quiet"), "it is not shown");
    bank.world.shell(&format!("echo kept > {PLACE}/file")).done().ok();
    bank.stop();

    let mut terminal = start();
    for _ in 0..2 {
        terminal.expect(&format!("Passphrase of {volume}: "));
        terminal.send("a loud word\n");
        terminal.expect("That is not the passphrase");
    }
    terminal.expect(&format!("Passphrase of {volume}: "));
    terminal.send("a quiet word\n");
    assert_eq!(terminal.code(), 0, "{}", terminal.shown());
    assert_eq!(bank.world.shell(&format!("cat {PLACE}/file")).done().ok().text(), "kept");
    bank.stop();

    let mut terminal = start();
    for _ in 0..3 {
        terminal.expect(&format!("Passphrase of {volume}: "));
        terminal.send("a loud word\n");
    }
    terminal.expect("was wrong 3 times");
    assert_ne!(terminal.code(), 0);
    bank.world.assert_gone(bank.world.name());

    // Without a terminal nobody can be asked.
    let done = bank.world.call("setsid").arg("--wait");
    let program = systemtest::programs::program("casemate");
    let done = done.arg(program).arg("--config").arg(bank.world.config());
    let done = done.args(["start", bank.world.name()]).within(SHORT).done().exits(1);
    done.says("there is no terminal");
}

#[test]
fn volume_grows_and_never_shrinks() {
    let Some(bank) = Bank::new(here!()) else { return };
    let size = format!("df --output=size -k {PLACE} | tail -n 1");
    bank.world.shell(&format!("echo kept > {PLACE}/file")).done().ok();
    let before: u64 = bank.world.shell(&size).done().ok().text().trim().parse().expect("KiB");
    bank.stop();
    let key = bank.world.path("key.age").display().to_string();
    let key = format!("{{ age = {key:?} }}");
    bank.configure(&key, "160MiB");
    bank.world.casemate(["volume", "resize", &bank.volume()]).within(SHORT).done().ok();
    let after: u64 = bank.world.shell(&size).done().ok().text().trim().parse().expect("KiB");
    assert!(after > 2 * before, "{before} KiB grew to {after}");
    assert_eq!(bank.world.shell(&format!("cat {PLACE}/file")).done().ok().text(), "kept");
    bank.stop();
    bank.configure(&key, "64MiB");
    let done = bank.world.casemate(["volume", "resize", &bank.volume()]).within(SHORT).done();
    done.exits(1);
    assert_eq!(bank.world.shell(&format!("cat {PLACE}/file")).done().ok().text(), "kept");
}

#[test]
fn freed_space_goes_back_to_the_host() {
    use std::os::unix::fs::MetadataExt;
    let Some(bank) = Bank::new(here!()) else { return };
    let fill = format!("head -c 30M /dev/urandom > {PLACE}/file && sync");
    bank.world.shell(&fill).done().ok();
    let disk = bank.folder().join("data.raw");
    let allocated = || fs::metadata(&disk).expect("there").blocks() * 512;
    let full = allocated();
    assert!(full > 30 << 20, "{full} bytes");
    bank.world.shell(&format!("rm {PLACE}/file && sync {PLACE}")).done().ok();
    until("its space back", SHORT, || (allocated() < full / 2).then_some(()));
}

#[test]
fn snapshots_bring_back_what_was() {
    let Some(bank) = Bank::new(here!()) else { return };
    let write = |text: &str| {
        bank.world.shell(&format!("echo {text} > {PLACE}/file && sync")).done().ok();
        bank.stop();
    };
    let read = || {
        let text = bank.world.shell(&format!("cat {PLACE}/file")).done().ok().text();
        bank.stop();
        text
    };
    write("one");
    bank.snapshot("create", &["first"]).ok();
    write("two");
    bank.snapshot("create", &["second"]).ok();
    write("three");
    assert_eq!(read(), "three");
    bank.snapshot("diff-size", &["first"]).ok();
    let list = bank.snapshot("list", &[]).ok().text();
    assert!(list.contains("first") && list.contains("second"), "{list}");
    bank.snapshot("create", &["first"]).exits(1).says("first");

    // A running compartment is stopped first, and that is said.
    bank.world.start();
    bank.snapshot("revert", &["first"]).ok().says("it is stopped first");
    assert_eq!(read(), "one");
    bank.snapshot("revert", &["second"]).ok();
    assert_eq!(read(), "two");
    bank.snapshot("delete", &["first"]).ok();
    assert_eq!(read(), "two");
    bank.snapshot("revert", &["first"]).exits(1).says("has no snapshot");
}

#[test]
fn rule_takes_snapshots_at_each_stop_and_keeps_so_many() {
    let Some(bank) = Bank::new(here!()) else { return };
    let text = fs::read_to_string(bank.world.config()).expect("read");
    let rule = text.replacen("memory = 320", "memory = 320\nkeep-snapshots = \"1 yearly\"", 1);
    bank.world.configure(&rule);
    let taken = || {
        let list = bank.world.casemate(["snapshot", "list", bank.world.name(), "--json"]);
        list.done().ok().json().as_array().expect("rows").len()
    };
    bank.snapshot("create", &["mine"]).exits(1);
    for _ in 0..3 {
        bank.world.shell(&format!("echo more >> {PLACE}/file")).done().ok();
        bank.stop();
        until("the snapshot", SHORT, || (taken() == 1).then_some(()));
        // Its name has seconds in it.
        std::thread::sleep(Duration::from_millis(1100));
    }
    bank.snapshot("create", &["mine"]).ok();
    assert_eq!(taken(), 2, "what a person took no rule deletes");
    let read = bank.world.shell(&format!("cat {PLACE}/file")).done().ok().text();
    assert_eq!(read, "more\nmore\nmore");
}

#[test]
fn volume_moves_in_an_archive_and_stays_encrypted() {
    let Some(bank) = Bank::new(here!()) else { return };
    let volume = bank.volume();
    bank.world.shell(&format!("echo carried > {PLACE}/file")).done().ok();
    bank.stop();
    let archive = bank.world.path("volume.tar").display().to_string();
    bank.world.casemate(["volume", "export", &volume, &archive]).within(SHORT).done().ok();
    bank.world.casemate(["volume", "delete", "--yes", &volume]).within(SHORT).done().ok();
    assert!(!bank.folder().exists());
    let bytes = fs::read(&archive).expect("read");
    assert!(!bytes.windows(7).any(|window| window == b"carried"));
    bank.world.casemate(["volume", "import", &archive, &volume]).within(SHORT).done().ok();
    assert_eq!(bank.world.shell(&format!("cat {PLACE}/file")).done().ok().text(), "carried");
    bank.stop();
    let cut = bank.world.path("cut.tar");
    fs::write(&cut, &bytes[..bytes.len() / 2]).expect("written");
    bank.world.casemate(["volume", "delete", "--yes", &volume]).within(SHORT).done().ok();
    let cut = cut.display().to_string();
    bank.world.casemate(["volume", "import", &cut, &volume]).within(SHORT).done().exits(1);
    assert!(!bank.folder().exists(), "nothing is half there");
}
