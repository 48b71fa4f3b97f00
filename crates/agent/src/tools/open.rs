//! `casemate-open-in-vm FILE`: opens a file in another compartment, by default a fresh disposable, and
//! takes what was changed there; and the service that opens it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use casemate_files::{
    Decoder, Limits, Original, Place, ReplaceError, Replaced, Sender, Sum, receive_single,
};

use super::copy;
use super::{ToolError, finish, handler};
use crate::caller::Line;

const SERVICE: &str = "casemate.OpenInVM";

/// Argument with which nothing comes back.
const VIEW_ONLY: &str = "view-only";

/// The command.
pub(super) fn request(words: Vec<OsString>) -> ExitCode {
    finish("casemate-open-in-vm", open(words))
}

fn open(words: Vec<OsString>) -> Result<(), ToolError> {
    const USAGE: &str = "usage: casemate-open-in-vm [--view-only] FILE [TARGET]";
    let mut words = words.into_iter().peekable();
    let view_only = words.next_if(|word| word == "--view-only").is_some();
    words.next_if(|word| word == "--");
    let file = words.next().ok_or(ToolError::Usage(USAGE))?;
    let target = words.next().unwrap_or_else(|| "@dispvm".into());
    if words.next().is_some() || file.as_encoded_bytes().starts_with(b"-") {
        return Err(ToolError::Usage(USAGE));
    }
    let path = PathBuf::from(file);
    let failed =
        |error: io::Error| ToolError::failed(&format!("could not open {}", path.display()), &error);
    let unplaced = |error: ReplaceError| {
        ToolError::failed(&format!("could not put what came back into {}", path.display()), &error)
    };
    let mut original = Original::open(&path).map_err(failed)?;
    let sender = copy::prepare(std::slice::from_ref(&path), false)?;
    let service = match view_only {
        true => format!("{SERVICE}+{VIEW_ONLY}"),
        false => SERVICE.to_owned(),
    };
    let mut line = Line::open(&target, service.as_ref())
        .map_err(|error| ToolError::failed("could not call", &error))?;
    let (sent, reply) = copy::send(sender, &mut line);
    if reply.is_err() || sent.is_err() {
        let (code, reason) = line.close().map_err(|error| ToolError::failed("", &error))?;
        return copy::confirmed(sent, reply, code, &reason).map(drop);
    }
    copy::confirmed(sent, reply, 0, "")?;
    let mut temporary = original.temporary().map_err(failed)?;
    let limits = Limits { entries: 1, bytes: original.limit() };
    let mut input = line.input.try_clone().map(File::from).map_err(failed)?;
    let came = receive_single(&mut Decoder::new(limits), &mut input, &mut temporary);
    drop(input);
    let (code, reason) = line.close().map_err(|error| ToolError::failed("", &error))?;
    let came = match came {
        Err(_) if code > 124 => return Err(ToolError::of_call(code, &reason)),
        other => other.map_err(|error| {
            ToolError::Failed(casemate_wire::text::harmless_line(&error.sentence(), 1024))
        })?,
    };
    if came
        && !view_only
        && let Replaced::Beside(name) = original.replace(&temporary).map_err(unplaced)?
    {
        eprintln!("casemate-open-in-vm: the file was changed here, too; the other is `{name}`");
    }
    Ok(())
}

/// The service: takes one file, opens it with its handler, and sends it back if it has changed.
pub(super) fn serve(words: &[OsString]) -> ExitCode {
    let view_only = words.first().is_some_and(|word| word == VIEW_ONLY);
    let folder = match own_folder() {
        Ok(folder) => folder,
        Err(error) => {
            return finish(SERVICE, Err(ToolError::failed("could not make a folder", &error)));
        }
    };
    let result = opened(&folder, view_only);
    // What the handler left in it goes, too.
    let _ = fs::remove_dir_all(&folder);
    finish(SERVICE, result)
}

/// A folder that nobody else may look into.
fn own_folder() -> io::Result<PathBuf> {
    let base = std::env::temp_dir();
    for attempt in 0..1000 {
        let path = base.join(format!("open-{}-{attempt}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|()| path),
        }
    }
    Err(io::Error::other("no name was free"))
}

fn opened(folder: &Path, view_only: bool) -> Result<(), ToolError> {
    let place = Place::at(folder).map_err(|error| ToolError::failed("", &error))?;
    let limits = Limits { entries: 1, ..Limits::default() };
    let (reply, names) = copy::receive(&place, limits);
    copy::answer(&reply)?;
    let mut out = raw_output()?;
    let give_up = |error: ToolError| {
        // It may have gone.
        let _ = Sender::refuse(&mut raw_output()?, &error.to_string());
        Err(error)
    };
    let [name] = &names[..] else {
        return give_up(ToolError::Failed("exactly one file is opened".into()));
    };
    let path = folder.join(name);
    let failed = |error: &io::Error| ToolError::failed("could not read the file", error);
    if !path.is_file() {
        return give_up(ToolError::Failed("only a file can be opened".into()));
    }
    if view_only {
        let _ = fs::set_permissions(&path, Permissions::from_mode(0o400));
    }
    let before = match sum(&path) {
        Ok(sum) => sum,
        Err(error) => return give_up(failed(&error)),
    };
    if let Err(error) = handler::open_file(&path) {
        return give_up(error);
    }
    // One that is gone was not changed.
    let changed = !view_only && sum(&path).is_ok_and(|after| after != before);
    let back = if changed { vec![path] } else { Vec::new() };
    let sender = match Sender::new(&back, false) {
        Ok(sender) => sender,
        Err(error) => return give_up(ToolError::failed("", &error)),
    };
    let sent = sender.send(&mut out, &mut |_| {});
    sent.map(drop).map_err(|error| ToolError::failed("", &error))
}

fn raw_output() -> Result<File, ToolError> {
    let out = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned();
    out.map(File::from).map_err(|error| ToolError::failed("", &error))
}

/// Length and checksum of a file.
fn sum(path: &Path) -> io::Result<(u64, u64)> {
    let mut file = File::open(path)?;
    let (mut sum, mut length) = (Sum::default(), 0);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((length, sum.value())),
            count => {
                length += count as u64;
                sum.update(&buffer[..count]);
            }
        }
    }
}
