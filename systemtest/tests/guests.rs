//! What a guest is made of: disks of the user's own, systemd as process 1.

use std::fs::{self, File};

use systemtest::{SHORT, World, has, here, skip, until};

/// A world whose compartment has these further settings, which may name files in it as `@NAME`.
fn world(test: &'static str, settings: &str) -> World {
    let world = World::new(test, "");
    let place = format!("{}/", world.path("").display()).replace("//", "/");
    let settings = settings.replace('@', &place).replace("MAIN", world.name());
    world.configure(&format!(
        "[compartment.{}]\nmemory = 400\nidle-timeout = 600\ndisposable = true\n{settings}\n",
        world.name()
    ));
    world
}

#[test]
fn additional_disks_are_what_their_file_says() {
    let test = here!();
    if !has(test, "qemu-img") {
        return;
    }
    let world = world(
        test,
        "[[compartment.MAIN.additional-disks]]\npath = \"@raw\"\ndev-identifier = \"first\"\n\
         block-size = 4096\n\
         [[compartment.MAIN.additional-disks]]\npath = \"@qcow2\"\nformat = \"qcow2\"\n\
         read-only = true\ndev-identifier = \"second\"\n",
    );
    File::create(world.path("raw")).and_then(|file| file.set_len(8 << 20)).expect("made");
    let make = format!("qemu-img create -q -f qcow2 {} 24M", world.path("qcow2").display());
    world.host_shell(&make).done().ok();
    let line = "cd /sys/block; for d in vd?; do echo $(cat $d/serial) $(cat $d/size $d/ro \
                $d/queue/logical_block_size); done; echo written | dd of=/dev/vdb conv=notrunc";
    let done = world.run_with(["--root"], ["sh", "-c", line]).done().ok();
    let lines: Vec<String> = done.text().lines().skip(1).map(str::to_owned).collect();
    assert_eq!(lines, ["first 16384 0 4096", "second 49152 1 512"]);
    let done = world.run_with(["--root"], ["dd", "if=/dev/zero", "of=/dev/vdc", "count=1"]).done();
    assert_ne!(done.code, Some(0), "it is read-only: {done}");
    world.stop_force().ok();
    let bytes = fs::read(world.path("raw")).expect("read");
    assert!(bytes.starts_with(b"written"), "what the guest wrote is in the file");
}

#[test]
fn qcow2_that_leads_to_other_files_is_refused() {
    let test = here!();
    if !has(test, "qemu-img") {
        return;
    }
    let world =
        world(test, "[[compartment.MAIN.additional-disks]]\npath = \"@top\"\nformat = \"qcow2\"\n");
    let (base, top) = (world.path("base"), world.path("top"));
    fs::write(&base, vec![1; 1 << 20]).expect("written");
    let make =
        format!("qemu-img create -q -f qcow2 -F raw -b {} {}", base.display(), top.display());
    world.host_shell(&make).done().ok();
    world.run(["true"]).within(SHORT).done().exits(125).says("it has a backing file");
    fs::remove_file(&top).expect("removed");
    world.run(["true"]).within(SHORT).done().exits(125).says("could not open the disk");
    fs::create_dir(&top).expect("made");
    world.run(["true"]).within(SHORT).done().exits(125).says("no file or block device");
}

#[test]
fn root_disk_of_ones_own_is_written_to_when_asked() {
    let test = here!();
    let world = world(test, "root-disk = \"@root\"\nroot-disk-readonly = false\n");
    // The image's own root, unpacked and packed again as what people have.
    let shown = world.casemate(["image", "show", "debian", "--json"]).done().ok().json();
    let erofs = format!("{}/root.erofs", shown["directory"].as_str().expect("a directory"));
    let (tree, disk) = (world.path("tree"), world.path("root"));
    let make = format!(
        "PATH=$PATH:/usr/sbin:/sbin; fsck.erofs --extract={tree} {erofs} >/dev/null 2>&1; \
         test -e {tree}/usr/bin/env && truncate -s 600M {disk} && \
         mkfs.ext4 -q -F -E lazy_itable_init=1,root_owner=0:0 -d {tree} {disk}",
        tree = tree.display(),
        disk = disk.display()
    );
    let made = world.host_shell(&make).done();
    let _ = fs::remove_dir_all(&tree);
    if made.code != Some(0) {
        return skip(test, "no fsck.erofs that extracts, or no mkfs.ext4 that fills");
    }
    let line = "grep -c ' / ext4 rw' /proc/mounts; echo kept > /root-was-here && sync";
    assert_eq!(world.run_with(["--root"], ["sh", "-c", line]).done().ok().text(), "1");
    world.casemate(["stop", world.name()]).within(SHORT).done().ok();
    let done = world.run_with(["--root"], ["cat", "/root-was-here"]).done().ok();
    assert_eq!(done.text(), "kept");
}

#[test]
fn overlay_takes_as_much_as_its_file_says() {
    let world = world(here!(), "guest.overlay-size = \"8MiB\"\n");
    let line = "head -c 6M /dev/zero > /var/tmp/fits && ! head -c 6M /dev/zero > /var/tmp/not";
    let done = world.run_with(["--root"], ["sh", "-c", line]).done().ok();
    assert!(done.error().contains("No space left"), "{done}");
}

#[test]
fn file_of_the_host_is_copied_into_the_guest() {
    let world = world(
        here!(),
        "[compartment.MAIN.guest.files.\"/etc/app/settings\"]\nsource = \"@settings\"\n\
         mode = \"0640\"\n",
    );
    world.run(["true"]).within(SHORT).done().exits(125).says("settings for `guest.files`");
    fs::write(world.path("settings"), b"bytes \xff\x00 whatever\n").expect("written");
    let line = "stat -c '%a %U' /etc/app/settings; sha256sum < /etc/app/settings";
    let done = world.run_with(["--root"], ["sh", "-c", line]).done().ok();
    let digest = world.host_shell(&format!("sha256sum < {}", world.path("settings").display()));
    assert_eq!(done.text(), format!("640 root\n{}", digest.done().ok().text()));
    fs::write(world.path("settings"), vec![0; 600 * 1024]).expect("written");
    world.stop_force().ok();
    world.run(["true"]).within(SHORT).done().exits(125).says("512 KiB");
}

#[test]
fn systemd_is_process_1_and_starts_the_declared_units() {
    let world = world(
        here!(),
        "[compartment.MAIN.guest]\ninit = \"systemd\"\nservices = [\"hello.service\"]\n\
         [compartment.MAIN.guest.files.\"/etc/systemd/system/hello.service\"]\n\
         content = \"[Service]\\nExecStart=/bin/sh -c 'echo hello > /run/hello; exec sleep 1000'\\n\"\n",
    );
    let line = "cat /proc/1/comm; until systemctl is-active hello >/dev/null; do sleep 0.2; done; \
                cat /run/hello";
    let done = world.run_with(["--root"], ["sh", "-c", line]).done().ok();
    assert_eq!(done.text(), "systemd\nhello");
    world.casemate(["stop", world.name()]).done().ok();
    world.assert_gone(world.name());
}

#[test]
fn failed_unit_is_shown_by_status() {
    let world = World::new(here!(), "");
    world.configure(&format!(
        "[compartment.{0}]\nmemory = 400\n[compartment.{0}.guest]\ninit = \"systemd\"\n\
         services = [\"breaks.service\"]\n\
         [compartment.{0}.guest.files.\"/etc/systemd/system/breaks.service\"]\n\
         content = \"[Service]\\nExecStart=/bin/false\\n\"\n",
        world.name()
    ));
    world.start();
    until("the failed unit", SHORT, || {
        let status = world.casemate(["status", world.name()]).done().ok().text();
        status.contains("failed      breaks.service").then_some(())
    });
    assert_eq!(world.status(world.name())["failedUnits"][0], "breaks.service");
    world.stop_force().ok();
}

#[test]
fn unit_that_the_image_lacks_is_told() {
    let world = world(
        here!(),
        "[compartment.MAIN.guest]\ninit = \"systemd\"\nservices = [\"no-such-thing.service\"]\n",
    );
    world.run(["true"]).done().exits(125).says("no-such-thing.service").says("no such unit");
    until("its end", SHORT, || (world.state(world.name()) == "failed").then_some(()));
}
