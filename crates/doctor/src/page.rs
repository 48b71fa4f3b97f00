//! The page of all checks, docs/doctor.md, generated from the two tables.

use std::fmt::Write;

use casemate_plan::hardening::{Measure, PROGRAM_FILESYSTEMS, Severity, rows};

use crate::host;

/// All checks of machines and guests, as Markdown.
pub fn page() -> String {
    let mut out = String::from(
        "# What `casemate doctor` looks at\n\nGenerated from the tables of the checks; do not edit \
         (`CASEMATE_BLESS=1 cargo test -p casemate-doctor` rewrites it).\n\n\
         Each finding has a severity. An *error* keeps something from working, or is protection that \
         was asked for and is not there; a *warning* is protection that could be had; a *note* is \
         worth knowing. What could not be looked at is told apart, as *unknown*.\n\n\
         ## The machine: `casemate doctor`\n\n\
         | check | what should be | why | mend | severity |\n|---|---|---|---|---|\n",
    );
    for check in host::checks() {
        let cells = [
            format!("`{}`", check.id),
            check.title.into(),
            check.why.into(),
            check.mend.into(),
            word(check.severity).into(),
        ];
        line(&mut out, &cells);
    }
    out.push_str(
        "\n## A guest: `casemate doctor --guest NAME`\n\n\
         The same table says what `guest.hardening` sets and what is looked at from inside. What was \
         asked for and is not so is an error. Where nothing was asked for, the rows of `standard` are \
         looked at, but for files, with the severity that stands here. What the compartment sets \
         itself, and what its kernel does not have, are notes.\n\n\
         | check | what should be | how | why | from | severity |\n|---|---|---|---|---|---|\n",
    );
    for row in rows() {
        let cells = [
            format!("`{}`", row.id),
            row.title.into(),
            how(&row.measure),
            row.why.into(),
            format!("`{}`", row.level.word()),
            word(row.severity).into(),
        ];
        line(&mut out, &cells);
    }
    out
}

fn line(out: &mut String, cells: &[String]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn how(measure: &Measure) -> String {
    match measure {
        Measure::KernelParameter(word) => format!("kernel parameter `{word}`"),
        Measure::Sysctl { name, value, also } => {
            let also: String = also.iter().map(|value| format!(" or `{value}`")).collect();
            format!("sysctl `{name} = {value}`{}", also.replace(" or ``", " or nothing"))
        }
        Measure::Module(name) => format!("kernel parameter `module_blacklist={name},…`"),
        Measure::File { path, systemd, .. } => {
            format!("file `{path}`{}", if *systemd { ", with systemd" } else { "" })
        }
        Measure::Nosuid => format!(
            "root mounted `nosuid`; looked at: file systems of the types {}",
            PROGRAM_FILESYSTEMS.join(", ")
        ),
        Measure::NoNewPrivs => "`no_new_privs` of each session".into(),
        Measure::NoCoreDumps => "`RLIMIT_CORE` of each session is 0".into(),
        Measure::Allocator => "`guest.allocator`, by `/etc/ld.so.preload`".into(),
    }
}
