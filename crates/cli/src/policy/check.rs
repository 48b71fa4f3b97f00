//! `policy check`: mistakes, rules without effect, names of nothing.

use std::io::{IsTerminal, stderr};

use casemate_config::Diagnostic;

use super::{CONFIGURATION, Judged, texts};
use crate::failure::Problem;
use crate::print_json;

pub(super) fn check(judged: &Judged, json: bool) -> Result<u8, Problem> {
    let policy = &judged.read.policy;
    let shadowed = judged.read.shadowed.iter().map(|(path, by)| {
        Diagnostic::warning(format!("{} is not read", path.display()))
            .hint(format!("{} has the same name and takes its place", by.display()))
    });
    let lints = policy.lint(&judged.system);
    let all: Vec<Diagnostic> =
        policy.diagnostics.iter().cloned().chain(shadowed).chain(lints).collect();
    let errors = all.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let code = if errors > 0 { CONFIGURATION } else { 0 };
    if json {
        let findings: Vec<_> = all
            .iter()
            .map(|diagnostic| {
                let place = diagnostic.place.and_then(|span| policy.position(span));
                serde_json::json!({
                    "severity": if diagnostic.is_error() { "error" } else { "warning" },
                    "message": diagnostic.message,
                    "hint": diagnostic.hint,
                    "file": place.map(|(path, _, _)| path.display().to_string()),
                    "line": place.map(|(_, line, _)| line),
                    "column": place.map(|(_, _, column)| column),
                })
            })
            .collect();
        print_json(&serde_json::json!({
            "findings": findings,
            "quarantined": texts(&policy.quarantined),
            "rules": policy.rules.len() - policy.quarantined.len(),
        }))?;
        return Ok(code);
    }
    let references: Vec<&Diagnostic> = all.iter().collect();
    let text = policy.render(&references, stderr().is_terminal());
    if !text.is_empty() {
        eprintln!("{}", text.trim_end());
    }
    crate::say_notes(&judged.notes);
    let files = policy.documents.len();
    let rules = policy.rules.len() - policy.quarantined.len();
    let counted = format!("{}, {}", number(files, "file"), number(rules, "rule"));
    match (errors, all.len() - errors) {
        (0, 0) => outln!("the policy is valid: {counted}"),
        (0, warnings) => outln!("the policy is valid: {counted}, {}", number(warnings, "warning")),
        (errors, _) => {
            outln!(
                "{} in {counted}; left out, and in the way of all behind:",
                number(errors, "error")
            );
            for path in texts(&policy.quarantined) {
                outln!("  {path}");
            }
        }
    }
    Ok(code)
}

/// `1 rule`, `2 rules`.
fn number(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
