//! Folders of cases: each holds configuration files and what is said about them.
//!
//! Files are loaded in name order. `system*` belongs to the machine and lies in /etc/casemate;
//! everything else is a user's own. `CASEMATE_BLESS=1` rewrites the expectations: read the
//! difference as a user who has made that mistake.
#![allow(clippy::disallowed_methods)] // tests read files and the environment

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use casemate_config::{Environment, Format, Loaded, Origin, Source, load};

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn sources(case: &Path) -> Vec<Source> {
    let mut names: Vec<String> = fs::read_dir(case)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".toml") || name.ends_with(".json"))
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let system = name.starts_with("system");
            let folder = if system { "/etc/casemate" } else { "/home/alice/.config/casemate" };
            Source {
                path: Path::new(folder).join(&name),
                text: fs::read_to_string(case.join(&name)).unwrap(),
                format: Format::of_path(Path::new(&name)),
                origin: if system { Origin::System } else { Origin::User },
            }
        })
        .collect()
}

fn environment() -> Environment {
    Environment { home: Some("/home/alice".into()), user: "alice".into() }
}

/// What a case prints: the diagnostics, then who may start and who may not; everything when
/// nothing is wrong.
fn print(loaded: &Loaded) -> String {
    let mut out = loaded.render(false);
    if loaded.diagnostics.is_empty() {
        return format!("{:#?}\n", loaded.settings);
    }
    out.push('\n');
    let names: Vec<&str> = loaded.settings.compartments.keys().map(|name| name.as_str()).collect();
    let _ = writeln!(out, "valid: {}", names.join(" "));
    for (name, reason) in &loaded.settings.broken {
        let _ = writeln!(out, "broken: {name}: {reason}");
        assert!(!loaded.errors_for(name).is_empty(), "{name} is broken without an error");
    }
    for name in names {
        assert!(loaded.errors_for(name).is_empty(), "{name} is valid despite an error");
    }
    out
}

#[test]
fn every_case_prints_what_is_expected() {
    let bless = std::env::var_os("CASEMATE_BLESS").is_some();
    let mut folders: Vec<PathBuf> =
        fs::read_dir(cases()).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut wrong = Vec::new();
    for folder in folders {
        let printed = print(&load(&sources(&folder), &environment()));
        let file = folder.join("expected.txt");
        if bless {
            fs::write(&file, &printed).unwrap();
        } else if fs::read_to_string(&file).unwrap_or_default() != printed {
            wrong.push(format!("--- {}\n{printed}", folder.display()));
        }
    }
    assert!(wrong.is_empty(), "CASEMATE_BLESS=1 rewrites these:\n{}", wrong.join("\n"));
}

#[test]
fn toml_and_json_mean_the_same() {
    let case = cases().join("complete");
    let toml = load(&sources(&case), &environment());
    let json = load(&sources(&cases().join("complete-json")), &environment());
    assert!(!toml.has_errors() && !json.has_errors());
    let without_places = |loaded: &Loaded| {
        let text = format!("{:#?}", loaded.settings);
        let mut depth = 0;
        // A `Span` prints over five lines.
        text.lines()
            .filter(|line| {
                if line.contains("Span {") {
                    depth = 5;
                }
                depth = (depth - 1).max(-1);
                depth < 0
            })
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(without_places(&toml), without_places(&json));
}
