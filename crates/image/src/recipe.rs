//! What an image is made of, as the caller asks for it. Nothing here is resolved: an absent
//! suite means "whatever fits this host", decided when the image is built.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Raised when the same recipe would be built differently, so that older images are noticed.
const BUILD_VERSION: u32 = 3;

/// What an image is built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// Where its root file system and kernel come from.
    pub source: Source,
    /// Largest root file system, in bytes, its hash tree included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<u64>,
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Debian packages.
    Debian(Debian),
    /// Not made here but brought.
    Imported,
    /// An archive of a root file system: tar, plain or packed with gzip, zstd or xz.
    Tar(Rootfs),
    /// A folder of the host that is a root file system.
    Dir(Rootfs),
    /// A NixOS system.
    Nixos(Nixos),
    /// An OCI image on disk: a folder in the OCI image layout, or an archive of one.
    Oci(Rootfs),
}

/// A root file system that is there already.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rootfs {
    /// Where it is. Not part of a manifest, which is to be the same wherever it was built: there
    /// the digest of what was read stands instead.
    #[serde(skip)]
    pub path: PathBuf,
}

/// A NixOS system: a path in the Nix store that is built, or a flake.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nixos {
    /// Where it, or the flake's folder, is.
    #[serde(skip)]
    pub rootfs: Rootfs,
    /// Which output of the flake is the system.
    pub attribute: Option<String>,
}

/// A root file system and kernel from Debian packages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Debian {
    /// Codename of the release; by default the host's own, or else a recent stable one.
    pub suite: Option<String>,
    /// Packages beside the base set.
    pub packages: Vec<String>,
    /// Address of the archive; by default the host's package sources when they serve the
    /// suite, or else mmdebstrap's own choice.
    pub mirror: Option<String>,
    /// Kernel package (a meta-package is followed); by default the suite's one for virtual
    /// machines.
    pub kernel_package: Option<String>,
    /// Archive components; by default `main`.
    pub components: Vec<String>,
}

/// A recipe that can mean nothing.
#[derive(Debug, thiserror::Error)]
#[error("could not use the recipe: `{value}` is no {what}")]
pub struct RecipeError {
    what: &'static str,
    value: String,
}

impl Recipe {
    /// A digest that changes whenever the recipe would give another image. What is at a path is
    /// not looked at: when that has changed, the image is to be built again.
    pub fn digest(&self) -> Digest {
        let mut text = format!("casemate recipe, build version {BUILD_VERSION}\n").into_bytes();
        text.extend(serde_json::to_vec(self).expect("a recipe has only strings"));
        if let Some(rootfs) = self.source.rootfs() {
            text.extend(rootfs.path.as_os_str().as_bytes());
        }
        Digest::of(&text)
    }

    /// Refuses names that are none, before they become arguments of other programs.
    ///
    /// # Errors
    /// Names the first value that is malformed.
    pub fn check(&self) -> Result<(), RecipeError> {
        let Source::Debian(debian) = &self.source else { return Ok(()) };
        let packages = debian.packages.iter().chain(&debian.kernel_package);
        for package in packages {
            require("package name", package, is_package_name(package))?;
        }
        if let Some(suite) = &debian.suite {
            require("suite", suite, is_word(suite, b".-_"))?;
        }
        for component in &debian.components {
            require("component", component, is_word(component, b".-_/"))?;
        }
        if let Some(mirror) = &debian.mirror {
            let known = ["http://", "https://"].iter().any(|scheme| mirror.starts_with(scheme));
            let plain = mirror.bytes().all(|byte| byte.is_ascii_graphic());
            require("http or https address", mirror, known && plain)?;
        }
        Ok(())
    }
}

impl Source {
    /// The root file system that is there already, if it is one.
    pub fn rootfs(&self) -> Option<&Rootfs> {
        match self {
            Self::Debian(_) | Self::Imported => None,
            Self::Tar(rootfs) | Self::Dir(rootfs) | Self::Oci(rootfs) => Some(rootfs),
            Self::Nixos(nixos) => Some(&nixos.rootfs),
        }
    }
}

impl Debian {
    /// The components to use.
    pub(crate) fn components(&self) -> Vec<&str> {
        if self.components.is_empty() {
            return vec!["main"];
        }
        self.components.iter().map(String::as_str).collect()
    }
}

fn require(what: &'static str, value: &str, holds: bool) -> Result<(), RecipeError> {
    if holds {
        return Ok(());
    }
    Err(RecipeError { what, value: value.to_owned() })
}

/// Debian policy, section 5.6.1: lower-case letters, digits, `+-.`, at least two of them,
/// beginning with a letter or digit.
fn is_package_name(name: &str) -> bool {
    let starts_well = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() >= 2
        && name.as_bytes().first().is_some_and(starts_well)
        && name.bytes().all(|byte| starts_well(&byte) || b"+-.".contains(&byte))
}

fn is_word(word: &str, also: &[u8]) -> bool {
    word.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(debian: Debian) -> Recipe {
        Recipe { source: Source::Debian(debian), size_limit: None }
    }

    #[test]
    fn digest_follows_the_recipe() {
        let plain = recipe(Debian::default());
        let more = recipe(Debian { packages: vec!["git".into()], ..Debian::default() });
        assert_eq!(plain.digest(), recipe(Debian::default()).digest());
        assert_ne!(plain.digest(), more.digest());
    }

    #[test]
    fn options_and_shell_words_are_no_package_names() {
        for name in ["-y", "a b", "", "x", "vim;id", "Vim", "vim,git", "*"] {
            let recipe = recipe(Debian { packages: vec![name.into()], ..Debian::default() });
            assert!(recipe.check().is_err(), "{name}");
        }
    }

    #[test]
    fn ordinary_values_are_accepted() {
        recipe(Debian {
            suite: Some("trixie".into()),
            packages: vec!["g++-12".into(), "7zip".into()],
            mirror: Some("https://mirror.example/debian".into()),
            kernel_package: Some("linux-image-6.12.1+deb12-cloud-amd64".into()),
            components: vec!["main".into(), "non-free-firmware".into()],
        })
        .check()
        .unwrap();
    }

    #[test]
    fn a_mirror_that_is_no_web_address_is_refused() {
        for mirror in ["deb http://x y z", "/etc/passwd", "http://a b", "file:///srv"] {
            let recipe = recipe(Debian { mirror: Some(mirror.into()), ..Debian::default() });
            assert!(recipe.check().is_err(), "{mirror}");
        }
    }
}
