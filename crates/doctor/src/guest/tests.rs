//! Answers of guests: as they should be, otherwise, and hostile.

use std::collections::BTreeMap;

use casemate_plan::hardening::ALLOCATOR_PATH;

use super::*;

fn asked(level: Option<Level>) -> Asked {
    Asked {
        name: "demo".into(),
        level,
        init: GuestInit::Systemd,
        allocator: Allocator::HardenedLight,
        sysctls: BTreeSet::new(),
        parameters: BTreeSet::new(),
        files: BTreeSet::new(),
    }
}

/// What a guest answers in which everything is as these rows have it.
fn answer(asked: &Asked) -> String {
    let rows = asked.rows();
    let modules: Vec<&str> = rows
        .iter()
        .filter_map(|row| match row.measure {
            Measure::Module(name) => Some(name),
            _ => None,
        })
        .collect();
    let mut words: Vec<String> = rows
        .iter()
        .filter_map(|row| match row.measure {
            Measure::KernelParameter(word) => Some(word.into()),
            _ => None,
        })
        .collect();
    words.push(format!("module_blacklist={}", modules.join(",")));
    let mut text = String::new();
    let mut tell = |file: &str, content: &str| {
        text.push_str(&format!("@{file}\n"));
        content.lines().for_each(|line| text.push_str(&format!("{file}:{line}\n")));
    };
    tell(COMMAND_LINE, &words.join(" "));
    tell(MODULES, "erofs 1 0 - Live");
    tell(
        MOUNTS,
        "overlay / overlay rw,nosuid 0 0\ntmpfs /tmp tmpfs rw,nosuid,nodev 0 0\nproc /proc proc rw 0 0",
    );
    tell(LIMITS, "Max core file size        0                    0                    bytes");
    tell(STATUS, "NoNewPrivs:\t1");
    tell(MAPS, &format!("7f00-7f01 r-xp 0 00:16 3   {ALLOCATOR_PATH}"));
    let mut settings = BTreeMap::new();
    for row in &rows {
        match row.measure {
            // The stricter stands behind.
            Measure::Sysctl { name, value, .. } => drop(settings.insert(name, value)),
            Measure::File { path, content, .. } => tell(path, content),
            _ => {}
        }
    }
    for (name, value) in settings {
        tell(&sysctl_file(name), value);
    }
    text + ".\n"
}

fn of<'r>(report: &'r Report, id: &str) -> &'r Finding {
    report.findings.iter().find(|finding| finding.id == id).expect("a finding")
}

#[test]
fn every_row_is_asked_for_and_good_when_it_is_as_it_should_be() {
    for level in [None, Some(Level::Standard), Some(Level::Strict)] {
        let asked = asked(level);
        let report = examine(&asked, answer(&asked).as_bytes()).expect("an answer");
        assert_eq!(report.findings, []);
        assert_eq!(report.unseen, []);
        assert_eq!(report.good.len(), asked.rows().len());
        let question = question(&asked).join(" ");
        for row in asked.rows() {
            if let Measure::Sysctl { name, .. } = row.measure {
                assert!(question.contains(&sysctl_file(name)), "{name}");
            }
        }
    }
    let strict = asked(Some(Level::Strict)).rows();
    assert_eq!(strict.len(), rows().len());
}

#[test]
fn what_was_asked_for_and_is_not_so_is_an_error() {
    let asked = asked(Some(Level::Standard));
    let answer = answer(&asked)
        .replace("/kernel/kptr_restrict:2", "/kernel/kptr_restrict:0")
        .replace("rw,nosuid 0 0", "rw 0 0")
        .replace("slab_nomerge", "")
        .replace("erofs 1", "dccp 1")
        .replace("init_on_alloc=1", "init_on_alloc=1 init_on_alloc=0")
        .replace(ALLOCATOR_PATH, "/usr/lib/libc.so.6")
        .replace("NoNewPrivs:\t1", "NoNewPrivs:\t0");
    let report = examine(&asked, answer.as_bytes()).expect("an answer");
    let found = |id: &str| (of(&report, id).severity, of(&report, id).found.as_str());
    assert_eq!(found("sysctl-kernel-kptr-restrict").0, Severity::Error);
    assert_eq!(found("mount-nosuid"), (Severity::Error, "without nosuid: /"));
    assert_eq!(found("kernel-slab-nomerge").0, Severity::Error);
    assert_eq!(found("module-dccp"), (Severity::Error, "dccp is loaded"));
    assert_eq!(found("kernel-init-on-alloc"), (Severity::Error, "init_on_alloc=0"));
    assert_eq!(found("allocator").0, Severity::Error);
    assert_eq!(found("session-no-new-privs").0, Severity::Error);
    assert_eq!(report.findings.len(), 7);
}

#[test]
fn without_hardening_its_absence_is_no_error() {
    let mut asked = asked(None);
    let answer = answer(&asked).replace("/kernel/kptr_restrict:2", "/kernel/kptr_restrict:0");
    asked.allocator = Allocator::Default;
    let report = examine(&asked, answer.as_bytes()).expect("an answer");
    assert!(!report.has_errors());
    let finding = of(&report, "sysctl-kernel-kptr-restrict");
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.mend.contains("guest.hardening = \"standard\""), "{}", finding.mend);
}

#[test]
fn own_settings_and_lacking_ones_are_notes() {
    let mut asked = asked(Some(Level::Standard));
    asked.sysctls.insert("kernel.sysrq".into());
    asked.parameters.insert("init_on_alloc".into());
    let answer = answer(&asked)
        .replace("/kernel/sysrq:0", "/kernel/sysrq:1")
        .replace("init_on_alloc=1", "init_on_alloc=0")
        .replace(
            "@/proc/sys/dev/tty/legacy_tiocsti\n/proc/sys/dev/tty/legacy_tiocsti:0",
            "!/proc/sys/dev/tty/legacy_tiocsti",
        );
    let report = examine(&asked, answer.as_bytes()).expect("an answer");
    assert_eq!(report.findings.len(), 3);
    assert!(report.findings.iter().all(|finding| finding.severity == Severity::Note));
    assert!(of(&report, "sysctl-kernel-sysrq").mend.contains("guest.sysctls"));
    assert!(of(&report, "sysctl-dev-tty-legacy-tiocsti").found.contains("no dev.tty"));
}

#[test]
fn what_the_guest_does_not_tell_is_unknown_and_not_good() {
    let asked = asked(Some(Level::Standard));
    let report = examine(&asked, b".\n").expect("an answer");
    assert!(report.good.is_empty());
    assert_eq!(report.unseen.len(), asked.rows().len());
}

#[test]
fn answers_that_are_none_are_refused() {
    let asked = asked(None);
    for (answer, error) in [
        ("", AnswerError::NoEnd),
        ("@/proc/cmdline\n/proc/cmdline:x\n", AnswerError::NoEnd),
        ("sh: not found\n.\n", AnswerError::Line(1)),
        ("/proc/cmdline:before it was named\n.\n", AnswerError::Line(1)),
        ("!/proc/cmdline\n/proc/cmdline:not readable\n.\n", AnswerError::Line(2)),
        ("@/proc/cmdline\n\n.\n", AnswerError::Line(2)),
        (".\n@/proc/cmdline\n", AnswerError::Line(2)),
        ("..\n", AnswerError::Line(1)),
    ] {
        assert_eq!(examine(&asked, answer.as_bytes()), Err(error), "{answer:?}");
    }
}

#[test]
fn what_a_guest_writes_steers_no_terminal() {
    let asked = asked(Some(Level::Standard));
    let evil = format!("/kernel/sysrq:\u{1b}[2J\u{202e}{}", "x".repeat(9000));
    let answer = answer(&asked).replace("/kernel/sysrq:0", &evil);
    let report = examine(&asked, answer.as_bytes()).expect("an answer");
    let text = report.print("demo");
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    assert!(of(&report, "sysctl-kernel-sysrq").found.len() < 300);
}

proptest::proptest! {
    #[test]
    fn damaged_answer_is_refused_or_shown_harmlessly(
        changes in proptest::collection::vec((0..8000_usize, proptest::num::u8::ANY), 1..20),
    ) {
        let asked = asked(Some(Level::Strict));
        let mut answer = answer(&asked).into_bytes();
        for (at, byte) in changes {
            let at = at % answer.len();
            answer[at] = byte;
        }
        if let Ok(report) = examine(&asked, &answer) {
            let text = report.print("demo");
            proptest::prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
            let looked_at = report.good.len() + report.findings.len() + report.unseen.len();
            proptest::prop_assert_eq!(looked_at, asked.rows().len());
        }
    }

    #[test]
    fn no_answer_is_a_panic(answer: Vec<u8>, lines: Vec<String>) {
        let asked = asked(Some(Level::Strict));
        let _ = examine(&asked, &answer);
        let text = lines.iter().map(|line| format!("@{line}\n{line}:{line}\n")).collect::<String>();
        let _ = examine(&asked, format!("{text}.\n").as_bytes());
    }
}
