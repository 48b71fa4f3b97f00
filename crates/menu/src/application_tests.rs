//! Desktop files as they are, and as an enemy writes them.

use super::*;

const PLAIN: &str = "[Desktop Entry]\nType=Application\nName=Edit\n";

fn with(lines: &str) -> Result<Application, LeftOut> {
    parse("edit", format!("{PLAIN}{lines}\n").as_bytes())
}

fn named(name: &str) -> Result<Application, LeftOut> {
    parse("edit", format!("[Desktop Entry]\nType=Application\nName={name}\n").as_bytes())
}

fn name(application: &Application) -> &str {
    &application.names[0].text
}

#[test]
fn a_file_as_programs_bring_it_is_read() {
    let file = "# A comment\n\n[Desktop Entry]\nVersion=1.0\nType = Application\nName=Foot\n\
        Name[de]=Fuß\nName[sr@latin]=Fut\nName[pt_BR]=Pé\nGenericName=Terminal\n\
        Comment=A terminal\nExec=foot\nIcon=foot\nTerminal=false\n\
        Categories=System;TerminalEmulator;X-Other;\nKeywords=shell;\nStartupWMClass=foot\n\n\
        [Desktop Action new]\nName=New\nNoDisplay=true\n";
    let found = parse("foot", file.as_bytes()).expect("an application");
    let names: Vec<(&str, &str)> =
        found.names.iter().map(|one| (one.locale.as_str(), one.text.as_str())).collect();
    assert_eq!(names, [("", "Foot"), ("de", "Fuß"), ("pt_BR", "Pé"), ("sr@latin", "Fut")]);
    assert_eq!(found.generic_names[0].text, "Terminal");
    assert_eq!(found.comments[0].text, "A terminal");
    assert_eq!(found.categories, ["System", "TerminalEmulator"]);
    assert_eq!(found.class, "foot");
    assert!(found.is_sound());
}

#[test]
fn ids_are_names_and_no_paths() {
    for id in ["foot", "org.mozilla.firefox", "libreoffice-writer", "7zip", "a_b", &"a".repeat(128)]
    {
        assert!(check_id(id) && parse(id, PLAIN.as_bytes()).is_ok(), "{id}");
    }
    for id in [
        "",
        ".",
        "..",
        "../../x",
        "a/b",
        "/etc/x",
        "-rf",
        ".hidden",
        "_x",
        "a b",
        "a\nb",
        "a\0",
        "a+b",
        "é",
        "a%b",
        "a;b",
        &"a".repeat(129),
    ] {
        assert!(!check_id(id), "{id}");
        assert_eq!(parse(id, PLAIN.as_bytes()), Err(LeftOut::Id), "{id}");
    }
}

#[test]
fn no_escape_makes_a_new_line_and_no_line_an_exec() {
    for value in [
        r"Edit\nExec=evil",
        r"Edit\r",
        r"a\tb",
        r"a\x",
        "a\\",
        "Edit\rExec=evil",
        "Edit\u{b}x",
        "Edit\u{85}Exec=evil",
        "Edit\u{2028}Exec=evil",
        "a\0b",
        "a\u{1b}[2J",
    ] {
        assert_eq!(named(value), Err(LeftOut::Name), "{value:?}");
    }
    assert_eq!(named(r"a\\nb\sc").as_ref().map(name), Ok(r"a\nb c"));
    let text =
        format!("{:?}", with("Exec=evil %U\nTryExec=evil\nPath=/evil\nIcon=/evil\nURL=evil"));
    assert!(!text.contains("evil"), "{text}");
}

#[test]
fn names_that_hide_or_turn_are_refused_and_such_translations_left_out() {
    for value in
        ["\u{202e}knab", "Edit\u{200b}", "\u{2066}x\u{2069}", "a\u{ad}b", "", "  ", "\u{2800}"]
    {
        assert_eq!(named(value), Err(LeftOut::Name), "{value:?}");
    }
    let found = with(
        "Name[de]=gut\nName[fr]=a\u{202e}b\nName[../x]=x\nName[de_DE.UTF-8]=x\nName[]=x\n\
        Comment[de]=ohne\nGenericName=\u{7}",
    )
    .expect("an application");
    let locales: Vec<_> = found.names.iter().map(|one| one.locale.as_str()).collect();
    assert_eq!(locales, ["", "de"]);
    assert!(found.comments.is_empty() && found.generic_names.is_empty());
}

#[test]
fn long_names_are_cut_and_long_lines_are_as_if_not_there() {
    let found = named(&"n".repeat(1000)).expect("an application");
    assert_eq!(name(&found).len(), MAX_NAME);
    assert_eq!(named(&"n".repeat(MAX_LINE)), Err(LeftOut::Name));
    let types = format!("MimeType={}\nComment=c", "text/plain;".repeat(1000));
    assert_eq!(with(&types).expect("an application").comments[0].text, "c");
}

#[test]
fn files_without_end_are_bounded() {
    let lines = "x=y\n".repeat(60_000);
    assert_eq!(with(&lines).as_ref().map(name), Ok("Edit"));
    assert_eq!(with(&"x=y\n".repeat(100_000)), Err(LeftOut::Large));
    let locales: String =
        (0..1500u32).map(|at| format!("Name[{}]={}\n", locale(at), "ü".repeat(MAX_NAME))).collect();
    let found = with(&locales).expect("an application");
    assert!(found.names.len() <= MAX_LOCALES + 1 && found.is_sound(), "{}", found.names.len());
    let bytes: usize = found.names.iter().map(|one| one.text.len()).sum();
    assert!(bytes <= MAX_TEXTS);
    let categories = format!("Categories={}", "Audio;Video;Game;".repeat(50));
    assert_eq!(with(&categories).expect("an application").categories, ["Audio", "Video", "Game"]);
}

/// A locale for each number: `aaa_0000`.
fn locale(number: u32) -> String {
    let letter = |at: u32| char::from(b'a' + (at % 26) as u8);
    format!("{}{}_{:04}", letter(number), letter(number / 26), number)
}

#[test]
fn groups_and_keys_that_come_twice_say_nothing_new() {
    assert_eq!(with("[Desktop Entry]\nName=Other"), Err(LeftOut::Ambiguous));
    let found = with("Name=Other\nStartupWMClass=a\nStartupWMClass=b").expect("an application");
    assert_eq!((name(&found), found.class.as_str()), ("Edit", "a"));
    let found =
        parse("e", b"Name=No\n[Other]\nName=No\n[Desktop Entry]\nName=Yes\nType=Application\n");
    assert_eq!(found.as_ref().map(name), Ok("Yes"));
}

#[test]
fn what_is_not_for_this_menu_is_left_out() {
    for (lines, why) in [
        ("NoDisplay=true", LeftOut::Hidden),
        ("Hidden=true", LeftOut::Hidden),
        ("NoDisplay=true\nNoDisplay=false", LeftOut::Hidden),
        ("OnlyShowIn=KDE;", LeftOut::Hidden),
        ("Terminal=true", LeftOut::Terminal),
    ] {
        assert_eq!(with(lines), Err(why), "{lines}");
    }
    for file in [
        "",
        "\0",
        "[Desktop Entry]\nName=x\n",
        "[Desktop Entry]\nType=Link\nName=x\n",
        PLAIN.trim_start_matches('['),
    ] {
        assert_eq!(parse("e", file.as_bytes()), Err(LeftOut::Kind), "{file:?}");
    }
    assert_eq!(parse("e", b"[Desktop Entry]\nType=Application\n"), Err(LeftOut::Name));
    assert_eq!(
        parse("e", b"[Desktop Entry]\nType=Application\nName=\xff\xfe\n"),
        Err(LeftOut::Name)
    );
}

#[test]
fn the_class_has_what_the_proxy_leaves_of_it() {
    assert_eq!(with("").expect("an application").class, "edit");
    assert_eq!(with("StartupWMClass=a b/c\\nd;e").expect("an application").class, "abcnde");
    assert_eq!(with("StartupWMClass= \u{202e}").expect("an application").class, "edit");
}

#[test]
fn what_no_parsing_gives_is_not_sound() {
    let sound = with("Name[de]=E\nCategories=Game;").expect("an application");
    let wrong = |change: &dyn Fn(&mut Application)| {
        let mut other = sound.clone();
        change(&mut other);
        assert!(!other.is_sound(), "{other:?}");
    };
    wrong(&|it| it.id = "../x".into());
    wrong(&|it| it.names.clear());
    wrong(&|it| it.names[0].text = "a\nExec=b".into());
    wrong(&|it| it.names[0].text = "x".repeat(65));
    wrong(&|it| it.names[0].text = " x".into());
    wrong(&|it| it.names[1].locale = "de]\nExec".into());
    wrong(&|it| it.names.swap(0, 1));
    wrong(&|it| it.comments = vec![Localized { locale: "de".into(), text: "x".into() }]);
    wrong(&|it| it.categories = vec!["Game;\nExec=b".into()]);
    wrong(&|it| it.class = "a\nb".into());
    wrong(&|it| it.class = "x".repeat(200));
}
