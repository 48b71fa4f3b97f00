//! An image in the OCI image layout, a folder or an archive of one, on disk: no registry is
//! asked.
//!
//! ```text
//! index.json ─▶ manifest for this processor ─▶ configuration, layers ─▶ Tree
//! ```
//! Every blob is held to the length and SHA-256 it is referred to by, and every layer, unpacked,
//! to what the configuration says of it. What else the configuration says (environment, entry
//! point, user) means nothing here: a compartment runs what its user asks for.

mod document;
mod layout;

use std::io::{self, Read};
use std::path::Path;

use crate::archive::{ArchiveError, Layering, Spool, Tree, Unpacked, merge};
use crate::digest::Hashing;
use crate::{Digest, FileError, arch};

use document::{Configuration, Descriptor, Index, Manifest, Platform};
use layout::Layout;

/// Indexes within indexes that are followed.
const MAX_NESTING: usize = 4;
/// Manifests of all indexes together.
const MAX_MANIFESTS: usize = 1000;
/// Layers of an image. Builders stop at 127.
const MAX_LAYERS: usize = 1000;

/// An OCI image that is not taken.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A file of the layout.
    #[error(transparent)]
    File(#[from] FileError),
    /// The archive of the layout.
    #[error("could not read the archive of the image")]
    Archive(#[source] ArchiveError),
    /// It is no layout, or of a later version.
    #[error("could not find an OCI image: {0}")]
    NotLayout(&'static str),
    /// A document in it cannot be read.
    #[error("could not read {document}")]
    Document {
        /// Which one, made harmless to print.
        document: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A document in it is longer than such a document is.
    #[error("could not read {document}: it is longer than {limit} bytes")]
    LongDocument {
        /// Which one.
        document: String,
        /// The limit, in bytes.
        limit: u64,
    },
    /// Something is referred to by another digest than SHA-256.
    #[error("could not use the digest `{0}`: only sha256 is known")]
    UnknownDigest(String),
    /// A blob is not there.
    #[error("could not find the blob sha256:{0}")]
    MissingBlob(Digest),
    /// A blob has other bytes than those referred to.
    #[error("could not trust the blob sha256:{expected}: its digest is sha256:{found}")]
    WrongDigest {
        /// The digest it is referred to by.
        expected: Digest,
        /// Its own.
        found: Digest,
    },
    /// A blob has another length than the one referred to.
    #[error("could not trust the blob sha256:{digest}: it is {found} bytes long, not {expected}")]
    WrongSize {
        /// The blob.
        digest: Digest,
        /// The length it should have, in bytes.
        expected: u64,
        /// Its own, in bytes; when it is longer than it should be, at least that.
        found: u64,
    },
    /// Something is of a kind that is not known.
    #[error("could not use the media type `{media_type}` of {what}")]
    MediaType {
        /// What has it.
        what: &'static str,
        /// The media type, made harmless to print.
        media_type: String,
    },
    /// There is no manifest for this processor.
    #[error("could not find a manifest for linux/{architecture}; there are: {found}")]
    NoManifest {
        /// The processor architecture, as OCI names it.
        architecture: &'static str,
        /// What there is instead.
        found: String,
    },
    /// There are several manifests for this processor.
    #[error("could not choose among several images for this processor: {0}")]
    Several(String),
    /// The image is for another processor, though the index does not say so.
    #[error("could not use the image: it is for {found}, not linux/{architecture}")]
    Platform {
        /// The processor architecture, as OCI names it.
        architecture: &'static str,
        /// What it is for.
        found: String,
    },
    /// Documents do not agree, or say too much.
    #[error("could not use the image: {0}")]
    Inconsistent(&'static str),
    /// A layer cannot be read.
    #[error("could not take the layer sha256:{digest}")]
    Layer {
        /// The layer.
        digest: Digest,
        /// What is wrong with it.
        source: ArchiveError,
    },
    /// A layer unpacks to something else than the configuration says.
    #[error("could not trust the layer sha256:{0}: it does not unpack to what the image says")]
    WrongContents(Digest),
}

impl OciError {
    /// Whether there was no room for it.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::File(error) => error.is_disk_full(),
            Self::Archive(source) | Self::Layer { source, .. } => source.is_disk_full(),
            _ => false,
        }
    }
}

/// Reads the image at `path`; returns its tree and the digest of its manifest. An archive's files
/// wait in the folder `scratch`.
pub(crate) fn read(
    path: &Path,
    scratch: &Path,
    spool: &mut Spool,
) -> Result<(Tree, Option<Digest>), OciError> {
    let architecture = arch::host().map_or(std::env::consts::ARCH, |known| known.debian);
    let layout = Layout::open(path, scratch)?;
    let chosen = choose(&layout, architecture)?;
    let digest = chosen.sha256()?;
    let manifest: Manifest = layout.document(&chosen, "the manifest")?;
    manifest.check()?;
    let configuration: Configuration = layout.document(&manifest.config, "the configuration")?;
    let platform = Platform::of(&configuration);
    if !platform.is(architecture) {
        return Err(OciError::Platform { architecture, found: platform.shown() });
    }
    let contents = &configuration.rootfs.diff_ids;
    if contents.len() != manifest.layers.len() {
        return Err(OciError::Inconsistent("its configuration counts other layers"));
    }
    if contents.len() > MAX_LAYERS {
        return Err(OciError::Inconsistent("it has too many layers"));
    }
    let mut tree = Tree::new();
    for (layer, contents) in manifest.layers.iter().zip(contents) {
        let contents = document::sha256(contents)?;
        take_layer(&layout, layer, contents, &mut tree, spool)?;
    }
    Ok((tree, Some(digest)))
}

/// Puts a layer on the tree. A blob that is not what it should be is told first, whatever else
/// was wrong with it.
fn take_layer(
    layout: &Layout,
    layer: &Descriptor,
    contents: Digest,
    tree: &mut Tree,
    spool: &mut Spool,
) -> Result<(), OciError> {
    let digest = layer.sha256()?;
    let compression = layer.compression()?;
    let mut blob = layout.blob(layer)?;
    let mut unpacked = Hashing::new(Unpacked::new(&mut blob, compression));
    let merged = merge(&mut unpacked, Layering::Oci, tree, spool);
    let unpacked = unpacked.finish().0;
    blob.finish()?;
    merged.map_err(|source| OciError::Layer { digest, source })?;
    if unpacked != contents {
        return Err(OciError::WrongContents(digest));
    }
    Ok(())
}

/// The only manifest of the layout that is for this processor.
fn choose(layout: &Layout, architecture: &'static str) -> Result<Descriptor, OciError> {
    let index = Index::parse(&layout.file("index.json")?, "index.json")?;
    let mut open = vec![(index, 0)];
    let (mut fitting, mut others, mut seen) = (Vec::<Descriptor>::new(), Vec::new(), 0);
    while let Some((index, depth)) = open.pop() {
        for descriptor in index.manifests {
            seen += 1;
            if seen > MAX_MANIFESTS {
                return Err(OciError::Inconsistent("its index has too many manifests"));
            }
            if descriptor.is_index() {
                if depth == MAX_NESTING {
                    return Err(OciError::Inconsistent("its indexes are nested too deeply"));
                }
                open.push((layout.document(&descriptor, "an index")?, depth + 1));
            } else if !descriptor.is_manifest() {
                others.push(document::shown_type(&descriptor.media_type));
            } else if descriptor.platform.as_ref().is_none_or(|own| own.is(architecture)) {
                fitting.push(descriptor);
            } else {
                others.extend(descriptor.platform.as_ref().map(Platform::shown));
            }
        }
    }
    // One image may be named twice.
    fitting.sort_by(|one, other| one.digest.cmp(&other.digest));
    fitting.dedup_by(|one, other| one.digest == other.digest);
    // An image that says what it is for goes before those that do not say.
    if fitting.iter().any(|descriptor| descriptor.platform.is_some()) {
        fitting.retain(|descriptor| descriptor.platform.is_some());
    }
    if fitting.len() > 1 {
        let names: Vec<_> = fitting.iter().take(10).map(Descriptor::name).collect();
        return Err(OciError::Several(names.join(", ")));
    }
    others.sort();
    others.dedup();
    others.truncate(10);
    let found = if others.is_empty() { "none at all".to_owned() } else { others.join(", ") };
    fitting.pop().ok_or(OciError::NoManifest { architecture, found })
}

/// A blob being read: no more of it than it should have, counted and hashed.
struct Blob<'a> {
    source: Hashing<Box<dyn Read + 'a>>,
    expected: (Digest, u64),
    left: u64,
}

impl<'a> Blob<'a> {
    fn new(source: Box<dyn Read + 'a>, expected: (Digest, u64)) -> Self {
        Self { source: Hashing::new(source), expected, left: expected.1 }
    }

    /// Reads what is left, and says whether all was as it should be.
    fn finish(mut self) -> Result<(), OciError> {
        let (digest, size) = self.expected;
        let failed =
            |source| OciError::Layer { digest, source: ArchiveError::Read { offset: 0, source } };
        io::copy(&mut self, &mut io::sink()).map_err(failed)?;
        // One byte more than there should be is enough to know.
        let more = io::copy(&mut self.source.by_ref().take(1), &mut io::sink()).map_err(failed)?;
        let (found, length) = self.source.finish();
        if more > 0 || length != size {
            return Err(OciError::WrongSize { digest, expected: size, found: length });
        }
        if found != digest {
            return Err(OciError::WrongDigest { expected: digest, found });
        }
        Ok(())
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.source.read(&mut buffer[..length])?;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
