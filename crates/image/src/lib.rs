//! Images: the verified, read-only root file systems compartments boot from.
//!
//! A [`Recipe`] says what an image is made of. [`Store::build`] makes it, without privileges,
//! and puts it into the [`Store`] under the digest of its manifest; a name points to its
//! generations. An [`Image`] is one such directory, and [`initrd`] packs the agent and the
//! modules a boot needs into an initial ram disk.
//!
//! ```text
//! Recipe ─▶ debian (mmdebstrap, hooks)    ─▶ erofs, vmlinux, modules ─▶ Manifest ─▶ Store ─▶ Image ─▶ initrd
//!           rootfs (archive, folder, OCI) ─▶
//! ```
//!
//! Not here: which image a compartment uses (config, plan), starting it (supervise), and
//! loading the modules (agent). This crate prints nothing; a build reports [`Progress`].

mod arch;
mod archive;
mod boot;
mod build;
mod collect;
mod command;
mod cpio;
mod debian;
mod decompress;
mod digest;
mod erofs;
mod error;
mod exchange;
mod image;
mod initrd;
mod kernel;
mod manifest;
mod modinfo;
mod modules;
mod names;
mod oci;
mod progress;
mod recipe;
mod rootfs;
mod scratch;
mod signature;
mod store;
mod verity;

pub use archive::{ArchiveError, EntryFault, normalize};
pub use build::BuildError;
pub use collect::{Collected, Held};
pub use command::CommandError;
pub use debian::DebianError;
pub use decompress::DecompressError;
pub use digest::{BadDigest, Digest};
pub use error::FileError;
pub use exchange::ImportError;
pub use image::{Image, ImageError};
pub use initrd::{InitrdError, initrd};
pub use kernel::KernelError;
pub use manifest::{Inputs, Manifest, Module, Package, Part, Parts, Verity};
pub use modules::{BOOT_GROUP, ModuleError};
pub use names::{BadImageName, Generation, ImageName};
pub use oci::OciError;
pub use progress::{Phase, Progress};
pub use recipe::{Debian, Nixos, Recipe, RecipeError, Rootfs, Source};
pub use rootfs::RootfsError;
pub use signature::SignatureError;
pub use store::{Store, StoreError};
