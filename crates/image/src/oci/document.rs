//! The documents of an OCI image: index, manifest, configuration (image-spec 1.1, `image-index.md`,
//! `manifest.md`, `config.md`), and their Docker forms, which differ in media types only.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::OciError;
use crate::Digest;
use crate::archive::{Compression, shown};

const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const CONFIGURATIONS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// Media types of layers, without what says how they are packed.
const LAYERS: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];
/// Annotation with the name an image was put into the layout under.
const NAME: &str = "org.opencontainers.image.ref.name";

/// Refers to a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// What an image is for.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

/// Refers to manifests.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    pub(super) manifests: Vec<Descriptor>,
}

/// Refers to what one image consists of.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    schema_version: u32,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// Of an image's configuration what concerns its files.
#[derive(Debug, Deserialize)]
pub(super) struct Configuration {
    #[serde(flatten)]
    platform: Platform,
    pub(super) rootfs: Rootfs,
}

/// What the layers unpack to.
#[derive(Debug, Deserialize)]
pub(super) struct Rootfs {
    /// Digests of the unpacked layers, lowest first.
    pub(super) diff_ids: Vec<String>,
}

impl Descriptor {
    /// The digest referred to.
    pub(super) fn sha256(&self) -> Result<Digest, OciError> {
        sha256(&self.digest)
    }

    pub(super) fn is_index(&self) -> bool {
        INDEXES.contains(&&*self.media_type)
    }

    pub(super) fn is_manifest(&self) -> bool {
        MANIFESTS.contains(&&*self.media_type)
    }

    /// How a layer is packed.
    pub(super) fn compression(&self) -> Result<Compression, OciError> {
        let unknown =
            || OciError::MediaType { what: "a layer", media_type: shown_type(&self.media_type) };
        let rest = LAYERS.iter().find_map(|layer| self.media_type.strip_prefix(layer));
        match rest.ok_or_else(unknown)? {
            "" => Ok(Compression::Plain),
            "+gzip" | ".gzip" => Ok(Compression::Gzip),
            "+zstd" | ".zstd" => Ok(Compression::Zstd),
            _ => Err(unknown()),
        }
    }

    /// What to call the image it refers to.
    pub(super) fn name(&self) -> String {
        let name = self.annotations.as_ref().and_then(|annotations| annotations.get(NAME));
        shown(name.unwrap_or(&self.digest).as_bytes())
    }
}

impl Platform {
    /// What a configuration says.
    pub(super) fn of(configuration: &Configuration) -> Self {
        configuration.platform.clone()
    }

    /// Whether it is Linux on this processor, as OCI names it.
    pub(super) fn is(&self, architecture: &str) -> bool {
        self.os == "linux" && self.architecture == architecture
    }

    /// As text, made harmless to print.
    pub(super) fn shown(&self) -> String {
        shown(format!("{}/{}", self.os, self.architecture).as_bytes())
    }
}

impl Index {
    /// Reads an index.
    pub(super) fn parse(bytes: &[u8], document: &str) -> Result<Self, OciError> {
        parse(bytes, document)
    }
}

impl Manifest {
    /// Refuses what refers to something else than an image.
    pub(super) fn check(&self) -> Result<(), OciError> {
        if self.schema_version != 2 {
            return Err(OciError::Inconsistent("its manifest has another version than 2"));
        }
        if !CONFIGURATIONS.contains(&&*self.config.media_type) {
            let media_type = shown_type(&self.config.media_type);
            return Err(OciError::MediaType { what: "the configuration", media_type });
        }
        // All of them before the first is read.
        self.layers.iter().try_for_each(|layer| layer.compression().map(drop))
    }
}

/// Reads a document.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], document: &str) -> Result<T, OciError> {
    serde_json::from_slice(bytes)
        .map_err(|source| OciError::Document { document: document.to_owned(), source })
}

/// Reads a digest with its algorithm before it.
pub(super) fn sha256(text: &str) -> Result<Digest, OciError> {
    text.strip_prefix("sha256:")
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| OciError::UnknownDigest(shown(text.as_bytes())))
}

/// A media type made harmless to print.
pub(super) fn shown_type(media_type: &str) -> String {
    shown(media_type.as_bytes())
}
