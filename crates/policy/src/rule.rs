//! One rule, and how it is read from the words of its line.

use std::ops::Range;

use casemate_config::{Flaw, Span, nearest};

use crate::token::{Redirect, Token};

/// One line that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which service; any when `None`.
    pub service: Option<Box<str>>,
    /// Which argument, beginning with `+`; any when `None`.
    pub argument: Option<Box<str>>,
    /// Who calls.
    pub source: Token,
    /// Whom the caller names.
    pub target: Token,
    /// What is decided.
    pub action: Action,
    /// Where it stands.
    pub place: Place,
}

/// Where a rule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its words, without blanks around them.
    pub span: Span,
    /// Line of the file, from 1.
    pub line: u32,
}

/// What a rule decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Refused.
    Deny {
        /// Whether the user is told.
        notify: bool,
    },
    /// Done.
    Allow(Permission),
    /// Done when the user says so.
    Ask {
        /// How.
        permission: Permission,
        /// The choice that is offered first.
        default_target: Option<Redirect>,
    },
    /// Stands where a file with errors stood, and refuses what no rule before it decides.
    Quarantine,
}

/// How an allowed call is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// Where it goes instead of where the caller wanted.
    pub target: Option<Redirect>,
    /// Who the service runs as; the target's default when `None`.
    pub user: Option<Box<str>>,
    /// Whether the user is told.
    pub notify: bool,
    /// Whether the target is started for it.
    pub autostart: bool,
}

/// A word and where it stands in its line.
pub(crate) type Word<'a> = (Range<usize>, &'a str);

/// What is wrong with a line, and with which bytes of it.
pub(crate) type LineFlaw = (Flaw, Range<usize>);

/// The words after the service and argument.
pub(crate) struct Columns<'a> {
    /// SOURCE.
    pub(crate) source: Word<'a>,
    /// TARGET.
    pub(crate) target: Word<'a>,
    /// ACTION.
    pub(crate) action: Word<'a>,
    /// `key=value`.
    pub(crate) parameters: &'a [Word<'a>],
}

/// Which calls a line is about: `None` is `*`.
pub(crate) type Call = (Option<Box<str>>, Option<Box<str>>);

/// Reads the columns SERVICE and ARGUMENT.
pub(crate) fn call(service: &Word<'_>, argument: &Word<'_>) -> Result<Call, LineFlaw> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let (place, word) = service;
    let service = match *word {
        "*" => None,
        word if word.bytes().all(letter) => Some(word.into()),
        word => {
            let flaw = Flaw::new(format!("`{word}` is no service"));
            let flaw = match word.split_once('+') {
                Some((service, argument)) => {
                    flaw.hint(format!("the argument is a column of its own: {service} +{argument}"))
                }
                None => flaw.hint("services have letters, digits, `.`, `_` and `-`"),
            };
            return Err((flaw, place.clone()));
        }
    };
    let (place, word) = argument;
    let argument = match *word {
        "*" => None,
        word if word.starts_with('+') && word.bytes().all(|b| letter(b) || b == b'+') => {
            Some(word.into())
        }
        word => {
            let flaw = Flaw::new(format!("`{word}` is no argument"));
            let flaw = if word.starts_with('+') {
                flaw.hint("arguments have letters, digits, `+`, `.`, `_` and `-`")
            } else {
                flaw.hint("write `*` for any argument, `+` for none, or `+` and the argument")
            };
            return Err((flaw, place.clone()));
        }
    };
    if service.is_none() && argument.is_some() {
        let flaw = Flaw::new("an argument needs a service to belong to")
            .hint("write `*` for the argument, or name the service");
        return Err((flaw, place.clone()));
    }
    Ok((service, argument))
}

/// Reads a rule whose service and argument are known.
pub(crate) fn rule(
    (service, argument): Call,
    columns: &Columns<'_>,
    place: Place,
) -> Result<Rule, LineFlaw> {
    let at = |word: &Word<'_>, flaw: Flaw| (flaw, word.0.clone());
    let source = Token::source(columns.source.1).map_err(|flaw| at(&columns.source, flaw))?;
    let target = Token::target(columns.target.1).map_err(|flaw| at(&columns.target, flaw))?;
    let (known, make): (&[&str], fn(Parameters) -> Action) = match columns.action.1 {
        "deny" => (&["notify"], |p| Action::Deny { notify: p.notify.unwrap_or(true) }),
        "allow" => (&["target", "user", "notify", "autostart"], |p| Action::Allow(p.permission())),
        "ask" => (&["target", "default_target", "user", "notify", "autostart"], |mut p| {
            let default_target = p.default_target.take();
            Action::Ask { permission: p.permission(), default_target }
        }),
        word => {
            let flaw = Flaw::new(format!("`{word}` is no action"));
            let flaw = match nearest(word, ["allow", "ask", "deny"]) {
                Some(known) => flaw.hint(format!("did you mean `{known}`?")),
                None => flaw.hint("actions are allow, ask and deny"),
            };
            return Err(at(&columns.action, flaw));
        }
    };
    let parameters = Parameters::read(columns.parameters, columns.action.1, known)?;
    if columns.action.1 == "allow" && target == Token::Default && parameters.target.is_none() {
        let flaw = Flaw::new("nothing says where a call without a target goes")
            .hint("add target=NAME, or name another TARGET than `@default`");
        return Err(at(&columns.target, flaw));
    }
    Ok(Rule { service, argument, source, target, action: make(parameters), place })
}

/// What stands behind an action, each at most once.
#[derive(Default)]
struct Parameters {
    target: Option<Redirect>,
    default_target: Option<Redirect>,
    user: Option<Box<str>>,
    notify: Option<bool>,
    autostart: Option<bool>,
}

impl Parameters {
    fn read(words: &[Word<'_>], action: &str, known: &[&str]) -> Result<Self, LineFlaw> {
        let mut all = Self::default();
        for (range, word) in words {
            let at = |flaw: Flaw| (flaw, range.clone());
            let Some((key, value)) = word.split_once('=') else {
                let flaw = Flaw::new(format!("`{word}` is no key=value"));
                return Err(at(match word.starts_with('#') {
                    true => flaw.hint("a comment stands in a line of its own"),
                    false => flaw.hint(format!("after `{action}` may stand {}", list(known))),
                }));
            };
            if !known.contains(&key) {
                let flaw = Flaw::new(format!("`{action}` has no parameter `{key}`"));
                return Err(at(match nearest(key, known.iter().copied()) {
                    Some(near) => flaw.hint(format!("did you mean `{near}`?")),
                    None => flaw.hint(format!("after `{action}` may stand {}", list(known))),
                }));
            }
            let twice = match key {
                "target" => all.target.replace(Redirect::parse(value).map_err(at)?).is_some(),
                "default_target" => {
                    all.default_target.replace(Redirect::parse(value).map_err(at)?).is_some()
                }
                "user" => all.user.replace(value.into()).is_some(),
                "notify" => all.notify.replace(yes(key, value).map_err(at)?).is_some(),
                _ => all.autostart.replace(yes(key, value).map_err(at)?).is_some(),
            };
            if twice {
                return Err(at(Flaw::new(format!("`{key}` is given twice"))));
            }
        }
        Ok(all)
    }

    fn permission(self) -> Permission {
        Permission {
            target: self.target,
            user: self.user,
            notify: self.notify.unwrap_or(false),
            autostart: self.autostart.unwrap_or(true),
        }
    }
}

fn yes(key: &str, value: &str) -> Result<bool, Flaw> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(Flaw::new(format!("`{key}` is `yes` or `no`, not `{value}`"))),
    }
}

fn list(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("{key}=")).collect::<Vec<_>>().join(", ")
}
