//! Whole builds from a small root file system, with the real tools where they are; reading alone
//! where they are not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::archive::samples::Sample;
use crate::command::{MKFS_EROFS, MMDEBSTRAP};
use crate::decompress::samples as compressed;
use crate::{ImageName, Recipe, Store, kernel as kernels, modinfo};

/// Capabilities of a program that may open raw sockets, as they are kept on disk.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A store, and a folder for what images are built from. Others may pass, as tools of a user's
/// namespace must.
struct Fixture {
    folder: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    /// None when this machine cannot build; says why.
    fn new(test: &str) -> Option<Self> {
        for tool in [MMDEBSTRAP, MKFS_EROFS] {
            if let Err(error) = tool.find() {
                println!("skipped: {test}: {error}");
                return None;
            }
        }
        if let Err(error) = debian::Privilege::of_this_process() {
            println!("skipped: {test}: {error}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        Some(Self { folder, store })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Rootfs {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        Rootfs { path }
    }

    fn build(&self, name: &str, source: Source) -> Result<Image, BuildError> {
        self.store.build(
            &ImageName::new(name).unwrap(),
            &Recipe { source, size_limit: None },
            &mut |_| (),
        )
    }
}

fn base() -> Sample {
    Sample::default()
        .file("etc/hostname", "")
        .owned(b'0', b"home/a", b"", (1000, 1001), b"mine")
        .pax(&[("SCHILY.xattr.security.capability", &CAPABILITY)])
        .file("bin/ping", "\x7fELF")
        .link("bin/ping6", "bin/ping")
        .symlink("bin/outside", "/../../etc/passwd")
        .entry(b'0', ("n".repeat(90) + "/" + &"m".repeat(200)).as_bytes(), b"", b"")
}

/// With a kernel of its own.
fn bootable() -> Vec<u8> {
    let vmlinux = b"\x7fELF made-up".repeat(20);
    let bzimage = kernels::samples::bzimage(&compressed::zstd(&vmlinux), vmlinux.len() as u32);
    let modules = "usr/lib/modules/6.12.1";
    let built_in = format!("{modules}/modules.builtin");
    let mut archive = base()
        .entry(b'0', b"boot/vmlinuz-6.12.1", b"", &bzimage)
        .entry(b'0', b"boot/vmlinuz-6.13.0-without-modules", b"", b"x")
        .file(&built_in, "kernel/virtio_pci.ko\n")
        .symlink(&format!("{modules}/kernel/outside.ko"), "/etc/passwd");
    for name in ["virtio_blk", "erofs", "overlay"] {
        let module = modinfo::samples::module(&["depends=", &format!("name={name}")]);
        let path = format!("{modules}/kernel/fs/{name}.ko.xz");
        archive = archive.entry(b'0', path.as_bytes(), b"", &compressed::xz(&module));
    }
    archive.end()
}

#[test]
fn an_archive_becomes_an_image_the_same_each_time() {
    let Some(fixture) = Fixture::new("an_archive_becomes_an_image_the_same_each_time") else {
        return;
    };
    let archive = fixture.write("root.tar", &bootable());
    let image = fixture.build("one", Source::Tar(archive.clone())).unwrap();
    image.check_all_parts().unwrap();
    assert_eq!(image.manifest.kernel_release, "6.12.1");
    assert_eq!(image.manifest.inputs.content, Some(Digest::of(&bootable())));
    assert_eq!(image.manifest.inputs.kernel_image, None);
    assert_eq!(image.manifest.modules.len(), 3);
    let again = fixture.build("two", Source::Tar(archive)).unwrap();
    assert_eq!(again.digest, image.digest);
    let elsewhere = fixture.write("elsewhere.tar", &bootable());
    let elsewhere = fixture.build("three", Source::Tar(elsewhere)).unwrap();
    assert_eq!(elsewhere.digest, image.digest, "a path is not part of an image");
}

#[test]
fn without_a_kernel_that_of_the_usual_image_is_used() {
    let Some(fixture) = Fixture::new("without_a_kernel_that_of_the_usual_image_is_used") else {
        return;
    };
    let archive = Source::Tar(fixture.write("root.tar", &base().end()));
    let error = fixture.build("app", archive.clone()).unwrap_err();
    assert!(matches!(error, BuildError::Rootfs(RootfsError::NoKernel { .. })), "{error}");
    let bootable = Source::Tar(fixture.write("bootable.tar", &bootable()));
    let lender = fixture.build(Store::KERNEL_LENDER, bootable).unwrap();
    let image = fixture.build("app", archive).unwrap();
    image.check_all_parts().unwrap();
    assert_eq!(image.manifest.inputs.kernel_image, Some(lender.digest));
    assert_eq!(image.manifest.parts.kernel.sha256, lender.manifest.parts.kernel.sha256);
    assert_eq!(image.manifest.modules, lender.manifest.modules);
    assert_ne!(image.manifest.parts.root.sha256, lender.manifest.parts.root.sha256);
}

#[test]
fn an_oci_image_becomes_an_image() {
    let Some(fixture) = Fixture::new("an_oci_image_becomes_an_image") else { return };
    let layout = fixture.path("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let blob = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(layout.join("blobs/sha256").join(digest.to_string()), bytes).unwrap();
        serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.{media_type}"),
            "digest": format!("sha256:{digest}"),
            "size": bytes.len(),
        })
    };
    let upper = Sample::default().file("etc/.wh.hostname", "").file("etc/new", "").end();
    let layers = [bootable(), upper];
    let ids = layers.iter().map(|layer| format!("sha256:{}", Digest::of(layer)));
    let configuration = serde_json::json!({
        "os": "linux",
        "architecture": arch::host().unwrap().debian,
        "rootfs": {"diff_ids": ids.collect::<Vec<_>>()},
    });
    let configuration = blob("config.v1+json", configuration.to_string().as_bytes());
    let layers = layers.iter().map(|layer| blob("layer.v1.tar+zstd", &compressed::zstd(layer)));
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": configuration,
        "layers": layers.collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string();
    let index = serde_json::json!({
        "manifests": [blob("manifest.v1+json", manifest.as_bytes())],
    });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let source = Source::Oci(Rootfs { path: layout });
    let image = fixture.build("one", source.clone()).unwrap();
    image.check_all_parts().unwrap();
    assert_eq!(image.manifest.inputs.content, Some(Digest::of(manifest.as_bytes())));
    assert_eq!(fixture.build("two", source).unwrap().digest, image.digest);
}

#[test]
fn a_folder_becomes_an_image() {
    let Some(fixture) = Fixture::new("a_folder_becomes_an_image") else { return };
    let archive = Source::Tar(fixture.write("bootable.tar", &bootable()));
    fixture.build(Store::KERNEL_LENDER, archive).unwrap();
    let folder = fixture.path("root");
    fs::create_dir_all(folder.join("usr/bin")).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(folder.join("usr/bin/a"), "a").unwrap();
    fs::hard_link(folder.join("usr/bin/a"), folder.join("usr/bin/b")).unwrap();
    symlink("usr/bin", folder.join("bin")).unwrap();
    let source = Source::Dir(Rootfs { path: folder });
    let image = fixture.build("one", source.clone()).unwrap();
    assert_eq!(fixture.build("two", source).unwrap().digest, image.digest);
}

fn read_folder(path: &Path) -> Result<Tree, RootfsError> {
    folder::read(path, &mut Spool::new(&std::env::temp_dir()).unwrap())
}

#[test]
fn what_belongs_to_the_user_becomes_roots() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    fs::set_permissions(folder.path().join("a"), fs::Permissions::from_mode(0o4755)).unwrap();
    let tree = read_folder(folder.path()).unwrap();
    assert_eq!(tree.get("a").unwrap().metadata, Metadata::of_root(0o4755));
}

#[test]
fn a_folder_with_what_no_image_keeps_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    let error = read_folder(folder.path()).unwrap_err();
    let RootfsError::Folder { source, .. } = error else { panic!("{error}") };
    assert_eq!(
        source.to_string(),
        "could not take the entry `socket`: it is a socket, which an image does not keep"
    );
}

#[test]
fn paths_with_something_else_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let archive = |name: &str| read_archive(&path(name), &mut Spool::new(folder.path()).unwrap());
    let error = archive("missing").unwrap_err();
    assert!(matches!(&error, RootfsError::File(error) if error.is_absent()), "{error}");
    fs::create_dir(path("folder")).unwrap();
    let error = archive("folder").unwrap_err().to_string();
    assert!(error.ends_with("it is a folder, where `tar` wants an archive"), "{error}");
    let error = read_archive(Path::new("/dev/null"), &mut Spool::new(folder.path()).unwrap());
    assert!(matches!(error, Err(RootfsError::Kind { found: "no file", .. })));
    fs::write(path("file"), "").unwrap();
    assert!(matches!(read_folder(&path("file")), Err(RootfsError::Kind { .. })));
    assert!(matches!(read_folder(&path("missing")), Err(RootfsError::File(_))));
    let image = Sample::default().file("oci-layout", "").file("index.json", "").end();
    fs::write(path("image.tar"), image).unwrap();
    assert!(matches!(archive("image.tar"), Err(RootfsError::Kind { wanted: "tar", .. })));
    let cut = Sample::default().file("a", "").cut();
    fs::write(path("cut.tar"), cut).unwrap();
    let error = archive("cut.tar").unwrap_err();
    let truncated = matches!(
        &error,
        RootfsError::Archive { source: ArchiveError::Truncated { offset: 512, .. }, .. }
    );
    assert!(truncated, "{error:?}");
}

#[test]
fn folders_of_every_guest_are_added_beside_what_is_there() {
    let mut tree = Tree::new();
    let mut spool = Spool::new(&std::env::temp_dir()).unwrap();
    assert!(matches!(complete(&mut tree, Path::new("x")), Err(RootfsError::Empty { .. })));
    let archive = Sample::default().symlink("tmp", "var/tmp").folder("root").end();
    merge(&archive[..], Layering::Plain, &mut tree, &mut spool).unwrap();
    complete(&mut tree, Path::new("x")).unwrap();
    assert!(matches!(tree.get("tmp").unwrap().kind, NodeKind::Symlink(_)));
    assert_eq!(tree.get("root").unwrap().metadata.mode, 0o755);
    assert_eq!(tree.list(".").len(), FOLDERS.len());
}
