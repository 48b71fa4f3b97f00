//! Reads which packages a root folder has: dpkg's own list, and the kernel packages our hook
//! unpacked beside it.

use std::io::Read;
use std::path::Path;

use crate::Package;
use crate::build::open_plain;
use crate::error::{Attempt, FileError};

/// The installed packages of a root folder, in order.
pub(super) fn installed(root: &Path) -> Result<Vec<Package>, FileError> {
    Ok(parse_status(&read(&root.join("var/lib/dpkg/status"))?))
}

/// The kernel packages: `name version architecture` a line, in our folder.
pub(super) fn kernel_packages(ours: &Path) -> Result<Vec<Package>, FileError> {
    let text = read(&ours.join("kernel-packages"))?;
    let mut packages: Vec<Package> = text.lines().filter_map(parse_line).collect();
    packages.sort_unstable();
    Ok(packages)
}

/// The date of the newest list of packages, in seconds since 1970, in our folder; 0 when no list
/// had one.
pub(super) fn archive_date(ours: &Path) -> Result<u64, FileError> {
    Ok(read(&ours.join("archive-date"))?.trim().parse().unwrap_or(0))
}

fn read(path: &Path) -> Result<String, FileError> {
    let mut text = String::new();
    open_plain(path)?.read_to_string(&mut text).attempt("read", path)?;
    Ok(text)
}

fn parse_line(line: &str) -> Option<Package> {
    let mut words = line.split_whitespace().map(str::to_owned);
    Some(Package { name: words.next()?, version: words.next()?, architecture: words.next()? })
}

/// dpkg's database: stanzas of `Key: value`.
fn parse_status(text: &str) -> Vec<Package> {
    let mut packages: Vec<Package> = text
        .split("\n\n")
        .filter_map(|stanza| {
            let field = |name: &str| {
                let mut lines = stanza.lines();
                lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            field("Status")?.ends_with(" installed").then_some(())?;
            Some(Package {
                name: field("Package")?.to_owned(),
                version: field("Version")?.to_owned(),
                architecture: field("Architecture")?.to_owned(),
            })
        })
        .collect();
    packages.sort_unstable();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_are_listed_in_order() {
        let text = "\
Package: less
Status: install ok installed
Architecture: amd64
Version: 590-2
Description: pager
 Version: not this one

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: adduser
Status: install ok installed
Architecture: all
Version: 3.134
";
        let packages = parse_status(text);
        let seen: Vec<_> = packages.iter().map(|p| (&*p.name, &*p.version)).collect();
        assert_eq!(seen, [("adduser", "3.134"), ("less", "590-2")]);
    }
}
