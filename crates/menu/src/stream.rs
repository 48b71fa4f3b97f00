//! How a guest tells its applications: records of a kind, a length and that many bytes.
//!
//! ```text
//! "casemate-menu 1\n"
//! A: length of the id (1 byte), the id, the desktop file      any number of times
//! I: the PNG file of the application before                   at most once after each
//! E: how many were left out (4 bytes)                         the end
//! ```
//! Lengths are 4 bytes, little-endian. Nothing is allocated for one that is too large.

use std::io::{self, Read, Write};

use crate::limits::{MAX_APPLICATIONS, MAX_FILE, MAX_ICON, MAX_TOTAL};

const BEGIN: &[u8; 16] = b"casemate-menu 1\n";

const APPLICATION: u8 = b'A';
const ICON: u8 = b'I';
const END: u8 = b'E';

/// A part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A desktop file, as it is in the guest.
    Application {
        /// What the guest says its id is; at most 255 bytes of anything.
        id: Vec<u8>,
        /// The file.
        content: Vec<u8>,
    },
    /// The picture of the application before, as it is in the guest.
    Icon(Vec<u8>),
    /// Everything was said. So many more are there that were not sent.
    End(u32),
}

/// What is no stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It ended in the middle, or reading failed.
    #[error("could not read what the guest sends")]
    Read(#[from] io::Error),
    /// Something else begins.
    #[error("what the guest sends is no list of applications")]
    Begin,
    /// A kind that there is not, or not here.
    #[error("what the guest sends has a record of the kind {0:#04x} where none may be")]
    Kind(u8),
    /// A length.
    #[error("what the guest sends has a record of {0} bytes, which is too large")]
    Length(u32),
    /// [`MAX_APPLICATIONS`].
    #[error("the guest sends more than {MAX_APPLICATIONS} applications")]
    Many,
    /// [`MAX_TOTAL`].
    #[error("the guest sends more than {} MiB", MAX_TOTAL >> 20)]
    Large,
}

/// Reads a stream.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    begun: bool,
    over: bool,
    applications: u32,
    icon_may_come: bool,
    left: u64,
}

impl<R: Read> Reader<R> {
    /// From where.
    pub fn new(source: R) -> Self {
        let left = MAX_TOTAL;
        Self { source, begun: false, over: false, applications: 0, icon_may_come: false, left }
    }

    /// What it reads from.
    pub fn into_source(self) -> R {
        self.source
    }

    /// The next record; none after the end.
    ///
    /// # Errors
    /// See [`StreamError`]; nothing behind it means anything.
    pub fn next_record(&mut self) -> Result<Option<Record>, StreamError> {
        if self.over {
            return Ok(None);
        }
        if !self.begun {
            let mut begin = [0; BEGIN.len()];
            self.source.read_exact(&mut begin)?;
            if begin != *BEGIN {
                return Err(StreamError::Begin);
            }
            self.begun = true;
        }
        let mut head = [0; 5];
        self.source.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length);
        let most = match kind {
            APPLICATION => 1 + 255 + MAX_FILE,
            ICON if self.icon_may_come => MAX_ICON,
            END => 4,
            _ => return Err(StreamError::Kind(kind)),
        };
        if length as usize > most {
            return Err(StreamError::Length(length));
        }
        self.left = self.left.checked_sub(length.into()).ok_or(StreamError::Large)?;
        let mut payload = vec![0; length as usize];
        self.source.read_exact(&mut payload)?;
        self.icon_may_come = kind == APPLICATION;
        Ok(Some(match kind {
            APPLICATION => {
                self.applications += 1;
                if self.applications > MAX_APPLICATIONS {
                    return Err(StreamError::Many);
                }
                let wrong = StreamError::Length(length);
                let id = usize::from(*payload.first().ok_or(wrong)?);
                if payload.len() < 1 + id {
                    return Err(StreamError::Length(length));
                }
                let content = payload.split_off(1 + id);
                Record::Application { id: payload.split_off(1), content }
            }
            ICON => Record::Icon(payload),
            _ => {
                self.over = true;
                let count = payload.try_into().map_err(|_| StreamError::Length(length))?;
                Record::End(u32::from_le_bytes(count))
            }
        }))
    }
}

/// Writes a stream. What is too large for the other side is not written.
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
    applications: u32,
    left_out: u32,
    left: u64,
}

impl<W: Write> Writer<W> {
    /// Begins.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn new(mut sink: W) -> io::Result<Self> {
        sink.write_all(BEGIN)?;
        Ok(Self { sink, applications: 0, left_out: 0, left: MAX_TOTAL - 4 })
    }

    /// Says an application, with its picture if it has one. One too many or too large is counted.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn application(&mut self, id: &str, content: &[u8], icon: Option<&[u8]>) -> io::Result<()> {
        let size = 1 + id.len() + content.len();
        let room = self.left.checked_sub(size as u64);
        let room =
            room.filter(|_| self.applications < MAX_APPLICATIONS && content.len() <= MAX_FILE);
        let (Ok(length), Some(left)) = (u8::try_from(id.len()), room) else {
            self.leave_out();
            return Ok(());
        };
        (self.left, self.applications) = (left, self.applications + 1);
        self.head(APPLICATION, size)?;
        self.sink.write_all(&[length])?;
        self.sink.write_all(id.as_bytes())?;
        self.sink.write_all(content)?;
        let Some(icon) = icon.filter(|icon| icon.len() <= MAX_ICON) else { return Ok(()) };
        let Some(left) = self.left.checked_sub(icon.len() as u64) else { return Ok(()) };
        self.left = left;
        self.head(ICON, icon.len())?;
        self.sink.write_all(icon)
    }

    /// Counts one that cannot be sent.
    pub fn leave_out(&mut self) {
        self.left_out = self.left_out.saturating_add(1);
    }

    /// Says the end.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn end(mut self) -> io::Result<()> {
        self.head(END, 4)?;
        self.sink.write_all(&self.left_out.to_le_bytes())?;
        self.sink.flush()
    }

    fn head(&mut self, kind: u8, length: usize) -> io::Result<()> {
        let [a, b, c, d] = (length as u32).to_le_bytes();
        self.sink.write_all(&[kind, a, b, c, d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<Record>, StreamError> {
        let mut reader = Reader::new(bytes);
        let mut all = Vec::new();
        while let Some(record) = reader.next_record()? {
            all.push(record);
        }
        Ok(all)
    }

    fn raw(records: &[(u8, u32, &[u8])]) -> Vec<u8> {
        let mut out = BEGIN.to_vec();
        for (kind, length, payload) in records {
            out.push(*kind);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(payload);
        }
        out
    }

    #[test]
    fn what_is_written_is_read_and_what_is_too_much_is_counted() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out).expect("begun");
        writer.application("a", b"one", Some(b"png")).expect("written");
        writer.application("b", b"two", Some(&vec![0; MAX_ICON + 1])).expect("written");
        writer.application("c", &vec![b'x'; MAX_FILE + 1], None).expect("counted");
        writer.application(&"d".repeat(256), b"", None).expect("counted");
        for _ in 0..MAX_APPLICATIONS {
            writer.application("e", b"", None).expect("written or counted");
        }
        writer.end().expect("ended");
        let records = read(&out).expect("a stream");
        let one =
            |id: &str, text: &str| Record::Application { id: id.into(), content: text.into() };
        assert_eq!(records[..3], [one("a", "one"), Record::Icon(b"png".into()), one("b", "two")]);
        assert_eq!(records.len(), MAX_APPLICATIONS as usize + 2);
        assert_eq!(records.last(), Some(&Record::End(4)));
    }

    #[test]
    fn what_is_no_stream_ends_it_before_anything_is_allocated() {
        assert!(matches!(read(b"[Desktop Entry]\n\n"), Err(StreamError::Begin)));
        for cut in [&b""[..], b"casemate", b"casemate-menu 1\n", b"casemate-menu 1\nA\x05\0\0\0a"] {
            assert!(matches!(read(cut), Err(StreamError::Read(_))), "{cut:?}");
        }
        let huge = raw(&[(APPLICATION, u32::MAX, b"")]);
        assert!(matches!(read(&huge), Err(StreamError::Length(u32::MAX))));
        for (kind, length, payload) in [
            (APPLICATION, 0, &b""[..]),
            (APPLICATION, 3, b"\x03ab"),
            (END, 3, b"\0\0\0"),
            (END, 5, b""),
        ] {
            let found = read(&raw(&[(kind, length, payload)]));
            assert!(matches!(found, Err(StreamError::Length(_))), "{kind} {length}");
        }
        let lonely = raw(&[(ICON, 1, b"x")]);
        assert!(matches!(read(&lonely), Err(StreamError::Kind(ICON))));
        let twice = raw(&[(APPLICATION, 2, b"\x01a"), (ICON, 1, b"x"), (ICON, 1, b"x")]);
        assert!(matches!(read(&twice), Err(StreamError::Kind(ICON))));
        let many = vec![(APPLICATION, 2, &b"\x01a"[..]); MAX_APPLICATIONS as usize + 1];
        assert!(matches!(read(&raw(&many)), Err(StreamError::Many)));
    }

    #[test]
    fn a_guest_that_sends_without_end_is_ended() {
        let icon = vec![0; MAX_ICON];
        let pair = [(APPLICATION, 2, &b"\x01a"[..]), (ICON, MAX_ICON as u32, &icon[..])];
        let all: Vec<_> = pair.iter().copied().cycle().take(2 * 65).collect();
        assert!(matches!(read(&raw(&all)), Err(StreamError::Large)));
    }
}
