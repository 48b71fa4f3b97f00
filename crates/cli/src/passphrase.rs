//! Asking for passphrases at the terminal, never on standard input, which may be a command's.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;

use casemate_supervise::secrets::{IDENTITY, SECRETS};
use casemate_supervise::volumes::{PassphraseNeeded, Passphrases};
use casemate_volume::Secret;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use crate::failure::Problem;

/// Times one passphrase may be wrong.
const TRIES: u32 = 3;

/// What the user has typed for one start.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    passphrases: Passphrases,
    any: bool,
    wrong: u32,
}

impl Asked {
    /// Asks for a passphrase that a start needs.
    ///
    /// # Errors
    /// There is no terminal, it was wrong too often, or two that should be alike are not.
    pub(crate) fn ask(&mut self, name: &str, needed: &PassphraseNeeded) -> Result<(), Problem> {
        let volume = match needed.volume.as_str() {
            IDENTITY => "the age identity".to_owned(),
            SECRETS => format!("the secrets of {name}"),
            volume => format!("{name}/{volume}"),
        };
        if needed.wrong {
            self.wrong += 1;
            if self.wrong >= TRIES {
                return Err(Problem::new(format!(
                    "could not open {}: the passphrase was wrong {TRIES} times",
                    needed.what()
                )));
            }
            eprintln!("That is not the passphrase of {volume}.");
        }
        let typed = passphrase(&volume, needed.new)?;
        self.passphrases.set(&needed.volume, typed);
        self.any = true;
        Ok(())
    }

    /// The line a supervisor reads; none when nothing was typed.
    pub(crate) fn line(&self) -> Option<Secret> {
        let line = self.any.then(|| serde_json::to_vec(&self.passphrases).ok())??;
        Some(Secret::new([line, b"\n".to_vec()].concat()))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.passphrases.wipe();
    }
}

/// Asks for a secret, twice.
///
/// # Errors
/// There is no terminal, or the two are not alike.
pub(crate) fn secret(name: &str) -> Result<String, Problem> {
    let terminal = terminal(name)?;
    let first = read(&terminal, &format!("New secret {name}: "))?;
    if first != read(&terminal, "The same again: ")? {
        return Err(Problem::new("the two secrets are not alike").hint("try again"));
    }
    Ok(first)
}

/// Asks for the passphrase of a volume; for a new one twice.
///
/// # Errors
/// There is no terminal, or the two are not alike.
pub(crate) fn passphrase(volume: &str, new: bool) -> Result<String, Problem> {
    let terminal = terminal(&format!("the passphrase of {volume}"))?;
    if !new {
        return read(&terminal, &format!("Passphrase of {volume}: "));
    }
    let first = read(&terminal, &format!("New passphrase for {volume}: "))?;
    if first.is_empty() {
        return Err(Problem::new("an empty passphrase protects nothing").hint("choose another"));
    }
    let second = read(&terminal, "The same again: ")?;
    if first != second {
        return Err(Problem::new("the two passphrases are not alike").hint("try again"));
    }
    Ok(first)
}

fn terminal(what: &str) -> Result<File, Problem> {
    OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|error| {
        Problem::new(format!("could not ask for {what}: there is no terminal"))
            .because(&error)
            .hint("run the command at a terminal")
    })
}

/// Reads a line without showing it.
fn read(terminal: &File, prompt: &str) -> Result<String, Problem> {
    // Hidden first: who sees the question may type at once.
    let hidden = Hidden::hide(terminal)?;
    (&*terminal).write_all(prompt.as_bytes())?;
    let mut line = String::new();
    let count = BufReader::new(terminal).read_line(&mut line)?;
    drop(hidden);
    (&*terminal).write_all(b"\n")?;
    if count == 0 {
        return Err(Problem::new("no passphrase was typed"));
    }
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden<'t> {
    terminal: &'t File,
    before: Termios,
}

impl<'t> Hidden<'t> {
    fn hide(terminal: &'t File) -> std::io::Result<Self> {
        let before = tcgetattr(terminal.as_fd())?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(terminal.as_fd(), SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(self.terminal.as_fd(), SetArg::TCSAFLUSH, &self.before);
    }
}
