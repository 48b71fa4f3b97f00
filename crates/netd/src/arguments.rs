//! The command line. Parsed by hand: it has four options.

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
casemate-netd: links of compartments to this machine's network, for users whom root lets have them

  casemate-netd [OPTION ...]            serves the socket that systemd hands over
  casemate-netd --listen PATH ...       makes the socket itself
  casemate-netd repair [OPTION ...]     removes what a helper that was killed left

  --config PATH   a file or folder in place of /etc/casemate
  --state PATH    where it keeps what outlives it (default: /run/casemate-netd)
  --user NAME     the user it becomes when root starts it (default: casemate-netd)
";

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Serve requests.
    Serve,
    /// Mend, and end.
    Repair,
    /// Print the help.
    Help,
    /// A child: answer a guest's questions for names.
    Questions,
    /// A child: resolve names of rules.
    Names,
}

/// All that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    /// What is to be done.
    pub(crate) task: Task,
    /// Where to listen; systemd says it when none.
    pub(crate) listen: Option<PathBuf>,
    /// The configuration, in place of the system's.
    pub(crate) config: Option<PathBuf>,
    /// Where it keeps what outlives it.
    pub(crate) state: PathBuf,
    /// Whom it becomes.
    pub(crate) user: String,
    /// Of a child: the process that started it.
    pub(crate) parent: i32,
    /// Of a child that answers questions: who is asked in turn.
    pub(crate) server: Ipv4Addr,
}

impl Arguments {
    /// Reads them.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub(crate) fn read(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut found = Self {
            task: Task::Serve,
            listen: None,
            config: None,
            state: "/run/casemate-netd".into(),
            user: "casemate-netd".into(),
            parent: 0,
            server: Ipv4Addr::UNSPECIFIED,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value; see --help"));
            let mut path = || value().and_then(|text| absolute(&text));
            match word.as_str() {
                "repair" => found.task = Task::Repair,
                "--help" | "-h" => found.task = Task::Help,
                "--listen" => found.listen = Some(path()?),
                "--config" => found.config = Some(path()?),
                "--state" => found.state = path()?,
                "--user" => found.user = value()?,
                "questions" | "names" => {
                    found.task = if word == "names" { Task::Names } else { Task::Questions };
                    let parent = words.next().and_then(|text| text.parse().ok());
                    found.parent = parent.ok_or("a child is started by the helper alone")?;
                    if found.task == Task::Questions {
                        let server = words.next().and_then(|text| text.parse().ok());
                        found.server = server.ok_or("a child is started by the helper alone")?;
                    }
                }
                _ => return Err(format!("`{word}` is not known; see --help")),
            }
        }
        Ok(found)
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(format!("{text} is no absolute path")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Arguments, String> {
        Arguments::read(line.split_whitespace().map(String::from))
    }

    #[test]
    fn options_are_read_and_unknown_ones_refused() {
        let found = read("--listen /a --config /b --state /c --user nobody").expect("known");
        assert_eq!(found.task, Task::Serve);
        assert_eq!(found.listen, Some("/a".into()));
        assert_eq!((found.state, found.user.as_str()), ("/c".into(), "nobody"));
        assert_eq!(read("repair").expect("known").task, Task::Repair);
        for wrong in ["--listen", "--listen a", "--unknown", "questions", "names x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
