//! Properties of every policy: nothing panics, the first matching rule decides, and the compiled
//! rules decide as the plain ones do.

mod reference;

use casemate_policy::{
    Action, Caller, Decision, Destination, Engine, Graph, Memory, Policy, PolicyFile, Reason,
    Request, Rule, System, Token, Wanted,
};
use proptest::prelude::*;

const SYSTEM: &str = include_str!("vectors/qrexec-system-info.json");

const SERVICES: [&str; 4] = ["*", "gpg.Sign", "sync.Copy", "clip.Paste"];
const ARGUMENTS: [&str; 4] = ["*", "+", "+x", "+a.b"];
const NAMES: [&str; 6] = ["banking", "work", "vault", "web-dvm", "mail-dvm", "nosuch"];
const SOURCES: [&str; 13] = [
    "*",
    "@anyvm",
    "@adminvm",
    "dom0",
    "@tag:net",
    "@tag:red",
    "@tag:host-tag",
    "@type:AppVM",
    "@type:AdminVM",
    "@dispvm:web-dvm",
    "@dispvm:@tag:red",
    "uuid:aaaaaaaa-0000-4000-8000-000000000002",
    "uuid:00000000-0000-0000-0000-000000000000",
];
const REDIRECTS: [&str; 9] = [
    "dom0",
    "@dispvm",
    "@dispvm:web-dvm",
    "@dispvm:vault",
    "vault",
    "router",
    "work",
    "nosuch",
    "uuid:aaaaaaaa-0000-4000-8000-000000000003",
];
const WANTED: [&str; 12] = [
    "",
    "@default",
    "@adminvm",
    "dom0",
    "@dispvm",
    "@dispvm:web-dvm",
    "@dispvm:vault",
    "work",
    "vault",
    "untrusted",
    "router",
    "nosuch",
];
const CALLERS: [&str; 8] =
    ["work", "dom0", "vault", "web-dvm", "untrusted", "dev", "disp77", "stranger"];

fn one(words: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(words)
}

fn line() -> impl Strategy<Value = String> {
    let source = prop_oneof![one(&NAMES), one(&SOURCES)];
    let target = prop_oneof![one(&NAMES), one(&SOURCES), one(&["@default", "@dispvm"])];
    let flag = |key: &'static str| {
        prop_oneof![3 => Just(String::new()), 1 => one(&["yes", "no"]).prop_map(move |value| {
            format!(" {key}={value}")
        })]
    };
    let redirect = |key: &'static str| {
        prop_oneof![2 => Just(String::new()), 1 => one(&REDIRECTS).prop_map(move |value| {
            format!(" {key}={value}")
        })]
    };
    let user = prop_oneof![Just(""), Just(" user=root")];
    let action = (0..3, redirect("target"), redirect("default_target"), flag("notify"));
    let rest = (flag("autostart"), user);
    let call = (one(&SERVICES), one(&ARGUMENTS));
    (call, source, target, action, rest).prop_map(
        |((service, argument), source, target, action, (autostart, user))| {
            let (kind, mut redirect, default, notify) = action;
            let argument = if service == "*" { "*" } else { argument };
            let head = format!("{service} {argument} {source} {target}");
            if kind == 1 && target == "@default" && redirect.is_empty() {
                redirect = " target=vault".into();
            }
            match kind {
                0 => format!("{head} deny{notify}"),
                1 => format!("{head} allow{redirect}{notify}{autostart}{user}"),
                _ => format!("{head} ask{redirect}{default}{notify}{autostart}{user}"),
            }
        },
    )
}

fn policy(lines: &[String]) -> Policy {
    let file = PolicyFile { path: "/p/50-test.policy".into(), text: Ok(lines.join("\n")) };
    let policy = Policy::load(vec![file], &Memory::default());
    let all: Vec<_> = policy.diagnostics.iter().collect();
    assert!(!policy.has_errors(), "{}", policy.render(&all, false));
    policy
}

/// The system of the vectors, and a disposable that runs.
fn system() -> System {
    let text = SYSTEM.trim_end().strip_suffix('}').expect("an object");
    let more = r#","disp77": {"type": "DispVM", "tags": ["net"], "power_state": "Running",
        "made_from": "web-dvm", "default_dispvm": "gone"}}"#;
    System::from_json(&format!("{text}{more}")).expect("a system")
}

fn request() -> impl Strategy<Value = Request<'static>> {
    let call = (one(&SERVICES[1..]), one(&ARGUMENTS[1..]));
    (call, one(&CALLERS), one(&WANTED)).prop_map(|((service, argument), caller, wanted)| {
        Request::new(service, argument, caller, wanted).expect("a request").as_qrexec(wanted)
    })
}

/// A decision in the words of the reference.
fn said(decision: &Decision<'_>) -> String {
    match decision {
        Decision::Deny { reason: Reason::Loopback, .. } => "deny true loopback".into(),
        Decision::Deny { notify, .. } => format!("deny {notify}"),
        Decision::Allow { rule, target, user, notify, autostart } => {
            format!("allow {rule} {target} {user:?} {notify} {autostart}")
        }
        Decision::Ask { rule, choices, default, user, notify, autostart } => {
            let choices: std::collections::BTreeSet<_> =
                choices.iter().map(Destination::to_string).collect();
            let default = default.as_ref().map(Destination::to_string);
            format!("ask {rule} {choices:?} {default:?} {user:?} {notify} {autostart}")
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_engine_decides_as_the_reference_does(
        lines in prop::collection::vec(line(), 0..90),
        requests in prop::collection::vec(request(), 20),
    ) {
        let engine = Engine::new(policy(&lines), system());
        for request in requests {
            let wanted = reference::decide(engine.policy(), engine.system(), &request);
            prop_assert_eq!(said(&engine.decide(&request)), wanted, "{:?}", request);
        }
    }

    #[test]
    fn a_rule_behind_the_one_that_decides_changes_nothing_but_what_is_offered(
        lines in prop::collection::vec(line(), 1..40),
        more in prop::collection::vec(line(), 1..10),
        request in request(),
    ) {
        let before = Engine::new(policy(&lines), system());
        let longer = Engine::new(policy(&[lines.as_slice(), &more].concat()), system());
        let (before, longer) = (before.decide(&request), longer.decide(&request));
        if let Some(rule) = before.rule() {
            prop_assert_eq!(longer.rule(), Some(rule));
            let offers = |d: &Decision<'_>| matches!(
                d,
                Decision::Ask { .. } | Decision::Deny { reason: Reason::NoChoice, .. }
            );
            if offers(&before) {
                prop_assert!(offers(&longer));
            } else {
                prop_assert_eq!(said(&before), said(&longer));
            }
        }
    }

    #[test]
    fn a_rule_that_is_said_to_decide_nothing_never_does(
        lines in prop::collection::vec(line(), 2..60),
        requests in prop::collection::vec(request(), 40),
    ) {
        let policy = policy(&lines);
        let idle: Vec<usize> = policy
            .lint(&system())
            .iter()
            .filter(|warning| warning.message == "this rule decides nothing")
            .filter_map(|warning| policy.rules.iter().position(|r| Some(r.place.span) == warning.place))
            .collect();
        let engine = Engine::new(policy, system());
        for request in requests {
            if let Some(rule) = engine.decide(&request).rule() {
                prop_assert!(!idle.contains(&rule), "rule {rule} decides {request:?}");
            }
        }
    }

    #[test]
    fn an_explanation_names_only_rules_that_one_column_keeps_from_deciding(
        lines in prop::collection::vec(line(), 1..40),
        request in request(),
    ) {
        let engine = Engine::new(policy(&lines), system());
        let explanation = engine.explain(&request);
        prop_assert_eq!(&explanation.decision, &engine.decide(&request));
        let alone = |rule: &Rule| {
            let policy = Policy { rules: vec![rule.clone()], ..Policy::default() };
            Engine::new(policy, system()).decide(&request).rule().is_some()
        };
        for near in &explanation.near {
            let rule = &engine.policy().rules[near.rule];
            prop_assert!(explanation.decision.rule().is_none_or(|decided| near.rule < decided));
            prop_assert!(!alone(rule));
            let mut mended = rule.clone();
            match near.field {
                casemate_policy::Field::Service => mended.service = Some(request.service.into()),
                casemate_policy::Field::Argument => mended.argument = None,
                casemate_policy::Field::Source => mended.source = Token::Everything,
                casemate_policy::Field::Target => mended.target = Token::Everything,
            }
            prop_assert!(alone(&mended), "{:?}", near);
        }
    }

    #[test]
    fn a_graph_has_every_call_that_is_allowed(
        lines in prop::collection::vec(line(), 1..15),
        request in request(),
    ) {
        let engine = Engine::new(policy(&lines), system());
        let graph = Graph::of(&engine, None).expect("a small graph");
        let known = !matches!(request.source, Caller::Compartment("stranger"));
        if let (Decision::Allow { target, .. }, true) = (engine.decide(&request), known)
            && request.target != Wanted::HostWord
        {
            let source = match request.source {
                Caller::Host => "@adminvm",
                Caller::Compartment(name) => name,
            };
            let target = match target {
                Destination::Host => "@adminvm".to_owned(),
                other => other.to_string(),
            };
            let full = format!("{}{}", request.service, request.argument);
            let there = graph.links.iter().any(|link| {
                link.source.to_string() == source
                    && link.target.to_string() == target
                    && (link.service == full || link.service == request.service || link.service == "*")
            });
            prop_assert!(there, "{source} {target} {full}\n{}", graph.text());
        }
    }

    #[test]
    fn no_text_makes_anything_panic(
        text in "([ -~\\n\\t\\u{1b}é\\u{a0}]|\\* |@dispvm:|@tag:|!include |allow |ask |target=){0,200}",
        included in "[ -~\\n]{0,60}",
        wanted in "\\PC{0,20}",
    ) {
        let files = [("__main__".into(), text), ("a".into(), included)];
        let policy = Policy::load_main(&Memory::new(files));
        let all: Vec<_> = policy.diagnostics.iter().collect();
        let rendered = policy.render(&all, false);
        prop_assert!(!rendered.chars().any(|c| c.is_control() && c != '\n'), "{rendered:?}");
        let _ = policy.lint(&system());
        let quarantined = policy.has_errors();
        let engine = Engine::new(policy, system());
        if let Ok(request) = Request::new("gpg.Sign", "+", "work", &wanted) {
            let decision = engine.explain(&request).decision;
            let denied = matches!(decision, Decision::Deny { .. });
            prop_assert!(denied || !quarantined);
        }
        if let Ok(graph) = Graph::of(&engine, None) {
            prop_assert!(!graph.text().chars().any(|c| c.is_control() && c != '\n'));
            let _ = (graph.dot(), graph.svg());
        }
    }
}

#[test]
fn a_file_with_an_error_stands_in_the_way_of_what_is_behind_it() {
    let file = |name: &str, text: &str| PolicyFile {
        path: format!("/p/{name}.policy").into(),
        text: Ok(text.into()),
    };
    let files = vec![
        file("10-a", "gpg.Sign * work vault allow\n"),
        file("20-b", "sync.Copy * work vault allow\nsync.Copy * work vault permit\n"),
        file("30-c", "* * work vault allow\n"),
    ];
    let policy = Policy::load(files, &Memory::default());
    assert_eq!(policy.quarantined, [std::path::PathBuf::from("/p/20-b.policy")]);
    assert_eq!(policy.rules[1].action, Action::Quarantine);
    let engine = Engine::new(policy, system());
    let decide = |service| engine.decide(&Request::new(service, "+", "work", "vault").expect("ok"));
    assert!(matches!(decide("gpg.Sign"), Decision::Allow { .. }));
    for service in ["sync.Copy", "clip.Paste"] {
        assert!(matches!(decide(service), Decision::Deny { reason: Reason::Quarantine, .. }));
    }
}
