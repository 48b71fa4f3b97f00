//! `casemate policy eval` answers the vectors as qrexec does, through its standard streams.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn eval(input: &Path) -> Output {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/vectors");
    Command::new(env!("CARGO_BIN_EXE_casemate"))
        .args(["policy", "eval", "--system-info"])
        .arg(vectors.join("qrexec-system-info.json"))
        .env_clear()
        .stdin(File::open(vectors.join(input)).expect("vectors"))
        .output()
        .expect("started")
}

#[test]
fn every_vector_comes_back_with_its_answer() {
    let output = eval(Path::new("qrexec-policy.jsonl"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/vectors");
    let wanted = fs::read_to_string(vectors.join("qrexec-policy.jsonl")).expect("vectors");
    let found = String::from_utf8(output.stdout).expect("text");
    assert_eq!(found.lines().count(), wanted.lines().count());
    for (found, wanted) in found.lines().zip(wanted.lines()) {
        let found: Value = serde_json::from_str(found).expect("JSON");
        let wanted: Value = serde_json::from_str(wanted).expect("JSON");
        assert_eq!(found["id"], wanted["id"]);
        assert_eq!(found["expect"], wanted["expect"], "{wanted}");
    }
}

#[test]
fn what_is_no_vector_is_named_by_its_line() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("input");
    fs::write(&path, "\n{\"id\": 1, \"files\": {}}\n").expect("written");
    let output = eval(&path);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.starts_with("error: line 2 of standard input is no test vector\n"), "{text}");
}
