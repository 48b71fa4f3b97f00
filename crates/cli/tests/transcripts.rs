//! Transcripts: what the program prints for its help and for each mistake a user can make before
//! a machine is involved.
//!
//! A file `NAME.txt` begins with `$ casemate ARGUMENTS`; below stands what is printed on standard
//! output, then `[stderr]` and what is printed there, then `[exit N]`. `NAME.toml` beside it is the
//! configuration and `NAME.policy` the only file of the folder that `POLICY` stands for.
//! `CASEMATE_BLESS=1` rewrites what is expected.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Who runs the program when root runs the tests: root's places are the machine's own, and what
/// is there is not the tests' business.
const NOBODY: u32 = 65534;

/// Runs one transcript's command in an empty home; returns the transcript as it is now.
fn transcript(path: &Path, first: &str) -> String {
    let home = tempfile::tempdir().expect("a home");
    let config = home.path().join("casemate.toml");
    let toml = path.with_extension("toml");
    if toml.exists() {
        fs::copy(toml, &config).expect("copied");
    }
    let policies = home.path().join("policy.d");
    let policy = path.with_extension("policy");
    if policy.exists() {
        fs::create_dir(&policies).expect("made");
        fs::copy(policy, policies.join("30-test.policy")).expect("copied");
    }
    let home_text = home.path().display().to_string();
    let arguments: Vec<String> = first
        .strip_prefix("$ casemate")
        .expect("begins with the command")
        .split_whitespace()
        .map(|word| word.replace("CONFIG", &config.display().to_string()))
        .map(|word| word.replace("POLICY", &policies.display().to_string()))
        .collect();
    // A copy, because the folder of the build may be closed to others.
    let program = home.path().join("program");
    // By another process: no child of another thread has it open to write when it is to run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_casemate")).arg(&program).status();
    assert!(copied.expect("cp starts").success());
    let mut command = Command::new(&program);
    if nix::unistd::geteuid().is_root() {
        fs::set_permissions(home.path(), Permissions::from_mode(0o755)).expect("set");
        std::os::unix::fs::chown(home.path(), Some(NOBODY), Some(NOBODY)).expect("given away");
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command
        .args(arguments)
        .env_clear()
        .env("HOME", home.path())
        .env("XDG_RUNTIME_DIR", home.path())
        .env("PATH", "/usr/bin:/bin")
        .current_dir(home.path())
        .output()
        .expect("started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&home_text, "HOME");
    let mut all = format!("{first}\n{}", text(&output.stdout));
    let stderr = text(&output.stderr);
    if !stderr.is_empty() {
        all.push_str("[stderr]\n");
        all.push_str(&stderr);
    }
    all.push_str(&format!("[exit {}]\n", output.status.code().unwrap_or(-1)));
    all
}

#[test]
fn the_program_says_what_its_transcripts_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the transcripts") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|kind| kind != "txt") {
            continue;
        }
        count += 1;
        let expected = fs::read_to_string(&path).expect("a transcript");
        let first = expected.lines().next().expect("a first line");
        let found = transcript(&path, first);
        if std::env::var_os("CASEMATE_BLESS").is_some() {
            fs::write(&path, &found).expect("written");
        } else if found != expected {
            wrong.push(format!("{}:\n{found}", path.display()));
        }
    }
    assert!(count >= 20, "only {count} transcripts were found");
    assert!(wrong.is_empty(), "these are not as expected:\n{}", wrong.join("\n"));
}
