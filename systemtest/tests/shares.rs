//! Shares: folders of the host in a guest, which cannot leave them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::{Once, OnceLock};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getegid, geteuid};
use sha2::{Digest as _, Sha256};
use systemtest::{Done, SHORT, Shared, World, has, here, is_root, programs, skip, until};

/// What no guest may ever see: it lies beside the shared folders.
const SECRET: &str = "the-secret-beside-the-folders";

/// Bytes of a file that is carried over and back.
const LARGE: usize = 48 << 20;

/// Two folders of the host, of which the guest has one to read and one to write to.
const SHARES: &str = "shares = [
  { source = \"{world}/read\", mount-point = \"/mnt/read\" },
  { source = \"{world}/write\", mount-point = \"/mnt/write\", tag = \"kept\", read-only = false },
]";

/// A world whose `main` has [`SHARES`] and these settings; none where there is no file server.
fn world(test: &'static str, settings: &str) -> Option<World> {
    if !has_server(test) {
        return None;
    }
    let world = World::new(test, &format!("{settings}\n{SHARES}"));
    make_folders(&world);
    Some(world)
}

/// `cargo xtask test` puts one beside the programs.
fn has_server(test: &str) -> bool {
    programs::program("virtiofsd").exists() || has(test, "virtiofsd")
}

/// The world of most tests.
fn shared(test: &'static str) -> Option<Shared> {
    if !has_server(test) {
        return None;
    }
    static WORLD: OnceLock<World> = OnceLock::new();
    static MADE: Once = Once::new();
    let world = World::shared(test, &WORLD, SHARES);
    MADE.call_once(|| make_folders(&world));
    Some(world)
}

fn make_folders(world: &World) {
    for name in ["read", "write"] {
        fs::create_dir(world.path(name)).expect("made");
    }
    fs::write(world.path("secret"), SECRET).expect("written");
}

/// A line of shell as the guest's root.
fn as_root(world: &World, line: &str) -> Done {
    world.run_with(["--root"], ["sh", "-c", line]).done()
}

#[track_caller]
fn is_the_callers(path: &Path) {
    let found = fs::symlink_metadata(path).expect("it is there");
    let caller = (geteuid().as_raw(), getegid().as_raw());
    assert_eq!((found.uid(), found.gid()), caller, "{}", path.display());
}

#[test]
fn guest_reads_what_the_host_shares_and_sees_it_as_its_own() {
    let Some(world) = shared(here!()) else { return };
    fs::write(world.path("read/letter"), "from the host\n").expect("written");
    let line = "cat /mnt/read/letter; stat -c '%U:%G' /mnt/read/letter; id -u";
    let done = world.shell(line).done().ok();
    assert_eq!(done.text(), "from the host\nuser:user\n1000");
    // What the host changes is seen soon.
    fs::write(world.path("read/letter"), "changed\n").expect("written");
    until("the change", SHORT, || {
        (world.shell("cat /mnt/read/letter").done().ok().text() == "changed").then_some(())
    });
    let plan = world.casemate(["plan", world.name()]).done().ok().text();
    for line in [
        "share         `share0` at /mnt/read, read-only",
        "share         `kept` at /mnt/write, read and write",
    ] {
        assert!(plan.contains(line), "{plan}");
    }
}

#[test]
fn read_only_share_is_not_written_to_whatever_the_guest_mounts() {
    let Some(world) = shared(here!()) else { return };
    let file = world.path("read/untouched");
    fs::write(&file, "as it was").expect("written");
    let before = fs::metadata(&file).expect("there");
    let done = as_root(
        &world,
        "cd /mnt/read; mount -o remount,rw /mnt/read; mount | grep ' /mnt/read '; \
         mkdir -p /tmp/again && mount -t virtiofs share0 /tmp/again; \
         for at in /mnt/read /tmp/again; do cd $at; \
         ! touch new && ! sh -c 'echo x >> untouched' && ! rm untouched && ! chmod 777 untouched && \
         ! chown 5 untouched && ! mkdir folder && ! ln -s x link && ! ln untouched hard && \
         ! mv untouched moved && ! truncate -s 0 untouched && ! touch -d 2001-01-01 untouched || exit 9; \
         done; cd /; umount /tmp/again",
    );
    let done = done.ok();
    assert!(done.text().contains("rw,"), "the guest did remount it: {done}");
    let after = fs::metadata(&file).expect("there");
    assert_eq!(fs::read_to_string(&file).expect("read"), "as it was");
    assert_eq!((after.mode(), after.mtime()), (before.mode(), before.mtime()));
    let names: Vec<_> = fs::read_dir(world.path("read")).expect("listed").flatten().collect();
    assert!(names.iter().all(|entry| entry.file_name() != "new" && entry.file_name() != "link"));
}

#[test]
fn what_the_guest_makes_is_the_callers() {
    let Some(world) = shared(here!()) else { return };
    world.shell("cd /mnt/write; umask 022; echo user > by-user; mkdir by-user-folder").done().ok();
    let done = as_root(
        &world,
        "cd /mnt/write; umask 022; echo root > by-root; mkdir by-root-folder; chmod 0640 by-root; \
         ln -s anything by-root-link; chown 1234:4321 by-user; stat -c %u:%g by-root by-user",
    );
    assert_eq!(done.ok().text(), "1000:1000\n1000:1000");
    for name in ["by-user", "by-user-folder", "by-root", "by-root-folder", "by-root-link"] {
        is_the_callers(&world.path("write").join(name));
    }
    let mode =
        |name: &str| fs::metadata(world.path("write").join(name)).expect("there").mode() & 0o7777;
    assert_eq!((mode("by-user"), mode("by-root"), mode("by-user-folder")), (0o644, 0o640, 0o755));
    // The guest's user uses what its root made.
    world.shell("cat /mnt/write/by-root && echo more >> /mnt/write/by-root").done().ok();
    assert_eq!(fs::read_to_string(world.path("write/by-root")).expect("read"), "root\nmore\n");
}

#[test]
fn no_file_gets_the_set_user_id_bit() {
    let Some(world) = shared(here!()) else { return };
    let perl = "use Fcntl; umask 0; sysopen(F, 'at-once', O_CREAT|O_WRONLY|O_EXCL, 06755) or die; \
                syswrite(F, 'x'); close(F);";
    let line = format!(
        "cd /mnt/write; cp /bin/true program; chmod 755 program; ! chmod u+s program && \
         ! chmod 6755 program && ! chmod g+s program && ! install -m 4755 /bin/true installed; \
         code=$?; perl -e \"{perl}\"; cp -a /usr/bin/passwd copied; exit $code"
    );
    as_root(&world, &line).ok();
    for entry in fs::read_dir(world.path("write")).expect("listed") {
        let path = entry.expect("an entry").path();
        let mode = fs::symlink_metadata(&path).expect("there").mode();
        assert_eq!(mode & 0o6000, 0, "{} has mode {mode:o}", path.display());
    }
    assert_eq!(fs::metadata(world.path("write/program")).expect("there").mode() & 0o777, 0o755);
    assert_eq!(fs::read(world.path("write/at-once")).expect("read"), b"x");
}

#[test]
fn device_nodes_are_not_made() {
    let Some(world) = shared(here!()) else { return };
    as_root(&world, "cd /mnt/write; ! mknod null c 1 3 && ! mknod disk b 254 0").ok();
    assert!(!world.path("write/null").exists() && !world.path("write/disk").exists());
}

#[test]
fn links_and_parents_do_not_leave_the_folder() {
    let Some(world) = shared(here!()) else { return };
    let secret = world.path("secret");
    for folder in ["read", "write"] {
        symlink(&secret, world.path(folder).join("absolute")).expect("made");
        symlink("../secret", world.path(folder).join("relative")).expect("made");
        symlink("/etc/hostname", world.path(folder).join("hostname")).expect("made");
        symlink("..", world.path(folder).join("up")).expect("made");
    }
    let line = format!(
        "cd /mnt/write; ln -s {secret} mine; ln -s ../../../../../../../../{secret} mine-too; \
         mkdir -p deep/er; ln -s ../../../secret deep/er/mine; \
         for at in /mnt/read /mnt/write; do cat $at/absolute $at/relative $at/../secret \
           $at/up/secret $at/mine $at/mine-too $at/deep/er/mine $at/deep/er/../../../secret; \
         cat $at/hostname; done; ls /mnt/read/..",
        secret = secret.display()
    );
    let done = as_root(&world, &line);
    let text = format!("{}{}", done.text(), done.error());
    assert!(!text.contains(SECRET), "{text}");
    // The guest's own, by the same links.
    assert_eq!(done.text().matches(world.name()).count(), 2, "{text}");
    assert!(done.text().contains("read\nwrite"), "{text}");
}

/// The guest's kernel passes handles on as numbers of files; root may make them up.
#[test]
fn made_up_handles_do_not_leave_the_folder() {
    let Some(world) = shared(here!()) else { return };
    // struct file_handle and open_by_handle_at, man page; FILEID_INO64_GEN is 0x81.
    let perl = "open(M, '<', $ARGV[0]) or die; my $opened = 0; \
        for my $id (1 .. 300) { for my $kind (0x81, 0x82) { \
          my $own = pack('QL', $id, 0); $own .= pack('QL', 1, 0) if $kind == 0x82; \
          my $handle = pack('Ll', length($own), $kind) . $own; \
          my $fd = syscall(304, fileno(M), $handle, 0); next if $fd < 0; $opened++; \
          for my $to ('secret', '../secret', '../../secret', 'etc/shadow', '../etc/shadow') { \
            if (open(F, '<', \"/proc/self/fd/$fd/$to\")) { print <F>; close(F); } } \
          print readlink(\"/proc/self/fd/$fd\"), \"\\n\"; } } print \"$opened opened\\n\";";
    fs::write(world.path("write/by-handle.pl"), perl).expect("written");
    for at in ["/mnt/read", "/mnt/write"] {
        let line = format!("ls -R {at} >/dev/null; perl /mnt/write/by-handle.pl {at}");
        let done = as_root(&world, &line).ok();
        assert!(!done.text().contains(SECRET) && !done.text().contains("root:"), "{done}");
        assert!(!done.text().contains("\n0 opened"), "handles are of some use: {done}");
        let count = done.text().lines().last().map(str::to_owned).unwrap_or_default();
        println!("{at}: {count}");
    }
}

#[test]
fn large_file_is_the_same_on_both_sides() {
    let Some(world) = shared(here!()) else { return };
    let bytes: Vec<u8> = (0..LARGE as u64 / 8)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect();
    fs::write(world.path("read/large"), &bytes).expect("written");
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let line = "sha256sum < /mnt/read/large && cp /mnt/read/large /mnt/write/large && sync";
    let done = world.shell(line).done().ok();
    assert!(done.text().starts_with(&digest), "{done}");
    assert!(fs::read(world.path("write/large")).expect("read") == bytes, "the copy differs");
    fs::remove_file(world.path("write/large")).expect("removed");
    fs::remove_file(world.path("read/large")).expect("removed");
}

#[test]
fn server_sees_its_folder_alone_and_has_no_privilege() {
    let Some(world) = shared(here!()) else { return };
    world.run(["true"]).done().ok();
    let server = world.member("virtiofsd");
    let read = |name: &str| {
        fs::read_to_string(format!("/proc/{}/{name}", server.pid)).expect("it can be read")
    };
    let status = read("status");
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(line("NoNewPrivs:"), ["1"]);
    assert_eq!(line("Seccomp:"), ["2"]);
    assert_eq!(line("Uid:")[0], geteuid().as_raw().to_string());
    let mounts = read("mountinfo");
    let place = world.path("").display().to_string();
    let folders: Vec<&str> = mounts.lines().filter(|line| line.contains(&place)).collect();
    assert_eq!(folders.len(), 1, "{mounts}");
    assert!(folders[0].contains("nosuid,nodev,noexec"), "{mounts}");
    let interfaces = read("net/dev");
    assert_eq!(interfaces.lines().count(), 3, "only lo: {interfaces}");
}

#[test]
fn folder_that_vanished_is_a_clear_error_and_nothing_is_started() {
    let Some(world) = world(here!(), "") else { return };
    fs::remove_dir(world.path("read")).expect("removed");
    let done = world.run(["true"]).within(SHORT).done().exits(125);
    let done = done.says(&format!("could not share {}", world.path("read").display()));
    done.says("No such file or directory").says("make the folder, or correct its `source`");
    fs::write(world.path("read"), "a file").expect("written");
    let done = world.casemate(["start", world.name()]).within(SHORT).done().exits(1);
    done.says("it is no folder").says("give the path of a folder");
    world.casemate(["plan", world.name()]).done().exits(1).says("it is no folder");
    fs::remove_file(world.path("read")).expect("removed");
    fs::create_dir(world.path("read")).expect("made");
    fs::set_permissions(world.path("read"), Permissions::from_mode(0o000)).expect("set");
    let done = world.run(["true"]).within(SHORT).done().exits(125);
    done.says("may not read it").says("owner and permissions");
    fs::set_permissions(world.path("write"), Permissions::from_mode(0o500)).expect("set");
    fs::set_permissions(world.path("read"), Permissions::from_mode(0o700)).expect("set");
    world.run(["true"]).within(SHORT).done().exits(125).says("may not write to it");
    assert_eq!(fs::read_to_string(world.path("secret")).expect("read"), SECRET);
    world.assert_gone(world.name());
}

#[test]
fn link_that_a_guest_may_have_made_is_not_followed() {
    let Some(world) = world(here!(), "") else { return };
    let planted = world.path("write/planted");
    symlink(world.path(""), &planted).expect("made");
    let text = fs::read_to_string(world.config()).expect("read");
    let more = format!(
        "\n  {{ source = {planted:?}, mount-point = \"/mnt/planted\", tag = \"planted\" }},\n]"
    );
    world.configure(&text.replacen("\n]", &more, 1));
    let done = world.run(["true"]).within(SHORT).done().exits(125);
    done.says("a symbolic link on the way to it lies in").says("which a guest may write to");
    // A folder is one, whoever made it.
    fs::remove_file(&planted).expect("removed");
    fs::create_dir(&planted).expect("made");
    fs::write(planted.join("file"), "inside").expect("written");
    assert_eq!(world.run(["cat", "/mnt/planted/file"]).done().ok().text(), "inside");
}

#[test]
fn folder_removed_meanwhile_hangs_nothing() {
    let Some(world) = world(here!(), "") else { return };
    fs::write(world.path("write/file"), "x").expect("written");
    world.shell("cat /mnt/write/file").done().ok();
    fs::remove_dir_all(world.path("write")).expect("removed");
    fs::remove_dir_all(world.path("read")).expect("removed");
    let done =
        world.shell("ls /mnt/read; echo x > /mnt/write/new; echo alive").within(SHORT).done();
    assert!(done.text().ends_with("alive"), "{done}");
    assert!(done.error().contains("/mnt/write/new"), "writing fails: {done}");
    world.casemate(["stop", world.name()]).within(SHORT).done().ok();
    world.assert_gone(world.name());
    world.run(["true"]).within(SHORT).done().exits(125).says("could not share");
}

#[test]
fn end_of_a_file_server_ends_the_compartment_and_is_said() {
    let Some(world) = world(here!(), "") else { return };
    let session = world.shell("echo here; exec sleep 1000").start();
    session.expect("here");
    let crew = world.crew(world.name());
    let servers: Vec<_> = crew.iter().filter(|process| process.name == "virtiofsd").collect();
    assert_eq!(servers.len(), 2, "{crew:?}");
    let writable = servers.iter().find(|server| !server.arguments.contains(&"--readonly".into()));
    kill(Pid::from_raw(writable.expect("one").pid), Signal::SIGKILL).expect("killed");
    let done = session.within(Duration::from_secs(30)).done().exits(125);
    done.says("the file server of the share `kept` was ended by signal 9");
    // The client is told at once; the guest has 15 s to end in order.
    world.await_state("failed");
    world.assert_gone_with(world.name(), &crew);
    let status = world.casemate(["status", world.name()]).done();
    assert!(status.text().contains("share `kept`"), "{status}");
    // The next start has it again.
    world.shell("echo new > /mnt/write/new").done().ok();
    assert_eq!(fs::read_to_string(world.path("write/new")).expect("read"), "new\n");
}

#[test]
fn microvm_has_shares_too() {
    let Some(world) = world(here!(), "machine = \"microvm\"") else { return };
    fs::write(world.path("read/file"), "read").expect("written");
    let line = "cat /mnt/read/file; echo written > /mnt/write/file";
    assert_eq!(world.shell(line).done().ok().text(), "read");
    assert_eq!(fs::read_to_string(world.path("write/file")).expect("read"), "written\n");
}

#[test]
fn guest_with_systemd_and_one_whose_user_has_a_number_of_its_own_have_shares() {
    let Some(world) = world(
        here!(),
        "memory = 400\nguest.init = \"systemd\"\nguest.user = \"tess\"\n\
         guest.users = [{ name = \"tess\", uid = 1717 }]",
    ) else {
        return;
    };
    fs::write(world.path("read/file"), "read").expect("written");
    let line = "cat /mnt/read/file; stat -c %U /mnt/write; echo written > /mnt/write/file";
    assert_eq!(world.shell(line).done().ok().text(), "readtess");
    is_the_callers(&world.path("write/file"));
    world.casemate(["stop", world.name()]).within(SHORT).done().ok();
    world.assert_gone(world.name());
}

/// Root serves a folder as its owner, who may do less.
#[test]
fn folder_of_another_user_is_served_as_him_by_root() {
    if !is_root() {
        return skip(here!(), "only root can be somebody else");
    }
    let (uid, gid) = (65_531, 65_532);
    let Some(world) = world(here!(), "") else { return };
    for name in ["", "read", "write"] {
        chown(world.path(name), Some(uid), Some(gid)).expect("given");
    }
    as_root(&world, "echo x > /mnt/write/file").ok();
    let found = fs::metadata(world.path("write/file")).expect("there");
    assert_eq!((found.uid(), found.gid()), (uid, gid));
}
