//! Applications of guests in the user's menu: what is written for them, what is not, what it starts, and
//! when it changes by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use systemtest::{Call, Done, SHORT, World, has, here, is_root, until};

/// For starting a compartment whose image may have to be built first.
const PATIENCE: Duration = Duration::from_secs(400);

/// The image of the tests of windows, which has a program with entries.
const FOOT: &str = "memory = 512\nprograms = [\"foot\", \"waypipe\", \"wl-clipboard\"]\n";

/// A compartment and a menu. Root's is the test's own; an ordinary user's images are where his menu is,
/// so that his entries lie among his others.
struct Desk {
    world: World,
    data: PathBuf,
}

impl Desk {
    fn new(test: &'static str, settings: &str) -> Self {
        Self::of(World::new(test, settings))
    }

    fn of(mut world: World) -> Self {
        let own = world.path("data");
        let data = match is_root() {
            true => {
                world.set("XDG_DATA_HOME", &own);
                own
            }
            false => {
                let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
                let home = std::env::var_os("HOME").map(PathBuf::from);
                data.or_else(|| Some(home?.join(".local/share"))).expect("HOME is set")
            }
        };
        Self { world, data }
    }

    fn menu(&self, word: &str) -> Call {
        self.world.casemate(["menu", word, self.world.name()]).within(PATIENCE)
    }

    fn file(&self, id: &str) -> PathBuf {
        let name = format!("casemate.{}.{id}.desktop", self.world.name());
        self.data.join("applications").join(name)
    }

    /// Ids of the entries that are there.
    fn ids(&self) -> Vec<String> {
        let before = format!("casemate.{}.", self.world.name());
        let files = fs::read_dir(self.data.join("applications")).into_iter().flatten().flatten();
        let names = files.filter_map(|file| file.file_name().into_string().ok());
        let mut ids: Vec<String> = names
            .filter_map(|name| Some(name.strip_prefix(&before)?.strip_suffix(".desktop")?.into()))
            .collect();
        ids.sort();
        ids
    }

    /// What an entry says for a key.
    fn key(&self, id: &str, key: &str) -> String {
        let text = fs::read_to_string(self.file(id)).expect("an entry");
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
    }

    /// Writes a file in the guest.
    fn put(&self, path: &str, content: &[u8]) {
        let line = "mkdir -p \"$(dirname \"$HOME/$1\")\"; cat > \"$HOME/$1\"";
        let call = self.world.run(["sh", "-c", line, "sh", path]);
        call.input(content).within(PATIENCE).done().ok();
    }

    fn application(&self, id: &str, lines: &str) {
        let text = format!("[Desktop Entry]\nType=Application\n{lines}\n");
        self.put(&format!(".local/share/applications/{id}.desktop"), text.as_bytes());
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.menu("remove").attempt(SHORT);
    }
}

/// It says so on standard output.
#[track_caller]
fn told(done: Done, text: &str) -> Done {
    assert!(done.text().contains(text), "{text}: {}{}", done.text(), done.error());
    done
}

/// A PNG file of 64×64 gray pixels that says it is of another size.
fn picture(width: u32, height: u32) -> Vec<u8> {
    let chunk = |kind: &[u8; 4], payload: &[u8]| {
        let body = [&kind[..], payload].concat();
        let sum = !body.iter().fold(!0u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
        });
        [&(payload.len() as u32).to_be_bytes()[..], &body, &sum.to_be_bytes()].concat()
    };
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    // Stored without compression: a header, one block of 64 rows, Adler-32.
    let rows = [&[0][..], &[0x80; 64]].concat().repeat(64);
    let (a, b) = rows.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    let length = rows.len() as u16;
    let lengths = [length.to_le_bytes(), (!length).to_le_bytes()].concat();
    let data = [&[0x78, 1, 1][..], &lengths, &rows, &((b << 16) | a).to_be_bytes()].concat();
    [
        b"\x89PNG\r\n\x1a\n",
        &chunk(b"IHDR", &header)[..],
        &chunk(b"IDAT", &data),
        &chunk(b"IEND", b""),
    ]
    .concat()
}

/// Width, height and the first color of a PNG file of ours.
fn shape(file: &Path) -> (u32, u32) {
    let bytes = fs::read(file).expect("a picture");
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four"));
    (number(16), number(20))
}

#[test]
fn applications_of_a_guest_become_entries_that_start_them_and_go_with_them() {
    let desk = Desk::new(here!(), "");
    let name = desk.world.name();
    desk.application(
        "org.example.Edit",
        "Name=Edit\nName[de]=Schreiben\nGenericName=Editor\nComment=Edits 100 %\nIcon=edit\n\
         Categories=Utility;Evil;TextEditor;\nExec=sh -c \"id -un > /tmp/edited\"\n\
         StartupWMClass=org.example.Editor",
    );
    desk.put(".local/share/icons/hicolor/64x64/apps/edit.png", &picture(64, 64));
    desk.application("large", "Name=Large\nIcon=large\nExec=true\nCategories=Game;");
    desk.put(".local/share/icons/hicolor/64x64/apps/large.png", &picture(60_000, 60_000));
    told(desk.menu("sync").done().ok(), "2 new, 0 changed, 0 removed")
        .says("its icon is 60000×60000");
    assert_eq!(desk.ids(), ["large", "org.example.Edit"]);
    let edit = "org.example.Edit";
    assert_eq!(desk.key(edit, "Name"), format!("{name}: Edit"));
    assert_eq!(desk.key(edit, "Name[de]"), format!("{name}: Schreiben"));
    assert_eq!(desk.key(edit, "GenericName"), format!("{name}: Editor"));
    assert_eq!(desk.key(edit, "Categories"), "Utility;TextEditor;X-casemate;");
    assert_eq!(desk.key(edit, "StartupWMClass"), format!("casemate.{name}.org.example.Editor"));
    for id in desk.ids() {
        assert_eq!(shape(Path::new(&desk.key(&id, "Icon"))), (128, 128));
        if has(here!(), "desktop-file-validate") {
            let checked = Command::new("desktop-file-validate").arg(desk.file(&id)).output();
            let said = checked.expect("started").stdout;
            assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
        }
    }
    // What a desktop does: the words of the line, nothing else.
    let exec = desk.key(edit, "Exec");
    assert!(exec.ends_with(&format!("call {name} casemate.StartApp+{edit}")), "{exec}");
    desk.world.host_shell(&exec).within(PATIENCE).done().ok();
    desk.world.shell("cat /tmp/edited").done().ok();
    let listed = desk.world.casemate(["menu", "list", "--json"]).done().ok().json();
    let rows = listed.as_array().expect("a list");
    let row = rows.iter().find(|row| row["compartment"] == name).expect("ours");
    assert_eq!((&row["declared"], &row["current"]), (&true.into(), &true.into()));
    assert_eq!(row["applications"][1]["name"], "Edit");
    // Again, with nothing new; then without one, in whose place is something of the user's.
    told(desk.menu("sync").done().ok(), "the menu is as it was");
    desk.world.shell("rm ~/.local/share/applications/org.example.Edit.desktop").done().ok();
    fs::write(desk.file("large"), "[Desktop Entry]\nName=Mine\n").expect("written");
    let picture = desk.key(edit, "Icon");
    let done = desk.menu("sync").done().exits(1);
    let done = told(done, "0 new, 0 changed, 1 removed");
    done.says("have no place in the menu").says(".large.desktop");
    assert_eq!(desk.ids(), ["large"]);
    assert_eq!(desk.key("large", "Name"), "Mine");
    assert!(!Path::new(&picture).exists());
    desk.menu("remove").done().ok();
    assert_eq!(desk.key("large", "Name"), "Mine");
    desk.menu("remove").done().exits(1).says("nothing of");
    fs::remove_file(desk.file("large")).expect("removed");
}

#[test]
fn what_an_enemy_writes_is_in_no_entry() {
    let desk = Desk::new(here!(), "");
    desk.application("good", "Name=Good\nExec=true");
    for (id, lines) in [
        ("escape", r"Name=Good\nExec=evil"),
        ("turned", "Name=a\u{202e}b"),
        ("twice", "Name=Good\n[Desktop Entry]\nName=Other"),
        ("terminal", "Name=Good\nTerminal=true"),
        ("hidden", "Name=Good\nNoDisplay=true"),
        ("-rf", "Name=Good"),
        ("a b", "Name=Good"),
        ("GOOD", "Name=Good"),
        ("long", &format!("Name={}", "n".repeat(2000))),
    ] {
        desk.application(id, &format!("Exec=evil\nIcon=/etc/passwd\n{lines}"));
    }
    let done = desk.menu("sync").done().ok();
    for why in [
        "escape is left out",
        "turned is left out",
        "twice is left out",
        "wants a terminal",
        "-rf is left out",
        "but for capital letters",
        "could not read its icon",
    ] {
        assert!(done.error().contains(why), "{why}: {}", done.error());
    }
    assert!(!done.error().contains("hidden"), "{}", done.error());
    // Which of the two that differ by capital letters comes first is the order of their names.
    assert_eq!(desk.ids(), ["GOOD"]);
    let text = fs::read_to_string(desk.file("GOOD")).expect("an entry");
    assert!(!text.contains("evil"), "{text}");
}

#[test]
fn a_guest_that_says_anything_else_changes_nothing() {
    let desk = Desk::new(here!(), "");
    desk.application("good", "Name=Good\nExec=true");
    told(desk.menu("sync").done().ok(), "1 new");
    let begin = "printf 'casemate-menu 1\\n'";
    for (script, why) in [
        ("echo nonsense, and much of it", "is no list of applications"),
        ("exit 3", "could not read what the guest sends"),
        (
            &format!("{begin}; printf 'A\\377\\377\\377\\377'"),
            "4294967295 bytes, which is too large",
        ),
        (
            &format!("{begin}; printf 'A\\002\\0\\0\\0\\001a'"),
            "could not read what the guest sends",
        ),
        (
            &format!("{begin}; while printf 'A\\002\\0\\0\\0\\001a'; do :; done"),
            "more than 512 applications",
        ),
        ("cat /dev/zero", "is no list of applications"),
    ] {
        let script = format!("#!/bin/sh\n{script}\n");
        let line = "cat > /root/agent; chmod 755 /root/agent; chmod 755 /root; \
                    umount /run/casemate/agent.other 2> /dev/null; \
                    mount --bind /root/agent /run/casemate/agent";
        let call = desk.world.run_with(["--root"], ["sh", "-c", line]);
        call.input(script.clone()).done().ok();
        let done = desk.menu("sync").done().exits(1);
        assert!(
            done.error().contains("did not tell its applications"),
            "{script}: {}",
            done.error()
        );
        assert!(done.error().contains(why), "{script}: {}", done.error());
        desk.world.run_with(["--root"], ["umount", "/run/casemate/agent"]).done().ok();
    }
    assert_eq!(desk.ids(), ["good"]);
    told(desk.menu("sync").done().ok(), "the menu is as it was");
}

/// The configuration without programs: with another image.
fn without_programs(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("programs"));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

#[test]
fn a_menu_follows_its_image_by_itself_once_it_was_synced() {
    let desk = Desk::new(here!(), FOOT);
    let world = &desk.world;
    let with_foot = fs::read_to_string(world.config()).expect("read");
    // Never synced: nothing comes by itself.
    world.run(["true"]).within(PATIENCE).done().ok();
    desk.menu("list").done().exits(1).says("nothing of");
    assert_eq!(desk.ids(), [""; 0]);
    desk.menu("sync").done().ok();
    assert_eq!(desk.ids(), ["foot", "foot-server", "footclient"]);
    world.stop_force().ok();
    // Another image, without that program.
    world.configure(&without_programs(&with_foot));
    told(desk.menu("list").done().ok(), "its image has changed since");
    world.run(["true"]).within(PATIENCE).done().ok();
    until("the entries go", SHORT, || desk.ids().is_empty().then_some(()));
    until("it is done", SHORT, || {
        (!desk.menu("list").done().ok().text().contains("changed since")).then_some(())
    });
    world.stop_force().ok();
    // And the image from before.
    world.configure(&with_foot);
    world.start();
    until("the entries come", SHORT, || (desk.ids().len() == 3).then_some(()));
    world.stop_force().ok();
    // Not declared any more: they are removed, and it is said.
    world.configure("");
    told(desk.menu("list").done().ok(), "not declared any more");
    desk.menu("sync").done().ok().says("3 entries are removed");
    assert_eq!(desk.ids(), [""; 0]);
    desk.menu("sync").done().exits(3).says("there is no compartment");
}

#[test]
fn applications_of_a_template_start_in_fresh_disposables() {
    let settings =
        format!("{FOOT}disposable-template = true\nidle-timeout = 60\ndisposable = true");
    let desk = Desk::new(here!(), &settings);
    let name = desk.world.name();
    told(desk.menu("sync").done().ok(), "3 new");
    let exec = desk.key("foot", "Exec");
    assert!(exec.ends_with(&format!("call @dispvm:{name} casemate.StartApp+foot")), "{exec}");
    let text = fs::read_to_string(desk.file("foot")).expect("an entry");
    assert!(!text.contains("StartupWMClass"), "{text}");
    let none_left = || {
        until("the end of the fresh disposable", SHORT, || {
            let list = desk.world.casemate(["list", "--json"]).done().ok().text();
            (!list.contains(&format!("{name}-d"))).then_some(())
        });
    };
    none_left();
    // It is started, and has nowhere to show its window.
    let call = desk.world.host_shell(&exec).without_env("WAYLAND_DISPLAY").within(PATIENCE);
    // foot(1): 230 is its own failure.
    call.done().exits(230);
    none_left();
    // With another image it is another fresh one that is asked, by itself.
    let with_foot = fs::read_to_string(desk.world.config()).expect("read");
    desk.world.configure(&without_programs(&with_foot));
    desk.world.casemate(["run", "--disposable", name, "--", "true"]).done().ok();
    until("the entries go", SHORT, || desk.ids().is_empty().then_some(()));
    none_left();
}
