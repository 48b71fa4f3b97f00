//! The page in the documentation is the one the tables give.
#![allow(clippy::disallowed_methods)] // tests read files and the environment

#[test]
fn page_of_the_documentation_is_what_the_tables_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/doctor.md");
    let page = casemate_doctor::page();
    if std::env::var_os("CASEMATE_BLESS").is_some() {
        std::fs::write(path, &page).expect("written");
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page, "docs/doctor.md is not what CASEMATE_BLESS=1 would write");
}
