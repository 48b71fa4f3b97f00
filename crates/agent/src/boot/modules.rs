//! Loading the kernel modules that the initrd brings, in the order it states.
//!
//! They are loaded without their signatures: the initrd is the host's, as the kernel is, and
//! checking a distribution's signature costs more than loading the module (100 ms of 180 for the
//! four modules of a boot without hardware virtualization). Kernels that insist get it.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::kmod::init_module;

use crate::log::Log;

/// Loads what `/modules/order` names. A module that cannot be loaded is logged: whether it was
/// needed shows in what is missing later, and that error says more.
pub(crate) fn load_all(log: &mut Log) {
    let folder = Path::new("/modules");
    let order = match fs::read_to_string(folder.join("order")) {
        Ok(order) => order,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return log.warn(format!("could not read /modules/order: {error}")),
    };
    for name in names(&order) {
        let loaded = fs::read(folder.join(name)).and_then(|module| Ok(load(&module)?));
        match loaded {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {}
            Err(error) => log.warn(format!("could not load the module {name}: {error}")),
        }
    }
}

/// What stands at the end of a signed module, behind the signature and 12 bytes that end with the
/// signature's length, big endian (linux/module_signature.h).
const SIGNED: &[u8] = b"~Module signature appended~\n";

fn load(module: &[u8]) -> Result<(), Errno> {
    const NO_PARAMETERS: &CStr = c"";
    match unsigned(module) {
        Some(unsigned) => match init_module(unsigned, NO_PARAMETERS) {
            Err(Errno::EKEYREJECTED | Errno::ENOKEY | Errno::EPERM) => {
                init_module(module, NO_PARAMETERS)
            }
            result => result,
        },
        None => init_module(module, NO_PARAMETERS),
    }
}

/// A signed module without its signature.
fn unsigned(module: &[u8]) -> Option<&[u8]> {
    let signed = module.strip_suffix(SIGNED)?;
    let (signed, len) = signed.split_last_chunk::<4>()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    signed.get(..signed.len().checked_sub(len + 8)?)
}

/// File names in the text of the order file: one per line, empty lines and comments aside.
fn names(order: &str) -> impl Iterator<Item = &str> {
    order.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_signature_is_cut_off_exactly() {
        let mut module = b"module".to_vec();
        assert_eq!(super::unsigned(&module), None);
        module.extend_from_slice(b"signature12345678\0\0\0\x09");
        module.extend_from_slice(super::SIGNED);
        assert_eq!(super::unsigned(&module), Some(b"module".as_slice()));
        let long = [b"\xff\xff\xff\xff".as_slice(), super::SIGNED].concat();
        assert_eq!(super::unsigned(&long), None);
    }

    #[test]
    fn order_is_one_name_per_line() {
        let names: Vec<_> = super::names("a.ko\n\n# why\n  b.ko \n").collect();
        assert_eq!(names, ["a.ko", "b.ko"]);
    }
}
