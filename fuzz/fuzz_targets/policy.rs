//! Any text as a policy: what stands before the first line `%` is the file, then come files it may
//! include, `a`, `b` and so on; the last line of all is a call: service, argument, source, target.
//!
//! Nothing may panic, from parsing to explaining to drawing. A policy with errors allows nothing, a
//! rule behind the one that decides does not change who decides, and a rule that is said to decide
//! nothing does not.
#![no_main]

use casemate_policy::{Compartment, Decision, Engine, Graph, Memory, Policy, Request, System};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (files, call) = text.rsplit_once('\n').unwrap_or((text, "gpg.Sign + work vault"));
    let names = std::iter::once("__main__".to_owned()).chain(('a'..='z').map(String::from));
    let files = names.zip(files.split("\n%\n")).map(|(name, text)| (name.into(), text.into()));
    let policy = Policy::load_main(&Memory::new(files));
    let all: Vec<_> = policy.diagnostics.iter().collect();
    let shown = policy.render(&all, false);
    assert!(!shown.chars().any(|letter| letter.is_control() && letter != '\n'));
    let idle: Vec<_> = policy
        .lint(&system())
        .into_iter()
        .filter(|warning| warning.message == "this rule decides nothing")
        .map(|warning| warning.place)
        .collect();
    let engine = Engine::new(policy, system());
    let words: Vec<&str> = call.split(' ').collect();
    if let [service, argument, source, target] = words[..]
        && let Ok(request) = Request::new(service, argument, source, target)
    {
        let decision = engine.explain(&request).decision;
        if let Some(rule) = decision.rule() {
            assert!(!idle.contains(&Some(engine.policy().rules[rule].place.span)));
            let mut shorter = engine.policy().clone();
            shorter.rules.truncate(rule + 1);
            let shorter = Engine::new(shorter, system());
            assert_eq!(shorter.decide(&request).rule(), Some(rule));
        }
        assert!(!engine.policy().has_errors() || matches!(decision, Decision::Deny { .. }));
    }
    if engine.policy().rules.len() < 50
        && let Ok(graph) = Graph::of(&engine, None)
    {
        let _ = (graph.text(), graph.dot(), graph.svg());
    }
});

/// Four compartments, among them a template, a disposable of it, and one that is kept quiet.
fn system() -> System {
    let compartment = |name: &str, tag: &str| Compartment {
        name: name.into(),
        uuid: Some("aaaaaaaa-0000-4000-8000-000000000001".parse().expect("a UUID")),
        tags: [tag.to_owned()].into(),
        compartment_type: "AppVM".into(),
        default_disposable: Some("web".into()),
        ..Compartment::default()
    };
    System::new([
        Compartment { running: true, ..compartment("work", "net") },
        Compartment { internal: true, ..compartment("vault", "secret") },
        Compartment { disposable_template: true, ..compartment("web", "net") },
        Compartment { made_from: Some("web".into()), ..compartment("web-d1", "net") },
    ])
}
