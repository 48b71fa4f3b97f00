//! Windows of a compartment on a desktop without a screen: their border as it is seen, what carries
//! them, and what is said when something of it is missing or dies.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use systemtest::desktop::GROUND;
use systemtest::{Background, Call, Desktop, SHORT, Shared, World, here, is_root, until};

/// For starting a compartment whose image may have to be built first.
const PATIENCE: Duration = Duration::from_secs(400);

const RED: [u8; 3] = [0xcc, 0x22, 0x22];
const BLUE: [u8; 3] = [0x15, 0x65, 0xc0];
const INSIDE: [u8; 3] = [0x20, 0x40, 0x80];

const SETTINGS: &str = "\
memory = 512
programs = [\"foot\", \"waypipe\", \"wl-clipboard\"]
";

/// A compartment that most tests share, with a red border.
fn world(test: &'static str) -> Shared {
    static WORLD: OnceLock<World> = OnceLock::new();
    let settings = format!("color = \"#cc2222\"\nlabel = \"Bank\"\n{SETTINGS}");
    World::shared(test, &WORLD, &settings)
}

/// One test with a desktop at a time: a compartment's windows go where its last client's desktop is.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A small terminal that shows one color.
fn foot(world: &World, desktop: &Desktop, name: &str, shows: &str) -> Background {
    let words = ["foot", "-o", "colors.background=204080", "-w", "300x200", "sh", "-c", shows];
    let call = world.casemate(["run", name, "--"]).args(words);
    desktop.user(call).within(PATIENCE).start()
}

fn process(world: &World, role: &str) -> Option<i32> {
    let status = world.status(world.name());
    let found = status["processes"].as_array()?.iter().find(|it| it["role"] == role)?;
    found["pid"].as_i64().map(|pid| pid as i32)
}

#[test]
fn nothing_of_windows_runs_for_programs_without_any() {
    let world = World::new(here!(), SETTINGS);
    let seen = world.shell("ps -e; echo \"[$WAYLAND_DISPLAY]\"").without_env("WAYLAND_DISPLAY");
    let seen = seen.within(PATIENCE).done().ok().text();
    assert!(!seen.contains("waypipe") && seen.ends_with("[]"), "{seen}");
    assert_eq!(process(&world, "windows"), None);
    assert_eq!(process(&world, "waypipe"), None);
}

#[test]
fn a_window_has_the_compartments_border_and_nothing_of_it_is_outside() {
    let _alone = alone();
    let world = world(here!());
    let Some(desktop) = Desktop::start(here!()) else { return };
    let _foot = foot(&world, &desktop, world.name(), "sleep 600");
    let windows = desktop.shows(1);
    let name = world.name();
    assert_eq!(windows, [(format!("[{name}] foot"), format!("casemate.{name}.foot"))]);
    let picture = desktop.picture();
    desktop.keep("window");
    // The outermost of what is not background is border, all around, and the content is inside.
    let all = picture.bounds_without(GROUND).expect("a window");
    assert_eq!(picture.bounds(RED), Some(all), "{:?}", picture.colors());
    let (left, top, right, bottom) = all;
    for (name, side) in [
        ("left", (left, top, left + 3, bottom)),
        ("right", (right - 3, top, right, bottom)),
        ("top", (left, top, right, top + 2)),
        ("bottom", (left, bottom - 3, right, bottom)),
    ] {
        assert!(picture.is_filled(side, RED), "{name}");
    }
    let (inner_left, inner_top, inner_right, inner_bottom) =
        picture.bounds(INSIDE).expect("content");
    assert!(inner_left > left && inner_right < right && inner_bottom < bottom);
    assert!(inner_top >= top + 12, "the label has room");
    // The label: something light in the bar above the content.
    let light = |x: i32, y: i32| picture.at(x, y).iter().all(|part| *part > 0xd0);
    let label = (top..inner_top).flat_map(|y| (left..right).map(move |x| (x, y)));
    assert!(label.filter(|&(x, y)| light(x, y)).count() > 20);
}

#[test]
fn two_compartments_differ_by_color_and_label() {
    let _alone = alone();
    let test = here!();
    let Some(desktop) = Desktop::start(test) else { return };
    let bank = format!("color = \"#cc2222\"\nlabel = \"Bank\"\n{SETTINGS}");
    let web = format!("color = \"#1565c0\"\nlabel = \"Untrusted\"\n{SETTINGS}");
    let world = World::with(test, &[("bank", &bank), ("web", &web)]);
    let shows = "printf '\\n  Welcome to your bank.\\n'; sleep 600";
    let _bank = foot(&world, &desktop, world.named("bank"), shows);
    desktop.shows(1);
    desktop.sway(&["move", "position", "40", "60"]);
    let _web = foot(&world, &desktop, world.named("web"), shows);
    desktop.shows(2);
    desktop.sway(&["move", "position", "560", "300"]);
    let picture = desktop.picture();
    desktop.keep("compartments");
    let (red, blue) = (picture.bounds(RED).expect("red"), picture.bounds(BLUE).expect("blue"));
    assert!(red.2 <= blue.0, "one beside the other: {red:?} {blue:?}");
    clipboard_crosses_as_the_policy_allows(&world, &desktop);
    images_cross_when_the_user_is_asked(&world, &desktop);
}

/// From `bank` to `web`, once; from there to the desktop, not.
fn clipboard_crosses_as_the_policy_allows(world: &World, desktop: &Desktop) {
    let (bank, web) = (world.named("bank"), world.named("web"));
    fs::create_dir_all(world.path("policy.d")).expect("made");
    let rule = format!("casemate.ClipboardPaste +text {bank} {web} allow\n");
    fs::write(world.path("policy.d/30-paste.policy"), rule).expect("written");
    let clipboard = |words: &[&str]| {
        desktop.user(world.casemate(["clipboard"].iter().chain(words).copied())).done()
    };
    clipboard(&["paste", web]).exits(1).says("no clipboard is held");
    let line = "printf 'of the bank' | wl-copy --foreground";
    let copies = world.casemate(["run", bank, "--", "sh", "-c", line]);
    let _copied = desktop.user(copies).start();
    let take = || clipboard(&["copy", bank]).code == Some(0);
    until("there is something to copy", SHORT, || take().then_some(()));
    let held = clipboard(&["status", "--json"]).ok().json();
    assert_eq!((&held["source"], &held["size"]), (&bank.into(), &11.into()), "{held}");
    // Whom no rule names gets nothing, and it is held still.
    let refused = clipboard(&["paste", "@host"]).exits(1);
    refused.says("may not have the clipboard").says("no rule matches");
    clipboard(&["paste", web]).ok();
    assert_eq!(clipboard(&["status"]).ok().text(), "nothing is held");
    let paste =
        || desktop.user(world.casemate(["run", web, "--", "wl-paste", "--no-newline"])).done();
    assert_eq!(paste().ok().text(), "of the bank");
    assert_ne!(paste().text(), "of the bank", "it was pasted once");
    clipboard(&["paste", web]).exits(1).says("no clipboard is held");
    until("there is something to copy", SHORT, || take().then_some(()));
    clipboard(&["clear"]).ok();
    assert_eq!(clipboard(&["status"]).ok().text(), "nothing is held");
    let recorded = world.casemate(["audit", "show"]).done().ok().text();
    assert!(recorded.contains("clipboard-copy") && recorded.contains("clipboard-paste"));
    assert!(!recorded.contains("of the bank"), "{recorded}");
}

/// Bytes of a picture, as programs copy it: nothing on the way looks into them.
fn picture_bytes() -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut state = 7_u32;
    // More than a pipe holds, with every byte in it.
    bytes.extend((0..300_000).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    }));
    bytes
}

/// From `bank` to `web`, from there to the desktop, and back: each step asked for.
fn images_cross_when_the_user_is_asked(world: &World, desktop: &Desktop) {
    let (bank, web) = (world.named("bank"), world.named("web"));
    let rules = format!(
        "casemate.ClipboardPaste +image {bank} {web} ask\n\
         casemate.ClipboardPaste +image {web} @adminvm ask\n\
         casemate.ClipboardPaste +image @adminvm {bank} ask\n"
    );
    fs::write(world.path("policy.d/30-paste.policy"), rules).expect("written");
    let (asks, asked) = (world.path("asks"), world.path("asked"));
    let configured = fs::read_to_string(world.config()).expect("read");
    let answer = |program: &str| {
        let script = format!("#!/bin/sh\necho \"$1\" > {}\n{program}\n", asked.display());
        fs::write(&asks, script).expect("written");
        fs::set_permissions(&asks, fs::Permissions::from_mode(0o755)).expect("set");
        world.configure(&format!("{configured}\n[ask]\nprogram = {asks:?}\ntimeout = 5\n"));
    };
    let clipboard = |words: &[&str]| {
        let call = world.casemate(["clipboard"].iter().chain(words).copied());
        desktop.user(call).done()
    };
    let held = || clipboard(&["status", "--json"]).ok().json();
    let copy = |name: &str| {
        let take = || clipboard(&["copy", "--images", name]).code == Some(0);
        until("there is an image to copy", SHORT, || take().then_some(()));
        let held = held();
        let size = picture_bytes().len();
        assert_eq!((&held["type"], &held["size"]), (&"image/png".into(), &size.into()), "{held}");
    };
    let inside = |name: &str, line: &str| {
        desktop.user(world.casemate(["run", name, "--", "sh", "-c", line]))
    };
    let image = picture_bytes();
    let line = "wl-copy --foreground --type image/png";
    let _copied = inside(bank, line).input(image.clone()).start();
    copy(bank);
    holder_is_confined(&held());
    // No, and what is held is held still; then yes.
    answer("exit 1");
    clipboard(&["paste", web]).exits(1).says("the user said no");
    let question = fs::read_to_string(&asked).expect("it was asked");
    assert!(question.contains(bank) && question.contains("casemate.ClipboardPaste"), "{question}");
    assert!(question.contains(web), "{question}");
    answer("exec sleep 60");
    clipboard(&["paste", web]).exits(1).says("no answer in time");
    answer("head -n 1");
    clipboard(&["paste", web]).ok();
    assert_eq!(clipboard(&["status"]).ok().text(), "nothing is held");
    let pasted = inside(web, "wl-paste --type image/png").done().ok();
    assert!(pasted.stdout == image, "{} of {} bytes", pasted.stdout.len(), image.len());
    // To the desktop and back.
    let _copied = inside(web, line).input(image.clone()).start();
    copy(web);
    clipboard(&["paste", "@host"]).ok();
    assert!(desktop.pastes("image/png") == image, "the desktop has the same");
    desktop.copies("image/png", &image);
    copy("@host");
    answer("exit 1");
    clipboard(&["paste", bank]).exits(1).says("the user said no");
    answer("head -n 1");
    clipboard(&["paste", bank]).ok();
    let pasted = inside(bank, "wl-paste --type image/png").done().ok();
    assert!(pasted.stdout == image, "{} of {} bytes", pasted.stdout.len(), image.len());
    // Each step is recorded, the content is not.
    let shown = world.casemate(["audit", "show", "--json"]).done().ok().json();
    let of = |source: &str, target: &str| {
        let records = shown.as_array().expect("records").iter();
        let pastes = records.filter(|record| {
            record["event"] == "clipboard-paste"
                && record["compartment"] == target
                && record["fields"]["source"] == source
                && record["fields"]["type"] == "image/png"
        });
        pastes
            .map(|record| record["fields"]["allowed"].as_bool().expect("decided"))
            .collect::<Vec<_>>()
    };
    // Others had these names before.
    assert!(of(bank, web).ends_with(&[false, false, true]), "{:?}", of(bank, web));
    assert!(of(web, "@host").ends_with(&[true]), "{:?}", of(web, "@host"));
    assert!(of("@host", bank).ends_with(&[false, true]), "{:?}", of("@host", bank));
}

/// What holds the clipboard has given up everything but answering.
fn holder_is_confined(held: &Value) {
    let status = format!("/proc/{}/status", held["number"]);
    let status = fs::read_to_string(status).expect("it runs");
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "Threads:\t1"] {
        assert!(status.contains(line), "{line}\n{status}");
    }
}

#[test]
fn a_window_started_from_the_menu_is_what_its_entry_says() {
    let _alone = alone();
    let world = world(here!());
    let Some(desktop) = Desktop::start(here!()) else { return };
    let name = world.name();
    // Root's menu is of nobody else here; an ordinary user's entry is removed again.
    let data = world.path("data");
    let own = |call: Call| if is_root() { call.env("XDG_DATA_HOME", &data) } else { call };
    own(world.casemate(["menu", "sync", name])).within(PATIENCE).done().ok();
    let listed = own(world.casemate(["menu", "list", name, "--json"])).done().ok().json();
    let lines = listed[0]["applications"].as_array().expect("a list").clone();
    let line = lines.iter().find(|line| line["id"] == "foot").expect("an entry");
    let text = fs::read_to_string(line["file"].as_str().expect("a path")).expect("an entry");
    let key = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).expect("the key");
    let _foot = desktop.user(world.host_shell(key("Exec="))).within(PATIENCE).start();
    let windows = desktop.shows(1);
    assert_eq!(windows[0].1, key("StartupWMClass="));
    own(world.casemate(["menu", "remove", name])).done().ok();
}

#[test]
fn what_shows_windows_is_confined() {
    let _alone = alone();
    let world = world(here!());
    let Some(desktop) = Desktop::start(here!()) else { return };
    let _foot = foot(&world, &desktop, world.name(), "sleep 600");
    desktop.shows(1);
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace");
    for (role, program) in [("windows", "casemate-wayland"), ("waypipe", "waypipe")] {
        let monitor = process(&world, role).expect("it runs");
        let inside = systemtest::processes::descendants(monitor)
            .into_iter()
            .filter(|pid| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                program.starts_with(name.trim()) && !name.trim().is_empty()
            })
            .collect::<Vec<_>>();
        assert!(!inside.is_empty(), "{role}");
        for pid in inside {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
            for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
                assert!(status.contains(line), "{role}: {line}\n{status}");
            }
            let us = nix::unistd::getuid().to_string();
            assert!(!status.contains(&format!("Uid:\t{us}\t")), "{role} is somebody else");
            // Who may not look is told nothing, which is as good.
            for kind in ["net", "mnt", "pid", "user"] {
                if let Ok(theirs) = fs::read_link(format!("/proc/{pid}/ns/{kind}")) {
                    assert_ne!(theirs, own(kind), "{role} {kind}");
                }
            }
        }
    }
}

#[test]
fn without_a_compositor_a_window_is_missed_with_a_word_and_nothing_else() {
    let world = World::new(here!(), SETTINGS);
    let call = world.run(["foot", "true"]).without_env("WAYLAND_DISPLAY").within(PATIENCE);
    let done = call.done();
    assert_ne!(done.code, Some(0));
    let name = world.name();
    assert!(done.error().contains(&format!("warning: could not show a window of `{name}`")));
    assert!(done.error().contains("WAYLAND_DISPLAY is not set"), "{}", done.error());
    let plain = world.run(["echo", "on"]).without_env("WAYLAND_DISPLAY").done().ok();
    assert_eq!(plain.text(), "on");
    assert!(plain.stderr.is_empty(), "{}", plain.error());
}

#[test]
fn a_compositor_that_dies_ends_its_programs_and_the_next_one_is_used() {
    let _alone = alone();
    let world = world(here!());
    let Some(desktop) = Desktop::start(here!()) else { return };
    let terminal = foot(&world, &desktop, world.name(), "sleep 600");
    desktop.shows(1);
    let dead = desktop.wayland();
    drop(desktop);
    let done = terminal.within(SHORT).done();
    assert_ne!(done.code, Some(0), "it ends");
    // One that is gone is named.
    fs::create_dir_all(dead.parent().expect("a folder")).expect("made");
    drop(std::os::unix::net::UnixListener::bind(&dead).expect("a socket without anybody"));
    let call = world.run(["foot", "true"]).env("WAYLAND_DISPLAY", &dead).within(SHORT);
    let done = call.done();
    assert!(done.error().contains("the compositor cannot be reached"), "{}", done.error());
    fs::remove_dir_all(dead.parent().expect("a folder")).expect("removed");
    let Some(desktop) = Desktop::start(here!()) else { return };
    let _terminal = foot(&world, &desktop, world.name(), "sleep 600");
    desktop.shows(1);
}

#[test]
fn whatever_is_killed_is_there_for_the_next_program() {
    let _alone = alone();
    let world = world(here!());
    let Some(desktop) = Desktop::start(here!()) else { return };
    let on_the_host = |role: &str| {
        let monitor = process(&world, role).expect("it runs");
        kill(Pid::from_raw(monitor), Signal::SIGKILL).expect("killed");
    };
    let inside = |line: &str| drop(world.shell(line).done());
    for what in ["the proxy", "waypipe", "waypipe inside", "all that carries, inside"] {
        let terminal = foot(&world, &desktop, world.name(), "sleep 600");
        desktop.shows(1);
        match what {
            "the proxy" => on_the_host("windows"),
            "waypipe" => on_the_host("waypipe"),
            "waypipe inside" => inside("pkill -9 -x waypipe"),
            _ => inside("pkill -9 -f carry-window[s]"),
        }
        let done = terminal.within(SHORT).done();
        assert_ne!(done.code, Some(0), "{what}: its program ends");
        desktop.shows(0);
    }
    let _terminal = foot(&world, &desktop, world.name(), "sleep 600");
    desktop.shows(1);
}

#[test]
fn waypipe_that_is_missing_is_named_on_either_end() {
    let _alone = alone();
    let world = world(here!());
    let Some(desktop) = Desktop::start(here!()) else { return };
    let moved = |from: &str, to: &str| {
        let line = format!(
            "mv /usr/bin/{from} /usr/bin/{to}; pkill -x waypipe; pkill -f carry-window[s]; true"
        );
        let words = ["run", "--root", world.name(), "--", "sh", "-c", &line];
        world.casemate(words).within(PATIENCE).done().ok();
    };
    moved("waypipe", "waypipe.away");
    let done = desktop.user(world.run(["foot", "true"])).within(SHORT).done();
    moved("waypipe.away", "waypipe");
    assert!(done.error().contains("waypipe is not in its image"), "{}", done.error());
    assert!(done.error().contains("\"waypipe\" to its `programs`"), "{}", done.error());
    // A machine with everything but waypipe.
    let without = World::new(here!(), SETTINGS);
    let folder = without.path("bin");
    fs::create_dir(&folder).expect("made");
    for system in ["/usr/bin", "/usr/sbin", "/usr/local/bin"] {
        for entry in fs::read_dir(system).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name != "waypipe" {
                // The first of a name counts, as in a search path.
                let _ = symlink(Path::new(system).join(&name), folder.join(&name));
            }
        }
    }
    let call = desktop.user(without.run(["foot", "true"])).env("PATH", &folder);
    let done = call.within(PATIENCE).done();
    assert!(done.error().contains("waypipe is not installed"), "{}", done.error());
    assert!(done.error().contains("package `waypipe`"), "{}", done.error());
}

#[test]
fn a_guest_that_connects_without_end_is_bounded_and_others_go_on() {
    let _alone = alone();
    let world = world(here!());
    let Some(desktop) = Desktop::start(here!()) else { return };
    let _terminal = foot(&world, &desktop, world.name(), "sleep 600");
    desktop.shows(1);
    // Raw connections past waypipe: 400 of them, most refused at once.
    let flood = "perl -MIO::Socket::UNIX -e '\
        my @all; for (1..400) { my $s = IO::Socket::UNIX->new(Peer => \"/run/casemate/windows\"); \
        push @all, $s if $s; } sleep 2; print scalar(@all), \"\\n\"'";
    world.shell(flood).within(SHORT).done().ok();
    let picture = desktop.picture();
    assert!(picture.bounds(RED).is_some(), "the window is still there");
    let _second = until("another window", SHORT, || {
        let more = foot(&world, &desktop, world.name(), "sleep 600");
        std::thread::sleep(Duration::from_secs(3));
        (desktop.windows().len() == 2).then_some(more)
    });
}

/// The part of the desktop that has a color, once some of it has.
fn shows_color(desktop: &Desktop, color: [u8; 3]) -> (i32, i32, i32, i32) {
    until("the color is seen", 4 * SHORT, || desktop.picture().bounds(color))
}

#[test]
fn an_x11_program_is_inside_the_border_and_its_server_comes_and_goes_with_it() {
    let _alone = alone();
    let settings = "color = \"#cc2222\"\nlabel = \"Bank\"\nmemory = 512\n\
                    programs = [\"waypipe\", \"xwayland\", \"xterm\"]\n";
    let world = World::new(here!(), settings);
    let Some(desktop) = Desktop::start(here!()) else { return };
    let servers = || world.shell("pgrep -c Xwayland; true").within(PATIENCE).done().ok().text();
    assert_eq!(servers(), "0", "nothing runs before it is needed");
    let xterm = || {
        let words = ["xterm", "-bg", "#204080", "-e", "sleep", "600"];
        desktop.user(world.run(words)).within(PATIENCE).start()
    };
    let first = xterm();
    let all = shows_color(&desktop, RED);
    let inside = shows_color(&desktop, INSIDE);
    desktop.keep("x11");
    let ground = desktop.picture().bounds_without(GROUND).expect("a window");
    assert_eq!(ground, all, "nothing of it is outside its border");
    assert!(all.0 < inside.0 && all.1 + 12 <= inside.1 && inside.2 < all.2 && inside.3 < all.3);
    // The socket is its user's alone.
    let socket = world.shell("stat -c '%a %U' /tmp/.X11-unix/X0; id -un").done().ok().text();
    let (mode, user) = socket.split_once('\n').expect("two lines");
    assert_eq!(mode, format!("600 {user}"));
    // One that is killed ends its programs, and the next program has another.
    world.shell("pkill -9 Xwayland").done().ok();
    assert_ne!(first.within(SHORT).done().code, Some(0), "it ends");
    desktop.shows(0);
    let second = xterm();
    shows_color(&desktop, INSIDE);
    // The last program takes the window with it.
    world.shell("pkill xterm").done().ok();
    second.within(SHORT).done();
    until("the server ends", SHORT, || (servers() == "0").then_some(()));
    until("its window is gone", SHORT, || desktop.picture().bounds(RED).is_none().then_some(()));
}

#[test]
fn an_x_server_that_is_missing_is_named() {
    let _alone = alone();
    let world = world(here!());
    let Some(desktop) = Desktop::start(here!()) else { return };
    let line = "echo \"[$DISPLAY]\"; perl -MIO::Socket::UNIX -e '\
        my $s = IO::Socket::UNIX->new(Peer => \"/tmp/.X11-unix/X0\") or die; \
        print read($s, my $byte, 1) ? \"answered\\n\" : \"closed\\n\"'; sleep 1";
    let done = desktop.user(world.shell(line)).within(PATIENCE).done().ok();
    assert_eq!(done.text(), "[]\nclosed");
    assert!(done.error().contains("Xwayland, which X11 programs need"), "{}", done.error());
    assert!(done.error().contains("\"xwayland\" to its `programs`"), "{}", done.error());
}
