//! Files encrypted with age, keys of volumes among them, and the identities that open them.
//!
//! The `age` program does it. The key goes through pipes; the passphrase of an identity that has
//! one is typed on a terminal of the program's own, since it takes it nowhere else.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::key::{KeyError, Unlock, files};
use crate::secret::{RANDOM_LENGTH, Secret};
use crate::tool::{AGE, AGE_KEYGEN, Streaming, ToolError};

/// Bytes of the longest secret that [`encrypt`] takes.
pub const MOST_SECRET: usize = crate::tool::INPUT;

/// Bytes of the largest file with an identity that is looked at.
const MOST_IDENTITY: u64 = 64 << 10;
/// Bytes of the largest key that is taken.
const MOST_KEY: usize = 4 << 10;

/// How an identity is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Whoever can read the file has it.
    Plain,
    /// The file is encrypted with a passphrase.
    Protected,
    /// The file only names what has it: a token, by a plugin of age.
    Elsewhere,
    /// A key of ssh that is encrypted with a passphrase.
    ProtectedSsh,
}

/// Name of the file whose recipients the secrets in its folder are encrypted to.
pub const RECIPIENTS: &str = "recipients.txt";

/// How the identity in this file is kept; none when there is no such file.
pub(crate) fn identity(path: &Path) -> io::Result<Option<Identity>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_IDENTITY as usize));
    file.take(MOST_IDENTITY).read_to_end(&mut bytes)?;
    let begins = |line: &[u8], word: &str| line.starts_with(word.as_bytes());
    if begins(&bytes, "age-encryption.org/") || begins(&bytes, "-----BEGIN AGE ENCRYPTED FILE") {
        return Ok(Some(Identity::Protected));
    }
    if begins(&bytes, "-----BEGIN OPENSSH PRIVATE KEY-----") && is_encrypted_ssh(&bytes) {
        return Ok(Some(Identity::ProtectedSsh));
    }
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let plugin = lines.clone().any(|line| begins(line, "AGE-PLUGIN-"));
    let plain = lines.any(|line| begins(line, "AGE-SECRET-KEY-") || begins(line, "-----BEGIN"));
    Ok(Some(if plugin && !plain { Identity::Elsewhere } else { Identity::Plain }))
}

/// Whether a private key of OpenSSH's form is encrypted: its beginning (PROTOCOL.key of OpenSSH) names
/// the cipher, `none` for none.
fn is_encrypted_ssh(file: &[u8]) -> bool {
    // `openssh-key-v1\0`, then the length 4 and the word, in base64: three bytes are four letters.
    const UNENCRYPTED: &[u8] = b"b3BlbnNzaC1rZXktdjEAAAAABG5vbm";
    let body = file.split(|byte| *byte == b'\n').nth(1).unwrap_or_default();
    !body.starts_with(UNENCRYPTED)
}

/// Whether a file is encrypted with a passphrase of its own: `age --passphrase` wrote it.
fn has_passphrase(path: &Path) -> io::Result<bool> {
    const HEADER: &[u8] = b"age-encryption.org/v1\n-> scrypt ";
    let mut beginning = Vec::new();
    File::open(path)?.take(HEADER.len() as u64).read_to_end(&mut beginning)?;
    Ok(beginning == HEADER)
}

/// Makes an identity in this file if there is none.
pub(crate) fn make_identity(path: &Path) -> Result<(), KeyError> {
    if path.try_exists().map_err(files("look at", path))? {
        return Ok(());
    }
    let identity = AGE_KEYGEN.run([""; 0], b"")?;
    put(path, identity.bytes())
}

/// Makes a random key, encrypted to the identity, in this file if it is not there.
pub(crate) fn make(path: &Path, unlock: &Unlock<'_>) -> Result<(), KeyError> {
    if path.try_exists().map_err(files("look at", path))? {
        return Ok(());
    }
    let key = Secret::random().map_err(files("make a key for", path))?;
    put(path, encrypt(&key, unlock)?.bytes())
}

/// The key in this file.
pub(crate) fn open(path: &Path, unlock: &Unlock<'_>) -> Result<Secret, KeyError> {
    let key = decrypt(path, unlock)?;
    if !(RANDOM_LENGTH..=MOST_KEY).contains(&key.bytes().len()) {
        return Err(KeyError::BadLength(path.into()));
    }
    Ok(key)
}

/// What a file would hold that is encrypted to the identity of `unlock`, which is made if there is
/// none.
///
/// # Errors
/// [`KeyError`]: the identity needs a passphrase, or cannot be had; or age does not do it.
pub fn encrypt(secret: &Secret, unlock: &Unlock<'_>) -> Result<Secret, KeyError> {
    make_identity(unlock.identity)?;
    let kept = identity(unlock.identity).map_err(files("read", unlock.identity))?;
    if kept == Some(Identity::Protected) {
        let identity = opened(unlock)?;
        let recipient = AGE_KEYGEN.run(["-y"], identity.bytes())?;
        let recipient = String::from_utf8_lossy(recipient.bytes()).into_owned();
        return Ok(AGE.run(["--encrypt", "--recipient", recipient.trim()], secret.bytes())?);
    }
    if kept == Some(Identity::ProtectedSsh) {
        // Its public half needs no passphrase.
        let mut public = unlock.identity.as_os_str().to_owned();
        public.push(".pub");
        return encrypt_to(Path::new(&public), secret);
    }
    let to = unlock.identity.as_os_str();
    Ok(AGE.run(["--encrypt".as_ref(), "--identity".as_ref(), to], secret.bytes())?)
}

/// What a file would hold that is encrypted to the recipients in this file.
fn encrypt_to(recipients: &Path, secret: &Secret) -> Result<Secret, KeyError> {
    let to = recipients.as_os_str();
    Ok(AGE.run(["--encrypt".as_ref(), "--recipients-file".as_ref(), to], secret.bytes())?)
}

/// What this file holds, which is encrypted to the identity of `unlock`.
///
/// # Errors
/// [`KeyError`]: there is no identity, it needs a passphrase or is not the right one; or age does
/// not do it.
pub fn decrypt(path: &Path, unlock: &Unlock<'_>) -> Result<Secret, KeyError> {
    if has_passphrase(path).map_err(files("read", path))? {
        return typed(path, &[path.as_os_str()], unlock);
    }
    let kept = match identity(unlock.identity).map_err(files("read", unlock.identity))? {
        None => return Err(KeyError::NoIdentity(unlock.identity.into())),
        Some(kept) => kept,
    };
    let decrypted = if kept == Identity::ProtectedSsh {
        let with = ["--identity".as_ref(), unlock.identity.as_os_str(), path.as_os_str()];
        return typed(unlock.identity, &with, unlock);
    } else if kept == Identity::Protected {
        let identity = opened(unlock)?;
        let arguments = ["--decrypt".as_ref(), "--identity".as_ref(), "-".as_ref()];
        AGE.run(arguments.into_iter().chain([path.as_os_str()]), identity.bytes())
    } else {
        let arguments = ["--decrypt".as_ref(), "--identity".as_ref(), unlock.identity.as_os_str()];
        AGE.run(arguments.into_iter().chain([path.as_os_str()]), b"")
    };
    decrypted.map_err(|error| match error {
        error if error.says("no identity matched") => {
            KeyError::WrongIdentity { path: path.into(), identity: unlock.identity.into() }
        }
        other => other.into(),
    })
}

/// What `age --decrypt` makes of these arguments when the passphrase is typed that it asks for; `path`
/// is what has it.
fn typed(path: &Path, arguments: &[&OsStr], unlock: &Unlock<'_>) -> Result<Secret, KeyError> {
    let passphrase = unlock.passphrase.ok_or_else(|| KeyError::PassphraseNeeded(path.into()))?;
    let typeable = !passphrase.bytes().iter().any(u8::is_ascii_control);
    if passphrase.bytes().is_empty() || !typeable {
        // No identity has an empty one, and the terminal would act on a control character.
        return Err(KeyError::Wrong(path.into()));
    }
    let all = ["--decrypt".as_ref()].into_iter().chain(arguments.iter().copied());
    AGE.run_on_terminal(all, passphrase).map_err(|error: ToolError| match error {
        error if WRONG.iter().any(|words| error.says(words)) => KeyError::Wrong(path.into()),
        error if error.says("no identity matched") => {
            KeyError::WrongIdentity { path: path.into(), identity: unlock.identity.into() }
        }
        other => other.into(),
    })
}

/// What age says of a wrong passphrase: of its own files, and of keys of ssh.
const WRONG: [&str; 2] = ["incorrect passphrase", "decryption password incorrect"];

/// The text of an identity that is protected by a passphrase.
fn opened(unlock: &Unlock<'_>) -> Result<Secret, KeyError> {
    typed(unlock.identity, &[unlock.identity.as_os_str()], unlock)
}

/// Encrypts what comes from `input` into `output`, to the identity in a file, which is made if there
/// is none. It goes on by itself, and ends with the calling thread. The encrypted file becomes no
/// longer than `most` bytes.
///
/// # Errors
/// [`KeyError::PassphraseNeeded`]: the identity has one, so nobody can tell to whom to encrypt; or
/// age cannot be started.
pub fn encrypting(
    input: OwnedFd,
    output: File,
    most: u64,
    identity_file: &Path,
) -> Result<Streaming, KeyError> {
    make_identity(identity_file)?;
    let kept = identity(identity_file).map_err(files("read", identity_file))?;
    if matches!(kept, Some(Identity::Protected | Identity::ProtectedSsh)) {
        return Err(KeyError::PassphraseNeeded(identity_file.into()));
    }
    let to = identity_file.as_os_str();
    Ok(AGE.stream(["--encrypt".as_ref(), "--identity".as_ref(), to], input, output, Some(most))?)
}

/// Whether there is an identity that needs no passphrase.
///
/// # Errors
/// [`KeyError::NoIdentity`], [`KeyError::PassphraseNeeded`], or the file cannot be read.
pub fn opens_by_itself(identity_file: &Path) -> Result<(), KeyError> {
    match identity(identity_file).map_err(files("read", identity_file))? {
        None => Err(KeyError::NoIdentity(identity_file.into())),
        Some(Identity::Protected | Identity::ProtectedSsh) => {
            Err(KeyError::PassphraseNeeded(identity_file.into()))
        }
        Some(Identity::Plain | Identity::Elsewhere) => Ok(()),
    }
}

/// Decrypts what comes from `input` into `output`, with the identity in a file. It goes on by itself,
/// and ends with the calling thread.
///
/// # Errors
/// [`KeyError::NoIdentity`], [`KeyError::PassphraseNeeded`], or age cannot be started.
pub fn decrypting(
    input: File,
    output: OwnedFd,
    identity_file: &Path,
) -> Result<Streaming, KeyError> {
    opens_by_itself(identity_file)?;
    let with = identity_file.as_os_str();
    Ok(AGE.stream(["--decrypt".as_ref(), "--identity".as_ref(), with], input, output, None)?)
}

/// Writes a secret to this file, in place of what is there: encrypted to the recipients that its folder
/// names ([`RECIPIENTS`]), else to the identity of `unlock`.
///
/// # Errors
/// [`KeyError`], as [`encrypt`]; or the file cannot be written, and is what it was.
pub fn write(path: &Path, secret: &Secret, unlock: &Unlock<'_>) -> Result<(), KeyError> {
    let recipients = path.with_file_name(RECIPIENTS);
    let encrypted = match recipients.try_exists().map_err(files("look at", &recipients))? {
        true => encrypt_to(&recipients, secret)?,
        false => encrypt(secret, unlock)?,
    };
    aside(path, encrypted.bytes(), |aside| {
        aside.persist(path).map(drop).map_err(|error| error.error)
    })
}

/// Writes a file that is not there yet, as a whole; one that appears meanwhile stays.
fn put(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    aside(path, content, |aside| match aside.persist_noclobber(path) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.error),
        _ => Ok(()),
    })
}

/// Writes a file, mode 0600, beside where it is to be, and has it put there when it is on the disk.
fn aside(
    path: &Path,
    content: &[u8],
    place: impl FnOnce(NamedTempFile) -> io::Result<()>,
) -> Result<(), KeyError> {
    let write = || -> io::Result<()> {
        let directory = path.parent().ok_or(io::ErrorKind::InvalidFilename)?;
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut aside = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(directory)?;
        aside.write_all(content)?;
        aside.as_file().sync_all()?;
        place(aside)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(files("write", path))
}

/// Whether two files are on the same file system.
pub(crate) fn together(one: &Path, other: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata(one)?.dev() == fs::metadata(other)?.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_told_apart() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("identity.txt");
        assert_eq!(identity(&path).expect("looked"), None);
        let plain = "# created: today\n# public key: age1x\nAGE-SECRET-KEY-1X\n";
        for (text, expected) in [
            (plain, Identity::Plain),
            ("age-encryption.org/v1\n-> scrypt x 18\n", Identity::Protected),
            ("-----BEGIN AGE ENCRYPTED FILE-----\n", Identity::Protected),
            ("# a token\nAGE-PLUGIN-YUBIKEY-1X\n", Identity::Elsewhere),
            ("AGE-PLUGIN-YUBIKEY-1X\nAGE-SECRET-KEY-1X\n", Identity::Plain),
            (
                "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAE\n",
                Identity::Plain,
            ),
            (
                "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1j\n",
                Identity::ProtectedSsh,
            ),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\n", Identity::ProtectedSsh),
            ("", Identity::Plain),
        ] {
            fs::write(&path, text).expect("written");
            assert_eq!(identity(&path).expect("looked"), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_appeared_meanwhile_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keys/home.age");
        put(&path, b"first").expect("written");
        put(&path, b"second").expect("left alone");
        assert_eq!(fs::read(&path).expect("read"), b"first");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path().join("keys")).expect("listed").count(), 1);
    }
}
