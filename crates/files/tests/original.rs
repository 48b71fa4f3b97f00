//! A file that comes back changed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use casemate_files::{Original, Replaced};

#[test]
fn what_comes_back_takes_the_originals_place_with_its_mode() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("report.pdf");
    fs::write(&path, "before").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
    symlink(&path, folder.path().join("link")).expect("linked");
    let mut original = Original::open(&folder.path().join("link")).expect("opened");
    let mut file = original.temporary().expect("made");
    file.write_all(b"after").expect("written");
    assert_eq!(original.replace(&file).expect("replaced"), Replaced::Original);
    assert_eq!(fs::read(&path).expect("read"), b"after");
    assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 2);
}

#[test]
fn an_original_that_changed_here_too_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("report.pdf");
    fs::write(&path, "before").expect("written");
    let mut original = Original::open(&path).expect("opened");
    let mut file = original.temporary().expect("made");
    file.write_all(b"after").expect("written");
    fs::write(&path, "otherwise").expect("written");
    let beside = Replaced::Beside("report (2).pdf".into());
    assert_eq!(original.replace(&file).expect("kept"), beside);
    assert_eq!(fs::read(&path).expect("read"), b"otherwise");
    assert_eq!(fs::read(folder.path().join("report (2).pdf")).expect("read"), b"after");
}

#[test]
fn nothing_stays_of_what_never_came_and_the_next_removes_what_the_dead_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a");
    fs::write(&path, "before").expect("written");
    fs::write(folder.path().join(".incoming-1-0"), "half").expect("written");
    let mut original = Original::open(&path).expect("opened");
    let _file = original.temporary().expect("made");
    let mut second = Original::open(&path).expect("opened");
    let _other = second.temporary().expect("made");
    assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 3);
    drop((original, second));
    assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
    assert!(Original::open(folder.path()).is_err());
}

#[test]
fn what_cannot_be_put_into_place_is_told_and_where_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).expect("made");
    fs::write(inner.join("a"), "before").expect("written");
    let mut original = Original::open(&inner.join("a")).expect("opened");
    let mut file = original.temporary().expect("made");
    file.write_all(b"after").expect("written");
    // Its folder has gone, so that nothing in it has a name.
    fs::remove_dir_all(&inner).expect("removed");
    let error = original.replace(&file).expect_err("no place");
    assert!(error.to_string().contains("/inner/.incoming-"), "{error}");
    assert_eq!(error.source.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_thousand_files_of_one_folder_take_one_descriptor() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths: Vec<_> = (0..2000).map(|number| folder.path().join(number.to_string())).collect();
    for path in &paths {
        fs::write(path, "x").expect("written");
    }
    let open = || fs::read_dir("/proc/self/fd").expect("read").count();
    let before = open();
    let sender = casemate_files::Sender::new(&paths, false).expect("prepared");
    // Other tests of this process open some, too.
    assert!(open() < before + 50, "{} and {}", before, open());
    assert_eq!(sender.survey().entries, 2000);
}
