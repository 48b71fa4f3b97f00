//! The records of an extended header: what does not fit into a tar header.
//!
//! Format: `pax`, "pax Extended Header", in POSIX.1-2017: `LENGTH KEY=VALUE\n`, the length
//! counting all of the record. Extended attributes are kept as star, GNU tar and Go have them.

use std::collections::BTreeMap;

/// Begins the key of an extended attribute.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";
/// Begins the keys of GNU tar's sparse files.
const SPARSE: &[u8] = b"GNU.sparse.";

/// What an extended header says.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) owner: Option<u64>,
    pub(super) group: Option<u64>,
    pub(super) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: bool,
}

impl Pax {
    /// Reads records; none when they are malformed. Of two with the same key the later counts.
    pub(super) fn parse(mut records: &[u8]) -> Option<Self> {
        let mut pax = Self::default();
        while !records.is_empty() {
            let blank = records.iter().position(|byte| *byte == b' ')?;
            let length = usize::try_from(decimal(&records[..blank])?).ok()?;
            let record = records.get(..length)?.get(blank + 1..)?;
            records = &records[length..];
            let record = record.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            pax.take(&record[..equals], &record[equals + 1..])?;
        }
        Some(pax)
    }

    /// Whether it changes what is read of an entry. What only adds to an entry's description,
    /// such as a comment or a time, does not.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        // An empty value takes back what an earlier header said.
        let text = || (!value.is_empty()).then(|| value.to_vec());
        let number = || match value {
            b"" => Some(None),
            digits => decimal(digits).map(Some),
        };
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = number()?,
            b"uid" => self.owner = number()?,
            b"gid" => self.group = number()?,
            key if key.starts_with(SPARSE) => self.sparse = true,
            key => {
                if let Some(name) = key.strip_prefix(ATTRIBUTE) {
                    self.attributes.insert(name.to_vec(), value.to_vec());
                }
            }
        }
        Some(())
    }
}

/// One record, with a length that counts itself.
pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// The record of an extended attribute.
pub(super) fn attribute(name: &[u8], value: &[u8]) -> Vec<u8> {
    record(&[ATTRIBUTE, name].concat(), value)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| match byte {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back() {
        let path = "p".repeat(93);
        let records = [
            record(b"path", path.as_bytes()),
            record(b"mtime", b"1.5"),
            attribute(b"user.a", b"1=\n2\0"),
            record(b"uid", b"7"),
            record(b"uid", b""),
        ];
        let pax = Pax::parse(&records.concat()).unwrap();
        assert_eq!(pax.path.as_deref(), Some(path.as_bytes()));
        assert_eq!(pax.attributes[&b"user.a"[..]], b"1=\n2\0");
        assert_eq!((pax.owner, pax.size), (None, None));
        assert!(Pax::parse(&record(b"comment", b"x")).unwrap().is_empty());
    }

    #[test]
    fn malformed_records_are_refused() {
        for records in [
            &b"x"[..],
            b"5 a=b",
            b"99 a=b\n",
            b"3 a=b\n",
            b"0 a=b\n",
            b"6 ab\n\n",
            b"99999999999999999999999 a=b\n",
            b"9 size=-\n",
            b" a=b\n",
        ] {
            assert_eq!(Pax::parse(records), None, "{records:?}");
        }
    }
}
