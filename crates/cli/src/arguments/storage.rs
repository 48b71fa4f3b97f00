//! Images, volumes, secrets, snapshots.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Json, NameJson};

/// What to do with images.
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Build an image.
    Build {
        /// Build it even if it is there and up to date.
        #[arg(long)]
        force: bool,
        /// Name of the image.
        #[arg(default_value = "debian")]
        name: String,
    },
    /// List the images and their generations.
    List(Json),
    /// Show the current generation of an image.
    Show(NameJson),
    /// Hash images anew and compare every byte with what they were built with.
    Verify {
        /// Names of images; all of them when none is given.
        names: Vec<String>,
    },
    /// Build an image from today's packages; a new generation only if something changed.
    Update {
        /// Name of the image.
        #[arg(default_value = "debian")]
        name: String,
    },
    /// Go back to an earlier generation of an image, until the next build, update or import.
    Rollback {
        /// Number of the generation; the one before the current when not given.
        #[arg(long, value_name = "NUMBER")]
        to: Option<u32>,
        /// Name of the image.
        name: String,
    },
    /// Remove images that no generation names and no compartment runs.
    Gc {
        /// First forget all generations but the current and so many of the newest.
        #[arg(long, value_name = "NUMBER")]
        keep: Option<usize>,
        /// Only say what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
    /// Write the current generation of an image as an archive.
    Export {
        /// Name of the image.
        name: String,
        /// The file, which must not be there yet; `-` for standard output.
        file: PathBuf,
    },
    /// Take an image from an archive that `export` wrote, as a new generation.
    Import {
        /// Take it though it is older than the last.
        #[arg(long)]
        rollback: bool,
        /// The file; `-` for standard input.
        file: PathBuf,
        /// Name of the image.
        name: String,
    },
}

/// What to do with volumes. They are named COMPARTMENT/VOLUME.
#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// List the volumes there are, and those that are declared and not made yet.
    List(Json),
    /// Make a declared volume. A compartment's start does so too.
    Create {
        /// COMPARTMENT/VOLUME.
        volume: String,
    },
    /// Grow a volume to the size its compartment's file says. Its file system grows at the next
    /// start.
    Resize {
        /// COMPARTMENT/VOLUME.
        volume: String,
    },
    /// Remove a volume with its snapshots, its key first. Nothing brings it back.
    Delete {
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
        /// COMPARTMENT/VOLUME.
        volume: String,
    },
    /// Write a volume as an archive. It stays encrypted.
    Export {
        /// COMPARTMENT/VOLUME.
        volume: String,
        /// The file, which must not be there yet; `-` for standard output.
        file: PathBuf,
    },
    /// Take a volume from an archive that `export` wrote.
    Import {
        /// The file; `-` for standard input.
        file: PathBuf,
        /// COMPARTMENT/VOLUME, which must not be there yet.
        volume: String,
    },
}

/// What to do with secrets. They are named COMPARTMENT/SECRET.
#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// List the declared secrets, and whether their files are there.
    List(Json),
    /// Write a secret's file: what is typed, or comes on standard input, encrypted with age.
    Set {
        /// COMPARTMENT/SECRET.
        secret: String,
    },
    /// Change a secret in $VISUAL or $EDITOR. It is in memory meanwhile, never on a disk.
    Edit {
        /// COMPARTMENT/SECRET.
        secret: String,
    },
    /// Encrypt secrets anew: to the identity, or to the `recipients.txt` in their folder, as it is now.
    Rekey {
        /// Those of these compartments; without any, all that are declared.
        names: Vec<String>,
        /// The identity that opens them now, if it is another than the one in use.
        #[arg(long, value_name = "FILE")]
        from: Option<std::path::PathBuf>,
    },
}

/// What to do with snapshots: of all volumes of a compartment together.
#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Keep the present state. The guest of a running compartment holds still meanwhile.
    Create {
        /// Name of the compartment.
        name: String,
        /// Name of the snapshot; made from date and time when not given.
        snapshot: Option<String>,
        /// Keep the memory of the running guest too, encrypted to the age identity.
        #[arg(long)]
        memory: bool,
    },
    /// List the snapshots.
    List(NameJson),
    /// Go back to a snapshot. A running compartment is stopped first. Snapshots stay, later ones
    /// too. If the memory was kept, the compartment is started and its guest goes on from it.
    Revert {
        /// Go back to the volumes only.
        #[arg(long)]
        without_memory: bool,
        /// Name of the compartment.
        name: String,
        /// Name of the snapshot.
        snapshot: String,
    },
    /// Delete a snapshot; those before and after it stay. The compartment must not be running.
    Delete {
        /// Name of the compartment.
        name: String,
        /// Name of the snapshot.
        snapshot: String,
    },
    /// Say how much was written since a snapshot.
    DiffSize {
        /// Name of the compartment.
        name: String,
        /// Name of the snapshot.
        snapshot: String,
    },
}
