//! `cargo xtask docs`: what the programs tell of themselves, as files below `target/docs`.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::{build, programs, target_directory};
use crate::process::{output, run};

/// Files and the arguments that print them.
const PRINTED: [(&str, &[&str]); 5] = [
    ("completions/casemate.bash", &["completions", "bash"]),
    ("completions/_casemate", &["completions", "zsh"]),
    ("completions/casemate.fish", &["completions", "fish"]),
    ("casemate.schema.json", &["check", "--schema"]),
    ("configuration.md", &["check", "--reference"]),
];

/// Writes manual pages, completions, the configuration's schema and reference.
pub(crate) fn docs() -> Result<()> {
    build()?;
    let casemate = programs().join("casemate");
    let folder = target_directory().join("docs");
    fs::create_dir_all(folder.join("completions"))?;
    run(Command::new(&casemate).arg("man").arg(folder.join("man")))?;
    for (file, arguments) in PRINTED {
        let path = folder.join(file);
        fs::write(&path, output(Command::new(&casemate).args(arguments))?)
            .with_context(|| format!("could not write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
