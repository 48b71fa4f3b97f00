//! `casemate clipboard`: from one compartment's clipboard to another's, or the host's, in two steps that
//! the user takes.
//!
//! ```text
//! copy:  proxy ── take ──▶ hold            paste: hold ── policy says yes ──▶ proxy ── once ──▶ program
//! ```
//!
//! What is held is bytes and a type; nothing here looks into them. Recorded is who, to whom, the type
//! and the size, never the content.

mod confine;
mod hold;
mod party;

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use casemate_audit::Event;
use casemate_policy::{Decision, Destination, Engine, Request};
use casemate_supervise::audit::Audit;
use casemate_supervise::policy as policies;
use casemate_supervise::prepare::World;

use crate::arguments::Clipboard;
use crate::call::ask::{self, Answer, Question};
use crate::failure::Problem;
use crate::policy::placed;
use crate::{print_json, running};
use party::Party;

/// What the policy is asked for, with `+text` or `+image`.
const SERVICE: &str = "casemate.ClipboardPaste";

/// Types that are text, as Wayland and X11 programs name it, the best first.
const TEXT: [&str; 5] = ["text/plain;charset=utf-8", "UTF8_STRING", "text/plain", "TEXT", "STRING"];

/// Types of images that are taken where they are asked for. No SVG: that is a program.
const IMAGES: [&str; 5] = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];

/// Largest text, in bytes.
const LARGEST_TEXT: u64 = 1 << 20;

/// Largest image, in bytes: the most that a proxy takes.
const LARGEST_IMAGE: u64 = 16 << 20;

/// Most that waypipe (0.8.4) brings into a compartment, in bytes: what a pipe of the host's may hold.
const LARGEST_PASTED: u64 = 1 << 20;

/// Seconds that what was pasted waits for a program to take it.
const OFFERED: u64 = 60;

/// Runs one of its commands.
///
/// # Errors
/// Nothing is there, nobody has the focus, the policy says no.
pub(crate) fn clipboard(world: &World, command: &Clipboard) -> Result<u8, Problem> {
    match command {
        Clipboard::Copy { name, images } => copy(world, name.as_deref(), *images),
        Clipboard::Paste { name } => paste(world, name.as_deref()),
        Clipboard::Status { json } => status(world, *json),
        Clipboard::Clear => {
            hold::clear(world);
            Ok(0)
        }
        Clipboard::Hold { source, kind } => hold::run(world, source, kind),
    }
}

fn is_image(kind: &str) -> bool {
    IMAGES.contains(&kind)
}

fn copy(world: &World, name: Option<&str>, images: bool) -> Result<u8, Problem> {
    let party = Party::find(world, name)?;
    let types: &[&str] = if images { &IMAGES } else { &TEXT };
    let largest = if images { LARGEST_IMAGE } else { LARGEST_TEXT };
    let Some((kind, content)) = party.take(types, largest)? else {
        let what = if images { "image" } else { "text" };
        let problem = Problem::new(format!("the clipboard of {party} has no {what}"));
        return Err(match images {
            true => problem,
            false => problem.hint("copy something there first; --images takes images"),
        });
    };
    let size = content.len();
    let event = Event::of(&party.to_string(), "clipboard-copy");
    Audit::of(world).write(&event.with("type", kind.as_str()).with("size", size));
    hold::begin(world, &party.to_string(), &kind, &content)?;
    eprintln!(
        "note: {size} bytes ({kind}) of {party} are held for {} s; `casemate clipboard paste` offers \
         them once",
        hold::TIME.as_secs()
    );
    Ok(0)
}

fn paste(world: &World, name: Option<&str>) -> Result<u8, Problem> {
    let Some(held) = hold::look(world)? else { return Err(nothing()) };
    let party = Party::find(world, name)?;
    let target = party.to_string();
    if target == held.source {
        return Err(Problem::new(format!("what is held is {party}'s own"))
            .hint("programs of one compartment share a clipboard"));
    }
    if held.size > LARGEST_PASTED && target != party::HOST {
        let what = format!(
            "{} KiB are held, and waypipe carries {} into a compartment",
            held.size >> 10,
            LARGEST_PASTED >> 10
        );
        return Err(Problem::new(what).hint("copy it as a file: casemate copy"));
    }
    let decided = decide(world, &held.source, &target, is_image(&held.kind));
    let event = Event::of(&target, "clipboard-paste")
        .with("source", held.source.as_str())
        .with("type", held.kind.as_str())
        .with("size", held.size);
    let event = match &decided {
        Ok(by) => event.with("allowed", true).with("by", by.as_str()),
        Err(why) => event.with("allowed", false).with("why", why.as_str()),
    };
    Audit::of(world).write(&event);
    if let Err(why) = decided {
        let what = format!("{target} may not have the clipboard of {}", held.source);
        let problem = Problem::new(what).hint(format!(
            "a rule such as `{SERVICE} * {} {} allow` in a file of policy.d lets it",
            word(&held.source),
            word(&target)
        ));
        return Err(Problem { causes: vec![why], ..problem });
    }
    let alike: &[&str] = if is_image(&held.kind) { &[&held.kind] } else { &TEXT };
    let offered = hold::give(world, &held)
        .and_then(|content| content.ok_or_else(nothing))
        .and_then(|content| party.offer(alike, content, OFFERED));
    if let Err(problem) = offered {
        let event = Event::of(&target, "clipboard-paste-failed").with("why", problem.what.as_str());
        Audit::of(world).write(&event.with("source", held.source.as_str()));
        return Err(problem);
    }
    // Who had the focus may not be whom the user looks at by now.
    eprintln!("note: offered to {target} for {OFFERED} s, to be pasted once");
    Ok(0)
}

fn nothing() -> Problem {
    Problem::new("no clipboard is held").hint("`casemate clipboard copy` takes one")
}

/// Asks the policy. The place of the rule, or why not.
fn decide(world: &World, source: &str, target: &str, image: bool) -> Result<String, String> {
    let (from, to) = (word(source), word(target));
    let argument = if image { "+image" } else { "+text" };
    let request =
        Request::new(SERVICE, argument, &from, &to).map_err(|flaw| flaw.message.clone())?;
    let running: BTreeSet<String> =
        running::names(world).map_err(|problem| problem.what)?.into_iter().collect();
    let read = policies::load(policies::Place::of(world, None), &world.places)
        .map_err(|error| error.to_string())?;
    let engine = Engine::new(read.policy, policies::system(world.settings(), &running));
    let there = |destination: &Destination<'_>| match destination {
        Destination::Host => target == party::HOST,
        Destination::Compartment(name) => *name == target,
        Destination::DisposableOf(_) | Destination::Disposable => false,
    };
    let elsewhere = |rule| format!("a rule sends it elsewhere ({})", placed(&engine, rule).0);
    match engine.decide(&request) {
        Decision::Deny { reason, rule, .. } => {
            let by = rule.map_or(String::new(), |rule| format!(" ({})", placed(&engine, rule).0));
            Err(format!("{reason}{by}"))
        }
        Decision::Allow { rule, target, .. } if there(&target) => Ok(placed(&engine, rule).0),
        Decision::Allow { rule, .. } => Err(elsewhere(rule)),
        Decision::Ask { rule, choices, .. } => {
            let by = placed(&engine, rule).0;
            let choices =
                choices.iter().filter(|one| there(one)).map(ToString::to_string).collect();
            let question =
                Question { source: source.into(), service: SERVICE.into(), choices, default: None };
            if question.choices.is_empty() {
                return Err(elsewhere(rule));
            }
            // Nobody but the user waits: this end stays open.
            let (waits, _open) = UnixStream::pair().map_err(|error| error.to_string())?;
            match ask::ask(world, &question, waits.as_fd()) {
                Answer::Target(_) => Ok(by),
                Answer::No(why) => Err(format!("{why} ({by})")),
            }
        }
    }
}

/// How the policy calls a party.
fn word(party: &str) -> String {
    if party == party::HOST { "@adminvm".into() } else { party.to_owned() }
}

fn status(world: &World, json: bool) -> Result<u8, Problem> {
    let held = hold::look(world)?;
    if json {
        return print_json(&held);
    }
    match held {
        None => outln!("nothing is held"),
        Some(held) => outln!(
            "{} bytes ({}) of {}, for {} s more",
            held.size,
            held.kind,
            held.source,
            held.seconds
        ),
    }
    Ok(0)
}
