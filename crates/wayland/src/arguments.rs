//! The command line.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::settings;

/// What `--help` prints.
pub const HELP: &str = "\
Shows the windows of one compartment inside a border.

Usage: casemate-wayland --compartment NAME --color RRGGBB (--listen SOCKET | --listen-fd N)
                        [--upstream DISPLAY | --upstream-fd N] [--label TEXT]
                        [--control SOCKET | --control-listen-fd N | --control-fd N]
                        [--allow-fullscreen] [--allow activation,constraints]

  --compartment NAME   before each title and in each app_id
  --color RRGGBB       of the border
  --label TEXT         in the border; the name when it is not given
  --listen SOCKET      where clients connect: a path that is made
  --listen-fd N        the same, a socket that listens already
  --upstream DISPLAY   the compositor: a path, or a name in $XDG_RUNTIME_DIR; $WAYLAND_DISPLAY
                       when it is not given
  --upstream-fd N      a socket on which connections to the compositor are asked for: `?` is
                       answered by `+` with a descriptor, or by `-`
  --control SOCKET     where the clipboard's broker connects: a path that is made
  --control-listen-fd N  the same, a socket that listens already
  --control-fd N       the broker's end is connected; this program ends with it
  --allow-fullscreen   windows may be fullscreen, still inside their border
  --allow LIST         activation: windows may ask for the focus; constraints: windows may hold
                       the pointer
";

/// A socket that is made, or one that was inherited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A path.
    Path(PathBuf),
    /// A descriptor.
    Fd(RawFd),
    /// A descriptor of a socket that listens, where one may be connected as well.
    Listener(RawFd),
}

/// The command line, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// The compartment's name.
    pub compartment: String,
    /// Of the border.
    pub color: [u8; 3],
    /// In the border.
    pub label: String,
    /// Where clients connect.
    pub listen: Place,
    /// The compositor; none for `$WAYLAND_DISPLAY`.
    pub upstream: Option<Place>,
    /// The broker.
    pub control: Option<Place>,
    /// Windows may be fullscreen.
    pub allow_fullscreen: bool,
    /// Windows may ask for the focus.
    pub allow_activation: bool,
    /// Windows may hold the pointer.
    pub allow_constraints: bool,
}

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// Not one of ours.
    #[error("`{0}` is no option of this program")]
    Unknown(String),
    /// Nothing behind an option.
    #[error("{0} needs a value")]
    Missing(&'static str),
    /// A value that cannot be.
    #[error("{option} cannot be `{value}`: {why}")]
    Value {
        /// Of which option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What it should be.
        why: &'static str,
    },
    /// Given twice, or two that mean the same.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// Not there.
    #[error("{0} is missing")]
    Needed(&'static str),
}

/// Reads a command line, without the program's name.
///
/// # Errors
/// See [`ArgumentError`].
pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, ArgumentError> {
    let mut words = words.into_iter();
    let (mut compartment, mut color, mut label) = (None, None, None);
    let (mut listen, mut upstream, mut control) = (None, None, None);
    let (mut fullscreen, mut activation, mut constraints) = (false, false, false);
    while let Some(word) = words.next() {
        let mut value = |option| words.next().ok_or(ArgumentError::Missing(option));
        match word.to_str() {
            Some("--compartment") => {
                let name = text("--compartment", value("--compartment")?)?;
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
                if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
                    let why = "1 to 64 letters, digits, `-`, `_` and `.`";
                    return Err(wrong("--compartment", name, why));
                }
                once("--compartment", &mut compartment, name)?;
            }
            Some("--color") => {
                let given = text("--color", value("--color")?)?;
                let read = settings::color(&given);
                let read = read.ok_or_else(|| wrong("--color", given, "six hexadecimal digits"))?;
                once("--color", &mut color, read)?;
            }
            Some("--label") => once("--label", &mut label, text("--label", value("--label")?)?)?,
            Some("--listen") => once("--listen", &mut listen, path(value("--listen")?))?,
            Some("--listen-fd") => {
                once("--listen", &mut listen, number("--listen-fd", value("--listen-fd")?)?)?;
            }
            Some("--upstream") => once("--upstream", &mut upstream, path(value("--upstream")?))?,
            Some("--upstream-fd") => {
                let fd = number("--upstream-fd", value("--upstream-fd")?)?;
                once("--upstream", &mut upstream, fd)?;
            }
            Some("--control") => once("--control", &mut control, path(value("--control")?))?,
            Some("--control-fd") => {
                let fd = number("--control-fd", value("--control-fd")?)?;
                once("--control", &mut control, fd)?;
            }
            Some("--control-listen-fd") => {
                let option = "--control-listen-fd";
                let Place::Fd(fd) = number(option, value(option)?)? else {
                    return Err(ArgumentError::Missing(option));
                };
                once("--control", &mut control, Place::Listener(fd))?;
            }
            Some("--allow-fullscreen") => fullscreen = true,
            Some("--allow") => {
                for word in text("--allow", value("--allow")?)?.split(',') {
                    match word {
                        "activation" => activation = true,
                        "constraints" => constraints = true,
                        other => {
                            let why = "activation, constraints or both with a comma";
                            return Err(wrong("--allow", other.into(), why));
                        }
                    }
                }
            }
            _ => return Err(ArgumentError::Unknown(word.to_string_lossy().into_owned())),
        }
    }
    let compartment: String = compartment.ok_or(ArgumentError::Needed("--compartment"))?;
    Ok(Arguments {
        color: color.ok_or(ArgumentError::Needed("--color"))?,
        label: label.unwrap_or_else(|| compartment.clone()),
        compartment,
        listen: listen.ok_or(ArgumentError::Needed("--listen or --listen-fd"))?,
        upstream,
        control,
        allow_fullscreen: fullscreen,
        allow_activation: activation,
        allow_constraints: constraints,
    })
}

fn once<T>(option: &'static str, place: &mut Option<T>, value: T) -> Result<(), ArgumentError> {
    match place.replace(value) {
        Some(_) => Err(ArgumentError::Twice(option)),
        None => Ok(()),
    }
}

fn wrong(option: &'static str, value: String, why: &'static str) -> ArgumentError {
    ArgumentError::Value { option, value, why }
}

fn text(option: &'static str, value: OsString) -> Result<String, ArgumentError> {
    value
        .into_string()
        .map_err(|value| wrong(option, value.to_string_lossy().into_owned(), "text in UTF-8"))
}

fn path(value: OsString) -> Place {
    Place::Path(value.into())
}

fn number(option: &'static str, value: OsString) -> Result<Place, ArgumentError> {
    let value = text(option, value)?;
    match value.parse() {
        Ok(fd @ 3..) => Ok(Place::Fd(fd)),
        _ => Err(wrong(option, value, "the number of an inherited descriptor, 3 or more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Arguments, ArgumentError> {
        read(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn a_short_line_has_sensible_defaults() {
        let read = words("--compartment banking --color #cc0000 --listen /run/x").expect("valid");
        assert_eq!((read.label.as_str(), read.color), ("banking", [0xcc, 0, 0]));
        assert_eq!(read.listen, Place::Path("/run/x".into()));
        assert!(read.upstream.is_none() && !read.allow_fullscreen && !read.allow_activation);
    }

    #[test]
    fn what_is_missing_wrong_or_twice_is_named() {
        for (line, error) in [
            ("--color 112233 --listen /x", "--compartment is missing"),
            ("--compartment a --listen /x", "--color is missing"),
            ("--compartment a --color 112233", "--listen or --listen-fd is missing"),
            ("--color red", "--color cannot be `red`: six hexadecimal digits"),
            ("--listen /x --listen-fd 3", "--listen is given twice"),
            (
                "--listen-fd 2",
                "--listen-fd cannot be `2`: the number of an inherited descriptor, 3 or more",
            ),
            (
                "--allow all",
                "--allow cannot be `all`: activation, constraints or both with a comma",
            ),
            ("--label", "--label needs a value"),
            ("--verbose", "`--verbose` is no option of this program"),
        ] {
            assert_eq!(words(line).expect_err(line).to_string(), error);
        }
        let slash = words("--compartment a/b").expect_err("a slash").to_string();
        assert!(slash.starts_with("--compartment cannot be `a/b`"), "{slash}");
    }
}
