//! The graph as lines of text.

use std::fmt::Write;

use super::{Graph, harmless};

impl Graph {
    /// For each caller its targets, and for each of those what it may be called for.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let bundles = self.bundles();
        let width = bundles.keys().map(|key| key.1.to_string().chars().count()).max().unwrap_or(0);
        let mut last = None;
        for ((source, target, verdict), services) in &bundles {
            if last != Some(*source) {
                let _ = writeln!(
                    out,
                    "{}{}",
                    if last.is_some() { "\n" } else { "" },
                    harmless(&source.to_string())
                );
                last = Some(*source);
            }
            let target = harmless(&target.to_string());
            let services = harmless(&services.join(", "));
            let _ = writeln!(out, "  {target:width$}  {:5}  {services}", verdict.name());
        }
        out
    }
}
