//! The language once more, written to be compared with the engine: no index, no sets, one rule
//! after the other, words as text.

use std::collections::BTreeSet;

use casemate_policy::{
    Action, Caller, Compartment, Permission, Policy, Redirect, Request, Rule, System, Token, Wanted,
};

/// A decision as text: `deny …`, `allow …`, `ask …`.
pub(crate) fn decide(policy: &Policy, system: &System, request: &Request<'_>) -> String {
    let caller = match request.source {
        Caller::Host => "dom0",
        Caller::Compartment(name) => name,
    };
    let by_uuid = |uuid| system.compartments().iter().find(|c| c.uuid == Some(uuid));
    let exists = |name: &str| system.compartments().iter().any(|c| c.name == name);
    let wanted = match request.target {
        Wanted::Default => "@default".to_owned(),
        Wanted::Host => "dom0".to_owned(),
        Wanted::HostWord => "@adminvm".to_owned(),
        Wanted::Disposable => "@dispvm".to_owned(),
        Wanted::DisposableOf(name) => {
            if !template(system, name) {
                return "deny true".into();
            }
            format!("@dispvm:{name}")
        }
        Wanted::Compartment(name) if exists(name) => name.to_owned(),
        Wanted::Uuid(uuid) => by_uuid(uuid).map_or("@default".into(), |c| c.name.clone()),
        Wanted::Compartment(_) => "@default".to_owned(),
    };
    let met = |rule: &&Rule| {
        rule.service.as_deref().is_none_or(|service| service == request.service)
            && rule.argument.as_deref().is_none_or(|argument| argument == request.argument)
            && source_matches(system, &rule.source, caller)
    };
    let default = of(system, caller).and_then(|c| c.default_disposable.clone());
    let found = policy.rules.iter().enumerate().find(|(_, rule)| {
        met(rule) && target_matches(system, &rule.target, &wanted, default.as_deref())
    });
    let Some((number, rule)) = found else { return "deny true".into() };
    let end = |p: &Permission| format!("{:?} {} {}", p.user, p.notify, p.autostart);
    let up = |target: &String| {
        target == "dom0" || system.compartments().iter().any(|c| c.name == *target && c.running)
    };
    let text = |redirect: &Redirect| match redirect {
        Redirect::Host => "dom0".to_owned(),
        Redirect::Uuid(uuid) => by_uuid(*uuid).map_or(String::new(), |c| c.name.clone()),
        other => other.to_string(),
    };
    match &rule.action {
        Action::Deny { notify } => format!("deny {notify}"),
        Action::Quarantine => "deny true".into(),
        Action::Allow(permission) => {
            let mut target = match &permission.target {
                Some(redirect) => {
                    let target = text(redirect);
                    let good = match target.strip_prefix("@dispvm:") {
                        Some(name) => template(system, name),
                        None => exists(&target) || target == "dom0" || target == "@dispvm",
                    };
                    if !good {
                        return "deny true".into();
                    }
                    target
                }
                None if wanted == "@adminvm" => "dom0".into(),
                None => wanted,
            };
            if target == "@dispvm" {
                let Some(default) = default else { return "deny true".into() };
                target = format!("@dispvm:{default}");
            }
            if target == "@default" {
                return "deny true".into();
            }
            if !permission.autostart && !up(&target) {
                return format!("deny {}", permission.notify);
            }
            if target == caller {
                return "deny true loopback".into();
            }
            format!("allow {number} {target} {}", end(permission))
        }
        Action::Ask { permission, default_target } => {
            let mut choices: BTreeSet<String> = BTreeSet::new();
            match &permission.target {
                Some(redirect) => choices.extend([text(redirect)]),
                None => {
                    for rule in policy.rules.iter().rev().filter(met) {
                        gather(system, rule, &mut choices);
                    }
                    if choices.remove("@dispvm") {
                        choices.extend(default.as_ref().map(|name| format!("@dispvm:{name}")));
                    }
                    choices.remove(caller);
                    choices.retain(|choice| {
                        let name = choice.strip_prefix("@dispvm:").unwrap_or(choice);
                        !of(system, name).is_some_and(|c| c.internal)
                    });
                }
            }
            choices.remove("");
            choices.retain(|choice| permission.autostart || up(choice));
            if choices.is_empty() {
                return "deny true".into();
            }
            let first = default_target.as_ref().and_then(|redirect| match redirect {
                Redirect::Disposable => default.as_ref().map(|name| format!("@dispvm:{name}")),
                other => Some(text(other)),
            });
            let first = first.filter(|first| choices.contains(first));
            format!("ask {number} {choices:?} {first:?} {}", end(permission))
        }
    }
}

fn gather(system: &System, rule: &Rule, choices: &mut BTreeSet<String>) {
    let (redirect, takes) = match &rule.action {
        Action::Allow(permission) | Action::Ask { permission, .. } => {
            (permission.target.as_ref(), false)
        }
        Action::Deny { .. } | Action::Quarantine => (None, true),
    };
    let mut meant = BTreeSet::new();
    let word = match redirect {
        Some(redirect) => Token::target(&redirect.to_string()).expect("a word"),
        None => rule.target.clone(),
    };
    for compartment in system.compartments() {
        let Compartment { name, tags, compartment_type, disposable_template: fresh, .. } =
            compartment;
        let disposable = || format!("@dispvm:{name}");
        match &word {
            Token::Everything | Token::AnyCompartment => {
                meant.insert(name.clone());
                meant.extend(fresh.then(disposable));
            }
            Token::Name(wanted) if **wanted == **name => meant.extend([name.clone()]),
            Token::Uuid(uuid) if compartment.uuid == Some(*uuid) => meant.extend([name.clone()]),
            Token::Tag(tag) if tags.contains(&**tag) => meant.extend([name.clone()]),
            Token::Type(kind) if **kind == **compartment_type => meant.extend([name.clone()]),
            Token::DisposableOf(wanted) if **wanted == **name && *fresh => {
                meant.insert(disposable());
            }
            Token::DisposableOfTag(tag) if tags.contains(&**tag) && *fresh => {
                meant.insert(disposable());
            }
            _ => {}
        }
    }
    let host = match &word {
        Token::Everything | Token::Host => true,
        Token::Tag(tag) => system.host().tags.contains(&**tag),
        Token::Type(kind) => **kind == *system.host().compartment_type,
        _ => false,
    };
    meant.extend(host.then(|| "dom0".to_owned()));
    if matches!(word, Token::Everything | Token::AnyCompartment | Token::Disposable) {
        meant.insert("@dispvm".into());
    }
    for choice in meant {
        if takes {
            choices.remove(&choice);
        } else {
            choices.insert(choice);
        }
    }
}

fn of<'a>(system: &'a System, name: &str) -> Option<&'a Compartment> {
    if name == "dom0" {
        return Some(system.host());
    }
    system.compartments().iter().find(|compartment| compartment.name == name)
}

fn template(system: &System, name: &str) -> bool {
    system.compartments().iter().any(|c| c.name == name && c.disposable_template)
}

fn source_matches(system: &System, word: &Token, caller: &str) -> bool {
    let made_from = of(system, caller).and_then(|c| c.made_from.as_deref());
    match (word, made_from) {
        (Token::DisposableOf(name), Some(template)) => **name == *template,
        (Token::DisposableOfTag(tag), Some(name)) => {
            template(system, name) && of(system, name).is_some_and(|c| c.tags.contains(&**tag))
        }
        (Token::DisposableOf(_) | Token::DisposableOfTag(_), None) => false,
        _ => is(system, word, caller),
    }
}

fn target_matches(system: &System, word: &Token, wanted: &str, default: Option<&str>) -> bool {
    let template_of = || match wanted {
        "@dispvm" => default,
        other => other.strip_prefix("@dispvm:"),
    };
    match word {
        Token::Default => wanted == "@default",
        Token::Disposable => wanted == "@dispvm",
        Token::DisposableOf(name) => template_of() == Some(name),
        Token::DisposableOfTag(tag) => template_of().is_some_and(|name| {
            template(system, name) && of(system, name).is_some_and(|c| c.tags.contains(&**tag))
        }),
        _ => is(system, word, wanted),
    }
}

/// What is the same in both columns.
fn is(system: &System, word: &Token, name: &str) -> bool {
    let host = name == "dom0" || name == "@adminvm";
    let itself = of(system, name);
    match word {
        Token::Everything => true,
        Token::AnyCompartment => !host,
        Token::Host => host,
        Token::Name(wanted) => **wanted == *name,
        Token::Uuid(uuid) => !host && itself.is_some_and(|c| c.uuid == Some(*uuid)),
        Token::Tag(tag) => itself.is_some_and(|c| c.tags.contains(&**tag)),
        Token::Type(kind) => itself.is_some_and(|c| *c.compartment_type == **kind),
        _ => false,
    }
}
