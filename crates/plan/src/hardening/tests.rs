//! The table against itself: what is checked is what is set.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use casemate_config::{Compartment, Environment, Format, Origin, Source};

use super::*;

fn compartment(guest: &str) -> Compartment {
    let source = Source {
        path: "/test.toml".into(),
        text: format!("[compartment.t.guest]\n{guest}"),
        format: Format::Toml,
        origin: Origin::User,
    };
    let environment = Environment { home: None, user: "owner".into() };
    let loaded = casemate_config::load(&[source], &environment);
    assert!(!loaded.has_errors(), "{}", loaded.render(false));
    loaded.settings.compartments.into_values().next().expect("a compartment")
}

#[test]
fn ids_are_unique_and_begin_with_the_kind() {
    let rows = rows();
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids.len(), rows.len());
    for row in &rows {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(row.id.chars().all(plain), "{}", row.id);
        assert!(row.id.starts_with(match row.measure {
            Measure::KernelParameter(_) => "kernel-",
            Measure::Sysctl { .. } => "sysctl-",
            Measure::Module(_) => "module-",
            Measure::File { .. } => "file-",
            Measure::Nosuid => "mount-",
            Measure::NoNewPrivs | Measure::NoCoreDumps => "session-",
            Measure::Allocator => "allocator",
        }));
    }
}

#[test]
fn sentences_of_the_table_have_no_full_stop_and_rows_have_reasons() {
    for row in rows() {
        for text in [row.title, row.why] {
            assert!(!text.is_empty() && !text.ends_with('.'), "{}: {text}", row.id);
        }
    }
}

#[test]
fn every_row_of_a_strict_systemd_guest_is_carried_out() {
    let compartment =
        compartment("hardening = \"strict\"\nallocator = \"hardened\"\ninit = \"systemd\"\n");
    let words = kernel_words(&compartment);
    let sysctls: BTreeMap<String, String> = sysctls(&compartment.guest).into_iter().collect();
    let files = files(&compartment.guest, b"library");
    let restrictions = restrictions(&compartment.guest);
    let blacklist = words.iter().find_map(|word| word.strip_prefix("module_blacklist="));
    let blacklist: Vec<&str> = blacklist.expect("there").split(',').collect();
    for row in rows() {
        let done = match row.measure {
            Measure::KernelParameter(word) => words.iter().any(|known| known == word),
            // Of two rows the stricter counts, which the other's check takes as well.
            Measure::Sysctl { name, value, also } => sysctls
                .get(&format!("-{name}"))
                .is_some_and(|set| set == value || also.contains(&set.as_str())),
            Measure::Module(name) => blacklist.contains(&name),
            Measure::File { path, content, .. } => {
                files.iter().any(|file| file.path == path && file.content == content.as_bytes())
            }
            Measure::Nosuid => restrictions.nosuid,
            Measure::NoNewPrivs => restrictions.no_new_privs,
            Measure::NoCoreDumps => restrictions.no_core_dumps,
            Measure::Allocator => {
                files.iter().any(|file| file.path == ALLOCATOR_PATH && file.content == b"library")
                    && files.iter().any(|file| file.path == PRELOAD)
            }
        };
        assert!(done, "{} is checked and not set", row.id);
    }
    // Linux on x86 takes 2048 bytes (asm/setup.h), some of which are other words.
    assert!(words.join(" ").len() < 1200, "the command line is too long");
}

#[test]
fn a_compartment_that_asks_for_nothing_gets_nothing() {
    let compartment = compartment("");
    assert!(kernel_words(&compartment).is_empty());
    assert!(sysctls(&compartment.guest).is_empty());
    assert!(files(&compartment.guest, b"").is_empty());
    assert_eq!(restrictions(&compartment.guest), casemate_wire::Restrictions::default());
}

#[test]
fn standard_leaves_out_what_is_for_strict() {
    let standard = compartment("hardening = \"standard\"\n");
    let names: Vec<String> = sysctls(&standard.guest).into_iter().map(|(name, _)| name).collect();
    assert!(!names.iter().any(|name| name.contains("max_user_namespaces")));
    assert!(!kernel_words(&standard).iter().any(|word| word.contains("lockdown")));
    let strict = compartment("hardening = \"strict\"\n");
    let strict = sysctls(&strict.guest);
    assert!(strict.contains(&("-kernel.yama.ptrace_scope".into(), "3".into())));
    assert_eq!(strict.last().expect("some").0, "-kernel.modules_disabled");
}

#[test]
fn own_setting_takes_the_place_of_the_tables_and_comes_after_it() {
    let own = compartment(
        "hardening = \"standard\"\n\
         sysctls = { \"kernel.yama.ptrace_scope\" = 0, \"vm.swappiness\" = 1 }\n",
    );
    let sysctls = sysctls(&own.guest);
    let values: Vec<&str> = sysctls
        .iter()
        .filter(|(name, _)| name.ends_with("ptrace_scope"))
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(values, ["0"]);
    assert_eq!(sysctls.last().expect("some").0, "vm.swappiness");
}

#[test]
fn systemd_is_told_the_settings_it_would_else_replace() {
    let own = compartment("init = \"systemd\"\nsysctls = { \"kernel.sysrq\" = 1 }\n");
    let files = files(&own.guest, b"");
    let text = String::from_utf8(files[0].content.clone()).expect("text");
    assert!(files[0].path.starts_with("/etc/sysctl.d/"));
    assert!(text.ends_with("\nkernel.sysrq = 1\n"), "{text}");
}
