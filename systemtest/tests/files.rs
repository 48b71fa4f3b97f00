//! Files between the host and guests and from guest to guest, files and addresses that are opened
//! elsewhere, and the services that every guest has.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use systemtest::{Call, SHORT, SmallDisk, World, can_mount, here, until};

/// For starting a compartment, or many copies, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Two compartments and a home on the host that is the test's own; lines of policy with `A`, `B`, `T` for
/// names.
struct Desk {
    world: World,
    /// Records of compartments of these names that were there before.
    before: usize,
}

impl Desk {
    fn new(test: &'static str, settings: [&str; 2], policy: &str) -> Self {
        let [a, b] = settings.map(|settings| format!("memory = 256\n{settings}"));
        let world = World::with(test, &[("a", &a), ("b", &b)]);
        let mut desk = Self { world, before: 0 };
        fs::create_dir(desk.home()).expect("made");
        fs::create_dir(desk.world.path("bin")).expect("made");
        desk.allow(policy);
        desk.before = desk.all_records().len();
        desk
    }

    fn allow(&self, policy: &str) {
        let lines = policy.split('\n').map(|line| {
            let words = line.split(' ').map(|word| match word.split_once("dispvm:") {
                Some((at, "B")) => format!("{at}dispvm:{}", self.b()),
                _ if word == "A" => self.a().into(),
                _ if word == "B" => self.b().into(),
                _ => word.to_owned(),
            });
            words.collect::<Vec<_>>().join(" ")
        });
        let folder = self.world.path("policy.d");
        fs::create_dir_all(&folder).expect("made");
        let text = lines.collect::<Vec<_>>().join("\n") + "\n";
        fs::write(folder.join("30-test.policy"), text).expect("written");
    }

    fn a(&self) -> &str {
        self.world.named("a")
    }

    fn b(&self) -> &str {
        self.world.named("b")
    }

    fn home(&self) -> PathBuf {
        self.world.path("home")
    }

    /// With a home, and programs of a desktop, of the test's own.
    fn call(&self, words: &[&str]) -> Call {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", self.world.path("bin").display());
        let call = self.world.casemate(words).within(PATIENCE).env("HOME", self.home());
        call.env("PATH", path).env("DISPLAY", ":none").directory(&self.home())
    }

    /// A shell line in a guest, in which `$B` and `$A` are the names.
    fn shell(&self, name: &str, line: &str) -> Call {
        let line = format!("A={} B={}; {line}", self.a(), self.b());
        self.call(&["run", name, "--", "sh", "-c", &line])
    }

    fn in_a(&self, line: &str) -> Call {
        self.shell(self.a(), line)
    }

    fn in_b(&self, line: &str) -> Call {
        self.shell(self.b(), line)
    }

    /// A file in the home.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.home().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, content).expect("written");
        path
    }

    /// What came from A to the host.
    fn incoming(&self) -> PathBuf {
        self.home().join("Incoming").join(self.a())
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.world.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("set");
    }

    fn log_of_a(&self) -> String {
        let log = self.world.logs(self.a()).join("supervisor.log");
        fs::read_to_string(log).expect("a log")
    }

    /// Of whatever was recorded about the two, and disposables of theirs.
    fn all_records(&self) -> Vec<Value> {
        let shown = self.call(&["audit", "show", "--json"]).done().ok().json();
        let mut found = shown.as_array().expect("records").clone();
        found.retain(|record| {
            let of = record["compartment"].as_str().unwrap_or_default();
            of.starts_with(self.a()) || of.starts_with(self.b())
        });
        found
    }

    /// The fields of those of this kind.
    fn records(&self, event: &str) -> Vec<Value> {
        let new = self.all_records().split_off(self.before);
        let of = new.into_iter().filter(|record| record["event"] == event);
        of.map(|record| record["fields"].clone()).collect()
    }
}

/// Names in a folder, hidden ones too.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Bytes that do not compress and are the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9u32;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}

#[test]
fn files_go_each_way_whole_and_nothing_is_overwritten() {
    let policy = "casemate.Filecopy * A B allow\ncasemate.Filecopy * A @adminvm allow";
    let desk = Desk::new(here!(), ["", ""], policy);
    let (a, b) = (desk.a(), desk.b());
    let big = noise(3_000_000);
    desk.file("big.bin", &big);
    desk.file("tree/deep/Übersicht 1.txt", "text");
    desk.file("tree/empty", "");
    let run = desk.file("tree/run", "#!/bin/sh\n");
    fs::set_permissions(run, Permissions::from_mode(0o755)).expect("set");
    symlink("/etc/passwd", desk.home().join("tree/link")).expect("linked");
    // From the host, twice; a link within is left out and told.
    let to_a = format!("{a}:");
    for _ in 0..2 {
        let done = desk.call(&["copy", "big.bin", "tree", &to_a]).done().ok();
        assert!(done.error().contains("tree/link is left out: it is a symbolic link"), "{done}");
    }
    let host = desk.world.host_shell("sha256sum").input(big.clone()).done().ok().text();
    let listed = desk.in_a(
        "cd Incoming/dom0; ls -A; ls -A tree; sha256sum < 'big (2).bin'; cat tree/deep/*; \
         test -x tree/run && ! test -x tree/empty && echo modes",
    );
    let expected =
        format!("big (2).bin\nbig.bin\ntree\ntree (2)\ndeep\nempty\nrun\n{host}\ntextmodes");
    assert_eq!(listed.done().ok().text(), expected);
    // To the host: nothing is executable there.
    let from = ["big.bin", "tree"].map(|name| format!("{a}:Incoming/dom0/{name}"));
    let done = desk.call(&["copy", &from[0], &from[1]]).done().ok();
    assert_eq!(done.text().lines().count(), 2, "{done}");
    assert_eq!(fs::read(desk.incoming().join("big.bin")).expect("read"), big);
    let mode = fs::metadata(desk.incoming().join("tree/run")).expect("there").permissions();
    assert_eq!(mode.mode() & 0o111, 0);
    desk.call(&["copy", &format!("{a}:nothing-there")]).done().exits(1).says("nothing-there");
    // From guest to guest, which is started for it, and to the host.
    let line = "cd Incoming/dom0; casemate-copy big.bin tree $B && casemate-copy big.bin dom0:";
    desk.in_a(line).done().ok();
    let sum = desk.in_b(&format!("cd Incoming/{a}; sha256sum < big.bin; find tree | wc -l"));
    assert_eq!(sum.done().ok().text(), format!("{host}\n5"));
    assert_eq!(fs::read(desk.incoming().join("big (2).bin")).expect("read"), big);
    // Moved: the source goes, but not with a link in it.
    desk.call(&["move", "tree", &to_a]).done().exits(1).says("symbolic link");
    desk.call(&["move", "big.bin", &to_a]).done().ok();
    assert!(!desk.home().join("big.bin").exists() && desk.home().join("tree/deep").exists());
    let done = desk.call(&["move", &format!("{a}:Incoming/dom0/big (2).bin")]).done().ok();
    assert!(done.text().ends_with("/big (2) (2).bin"), "{done}");
    desk.in_a("cd Incoming/dom0; casemate-move tree big.bin $B").done().ok();
    let left = desk.in_a("ls -A Incoming/dom0").done().ok().text();
    assert_eq!(left, "big (3).bin\ntree (2)");
    // Who, to whom, how much; no name.
    let records = desk.records("copy");
    assert_eq!(records.len(), 7, "{records:?}");
    let whole: Vec<_> = records.iter().map(|record| record["whole"] == true).collect();
    assert_eq!(whole, [true, true, true, false, true, true, true], "{records:?}");
    let to_host = &records[4];
    assert_eq!((&to_host["from"], &to_host["to"]), (&a.into(), &"dom0".into()));
    assert_eq!((&to_host["items"], &to_host["bytes"]), (&1.into(), &3_000_000.into()));
    assert!(!format!("{records:?}").contains("big"), "{records:?}");
    // Refused by the policy: nothing is there, and the log says by which line.
    desk.allow("casemate.Filecopy * A B deny");
    let done = desk.in_a("cd Incoming/dom0; casemate-copy 'big (3).bin' $B").done().exits(126);
    assert!(!done.error().contains("policy.d"), "{done}");
    desk.in_a("cd Incoming/dom0; casemate-move 'big (3).bin' dom0").done().exits(126);
    assert!(desk.log_of_a().contains("30-test.policy:1"), "{}", desk.log_of_a());
    let left = desk.in_a("ls -A Incoming/dom0 | wc -l").done().ok().text();
    assert_eq!((left.as_str(), names(&desk.home().join("Incoming")).len()), ("2", 1));
    desk.world.casemate(["stop", a, b]).within(SHORT).done().ok();
}

/// The beginning of a stream, and a file in it.
fn stream(entries: u32, bytes: u64, name: &[u8], size: u64) -> Vec<u8> {
    let mut all = b"casemate\x01\0".to_vec();
    all.extend(entries.to_le_bytes());
    all.extend(bytes.to_le_bytes());
    all.extend(*b"F\0");
    all.extend(size.to_le_bytes());
    all.extend((name.len() as u16).to_le_bytes());
    all.extend(name);
    all
}

#[test]
fn hostile_sender_or_receiver_harms_nobody() {
    // B takes files with a program of its own, which says what a file of its says.
    let lies = "guest.files.\"/etc/casemate/rpc/casemate.Filecopy\" = { mode = \"0755\", content = \
                \"#!/bin/sh\\nexec sh /tmp/lies\\n\" }\n";
    let policy = "casemate.Filecopy * A @adminvm allow\ncasemate.Filecopy * A B allow";
    let desk = Desk::new(here!(), ["", lies], policy);
    let (a, b) = (desk.a(), desk.b());
    let victim = desk.file("victim", "unharmed");
    let raw = |bytes: Vec<u8>| {
        let line = "casemate-call dom0 casemate.Filecopy > /tmp/answer; echo $?; \
                    grep -ac caserep /tmp/answer";
        desk.in_a(line).input(bytes).done().text()
    };
    for (what, bytes) in [
        ("a path out", stream(9, 9, b"../../victim", 0)),
        ("an absolute path", stream(9, 9, victim.to_string_lossy().as_bytes(), 0)),
        ("a terminal's", stream(9, 9, b"\x1b[2J", 0)),
        ("more than announced", stream(1, 5, b"a", 6)),
        ("nothing behind it", stream(1, 5, b"a", 5)),
        ("wrong sum", [stream(1, 0, b"a", 0), b"S12345678".to_vec()].concat()),
        ("no stream", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("nothing", Vec::new()),
    ] {
        assert_eq!(raw(bytes), "1\n1", "{what}");
        assert_eq!(names(&desk.incoming()), [""; 0], "{what}");
    }
    // Without end: it ends with what was announced, and the disk has nothing of it.
    let mut endless = stream(1, u64::MAX, b"a", u64::MAX);
    endless.extend([b"B", &(1u32 << 18).to_le_bytes()[..], &noise(1 << 18)].concat());
    endless.extend(noise(1 << 20));
    assert_eq!(raw(endless), "1\n1");
    assert_eq!(names(&desk.incoming()), [""; 0]);
    assert_eq!(fs::read(&victim).expect("read"), b"unharmed");
    // A receiver that lies: what shall be moved stays.
    let source = desk.file("secret", noise(300_000));
    let to_b = format!("{b}:");
    let wrong_sum = "printf 'caserep\\001\\001\\001\\0\\0\\0\\001\\0\\0\\0'; \
                     printf '\\340\\223\\004\\0\\0\\0\\0\\0'; printf '12345678\\0\\0'; cat >/dev/null";
    for lie in [
        "exit 0",
        "cat > /dev/null",
        "echo nonsense; cat > /dev/null",
        "yes",
        "head -c 1000 >/dev/null; printf 'caserep\\001\\002'; exit 0",
        "kill -9 $$",
        wrong_sum,
    ] {
        desk.in_b("cat > /tmp/lies").input(lie).done().ok();
        let done = desk.call(&["move", "secret", &to_b]).done().exits(1);
        assert!(source.exists(), "{lie}: {done}");
        let done =
            desk.in_a("echo x > /tmp/x; casemate-move /tmp/x $B; echo $?; cat /tmp/x").done();
        assert!(done.text().ends_with("\nx") && !done.text().starts_with('0'), "{lie}: {done}");
    }
    // What it says is shown as what it is.
    let rude = "cat > /dev/null; printf 'caserep\\001\\0%024d' 0 | tr 0 '\\000'; \
                printf '\\006\\000\\033[2Jab'";
    desk.in_b("cat > /tmp/lies").input(rude).done().ok();
    let done = desk.call(&["copy", "secret", &to_b]).done().exits(1);
    assert!(done.error().contains("\\u{1b}[2Jab"), "{done}");
    // A guest's agent may be replaced in its own place; so may what the host runs to fetch files.
    let fetched = desk.call(&["copy", &format!("{a}:/etc/shadow")]).done().exits(1);
    assert!(fetched.error().contains("shadow"), "{fetched}");
    desk.world.casemate(["stop", "--force", a, b]).within(SHORT).done().ok();
}

#[test]
fn full_disk_or_a_kill_in_the_middle_leaves_no_half_file() {
    let policy = "casemate.Filecopy * A B allow\ncasemate.Filecopy * A @adminvm allow";
    let desk = Desk::new(here!(), ["", ""], policy);
    let (a, to_a) = (desk.a(), format!("{}:", desk.a()));
    let mount = "mkdir -p ~user/Incoming && chown user ~user/Incoming && \
                 mount -t tmpfs -o size=4m,mode=777 tmpfs ~user/Incoming";
    desk.call(&["run", "--root", a, "--", "sh", "-c", mount]).done().ok();
    desk.file("one", noise(2_500_000));
    desk.file("two", noise(2_500_000));
    let done = desk.call(&["copy", "one", "two", &to_a]).done().exits(1);
    assert!(done.error().contains("No space left") && done.error().contains("1 arrived"), "{done}");
    assert_eq!(desk.in_a("ls -A Incoming/dom0").done().ok().text(), "one");
    desk.call(&["move", "two", &to_a]).done().exits(1);
    assert!(desk.home().join("two").exists());
    // On the host.
    if can_mount(here!()) {
        fs::create_dir_all(desk.incoming()).expect("made");
        let disk = SmallDisk::over(&desk.incoming(), "8m");
        let line = "cd /tmp; head -c 5000000 /dev/urandom > a; cp a b; casemate-copy a b dom0";
        let done = desk.in_a(line).done().exits(1);
        assert!(done.error().contains("1 arrived"), "{done}");
        assert_eq!(names(&desk.incoming()), ["a"]);
        drop(disk);
        assert_eq!(desk.records("copy").last().expect("one")["whole"], false);
    }
    // Whoever sends is killed.
    desk.call(&["run", "--root", a, "--", "umount", "/home/user/Incoming"]).done().ok();
    let large = fs::File::create(desk.home().join("large")).expect("made");
    large.set_len(1 << 32).expect("set");
    let copy = desk.call(&["copy", "large", &to_a]).start();
    let half = "ls -A Incoming/dom0 2>/dev/null | grep -c '^.incoming'";
    until("it to begin", SHORT, || (desk.in_a(half).done().text() == "1").then_some(()));
    kill(copy.pid(), Signal::SIGKILL).expect("killed");
    drop(copy);
    let all = "ls -A Incoming/dom0 | wc -l";
    until("nothing to be left", SHORT, || (desk.in_a(all).done().text() == "0").then_some(()));
    // Whoever receives is, here: the next one clears up.
    let sending = desk.in_a("truncate -s 4G /tmp/large; casemate-copy /tmp/large dom0").start();
    let halves = || names(&desk.incoming()).iter().filter(|n| n.starts_with(".incoming")).count();
    until("it to begin", PATIENCE, || (halves() == 1).then_some(()));
    let taking = format!("\0take\0served\0{}\0{a}\0", desk.home().display());
    let receiver = fs::read_dir("/proc").expect("read").flatten().find_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let fits = String::from_utf8_lossy(&line).ends_with(&taking);
        fits.then(|| entry.file_name().to_string_lossy().parse::<i32>().ok()).flatten()
    });
    kill(Pid::from_raw(receiver.expect("it runs")), Signal::SIGKILL).expect("killed");
    let done = sending.done();
    assert_eq!(done.code, Some(125), "{done}");
    assert_eq!(halves(), 1, "a killed receiver leaves it");
    desk.in_a("echo small > /tmp/small; casemate-copy /tmp/small dom0").done().ok();
    assert_eq!(names(&desk.incoming()), ["small"]);
    // A compartment that ends in the middle.
    let copy = desk.call(&["copy", "large", &to_a]).start();
    until("it to begin", SHORT, || (desk.in_a(half).done().text() == "1").then_some(()));
    desk.world.casemate(["stop", "--force", a]).within(SHORT).done().ok();
    copy.done().exits(1);
}

#[test]
fn copies_at_once_all_arrive() {
    let desk = Desk::new(here!(), ["", ""], "casemate.Filecopy * A B allow");
    let (a, b) = (desk.a(), desk.b());
    desk.call(&["start", a, b]).done().ok();
    let line = "cd /tmp; for i in $(seq 200); do { echo $i > f.$i; casemate-copy f.$i $B 2>&1; \
                echo $? >> codes; } & done; wait; sort codes | uniq -c";
    let done = desk.in_a(line).done().ok();
    assert_eq!(done.text().trim(), "200 0");
    let line = format!("cd Incoming/{a}; ls -A | wc -l; cat * | sort -n | uniq | wc -l");
    assert_eq!(desk.in_b(&line).done().ok().text(), "200\n200");
}

/// An application of a guest that opens `.note` files and addresses: it writes down what it was given,
/// and adds a line to a file.
fn editor() -> String {
    let file = |path: &str, content: &str, mode: &str| {
        format!("guest.files.\"{path}\" = {{ content = {content:?}, mode = \"{mode}\" }}\n")
    };
    let script = "#!/bin/sh\necho \"$@\" > /tmp/opened\ncase \"$1\" in *.keep.note|http*|--*) ;; \
                  *) echo changed >> \"$1\";; esac\n";
    let desktop = "[Desktop Entry]\nType=Application\nName=Edit\nExec=/opt/edit %u\n";
    let app = "[Desktop Entry]\nType=Application\nName=App\nExec=/opt/edit --app \"%c\" %U\n";
    let lists =
        "[Default Applications]\ntext/x-note=edit.desktop\nx-scheme-handler/https=edit.desktop\n";
    [
        file("/opt/edit", script, "0755"),
        file("/usr/local/share/applications/edit.desktop", desktop, "0644"),
        file("/usr/local/share/applications/org.example.App.desktop", app, "0644"),
        file("/usr/local/share/applications/mimeapps.list", lists, "0644"),
        file("/usr/local/share/mime/globs2", "50:text/x-note:*.note\n", "0644"),
    ]
    .concat()
}

#[test]
fn file_is_opened_in_a_disposable_and_comes_back_changed() {
    let template = format!("disposable-template = true\n{}", editor());
    let policy = "casemate.OpenInVM +view-only A @dispvm:B allow\ncasemate.OpenInVM + A @dispvm:B \
                  allow\ncasemate.OpenURL * A @dispvm:B allow";
    let desk = Desk::new(here!(), ["", &template], policy);
    let (a, b) = (desk.a(), desk.b());
    let open = |words: &[&str]| desk.call(&[&["open", "--in", b], words].concat()).done();
    let note = desk.file("my.note", "before\n");
    open(&["my.note"]).ok();
    assert_eq!(fs::read(&note).expect("read"), b"before\nchanged\n");
    open(&["--view-only", "my.note"]).ok();
    desk.file("my.keep.note", "kept\n");
    open(&["my.keep.note"]).ok();
    assert_eq!(fs::read(&note).expect("read"), b"before\nchanged\n");
    assert_eq!(names(&desk.home()), ["my.keep.note", "my.note"], "nothing is left beside it");
    let done = open(&["unknown.kind"]);
    assert_eq!(done.code, Some(1), "{done}");
    desk.file("unknown.kind", "x");
    open(&["unknown.kind"]).exits(1).says("nothing here opens");
    open(&["https://example.org/a?b"]).ok();
    open(&["https://example.org/'"]).exits(2);
    // From a guest.
    let line = "cd /tmp; echo before > my.note; casemate-open-in-vm my.note @dispvm:$B; cat my.note; \
                casemate-open-in-vm --view-only my.note @dispvm:$B; cat my.note; ls -A | grep -c inc";
    let done = desk.in_a(line).done();
    assert_eq!(done.text(), "before\nchanged\nbefore\nchanged\n0", "{done}");
    desk.in_a("casemate-open-url https://example.org @dispvm:$B").done().ok();
    desk.in_a("casemate-open-url file:///etc/passwd @dispvm:$B").done().exits(1).says("http");
    // The policy may let files out and nothing back.
    desk.allow("casemate.OpenInVM +view-only A @dispvm:B allow");
    let line = "cd /tmp; casemate-open-in-vm my.note @dispvm:$B; echo $?; \
                casemate-open-in-vm --view-only my.note @dispvm:$B; echo $?";
    assert_eq!(desk.in_a(line).done().text(), "126\n0");
    // Every disposable is gone.
    let fresh = format!("{b}-d");
    until("the disposables to be erased", SHORT, || {
        let listed = desk.call(&["list", "--json"]).done().ok().text();
        (!listed.contains(&fresh)).then_some(())
    });
    let records = desk.records("open");
    let returned: Vec<_> =
        records.iter().filter_map(|record| record["returned"].as_bool()).collect();
    assert_eq!(returned, [true, false, false, false], "{records:?}");
    desk.world.casemate(["stop", "--force", a]).within(SHORT).done().ok();
}

#[test]
fn every_guest_and_the_host_have_the_small_services() {
    let policy = "casemate.Notify * A @adminvm allow\ncasemate.OpenURL * A @adminvm allow\n\
                  casemate.StartApp * A B allow\ncasemate.OpenURL * A B allow\n\
                  casemate.Date * A B allow";
    let desk = Desk::new(here!(), ["", &editor()], policy);
    let b = desk.b();
    for program in ["notify-send", "xdg-open"] {
        let to = desk.world.path(program);
        desk.program(program, &format!("for w; do echo \"[$w]\"; done >> {}", to.display()));
    }
    // Applications, by the host and by a guest.
    desk.call(&["call", b, "casemate.StartApp+org.example.App"]).done().ok();
    assert_eq!(desk.in_b("cat /tmp/opened").done().ok().text(), "--app App");
    desk.in_b("rm /tmp/opened").done().ok();
    desk.in_a("casemate-call $B casemate.StartApp+org.example.App </dev/null").done().ok();
    assert_eq!(desk.in_b("cat /tmp/opened").done().ok().text(), "--app App");
    desk.call(&["call", b, "casemate.StartApp+none"]).done().exits(1).says("no application none");
    desk.call(&["call", b, "casemate.StartApp"]).done().exits(1);
    // Addresses: in a guest and on the host.
    desk.in_a("BROWSER=casemate-open-url; $BROWSER https://example.org/x $B").done().ok();
    assert_eq!(desk.in_b("cat /tmp/opened").done().ok().text(), "https://example.org/x");
    desk.in_a("casemate-open-url https://example.org/y dom0").done().ok();
    let line = "printf 'https://a/;$(x)' | casemate-call dom0 casemate.OpenURL; \
                printf -- '--version' | casemate-call dom0 casemate.OpenURL; \
                head -c 100000 /dev/zero | casemate-call dom0 casemate.OpenURL";
    desk.in_a(line).done().exits(126);
    let opened = fs::read_to_string(desk.world.path("xdg-open")).expect("read");
    assert_eq!(opened, "[https://example.org/y]\n[https://a/;$(x)]\n");
    // Notices: under the guest's name, harmless, and not one after the other.
    let notice =
        "printf 'Backup <done>\\nall <b>well</b>\\033[2J' | casemate-call dom0 casemate.Notify";
    let done = desk.in_a(&format!("{notice}; echo $?; {notice}; echo $?")).done();
    assert_eq!(done.text(), "0\n1", "{done}");
    let shown = fs::read_to_string(desk.world.path("notify-send")).expect("read");
    let expected = format!(
        "[--app-name=casemate]\n[--]\n[[{}] Backup <done>]\n[all &lt;b&gt;well&lt;/b&gt;\u{fffd}[2J]\n",
        desk.a()
    );
    assert_eq!(shown, expected);
    let done = desk.in_a("casemate-call $B casemate.Date </dev/null").done().ok();
    assert!(done.text().ends_with("+00:00"), "{done}");
}
