//! The language, corner by corner, each with the words of a policy: what the vectors do not ask.

use casemate_policy::vectors::{Call, Case, to_json};
use casemate_policy::{
    Engine, Memory, Naming, Policy, PolicyFile, Request, System, arrange, limits, naming,
};
use serde_json::{Value, json};

const SYSTEM: &str = include_str!("vectors/qrexec-system-info.json");

fn system() -> System {
    System::from_json(SYSTEM).expect("a system")
}

/// What vectors would have for `gpg.Sign+key` from `work` to `target`.
fn answer(files: &[(&str, &str)], target: &str) -> Value {
    let case = Case {
        id: json!(1),
        files: files.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect(),
        request: Call {
            source: "work".into(),
            target: target.into(),
            service: "gpg.Sign".into(),
            argument: "+key".into(),
        },
        expect: Value::Null,
    };
    case.answer(&system())["expect"].take()
}

fn main_only(text: &str, target: &str) -> Value {
    answer(&[("__main__", text)], target)
}

fn allowed(text: &str, target: &str) -> Option<String> {
    main_only(text, target)["allow"]["target"].as_str().map(str::to_owned)
}

fn is_syntax_error(text: &str) -> bool {
    main_only(text, "vault") == json!({ "error": "syntax" })
}

#[test]
fn blank_lines_comments_and_any_white_space_are_nothing() {
    for text in [
        "gpg.Sign * work vault allow",
        "\n\n  # comment\n\t#!include nothing\ngpg.Sign\t *\u{a0}work   vault\u{2003}allow  \r\n",
        "gpg.Sign * work vault allow\n#",
        " gpg.Sign\u{b}*\u{c}work\u{1c}vault\u{85}allow",
    ] {
        assert_eq!(allowed(text, "vault").as_deref(), Some("vault"), "{text:?}");
    }
    assert!(is_syntax_error("gpg.Sign * work vault allow # trailing"));
    assert!(is_syntax_error("gpg.Sign * work vault, allow"));
    assert_eq!(main_only("", "vault"), json!({ "deny": { "notify": true } }));
}

#[test]
fn what_is_not_a_rule_is_a_syntax_error() {
    for line in [
        "gpg.Sign * work vault",
        "gpg.Sign+key * work vault allow",
        "gpg.Sign key work vault allow",
        "gpg.Sign +k/y work vault allow",
        "* + work vault allow",
        "* +key work vault allow",
        "gpg/Sign * work vault allow",
        "gpg.Sign * @default vault allow",
        "gpg.Sign * @dispvm vault allow",
        "gpg.Sign * @tag: vault allow",
        "gpg.Sign * @type: vault allow",
        "gpg.Sign * work @dispvm: allow",
        "gpg.Sign * work @dispvm:@tag: allow",
        "gpg.Sign * work @dispvm:@type:AppVM allow",
        "gpg.Sign * work @dispvm:@dispvm:x allow",
        "gpg.Sign * work @tag:@tag:x allow",
        "gpg.Sign * work @bogus allow",
        "gpg.Sign * work @anyvmx allow",
        "gpg.Sign * work $anyvm allow",
        "gpg.Sign * work uuid:12 allow",
        "gpg.Sign * work uuid:aaaaaaaa-0000-4000-8000-00000000000g allow",
        "gpg.Sign * work @default allow",
        "gpg.Sign * work vault Allow",
        "gpg.Sign * work vault deny target=vault",
        "gpg.Sign * work vault deny user=root",
        "gpg.Sign * work vault deny autostart=no",
        "gpg.Sign * work vault allow default_target=vault",
        "gpg.Sign * work vault allow user=a user=b",
        "gpg.Sign * work vault allow notify",
        "gpg.Sign * work vault allow notify=Yes",
        "gpg.Sign * work vault allow notify=",
        "gpg.Sign * work vault allow target=",
        "gpg.Sign * work vault allow target=@default",
        "gpg.Sign * work vault allow target=@anyvm",
        "gpg.Sign * work vault allow target=*",
        "gpg.Sign * work vault allow target=@tag:net",
        "gpg.Sign * work vault allow target=@dispvm:@tag:net",
        "gpg.Sign * work vault ask default_target=@default",
        "gpg.Sign * work vault allow rule=1",
        "gpg.Sign * work vault allow =x",
        "!compat-4.0",
        "!include",
        "!include a b",
        "!include nothing",
        "!include-dir nothing",
        "!include-service gpg.Sign __main__",
        "! include __main__",
        "!",
    ] {
        assert!(is_syntax_error(line), "{line}");
    }
}

#[test]
fn services_and_arguments_match_as_a_whole() {
    let rules = [
        ("gpg.Sign +key", true),
        ("gpg.Sign *", true),
        ("* *", true),
        ("gpg.Sign +", false),
        ("gpg.Sign +ke", false),
        ("gpg.Sign +key+", false),
        ("gpg.Sig *", false),
        ("gpg.sign *", false),
    ];
    for (call, matches) in rules {
        let text = format!("{call} work vault allow");
        assert_eq!(allowed(&text, "vault").is_some(), matches, "{call}");
    }
}

#[test]
fn each_word_matches_what_it_means() {
    let cases = [
        ("vault", "vault", true),
        ("uuid:aaaaaaaa-0000-4000-8000-000000000003", "vault", true),
        ("uuid:AAAAAAAA-0000-4000-8000-000000000003", "vault", true),
        ("uuid:aaaaaaaa-0000-4000-8000-000000000009", "vault", false),
        ("@tag:secret", "vault", true),
        ("@tag:secre", "vault", false),
        ("@type:AppVM", "vault", true),
        ("@anyvm", "vault", true),
        ("@anyvm", "dom0", false),
        ("@anyvm", "@adminvm", false),
        ("@anyvm", "@dispvm", true),
        ("@anyvm", "@dispvm:web-dvm", true),
        ("*", "dom0", true),
        ("dom0", "@adminvm", true),
        ("@host", "dom0", true),
        ("@adminvm", "@host", true),
        ("uuid:00000000-0000-0000-0000-000000000000", "dom0", true),
        ("@tag:host-tag", "dom0", true),
        ("@type:AdminVM", "dom0", true),
        // As qrexec does: the word is not looked up among the compartments.
        ("@tag:host-tag", "@adminvm", false),
        ("@type:AdminVM", "@adminvm", false),
        ("@dispvm", "@dispvm", true),
        ("@dispvm", "@dispvm:mail-dvm", false),
        ("@dispvm:mail-dvm", "@dispvm", true),
        ("@dispvm:mail-dvm", "@dispvm:mail-dvm", true),
        ("@dispvm:web-dvm", "@dispvm", false),
        ("@dispvm:web-dvm", "web-dvm", false),
        ("@dispvm:@tag:net", "@dispvm", true),
        ("@dispvm:@tag:red", "@dispvm:web-dvm", true),
        ("@dispvm:@tag:red", "@dispvm", false),
        ("web-dvm", "@dispvm:web-dvm", false),
        ("@tag:red", "@dispvm:web-dvm", false),
        // Refused before any rule is read.
        ("*", "@dispvm:vault", false),
        ("*", "@dispvm:nosuch", false),
    ];
    for (word, target, matches) in cases {
        let text = format!("gpg.Sign * work {word} allow");
        assert_eq!(allowed(&text, target).is_some(), matches, "{word} for {target}");
    }
}

#[test]
fn a_target_that_names_nothing_is_no_target() {
    let text = "gpg.Sign * work @default allow target=vault\ngpg.Sign * work nosuch deny";
    for target in ["", "@default", "nosuch", "uuid:aaaaaaaa-0000-4000-8000-000000000009"] {
        assert_eq!(allowed(text, target).as_deref(), Some("vault"), "{target:?}");
    }
    assert_eq!(allowed("gpg.Sign * work * allow", "nosuch"), None);
    for target in ["@anyvm", "@tag:net", "*", "@bogus", "two words"] {
        assert_eq!(main_only(text, target), json!({ "error": "syntax" }), "{target}");
    }
}

#[test]
fn redirects_go_where_they_say_or_nowhere() {
    let redirects = [
        ("vault", Some("vault")),
        ("uuid:aaaaaaaa-0000-4000-8000-000000000003", Some("vault")),
        ("dom0", Some("dom0")),
        ("@host", Some("dom0")),
        ("@dispvm", Some("@dispvm:mail-dvm")),
        ("@dispvm:web-dvm", Some("@dispvm:web-dvm")),
        ("@dispvm:vault", None),
        ("nosuch", None),
        ("uuid:aaaaaaaa-0000-4000-8000-000000000009", None),
        ("work", None),
    ];
    for (redirect, goes) in redirects {
        let text = format!("gpg.Sign * work banking allow target={redirect}");
        assert_eq!(allowed(&text, "banking").as_deref(), goes, "{redirect}");
    }
    let loopback = main_only("gpg.Sign * work * allow", "work");
    assert_eq!(loopback, json!({ "deny": { "notify": true, "loopback": true } }));
}

#[test]
fn without_autostart_only_what_runs_is_reached() {
    let deny = |notify: bool| json!({ "deny": { "notify": notify } });
    let text = "gpg.Sign * work * allow autostart=no";
    assert_eq!(allowed(text, "banking").as_deref(), Some("banking"));
    assert_eq!(allowed(text, "dom0").as_deref(), Some("dom0"));
    assert_eq!(main_only(text, "vault"), deny(false));
    assert_eq!(main_only(text, "@dispvm:web-dvm"), deny(false));
    assert_eq!(main_only("gpg.Sign * work * allow autostart=no notify=yes", "vault"), deny(true));
    // Of nothing that exists, qrexec fails here.
    assert_eq!(main_only("gpg.Sign * work * ask target=nosuch autostart=no", "vault"), deny(true));
}

#[test]
fn a_question_offers_what_the_rules_before_leave_over() {
    let ask = |text: &str| main_only(text, "@default")["ask"]["targets"].clone();
    let all = "gpg.Sign * work @anyvm ask";
    assert_eq!(
        ask("gpg.Sign * work @default ask\ngpg.Sign * * @anyvm allow"),
        json!(["@dispvm:web-dvm", "banking", "dev", "router", "untrusted", "vault", "web-dvm"])
    );
    // The first rule has the last word.
    assert_eq!(
        ask(&format!("gpg.Sign * work @tag:red deny\ngpg.Sign * work @dispvm:web-dvm deny\n{all}")),
        json!(["banking", "dev", "router", "vault"])
    );
    assert_eq!(
        ask(&format!(
            "gpg.Sign * work untrusted allow\ngpg.Sign * work @type:AppVM deny\n\
             gpg.Sign * work @dispvm:web-dvm deny\n{all}"
        )),
        json!(["router", "untrusted"])
    );
    // Other services, arguments and callers offer nothing; redirects offer where they go.
    assert_eq!(
        ask("gpg.Sign * work @default ask\n\
             sync.Copy * work vault allow\n\
             gpg.Sign +other work vault allow\n\
             gpg.Sign * dev vault allow\n\
             * * work banking ask target=dom0\n\
             gpg.Sign +key @tag:net router deny\n\
             gpg.Sign +key @tag:net router allow"),
        json!(["dom0"])
    );
    assert_eq!(ask("gpg.Sign * work @default ask target=mail-dvm"), json!(["mail-dvm"]));
    assert_eq!(ask("gpg.Sign * work @default ask target=@dispvm"), json!(["@dispvm"]));
    let none = main_only("gpg.Sign * work @default ask", "@default");
    assert_eq!(none, json!({ "deny": { "notify": true } }));
}

#[test]
fn a_default_that_is_no_choice_is_left_out() {
    let default = |parameters: &str| {
        let text = format!("gpg.Sign * work @default ask {parameters}\ngpg.Sign * * * allow");
        main_only(&text, "@default")["ask"]["default"].clone()
    };
    assert_eq!(default("default_target=vault"), "vault");
    assert_eq!(default("default_target=uuid:aaaaaaaa-0000-4000-8000-000000000003"), "vault");
    assert_eq!(default("default_target=@adminvm"), "dom0");
    assert_eq!(default("default_target=@dispvm:web-dvm"), "@dispvm:web-dvm");
    for none in ["default_target=work", "default_target=nosuch", "default_target=@dispvm"] {
        assert_eq!(default(none), Value::Null, "{none}");
    }
    assert_eq!(default("target=vault default_target=banking"), Value::Null);
}

#[test]
fn what_is_included_stands_where_it_is_included() {
    let files = [
        ("__main__", "gpg.Sign * work banking deny\n!include ./a\ngpg.Sign * * * deny notify=no"),
        ("a", "# nothing\n!include deeper/b\n!include-dir more\n"),
        ("deeper/b", "gpg.Sign * dev vault allow\n"),
        ("more/20-b.policy", "gpg.Sign * work vault allow\n"),
        ("more/10-a.policy", "gpg.Sign * work vault allow user=first\n"),
        ("more/.hidden.policy", "broken"),
        ("more/README", "broken"),
    ];
    let found = answer(&files, "vault");
    assert_eq!((&found["allow"]["line"], &found["allow"]["user"]), (&json!(3), &json!("first")));
    assert_eq!(answer(&files, "router"), json!({ "deny": { "notify": false } }));
    let named = [("__main__", "!include-dir more"), ("more/Bad.policy", "")];
    assert_eq!(answer(&named, "vault"), json!({ "error": "syntax" }));
}

#[test]
fn files_of_a_service_have_three_columns_and_old_signs() {
    let main = "!include-service gpg.Sign +key old";
    let with =
        |old: &str| answer(&[("__main__", main), ("old", old), ("b", "work vault allow")], "vault");
    for old in [
        "work vault allow",
        "$anyvm $tag:secret allow,user=root",
        "work,vault,allow",
        "work vault allow notify=yes,autostart=yes",
        "$include:b",
        "!include b",
        "# a comment, with $signs\n\n work vault allow",
    ] {
        assert_eq!(with(old)["allow"]["target"], "vault", "{old}");
    }
    assert_eq!(with("work vault allow,user=root")["allow"]["user"], "root");
    let syntax = json!({ "error": "syntax" });
    for old in [
        "vault allow",
        "!include-service gpg.Sign * b",
        "!include-dir b",
        "$include:c",
        ",",
        ",# comment",
        ",!include b",
    ] {
        assert_eq!(with(old), syntax, "{old}");
    }
    let star = [("__main__", "!include-service * +key old"), ("old", "work vault allow")];
    assert_eq!(answer(&star, "vault"), syntax);
}

#[test]
fn includes_that_go_in_circles_or_too_far_are_named() {
    let files = [("__main__", "!include a"), ("a", "!include b"), ("b", "\n!include ./a")];
    let memory = Memory::new(files.map(|(name, text)| (name.into(), text.into())));
    let policy = Policy::load_main(&memory);
    let all: Vec<_> = policy.diagnostics.iter().collect();
    let shown = policy.render(&all, false);
    assert!(shown.contains("error: a includes itself"), "{shown}");
    assert!(shown.contains("--> b:2:10") && shown.contains("here b is included"), "{shown}");

    let deep = (0..40).map(|n| (format!("{n}").into(), format!("!include {}", n + 1)));
    let deep = deep.chain([("__main__".into(), "!include 0".into()), ("40".into(), String::new())]);
    assert!(Policy::load_main(&Memory::new(deep)).has_errors());

    // Each file twice in the one before: two to the fifteenth files.
    let wide =
        (0..14).map(|n| (format!("{n}").into(), format!("!include {0}\n!include {0}", n + 1)));
    let wide = wide.chain([("__main__".into(), "!include 0".into()), ("14".into(), String::new())]);
    let policy = Policy::load_main(&Memory::new(wide));
    assert!(policy.has_errors() && policy.diagnostics.len() <= limits::MAX_FINDINGS + 1);
}

#[test]
fn a_hundred_thousand_rules_are_read_and_more_than_the_limit_are_not() {
    let line = "gpg.Sign * work vault allow\n";
    let load = |count: usize| {
        let file = PolicyFile { path: "a.policy".into(), text: Ok(line.repeat(count)) };
        Policy::load(vec![file], &Memory::default())
    };
    let policy = load(100_000);
    assert!(!policy.has_errors());
    assert!(!policy.lint(&system()).is_empty());
    let engine = Engine::new(policy, system());
    let request = Request::new("gpg.Sign", "+", "work", "vault").expect("a request");
    assert_eq!(engine.decide(&request).rule(), Some(0));
    assert_eq!(engine.explain(&request).near, []);
    assert!(load(limits::MAX_RULES + 1).has_errors());
    let long = format!("gpg.Sign * work vault allow user={}", "x".repeat(limits::MAX_LINE));
    assert!(is_syntax_error(&long));
}

#[test]
fn files_are_read_in_the_order_of_their_names_and_the_later_place_wins() {
    let paths = |all: &[&str]| all.iter().map(|path| path.into()).collect::<Vec<_>>();
    let etc =
        paths(&["/etc/p/30-b.policy", "/etc/p/.x.policy", "/etc/p/README", "/etc/p/9.policy"]);
    let run = paths(&["/run/p/30-b.policy", "/run/p/_.policy", "/run/p/A.policy"]);
    let arranged = arrange(&[etc, run]);
    let order =
        paths(&["/run/p/30-b.policy", "/etc/p/9.policy", "/run/p/A.policy", "/run/p/_.policy"]);
    assert_eq!(arranged.files, order);
    assert_eq!(arranged.shadowed, [("/etc/p/30-b.policy".into(), "/run/p/30-b.policy".into())]);
    let names = [
        ("30-user.policy", Naming::Counts),
        ("a_b.c.policy", Naming::Counts),
        ("Work.policy", Naming::Invalid),
        ("wörk.policy", Naming::Invalid),
        (".policy", Naming::Ignored),
        ("x.policy~", Naming::Ignored),
        ("x.conf", Naming::Ignored),
    ];
    for (name, wanted) in names {
        assert_eq!(naming(name.as_ref()), wanted, "{name}");
    }
}

#[test]
fn a_disposable_that_runs_is_what_its_template_is_called_by() {
    let more = r#"{"disp7": {"type": "DispVM", "made_from": "web", "default_dispvm": null},
        "web": {"type": "AppVM", "tags": ["red"], "template_for_dispvms": true},
        "vault": {"type": "AppVM"}}"#;
    let decide = |word: &str| {
        let memory = Memory::new([("__main__".into(), format!("a * {word} vault allow"))]);
        let engine = Engine::new(Policy::load_main(&memory), System::from_json(more).expect("ok"));
        let request = Request::new("a", "", "disp7", "vault").expect("a request");
        !to_json(&engine.decide(&request))["allow"].is_null()
    };
    assert!(decide("@dispvm:web") && decide("@dispvm:@tag:red") && decide("@type:DispVM"));
    assert!(!decide("web") && !decide("@tag:red") && !decide("@dispvm:vault"));
}

#[test]
fn a_line_that_is_included_twice_is_not_said_to_decide_nothing() {
    let files =
        [("__main__", "!include a\n!include a\na + work vault deny"), ("a", "a * * * deny")];
    let memory = Memory::new(files.map(|(name, text)| (name.into(), text.into())));
    let policy = Policy::load_main(&memory);
    let found = policy.lint(&system());
    let places: Vec<_> =
        found.iter().filter_map(|warning| policy.position(warning.place?)).collect();
    assert_eq!(places, [(std::path::Path::new("__main__"), 3, 1)], "{found:?}");
}

#[test]
fn a_name_of_nothing_is_found_where_it_stands() {
    let text = "a * wrok @tag:secrte allow target=@dispvm:web-dmv\na * @type:appvm router deny\n\
                a * vault vault allow\na * vault @dispvm allow autostart=no\n\
                a * dev @dispvm:vault allow";
    let policy = Policy::load_main(&Memory::new([("__main__".into(), text.into())]));
    let found: Vec<_> = policy
        .lint(&system())
        .into_iter()
        .map(|warning| {
            let place = policy.position(warning.place.expect("a place")).expect("a position");
            (place.1, place.2, warning.message, warning.hint.unwrap_or_default())
        })
        .collect();
    let wanted = [
        (1, 5, "there is no compartment `wrok`", "did you mean `work`?"),
        (1, 10, "no compartment has the tag `secrte`", "did you mean `secret`?"),
        (1, 28, "there is no compartment `web-dmv`", "did you mean `web-dvm`?"),
        (2, 5, "no compartment is of type `appvm`", "did you mean `AppVM`?"),
        (3, 1, "this rule refuses what it matches: a compartment does not call itself", ""),
        (
            4,
            1,
            "this rule refuses what it matches: no disposable runs already",
            "leave out autostart=no",
        ),
        (
            5,
            1,
            "no disposable can be made from what this names",
            "give the compartment disposable-template = true",
        ),
    ];
    let wanted = wanted.map(|(line, column, text, hint)| (line, column, text.into(), hint.into()));
    assert_eq!(found, wanted);
}
