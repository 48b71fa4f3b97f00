//! Chooses from the host's package sources those that serve a release of Debian, and writes
//! them for mmdebstrap.
//!
//! Sources with a key of their own (`Signed-By` another file than Debian's keyring) belong to
//! third parties: they are left out, as is what is not fetched over the network. Formats:
//! `sources.list(5)`.

use std::fmt::Write;

/// What the name of a keyring file with Debian's own keys begins with.
const DEBIAN_KEYRING: &str = "debian-archive";

/// The text of one file of package sources.
#[derive(Debug)]
pub(super) enum SourceFile {
    /// The older format, one source a line.
    OneLine(String),
    /// The newer format, deb822.
    Stanzas(String),
}

/// One source.
#[derive(Debug, Default, PartialEq, Eq)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    architectures: Vec<String>,
    signed_by: Option<String>,
    enabled: bool,
    binary: bool,
}

/// The sources that serve `suite` and its updates, in deb822 format; `None` when the suite
/// itself is not served.
pub(super) fn serving(
    files: &[SourceFile],
    suite: &str,
    components: &[&str],
    architecture: &str,
) -> Option<String> {
    let updates = ["", "-updates", "-security"].map(|suffix| format!("{suite}{suffix}"));
    let mut text = String::new();
    let mut served = false;
    for mut source in files.iter().flat_map(parse) {
        source.suites.retain(|suite| updates.contains(suite));
        source.components.retain(|own| components.contains(&&**own));
        source.uris.retain(|uri| is_remote(uri));
        if source.is_usable(architecture) {
            served |= source.suites.iter().any(|own| own == suite);
            source.write(&mut text);
        }
    }
    served.then_some(text)
}

impl Source {
    fn is_usable(&self, architecture: &str) -> bool {
        let fits = self.architectures.is_empty()
            || self.architectures.iter().any(|own| own == architecture);
        let lists = [&self.uris, &self.suites, &self.components];
        let complete = lists.iter().all(|list| !list.is_empty());
        self.enabled && self.binary && fits && complete && self.is_debians()
    }

    /// Whether the source is signed by Debian's keys, or by whichever apt trusts anyway.
    fn is_debians(&self) -> bool {
        self.signed_by.as_ref().is_none_or(|keyring| {
            let file = keyring.rsplit('/').next().unwrap_or(keyring);
            keyring.starts_with('/') && file.starts_with(DEBIAN_KEYRING)
        })
    }

    fn write(&self, text: &mut String) {
        let separator = if text.is_empty() { "" } else { "\n" };
        let _ = write!(
            text,
            "{separator}Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\n",
            self.uris.join(" "),
            self.suites.join(" "),
            self.components.join(" "),
        );
        if let Some(keyring) = &self.signed_by {
            let _ = writeln!(text, "Signed-By: {keyring}");
        }
    }
}

fn is_remote(uri: &str) -> bool {
    ["http:", "https:", "mirror+http:", "mirror+https:", "ftp:"]
        .iter()
        .any(|scheme| uri.starts_with(scheme))
}

fn parse(file: &SourceFile) -> Vec<Source> {
    match file {
        SourceFile::OneLine(text) => text.lines().filter_map(parse_line).collect(),
        SourceFile::Stanzas(text) => {
            stanzas(text).iter().map(|lines| parse_stanza(lines)).collect()
        }
    }
}

/// `deb [option=value …] uri suite component…`
fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t']) {
        return None;
    }
    let rest = rest.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut place = words(rest).into_iter();
    let mut source = Source {
        uris: vec![place.next()?],
        suites: vec![place.next()?],
        components: place.collect(),
        enabled: true,
        binary: true,
        ..Source::default()
    };
    for option in options.split_whitespace() {
        match option.split_once('=') {
            Some(("arch", list)) => {
                source.architectures = list.split(',').map(str::to_owned).collect();
            }
            Some(("signed-by", keyring)) => source.signed_by = Some(keyring.to_owned()),
            _ => {}
        }
    }
    Some(source)
}

/// Fields of each stanza, continuation lines joined to theirs.
fn stanzas(text: &str) -> Vec<Vec<(String, String)>> {
    let mut stanzas = vec![Vec::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let stanza = stanzas.last_mut().expect("there is always one");
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                let value: &mut String = value;
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((key, value)) = line.split_once(':') {
            stanza.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    stanzas
}

fn parse_stanza(fields: &[(String, String)]) -> Source {
    let mut source = Source { enabled: true, ..Source::default() };
    for (key, value) in fields {
        match key.as_str() {
            "types" => source.binary = words(value).iter().any(|kind| kind == "deb"),
            "uris" => source.uris = words(value),
            "suites" => source.suites = words(value),
            "components" => source.components = words(value),
            "architectures" => source.architectures = words(value),
            "signed-by" => source.signed_by = Some(value.clone()),
            "enabled" => source.enabled = !["no", "false", "off", "0"].contains(&value.as_str()),
            _ => {}
        }
    }
    source
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "\
# a comment
Types: deb deb-src
URIs: https://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://mirror.example/security
Suites: bookworm-security
Components: main

Types: deb
URIs: https://third.example/apt
Suites: bookworm
Components: main
Signed-By: /etc/apt/keyrings/third.gpg

Types: deb
Enabled: no
URIs: https://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://inline.example/debian
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEY865UxYJKwYBBAHaRw8BAQdA
 -----END PGP PUBLIC KEY BLOCK-----
";

    const LINES: &str = "\
# deb http://comment.example bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian bookworm main contrib
deb-src http://mirror.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main
deb [arch=arm64] http://arm.example/debian bookworm main
deb http://flat.example ./
";

    fn stanzas() -> [SourceFile; 1] {
        [SourceFile::Stanzas(STANZAS.into())]
    }

    #[test]
    fn only_debians_own_sources_of_the_suite_are_kept() {
        let text = serving(&stanzas(), "bookworm", &["main"], "amd64").unwrap();
        let expected = "\
Types: deb
URIs: https://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://mirror.example/security
Suites: bookworm-security
Components: main
";
        assert_eq!(text, expected);
    }

    #[test]
    fn lines_are_read_as_well() {
        let files = [SourceFile::OneLine(LINES.into())];
        let text = serving(&files, "bookworm", &["main"], "amd64").unwrap();
        let expected = "\
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
";
        assert_eq!(text, expected);
    }

    #[test]
    fn another_suite_is_not_served() {
        assert_eq!(serving(&stanzas(), "trixie", &["main"], "amd64"), None);
        assert_eq!(serving(&stanzas(), "bookworm", &["contrib"], "amd64"), None);
        assert_eq!(serving(&[], "bookworm", &["main"], "amd64"), None);
    }
}
