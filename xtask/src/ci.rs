//! Checks that need a program which not everybody has, and the whole of what CI runs.

use anyhow::Result;

use crate::process::cargo;
use crate::test::Tally;

/// Licences, bans and sources of dependencies, by `deny.toml`. The advisory database is left out:
/// it is no package, and CI may reach packages only.
pub(crate) fn deny(tally: &mut Tally) -> Result<()> {
    const NAME: &str = "cargo deny";
    if !cargo().args(["deny", "--version"]).output()?.status.success() {
        tally.skip(NAME, "it is not installed (cargo install --locked cargo-deny)");
        return Ok(());
    }
    let words = ["deny", "--workspace", "check", "licenses", "bans", "sources"];
    tally.check(NAME, cargo().args(words).status()?.success());
    Ok(())
}
