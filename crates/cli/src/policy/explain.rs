//! `policy explain`: a decision, the line that made it, and the lines that nearly did.

use std::fmt::Write as _;

use casemate_policy::vectors::to_json;
use casemate_policy::{
    Caller, Decision, Destination, Engine, Explanation, Request, Wanted, split_call,
};
use serde_json::{Value, json};

use super::{Judged, at};
use crate::failure::Problem;
use crate::print_json;

pub(super) fn explain(
    judged: Judged,
    source: &str,
    target: &str,
    service: &str,
    json: bool,
) -> Result<u8, Problem> {
    let (name, argument) = split_call(service);
    let request = Request::new(name, argument, source, target).map_err(|flaw| {
        let problem = Problem { code: 2, ..Problem::new(flaw.message) };
        match flaw.hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    })?;
    let engine = Engine::new(judged.read.policy, judged.system);
    if let Caller::Compartment(caller) = request.source
        && engine.system().named(caller).is_none()
    {
        return Err(unknown(&engine, caller));
    }
    let mut explanation = engine.explain(&request);
    explanation.notes.extend(judged.notes);
    if let Wanted::Compartment(wanted) = request.target
        && engine.system().named(wanted).is_none()
        && let Some(near) = near(&engine, wanted)
    {
        explanation.notes.push(format!("perhaps `{near}` was meant, not `{wanted}`"));
    }
    if json {
        return print_json(&as_json(&engine, &request, &explanation));
    }
    out!("{}", as_text(&engine, (source, target, service), &explanation));
    crate::say_notes(&explanation.notes);
    Ok(0)
}

fn near<'a>(engine: &'a Engine, name: &str) -> Option<&'a str> {
    let known = engine.system().compartments().iter();
    casemate_config::nearest(name, known.map(|compartment| compartment.name.as_str()))
}

fn unknown(engine: &Engine, name: &str) -> Problem {
    let problem = Problem::new(format!("there is no compartment `{name}`"));
    match near(engine, name) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem,
    }
}

fn as_text(engine: &Engine, call: (&str, &str, &str), explanation: &Explanation<'_>) -> String {
    let (source, target, service) = call;
    let target = if target.is_empty() { "@default" } else { target };
    let mut out = String::new();
    let mut line = |label: &str, text: &str| {
        let _ = writeln!(out, "  {label:10}{text}");
    };
    let yes = |flag: &bool| if *flag { "yes" } else { "no" };
    let (word, rule) = match &explanation.decision {
        Decision::Deny { reason, rule, notify } => {
            line("why", &reason.to_string());
            line("notify", yes(notify));
            ("denied", *rule)
        }
        Decision::Allow { rule, target, user, notify, autostart } => {
            line("goes to", &shown(target));
            line("user", user.unwrap_or("the target's default"));
            line("notify", yes(notify));
            line("autostart", yes(autostart));
            ("allowed", Some(*rule))
        }
        Decision::Ask { rule, choices, default, user, notify, autostart } => {
            let all: Vec<String> = choices.iter().map(shown).collect();
            line("choices", &all.join(" "));
            line("first", &default.as_ref().map_or("none".into(), shown));
            line("user", user.unwrap_or("the target's default"));
            line("notify", yes(notify));
            line("autostart", yes(autostart));
            ("asked about", Some(*rule))
        }
    };
    if let Some(rule) = rule {
        let (place, text) = placed(engine, rule);
        line("by", &place);
        if !text.is_empty() {
            line("", &text);
        }
    }
    let mut text = format!("{service} from {source} to {target} is {word}\n{out}");
    if !explanation.near.is_empty() {
        text.push_str("nearly matched before:\n");
    }
    for near in &explanation.near {
        let (place, rule) = placed(engine, near.rule);
        let _ = writeln!(text, "  {place}: the {} is {}", near.field.name(), near.says);
        let _ = writeln!(text, "            {rule}");
    }
    text
}

/// The host as the policy calls it, everything else as it is.
fn shown(destination: &Destination<'_>) -> String {
    match destination {
        Destination::Host => "@adminvm".into(),
        other => other.to_string(),
    }
}

/// File and line of a rule, and its text with one blank between words.
/// Where a rule stands, and its words.
pub(crate) fn placed(engine: &Engine, rule: usize) -> (String, String) {
    let policy = engine.policy();
    let place = policy.rules[rule].place;
    let words: Vec<&str> = policy.text(place).split_whitespace().collect();
    let path = policy.path(place);
    match words.is_empty() {
        true => (path.display().to_string(), String::new()),
        false => (at(path, place.line), harmless(&words.join(" "))),
    }
}

/// A file may hold anything that is no blank, after `user=` for one.
fn harmless(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

fn as_json(engine: &Engine, request: &Request<'_>, explanation: &Explanation<'_>) -> Value {
    let policy = engine.policy();
    let rule = |rule: usize| {
        let place = policy.rules[rule].place;
        json!({
            "rule": rule + 1,
            "file": policy.path(place).display().to_string(),
            "line": place.line,
            "text": policy.text(place),
        })
    };
    let near: Vec<Value> = explanation
        .near
        .iter()
        .map(|near| {
            let mut value = rule(near.rule);
            value["field"] = near.field.name().into();
            value["says"] = near.says.as_str().into();
            value
        })
        .collect();
    let reason = match &explanation.decision {
        Decision::Deny { reason, .. } => Some(reason.to_string()),
        _ => None,
    };
    json!({
        "service": request.service,
        "argument": request.argument,
        "decision": to_json(&explanation.decision),
        "reason": reason,
        "by": explanation.decision.rule().map(rule),
        "near": near,
        "notes": explanation.notes,
    })
}
