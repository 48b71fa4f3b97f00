//! What the confined process does with a guest's applications: reads them, decodes their pictures, and
//! reports what may be shown, each as a line; the pixels of pictures go to the file that is standard
//! output, one behind the other. [`crate::files::take`] has what it gives up before the first byte.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use casemate_menu::limits::MAX_APPLICATIONS;
use casemate_menu::{Application, LeftOut, Reader, Record, icon, parse};
use casemate_wire::Kind;
use casemate_wire::text::harmless_line;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::alarm;

use crate::files::frames::FrameReader;
use crate::files::take::{begin, ended, sentence, tell};
use crate::files::taker::{Done, Report};

/// Seconds for all of it, by the clock: an emulated guest with two hundred applications takes five.
pub(super) const TIME: u32 = 60;

/// Most memory, in bytes: the program itself, a record, a picture and its pixels.
const MEMORY: u64 = 256 << 20;

/// Reads the applications of a session's guest.
///
/// # Errors
/// It did not say all of them, in a sentence.
pub(crate) fn applications(done: &mut Done) -> Result<(), String> {
    let file = io::stdout().as_fd().try_clone_to_owned();
    let mut file = file.map(File::from).map_err(|error| sentence(&error))?;
    limit().map_err(|error| format!("could not limit the receiver: {error}"))?;
    let socket = begin(None)?;
    let listener = io::stderr();
    let mut reader = Reader::new(FrameReader::new(socket, Kind::Stdout, listener.as_fd()));
    let read = read(&mut reader, &mut file);
    ended(done, &reader.into_source());
    done.came = read.is_ok();
    read
}

/// Memory, time and what can be written end somewhere, whatever the guest sends. It cannot be taken back.
fn limit() -> nix::Result<()> {
    let pixels = u64::from(MAX_APPLICATIONS) * icon::PIXELS as u64;
    for (what, most) in [
        (Resource::RLIMIT_AS, MEMORY),
        (Resource::RLIMIT_FSIZE, pixels),
        (Resource::RLIMIT_CPU, u64::from(TIME)),
        (Resource::RLIMIT_CORE, 0),
    ] {
        setrlimit(what, most, most)?;
    }
    alarm::set(TIME);
    Ok(())
}

fn read(reader: &mut Reader<FrameReader<'_>>, file: &mut File) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    // One whose picture may follow.
    let mut last = None;
    loop {
        let record = reader.next_record().map_err(|error| sentence(&error))?;
        if !matches!(record, Some(Record::Icon(_)))
            && let Some(application) = last.take()
        {
            show(application, false)?;
        }
        match record {
            Some(Record::Application { id, content }) => last = sift(&id, &content, &mut seen)?,
            Some(Record::Icon(bytes)) => {
                let Some(application): Option<Application> = last.take() else { continue };
                match icon::decode(&bytes) {
                    Ok(pixels) => {
                        file.write_all(&pixels).map_err(|error| sentence(&error))?;
                        show(application, true)?;
                    }
                    Err(error) => {
                        note(format!("{}: {}", application.id, sentence(&error)))?;
                        show(application, false)?;
                    }
                }
            }
            Some(Record::End(0)) | None => return Ok(()),
            Some(Record::End(more)) => {
                return note(format!("{more} more were too many or too large"));
            }
        }
    }
}

/// An application that may be shown. What is not is told, but for what is not meant to be.
fn sift(
    id: &[u8],
    content: &[u8],
    seen: &mut BTreeSet<String>,
) -> Result<Option<Application>, String> {
    let id = String::from_utf8_lossy(id);
    let why = match parse(&id, content) {
        // On some file systems both would be one file.
        Ok(found) if !seen.insert(found.id.to_ascii_lowercase()) => {
            "another has the same name but for capital letters".into()
        }
        Ok(found) => return Ok(Some(found)),
        Err(LeftOut::Hidden | LeftOut::Kind) => return Ok(None),
        Err(why) => why.to_string(),
    };
    note(format!("{} is left out: {why}", harmless_line(&id, 128)))?;
    Ok(None)
}

fn show(application: Application, icon: bool) -> Result<(), String> {
    let report = Report::Application { application: Box::new(application), icon };
    tell(&report).map_err(|error| sentence(&error))
}

fn note(text: String) -> Result<(), String> {
    tell(&Report::Note(text)).map_err(|error| sentence(&error))
}
