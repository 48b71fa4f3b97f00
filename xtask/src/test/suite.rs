//! The test programs of the workspace: built by cargo, run one after the other.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::harness::{Outcome, Reader, Show};
use crate::process::{cargo, find, output};
use crate::steps::seconds;

/// A test program.
#[derive(Clone, Debug)]
pub(crate) struct Suite {
    /// Package and target: `casemate-wire lib`.
    pub(crate) name: String,
    /// The program.
    pub(crate) executable: PathBuf,
    /// The package's folder, where cargo would run it.
    pub(crate) directory: PathBuf,
}

/// How to run a test program.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    /// Tests whose names contain one of these; all when empty.
    pub(crate) filter: Vec<String>,
    /// Tests at a time.
    pub(crate) threads: usize,
    /// Every test is worth a line.
    pub(crate) each: bool,
    /// The longest a program may take.
    pub(crate) limit: Duration,
    /// Added to the environment.
    pub(crate) environment: Vec<(&'static str, OsString)>,
    /// Words before the program, which become somebody else.
    pub(crate) before: Vec<OsString>,
}

/// Builds the test programs of what `selection` (options of cargo) names.
pub(crate) fn build(selection: &[&str]) -> Result<Vec<Suite>> {
    let mut command = cargo();
    command.args(["test", "--locked", "--no-run", "--message-format=json-render-diagnostics"]);
    let messages = output(command.args(selection))?;
    let mut suites: Vec<Suite> =
        messages.lines().filter_map(|line| suite(&serde_json::from_str(line).ok()?)).collect();
    suites.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(suites)
}

/// The test program of a compiler-artifact message of cargo.
fn suite(message: &Value) -> Option<Suite> {
    if message["profile"]["test"] != true {
        return None;
    }
    let directory = Path::new(message["manifest_path"].as_str()?).parent()?;
    let package = directory.file_name()?.to_str()?;
    let target = &message["target"];
    let kind = target["kind"][0].as_str()?;
    let name = match kind {
        "lib" => format!("{package} lib"),
        kind => format!("{package} {kind} {}", target["name"].as_str()?),
    };
    let executable = message["executable"].as_str()?.into();
    Some(Suite { name, executable, directory: directory.into() })
}

impl Suite {
    /// Runs it, shows how it goes, and says what became of it.
    pub(crate) fn run(&self, runs: &Runs) -> Result<Outcome> {
        let begin = Instant::now();
        let mut command = self.command(runs)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start {}", self.executable.display()))?;
        let lines = BufReader::new(child.stdout.take().context("no output")?);
        if runs.each {
            println!("  {}", self.name);
        }
        let mut reader = Reader::new();
        for line in lines.split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            match reader.line(&line) {
                Show::Failure => println!("    {line}"),
                Show::Progress if runs.each || line.ends_with("FAILED") => println!("    {line}"),
                Show::Progress | Show::Nothing => {}
            }
            let _ = stdout().flush();
        }
        let status = child.wait()?;
        let outcome = reader.outcome(status.success());
        if status.code() == Some(TIMED_OUT) {
            println!("    {} took longer than {}", self.name, seconds(runs.limit));
        }
        let Outcome { passed, failed, ref skipped } = outcome;
        if passed + failed + skipped.len() > 0 {
            println!(
                "  {:<44} {passed:>4} passed {failed:>3} failed {:>3} skipped  {:>8}",
                self.name,
                skipped.len(),
                seconds(begin.elapsed())
            );
        }
        Ok(outcome)
    }

    fn command(&self, runs: &Runs) -> Result<Command> {
        let mut words = runs.before.clone();
        // Ends with us, however we end; `timeout` passes the signal on to all it has started.
        for word in ["setpriv", "--pdeathsig", "TERM", "--", "timeout", "--kill-after=10"] {
            words.push(word.into());
        }
        words.push(runs.limit.as_secs().to_string().into());
        words.push(self.executable.clone().into());
        words.extend(runs.filter.iter().map(OsString::from));
        words.push("--show-output".into());
        words.push(format!("--test-threads={}", runs.threads).into());
        let program = find(&words[0].to_string_lossy());
        let program =
            program.with_context(|| format!("{} is not installed", words[0].display()))?;
        ensure!(self.executable.exists(), "{} is gone", self.executable.display());
        let mut command = Command::new(program);
        command.args(&words[1..]).envs(runs.environment.iter().cloned());
        // Another user may not enter our folders.
        if runs.before.is_empty() {
            command.current_dir(&self.directory);
        }
        Ok(command)
    }
}

/// Exit code of timeout(1) when the time was up.
const TIMED_OUT: i32 = 124;
