//! The part of a life that lets the guest's programs show windows: how many at a time, and what their
//! users are told when it cannot be.
//!
//! Windows are no activity: they neither keep a disposable from ending nor a session.

use std::collections::BTreeSet;
use std::path::PathBuf;

use casemate_link::orders::Order;
use casemate_wire::limits::MAX_WINDOWS;
use casemate_wire::text::harmless_line;

use super::{Effect, Life, State};
use crate::control::{Progress, Warning};

/// Programs of the guest that show windows.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// The way of these is being opened.
    opening: BTreeSet<u32>,
    /// Streams of those that have one.
    shown: BTreeSet<u32>,
}

/// Why windows cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowTrouble {
    /// No client has said where its compositor is.
    #[error("there is no compositor: WAYLAND_DISPLAY is not set here")]
    NoCompositor,
    /// Nobody listens where it was.
    #[error("the compositor cannot be reached at {display} (WAYLAND_DISPLAY): {reason}")]
    CompositorGone {
        /// Its socket.
        display: PathBuf,
        /// Why not.
        reason: String,
    },
    /// waypipe is not on the host.
    #[error("waypipe is not installed on this machine")]
    NoWaypipe,
    /// waypipe is not in the guest.
    #[error("waypipe is not in its image")]
    NoWaypipeInside,
    /// No X server is in the guest, and an X11 program looked for one.
    #[error("Xwayland, which X11 programs need, is not in its image")]
    NoXwaylandInside,
    /// Something of ours.
    #[error("{0}")]
    Failed(String),
}

impl WindowTrouble {
    fn hint(&self) -> &'static str {
        match self {
            Self::NoCompositor => {
                "run the command from a terminal of your Wayland desktop, or set WAYLAND_DISPLAY \
                 and XDG_RUNTIME_DIR as they are there; programs without windows need neither"
            }
            Self::CompositorGone { .. } => {
                "run the command again from a terminal of the desktop that runs now"
            }
            Self::NoWaypipe => "install the package `waypipe`",
            Self::NoWaypipeInside => "add \"waypipe\" to its `programs`, and restart it",
            Self::NoXwaylandInside => "add \"xwayland\" to its `programs`, and restart it",
            Self::Failed(_) => "`casemate logs` and windows.log beside it tell more",
        }
    }
}

impl Life {
    /// A program of the guest wants to show windows.
    pub(super) fn windows(&mut self, window: u32) {
        let all = self.windows.opening.len() + self.windows.shown.len();
        if self.state != State::Running || all >= MAX_WINDOWS {
            return self.order(Order::RefuseWindows { window });
        }
        self.windows.opening.insert(window);
        self.effects.push(Effect::OpenWindows { window });
    }

    /// Their way is open, or cannot be.
    pub(super) fn windows_opened(&mut self, window: u32, result: Result<(), WindowTrouble>) {
        if !self.windows.opening.remove(&window) {
            return;
        }
        match result {
            Ok(()) => {
                let stream = self.next_stream;
                self.next_stream += 1;
                self.windows.shown.insert(stream);
                self.effects.push(Effect::ShowWindows { stream, window });
            }
            Err(trouble) => {
                self.order(Order::RefuseWindows { window });
                self.no_windows(&trouble);
            }
        }
    }

    /// A stream has ended. False when it carried no windows.
    pub(super) fn windows_ended(&mut self, stream: u32) -> bool {
        self.windows.shown.remove(&stream)
    }

    /// The guest's end is near, or its agent is another.
    pub(super) fn forget_windows(&mut self) {
        self.windows = Windows::default();
    }

    /// Tells everybody who runs something, each once for each reason. Which of them asked for a
    /// window only the guest knows.
    pub(super) fn no_windows(&mut self, trouble: &WindowTrouble) {
        let text = harmless_line(&trouble.to_string(), 1000);
        self.guest_log(&format!("(no windows: {text})"));
        let warning = Warning {
            what: format!("could not show a window of `{}`", self.terms.name),
            why: text,
            hint: trouble.hint().to_owned(),
        };
        let state = self.state().to_owned();
        for (&stream, session) in &mut self.sessions {
            if let Some(id) = session.requester
                && session.told.insert(warning.why.clone())
            {
                let progress = Progress {
                    state: state.clone(),
                    session: Some(stream),
                    warning: Some(warning.clone()),
                    ..Progress::default()
                };
                self.effects.push(Effect::Progress(id, progress));
            }
        }
    }
}
