//! Windows of the guest: shown, refused, told to whom they concern, and no activity.

use super::*;
use crate::life::WindowTrouble;

impl Stage {
    fn windows(&mut self, window: u32) -> Vec<Effect> {
        self.tell(Event::Report(Report::Windows { window }))
    }

    fn opened(&mut self, window: u32, result: Result<(), WindowTrouble>) -> Vec<Effect> {
        self.tell(Event::WindowsOpened { window, result })
    }
}

/// What was done about windows, in a few words.
fn said(effects: &[Effect]) -> Vec<String> {
    let word = |effect: &Effect| match effect {
        Effect::OpenWindows { window } => Some(format!("open {window}")),
        Effect::ShowWindows { stream, window } => Some(format!("show {window} as {stream}")),
        Effect::Order(Order::RefuseWindows { window }, None) => Some(format!("refuse {window}")),
        Effect::Progress(id, progress) => {
            let warning = progress.warning.as_ref()?;
            Some(format!("warn {id}: {}: {}", warning.what, warning.why))
        }
        _ => None,
    };
    effects.iter().filter_map(word).collect()
}

#[test]
fn windows_are_shown_when_their_way_is_open() {
    let mut stage = Stage::running(terms());
    assert_eq!(said(&stage.windows(7)), ["open 7"]);
    assert_eq!(said(&stage.opened(7, Ok(()))), ["show 7 as 1"]);
    // An answer to nobody's question is none.
    assert!(stage.opened(7, Ok(())).is_empty());
    assert_eq!(opened(&stage.run(1)), Some(2), "its stream is no session's");
    stage.tell(Event::Report(Report::Ended { stream: 1, status: None }));
    assert_eq!(stage.life.sessions(stage.now).len(), 1);
}

#[test]
fn who_runs_something_is_told_once_why_there_are_no_windows() {
    let mut stage = Stage::running(terms());
    stage.run(1);
    stage.windows(7);
    let said_first = said(&stage.opened(7, Err(WindowTrouble::NoCompositor)));
    let why = "there is no compositor: WAYLAND_DISPLAY is not set here";
    let warning = format!("warn 1: could not show a window of `test`: {why}");
    assert_eq!(said_first, ["refuse 7".to_owned(), warning]);
    stage.windows(8);
    assert_eq!(said(&stage.opened(8, Err(WindowTrouble::NoCompositor))), ["refuse 8"]);
    let inside = said(&stage.tell(Event::Report(Report::NoWaypipe)));
    assert_eq!(inside.len(), 1, "another reason is told: {inside:?}");
    let x11 = said(&stage.tell(Event::Report(Report::NoXwayland)));
    assert!(x11.len() == 1 && x11[0].contains("Xwayland"), "and this one: {x11:?}");
}

#[test]
fn a_guest_has_so_many_programs_with_windows_and_not_one_more() {
    let mut stage = Stage::running(terms());
    for window in 0..32 {
        assert_eq!(said(&stage.windows(window)).len(), 1);
        if window % 2 == 0 {
            stage.opened(window, Ok(()));
        }
    }
    assert_eq!(said(&stage.windows(99)), ["refuse 99"]);
    stage.tell(Event::Report(Report::Ended { stream: 1, status: None }));
    assert_eq!(said(&stage.windows(100)), ["open 100"]);
}

#[test]
fn windows_do_not_keep_a_disposable_from_ending() {
    let timeout = Some(Duration::from_secs(30));
    let mut stage = Stage::running(Terms { idle_timeout: timeout, ..terms() });
    stage.windows(1);
    stage.opened(1, Ok(()));
    assert_eq!(stage.life.deadline(), Some(stage.now + Duration::from_secs(30)));
}
