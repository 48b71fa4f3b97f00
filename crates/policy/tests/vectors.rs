//! The vectors: 1500 calls with the answers of qrexec's own implementation, without a difference.

use casemate_policy::System;
use casemate_policy::vectors::Case;

const SYSTEM: &str = include_str!("vectors/qrexec-system-info.json");
const CASES: &str = include_str!("vectors/qrexec-policy.jsonl");

#[test]
fn every_vector_is_answered_as_qrexec_answers_it() {
    let system = System::from_json(SYSTEM).expect("a system");
    let mut different = Vec::new();
    let mut count = 0;
    for line in CASES.lines() {
        let case = Case::read(line).expect("a case");
        let answer = case.answer(&system);
        assert_eq!(answer["id"], case.id);
        if answer["expect"] != case.expect {
            different.push(format!("{}\n  wanted {}\n  found  {}", line, case.expect, answer));
        }
        count += 1;
    }
    assert_eq!(count, 1500);
    assert!(different.is_empty(), "{} differences:\n{}", different.len(), different.join("\n"));
}
