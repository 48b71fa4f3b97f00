//! What a guest sends as its applications: no panic, nothing that is not sound, and no entry with a line
//! or a word that is not ours. A desktop file by itself, a whole stream, or a picture, by the first byte.

#![no_main]

use std::path::Path;

use casemate_menu::{Application, Entry, Reader, Record, compartment_of, icon, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&first, data)) = data.split_first() else { return };
    match first % 3 {
        0 => file("edit", data),
        1 => stream(data),
        _ => picture(data),
    }
});

fn file(id: &str, content: &[u8]) {
    if let Ok(application) = parse(id, content) {
        check(&application);
    }
}

fn check(application: &Application) {
    assert!(application.is_sound(), "{application:?}");
    let command = ["casemate", "call", "work", "x"].map(str::to_owned);
    let icon = Path::new("/icon.png");
    for known_windows in [true, false] {
        let (compartment, command) = ("work", &command[..]);
        let entry = Entry { compartment, application, command, icon, known_windows };
        let text = entry.text().expect("its words are plain");
        assert_eq!(compartment_of(&text), Some("work"));
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("[Desktop Entry]"));
        let mut seen = std::collections::BTreeSet::new();
        for line in lines {
            let (key, value) = line.split_once('=').expect("a key");
            assert!(seen.insert(key), "{key} comes twice");
            assert!(!value.chars().any(char::is_control), "{line:?}");
            match key.split_once('[').map_or(key, |(key, _)| key) {
                "Version" | "Type" | "Terminal" | "Categories" | "Comment" => {}
                "Name" | "GenericName" => assert!(value.starts_with("work: "), "{line:?}"),
                "Exec" => assert_eq!(value, "casemate call work x"),
                "Icon" => assert_eq!(value, "/icon.png"),
                "StartupWMClass" => assert!(value.starts_with("casemate.work."), "{line:?}"),
                "X-Casemate-Compartment" => assert_eq!(value, "work"),
                _ => panic!("{line:?}"),
            }
        }
    }
}

fn stream(data: &[u8]) {
    let mut reader = Reader::new(data);
    while let Ok(Some(record)) = reader.next_record() {
        match record {
            Record::Application { id, content } => {
                file(&String::from_utf8_lossy(&id), &content);
            }
            Record::Icon(bytes) => picture(&bytes),
            Record::End(_) => {}
        }
    }
}

fn picture(data: &[u8]) {
    let Ok(pixels) = icon::decode(data) else { return };
    assert_eq!(pixels.len(), icon::PIXELS);
    let file = icon::encode(&pixels, [1, 2, 3]).expect("a file");
    assert_eq!(icon::decode(&file).expect("our own").len(), icon::PIXELS);
}
