//! Snapshots of running compartments: of one moment, across volumes, whatever is killed when.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use systemtest::{
    Background, Done, SHORT, SmallDisk, World, can_mount, has, here, skip, soak, until,
};

/// Where the guest mounts the volumes.
const PLACES: [&str; 2] = ["/home/user/data", "/home/user/mail"];

/// Longest time until somebody is told that the guest does not hold still: 15 s and some.
const PATIENCE: Duration = Duration::from_secs(30);

/// A compartment with two volumes, which go with the test.
struct Bank {
    world: World,
}

impl Bank {
    /// Volumes whose keys are in files of the test's own; none when a program is missing.
    fn new(test: &'static str, settings: &str) -> Option<Self> {
        if !["age", "cryptsetup", "qemu-img"].iter().all(|program| has(test, program)) {
            return None;
        }
        let world = World::new(test, "");
        let name = world.name().to_owned();
        let mut text =
            format!("[compartment.{name}]\nmemory = 320\nidle-timeout = 600\n{settings}\n");
        for place in PLACES {
            let volume = place.rsplit('/').next().expect("a name");
            let key = world.path(&format!("{volume}.age")).display().to_string();
            text.push_str(&format!(
                "\n[[compartment.{name}.volumes]]\nname = \"{volume}\"\nsize = \"64MiB\"\n\
                 mount-point = \"{place}\"\nkey = {{ age = {key:?} }}\n"
            ));
        }
        world.configure(&text);
        Some(Self { world })
    }

    #[track_caller]
    fn snapshot(&self, what: &str, arguments: &[&str]) -> Done {
        self.snapshotting(what, arguments).within(PATIENCE).done()
    }

    fn snapshotting(&self, what: &str, arguments: &[&str]) -> Background {
        let mut words = vec!["snapshot", what, self.world.name()];
        words.extend(arguments);
        self.world.casemate(words).within(PATIENCE).start()
    }

    /// The volumes that have each snapshot.
    #[track_caller]
    fn listed(&self) -> BTreeMap<String, usize> {
        let rows = self.world.casemate(["snapshot", "list", self.world.name(), "--json"]);
        let rows = rows.done().ok().json();
        let rows = rows.as_array().expect("rows").clone();
        rows.into_iter()
            .map(|row| {
                let name = row["snapshot"].as_str().expect("a name").to_owned();
                (name, row["volumes"].as_array().expect("volumes").len())
            })
            .collect()
    }

    #[track_caller]
    fn stop(&self) {
        self.world.casemate(["stop", self.world.name()]).within(SHORT).done().ok();
    }

    /// A program that appends numbers to a file in each volume, one after the other and each
    /// synced, and says each number when it is in both.
    fn writer(&self) -> Background {
        let [data, mail] = PLACES;
        let line = format!(
            "use IO::Handle; $| = 1; \
             for my $p ('{data}', '{mail}') {{ open(my $f, '>>', \"$p/log\") or die; push @f, $f }} \
             my $n = -s '{mail}/log' ? `tail -n 1 {mail}/log` : 0; \
             for (my $i = $n + 1; ; $i++) {{ \
               for my $f (@f) {{ print $f \"$i\\n\" or die; $f->flush or die; $f->sync or die; }} \
               print \"$i\\n\"; }}"
        );
        self.world.run(["perl", "-e", &line]).start()
    }

    /// The last number in each volume; their file systems were whole when they were mounted, and
    /// are now. One number may be there twice, when the writer was killed behind it. `clean`: nothing
    /// had to be recovered.
    #[track_caller]
    fn numbers(&self, clean: bool) -> [u64; 2] {
        let look = |place: &str| {
            format!(
                "d=$(findmnt -no SOURCE {place}); \
                 perl -ne 'die \"$_ after $n\" if $_ != $n + 1 && $_ != $n; $n = $_; \
                 END {{ print $n + 0, \"\\n\" }}' {place}/log && \
                 umount {place} && e2fsck -fn $d >&2 && mount $d {place} || exit 9; "
            )
        };
        let line = PLACES.map(look).concat() + "dmesg | grep -c 'recovery complete'; true";
        let done = self.world.run_with(["--root"], ["sh", "-c", &line]).done().ok();
        let lines: Vec<u64> =
            done.text().lines().map(|line| line.trim().parse().expect("a number")).collect();
        let [data, mail, recovered] = lines[..] else { panic!("{done}") };
        assert!(!clean || recovered == 0, "a journal had to be recovered: {done}");
        [data, mail]
    }

    /// Their folders on the host.
    fn folder(&self) -> PathBuf {
        let listed = self.world.casemate(["image", "show", "debian", "--json"]).done().ok().json();
        let image = PathBuf::from(listed["directory"].as_str().expect("a directory"));
        let data = image.ancestors().nth(2).expect("images are in the data directory");
        data.join("volumes").join(self.world.name())
    }

    /// Layers beside the first of each volume.
    fn layers(&self) -> usize {
        let files = ["data", "mail"].map(|volume| fs::read_dir(self.folder().join(volume)));
        let files = files.into_iter().flatten().flatten().flatten();
        files.filter(|file| file.file_name().to_string_lossy().ends_with(".qcow2")).count()
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        let name = self.world.name();
        let _ = self.world.casemate(["stop", "--force", name]).within(SHORT).done();
        for volume in ["data", "mail"] {
            let volume = format!("{name}/{volume}");
            let _ =
                self.world.casemate(["volume", "delete", "--yes", &volume]).within(SHORT).done();
        }
    }
}

fn said(call: &Background) -> u64 {
    call.stdout().lines().last().and_then(|line| line.parse().ok()).unwrap_or(0)
}

#[track_caller]
fn goes_on(call: &Background) {
    let before = said(call);
    until("the writer to go on", SHORT, || (said(call) > before + 2).then_some(()));
}

#[test]
fn snapshots_of_a_running_compartment_are_each_of_one_moment() {
    let Some(bank) = Bank::new(here!(), "") else { return };
    let count = if soak() { 12 } else { 3 };
    let call = bank.writer();
    goes_on(&call);
    let mut taken = Vec::new();
    for number in 0..count {
        let before = said(&call);
        let name = format!("s{number}");
        bank.snapshot("create", &[&name]).ok();
        taken.push((name, before, said(&call)));
        goes_on(&call);
    }
    bank.snapshot("create", &["s0"]).exits(1).says("there is one of this name");
    goes_on(&call);
    assert_eq!(bank.listed().len(), count);
    assert!(bank.listed().values().all(|volumes| *volumes == 2));
    bank.stop();
    let last = said(&call);
    drop(call);
    let [data, mail] = bank.numbers(false);
    assert!(mail >= last && (mail..=mail + 1).contains(&data), "{last} {data} {mail}");
    // Each is deleted when it was looked at; what it held goes where it belongs.
    for (name, before, after) in &taken {
        bank.snapshot("revert", &[name]).ok();
        let [data, mail] = bank.numbers(true);
        assert!((mail..=mail + 1).contains(&data), "{name}: {data} {mail}");
        assert!((*before..=*after + 1).contains(&mail), "{name}: {before} {mail} {after}");
        bank.stop();
        bank.snapshot("diff-size", &[name]).ok();
        bank.snapshot("delete", &[name]).ok();
    }
    assert_eq!(bank.listed().len(), 0);
}

/// Kills the supervisor or the machine while a snapshot is taken. What was synced is there, and
/// both volumes have the snapshot, or none.
#[test]
fn kill_in_the_middle_of_a_snapshot_loses_nothing_and_halves_nothing() {
    let Some(bank) = Bank::new(here!(), "") else { return };
    let rounds = if soak() { 40 } else { 8 };
    for round in 0..rounds {
        let call = bank.writer();
        goes_on(&call);
        let victim = match round % 2 {
            0 => bank.world.supervisor(),
            _ => bank.world.member("qemu").pid,
        };
        let name = format!("s{round}");
        let before = said(&call);
        // Not waiting for anything: the moment of the kill is what is random here.
        let mut create = bank.snapshotting("create", &[&name]);
        if round % 4 > 0 {
            // Mostly somewhere between the beginning of a snapshot and its end.
            let record = bank.folder().join("data/volume.json");
            let prepared =
                || fs::read_to_string(&record).is_ok_and(|text| text.contains("prepared"));
            let begin = Instant::now();
            while !prepared() && create.runs() && begin.elapsed() < SHORT {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        std::thread::sleep(Duration::from_millis(round * 41 % 210));
        let before_kill = !create.runs();
        kill(Pid::from_raw(victim), Signal::SIGKILL).expect("it can be killed");
        let created = create.done();
        let done = call.within(SHORT).done().exits(125);
        let last = done.text().lines().last().and_then(|line| line.parse().ok()).unwrap_or(0);
        let [data, mail] = bank.numbers(false);
        assert!(mail >= last && (mail..=mail + 1).contains(&data), "{last} {data} {mail}");
        let volumes = bank.listed().get(&name).copied();
        assert!(matches!(volumes, None | Some(2)), "round {round}: half a snapshot, {created}");
        assert!(volumes.is_some() || created.code != Some(0), "{created}");
        if volumes.is_some() {
            println!("round {round}: there, {before_kill} {:?}", created.code);
            bank.snapshot("revert", &[&name]).ok();
            // One that found nobody running any more was taken of what the kill left.
            let [data, mail] = bank.numbers(before_kill || created.code != Some(0));
            assert!((mail..=mail + 1).contains(&data) && mail >= before, "{data} {mail}");
        }
        bank.stop();
        if volumes.is_some() {
            bank.snapshot("delete", &[&name]).ok();
        }
    }
}

/// Kills the supervisor when it has written down in one volume that the snapshot is taken, and not
/// yet in the other: the machine has gone over to the new layers, and somebody has to find out.
#[test]
fn kill_between_two_volumes_leaves_the_snapshot_whole() {
    let Some(bank) = Bank::new(here!(), "") else { return };
    let line = PLACES.map(|place| format!("echo kept > {place}/f; ")).concat();
    let mut hits = 0;
    for round in 0..if soak() { 20 } else { 3 } {
        let name = format!("s{round}");
        bank.world.shell(&format!("{line} sync")).done().ok();
        let (supervisor, folder) = (bank.world.supervisor(), bank.folder());
        let prepared = |volume: &str| {
            let text = fs::read_to_string(folder.join(volume).join("volume.json"));
            text.expect("read").contains("\"prepared\"")
        };
        let mut create = bank.snapshotting("create", &[&name]);
        while !prepared("mail") && create.runs() {}
        while prepared("data") && create.runs() {}
        kill(Pid::from_raw(supervisor), Signal::SIGKILL).expect("it can be killed");
        drop(create.done());
        hits += u32::from(prepared("mail"));
        let text = bank.world.shell(&PLACES.map(|place| format!("cat {place}/f; ")).concat());
        assert_eq!(text.done().ok().text(), "kept\nkept");
        assert_eq!(bank.listed().get(&name), Some(&2), "half a snapshot");
        assert!(!prepared("data") && !prepared("mail"));
        bank.stop();
        bank.snapshot("delete", &[&name]).ok();
    }
    println!("{hits} kills came in between");
}

#[test]
fn compartment_that_stops_during_a_snapshot_has_it_or_not() {
    let Some(bank) = Bank::new(here!(), "keep-snapshots = \"2 yearly\"") else { return };
    for round in 0..if soak() { 20 } else { 3 } {
        bank.world.start();
        let name = format!("s{round}");
        let create = bank.snapshotting("create", &[&name]);
        std::thread::sleep(Duration::from_millis(10 + round * 41 % 170));
        bank.stop();
        let created = create.done();
        let listed = bank.listed();
        assert!(listed.values().all(|volumes| *volumes == 2), "{listed:?}");
        // One that asked when it was gone took it from the stopped compartment.
        assert!(listed.contains_key(&name) || created.code != Some(0), "{created} {listed:?}");
        // That of the stop.
        assert!(listed.keys().any(|name| name.starts_with('2')), "{listed:?}");
    }
}

/// A compartment whose agent is hostile; none when there is no such agent, which is said.
fn hostile(test: &'static str, mode: &str) -> Option<Bank> {
    let bank = Bank::new(test, "")?;
    // Its first start makes the volumes, and the initrd to be changed.
    bank.world.start();
    bank.stop();
    let initramfs = match systemtest::hostile::initramfs(&bank.world, &bank.world.path(".")) {
        Ok(path) => path,
        Err(reason) => {
            skip(test, &format!("no hostile agent: {reason}"));
            return None;
        }
    };
    let text = fs::read_to_string(bank.world.config()).expect("read");
    let settings = format!(
        "memory = 320\ninitramfs = {:?}\nkernel-params = [\"hostile={mode}\"]",
        initramfs.display().to_string()
    );
    bank.world.configure(&text.replacen("memory = 320", &settings, 1));
    Some(bank)
}

#[test]
fn guest_that_does_not_answer_costs_its_snapshot_and_a_bounded_time() {
    let Some(bank) = hostile(here!(), "normal") else { return };
    bank.world.start();
    let begin = Instant::now();
    let create = bank.snapshotting("create", &["a"]);
    std::thread::sleep(Duration::from_secs(2));
    bank.snapshot("create", &["b"]).exits(1).says("is taking a snapshot");
    let done = create.done().exits(1).says("did not hold its volumes still within 15 s");
    assert!(done.error().contains("hint:"), "{done}");
    assert!(begin.elapsed() < PATIENCE, "{done}");
    assert_eq!((bank.listed().len(), bank.layers()), (0, 0), "nothing is left");
    assert_eq!(bank.world.state(bank.world.name()), "running");
    bank.world.run(["true"]).done().ok();
    bank.world.stop_force().ok();
    bank.snapshot("create", &["a"]).ok();
}

#[test]
fn guest_that_refuses_to_hold_still_is_quoted_harmlessly() {
    let Some(bank) = hostile(here!(), "refuses-to-freeze") else { return };
    bank.world.start();
    for _ in 0..2 {
        let done = bank.snapshot("create", &["a"]).exits(1).says("could not hold its volumes");
        let bad = done.error().chars().find(|&c| c.is_control() && c != '\n');
        assert_eq!(bad, None, "{done}");
    }
    assert_eq!((bank.listed().len(), bank.layers()), (0, 0), "nothing is left");
}

#[test]
fn guest_that_lies_about_holding_still_harms_only_its_own_snapshot() {
    let Some(bank) = hostile(here!(), "lies-about-freezing") else { return };
    bank.world.start();
    bank.snapshot("create", &["a"]).ok();
    bank.snapshot("create", &["b"]).ok();
    assert_eq!(bank.listed().values().copied().collect::<Vec<_>>(), [2, 2]);
    assert_eq!(bank.world.state(bank.world.name()), "running");
}

#[test]
fn full_disk_makes_no_snapshot_and_loses_nothing() {
    if !can_mount(here!()) {
        return;
    }
    let Some(bank) = Bank::new(here!(), "") else { return };
    let folder = bank.folder();
    let small = SmallDisk::over(&folder, "64m");
    let line = "for p in data mail; do head -c 2M /dev/urandom > ~/$p/f; done; sync; cat ~/*/f";
    let before = bank.world.shell(line).digest_only().done().ok().digest;
    for running in [true, false] {
        if !running {
            bank.stop();
        }
        // Less than a layer takes.
        let filler = small.leave(100 << 10);
        let done = bank.snapshot("create", &["a"]).exits(1).says("No space left");
        assert_eq!((bank.listed().len(), bank.layers()), (0, 0), "nothing is half there: {done}");
        fs::remove_file(&filler).expect("removed");
    }
    let done = bank.world.shell("cat ~/*/f").digest_only().done().ok();
    assert_eq!(done.digest, before, "nothing is lost");
    bank.snapshot("create", &["a"]).ok();
    assert_eq!(bank.listed().values().copied().collect::<Vec<_>>(), [2]);
    drop(bank);
    drop(small);
}

/// A compartment that is started again after a failure goes on where it was, not in the layers that
/// a snapshot keeps.
#[test]
fn snapshot_stays_what_it_is_when_the_compartment_is_started_again() {
    let Some(bank) = Bank::new(here!(), "restart = \"on-failure\"") else { return };
    let write = |word: &str| {
        let line = PLACES.map(|place| format!("echo {word} >> {place}/word; ")).concat() + "sync";
        bank.world.run(["sh", "-c", &line]).done().ok();
    };
    let words = || {
        let line = PLACES.map(|place| format!("cat {place}/word; ")).concat();
        bank.world.run(["sh", "-c", &line]).done().ok().text().replace('\n', " ")
    };
    write("before");
    bank.snapshot("create", &["first"]).ok();
    write("after");
    kill(Pid::from_raw(bank.world.member("qemu").pid), Signal::SIGKILL).expect("it runs");
    until("the next start", SHORT, || {
        let status = bank.world.status(bank.world.name());
        (status["restarts"] == 1 && status["state"] == "running").then_some(())
    });
    assert_eq!(words(), "before after before after");
    write("again");
    bank.snapshot("revert", &["first"]).ok();
    assert_eq!(words(), "before before");
}
