//! Standard output of the commands that report something. A reader that has gone (`… | head`) wants
//! no more: the program ends then as one ended by SIGPIPE would, without a word.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stdout};

/// Prints to standard output.
macro_rules! out {
    ($($argument:tt)*) => { $crate::output::write(format_args!($($argument)*)) };
}

/// Prints a line to standard output.
macro_rules! outln {
    ($($argument:tt)*) => {
        $crate::output::write(format_args!("{}\n", format_args!($($argument)*)))
    };
}

/// Writes; ends the program when it cannot.
pub(crate) fn write(text: Arguments<'_>) {
    let mut out = stdout();
    if let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) {
        if error.kind() != ErrorKind::BrokenPipe {
            eprintln!("error: could not write to standard output\n  {error}");
        }
        std::process::exit(128 + nix::libc::SIGPIPE);
    }
}
