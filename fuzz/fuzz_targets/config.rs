//! Any text as a configuration: the first byte chooses syntax and owner, the rest is the file.
//!
//! Nothing may panic, from parsing to rendering to assigning ids, and an error never leaves the
//! compartment it concerns among the valid ones.
#![no_main]

use casemate_config::{AssignedIds, Environment, Format, Origin, Source, load};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let source = Source {
        path: "/etc/casemate/casemate.toml".into(),
        text: text.to_owned(),
        format: if choice & 1 == 0 { Format::Toml } else { Format::Json },
        origin: if choice & 2 == 0 { Origin::System } else { Origin::User },
    };
    let environment = Environment { home: Some("/home/alice".into()), user: "alice".into() };
    // Twice: what is declared in two files takes other paths.
    let sources = match choice & 4 {
        0 => vec![source],
        _ => vec![source.clone(), Source { origin: Origin::User, ..source }],
    };
    let loaded = load(&sources, &environment);
    let _ = loaded.render(choice & 8 == 0);
    for name in loaded.settings.compartments.keys() {
        assert!(loaded.errors_for(name.as_str()).is_empty());
    }
    if let Ok(assigned) = loaded.settings.assign(&AssignedIds::default(), &Default::default()) {
        assert_eq!(loaded.settings.assign(&assigned, &Default::default()).ok(), Some(assigned));
    }
});
