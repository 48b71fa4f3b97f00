//! Everything a contributor runs: `cargo xtask build`, `demo`, `test`, `ci`, ….

mod allocator;
mod bench;
mod build;
mod ci;
mod demo;
mod docs;
mod failure;
mod fuzz;
mod process;
mod setup;
mod steps;
mod test;
mod virtiofsd;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build every program into target/release, the static ones too.
    Build,
    /// Install what is missing, build, and show a compartment at work.
    Demo,
    /// Install what is missing, build, and run every check and test.
    Test(test::Arguments),
    /// What CI runs: every check and test.
    Ci,
    /// Write manual pages, completions and the configuration's reference to target/docs.
    Docs,
    /// Measure casemate beside what it could be compared with.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Fuzz what decodes a guest's bytes, and the configuration.
    Fuzz(fuzz::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Build => build::build(),
        Command::Demo => demo::demo(),
        Command::Test(arguments) => test::test(&arguments),
        Command::Ci => test::test(&test::Arguments::default()),
        Command::Docs => docs::docs(),
        Command::Bench(what) => bench::bench(&what),
        Command::Fuzz(arguments) => fuzz::fuzz(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::from(failure::exit_code(&error))
        }
    }
}
