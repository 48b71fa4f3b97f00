//! Builds an image by hand: `build STORE NAME [KEY=VALUE…]`, where the keys are `suite`,
//! `mirror`, `kernel`, `package` (repeatable), or else `tar`, `dir` or `oci` (a path each), and `agent` (a program; makes an initrd with it
//! and all module groups given as `modules=`).

use std::error::Error;
use std::path::Path;

use casemate_image::{Debian, ImageName, Recipe, Rootfs, Source, Store};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, name, settings @ ..] = arguments.as_slice() else {
        return Err("usage: build STORE NAME [KEY=VALUE…]".into());
    };
    let mut debian = Debian::default();
    let (mut agent, mut groups, mut source) = (None, Vec::new(), None);
    let rootfs = |path: &str| Rootfs { path: path.into() };
    for setting in settings {
        let (key, value) = setting.split_once('=').ok_or("settings are KEY=VALUE")?;
        match key {
            "suite" => debian.suite = Some(value.to_owned()),
            "mirror" => debian.mirror = Some(value.to_owned()),
            "kernel" => debian.kernel_package = Some(value.to_owned()),
            "package" => debian.packages.push(value.to_owned()),
            "tar" => source = Some(Source::Tar(rootfs(value))),
            "dir" => source = Some(Source::Dir(rootfs(value))),
            "oci" => source = Some(Source::Oci(rootfs(value))),
            "agent" => agent = Some(value),
            "modules" => groups.push(value),
            _ => return Err(format!("unknown key {key}").into()),
        }
    }
    let source = source.unwrap_or(Source::Debian(debian));
    let recipe = Recipe { source, size_limit: None };
    let name = ImageName::new(name)?;
    let store = Store::open(Path::new(store))?;
    let mut shown = None;
    let image = match store.current_for(&name, &recipe)? {
        Some(image) => image,
        None => store.build(&name, &recipe, &mut |progress| {
            if shown.replace(progress.phase) != Some(progress.phase) {
                println!("{}", progress.phase);
            }
        })?,
    };
    image.check_all_parts()?;
    println!("image {}", image.directory.display());
    if let Some(agent) = agent {
        let initrd = store.initrd(&image, Path::new(agent), &groups)?;
        println!("initrd {}", initrd.display());
    }
    Ok(())
}
