//! What is not a matter of the guest: `list`, memory, sizes of programs.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use super::pipe::call;
use super::samples::Samples;
use super::table::Figure;
use super::{Bed, now, processes};

/// Compartments in the configuration that is listed.
const DECLARED: usize = 100;

/// Pages of the kernel's accounting.
const KIB_IN_MIB: f64 = 1024.0;

/// `casemate list` with many compartments.
pub(super) fn list(bed: &mut Bed, count: usize) -> Result<()> {
    now("`casemate list`");
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("many.toml");
    let mut text = String::new();
    for number in 0..DECLARED {
        let _ = write!(
            text,
            "[compartment.many-{number}]\nmemory = \"512MiB\"\ntags = [\"n{number}\"]\n\n"
        );
    }
    fs::write(&config, text)?;
    let mut samples = Samples::default();
    for _ in 0..count {
        let mut command = Command::new(crate::build::programs().join("casemate"));
        samples.push(call(command.arg("--config").arg(&config).arg("list"))?);
    }
    bed.figures.push(Figure::new(
        "list, 100 declared",
        format!("{:.1} ms", samples.median()),
        "",
        "<= 15 ms",
        samples.median() <= 15.0,
    ));
    bed.raw.insert("list-ms".into(), json!(samples.all()));
    Ok(())
}

/// Memory of the processes beside the virtual machine monitor.
pub(super) fn memory(bed: &mut Bed) -> Result<()> {
    now("memory");
    call(&mut bed.casemate.run(&["true"]))?;
    let status = bed.casemate.status()?;
    let pid = |value: &serde_json::Value| value.as_i64().map(|pid| pid as i32);
    let supervisor = pid(&status["supervisorPid"]).context("the status names no supervisor")?;
    // The status tells the jails' monitors; the link itself is below one.
    let named = processes::names();
    let of = |name: &str| -> Vec<i32> {
        let found = named.iter().filter(|(_, known)| known.starts_with(name));
        found.map(|(pid, _)| *pid).collect()
    };
    let sum = |pids: &[i32]| -> Option<f64> {
        let sizes: Option<Vec<u64>> = pids.iter().map(|&pid| processes::pss(pid)).collect();
        Some(sizes?.iter().sum::<u64>() as f64 / KIB_IN_MIB)
    };
    let (link, jails) = (of("casemate-link"), of("casemate-jail"));
    let name = "memory (PSS), supervisor + link";
    bed.figures.push(match sum(&[&[supervisor], &link[..]].concat()) {
        Some(both) if !link.is_empty() => {
            let beside = match sum(&jails) {
                Some(size) => format!("{size:.1} MiB in {} processes of the jails", jails.len()),
                None => "the jails' processes not measured".into(),
            };
            bed.raw.insert(
                "pss-mib".into(),
                json!({ "supervisor-and-link": both, "jails": sum(&jails) }),
            );
            Figure::new(name, format!("{both:.1} MiB"), beside, "<= 12 MiB", both <= 12.0)
        }
        _ => Figure::unmeasured(name, "only root may look at the memory of jailed processes"),
    });
    Ok(())
}

/// Sizes of the programs, stripped as they are built.
pub(super) fn programs(bed: &mut Bed) -> Result<()> {
    for (name, program, goal, limit) in [
        ("program casemate", "casemate", Some("<= 12 MB"), 12.0),
        ("program casemate-agent", "casemate-agent", Some("<= 3 MB"), 3.0),
        ("program casemate-supervisor", "casemate-supervisor", None, 0.0),
        ("program casemate-link", "casemate-link", None, 0.0),
        ("program casemate-jail", "casemate-jail", None, 0.0),
    ] {
        let size = fs::metadata(crate::build::programs().join(program))?.len() as f64 / 1e6;
        let text = format!("{size:.2} MB");
        bed.figures.push(match goal {
            Some(goal) => Figure::new(name, text, "", goal, size <= limit),
            None => Figure::told(name, text),
        });
    }
    Ok(())
}
