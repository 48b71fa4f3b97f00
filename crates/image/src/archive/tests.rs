//! Archives, friendly and hostile, and what the clean tree makes of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::samples::Sample;
use super::*;

/// Reads archives and writes them clean.
fn clean(archives: &[Vec<u8>], layers: bool) -> Result<Vec<u8>, ArchiveError> {
    let mut output = Vec::new();
    let scratch = std::env::temp_dir();
    let archives = archives.iter().map(Vec::as_slice);
    let digest = normalize(archives, layers, &scratch, &mut output)?;
    assert_eq!(digest, Digest::of(&output));
    Ok(output)
}

/// What somebody else's reader finds in a clean archive: path and kind, with contents or target.
fn list(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap();
    let shown = entries.map(|entry| {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().to_vec()).unwrap();
        let link = entry.link_name_bytes().map(|link| String::from_utf8(link.to_vec()).unwrap());
        let link = link.unwrap_or_default();
        let mut contents = String::new();
        entry.read_to_string(&mut contents).unwrap();
        assert_eq!(entry.header().mtime().unwrap(), crate::debian::EPOCH);
        match entry.header().entry_type() {
            tar::EntryType::Directory => path,
            tar::EntryType::Regular => format!("{path}={contents}"),
            tar::EntryType::Symlink => format!("{path}->{link}"),
            tar::EntryType::Link => format!("{path}=>{link}"),
            other => panic!("{other:?}"),
        }
    });
    shown.collect()
}

fn listed(archive: Vec<u8>) -> Vec<String> {
    list(&clean(&[archive], false).unwrap())
}

fn layered(layers: &[Vec<u8>]) -> Vec<String> {
    list(&clean(layers, true).unwrap())
}

fn fault(archive: Vec<u8>) -> EntryFault {
    match clean(&[archive], false) {
        Err(ArchiveError::Entry { fault, .. }) => fault,
        other => panic!("{:?}", other.map(|output| list(&output))),
    }
}

fn sample() -> Sample {
    Sample::default()
}

#[test]
fn the_clean_archive_is_sorted_and_parents_come_first() {
    let archive = sample()
        .file("./usr/lib/b", "2")
        .symlink("lib", "usr/lib")
        .file("usr/lib/a", "1")
        .link("bin/c", "./usr/lib/b")
        .folder("empty/");
    let expected = [
        "./",
        "bin/",
        "bin/c=2",
        "empty/",
        "lib->usr/lib",
        "usr/",
        "usr/lib/",
        "usr/lib/a=1",
        "usr/lib/b=>bin/c",
    ];
    assert_eq!(listed(archive.end()), expected);
}

#[test]
fn order_time_and_packing_make_no_difference() {
    let one = sample().file("a", "1").file("b/c", "2").end();
    let other = sample().folder("b").file("b/c", "2").file("a", "1").end();
    assert_eq!(clean(std::slice::from_ref(&one), false).unwrap(), clean(&[other], false).unwrap());
    let packed = crate::decompress::samples::zstd(&one);
    assert_eq!(clean(std::slice::from_ref(&one), false).unwrap(), clean(&[packed], false).unwrap());
    let clean_once = clean(&[one], false).unwrap();
    assert_eq!(clean(std::slice::from_ref(&clean_once), false).unwrap(), clean_once);
}

#[test]
fn paths_out_of_the_tree_are_refused() {
    for path in ["../x", "a/../../x", "a/..", ".."] {
        assert_eq!(fault(sample().file(path, "").end()), EntryFault::Parent, "{path}");
    }
    for path in ["/etc/passwd", "//x", "/"] {
        assert_eq!(fault(sample().file(path, "").end()), EntryFault::Absolute, "{path}");
    }
    let long = sample().pax(&[("path", b"../x")]).file("harmless", "");
    assert_eq!(fault(long.end()), EntryFault::Parent);
    let long = sample().entry(b'L', b"././@LongLink", b"", b"/x\0").file("harmless", "");
    assert_eq!(fault(long.end()), EntryFault::Absolute);
    let prefixed = "../".repeat(60) + "x";
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[345..348].copy_from_slice(b"../");
    header.as_mut_bytes()[..1].copy_from_slice(b"x");
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    assert_eq!(fault(sample().raw(header.as_bytes()).end()), EntryFault::Parent);
    assert_eq!(
        fault(sample().pax(&[("path", prefixed.as_bytes())]).file("a", "").end()),
        EntryFault::Parent
    );
}

#[test]
fn an_error_names_the_entry_harmlessly() {
    let error = clean(&[sample().file("../\u{1b}[2Jx", "").end()], false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not take the entry `../\u{fffd}[2Jx`: its path has a `..` component"
    );
}

#[test]
fn hard_links_lead_to_what_came_before_and_nowhere_else() {
    let missing = sample().link("a", "b").file("b", "");
    assert_eq!(fault(missing.end()), EntryFault::LinkMissing("b".into()));
    for target in ["../b", "/etc/shadow", ""] {
        let found = fault(sample().file("b", "").link("a", target).end());
        assert!(matches!(found, EntryFault::LinkPath { .. }), "{target}: {found}");
    }
    let folder = sample().folder("b").link("a", "b");
    assert_eq!(fault(folder.end()), EntryFault::LinkFolder("b".into()));
    let through = sample().folder("x").file("x/b", "").symlink("y", "x").link("a", "y/b");
    assert_eq!(fault(through.end()), EntryFault::BelowSymlink("y".into()));
    let replaced = sample().file("a", "1").link("b", "a").file("a", "2");
    assert_eq!(listed(replaced.end()), ["./", "a=2", "b=1"]);
    let of_symlink = sample().symlink("a", "x").link("b", "a");
    assert_eq!(listed(of_symlink.end()), ["./", "a->x", "b->x"]);
}

#[test]
fn devices_and_what_else_is_no_file_are_refused() {
    for kind in [b'3', b'4'] {
        assert_eq!(fault(sample().entry(kind, b"dev/sda", b"", b"").end()), EntryFault::Device);
    }
    assert_eq!(fault(sample().entry(b'6', b"f", b"", b"").end()), EntryFault::NoFile("FIFO"));
    assert_eq!(fault(sample().entry(b'S', b"f", b"", b"").end()), EntryFault::Sparse);
    assert_eq!(fault(sample().entry(b'D', b"f", b"", b"").end()), EntryFault::UnknownKind(b'D'));
    let sparse = sample().pax(&[("GNU.sparse.major", b"1")]).file("f", "");
    assert_eq!(fault(sparse.end()), EntryFault::Sparse);
}

#[test]
fn nothing_is_below_a_link_or_a_file() {
    let link = sample().symlink("a", "/etc").file("a/b", "");
    assert_eq!(fault(link.end()), EntryFault::BelowSymlink("a".into()));
    let file = sample().file("a", "").folder("a/b");
    assert_eq!(fault(file.end()), EntryFault::BelowFile("a".into()));
    let root = sample().symlink(".", "/");
    assert_eq!(fault(root.end()), EntryFault::Root);
}

#[test]
fn a_folder_replaced_by_a_link_lets_nothing_pass() {
    let replaced = sample().folder("a").file("a/b", "1").symlink("a", "/");
    assert_eq!(listed(sample().raw(&replaced.cut()).end()), ["./", "a->/"]);
    let passed = sample().folder("a").symlink("a", "/").file("a/etc", "");
    assert_eq!(fault(passed.end()), EntryFault::BelowSymlink("a".into()));
    let back = sample().symlink("a", "/").folder("a").file("a/b", "1");
    assert_eq!(listed(back.end()), ["./", "a/", "a/b=1"]);
}

#[test]
fn of_entries_with_one_name_the_last_counts() {
    let archive = sample().file("a", "1").file("a", "2").folder("d").file("d/x", "").folder("d");
    assert_eq!(listed(archive.end()), ["./", "a=2", "d/", "d/x="]);
}

#[test]
fn impossible_names_links_and_owners_are_refused() {
    let control = sample().file("a\nb", "");
    assert_eq!(fault(control.end()), EntryFault::ControlCharacter);
    let zero = sample().pax(&[("path", b"a\0b")]).file("x", "");
    assert_eq!(fault(zero.end()), EntryFault::ControlCharacter);
    let long = sample().pax(&[("path", &[b'a'; 256])]).file("x", "");
    assert_eq!(fault(long.end()), EntryFault::TooLong);
    let deep = sample().pax(&[("path", &b"a/".repeat(3000))]).file("x", "");
    assert_eq!(fault(deep.end()), EntryFault::TooLong);
    assert_eq!(fault(sample().symlink("a", "").end()), EntryFault::SymlinkTarget);
    let stranger = sample().owned(b'0', b"a", b"", (65536, 0), b"");
    assert_eq!(fault(stranger.end()), EntryFault::Owner(65536));
    let contents = sample().entry(b'2', b"a", b"b", b"contents");
    assert_eq!(fault(contents.end()), EntryFault::UnexpectedContents);
}

#[test]
fn attributes_are_kept_or_refused() {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let archive = sample().pax(&[
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.user.note", b"\0x"),
        ("SCHILY.xattr.security.selinux", b"label"),
    ]);
    let cleaned = clean(&[archive.file("ping", "").end()], false).unwrap();
    let mut archive = tar::Archive::new(&cleaned[..]);
    let mut entry = archive.entries().unwrap().nth(1).unwrap().unwrap();
    let extensions = entry.pax_extensions().unwrap().unwrap();
    let found: BTreeMap<_, _> = extensions
        .map(|extension| extension.unwrap())
        .map(|extension| (extension.key().unwrap().to_owned(), extension.value_bytes().to_vec()))
        .collect();
    let expected = [
        ("SCHILY.xattr.security.capability".to_owned(), capability.to_vec()),
        ("SCHILY.xattr.user.note".to_owned(), b"\0x".to_vec()),
    ];
    assert_eq!(found, BTreeMap::from(expected));
    for name in ["security.capability", "user.a=b", "user."] {
        let key = format!("SCHILY.xattr.{name}");
        let records: &[(&str, &[u8])] = &[(&key, b"short")];
        // A name with `=` ends at it.
        let refused = clean(&[sample().pax(records).file("a", "").end()], false);
        assert_eq!(refused.is_ok(), name == "user.a=b", "{name}");
    }
}

#[test]
fn long_names_go_through() {
    let (path, target) = ("p/".repeat(120) + "file", "t".repeat(1000));
    let archive = sample()
        .pax(&[("path", path.as_bytes())])
        .file("short", "1")
        .entry(b'K', b"././@LongLink", b"", format!("{target}\0").as_bytes())
        .symlink("link", "short");
    let listed = listed(archive.end());
    assert_eq!(listed[1], format!("link->{target}"));
    assert_eq!(listed.last().unwrap(), &format!("{path}=1"));
}

#[test]
fn what_another_program_writes_is_read() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o4755);
    header.set_uid(7);
    header.set_gid(8);
    let long = "long/".repeat(40) + "name";
    builder.append_data(&mut header.clone(), &long, &b"abc"[..]).unwrap();
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Link);
    link.set_size(0);
    builder.append_link(&mut link, "second", &long).unwrap();
    let cleaned = clean(&[builder.into_inner().unwrap()], false).unwrap();
    let listed = list(&cleaned);
    assert_eq!(listed.last().unwrap(), &format!("second=>{long}"));
    let mut archive = tar::Archive::new(&cleaned[..]);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let file = entries.find(|entry| entry.header().entry_type().is_file()).unwrap();
    let header = file.header();
    assert_eq!(
        (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap()),
        (0o4755, 7, 8)
    );
}

#[test]
fn a_cut_archive_says_where_it_ends() {
    let archive = sample().file("a", &"x".repeat(700)).file("b", "y").cut();
    for length in 0..archive.len() {
        match clean(&[archive[..length].to_vec()], false) {
            Err(ArchiveError::Truncated { offset, .. }) => assert_eq!(offset, length as u64),
            Err(ArchiveError::NotTar) => assert!((1..512).contains(&length)),
            other => panic!("{length}: {:?}", other.map(|output| list(&output))),
        }
    }
    let error = clean(&[archive[..1000].to_vec()], false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not read all of the archive: it is cut off at byte 1000, in the contents of an entry"
    );
}

#[test]
fn other_files_are_no_archives() {
    for bytes in [&[b'x'; 4096][..], b"PK\x03\x04", b"#!/bin/sh\n"] {
        let error = clean(&[bytes.to_vec()], false).unwrap_err();
        assert!(matches!(error, ArchiveError::NotTar), "{error}");
    }
}

#[test]
fn absurd_promises_cost_nothing() {
    let huge = sample().promise("a", u64::MAX >> 2).cut();
    assert!(matches!(clean(&[huge], false), Err(ArchiveError::TooLarge)));
    let long = sample().entry(b'L', b"l", b"", &[b'a'; 5000]).file("a", "").end();
    assert!(matches!(clean(&[long], false), Err(ArchiveError::Malformed { .. })));
    let size = sample().pax(&[("size", b"99999999999999999999")]).file("a", "").end();
    assert!(matches!(clean(&[size], false), Err(ArchiveError::Malformed { .. })));
    let many = sample().pax(&[("comment", &vec![b'c'; 2 << 20])]).file("a", "").end();
    assert!(matches!(clean(&[many], false), Err(ArchiveError::Malformed { .. })));
}

#[test]
fn the_size_of_a_record_counts() {
    // The header says 0, the record 512: who believes the header would see the second file.
    let inner = sample().file("hidden", "").cut();
    let archive = sample().pax(&[("size", b"512")]).entry(b'0', b"a", b"", b"").raw(&inner).end();
    let mut tree = Tree::new();
    let mut spool = Spool::new(&std::env::temp_dir()).unwrap();
    merge(&archive[..], Layering::Plain, &mut tree, &mut spool).unwrap();
    assert!(tree.get("hidden").is_none());
    assert!(tree.get("a").is_some());
}

#[test]
fn a_whiteout_removes_what_lower_layers_have() {
    let lower = sample().file("a", "1").file("d/x", "1").file("d/y", "1").file("e", "1").end();
    let upper = sample().file(".wh.a", "").file("d/.wh.x", "").file(".wh.not-there", "").end();
    assert_eq!(layered(&[lower.clone(), upper]), ["./", "d/", "d/y=1", "e=1"]);
    let folder = sample().file(".wh.d", "").end();
    assert_eq!(layered(&[lower, folder]), ["./", "a=1", "e=1"]);
}

#[test]
fn a_whiteout_leaves_what_its_own_layer_has_wherever_it_stands() {
    let lower = sample().file("d/x", "1").file("d/s/y", "1").end();
    let new = |layer: Sample| layer.folder("d").file("d/n", "2").file("d/s/m", "2");
    let expected = ["./", "d/", "d/n=2", "d/s/", "d/s/m=2"];
    for name in [".wh.d", "d/.wh..wh..opq"] {
        let before = new(sample().file(name, "")).end();
        let after = new(sample()).file(name, "").end();
        assert_eq!(layered(&[lower.clone(), before]), expected, "{name}");
        assert_eq!(layered(&[lower.clone(), after]), expected, "{name}");
    }
}

#[test]
fn an_opaque_folder_hides_lower_layers_only_there() {
    let lower = sample().file("d/x", "1").file("e/x", "1").end();
    let upper = sample().file("d/.wh..wh..opq", "").end();
    assert_eq!(layered(&[lower, upper]), ["./", "d/", "e/", "e/x=1"]);
}

#[test]
fn removals_are_held_to_the_same_rules() {
    let refused = |layer: Sample| match clean(&[layer.end()], true) {
        Err(ArchiveError::Entry { fault, .. }) => fault,
        other => panic!("{:?}", other.map(|output| list(&output))),
    };
    assert_eq!(refused(sample().file(".wh.", "")), EntryFault::Whiteout);
    assert_eq!(refused(sample().file(".wh..", "")), EntryFault::Whiteout);
    assert_eq!(refused(sample().file(".wh...", "")), EntryFault::Parent);
    assert_eq!(refused(sample().file("a/.wh.b/c", "")), EntryFault::Whiteout);
    assert_eq!(refused(sample().folder(".wh.a")), EntryFault::Whiteout);
    assert_eq!(
        refused(sample().symlink("a", "/").file("a/.wh.etc", "")),
        EntryFault::BelowSymlink("a".into())
    );
    // Outside of layers such names are names.
    assert_eq!(listed(sample().file(".wh.a", "").end()), ["./", ".wh.a="]);
}

#[test]
fn a_layer_replaces_a_folder_by_a_file_and_links_to_lower_files() {
    let lower = sample().file("d/x", "1").file("a", "1").end();
    let upper = sample().file("d", "2").link("b", "a").end();
    assert_eq!(layered(&[lower, upper]), ["./", "a=1", "b=>a", "d=2"]);
}

/// Entries of all kinds whose names collide.
fn entries() -> impl Strategy<Value = Vec<(u8, String, String)>> {
    let name = prop::sample::select(vec!["a", "b", "..", ".", ".wh.a", ".wh..wh..opq", ""]);
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    let kind = prop::sample::select(b"000122555346".to_vec());
    prop::collection::vec((kind, path.clone(), path), 0..12)
}

fn archive(entries: &[(u8, String, String)]) -> Vec<u8> {
    let taken = entries.iter().fold(sample(), |archive, (kind, path, link)| {
        archive.entry(*kind, path.as_bytes(), link.as_bytes(), b"")
    });
    taken.end()
}

/// Any bytes as text, one character each: a name need not be UTF-8.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Checks a clean archive with nothing but the list of its entries.
fn assert_clean(archive: &[u8]) {
    let mut reader = tar::Archive::new(archive);
    let mut seen = BTreeMap::new();
    for entry in reader.entries().unwrap() {
        let entry = entry.unwrap();
        let path = latin(&entry.path_bytes());
        let path = path.trim_end_matches('/').to_owned();
        let kind = entry.header().entry_type();
        assert!(
            kind.is_dir() || kind.is_file() || kind.is_symlink() || kind.is_hard_link(),
            "{path}: {kind:?}"
        );
        if path != "." {
            assert!(path.split('/').all(|name| !["", ".", ".."].contains(&name)), "{path}");
            let parent = path.rsplit_once('/').map_or(".", |(parent, _)| parent);
            assert_eq!(seen.get(parent), Some(&tar::EntryType::Directory), "{path}");
        }
        if kind.is_hard_link() {
            let target = latin(&entry.link_name_bytes().unwrap());
            assert_eq!(seen.get(&target), Some(&tar::EntryType::Regular), "{path}");
        }
        assert!(seen.insert(path, kind).is_none(), "twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_in_what_comes_out_is_clean(
        layers in prop::collection::vec(entries(), 1..4),
        oci in any::<bool>(),
    ) {
        let layers: Vec<_> = layers.iter().map(|entries| archive(entries)).collect();
        if let Ok(output) = clean(&layers, oci) {
            assert_clean(&output);
            prop_assert_eq!(clean(std::slice::from_ref(&output), false).unwrap(), output);
        }
    }

    #[test]
    fn taken_one_by_one_the_good_entries_make_a_clean_tree(entries in entries()) {
        // Each entry on top of those taken so far: most random archives have a bad one.
        let mut good: Vec<(u8, String, String)> = Vec::new();
        for entry in entries {
            good.push(entry);
            if clean(&[archive(&good)], true).is_err() {
                good.pop();
            }
        }
        assert_clean(&clean(&[archive(&good)], true).unwrap());
    }

    #[test]
    fn flipped_bytes_never_panic(at in 0usize..4096, value in any::<u8>()) {
        let mut bytes = sample()
            .pax(&[("path", b"long"), ("SCHILY.xattr.user.a", b"1")])
            .file("a", "1")
            .link("b", "long")
            .entry(b'L', b"l", b"", b"name\0")
            .symlink("c", "d")
            .end();
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(output) = clean(&[bytes], true) {
            assert_clean(&output);
        }
    }
}
