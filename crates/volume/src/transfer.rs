//! Volumes in and out: an archive with all of a volume, as encrypted as it lies on the disk.
//!
//! Members, in this order: `volume.json` (what is true of it, and how long each layer is),
//! `header.luks`, the two files of a TPM where there are some, and the layers in pieces,
//! `LAYER/PIECE`; pieces that are all zeros are left out. The file with a key encrypted with age is
//! no part of it, nor is its identity: what opens a volume does not travel with it.
//!
//! An archive is believed in nothing: names, lengths and order must be the only possible ones, and
//! record, header and layers are checked as those of a volume that has been here all along.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use casemate_config::{CompartmentName, KeySource, VolumeName};
use casemate_host::durable;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use serde::{Deserialize, Serialize};

use crate::archive::{ArchiveError, Reader, Writer};
use crate::error::{VolumeError, VolumeId, files};
use crate::folder::{private_file, synced};
use crate::record::{KeyKind, Record};
use crate::store::Volumes;
use crate::volume::{HEADER, LockedVolume, RECORD};
use crate::{luks, qcow2, tpm};

/// Bytes of a piece.
const PIECE: u64 = 256 << 10;
/// Bytes of the largest `volume.json`: 128 layers with long names.
const MOST_RECORD: u64 = 256 << 10;

/// The archive's `volume.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    volume: Record,
    /// Bytes of each layer's file.
    lengths: BTreeMap<u32, u64>,
}

impl LockedVolume {
    /// Writes all of it as an archive. No VM may be writing to it.
    ///
    /// # Errors
    /// A layer cannot be read, or the archive not written.
    pub fn export(&self, output: impl Write) -> Result<(), VolumeError> {
        let mut lengths = BTreeMap::new();
        for number in self.record.layers.keys() {
            let path = self.file(*number);
            let found = fs::symlink_metadata(&path).map_err(files("look at", &path))?;
            lengths.insert(*number, found.len());
        }
        let contents = Contents { volume: self.record.clone(), lengths };
        let mut archive = Writer::new(output);
        let text = serde_json::to_vec_pretty(&contents);
        let text = text.map_err(|error| ArchiveError::Write(error.into()))?;
        archive.member(RECORD, &text)?;
        for name in self.parts() {
            let path = self.folder.join(name);
            archive.member(name, &fs::read(&path).map_err(files("read", &path))?)?;
        }
        for (number, length) in &contents.lengths {
            let path = self.file(*number);
            let file = File::open(&path).map_err(files("read", &path))?;
            let mut at = 0;
            while let Some(index) = next_piece(&file, at, *length).map_err(files("read", &path))? {
                let start = index * PIECE;
                let mut piece = vec![0; piece_length(start, *length)];
                file.read_exact_at(&mut piece, start).map_err(files("read", &path))?;
                if piece.iter().any(|byte| *byte != 0) {
                    archive.member(&format!("{}/{index:08x}", Record::file(*number)), &piece)?;
                }
                at = start + PIECE;
            }
        }
        Ok(archive.finish()?)
    }

    /// The files whose whole content goes along.
    fn parts(&self) -> &'static [&'static str] {
        parts(&self.record.key)
    }
}

impl Volumes {
    /// Makes a volume from an archive. `source` is what the configuration says opens it: of the
    /// kind it was made with.
    ///
    /// # Errors
    /// The archive is none of ours, there is such a volume already, or the disk is full; there is
    /// no part of a volume then.
    pub fn import(
        &self,
        compartment: &CompartmentName,
        volume: &VolumeName,
        source: &KeySource,
        input: impl Read,
    ) -> Result<(), VolumeError> {
        let id = VolumeId { compartment: compartment.clone(), volume: volume.clone() };
        self.build(&id, |folder| unpack(&id, source, input, folder))
    }
}

fn parts(key: &KeyKind) -> &'static [&'static str] {
    match key {
        KeyKind::Tpm2 => &[HEADER, tpm::PUBLIC, tpm::PRIVATE],
        KeyKind::Passphrase | KeyKind::Age(_) => &[HEADER],
    }
}

fn unpack(
    id: &VolumeId,
    source: &KeySource,
    input: impl Read,
    folder: &Path,
) -> Result<(), VolumeError> {
    let mut archive = Reader::new(input);
    let contents = read_contents(&mut archive)?;
    let Contents { volume: mut record, lengths } = contents;
    let asked = KeyKind::from(source);
    if !asked.is_like(&record.key) {
        return Err(VolumeError::OtherKind { id: id.clone(), asked, made: record.key });
    }
    record.key = asked;
    for name in parts(&record.key) {
        let most = if *name == HEADER { luks::LENGTH } else { tpm::MOST };
        let content = expected(&mut archive, name, most)?;
        write(&folder.join(name), &content)?;
    }
    for (number, length) in &lengths {
        let path = folder.join(Record::file(*number));
        let made = private_file(&path).and_then(|file| file.set_len(*length));
        made.map_err(files("make", &path))?;
    }
    read_pieces(&mut archive, &lengths, folder)?;
    luks::check(&folder.join(HEADER))?;
    for number in lengths.keys() {
        let path = folder.join(Record::file(*number));
        if *number != 0 {
            qcow2::check(&path, record.size)?;
        }
        synced(&path)?;
    }
    Ok(durable::store(&folder.join(RECORD), &record)?)
}

fn read_contents(archive: &mut Reader<impl Read>) -> Result<Contents, VolumeError> {
    let refused = |why| ArchiveError::Member { member: RECORD.to_owned(), why };
    let text = expected(archive, RECORD, MOST_RECORD)?;
    let contents: Contents =
        serde_json::from_slice(&text).map_err(|_| refused("it does not describe a volume"))?;
    contents.volume.check().map_err(refused)?;
    if !contents.lengths.keys().eq(contents.volume.layers.keys()) {
        return Err(refused("it does not say how long each layer is").into());
    }
    let size = contents.volume.size;
    for (number, length) in &contents.lengths {
        // A layer of QEMU's holds each cluster once, and tables; freed clusters are used again.
        let most = if *number == 0 { size } else { size.saturating_mul(2) + (1 << 30) };
        if *length > most {
            return Err(refused("a layer is longer than it can be").into());
        }
    }
    Ok(contents)
}

/// The content of the next member, which must have this name.
fn expected(
    archive: &mut Reader<impl Read>,
    name: &'static str,
    most: u64,
) -> Result<Vec<u8>, ArchiveError> {
    match archive.next(|found| (found == name).then_some(most))? {
        Some((_, content)) => Ok(content),
        None => Err(ArchiveError::Member { member: name.to_owned(), why: "it is missing" }),
    }
}

/// Reads pieces to the archive's end. Each must come after the one before it.
fn read_pieces(
    archive: &mut Reader<impl Read>,
    lengths: &BTreeMap<u32, u64>,
    folder: &Path,
) -> Result<(), VolumeError> {
    let mut last = None;
    let mut open: Option<(u32, File)> = None;
    while let Some((name, content)) = archive.next(|name| place(name, lengths).map(|_| PIECE))? {
        let refused = |why| ArchiveError::Member { member: name.clone(), why };
        let (number, index) =
            place(&name, lengths).ok_or_else(|| refused("nothing of this name belongs there"))?;
        if last >= Some((number, index)) {
            return Err(refused("it is not in order").into());
        }
        last = Some((number, index));
        let length = lengths.get(&number).copied().unwrap_or(0);
        if content.len() != piece_length(index * PIECE, length) {
            return Err(refused("it is of another length than its place").into());
        }
        let path = folder.join(Record::file(number));
        let file = match open.take_if(|(other, _)| *other == number) {
            Some((_, file)) => file,
            None => File::options().write(true).open(&path).map_err(files("write", &path))?,
        };
        file.write_all_at(&content, index * PIECE).map_err(files("write", &path))?;
        open = Some((number, file));
    }
    Ok(())
}

/// The layer and piece a name stands for, if there is such a piece.
fn place(name: &str, lengths: &BTreeMap<u32, u64>) -> Option<(u32, u64)> {
    let (file, piece) = name.split_once('/')?;
    let (number, length) = lengths.iter().find(|(number, _)| Record::file(**number) == file)?;
    let index = u64::from_str_radix(piece, 16).ok()?;
    let written_so = format!("{index:08x}") == piece;
    (written_so && index < length.div_ceil(PIECE)).then_some((*number, index))
}

fn piece_length(start: u64, length: u64) -> usize {
    // At most PIECE.
    usize::try_from(length.saturating_sub(start).min(PIECE)).unwrap_or(0)
}

/// The next piece at or after `at` with data in it, by what the file system knows.
fn next_piece(file: &File, at: u64, length: u64) -> io::Result<Option<u64>> {
    if at >= length {
        return Ok(None);
    }
    let from = i64::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
    match lseek(file, from, Whence::SeekData) {
        Ok(data) => {
            Ok(u64::try_from(data).ok().filter(|data| *data < length).map(|data| data / PIECE))
        }
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), VolumeError> {
    let mut file = private_file(path).map_err(files("make", path))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(files("write", path))
}
