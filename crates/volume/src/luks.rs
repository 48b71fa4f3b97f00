//! The header of a volume: LUKS2, in a file of its own, which no guest ever sees.
//!
//! cryptsetup makes it and opens it. What a header may say is checked before a key is asked of it:
//! one that came with an archive could otherwise demand gigabytes of memory, or hours.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::secret::{Secret, VolumeKey};
use crate::tool::{CRYPTSETUP, ToolError};

/// Bytes of the headers we make: two copies of 16 KiB metadata, 1 MiB of key slots (four).
pub(crate) const LENGTH: u64 = 2 * (16 << 10) + (1 << 20);
/// What cryptsetup exits with when no slot opens, cryptsetup(8).
const WRONG_PASSPHRASE: i32 = 2;
/// KiB of memory for one try at a passphrase: argon2id's second recommendation, RFC 9106.
const MEMORY_KIB: &str = "65536";
/// Milliseconds for one try, measured by cryptsetup where the header is made.
const TRY_MS: &str = "1000";
/// Rounds for keys that are random and need no stretching: the least cryptsetup takes.
const ROUNDS: &str = "1000";
/// The most a header may ask for: KiB, passes and threads of argon2; rounds of PBKDF2.
const MOST: (u64, u64, u64, u64) = (1 << 20, 64, 8, 20_000_000);

/// Why a header could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum LuksError {
    /// No slot opens with this passphrase.
    #[error("could not open {0}: the passphrase is wrong")]
    Wrong(PathBuf),
    /// It says what none of ours says.
    #[error("could not use the header {path}: {why}")]
    Refused {
        /// The header.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file cannot be looked at.
    #[error("could not read {path}")]
    Read {
        /// The header.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// cryptsetup failed otherwise.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// How a slot turns what opens it into a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stretching {
    /// A person's passphrase: slow, and in 64 MiB of memory.
    Passphrase,
    /// 256 random bits.
    Random,
}

/// Makes the header of the empty payload at `payload`, opened by `secret`.
pub(crate) fn format(
    header: &Path,
    payload: &Path,
    secret: &Secret,
    stretching: Stretching,
) -> Result<(), LuksError> {
    let mut arguments: Vec<&str> = vec!["luksFormat", "--type", "luks2", "--batch-mode"];
    arguments.extend(["--key-file", "-", "--cipher", VolumeKey::CIPHER, "--key-size", "512"]);
    arguments.extend(["--sector-size", "4096", "--offset", "0"]);
    arguments.extend(["--luks2-metadata-size", "16k", "--luks2-keyslots-size", "1m"]);
    arguments.extend(match stretching {
        Stretching::Passphrase => {
            ["--pbkdf", "argon2id", "--pbkdf-memory", MEMORY_KIB, "--iter-time", TRY_MS].as_slice()
        }
        Stretching::Random => &["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", ROUNDS],
    });
    let mut arguments: Vec<_> = arguments.into_iter().map(AsRef::as_ref).collect();
    arguments.extend(["--header".as_ref(), header.as_os_str(), payload.as_os_str()]);
    CRYPTSETUP.run(arguments, secret.bytes())?;
    Ok(())
}

/// The volume's key.
pub(crate) fn key(header: &Path, secret: &Secret) -> Result<VolumeKey, LuksError> {
    let sector_size = check(header)?;
    let options = ["luksDump", "--batch-mode", "--dump-volume-key", "--key-file", "-"];
    let mut arguments: Vec<_> = options.iter().map(AsRef::as_ref).collect();
    arguments.push(header.as_os_str());
    // To standard output: with --volume-key-file it insists on making a file.
    let dump = CRYPTSETUP.run(arguments, secret.bytes()).map_err(|error| match error {
        error if error.is_code(WRONG_PASSPHRASE) => LuksError::Wrong(header.into()),
        other => other.into(),
    })?;
    dumped_key(dump.bytes())
        .and_then(|key| VolumeKey::new(key, sector_size))
        .ok_or(LuksError::Refused { path: header.into(), why: "it holds no key of 512 bits" })
}

/// The bytes after `MK dump:`, which cryptsetup prints as hexadecimal pairs in lines of sixteen.
fn dumped_key(dump: &[u8]) -> Option<Secret> {
    const TITLE: &[u8] = b"MK dump:";
    let at = dump.windows(TITLE.len()).position(|window| window == TITLE)? + TITLE.len();
    let mut key = Zeroizing::new(Vec::with_capacity(VolumeKey::LENGTH));
    let mut digits = dump[at..].iter().filter(|byte| !byte.is_ascii_whitespace());
    while key.len() < VolumeKey::LENGTH {
        let mut digit = || char::from(*digits.next()?).to_digit(16);
        key.push(u8::try_from(digit()? << 4 | digit()?).ok()?);
    }
    digits.next().is_none().then(|| Secret::copied(&key))
}

/// Checks what the header asks for; returns the size of a sector.
pub(crate) fn check(header: &Path) -> Result<u32, LuksError> {
    let refused = |why| LuksError::Refused { path: header.into(), why };
    let read = |source| LuksError::Read { path: header.into(), source };
    let found = fs::symlink_metadata(header).map_err(read)?;
    if !found.is_file() || found.len() != LENGTH {
        return Err(refused("it is not as long as a header"));
    }
    let arguments = ["luksDump".as_ref(), "--dump-json-metadata".as_ref(), header.as_os_str()];
    let dump = CRYPTSETUP.run(arguments, b"").map_err(|error| match error {
        ToolError::Failed { .. } => refused("cryptsetup cannot read it"),
        other => other.into(),
    })?;
    let metadata: Metadata = serde_json::from_slice(dump.bytes())
        .map_err(|_| refused("it says things no header of a volume says"))?;
    metadata.check().map_err(refused)
}

/// Overwrites the header with zeros, and waits until the disk has them.
///
/// On flash and on file systems that never write in place the old bytes may stay until they are
/// trimmed; nothing more can be done from here.
pub(crate) fn destroy(header: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = match options.write(true).custom_flags(libc::O_NOFOLLOW).open(header) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut left = file.metadata()?.len();
    let zeros = [0; 64 << 10];
    while left > 0 {
        let length = zeros.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&zeros[..length])?;
        left -= length as u64;
    }
    file.sync_all()
}

/// The part of LUKS2's metadata that matters here (LUKS2 On-Disk Format Specification, 3).
#[derive(Deserialize)]
struct Metadata {
    keyslots: BTreeMap<String, Keyslot>,
    tokens: BTreeMap<String, serde_json::Value>,
    segments: BTreeMap<String, Segment>,
    digests: BTreeMap<String, Digest>,
    config: Config,
}

#[derive(Deserialize)]
struct Keyslot {
    r#type: String,
    key_size: u64,
    af: Splitter,
    kdf: Kdf,
}

#[derive(Deserialize)]
struct Splitter {
    stripes: u64,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Kdf {
    Pbkdf2 { iterations: u64 },
    Argon2i { time: u64, memory: u64, cpus: u64 },
    Argon2id { time: u64, memory: u64, cpus: u64 },
}

#[derive(Deserialize)]
struct Segment {
    r#type: String,
    offset: String,
    size: String,
    iv_tweak: String,
    encryption: String,
    sector_size: u32,
    integrity: Option<serde_json::Value>,
    flags: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Digest {
    iterations: u64,
}

#[derive(Deserialize)]
struct Config {
    requirements: Option<serde_json::Value>,
}

impl Metadata {
    fn check(&self) -> Result<u32, &'static str> {
        let (memory_most, time_most, cpus_most, rounds_most) = MOST;
        let segment = match (self.segments.len(), self.segments.get("0")) {
            (1, Some(segment)) => segment,
            _ => return Err("it describes more or less than one payload"),
        };
        let plain = segment.r#type == "crypt"
            && segment.offset == "0"
            && segment.size == "dynamic"
            && segment.iv_tweak == "0"
            && segment.encryption == VolumeKey::CIPHER
            && matches!(segment.sector_size, 512 | 4096)
            && segment.integrity.is_none()
            && segment.flags.is_none();
        if !plain {
            return Err("its payload is encrypted in another way than a volume's");
        }
        if self.config.requirements.is_some() {
            return Err("it asks for features, or is in the middle of being encrypted anew");
        }
        if !self.tokens.is_empty() {
            return Err("it has tokens");
        }
        if self.keyslots.is_empty() {
            return Err("it has no key");
        }
        for slot in self.keyslots.values() {
            let bearable = match slot.kdf {
                Kdf::Pbkdf2 { iterations } => iterations <= rounds_most,
                Kdf::Argon2i { time, memory, cpus } | Kdf::Argon2id { time, memory, cpus } => {
                    memory <= memory_most && time <= time_most && cpus <= cpus_most
                }
            };
            if slot.r#type != "luks2" || slot.key_size != 64 || slot.af.stripes != 4000 {
                return Err("it has a key slot of another kind than a volume's");
            }
            if !bearable {
                return Err("opening it takes too much time or memory");
            }
        }
        if self.digests.values().any(|digest| digest.iterations > rounds_most) {
            return Err("opening it takes too much time or memory");
        }
        Ok(segment.sector_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_dump_gives_a_key() {
        let line = "00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff \n\t\t";
        let dump = format!("UUID: \tx\nMK bits:\t512\nMK dump:\t{}\n", line.repeat(4));
        let key = dumped_key(dump.as_bytes()).expect("a key");
        assert_eq!(
            key.bytes()[..18],
            *b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff\x00\x11"
        );
        let short = format!("MK dump:\t{}\n", line.repeat(3));
        let long = format!("MK dump:\t{}\n", line.repeat(5));
        for wrong in ["", "MK dump:", &short, &long, &short.replace("ff", "fg")] {
            assert!(dumped_key(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn headers_that_ask_too_much_are_refused() {
        let good = r#"{"keyslots":{"0":{"type":"luks2","key_size":64,"af":{"type":"luks1",
            "stripes":4000,"hash":"sha256"},"kdf":{"type":"argon2id","time":4,"memory":65536,
            "cpus":2,"salt":""}}},"tokens":{},"segments":{"0":{"type":"crypt","offset":"0",
            "size":"dynamic","iv_tweak":"0","encryption":"aes-xts-plain64","sector_size":4096}},
            "digests":{"0":{"type":"pbkdf2","iterations":1000}},"config":{"json_size":"12288"}}"#;
        let check = |text: &str| {
            serde_json::from_str::<Metadata>(text)
                .map_err(|_| "no metadata")
                .and_then(|m| m.check())
        };
        assert_eq!(check(good), Ok(4096));
        for (from, to) in [
            ("\"memory\":65536", "\"memory\":4194304"),
            ("\"time\":4", "\"time\":4294967295"),
            ("\"cpus\":2", "\"cpus\":64"),
            ("\"iterations\":1000", "\"iterations\":4294967295"),
            ("argon2id", "scrypt"),
            ("\"offset\":\"0\"", "\"offset\":\"4096\""),
            ("dynamic", "512"),
            ("aes-xts-plain64", "cipher_null-ecb"),
            ("\"tokens\":{}", "\"tokens\":{\"0\":{\"type\":\"x\"}}"),
            ("\"config\":{", "\"config\":{\"requirements\":{\"mandatory\":[\"x\"]},"),
            ("\"type\":\"luks2\"", "\"type\":\"reencrypt\""),
        ] {
            assert!(good.contains(from));
            assert!(check(&good.replacen(from, to, 1)).is_err(), "{to}");
        }
    }

    #[test]
    fn a_destroyed_header_is_zeros() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("header.luks");
        fs::write(&path, vec![7; 100_000]).expect("written");
        destroy(&path).expect("destroyed");
        assert_eq!(fs::read(&path).expect("read"), vec![0; 100_000]);
        destroy(&directory.path().join("none")).expect("nothing to destroy");
    }
}
