//! Volumes leave and come back; archives that lie make nothing.

mod common;

use std::fs;
use std::io::{self, Read};
use std::process::Command;

use casemate_config::{KeySource, VolumeName};
use casemate_volume::{VolumeError, Volumes};
use common::{AGE, World, banking, read, snapshot, world, write};

fn exported(world: &World) -> Vec<u8> {
    let mut volume = world.made(4);
    write(&volume, &[(0, 4096, 1), (3 << 20, 300_000, 2)]);
    volume.take_snapshot(&snapshot("one"), false).expect("taken");
    write(&volume, &[(4096, 8192, 3)]);
    let mut archive = Vec::new();
    volume.export(&mut archive).expect("exported");
    archive
}

fn import(volumes: &Volumes, key: &KeySource, input: impl Read) -> Result<(), VolumeError> {
    let copy: VolumeName = "copy".parse().expect("a name");
    volumes.import(&banking(), &copy, key, input)
}

#[test]
fn a_volume_comes_back_with_its_snapshots_and_its_key() {
    let Some(world) = world(AGE) else { return };
    let archive = exported(&world);
    assert!(archive.len() < 3 << 20, "sparse: {}", archive.len());
    let file = world.directory.path().join("home.tar");
    fs::write(&file, &archive).expect("written");
    let listed = Command::new("tar").arg("-tf").arg(&file).output().expect("tar");
    assert!(listed.status.success());
    assert!(listed.stdout.starts_with(b"volume.json\nheader.luks\ndata.raw/00000000\n"));

    import(&world.volumes, &world.age(), &archive[..]).expect("imported");
    let copy = "copy".parse().expect("a name");
    let mut copy = world.volumes.lock(&banking(), &copy).expect("locked");
    let mut home = world.lock();
    assert_eq!(read(&copy), read(&home));
    let unlock = world.unlock(None);
    let key = home.open_key(&world.age(), &unlock).expect("opened");
    assert_eq!(copy.open_key(&world.age(), &unlock).expect("opened").bytes(), key.bytes());
    for volume in [&mut copy, &mut home] {
        volume.revert(&snapshot("one")).expect("reverted");
    }
    assert_eq!(read(&copy), read(&home));
    drop(copy);
    let again = import(&world.volumes, &world.age(), &archive[..]).expect_err("twice");
    assert!(matches!(again, VolumeError::Exists(_)), "{again}");
    let other = world.volumes.import(
        &banking(),
        &"third".parse().expect("a name"),
        &KeySource::Passphrase,
        &archive[..],
    );
    assert!(matches!(other, Err(VolumeError::OtherKind { .. })));
}

/// Name and content of each member but the digest.
type Members = Vec<(String, Vec<u8>)>;

/// Takes an archive apart.
fn members(archive: &[u8]) -> Members {
    let mut members = Vec::new();
    let mut at = 0;
    loop {
        let block = &archive[at..at + 512];
        let text = |range: std::ops::Range<usize>| {
            let field = String::from_utf8_lossy(&block[range]);
            field.trim_end_matches('\0').to_owned()
        };
        let length = usize::from_str_radix(&text(124..136), 8).expect("octal");
        at += 512;
        if text(0..100) == "sha256" {
            return members;
        }
        members.push((text(0..100), archive[at..at + length].to_vec()));
        at += length.next_multiple_of(512);
    }
}

/// Puts an archive together as an attacker would, digest and all.
fn forged(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    use sha2::Digest;
    let mut archive = Vec::new();
    let put = |archive: &mut Vec<u8>, name: &str, content: &[u8]| {
        let mut block = vec![0; 512];
        let mut field = |at: usize, text: &str| {
            block[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        field(0, name);
        field(100, "0000600\x000000000\x000000000\0");
        field(136, "00000000000\0");
        field(124, &format!("{:011o}", content.len()));
        field(148, "        ");
        field(156, "0");
        field(257, "ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(block);
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    };
    for (name, content) in members {
        put(&mut archive, name, content);
    }
    let digest: String =
        sha2::Sha256::digest(&archive).iter().map(|byte| format!("{byte:02x}")).collect();
    put(&mut archive, "sha256", digest.as_bytes());
    archive.resize(archive.len() + 1024, 0);
    archive
}

#[test]
fn archives_that_lie_make_nothing() {
    let Some(world) = world(AGE) else { return };
    let archive = exported(&world);
    let good = members(&archive);
    assert_eq!(forged(&good), archive);
    let before = world.files();
    let spoil = |what: &str, change: &dyn Fn(&mut Members)| {
        let mut members = good.clone();
        change(&mut members);
        let error = import(&world.volumes, &world.age(), &forged(&members)[..]);
        println!("{what}: {}", error.expect_err(what));
        assert_eq!(world.files(), before, "{what}");
    };
    let last = good.len() - 1;
    let record = |from: &'static str, to: &'static str| {
        move |members: &mut Members| {
            let text = String::from_utf8(members[0].1.clone()).expect("text");
            assert!(text.contains(from), "{text}");
            members[0].1 = text.replacen(from, to, 1).into_bytes();
        }
    };
    for bad in [
        "../data.raw/00000000",
        "/etc/passwd",
        "data.raw/../00000000",
        "data.raw/0",
        "lock",
        "data.raw/00000fff",
        "2.qcow2/00000000",
        "header.luks",
        "volume.json",
        "data.raw",
        "data.raw/+0000001",
        "",
        "\u{1b}[2J",
    ] {
        spoil(bad, &|members| members[last].0 = bad.to_owned());
    }
    spoil("no record", &|members| drop(members.remove(0)));
    spoil("no header", &|members| drop(members.remove(1)));
    spoil("header first", &|members| members.swap(0, 1));
    spoil("pieces in disorder", &|members| members.swap(2, 3));
    spoil("a piece twice", &|members| members.insert(3, members[2].clone()));
    spoil("a short piece", &|members| members[2].1.truncate(100));
    spoil("a long piece", &|members| members[2].1.resize(300_000, 1));
    spoil("no json", &|members| members[0].1 = b"{".to_vec());
    spoil("a large size", &record("\"size\": 4194304", "\"size\": 4611686018427387904"));
    spoil("a long layer", &record("\"0\": 4194304", "\"0\": 8388608"));
    spoil("a missing layer", &record("\"parent\": 0", "\"parent\": 7"));
    spoil("a loop", &record("\"parent\": null", "\"parent\": 1"));
    spoil("a name", &record("\"one\"", "\"../../one\""));
    spoil("no active layer", &record("\"active\": 1", "\"active\": 0"));
    spoil("a long header", &|members| members[1].1.push(0));
    spoil("a short header", &|members| members[1].1.truncate(4096));
    spoil("a header of zeros", &|members| members[1].1.fill(0));
    let layer = good.iter().position(|(name, _)| name == "1.qcow2/00000000").expect("there");
    spoil("a backing file", &|members| members[layer].1[15] = 104);
    spoil("a data file", &|members| members[layer].1[79] = 4);
    // Cut off anywhere, endless, or failing.
    for length in [0, 1, 511, 512, 5000, archive.len() / 2, archive.len() - 1] {
        import(&world.volumes, &world.age(), &archive[..length]).expect_err("cut off");
    }
    import(&world.volumes, &world.age(), io::repeat(b'x')).expect_err("endless");
    import(&world.volumes, &world.age(), io::repeat(0)).expect_err("zeros");
    assert_eq!(world.files(), before);
}
