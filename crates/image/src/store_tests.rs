//! The store with images made up on the spot: nothing is installed, everything else is real.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::samples::{Fixture, build, files, fixture, name, raw, recipe};
use super::*;
use crate::KernelError;
use crate::build::assemble;

#[test]
fn a_built_image_is_current_and_reads_back() {
    let Fixture { directory: _directory, store } = fixture();
    let recipe = recipe(&[]);
    assert_eq!(store.current(&name()).unwrap(), None);
    let image = build(&store, &recipe);
    assert_eq!(store.current(&name()).unwrap().as_ref(), Some(&image));
    assert_eq!(store.list().unwrap(), [image.digest]);
    assert!(fs::read(image.kernel()).unwrap().starts_with(b"\x7fELF"));
    image.check_boot_parts().unwrap();
    image.check_all_parts().unwrap();
    assert_eq!(files(store.directory.join("tmp")), 0);
}

#[test]
fn everybody_may_read_an_image() {
    let Fixture { directory: _directory, store } = fixture();
    let image = build(&store, &recipe(&[]));
    for path in [image.root(), image.kernel(), image.directory.join("modules/erofs.ko")] {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "{}", path.display());
    }
}

#[test]
fn the_same_build_gives_the_same_digest_and_no_new_generation() {
    let Fixture { directory: _directory, store } = fixture();
    let recipe = recipe(&[]);
    assert_eq!(build(&store, &recipe), build(&store, &recipe));
    assert_eq!(store.generations(&name()).unwrap().len(), 1);
}

#[test]
fn a_changed_recipe_is_noticed() {
    let Fixture { directory: _directory, store } = fixture();
    let (old, new) = (recipe(&[]), recipe(&["git"]));
    let first = build(&store, &old);
    assert_eq!(store.current_for(&name(), &new).unwrap(), None);
    let second = build(&store, &new);
    assert_ne!(first.digest, second.digest);
    assert_eq!(store.current_for(&name(), &old).unwrap(), None);
    assert_eq!(store.current_for(&name(), &new).unwrap(), Some(second));
    assert_eq!(store.get(first.digest).unwrap(), Some(first));
}

#[test]
fn a_changed_kernel_or_manifest_is_noticed() {
    let Fixture { directory: _directory, store } = fixture();
    let image = build(&store, &recipe(&[]));
    let mut kernel = fs::read(image.kernel()).unwrap();
    kernel[20] ^= 1;
    fs::write(image.kernel(), kernel).unwrap();
    let changed = image.check_boot_parts().unwrap_err();
    assert!(matches!(changed, ImageError::PartChanged { path } if path == image.kernel()));
    fs::write(image.directory.join(MANIFEST), "{}").unwrap();
    let changed = store.get(image.digest).unwrap_err();
    assert!(matches!(changed, StoreError::Image(ImageError::ManifestChanged { .. })));
}

#[test]
fn building_again_mends_a_damaged_image() {
    let Fixture { directory: _directory, store } = fixture();
    let recipe = recipe(&[]);
    let image = build(&store, &recipe);
    fs::write(image.root(), "damaged").unwrap();
    assert!(image.check_all_parts().is_err());
    build(&store, &recipe).check_all_parts().unwrap();
}

#[test]
fn a_failed_build_leaves_the_store_as_it_was() {
    let Fixture { directory: _directory, store } = fixture();
    let image = build(&store, &recipe(&[]));
    let other = recipe(&["git"]);
    let failed = store.build_with(&name(), &other, &mut |_| (), |scratch, _| {
        fs::write(scratch.image().join("root.erofs"), "half").unwrap();
        fs::write(scratch.work()?.join("package"), "half").unwrap();
        Err(KernelError::NotBzImage.into())
    });
    assert!(failed.is_err());
    assert_eq!(store.current(&name()).unwrap(), Some(image));
    assert_eq!(files(store.directory.join("images")), 1);
    assert_eq!(files(store.directory.join("tmp")), 0);
}

#[test]
fn of_two_builds_at_once_the_second_takes_what_the_first_made() {
    let Fixture { directory, store } = fixture();
    let (started, recipe, builds) = (Barrier::new(2), recipe(&[]), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            let build = store.build_with(&name(), &recipe, &mut |_| (), |scratch, progress| {
                builds.fetch_add(1, Ordering::SeqCst);
                started.wait();
                // Goes on when the second says that it waits.
                started.wait();
                let raw = raw(&scratch.work()?, &recipe);
                assemble(&scratch.image(), &recipe, raw, progress)
            });
            build.unwrap()
        });
        started.wait();
        let other = Store::open(&directory.path().join("store")).unwrap();
        let mut wait = |progress: Progress| {
            assert_eq!(progress.phase, Phase::Wait);
            started.wait();
        };
        let second = other.build_with(&name(), &recipe, &mut wait, |_, _| {
            builds.fetch_add(1, Ordering::SeqCst);
            Err(KernelError::NotBzImage.into())
        });
        assert_eq!(second.unwrap(), first.join().unwrap());
    });
    assert_eq!(builds.into_inner(), 1);
}

#[test]
fn initrd_holds_the_agent_and_the_asked_modules_in_order() {
    let Fixture { directory, store } = fixture();
    let image = build(&store, &recipe(&[]));
    let agent = directory.path().join("agent");
    fs::write(&agent, "the agent").unwrap();
    let path = store.initrd(&image, &agent, &[]).unwrap();
    let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
    assert!(text.contains("virtio_blk.ko\nlibcrc32c.ko\nerofs.ko\noverlay.ko\n\0"));
    assert!(text.contains("init\0\0the agent"));
    assert!(!text.contains("vsock"));
    let more = store.initrd(&image, &agent, &["vsock"]).unwrap();
    assert_ne!(path, more);
    let unknown = store.initrd(&image, &agent, &["nonsense"]).unwrap_err();
    assert!(unknown.to_string().contains("module group `nonsense`"));
}

#[test]
fn a_damaged_cached_initrd_is_written_anew_and_a_changed_module_refused() {
    let Fixture { directory, store } = fixture();
    let image = build(&store, &recipe(&[]));
    let agent = directory.path().join("agent");
    fs::write(&agent, "the agent").unwrap();
    let path = store.initrd(&image, &agent, &[]).unwrap();
    let good = fs::read(&path).unwrap();
    fs::write(&path, "damaged").unwrap();
    assert_eq!(store.initrd(&image, &agent, &[]).unwrap(), path);
    assert_eq!(fs::read(&path).unwrap(), good);
    fs::write(image.directory.join("modules/erofs.ko"), "damaged").unwrap();
    let refused = store.initrd(&image, &agent, &[]).unwrap_err();
    assert!(matches!(refused, InitrdError::Image(ImageError::PartChanged { .. })));
}

#[test]
fn a_later_manifest_format_is_refused_by_number() {
    let Fixture { directory: _directory, store } = fixture();
    let bytes = br#"{"format": 3, "anything": []}"#;
    let digest = Digest::of(bytes);
    let folder = store.image_path(digest);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(MANIFEST), bytes).unwrap();
    assert!(matches!(
        store.get(digest),
        Err(StoreError::Image(ImageError::Format { format: 3, .. }))
    ));
}

#[test]
fn a_manifest_that_names_files_outside_is_refused() {
    let Fixture { directory: _directory, store } = fixture();
    let image = build(&store, &recipe(&[]));
    for file in ["../other/kernel", "/etc/passwd", ""] {
        let mut manifest = image.manifest.clone();
        manifest.parts.kernel.file = file.to_owned();
        let bytes = manifest.to_bytes();
        let digest = Digest::of(&bytes);
        fs::create_dir(store.image_path(digest)).unwrap();
        fs::write(store.image_path(digest).join(MANIFEST), bytes).unwrap();
        assert!(matches!(store.get(digest), Err(StoreError::Image(ImageError::StrayFile { .. }))));
    }
}
