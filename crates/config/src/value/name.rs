//! Names: of what is declared here, of users and packages, and of what a guest knows.

use crate::flaw::Flaw;
use crate::value::text::{one_line, spelled, text_type};

/// Names that mean the host, or something else than a compartment, in policy or on a command line.
const RESERVED: &[&str] = &["adminvm", "anyvm", "default", "dispvm", "dom0", "host", "localhost"];

/// Lower-case letters, digits and `-`; begins with a letter, does not end in `-`.
///
/// 31 characters leave room for a prefix within a 64 byte host name.
fn declared(text: &str) -> bool {
    spelled(
        text,
        31,
        |byte| byte.is_ascii_lowercase(),
        |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-',
    ) && !text.ends_with('-')
}

fn not_reserved(text: &str) -> Result<(), Flaw> {
    if RESERVED.contains(&text) {
        return Err(Flaw::new(format!("`{text}` cannot name a compartment"))
            .hint(format!("these words have a meaning of their own: {}", RESERVED.join(", "))));
    }
    let fresh = text.rsplit_once("-d").is_some_and(|(_, number)| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    if fresh {
        return Err(Flaw::new(format!("`{text}` is named like a fresh disposable"))
            .hint("names ending in `-d` and a number are given by `casemate run --disposable`"));
    }
    Ok(())
}

fn identifier(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    spelled(text, 64, |byte| byte.is_ascii_alphanumeric(), letter)
}

fn login(text: &str) -> bool {
    spelled(
        text,
        32,
        |byte| byte.is_ascii_alphabetic() || byte == b'_',
        |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'@'),
    )
}

const DECLARED: Option<&str> = Some("^[a-z]([a-z0-9-]{0,29}[a-z0-9])?$");
const IDENTIFIER: Option<&str> = Some("^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$");
const LOGIN: Option<&str> = Some("^[A-Za-z_][A-Za-z0-9_.@-]{0,31}$");

text_type! {
    /// Name of a compartment: never reserved, never that of a fresh disposable.
    CompartmentName: "a compartment name",
    "lower-case letters, digits and `-`, beginning with a letter, at most 31", DECLARED, "banking",
    declared, also not_reserved
}
text_type! {
    /// Name of a template.
    TemplateName: "a template name",
    "lower-case letters, digits and `-`, beginning with a letter, at most 31", DECLARED, "hardened",
    declared
}
text_type! {
    /// Name of an image.
    ImageName: "an image name",
    "lower-case letters, digits and `-`, beginning with a letter, at most 31", DECLARED, "debian",
    declared
}
text_type! {
    /// Name of a virtual network.
    NetworkName: "a network name",
    "lower-case letters, digits and `-`, beginning with a letter, at most 31", DECLARED, "lan",
    declared
}
text_type! {
    /// Name of a volume, unique within its compartment.
    VolumeName: "a volume name",
    "lower-case letters, digits and `-`, beginning with a letter, at most 31", DECLARED, "home",
    declared
}
text_type! {
    /// Name of a secret, and of its file in the guest.
    SecretName: "a secret's name",
    "letters, digits, `.`, `_` and `-`, beginning with a letter or digit", IDENTIFIER, "api-token",
    identifier
}
text_type! {
    /// A policy tag: what `@tag:NAME` matches.
    Tag: "a tag",
    "letters, digits, `.`, `_` and `-`, beginning with a letter or digit", IDENTIFIER, "personal",
    identifier
}
text_type! {
    /// A policy type: what `@type:NAME` matches.
    CompartmentType: "a compartment type",
    "letters, digits, `.`, `_` and `-`, beginning with a letter or digit", IDENTIFIER, "AppVM",
    identifier
}
text_type! {
    /// Login name of a user, on the host or in a guest: what directories such as LDAP give out too.
    UserName: "a user name",
    "letters, digits, `_`, `-`, `.` and `@`, beginning with a letter or `_`, at most 32", LOGIN, "alice",
    login
}
text_type! {
    /// Name of a group in a guest (groupadd(8)).
    GroupName: "a group name",
    "letters, digits, `_`, `-`, `.` and `@`, beginning with a letter or `_`, at most 32", LOGIN, "audio",
    login
}
text_type! {
    /// Host name of a guest: RFC 1123 labels, 64 bytes at most (`HOST_NAME_MAX`, sethostname(2)).
    Hostname: "a host name",
    "letters, digits and `-` in parts joined by dots, at most 64 in all",
    Some("^[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$"), "banking",
    |text| text.len() <= 64 && text.split('.').all(label_of_domain)
}
text_type! {
    /// Name of a package of the image's distribution.
    PackageName: "a package name",
    "letters, digits, `+`, `.`, `_` and `-`, beginning with a letter or digit",
    Some("^[A-Za-z0-9][A-Za-z0-9+._-]{0,127}$"), "firefox-esr",
    |text| spelled(text, 128, |byte| byte.is_ascii_alphanumeric(),
        |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'.' | b'_' | b'-'))
}
text_type! {
    /// Release of a distribution, or one of its archive areas.
    ReleaseName: "a release or component name",
    "letters, digits, `.`, `_`, `/` and `-`, beginning with a letter or digit",
    Some("^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$"), "trixie",
    |text| spelled(text, 64, |byte| byte.is_ascii_alphanumeric(),
        |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/'))
}
text_type! {
    /// Address of a package archive.
    MirrorUrl: "a mirror address",
    "an address beginning with https://, http:// or file:/",
    Some("^(https?://|file:/)[^\\s]+$"), "https://mirror.example/debian",
    |text| (text.starts_with("https://") || text.starts_with("http://") || text.starts_with("file:/"))
        && text.len() <= 512 && text.bytes().all(|byte| byte.is_ascii_graphic())
}
text_type! {
    /// Which snapshots to keep, such as `7 daily, 4 weekly`.
    SnapshotRule: "a rule for snapshots",
    "a list such as `7 daily, 4 weekly`: hourly, daily, weekly, monthly and yearly, each at most once",
    Some("^[0-9]+ (hourly|daily|weekly|monthly|yearly)(, *[0-9]+ (hourly|daily|weekly|monthly|yearly))*$"),
    "7 daily, 4 weekly",
    is_snapshot_rule
}
text_type! {
    /// A minisign public key: 42 bytes in base64, as in the second line of its file.
    MinisignKey: "a minisign public key",
    "the 56 characters of the second line of minisign's public key file, beginning with RW",
    Some("^RW[A-Za-z0-9+/]{54}$"), "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3",
    |text| text.len() == 56 && text.starts_with("RW")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte))
}
text_type! {
    /// Name of a network interface of the host: 15 bytes at most (`IFNAMSIZ`, netdevice(7)).
    InterfaceName: "an interface name",
    "at most 15 characters without blanks or `/`, as `ip link` shows it",
    Some("^[^\\s/]{1,15}$"), "eth0",
    |text| spelled(text, 15, |byte| byte.is_ascii_graphic() && byte != b'/',
        |byte| byte.is_ascii_graphic() && byte != b'/') && text != "." && text != ".."
}
text_type! {
    /// Name of an environment variable (POSIX).
    VariableName: "a variable name",
    "letters, digits and `_`, not beginning with a digit",
    Some("^[A-Za-z_][A-Za-z0-9_]{0,127}$"), "LANG",
    |text| spelled(text, 128, |byte| byte.is_ascii_alphabetic() || byte == b'_',
        |byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
text_type! {
    /// A kernel setting, as sysctl(8) names it.
    SysctlName: "a sysctl name",
    "words joined by dots, as `sysctl -a` prints them",
    Some("^[A-Za-z0-9_]+(\\.[A-Za-z0-9_/:@*-]+)+$"), "kernel.kptr_restrict",
    |text| text.len() <= 256 && text.contains('.')
        && text.split('.').all(|part| !part.is_empty())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._/:@*-".contains(&byte))
}
text_type! {
    /// A systemd unit in the guest, with its suffix (systemd.unit(5)).
    UnitName: "a systemd unit",
    "the full name with its suffix", Some("^[A-Za-z0-9:_.@-]+\\.(service|socket|timer|target|path|mount)$"),
    "nginx.service",
    |text| text.rsplit_once('.').is_some_and(|(stem, suffix)| {
        ["service", "socket", "timer", "target", "path", "mount"].contains(&suffix)
            && spelled(stem, 200, |byte| byte.is_ascii_alphanumeric() || byte == b'_',
                |byte| byte.is_ascii_alphanumeric() || b":_.@-".contains(&byte))
    })
}
text_type! {
    /// A time zone of the tz database.
    Timezone: "a time zone",
    "an area and a place", Some("^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$"), "Europe/Berlin",
    |text| text.len() <= 64 && text.split('/').count() <= 3
        && text.split('/').all(|part| !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte)))
}
text_type! {
    /// Tag of a virtio-fs share: 36 bytes at most (virtio 1.2, 5.11.4).
    ShareTag: "a share tag",
    "letters, digits, `.`, `_` and `-`, at most 36", Some("^[A-Za-z0-9][A-Za-z0-9._-]{0,35}$"), "documents",
    |text| text.len() <= 36 && identifier(text)
}
text_type! {
    /// Serial of a virtio-blk disk, seen as /dev/disk/by-id/virtio-NAME: 20 bytes (virtio 1.2, 5.2.6).
    DeviceIdentifier: "a device identifier",
    "letters, digits, `.`, `_` and `-`, at most 20", Some("^[A-Za-z0-9][A-Za-z0-9._-]{0,19}$"), "scratch",
    |text| text.len() <= 20 && identifier(text)
}
text_type! {
    /// Model or device of an accelerator, in the engine's own words.
    DeviceModel: "a device model",
    "letters, digits and punctuation without blanks", Some("^[!-~]{1,128}$"), "virtio-gpu-gl",
    |text| !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic())
}
text_type! {
    /// Text shown on a window's border: 1 to 64 characters in one line.
    Label: "a label",
    "1 to 64 characters in one line", Some("^.{1,64}$"), "Banking",
    |text| !text.trim().is_empty() && text.chars().count() <= 64 && one_line(text)
}
text_type! {
    /// One argument of a program, or the value of a variable; anything but a NUL byte.
    Argument: "an argument",
    "a text without NUL bytes", None, "--verbose",
    |text| text.len() <= 131_072 && !text.contains('\0')
}
text_type! {
    /// One parameter of the guest's kernel command line; blanks only within double quotes.
    KernelParam: "a kernel parameter",
    "one parameter without blanks (or blanks within double quotes)", None, "quiet",
    |text| !text.is_empty() && text.len() <= 1024 && one_line(text)
        && text.split('"').step_by(2).all(|outside| !outside.contains(' '))
        && text.matches('"').count() % 2 == 0
}

/// One label of a domain name (RFC 1123, 2.1).
pub(crate) fn label_of_domain(text: &str) -> bool {
    spelled(
        text,
        63,
        |byte| byte.is_ascii_alphanumeric(),
        |byte| byte.is_ascii_alphanumeric() || byte == b'-',
    ) && !text.ends_with('-')
}

impl ImageName {
    /// The image that always exists and that compartments use unless they name another.
    pub const DEFAULT: &'static str = "debian";
}

text_type! {
    /// A public key in the form of one line of `authorized_keys` (sshd(8)), without options.
    AuthorizedKey: "an OpenSSH public key",
    "the line of a `.pub` file: type, key and comment",
    Some("^(ssh-|ecdsa-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/]+=*( .*)?$"), "ssh-ed25519 AAAAC3Nza… alice",
    public_key
}

fn public_key(text: &str) -> bool {
    let mut words = text.split(' ');
    let kind = words.next().unwrap_or_default();
    let key = words.next().unwrap_or_default();
    one_line(text)
        && text.len() <= 16_384
        && ["ssh-", "ecdsa-", "sk-"].iter().any(|prefix| kind.starts_with(prefix))
        && key.len() >= 16
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}

/// Each period at most once, with a number from 1 to 1000.
fn is_snapshot_rule(text: &str) -> bool {
    let mut seen = Vec::new();
    text.split(',').all(|part| {
        let Some((count, period)) = part.trim().split_once(' ') else { return false };
        let known = ["hourly", "daily", "weekly", "monthly", "yearly"].contains(&period);
        let new = !seen.contains(&period);
        seen.push(period);
        known && new && count.parse().is_ok_and(|count: u32| (1..=1000).contains(&count))
    })
}
