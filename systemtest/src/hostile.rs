//! A compartment whose agent is not casemate's: the initial ram disk of the image with another
//! `/init` behind it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::{World, programs};

/// Makes the initial ram disk with `hostile-agent` and tells where it is. It is made once for all
/// tests of a program.
///
/// # Errors
/// Why it cannot be made.
pub fn initramfs(world: &World, folder: &Path) -> Result<PathBuf, String> {
    static AGENT: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    let agent = AGENT.get_or_init(|| {
        let path = programs::hostile_agent()?;
        fs::read(&path).map_err(|error| format!("could not read {}: {error}", path.display()))
    });
    let agent = agent.as_ref().map_err(Clone::clone)?;
    let plan = world.casemate(["plan", world.name(), "--json"]).done().ok().json();
    let processes = plan["processes"].as_array().into_iter().flatten();
    let files = processes.flat_map(|process| process["jail"]["files"].as_array()).flatten();
    let mut initrds = files.filter(|file| file["target"] == "/boot/initrd");
    let initrd = initrds.next().and_then(|file| file["source"].as_str());
    let initrd = initrd.ok_or("the plan has no initrd")?;
    let mut bytes =
        fs::read(initrd).map_err(|error| format!("could not read {initrd}: {error}"))?;
    // Archives may follow each other, each at a multiple of four bytes; of two files with one name
    // the later stays (the kernel's early-userspace/buffer-format).
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    entry(&mut bytes, "init", 0o100_755, agent);
    entry(&mut bytes, "TRAILER!!!", 0, &[]);
    let path = folder.join("hostile-initrd");
    fs::write(&path, bytes)
        .map_err(|error| format!("could not write {}: {error}", path.display()))?;
    Ok(path)
}

/// Appends one entry in the `newc` form of cpio.
fn entry(bytes: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) {
    let length = content.len() as u32;
    let inode = 4711;
    let name_length = name.len() as u32 + 1;
    bytes.extend(b"070701");
    for field in [inode, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0] {
        bytes.extend(format!("{field:08x}").bytes());
    }
    bytes.extend(name.bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}
