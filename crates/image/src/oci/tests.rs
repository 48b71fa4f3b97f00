//! Images in the OCI layout, made up on the spot, whole and broken.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::archive::samples::Sample;
use crate::decompress::samples::zstd;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layout in a folder, and a folder for scratch.
struct Fixture {
    folder: tempfile::TempDir,
    scratch: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let (folder, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        let fixture = Self { folder, scratch };
        fixture.write("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}));
        fixture
    }

    fn write(&self, name: &str, document: &Value) {
        fs::write(self.folder.path().join(name), document.to_string()).unwrap();
    }

    fn blob_path(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
        self.folder.path().join("blobs").join(digest)
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = format!("sha256:{}", Digest::of(bytes));
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        fs::write(self.blob_path(&descriptor), bytes).unwrap();
        descriptor
    }

    /// An image of these layers, each with the ending of its media type.
    fn image(&self, architecture: &str, layers: &[(&str, Vec<u8>)]) -> Value {
        let plain = layers.iter().map(|(_, layer)| format!("sha256:{}", Digest::of(layer)));
        let configuration = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": plain.collect::<Vec<_>>()},
        });
        let layers = layers.iter().map(|(ending, layer)| {
            let packed = match *ending {
                "+zstd" => zstd(layer),
                "+gzip" => gzip(layer),
                _ => layer.clone(),
            };
            self.blob(&format!("{LAYER}{ending}"), &packed)
        });
        let layers: Vec<_> = layers.collect();
        let configuration = self.blob(CONFIGURATION, configuration.to_string().as_bytes());
        self.manifest(&configuration, &layers)
    }

    fn manifest(&self, configuration: &Value, layers: &[Value]) -> Value {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": configuration,
            "layers": layers,
        });
        self.blob(MANIFEST, manifest.to_string().as_bytes())
    }

    fn index(&self, manifests: &[Value]) {
        self.write("index.json", &json!({"schemaVersion": 2, "manifests": manifests}));
    }

    fn read(&self) -> Result<(Vec<String>, Digest), OciError> {
        self.read_at(self.folder.path())
    }

    fn read_at(&self, path: &Path) -> Result<(Vec<String>, Digest), OciError> {
        let mut spool = Spool::new(self.scratch.path())?;
        let (tree, digest) = read(path, self.scratch.path(), &mut spool)?;
        let paths = tree.walk().map(|visit| String::from_utf8(visit.path).unwrap());
        Ok((paths.collect(), digest.unwrap()))
    }
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, plain).unwrap();
    encoder.finish().unwrap()
}

fn own() -> &'static str {
    arch::host().unwrap().debian
}

fn lower() -> Vec<u8> {
    Sample::default().file("etc/a", "1").file("etc/b", "1").end()
}

fn upper() -> Vec<u8> {
    Sample::default().file("etc/.wh.a", "").file("bin/sh", "2").end()
}

fn with_platform(mut descriptor: Value, architecture: &str) -> Value {
    descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
    descriptor
}

fn two_layers(fixture: &Fixture) -> Value {
    fixture.image(own(), &[("+gzip", lower()), ("+zstd", upper())])
}

#[test]
fn layers_of_all_packings_are_put_on_each_other() {
    let fixture = Fixture::new();
    for (one, two) in [("", "+gzip"), ("+gzip", "+zstd"), ("+zstd", "")] {
        let manifest = fixture.image(own(), &[(one, lower()), (two, upper())]);
        fixture.index(std::slice::from_ref(&manifest));
        let (paths, digest) = fixture.read().unwrap();
        assert_eq!(paths, ["", "bin", "bin/sh", "etc", "etc/b"]);
        assert_eq!(format!("sha256:{digest}"), manifest["digest"].as_str().unwrap());
    }
}

#[test]
fn an_archive_of_a_layout_is_the_same_image() {
    let fixture = Fixture::new();
    fixture.index(&[two_layers(&fixture)]);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", fixture.folder.path()).unwrap();
    let archive = fixture.scratch.path().join("image.tar");
    fs::write(&archive, builder.into_inner().unwrap()).unwrap();
    assert_eq!(fixture.read_at(&archive).unwrap(), fixture.read().unwrap());
}

#[test]
fn the_manifest_of_this_processor_is_found_in_nested_indexes() {
    let fixture = Fixture::new();
    let ours = with_platform(two_layers(&fixture), own());
    let other = with_platform(fixture.image("riscv64", &[("", lower())]), "riscv64");
    let index = json!({"schemaVersion": 2, "manifests": [other, ours]});
    let index = fixture.blob(INDEX, index.to_string().as_bytes());
    fixture.index(&[index]);
    assert_eq!(fixture.read().unwrap().0.len(), 5);
    fixture.index(std::slice::from_ref(&other));
    let error = fixture.read().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("could not find a manifest for linux/{}; there are: linux/riscv64", own())
    );
    fixture.index(&[]);
    assert!(
        matches!(fixture.read(), Err(OciError::NoManifest { found, .. }) if found == "none at all")
    );
}

#[test]
fn several_images_are_told_by_their_names() {
    let fixture = Fixture::new();
    let named = |mut descriptor: Value, name: &str| {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        descriptor
    };
    let one = named(two_layers(&fixture), "one");
    let two = named(fixture.image(own(), &[("", lower())]), "two\u{1b}[2J");
    fixture.index(&[one.clone(), named(one.clone(), "again")]);
    fixture.read().unwrap();
    fixture.index(&[one, two]);
    let error = fixture.read().unwrap_err().to_string();
    assert!(error.contains("one") && error.contains("two\u{fffd}[2J"), "{error}");
}

#[test]
fn an_image_for_another_processor_is_refused_even_when_the_index_is_silent() {
    let fixture = Fixture::new();
    fixture.index(&[fixture.image("riscv64", &[("", lower())])]);
    assert!(
        matches!(fixture.read(), Err(OciError::Platform { found, .. }) if found == "linux/riscv64")
    );
}

#[test]
fn blobs_are_what_they_are_referred_to_as() {
    let fixture = Fixture::new();
    let configuration = fixture.image(own(), &[("", lower())]);
    let manifest: Value =
        serde_json::from_slice(&fs::read(fixture.blob_path(&configuration)).unwrap()).unwrap();
    fixture.index(std::slice::from_ref(&configuration));
    for descriptor in [&manifest["layers"][0], &manifest["config"], &configuration] {
        let path = fixture.blob_path(descriptor);
        let bytes = fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        changed[20] ^= 1;
        fs::write(&path, &changed).unwrap();
        let error = fixture.read().unwrap_err();
        assert!(matches!(error, OciError::WrongDigest { .. }), "{error}");
        for length in [bytes.len() - 1, bytes.len() + 1] {
            let mut changed = bytes.clone();
            changed.resize(length, 0);
            fs::write(&path, &changed).unwrap();
            let error = fixture.read().unwrap_err();
            assert!(matches!(error, OciError::WrongSize { .. }), "{error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(fixture.read(), Err(OciError::MissingBlob(_))));
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(matches!(fixture.read(), Err(OciError::File(_))));
        fs::remove_file(&path).unwrap();
        fs::write(&path, &bytes).unwrap();
    }
    fixture.read().unwrap();
}

#[test]
fn a_layer_that_unpacks_to_something_else_is_refused() {
    let fixture = Fixture::new();
    let other = format!("sha256:{}", Digest::of(b"other"));
    let configuration = json!({
        "architecture": own(), "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [other]},
    });
    let configuration = fixture.blob(CONFIGURATION, configuration.to_string().as_bytes());
    let layer = fixture.blob(&format!("{LAYER}+gzip"), &gzip(&lower()));
    fixture.index(&[fixture.manifest(&configuration, &[layer])]);
    assert!(matches!(fixture.read(), Err(OciError::WrongContents(_))));
    fixture.index(&[fixture.manifest(&configuration, &[])]);
    assert!(matches!(fixture.read(), Err(OciError::Inconsistent(_))));
}

#[test]
fn unknown_kinds_are_named() {
    let fixture = Fixture::new();
    let configuration = fixture.blob(CONFIGURATION, b"{}");
    for media_type in ["application/vnd.oci.image.layer.v1.tar+bzip2", "text/html\u{1b}"] {
        let layer = fixture.blob(media_type, b"x");
        fixture.index(&[fixture.manifest(&configuration, &[layer])]);
        let error = fixture.read().unwrap_err();
        assert!(matches!(&error, OciError::MediaType { what: "a layer", .. }), "{error}");
        assert!(!error.to_string().contains('\u{1b}'));
    }
    let artifact = fixture.blob("application/vnd.oci.empty.v1+json", b"{}");
    fixture.index(&[fixture.manifest(&artifact, &[])]);
    let error = fixture.read().unwrap_err();
    assert!(matches!(error, OciError::MediaType { what: "the configuration", .. }), "{error}");
    let mut manifest = two_layers(&fixture);
    manifest["digest"] = json!("sha512:00");
    fixture.index(&[manifest]);
    assert!(matches!(fixture.read(), Err(OciError::UnknownDigest(_))));
}

#[test]
fn hostile_layers_name_the_entry() {
    let fixture = Fixture::new();
    let layer = Sample::default().file("../outside", "").end();
    fixture.index(&[fixture.image(own(), &[("+gzip", layer)])]);
    let error = fixture.read().unwrap_err();
    let OciError::Layer { source: ArchiveError::Entry { entry, .. }, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(entry, "../outside");
}

#[test]
fn what_is_no_layout_is_told() {
    let fixture = Fixture::new();
    fs::remove_file(fixture.folder.path().join("oci-layout")).unwrap();
    assert!(matches!(fixture.read(), Err(OciError::NotLayout(_))));
    fixture.write("oci-layout", &json!({"imageLayoutVersion": "2.0.0"}));
    assert!(matches!(fixture.read(), Err(OciError::NotLayout(_))));
    fixture.write("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}));
    assert!(matches!(fixture.read(), Err(OciError::NotLayout(_))), "no index");
    fixture.write("index.json", &json!([]));
    assert!(matches!(fixture.read(), Err(OciError::Document { .. })));
    let missing = fixture.scratch.path().join("missing");
    assert!(matches!(fixture.read_at(&missing), Err(OciError::File(_))));
    assert!(matches!(fixture.read_at(Path::new("/dev/null")), Err(OciError::NotLayout(_))));
}
