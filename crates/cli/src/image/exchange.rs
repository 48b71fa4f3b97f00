//! Images to and from archives.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, IsTerminal, Write};
use std::path::Path;

use casemate_audit::Event;
use casemate_image::Image;
use casemate_supervise::prepare::World;

use super::Display;
use super::store::{current, named};
use crate::audit;
use crate::failure::Problem;
use crate::show::{mebibytes, short, size_of};

/// Stands for standard input or output.
const STANDARD: &str = "-";

pub(super) fn export(world: &World, name: &str, file: &Path) -> Result<u8, Problem> {
    let name = named(name)?;
    let image = current(&world.store()?, &name)?;
    let failed = |error: &dyn std::error::Error| {
        Problem::new(format!("could not export the image `{name}`")).because(error)
    };
    if file == Path::new(STANDARD) {
        if io::stdout().is_terminal() {
            return Err(Problem::new("standard output is a terminal, the archive is binary")
                .hint("name a file, or redirect the output"));
        }
        image.export(io::stdout().lock()).map_err(|error| failed(&error))?;
        return Ok(0);
    }
    write(&image, file).map_err(|error| {
        failed(&*error).hint("name a file that is not there yet, on a file system with room")
    })?;
    eprintln!("image `{name}` is in {} ({})", file.display(), mebibytes(size_of(file)));
    Ok(0)
}

/// Writes the archive; nothing stays when that fails.
fn write(image: &Image, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let out = File::create_new(file)?;
    let written = (|| {
        let mut buffered = BufWriter::new(&out);
        image.export(&mut buffered)?;
        buffered.flush()?;
        Ok(out.sync_all()?)
    })();
    if written.is_err() {
        // The first error says more.
        let _ = fs::remove_file(file);
    }
    written
}

pub(super) fn import(
    world: &World,
    name: &str,
    file: &Path,
    going_back: bool,
) -> Result<u8, Problem> {
    let name = named(name)?;
    let key = world.key_of_image(name.as_str());
    let store = world.store()?;
    let mut display = Display::new(name.as_str());
    let mut show = |step| display.show(&step);
    let imported = if file == Path::new(STANDARD) {
        store.import(&name, io::stdin().lock(), key, going_back, &mut show)
    } else {
        let archive = File::open(file).map_err(|error| {
            Problem::new(format!("could not open {}", file.display())).because(&error)
        })?;
        store.import(&name, BufReader::new(archive), key, going_back, &mut show)
    };
    display.end();
    let image = imported.map_err(|error| {
        let problem = Problem::new(format!("could not import the image `{name}`")).because(&error);
        if error.is_disk_full() {
            problem.hint("make room on the file system of the image store, then run it again")
        } else if error.is_older() {
            problem.hint("give --rollback if you want the older one")
        } else {
            problem
        }
    })?;
    let record = Event::general("image-imported").with("image", name.to_string());
    audit::note(world, record.with("digest", image.digest.to_string()));
    eprintln!(
        "image `{name}` is imported: {} ({})",
        short(&image.digest.to_string()),
        mebibytes(size_of(&image.root()))
    );
    Ok(0)
}
