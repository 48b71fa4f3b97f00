//! `casemate policy eval` answers the vectors as qrexec does, through its standard streams, and the
//! other commands take the system of the vectors without any configuration.

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

/// A command about one policy file and the system of the vectors; what it prints.
fn policy(words: &[&str], text: &str) -> String {
    let folder = tempfile::tempdir().expect("a directory");
    fs::write(folder.path().join("10-a.policy"), text).expect("written");
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/vectors");
    let output = Command::new(env!("CARGO_BIN_EXE_casemate"))
        .arg("policy")
        .args(words)
        .arg("--system-info")
        .arg(vectors.join("qrexec-system-info.json"))
        .arg("--policy-dir")
        .arg(folder.path())
        .env_clear()
        .output()
        .expect("started");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_compartments_can_come_from_a_file() {
    let text = "gpg.Sign * @tag:money vault allow\ngpg.Sign * * @adminvm ask\n";
    let explained = policy(&["explain", "banking", "vault", "gpg.Sign", "--json"], text);
    let explained: Value = serde_json::from_str(&explained).expect("JSON");
    assert_eq!(explained["decision"]["allow"]["target"], "vault");
    assert_eq!(policy(&["check"], text), "the policy is valid: 1 file, 2 rules\n");
    let links = policy(&["graph", "--format", "json"], text);
    let links: Value = serde_json::from_str(&links).expect("JSON");
    let links = links.as_array().expect("a list");
    let link = serde_json::json!({
        "source": "banking", "target": "vault", "service": "gpg.Sign", "verdict": "allow",
    });
    assert!(links.contains(&link), "{links:?}");
    // From each compartment to the host, and no further.
    assert_eq!(links.len(), 1 + 8);
}

#[test]
fn a_drawing_is_well_formed_and_holds_every_name() {
    let svg = policy(&["graph", "--format", "svg"], "* * @anyvm @anyvm allow\n");
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
    for element in ["path", "rect", "text", "title", "marker", "style", "defs"] {
        let opened = svg.matches(&format!("<{element}")).count();
        let closed = svg.matches(&format!("</{element}>")).count();
        // Boxes and the paths of arrows close themselves.
        assert!(
            opened > 0 && (closed == opened || ["rect", "path"].contains(&element)),
            "{element}"
        );
    }
    for name in ["banking", "router", "@dispvm:web-dvm", "@dispvm:mail-dvm"] {
        assert!(svg.contains(&format!(">{name}</text>")), "{name}");
    }
}
