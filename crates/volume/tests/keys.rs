//! Volumes are made, opened, grown, listed and removed, with each kind of key.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use casemate_config::{KeySource, Size};
use casemate_volume::{Protection, Secret, VolumeError, VolumeKey};
use common::{AGE, banking, home, name, world};

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

/// Whether the key we tell is the one cryptsetup would use: a header made with it opens the same
/// way, and its digest is of this key.
fn verified_by_cryptsetup(header: &std::path::Path, key: &VolumeKey) -> bool {
    // By the volume key itself, in a file, as no product code would do it.
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), key.bytes()).expect("written");
    let added = header.with_file_name("copy.luks");
    fs::copy(header, &added).expect("copied");
    let mut child = Command::new("/usr/sbin/cryptsetup")
        .args(["luksAddKey", "--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations"])
        .args(["1000", "--volume-key-file"])
        .arg(file.path())
        .arg(&added)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cryptsetup");
    child.stdin.take().expect("piped").write_all(b"another\n").expect("written");
    let output = child.wait_with_output().expect("ended");
    fs::remove_file(added).expect("removed");
    output.status.success()
}

#[test]
fn a_passphrase_opens_and_a_wrong_one_is_told_apart() {
    let Some(world) = world(&["cryptsetup", "setpriv"]) else { return };
    let (right, wrong) = (secret("correct horse"), secret("battery staple"));
    let source = KeySource::Passphrase;
    let spec = home(16, source.clone());
    let error = world.volumes.create(&banking(), &spec, &world.unlock(None)).expect_err("none");
    assert!(error.needs_passphrase(), "{error}");
    for unfit in ["", &"x".repeat(513)] {
        let unfit = secret(unfit);
        let made = world.volumes.create(&banking(), &spec, &world.unlock(Some(&unfit)));
        assert!(made.is_err());
    }
    assert_eq!(world.files(), [""; 0]);
    world.volumes.create(&banking(), &spec, &world.unlock(Some(&right))).expect("created");

    let volume = world.lock();
    let error = volume.open_key(&source, &world.unlock(Some(&wrong))).expect_err("wrong");
    assert!(error.is_wrong_passphrase(), "{error:?}");
    assert!(!format!("{error:?}").contains("battery"));
    assert!(volume.open_key(&source, &world.unlock(None)).expect_err("none").needs_passphrase());
    let key = volume.open_key(&source, &world.unlock(Some(&right))).expect("opened");
    assert_eq!((key.bytes().len(), key.sector_size()), (64, 4096));
    let again = volume.open_key(&source, &world.unlock(Some(&right))).expect("opened");
    assert_eq!(key.bytes(), again.bytes());
    assert!(verified_by_cryptsetup(&world.folder().join("header.luks"), &key));
    let error = volume.open_key(&world.age(), &world.unlock(None)).expect_err("another kind");
    assert!(matches!(error, VolumeError::OtherKind { .. }), "{error}");

    // The header opens by hand too, and holds a bounded argon2id.
    let header = world.folder().join("header.luks");
    let dump = Command::new("/usr/sbin/cryptsetup").arg("luksDump").arg(&header).output();
    let dump = String::from_utf8_lossy(&dump.expect("cryptsetup").stdout).into_owned();
    assert!(dump.contains("argon2id") && dump.contains("65536"), "{dump}");
    let mut child = Command::new("/usr/sbin/cryptsetup")
        .args(["open", "--test-passphrase", "--key-file", "-", "--header"])
        .arg(&header)
        .arg(world.folder().join("data.raw"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("cryptsetup");
    child.stdin.take().expect("piped").write_all(b"correct horse").expect("written");
    assert!(child.wait().expect("ended").success());
}

#[test]
fn an_age_key_is_made_at_first_use_and_shared_by_volumes() {
    let Some(world) = world(AGE) else { return };
    let volume = world.made(64);
    let key = volume.open_key(&world.age(), &world.unlock(None)).expect("opened");
    assert!(verified_by_cryptsetup(&world.folder().join("header.luks"), &key));
    let mode = |path: &std::path::Path| fs::metadata(path).expect("there").permissions().mode();
    assert_eq!(mode(&world.identity) & 0o777, 0o600);
    for file in ["header.luks", "data.raw", "volume.json", "lock"] {
        assert_eq!(mode(&world.folder().join(file)) & 0o777, 0o600, "{file}");
    }
    assert_eq!(mode(&world.folder()) & 0o777, 0o700);
    let blocks = fs::metadata(world.folder().join("data.raw")).expect("there").blocks();
    assert_eq!(blocks, 0, "thin");

    let mut other = home(16, world.age());
    other.name = "cache".parse().expect("a name");
    world.volumes.create(&banking(), &other, &world.unlock(None)).expect("created");
    let cache = world.volumes.lock(&banking(), &other.name).expect("locked");
    let cached = cache.open_key(&world.age(), &world.unlock(None)).expect("opened");
    assert_ne!(cached.bytes(), key.bytes());

    // Another identity, and another key, are told apart; neither is a wrong passphrase.
    let kept = fs::read(&world.identity).expect("read");
    fs::remove_file(&world.identity).expect("removed");
    let error = volume.open_key(&world.age(), &world.unlock(None)).expect_err("none");
    assert!(error.to_string().contains("could not find the age identity"), "{error}");
    let strange = KeySource::Age(world.directory.path().join("keys/strange.age"));
    let mut third = home(16, strange.clone());
    third.name = "third".parse().expect("a name");
    world.volumes.create(&banking(), &third, &world.unlock(None)).expect("created");
    let error = volume.open_key(&world.age(), &world.unlock(None)).expect_err("another identity");
    assert!(error.to_string().contains("not encrypted to the age identity"), "{error}");
    let error = volume.open_key(&strange, &world.unlock(None)).expect_err("another key");
    assert!(matches!(error, VolumeError::OtherKey(_)), "{error}");
    assert!(!error.is_wrong_passphrase());
    fs::write(&world.identity, kept).expect("written");
    volume.open_key(&world.age(), &world.unlock(None)).expect("opened again");
}

#[test]
fn an_identity_with_a_passphrase_asks_for_it() {
    let Some(world) = world(AGE) else { return };
    // age takes a passphrase from a terminal only.
    fs::create_dir_all(world.identity.parent().expect("a folder")).expect("made");
    let plain = world.directory.path().join("plain.txt");
    let made = Command::new("age-keygen").arg("-o").arg(&plain).output().expect("age-keygen");
    assert!(made.status.success());
    let script = format!("age -p -o {} {}", world.identity.display(), plain.display());
    let mut child = match Command::new("script")
        .args(["-qec", &script, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
    {
        Ok(child) => child,
        Err(error) => return println!("skipped: script cannot be run: {error}"),
    };
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"open sesame\nopen sesame\n").expect("written");
    assert!(child.wait().expect("ended").success());
    drop(stdin);

    let (right, wrong) = (secret("open sesame"), secret("open barley"));
    let spec = home(16, world.age());
    let error = world.volumes.create(&banking(), &spec, &world.unlock(None)).expect_err("none");
    assert!(error.needs_passphrase(), "{error}");
    world.volumes.create(&banking(), &spec, &world.unlock(Some(&right))).expect("created");
    let volume = world.lock();
    for wrong in [wrong, secret("\u{3}"), secret("")] {
        let error = volume.open_key(&world.age(), &world.unlock(Some(&wrong))).expect_err("wrong");
        assert!(error.is_wrong_passphrase(), "{error:?}");
    }
    volume.open_key(&world.age(), &world.unlock(Some(&right))).expect("opened");
    let listed = world.volumes.list(&world.identity).expect("listed");
    let summary = listed[0].state.as_ref().expect("sound");
    assert_eq!(summary.protection, Some(Protection::Passphrase));
}

#[test]
fn a_volume_is_listed_and_taken_once() {
    let Some(world) = world(AGE) else { return };
    assert_eq!(world.volumes.list(&world.identity).expect("listed").len(), 0);
    let missing = world.volumes.lock(&banking(), &name()).expect_err("none");
    assert!(matches!(missing, VolumeError::NotThere(_)), "{missing}");
    let volume = world.made(16);
    match world.volumes.lock(&banking(), &name()) {
        Err(VolumeError::InUse { holder: Some(holder), .. }) => {
            assert_eq!(holder.pid, std::process::id());
        }
        other => panic!("{other:?}"),
    }
    let error = world.volumes.delete(&banking(), &name()).expect_err("in use");
    assert!(matches!(error, VolumeError::InUse { .. }), "{error}");
    let spec = home(16, world.age());
    let error = world.volumes.create(&banking(), &spec, &world.unlock(None)).expect_err("twice");
    assert!(matches!(error, VolumeError::Exists(_)), "{error}");

    let listed = world.volumes.list(&world.identity).expect("listed");
    assert_eq!(listed[0].id.to_string(), "banking/home");
    let summary = listed[0].state.as_ref().expect("sound");
    assert_eq!((summary.size, summary.protection), (16 << 20, Some(Protection::DeletionOnly)));
    assert!(summary.holder.is_some() && summary.allocated >= 1 << 20);
    drop(volume);
    fs::write(world.folder().join("volume.json"), "{").expect("damaged");
    let listed = world.volumes.list(&world.identity).expect("listed all the same");
    assert!(listed[0].state.is_err());
    world.volumes.delete(&banking(), &name()).expect("a damaged one too");
    assert_eq!(world.files(), [""; 0]);
}

#[test]
fn a_volume_grows_and_never_shrinks() {
    let Some(world) = world(AGE) else { return };
    let mut volume = world.made(16);
    let size = |mib| Size::from_mib(mib).expect("a size");
    volume.resize(size(32)).expect("grown");
    assert_eq!(common::read(&volume).len(), 32 << 20);
    let error = volume.resize(size(16)).expect_err("smaller");
    assert!(matches!(error, VolumeError::Shrink { from: 0x200_0000, .. }), "{error}");
    assert!(matches!(volume.resize(size(65 << 20)), Err(VolumeError::BadSize(..))));
    volume.take_snapshot(&common::snapshot("small"), false).expect("taken");
    volume.resize(size(48)).expect("grown");
    assert_eq!(common::read(&volume).len(), 48 << 20);
    volume.revert(&common::snapshot("small")).expect("reverted");
    assert_eq!((volume.size(), common::read(&volume).len()), (48 << 20, 48 << 20));
    // Killed between the record and the layer.
    let path = world.folder().join("volume.json");
    let text = fs::read_to_string(&path).expect("read");
    fs::write(&path, text.replace("50331648", "67108864")).expect("written");
    drop(volume);
    assert_eq!(common::read(&world.lock()).len(), 64 << 20);
}

#[test]
fn what_killed_operations_left_is_finished() {
    let Some(world) = world(AGE) else { return };
    drop(world.made(16));
    // As if killed while making one, and just after renaming another for removal.
    let parent = world.folder().parent().expect("a folder").to_owned();
    fs::create_dir(parent.join(".new-x")).expect("made");
    fs::write(parent.join(".new-x/data.raw"), "x").expect("written");
    fs::rename(world.folder(), parent.join(".deleted-x")).expect("renamed");
    assert_eq!(world.volumes.list(&world.identity).expect("listed").len(), 0);
    assert_eq!(world.volumes.sweep().expect("swept"), 2);
    assert_eq!(world.files(), [parent.display().to_string()]);
    drop(world.made(16));
}

#[test]
fn a_full_disk_leaves_no_part_of_a_volume() {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: mounting a small file system needs root");
    }
    let Some(world) = world(AGE) else { return };
    // The mounts are this thread's, and those of the programs it starts.
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private");
    let data = world.directory.path().join("data");
    fs::create_dir(&data).expect("made");
    let tmpfs = |flags, options: &str| {
        mount(none, &data, Some("tmpfs"), flags, Some(options)).expect("mounted");
    };
    tmpfs(MsFlags::empty(), "size=300k");
    let spec = home(64, world.age());
    let error = world.volumes.create(&banking(), &spec, &world.unlock(None)).expect_err("full");
    assert!(!error.to_string().is_empty());
    assert_eq!(world.files(), [""; 0], "{error}");
    tmpfs(MsFlags::MS_REMOUNT, "size=4m");
    let mut volume = world.made(64);
    common::write(&volume, &[(0, 1 << 20, 7)]);
    let before = common::read(&volume);
    // Room for nothing more.
    let fill = data.join("fill");
    let mut filler = fs::File::create(&fill).expect("made");
    while filler.write_all(&[1; 4096]).is_ok() {}
    let files = world.files();
    for _ in 0..2 {
        volume.take_snapshot(&common::snapshot("a"), false).expect_err("full");
        assert_eq!(world.files(), files);
        assert_eq!(common::read(&volume), before);
    }
    drop(filler);
    fs::remove_file(fill).expect("removed");
    volume.take_snapshot(&common::snapshot("a"), false).expect("taken");
    common::write(&volume, &[(1 << 20, 1 << 19, 8)]);
    let before = common::read(&volume);
    let mut filler = fs::File::create(data.join("fill")).expect("made");
    while filler.write_all(&[1; 4096]).is_ok() {}
    // Nothing can be written, not even what is true of it.
    let deleted = volume.delete_snapshot(&common::snapshot("a"));
    assert_eq!(common::read(&volume), before);
    drop((volume, filler));
    fs::remove_file(data.join("fill")).expect("removed");
    let mut volume = world.lock();
    if deleted.is_err() {
        let _ = volume.delete_snapshot(&common::snapshot("a"));
    }
    volume.merge().expect("merged");
    assert_eq!((common::read(&volume), volume.layers().expect("layers").len()), (before, 1));
}
