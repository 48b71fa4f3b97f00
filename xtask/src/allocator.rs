//! The hardened allocator of guests, built from the C source that a crate brings.
//!
//! `hardened-malloc-sys` holds GrapheneOS' hardened_malloc (MIT) unchanged. It is a dependency for a
//! target that there is not: so its source is pinned, checked and fetched as every other crate's,
//! and nothing of it is linked into a program. Here it is compiled twice, into two libraries that
//! the dynamic linker of a guest loads before all others.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::process::{cargo, output, run};

/// The crate with the source.
const CRATE: &str = "hardened-malloc-sys";

/// Libraries, and the crate's file with their settings (upstream's `config/default.mk`, `light.mk`).
const LIBRARIES: [(&str, &str); 2] = [
    ("casemate-malloc-hardened.so", "config-default.conf"),
    ("casemate-malloc-hardened-light.so", "config-light.conf"),
];

/// Upstream's C files; the C++ operators are left to libstdc++, which calls malloc.
const SOURCES: [&str; 6] = ["chacha.c", "h_malloc.c", "memory.c", "pages.c", "random.c", "util.c"];

/// As upstream's Makefile has it, without `-march=native`: the guest's processor may be another. GCC
/// 12 knows C23 by an older name and without `alignas`.
const FLAGS: [&str; 11] = [
    "-std=c2x",
    "-include",
    "stdalign.h",
    "-D_GNU_SOURCE",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-plt",
    "-fstack-clash-protection",
    "-fstack-protector-strong",
    // Its warnings are upstream's.
    "-w",
];

const LINKING: [&str; 4] = [
    "-shared",
    "-s",
    "-Wl,-O1,--as-needed,-z,defs,-z,relro,-z,now,-z,nodlopen,-z,text",
    "-Wl,--build-id=none",
];

/// Compiles both libraries into this folder.
pub(crate) fn build(folder: &Path) -> Result<()> {
    let source = source()?;
    let vendored = source.join("vendor/hardened-malloc");
    for (library, settings) in LIBRARIES {
        let settings = source.join(settings);
        let text = std::fs::read_to_string(&settings)
            .with_context(|| format!("could not read {}", settings.display()))?;
        // Aside and renamed: a start that reads it gets the old one or the new one.
        let aside = folder.join(library).with_extension("new");
        let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
        compiler.args(FLAGS);
        if cfg!(target_arch = "x86_64") {
            compiler.arg("-fcf-protection");
        }
        compiler.args(defines(&text)?.iter().map(|define| format!("-D{define}")));
        for include in ["", "include", "third_party"] {
            compiler.arg("-I").arg(vendored.join(include));
        }
        compiler.args(LINKING).arg("-o").arg(&aside);
        compiler.args(SOURCES.map(|file| vendored.join(file)));
        run(&mut compiler)?;
        std::fs::rename(&aside, folder.join(library))
            .with_context(|| format!("could not rename {}", aside.display()))?;
    }
    // The licence wants to go with every copy.
    let licence = folder.join("casemate-malloc.LICENSE");
    std::fs::copy(vendored.join("LICENSE"), &licence)
        .with_context(|| format!("could not write {}", licence.display()))?;
    Ok(())
}

/// `NAME=VALUE` lines, comments aside.
fn defines(settings: &str) -> Result<Vec<String>> {
    let lines = settings.lines().map(str::trim);
    let mut defines = Vec::new();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((name, value)) = line.split_once('=') else {
            bail!("could not read the allocator's settings: {line:?}");
        };
        defines.push(format!("{}={}", name.trim(), value.trim()));
    }
    ensure!(!defines.is_empty(), "could not find the allocator's settings");
    Ok(defines)
}

/// The folder of the crate's source, where cargo keeps it.
fn source() -> Result<PathBuf> {
    let mut metadata = cargo();
    metadata.args(["metadata", "--format-version", "1", "--locked"]);
    let metadata: Value = serde_json::from_str(&output(&mut metadata)?)
        .context("could not read what cargo says of the workspace")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest = packages
        .filter(|package| package["name"] == CRATE)
        .find_map(|package| package["manifest_path"].as_str())
        .with_context(|| format!("could not find {CRATE} among the workspace's dependencies"))?;
    Ok(Path::new(manifest).parent().map(Path::to_owned).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #[test]
    fn settings_become_defines() {
        let found = super::defines("# why\nA=true\n\nB = 32\n").expect("read");
        assert_eq!(found, ["A=true", "B=32"]);
        assert!(super::defines("A\n").is_err());
        assert!(super::defines("# nothing\n").is_err());
    }
}
