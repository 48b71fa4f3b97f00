//! Messages as bytes: a header of object, length and opcode, then arguments of 32-bit words in the
//! machine's byte order (wayland.freedesktop.org, "Wire Format"). Descriptors travel beside them.
//!
//! A message is compared with its definition to the last byte: what is too short, too long or not
//! text is refused. No length is believed before it was compared with what is there.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use crate::limits;
use crate::protocol::Kind;

/// Bytes of a header.
pub const HEADER: usize = 8;

/// An argument.
#[derive(Debug)]
pub enum Arg {
    /// A signed number.
    Int(i32),
    /// A number.
    Uint(u32),
    /// A signed number of 1/256.
    Fixed(i32),
    /// Text, or none.
    String(Option<String>),
    /// An object's id, 0 for none.
    Object(u32),
    /// The id of a new object.
    New(u32),
    /// Bytes.
    Array(Vec<u8>),
    /// A descriptor.
    Fd(OwnedFd),
}

/// The beginning of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose message it is.
    pub object: u32,
    /// Which.
    pub opcode: u16,
    /// Bytes of all of it.
    pub length: usize,
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Shorter than a header, longer than allowed or not of whole words.
    #[error("a message has {0} bytes")]
    Length(usize),
    /// Fewer bytes than its arguments need.
    #[error("a message is too short for its arguments")]
    Short,
    /// More bytes than its arguments need.
    #[error("a message is too long for its arguments")]
    Long,
    /// No end, or bytes behind the end.
    #[error("a text is not text")]
    Text,
    /// None where there must be one.
    #[error("an argument is missing")]
    Null,
    /// Fewer descriptors than arguments.
    #[error("a descriptor is missing")]
    Fd,
}

/// The header at the beginning of these bytes; none when it is not there yet.
///
/// # Errors
/// Its length cannot be.
pub fn header(bytes: &[u8]) -> Result<Option<Header>, WireError> {
    let Some((object, rest)) = word(bytes) else { return Ok(None) };
    let Some((second, _)) = word(rest) else { return Ok(None) };
    let length = (second >> 16) as usize;
    if !(HEADER..=limits::MESSAGE).contains(&length) || !length.is_multiple_of(4) {
        return Err(WireError::Length(length));
    }
    Ok(Some(Header { object, opcode: (second & 0xffff) as u16, length }))
}

/// The arguments of a message, `body` being what is behind its header.
///
/// # Errors
/// See [`WireError`].
pub fn decode(
    kinds: &[Kind],
    body: &[u8],
    fds: &mut VecDeque<OwnedFd>,
) -> Result<Vec<Arg>, WireError> {
    let mut arguments = Vec::with_capacity(kinds.len());
    let mut rest = body;
    for kind in kinds {
        if *kind == Kind::Fd {
            arguments.push(Arg::Fd(fds.pop_front().ok_or(WireError::Fd)?));
            continue;
        }
        let (value, behind) = word(rest).ok_or(WireError::Short)?;
        rest = behind;
        arguments.push(match kind {
            Kind::Int => Arg::Int(value.cast_signed()),
            Kind::Fixed => Arg::Fixed(value.cast_signed()),
            Kind::Uint => Arg::Uint(value),
            Kind::Object(_) | Kind::New(_) | Kind::NewAny if value == 0 => {
                return Err(WireError::Null);
            }
            Kind::Object(_) | Kind::ObjectOrNull(_) | Kind::AnyObject => Arg::Object(value),
            Kind::New(_) | Kind::NewAny => Arg::New(value),
            Kind::String if value == 0 => return Err(WireError::Null),
            Kind::StringOrNull if value == 0 => Arg::String(None),
            Kind::String | Kind::StringOrNull => {
                Arg::String(Some(text(take(&mut rest, value as usize)?)?))
            }
            Kind::Array => Arg::Array(take(&mut rest, value as usize)?.to_vec()),
            Kind::Fd => return Err(WireError::Fd),
        });
    }
    if rest.is_empty() { Ok(arguments) } else { Err(WireError::Long) }
}

/// Appends a message to `out` and its descriptors to `fds`.
///
/// # Errors
/// It would be longer than allowed; nothing was appended then.
pub fn encode(
    object: u32,
    opcode: u16,
    arguments: Vec<Arg>,
    out: &mut Vec<u8>,
    fds: &mut Vec<OwnedFd>,
) -> Result<(), WireError> {
    let begin = out.len();
    out.extend(object.to_ne_bytes());
    out.extend([0; 4]);
    for argument in arguments {
        match argument {
            Arg::Int(value) | Arg::Fixed(value) => out.extend(value.to_ne_bytes()),
            Arg::Uint(value) | Arg::Object(value) | Arg::New(value) => {
                out.extend(value.to_ne_bytes());
            }
            Arg::String(None) => out.extend([0; 4]),
            Arg::String(Some(text)) => put(out, text.as_bytes(), 1),
            Arg::Array(bytes) => put(out, &bytes, 0),
            Arg::Fd(fd) => fds.push(fd),
        }
        if out.len() - begin > limits::MESSAGE {
            let length = out.len() - begin;
            out.truncate(begin);
            return Err(WireError::Length(length));
        }
    }
    // At most MESSAGE, which fits 16 bits.
    let length = (out.len() - begin) as u32;
    out[begin + 4..begin + 8].copy_from_slice(&(length << 16 | u32::from(opcode)).to_ne_bytes());
    Ok(())
}

/// Length, bytes, `zeros` at their end, and what is missing to whole words.
fn put(out: &mut Vec<u8>, bytes: &[u8], zeros: usize) {
    let length = bytes.len() + zeros;
    out.extend((length as u32).to_ne_bytes());
    out.extend(bytes);
    out.resize(out.len() + zeros + (length.next_multiple_of(4) - length), 0);
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (first, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_ne_bytes(*first), rest))
}

/// So many bytes, and what fills their last word.
fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], WireError> {
    if length > rest.len() || length.next_multiple_of(4) > rest.len() {
        return Err(WireError::Short);
    }
    let (taken, behind) = rest.split_at(length.next_multiple_of(4));
    *rest = behind;
    Ok(&taken[..length])
}

fn text(bytes: &[u8]) -> Result<String, WireError> {
    let Some((0, text)) = bytes.split_last() else { return Err(WireError::Text) };
    if text.contains(&0) {
        return Err(WireError::Text);
    }
    // The protocol says UTF-8; what monitors are called and what old programs write is not always.
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(arguments: Vec<Arg>) -> Vec<u8> {
        let (mut out, mut fds) = (Vec::new(), Vec::new());
        encode(7, 3, arguments, &mut out, &mut fds).expect("short");
        out
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let bytes = one(vec![Arg::Int(-5), Arg::String(Some("four".into())), Arg::Array(vec![1])]);
        let header = header(&bytes).expect("valid").expect("whole");
        assert_eq!(header, Header { object: 7, opcode: 3, length: bytes.len() });
        let kinds = [Kind::Int, Kind::String, Kind::Array];
        let arguments = decode(&kinds, &bytes[HEADER..], &mut VecDeque::new()).expect("valid");
        assert_eq!(format!("{arguments:?}"), "[Int(-5), String(Some(\"four\")), Array([1])]");
    }

    #[test]
    fn a_message_is_neither_shorter_nor_longer_than_its_arguments() {
        let bytes = one(vec![Arg::Uint(1)]);
        let body = &bytes[HEADER..];
        let mut none = VecDeque::new();
        assert_eq!(decode(&[Kind::Uint; 2], body, &mut none).err(), Some(WireError::Short));
        assert_eq!(decode(&[], body, &mut none).err(), Some(WireError::Long));
        assert_eq!(decode(&[Kind::Fd], &[], &mut none).err(), Some(WireError::Fd));
    }

    #[test]
    fn a_length_is_not_believed() {
        for length in [0_u32, 4, 9, 4100, 65_532] {
            let mut bytes = 1_u32.to_ne_bytes().to_vec();
            bytes.extend((length << 16).to_ne_bytes());
            assert!(header(&bytes).is_err(), "{length}");
        }
        let mut none = VecDeque::new();
        for length in [5, u32::MAX, u32::MAX - 3] {
            let body = [length.to_ne_bytes(), [0; 4]].concat();
            assert_eq!(decode(&[Kind::Array], &body, &mut none).err(), Some(WireError::Short));
        }
    }

    #[test]
    fn text_ends_once_and_at_its_end() {
        let mut none = VecDeque::new();
        for text in [*b"abcd", *b"a\0b\0"] {
            let body = [4_u32.to_ne_bytes(), text].concat();
            assert_eq!(decode(&[Kind::String], &body, &mut none).err(), Some(WireError::Text));
        }
    }

    #[test]
    fn too_long_a_message_is_not_begun() {
        let (mut out, mut fds) = (vec![1, 2, 3, 4], Vec::new());
        assert!(encode(1, 0, vec![Arg::Array(vec![0; 4096])], &mut out, &mut fds).is_err());
        assert_eq!(out, [1, 2, 3, 4]);
    }
}
