//! Reads the `.modinfo` section of a kernel module: its name and what it depends on.
//!
//! Debian ships modules without `modules.dep` (depmod writes that when a kernel is installed,
//! which never happens here), so the dependencies come from the modules themselves.

/// What a module says about itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ModInfo {
    /// Its name, with underscores.
    pub(crate) name: String,
    /// Modules that must be loaded before it.
    pub(crate) depends: Vec<String>,
    /// Modules it wants loaded before it, where they exist.
    pub(crate) wants: Vec<String>,
}

/// Reads the description of a 64-bit little-endian module, or `None` when it is not one.
pub(crate) fn read(module: &[u8]) -> Option<ModInfo> {
    let section = section(module, b".modinfo")?;
    let fields = || {
        section
            .split(|byte| *byte == 0)
            .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
    };
    let value = |key| fields().find(|(name, _)| *name == key).map(|(_, value)| value);
    let names = |list: &str, separator: char| -> Vec<String> {
        list.split(separator).filter(|name| !name.is_empty()).map(normal_name).collect()
    };
    let wants = fields()
        .filter(|(key, _)| *key == "softdep")
        .filter_map(|(_, value)| value.strip_prefix("pre:"))
        .filter_map(|list| list.split("post:").next())
        .flat_map(|list| names(list, ' '))
        .collect();
    Some(ModInfo {
        name: normal_name(value("name")?),
        depends: names(value("depends").unwrap_or(""), ','),
        wants,
    })
}

/// The kernel takes `-` and `_` in module names for the same; it prints `_`.
pub(crate) fn normal_name(name: &str) -> String {
    name.replace('-', "_")
}

/// Contents of the named ELF64 section. Offsets: `elf(5)`, `Elf64_Ehdr` and `Elf64_Shdr`.
fn section<'a>(elf: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    const CLASS_64_LITTLE: [u8; 2] = [2, 1];
    if !elf.starts_with(b"\x7fELF") || elf.get(4..6)? != CLASS_64_LITTLE {
        return None;
    }
    let headers = number::<8>(elf, 0x28)?;
    let size = number::<2>(elf, 0x3a)?;
    let count = number::<2>(elf, 0x3c)?;
    let names_index = number::<2>(elf, 0x3e)?;
    let header = |index: usize| elf.get(headers.checked_add(index.checked_mul(size)?)?..);
    let contents = |header: &[u8]| {
        let start = number::<8>(header, 0x18)?;
        elf.get(start..start.checked_add(number::<8>(header, 0x20)?)?)
    };
    let names = contents(header(names_index)?)?;
    (0..count)
        .filter_map(header)
        .find(|header| {
            number::<4>(header, 0)
                .and_then(|offset| names.get(offset..)?.strip_prefix(name))
                .is_some_and(|rest| rest.first() == Some(&0))
        })
        .and_then(contents)
}

/// The little-endian number of `N` bytes at `offset`.
fn number<const N: usize>(data: &[u8], offset: usize) -> Option<usize> {
    let raw = data.get(offset..offset.checked_add(N)?)?;
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(raw);
    usize::try_from(u64::from_le_bytes(wide)).ok()
}

#[cfg(test)]
pub(crate) mod samples {
    //! Made-up modules for tests.

    /// An ELF file with only a `.modinfo` section of these entries.
    pub(crate) fn module(entries: &[&str]) -> Vec<u8> {
        const NAMES: &[u8] = b"\0.modinfo\0.shstrtab\0";
        let info: Vec<u8> = entries.iter().flat_map(|entry| entry.bytes().chain([0])).collect();
        let mut elf = vec![0u8; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let info_at = elf.len() as u64;
        elf.extend(&info);
        let names_at = elf.len() as u64;
        elf.extend(NAMES);
        let headers = elf.len() as u64;
        for (name, start, length) in
            [(0u32, 0, 0), (1, info_at, info.len() as u64), (10, names_at, NAMES.len() as u64)]
        {
            let mut header = [0u8; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&start.to_le_bytes());
            header[0x20..0x28].copy_from_slice(&length.to_le_bytes());
            elf.extend(header);
        }
        elf[0x28..0x30].copy_from_slice(&headers.to_le_bytes());
        elf[0x3a..0x40].copy_from_slice(&[64, 0, 3, 0, 2, 0]);
        elf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_dependencies_and_soft_dependencies_are_read() {
        let module = samples::module(&[
            "license=GPL",
            "softdep=pre: crypto-crc32c post: late",
            "softdep=post: other",
            "depends=dm-mod,dm-bufio",
            "name=dm_verity",
        ]);
        let expected = ModInfo {
            name: "dm_verity".into(),
            depends: vec!["dm_mod".into(), "dm_bufio".into()],
            wants: vec!["crypto_crc32c".into()],
        };
        assert_eq!(read(&module), Some(expected));
    }

    #[test]
    fn no_cut_of_a_module_makes_it_panic() {
        let module = samples::module(&["depends=", "name=x"]);
        for length in 0..module.len() {
            read(&module[..length]);
        }
        for position in 0..64 {
            let mut broken = module.clone();
            broken[position] ^= 0xff;
            read(&broken);
        }
    }
}
