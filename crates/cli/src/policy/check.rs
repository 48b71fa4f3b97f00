//! `policy check`: mistakes, rules without effect, names of nothing.

use std::io::{IsTerminal, stderr};

use casemate_config::Diagnostic;

use super::{CONFIGURATION, Judged, texts};
use crate::failure::Problem;
use crate::print_json;
use crate::show::{counted, diagnostics};

pub(super) fn check(judged: &Judged, json: bool) -> Result<u8, Problem> {
    let policy = &judged.read.policy;
    let shadowed = judged.read.shadowed.iter().map(|(path, by)| {
        Diagnostic::warning(format!("{} is not read", path.display()))
            .hint(format!("{} has the same name and takes its place", by.display()))
    });
    let lints = policy.lint(&judged.system);
    // Rules of the user's own that take the place of what is built in are no mistake.
    let own = |found: &Diagnostic| !found.place.is_some_and(|at| judged.read.is_built_in(at));
    let lints = lints.into_iter().filter(own);
    let all: Vec<Diagnostic> =
        policy.diagnostics.iter().cloned().chain(shadowed).chain(lints).collect();
    let errors = all.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let code = if errors > 0 { CONFIGURATION } else { 0 };
    if json {
        let findings = diagnostics(&all, |span| policy.position(span));
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
    let what = format!("{}, {}", counted(files, "file"), counted(rules, "rule"));
    match (errors, all.len() - errors) {
        (0, 0) => outln!("the policy is valid: {what}"),
        (0, warnings) => outln!("the policy is valid: {what}, {}", counted(warnings, "warning")),
        (errors, _) => {
            outln!(
                "{} in {what}; left out, and in the way of all behind:",
                counted(errors, "error")
            );
            for path in texts(&policy.quarantined) {
                outln!("  {path}");
            }
        }
    }
    Ok(code)
}
