//! The parts of a guest that the agent's own tests boot, taken out of the default image.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::build::programs;
use crate::process::{output, workspace};

/// Environment of the agent's tests; the modules are put into `folder`.
pub(crate) fn parts(folder: &Path) -> Result<Vec<(&'static str, OsString)>> {
    let image = image()?;
    let directory = PathBuf::from(image["directory"].as_str().context("an image has no folder")?);
    let manifest = &image["manifest"];
    let file = |part: &str| -> Result<OsString> {
        let name = manifest["parts"][part]["file"].as_str();
        let name = name.with_context(|| format!("the image has no part `{part}`"))?;
        Ok(directory.join(name).into())
    };
    let modules = manifest["modules"].as_array().context("the image has no modules")?;
    let boot = manifest["module_groups"]["boot"].as_array().context("no module group `boot`")?;
    let mut order = String::new();
    for name in boot {
        let module = modules.iter().find(|module| module["name"] == *name);
        let from = module.and_then(|module| module["file"].as_str());
        let from = directory.join(from.with_context(|| format!("the image lacks module {name}"))?);
        let file = from.file_name().context("a module has no name")?;
        fs::copy(&from, folder.join(file))
            .with_context(|| format!("could not copy {}", from.display()))?;
        order.push_str(&file.to_string_lossy());
        order.push('\n');
    }
    fs::write(folder.join("order"), order)?;
    Ok(vec![
        ("CASEMATE_TEST_KERNEL", file("kernel")?),
        ("CASEMATE_TEST_ROOT", file("root")?),
        ("CASEMATE_TEST_MODULES", folder.into()),
        ("CASEMATE_TEST_AGENT", programs().join("casemate-agent").into()),
    ])
}

/// What `casemate image show` says of the default image.
pub(crate) fn image() -> Result<Value> {
    let mut command = Command::new(programs().join("casemate"));
    command
        .arg("--config")
        .arg(workspace().join("examples/demo.toml"))
        .args(["image", "show", "--json", "debian"]);
    serde_json::from_str(&output(&mut command)?).context("could not read what the image is")
}
