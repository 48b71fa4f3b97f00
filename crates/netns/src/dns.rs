//! Questions and answers of the DNS (RFC 1035, RFC 3596): the addresses of a name. Answers are a
//! stranger's bytes; nothing in them is believed that was not compared with what is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest answer read, in bytes: over UDP, without extensions (RFC 1035, 2.3.4).
pub const LONGEST: usize = 512;

/// Addresses taken of one answer.
const MOST: usize = 64;

/// Bytes of the header.
const HEADER: usize = 12;

/// What kind of address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4: type A.
    V4,
    /// IPv6: type AAAA.
    V6,
}

impl Family {
    /// Type and class, the Internet's.
    fn kind(self) -> [u8; 4] {
        match self {
            Self::V4 => [0, 1, 0, 1],
            Self::V6 => [0, 28, 0, 1],
        }
    }

    fn read(self, data: &[u8]) -> Option<IpAddr> {
        match self {
            Self::V4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into()),
            Self::V6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into()),
        }
    }
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The addresses, sorted; none when the name has none.
    pub addresses: Vec<IpAddr>,
    /// For how many seconds; none when it says nothing of that.
    pub seconds: Option<u32>,
}

/// Why bytes are no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// They end too soon, or point nowhere.
    #[error("the answer is cut off")]
    Cut,
    /// They answer something else.
    #[error("it answers another question")]
    Other,
    /// The server could not or would not answer.
    #[error("the name server says code {0}")]
    Refused(u8),
}

/// The question for a name's addresses; none when the text is no name of a host.
pub fn question(id: u16, name: &str, family: Family) -> Option<Vec<u8>> {
    let mut message = id.to_be_bytes().to_vec();
    // A query that wants recursion; one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        message.push(length);
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(family.kind());
    (message.len() <= HEADER + 255 + 4).then_some(message)
}

/// What the answer to this question says.
///
/// # Errors
/// See [`AnswerError`].
pub fn answer(question: &[u8], bytes: &[u8], family: Family) -> Result<Answer, AnswerError> {
    let header = bytes.first_chunk::<HEADER>().ok_or(AnswerError::Cut)?;
    let asked = question.get(HEADER..).unwrap_or_default();
    let behind = HEADER + asked.len();
    let repeated = bytes.get(HEADER..behind).ok_or(AnswerError::Cut)?;
    let is_reply = header[2] & 0xf8 == 0x80;
    if header.get(..2) != question.get(..2)
        || !is_reply
        || header[4..6] != [0, 1]
        || !repeated.eq_ignore_ascii_case(asked)
    {
        return Err(AnswerError::Other);
    }
    let mut found = Answer { addresses: vec![], seconds: None };
    match header[3] & 0x0f {
        0 => {}
        // There is no such name.
        3 => return Ok(found),
        code => return Err(AnswerError::Refused(code)),
    }
    let count = u16::from_be_bytes([header[6], header[7]]);
    let mut at = behind;
    for _ in 0..count {
        let fixed = after_name(bytes, at).ok_or(AnswerError::Cut)?;
        let &[a, b, c, d, t0, t1, t2, t3, l0, l1] =
            bytes.get(fixed..).and_then(|rest| rest.first_chunk()).ok_or(AnswerError::Cut)?;
        let data = fixed + 10;
        at = data + usize::from(u16::from_be_bytes([l0, l1]));
        let data = bytes.get(data..at).ok_or(AnswerError::Cut)?;
        if [a, b, c, d] == family.kind()
            && let Some(address) = family.read(data)
        {
            let seconds = u32::from_be_bytes([t0, t1, t2, t3]);
            found.seconds = Some(found.seconds.map_or(seconds, |known| known.min(seconds)));
            if found.addresses.len() < MOST {
                found.addresses.push(address);
            }
        }
    }
    found.addresses.sort();
    found.addresses.dedup();
    Ok(found)
}

/// Where what follows a name begins. A pointer ends a name; it is not followed.
fn after_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length if length >= 0xc0 => return Some(at + 2),
            length if length >= 0x40 => return None,
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(records: &[&[u8]], code: u8) -> (Vec<u8>, Vec<u8>) {
        let question = question(7, "some.example", Family::V4).expect("a name");
        let mut reply = question.clone();
        reply[2..8].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, records.len() as u8]);
        records.iter().for_each(|record| reply.extend(*record));
        (question, reply)
    }

    const ALIAS: &[u8] = &[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, b'x', 0xc0, 12];
    const ONE: &[u8] = &[1, b'x', 0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 203, 0, 113, 7];
    const TWO: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 6];

    #[test]
    fn addresses_are_read_whatever_stands_between_them() {
        let (question, reply) = reply(&[ALIAS, ONE, TWO, ONE], 0);
        let found = answer(&question, &reply, Family::V4).expect("an answer");
        let addresses = [6, 7].map(|last| IpAddr::from([203, 0, 113, last]));
        assert_eq!(found, Answer { addresses: addresses.to_vec(), seconds: Some(60) });
    }

    #[test]
    fn answers_to_other_questions_and_refusals_are_told_apart() {
        let (question, mut told) = reply(&[ONE], 0);
        told[1] ^= 1;
        assert_eq!(answer(&question, &told, Family::V4), Err(AnswerError::Other));
        told[1] ^= 1;
        told[13] = b'S';
        assert!(answer(&question, &told, Family::V4).is_ok(), "case means nothing");
        told[13] = b'z';
        assert_eq!(answer(&question, &told, Family::V4), Err(AnswerError::Other));
        assert_eq!(answer(&question, &question, Family::V4), Err(AnswerError::Other));
        let (question, refused) = reply(&[], 2);
        assert_eq!(answer(&question, &refused, Family::V4), Err(AnswerError::Refused(2)));
        let (question, unknown) = reply(&[], 3);
        assert_eq!(
            answer(&question, &unknown, Family::V4).map(|found| found.addresses),
            Ok(vec![])
        );
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_survived() {
        let (question, whole) = reply(&[ALIAS, ONE, TWO], 0);
        for end in 0..whole.len() {
            assert!(answer(&question, &whole[..end], Family::V4).is_err(), "{end}");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                if let Ok(found) = answer(&question, &changed, Family::V4) {
                    // An alias whose type is changed counts too.
                    assert!(found.addresses.len() <= 3, "{found:?}");
                }
            }
        }
    }

    #[test]
    fn no_question_is_made_of_what_is_no_name() {
        assert!(question(1, "", Family::V4).is_none());
        assert!(question(1, "a..b", Family::V4).is_none());
        assert!(question(1, &"x".repeat(64), Family::V4).is_none());
        assert!(question(1, &["y"; 200].join("."), Family::V4).is_none());
        let made = question(0x0102, "a.example.", Family::V4).expect("a name");
        assert_eq!(made[..12], [1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(made[12..], *b"\x01a\x07example\0\0\x01\0\x01");
    }

    #[test]
    fn addresses_of_the_other_family_are_asked_for_by_themselves() {
        let question = question(7, "some.example", Family::V6).expect("a name");
        let mut reply = question.clone();
        reply[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 2]);
        reply.extend(ONE);
        reply.extend([0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 60, 0, 16]);
        reply.extend(Ipv6Addr::LOCALHOST.octets());
        let found = answer(&question, &reply, Family::V6).expect("an answer");
        assert_eq!(found.addresses, [IpAddr::from(Ipv6Addr::LOCALHOST)]);
    }
}
