//! A guest's desktop file, read as what an enemy wrote (Desktop Entry Specification 1.5).
//!
//! Of each file these keys are taken, and nothing else: `Name`, `GenericName`, `Comment` with their
//! translations, `Categories`, `StartupWMClass`; and what says that it is for no menu. `Exec`, `Path`,
//! `Icon`, `MimeType`, `Keywords` and actions stay in the guest: `casemate.StartApp` finds them there.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::categories;
use crate::limits::{
    MAX_CATEGORIES, MAX_COMMENT, MAX_FILE, MAX_ID, MAX_LINE, MAX_LOCALES, MAX_NAME, MAX_TEXTS,
};
use crate::text;

/// An application as it may be shown. What [`parse`] returns is sound; what came by another way is
/// held against [`Application::is_sound`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// Name of its file without `.desktop`.
    pub id: String,
    /// Its name and translations; the one without a locale comes first.
    pub names: Vec<Localized>,
    /// What kind of program it is, likewise; may be empty.
    pub generic_names: Vec<Localized>,
    /// What it is good for, likewise; may be empty.
    pub comments: Vec<Localized>,
    /// Registered ones.
    pub categories: Vec<String>,
    /// What its windows will say they are of, in the guest.
    pub class: String,
}

/// A text for people who use this locale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Localized {
    /// `de`, `pt_BR`, `sr@latin`; empty for all others.
    pub locale: String,
    /// The text.
    pub text: String,
}

/// Why a file makes no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    /// The id.
    #[error("its name has other characters than letters, digits and `._-`, or is too long")]
    Id,
    /// [`MAX_FILE`].
    #[error("it is larger than {} KiB", MAX_FILE / 1024)]
    Large,
    /// There are two groups of that name.
    #[error("it has more than one [Desktop Entry]")]
    Ambiguous,
    /// Of another type, or nothing at all.
    #[error("it is of no application")]
    Kind,
    /// `NoDisplay`, `Hidden`, `OnlyShowIn`: it is not meant for this menu.
    #[error("it is not meant to be shown")]
    Hidden,
    /// `Terminal`.
    #[error("it wants a terminal; there is none")]
    Terminal,
    /// There is none, or it has characters that are not shown.
    #[error("it has no name that can be shown")]
    Name,
}

/// Checks an id: letters, digits, `.`, `_`, `-`, not beginning with the last three.
pub fn check_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let begins = id.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    begins && id.len() <= MAX_ID && id.bytes().all(allowed)
}

/// Reads a desktop file.
///
/// # Errors
/// It makes no entry: [`LeftOut`].
pub fn parse(id: &str, content: &[u8]) -> Result<Application, LeftOut> {
    if !check_id(id) {
        return Err(LeftOut::Id);
    }
    if content.len() > MAX_FILE {
        return Err(LeftOut::Large);
    }
    let mut found = Found::default();
    let (mut inside, mut groups) = (false, 0);
    for line in content.split(|byte| *byte == b'\n').filter(|line| line.len() <= MAX_LINE) {
        // One with other bytes than UTF-8 is as if not there.
        let Ok(line) = std::str::from_utf8(line) else { continue };
        let line = line.trim_matches([' ', '\t', '\r']);
        if line.starts_with('[') {
            inside = line == "[Desktop Entry]";
            groups += u32::from(inside);
        } else if inside
            && !line.starts_with('#')
            && let Some((key, value)) = line.split_once('=')
        {
            found.take(key.trim_end_matches([' ', '\t']), value.trim_start_matches([' ', '\t']));
        }
    }
    if groups > 1 {
        return Err(LeftOut::Ambiguous);
    }
    found.finish(id)
}

/// What the lines have said so far.
#[derive(Default)]
struct Found {
    kind: Option<bool>,
    hidden: bool,
    terminal: bool,
    names: Texts,
    generic_names: Texts,
    comments: Texts,
    categories: Option<Vec<String>>,
    class: Option<String>,
}

impl Found {
    /// The first of equal keys counts, but for what hides.
    fn take(&mut self, key: &str, value: &str) {
        let (name, locale) = match key.strip_suffix(']').and_then(|key| key.split_once('[')) {
            Some((name, locale)) if is_locale(locale) => (name, locale),
            Some(_) => return,
            None => (key, ""),
        };
        match name {
            "Name" => self.names.take(locale, value, MAX_NAME),
            "GenericName" => self.generic_names.take(locale, value, MAX_NAME),
            "Comment" => self.comments.take(locale, value, MAX_COMMENT),
            _ if !locale.is_empty() => {}
            "Type" => drop(self.kind.get_or_insert(value == "Application")),
            "NoDisplay" | "Hidden" => self.hidden |= value == "true",
            "OnlyShowIn" => self.hidden = true,
            "Terminal" => self.terminal |= value == "true",
            "Categories" => drop(self.categories.get_or_insert_with(|| registered(value))),
            "StartupWMClass" => drop(self.class.get_or_insert_with(|| class(value))),
            _ => {}
        }
    }

    fn finish(self, id: &str) -> Result<Application, LeftOut> {
        match (self.kind, self.hidden, self.terminal) {
            (Some(true), false, false) => {}
            (Some(true), true, _) => return Err(LeftOut::Hidden),
            (Some(true), false, true) => return Err(LeftOut::Terminal),
            _ => return Err(LeftOut::Kind),
        }
        let mut room = MAX_TEXTS;
        let names = self.names.finish(&mut room);
        if names.is_empty() {
            return Err(LeftOut::Name);
        }
        Ok(Application {
            id: id.into(),
            names,
            generic_names: self.generic_names.finish(&mut room),
            comments: self.comments.finish(&mut room),
            categories: self.categories.unwrap_or_default(),
            // Programs of Wayland call their windows as their desktop file is called.
            class: self.class.filter(|class| !class.is_empty()).unwrap_or_else(|| id.into()),
        })
    }
}

/// A text and its translations.
#[derive(Default)]
struct Texts {
    seen: BTreeSet<String>,
    shown: Vec<Localized>,
}

impl Texts {
    fn take(&mut self, locale: &str, value: &str, most: usize) {
        if self.seen.len() > MAX_LOCALES || !self.seen.insert(locale.into()) {
            return;
        }
        if let Some(text) = unescape(value).and_then(|text| text::plain(&text, most)) {
            self.shown.push(Localized { locale: locale.into(), text });
        }
    }

    /// Nothing without the one for all.
    fn finish(mut self, room: &mut usize) -> Vec<Localized> {
        self.shown.sort_by(|one, other| one.locale.cmp(&other.locale));
        if self.shown.first().is_none_or(|first| !first.locale.is_empty()) {
            return Vec::new();
        }
        self.shown.retain(|one| match room.checked_sub(one.locale.len() + one.text.len()) {
            Some(left) => {
                *room = left;
                true
            }
            None => false,
        });
        // Nor without it because there was no room for it.
        if self.shown.first().is_none_or(|first| !first.locale.is_empty()) {
            self.shown.clear();
        }
        self.shown
    }
}

/// `\s` and `\\`. The others, and what is no escape, are nothing that is shown.
fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        out.push(match character {
            '\\' => match characters.next()? {
                's' => ' ',
                '\\' => '\\',
                _ => return None,
            },
            other => other,
        });
    }
    Some(out)
}

/// `lang_COUNTRY@MODIFIER`; the rest is out of use.
fn is_locale(locale: &str) -> bool {
    let (rest, modifier) = locale.split_once('@').unwrap_or((locale, "x"));
    let (language, country) = rest.split_once('_').unwrap_or((rest, "XX"));
    let all = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    all(language, 2..=3) && all(country, 2..=4) && all(modifier, 1..=12)
}

/// The registered ones of a list, each once.
fn registered(value: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for category in value.split(';').filter(|category| categories::is_registered(category)) {
        if found.len() < MAX_CATEGORIES && !found.iter().any(|one| one == category) {
            found.push(category.into());
        }
    }
    found
}

/// What the proxy leaves of an `app_id`, cut to what an id may have.
fn class(value: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    value.chars().filter(plain).take(MAX_ID).collect()
}

impl Application {
    /// Whether this could have come from [`parse`].
    pub fn is_sound(&self) -> bool {
        let texts = |texts: &[Localized], most| {
            texts.len() <= MAX_LOCALES + 1
                && texts.is_sorted_by(|one, other| one.locale < other.locale)
                && texts.first().is_none_or(|first| first.locale.is_empty())
                && texts.iter().skip(1).all(|one| is_locale(&one.locale))
                && texts.iter().all(|one| text::is_cut(&one.text, most))
        };
        check_id(&self.id)
            && !self.names.is_empty()
            && texts(&self.names, MAX_NAME)
            && texts(&self.generic_names, MAX_NAME)
            && texts(&self.comments, MAX_COMMENT)
            && self.categories.len() <= MAX_CATEGORIES
            && self.categories.iter().all(|one| categories::is_registered(one))
            && self.class.len() <= MAX_ID
            && class(&self.class) == self.class
    }
}

#[cfg(test)]
#[path = "application_tests.rs"]
mod tests;
