//! What exists without being declared: templates that come with casemate.
//!
//! They are read as any file is, after all others, and change nothing unless they are named. A
//! declared template takes the place of a shipped one with its name, as a whole.

use crate::source::{Format, Origin, Source};

/// The shipped templates. What each of their settings does: `casemate check --reference`.
pub(crate) const TEMPLATES: &str = r#"# The guest's kernel and programs hardened as far as ordinary programs do not mind.
[template.hardened.guest]
hardening = "standard"
allocator = "hardened-light"
"#;

/// The templates as a file that nobody has to have.
pub(crate) fn source() -> Source {
    Source {
        path: "(shipped with casemate)".into(),
        text: TEMPLATES.into(),
        format: Format::Toml,
        origin: Origin::System,
    }
}
