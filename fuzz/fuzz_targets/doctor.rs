//! Any bytes as what a guest answers to doctor: the first byte chooses what was asked for.
//!
//! Nothing may panic, and no byte that steers a terminal may come through.
#![no_main]

use casemate_config::{Environment, Format, Origin, Source, load};
use casemate_doctor::guest::{Asked, examine};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, answer)) = data.split_first() else { return };
    let hardening = ["none", "standard", "strict"][usize::from(choice % 3)];
    let source = Source {
        path: "/casemate.toml".into(),
        text: format!(
            "[compartment.a.guest]\nhardening = \"{hardening}\"\nallocator = \"hardened\"\n"
        ),
        format: Format::Toml,
        origin: Origin::User,
    };
    let loaded = load(&[source], &Environment { home: None, user: "alice".into() });
    for compartment in loaded.settings.compartments.values() {
        let Ok(report) = examine(&Asked::by(compartment), answer) else { continue };
        let text = report.print("the guest of `a`");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
});
