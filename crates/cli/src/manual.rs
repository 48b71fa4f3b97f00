//! `casemate man`: one page for the program and one for each command.

use std::path::Path;

use clap::CommandFactory;

use crate::arguments::Arguments;
use crate::failure::Problem;

/// Writes the pages to `directory` and prints their paths.
pub(crate) fn write(directory: &Path) -> Result<u8, Problem> {
    let failed = |error: std::io::Error| {
        Problem::new(format!("could not write to {}", directory.display())).because(&error)
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let mut command = Arguments::command();
    command.build();
    clap_mangen::generate_to(command, directory).map_err(failed)?;
    outln!("{}", directory.display());
    Ok(0)
}
