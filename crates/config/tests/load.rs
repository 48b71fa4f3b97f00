//! Loading as a caller sees it: whom an error stops, and where it stands.

use std::path::Path;

use casemate_config::{
    Allocator, CompartmentName, Environment, Format, Hardening, Loaded, Origin, Source, load,
};

fn environment(home: Option<&str>) -> Environment {
    Environment { home: home.map(Into::into), user: "alice".into() }
}

fn user(text: &str) -> Source {
    Source {
        path: "/home/alice/casemate.toml".into(),
        text: text.into(),
        format: Format::Toml,
        origin: Origin::User,
    }
}

fn one(text: &str) -> Loaded {
    load(&[user(text)], &environment(None))
}

#[test]
fn nothing_is_a_valid_configuration() {
    let loaded = load(&[], &environment(None));
    assert!(loaded.diagnostics.is_empty());
    assert!(loaded.settings.images.contains_key("debian"));
    assert!(loaded.settings.compartments.is_empty());
}

#[test]
fn only_errors_that_matter_to_a_compartment_are_its_errors() {
    let loaded = one("
        [template.bad]
        memory = 1
        [compartment.heir]
        template = \"bad\"
        [compartment.odd]
        id = 4
        [compartment.fine]
    ");
    assert!(loaded.has_errors());
    assert_eq!(loaded.errors_for("heir").len(), 1);
    assert_eq!(loaded.errors_for("odd")[0].message, "`id` cannot be 4: it must be odd");
    assert!(loaded.errors_for("fine").is_empty());
    assert!(loaded.errors_for("nobody").is_empty());
    let some = loaded.render_some(&loaded.errors_for("odd"), false);
    assert!(some.contains("casemate.toml:7:14") && !some.contains("memory"), "{some}");
}

#[test]
fn a_syntax_error_stops_everybody_even_who_cannot_be_named() {
    let loaded = one("[compartment.a]\nmemory = \n");
    assert_eq!(loaded.errors_for("a").len(), 1);
    assert_eq!(loaded.errors_for("whoever").len(), 1);
}

#[test]
fn a_users_mistake_does_not_stop_the_systems_compartments() {
    let system = Source {
        path: "/etc/casemate/casemate.toml".into(),
        origin: Origin::System,
        ..user("[compartment.shared]\nusers = [\"alice\"]")
    };
    let loaded = load(&[system.clone(), user("x = = 1\n[compartment.own]")], &environment(None));
    assert!(loaded.errors_for("shared").is_empty());
    assert!(loaded.settings.compartments.contains_key("shared"));
    assert!(!loaded.errors_for("own").is_empty());

    let loaded = load(
        &[Source { text: "x = 1".into(), ..system }, user("[compartment.own]")],
        &environment(None),
    );
    assert!(!loaded.errors_for("own").is_empty());
}

#[test]
fn a_home_directory_is_needed_only_where_it_is_named() {
    let text = "[compartment.a]\nkernel = \"~/vmlinuz\"";
    let without = one(text);
    assert_eq!(
        without.errors_for("a")[0].message,
        "`~` stands for nothing here: no home directory is known"
    );
    let with = load(&[user(text)], &environment(Some("/home/alice")));
    let kernel = with.settings.compartments["a"].kernel.as_deref();
    assert_eq!(kernel, Some(Path::new("/home/alice/vmlinuz")));
}

#[test]
fn a_login_name_that_cannot_be_used_is_said() {
    let environment = Environment { home: None, user: "0 no name".into() };
    let loaded = load(&[user("[compartment.a]\n[compartment.b]")], &environment);
    assert_eq!(loaded.diagnostics.len(), 1, "said once");
    assert_eq!(loaded.settings.broken.len(), 2);
    assert!(loaded.render(false).starts_with("error: `0 no name` is not a user name\n"));
}

#[test]
fn colour_is_for_those_who_ask() {
    let loaded = one("x = 1");
    assert!(!loaded.render(false).contains('\u{1b}'));
    assert!(loaded.render(true).contains('\u{1b}'));
}

#[test]
fn positions_count_lines_and_characters_from_one() {
    let loaded = one("[compartment.a]\nlabel = \"é\"\nguest = { hostname = \"é\" }\n");
    let place = loaded.diagnostics[0].place.unwrap();
    assert_eq!(loaded.position(place), Some((Path::new("/home/alice/casemate.toml"), 3, 22)));
}

/// The command line loads on every call; 100 compartments must not be felt.
#[test]
fn a_hundred_compartments_load() {
    let mut text =
        String::from("[defaults]\nhost-networking = true\n[template.base]\nmemory = 512\n");
    for number in 0..100 {
        text += &format!(
            "[compartment.c{number}]\ntemplate = \"base\"\nlabel = \"Number {number}\"\n\
             firewall = [\"action=accept proto=tcp dst4=10.0.0.{number} dstports=443\"]\n\
             volumes = [{{ name = \"home\", size = \"2GiB\", mount-point = \"/home/user\" }}]\n\
             shares = [{{ source = \"/srv/{number}\", mount-point = \"/srv\" }}]\n\
             guest = {{ hostname = \"c{number}\", users = [\"user\"] }}\n"
        );
    }
    let loaded = one(&text);
    assert!(loaded.diagnostics.is_empty(), "{}", loaded.render(false));
    assert_eq!(loaded.settings.compartments.len(), 100);
    loaded.settings.assign(&Default::default(), &Default::default()).unwrap();
}

#[test]
fn hardened_is_a_template_without_being_declared() {
    let loaded = one("
        [template.mine]
        template = \"hardened\"
        memory = 512
        [compartment.a]
        template = \"mine\"
        [compartment.b]
        template = \"hardened\"
        guest.allocator = \"default\"
        [compartment.c]
    ");
    assert!(loaded.diagnostics.is_empty(), "{}", loaded.render(false));
    let guest =
        |name: &str| &loaded.settings.compartments[&name.parse::<CompartmentName>().unwrap()].guest;
    assert_eq!(guest("a").hardening, Hardening::Standard);
    assert_eq!(guest("a").allocator, Allocator::HardenedLight);
    assert_eq!(guest("b").hardening, Hardening::Standard);
    assert_eq!(guest("b").allocator, Allocator::Default);
    assert_eq!(guest("c").hardening, Hardening::None);
}

#[test]
fn declared_template_takes_the_place_of_the_shipped_one_but_not_for_the_system() {
    let system = Source {
        path: "/etc/casemate/casemate.toml".into(),
        text: "[compartment.s]\ntemplate = \"hardened\"\n".into(),
        format: Format::Toml,
        origin: Origin::System,
    };
    let own = user("[template.hardened]\nmemory = 512\n[compartment.u]\ntemplate = \"hardened\"\n");
    let loaded = load(&[system, own], &environment(None));
    assert!(loaded.diagnostics.is_empty(), "{}", loaded.render(false));
    let hardening = |name: &str| {
        loaded.settings.compartments[&name.parse::<CompartmentName>().unwrap()].guest.hardening
    };
    assert_eq!(hardening("u"), Hardening::None);
    assert_eq!(hardening("s"), Hardening::Standard);
}

#[test]
fn misspelt_shipped_template_is_suggested() {
    let loaded = one("[compartment.a]\ntemplate = \"hardend\"\n");
    let hint = loaded.diagnostics[0].hint.as_deref().unwrap_or_default();
    assert_eq!(hint, "did you mean \"hardened\"?");
}
