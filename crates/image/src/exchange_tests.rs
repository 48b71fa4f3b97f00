//! Images between stores, signatures and collecting, with images made up on the spot.

use std::fs;
use std::process::Command;

use tar::{Builder, EntryType, Header};

use super::*;
use crate::store::samples::{Fixture, build, fixture, name, recipe};

fn exported(image: &Image) -> Vec<u8> {
    let mut archive = Vec::new();
    image.export(&mut archive).unwrap();
    archive
}

fn import(store: &Store, archive: &[u8], key: Option<&str>) -> Result<Image, ImportError> {
    store.import(&name(), archive, key, false, &mut |_| ())
}

/// The archive with its entries changed: names, kinds and contents.
fn changed(
    archive: &[u8],
    mut change: impl FnMut(&mut String, &mut EntryType, &mut Vec<u8>) -> bool,
) -> Vec<u8> {
    let mut out = Builder::new(Vec::new());
    for entry in Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut path = entry.path().unwrap().display().to_string();
        let mut kind = entry.header().entry_type();
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).unwrap();
        if !change(&mut path, &mut kind, &mut contents) {
            continue;
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(contents.len() as u64);
        // Not the builder's own way, which refuses what is tested here.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        if kind == EntryType::Symlink {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        out.append(&header, contents.as_slice()).unwrap();
    }
    out.into_inner().unwrap()
}

fn is_empty(store: &Store) -> bool {
    store.list().unwrap().is_empty()
        && fs::read_dir(store.scratch_folder()).unwrap().next().is_none()
        && store.current(&name()).unwrap().is_none()
}

#[test]
fn an_image_is_the_same_in_another_store() {
    let here = fixture();
    let there = fixture();
    let image = build(&here.store, &recipe(&["one"]));
    let imported = import(&there.store, &exported(&image), None).unwrap();
    assert_eq!(imported.digest, image.digest);
    imported.check_all_parts().unwrap();
    assert_eq!(there.store.current(&name()).unwrap(), Some(imported.clone()));
    // Whatever recipe the configuration has, what was imported is used.
    let other = recipe(&["other"]);
    assert_eq!(there.store.current_for(&name(), &other).unwrap(), Some(imported));
}

#[test]
fn hostile_archives_are_refused_and_leave_nothing() {
    let here = fixture();
    let archive = exported(&build(&here.store, &recipe(&["one"])));
    let Fixture { directory: _directory, store } = fixture();
    let mut first = true;
    let outside = changed(&archive, |path, _, _| {
        if path == "kernel" {
            *path = "../../kernel".into();
        }
        true
    });
    assert!(matches!(
        import(&store, &outside, None),
        Err(ImportError::Stray(_) | ImportError::Read(_))
    ));
    let link = changed(&archive, |path, kind, contents| {
        if path == "kernel" {
            *kind = EntryType::Symlink;
            contents.clear();
        }
        true
    });
    assert!(
        matches!(import(&store, &link, None), Err(ImportError::Changed(name)) if name == "kernel")
    );
    let byte = changed(&archive, |path, _, contents| {
        if path == "root.erofs" {
            contents[0] ^= 1;
        }
        true
    });
    assert!(
        matches!(import(&store, &byte, None), Err(ImportError::Changed(name)) if name == "root.erofs")
    );
    let without = changed(&archive, |path, _, _| path != "bzImage");
    assert!(
        matches!(import(&store, &without, None), Err(ImportError::Missing(name)) if name == "bzImage")
    );
    let no_manifest = changed(&archive, |_, _, _| !std::mem::take(&mut first));
    assert!(matches!(import(&store, &no_manifest, None), Err(ImportError::NoManifest(_))));
    let spaced = changed(&archive, |path, _, contents| {
        if path == MANIFEST {
            contents.push(b' ');
        }
        true
    });
    assert!(matches!(import(&store, &spaced, None), Err(ImportError::Changed(_))));
    assert!(matches!(import(&store, &[], None), Err(ImportError::Missing(_))));
    assert!(import(&store, b"not an archive at all".repeat(100).as_slice(), None).is_err());
    assert!(is_empty(&store));
}

#[test]
fn an_archive_cut_anywhere_leaves_nothing() {
    let here = fixture();
    let archive = exported(&build(&here.store, &recipe(&["one"])));
    let Fixture { directory: _directory, store } = fixture();
    for tenth in 0..10 {
        let cut = &archive[..archive.len() * tenth / 10 + tenth];
        assert!(import(&store, cut, None).is_err(), "{tenth}");
    }
    assert!(is_empty(&store));
}

#[test]
fn an_older_image_is_taken_only_by_who_goes_back() {
    let Fixture { directory: _directory, store } = fixture();
    let image = build(&store, &recipe(&["one"]));
    let mut manifest = image.manifest.clone();
    manifest.serial = 3;
    let older = changed(&exported(&image), |path, _, contents| {
        if path == MANIFEST {
            *contents = manifest.to_bytes();
        }
        true
    });
    let error = import(&store, &older, None).unwrap_err();
    assert!(error.is_older(), "{error}");
    let back = store.import(&name(), older.as_slice(), None, true, &mut |_| ()).unwrap();
    assert_eq!(back.manifest.serial, 3);
    // The next may be as old as what the user went back to.
    import(&store, &older, None).unwrap();
    store.go_back(&name(), Some(1)).unwrap();
    assert!(import(&store, &older, None).unwrap_err().is_older());
}

#[test]
fn only_what_the_key_signed_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (public, secret) = (folder.path().join("pub"), folder.path().join("sec"));
    let made = Command::new("minisign")
        .args(["-G", "-W", "-f", "-p"])
        .arg(&public)
        .arg("-s")
        .arg(&secret)
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        println!("skipped: only_what_the_key_signed_is_taken: minisign is not installed");
        return;
    }
    let public = fs::read_to_string(public).unwrap();
    let key = public.lines().nth(1).unwrap();
    let here = fixture();
    let image = build(&here.store, &recipe(&["one"]));
    let Fixture { directory: _directory, store } = fixture();
    let refused = |archive: &[u8]| match import(&store, archive, Some(key)) {
        Err(ImportError::Signature(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(&exported(&image)), SignatureError::Unsigned { .. }));

    let sign = Command::new("minisign")
        .arg("-S")
        .arg("-s")
        .arg(&secret)
        .arg("-m")
        .arg(image.directory.join(MANIFEST))
        .output()
        .unwrap();
    assert!(sign.status.success(), "{sign:?}");
    let good = exported(&image);
    let foreign = changed(&good, |path, _, contents| {
        if path == SIGNATURE {
            let text = String::from_utf8(contents.clone()).unwrap();
            // Another byte of the signature itself, in its second line.
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let last = lines[1].len() - 6;
            let other = if &lines[1][last..=last] == "A" { "B" } else { "A" };
            lines[1].replace_range(last..=last, other);
            *contents = (lines.join("\n") + "\n").into_bytes();
        }
        true
    });
    assert!(matches!(refused(&foreign), SignatureError::Wrong { .. }));
    assert!(is_empty(&store));
    let imported = import(&store, &good, Some(key)).unwrap();
    imported.check_signature(key).unwrap();
    let other_key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    assert!(matches!(imported.check_signature(other_key), Err(SignatureError::Wrong { .. })));
    assert!(matches!(imported.check_signature("RW"), Err(SignatureError::Key { .. })));
}

#[test]
fn what_nobody_names_or_runs_is_collected() {
    let Fixture { directory: _directory, store } = fixture();
    let [first, second, third] =
        [["one"], ["two"], ["three"]].map(|packages| build(&store, &recipe(&packages)));
    assert!(store.collect(None, false).unwrap().images.is_empty());

    let held = first.hold().unwrap();
    let would = store.collect(Some(1), true).unwrap();
    assert_eq!((would.images, would.in_use), (vec![second.digest], vec![first.digest]));
    assert_eq!(store.generations(&name()).unwrap().len(), 3);

    let collected = store.collect(Some(1), false).unwrap();
    assert_eq!(collected.generations.len(), 2);
    assert_eq!(collected.images, [second.digest]);
    assert!(collected.bytes > 0);
    first.check_all_parts().unwrap();
    assert!(second.hold().is_err(), "it is gone");

    drop(held);
    assert_eq!(store.collect(None, false).unwrap().images, [first.digest]);
    assert_eq!(store.list().unwrap(), [third.digest]);
    third.check_all_parts().unwrap();
    assert!(fs::read_dir(store.scratch_folder()).unwrap().next().is_none());
}
