//! From the table to what a start carries out. What the user sets himself comes after it and wins.

use std::collections::BTreeMap;

use casemate_config::{Allocator, Compartment, GuestInit, GuestSettings};
use casemate_wire::{Restrictions, WriteFile};

use super::{ALLOCATOR_PATH, Level, Measure, PRELOAD, rows};

/// Where systemd-sysctl finds the settings. It would else put the distribution's in their place
/// when it starts; of files with one setting it takes the last by name.
const SYSCTL_FILE: &str = "/etc/sysctl.d/zz-casemate.conf";

/// Memory areas a process may have. Each small allocation's guards are areas of their own, and the
/// kernel's default of 65530 is soon used up; the number is hardened_malloc's own advice.
const MEMORY_AREAS: (&str, &str) = ("vm.max_map_count", "1048576");

/// Words for the kernel's command line.
pub fn kernel_words(compartment: &Compartment) -> Vec<String> {
    let Some(level) = Level::asked(compartment.guest.hardening) else { return vec![] };
    let rows = rows();
    let applying = || rows.iter().filter(|row| row.level <= level);
    let mut words: Vec<String> = applying()
        .filter_map(|row| match row.measure {
            Measure::KernelParameter(word) => Some(word.to_owned()),
            _ => None,
        })
        .collect();
    let modules: Vec<&str> = applying()
        .filter_map(|row| match row.measure {
            Measure::Module(name) => Some(name),
            _ => None,
        })
        .collect();
    words.push(format!("module_blacklist={}", modules.join(",")));
    words
}

/// Kernel settings: the table's, of which a kernel may lack some, then the user's own. One that the
/// user sets is not set before: some cannot be changed a second time.
pub fn sysctls(guest: &GuestSettings) -> Vec<(String, String)> {
    let mut of_table: BTreeMap<&str, &str> = BTreeMap::new();
    if let Some(level) = Level::asked(guest.hardening) {
        let rows = rows();
        // Rows of `strict` stand behind those of `standard`.
        for row in rows.iter().filter(|row| row.level <= level) {
            if let Measure::Sysctl { name, value, .. } = row.measure {
                of_table.insert(name, value);
            }
        }
    }
    if guest.allocator != Allocator::Default {
        of_table.insert(MEMORY_AREAS.0, MEMORY_AREAS.1);
    }
    for name in guest.sysctls.keys() {
        of_table.remove(name.as_str());
    }
    // Nothing can be loaded after it, which others may need.
    let last = of_table.remove_entry("kernel.modules_disabled");
    let of_table = of_table.into_iter().chain(last);
    let own = guest.sysctls.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    of_table.map(|(name, value)| (format!("-{name}"), value.to_owned())).chain(own).collect()
}

/// Files that are written before the user's own. `library` is the allocator's.
pub fn files(guest: &GuestSettings, library: &[u8]) -> Vec<WriteFile> {
    let file = |path: &str, content: &[u8], mode| WriteFile {
        path: path.into(),
        content: content.to_vec(),
        mode,
        owner: "root".into(),
    };
    let mut files = Vec::new();
    if let Some(level) = Level::asked(guest.hardening) {
        let rows = rows();
        let applying = rows.iter().filter(|row| row.applies(level, guest.init, guest.allocator));
        for row in applying {
            if let Measure::File { path, content, .. } = row.measure {
                files.push(file(path, content.as_bytes(), 0o644));
            }
        }
    }
    let sysctls = sysctls(guest);
    if guest.init == GuestInit::Systemd && !sysctls.is_empty() {
        let lines = sysctls.iter().map(|(name, value)| format!("{name} = {value}\n"));
        let text =
            format!("# By guest.hardening and guest.sysctls.\n{}", lines.collect::<String>());
        files.push(file(SYSCTL_FILE, text.as_bytes(), 0o644));
    }
    if guest.allocator != Allocator::Default {
        files.push(file(ALLOCATOR_PATH, library, 0o755));
        files.push(file(PRELOAD, format!("{ALLOCATOR_PATH}\n").as_bytes(), 0o644));
    }
    files
}

/// What no program of the guest has.
pub fn restrictions(guest: &GuestSettings) -> Restrictions {
    let asked = Level::asked(guest.hardening);
    let applies = |wanted: &Measure| {
        let mut rows = rows().into_iter();
        rows.any(|row| row.measure == *wanted && asked.is_some_and(|level| row.level <= level))
    };
    Restrictions {
        nosuid: applies(&Measure::Nosuid),
        no_new_privs: applies(&Measure::NoNewPrivs),
        no_core_dumps: applies(&Measure::NoCoreDumps),
    }
}
