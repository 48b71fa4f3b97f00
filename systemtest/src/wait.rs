//! Bounded waiting.

use std::time::{Duration, Instant};

/// For what needs a guest to boot. Boots under emulation on a busy machine have taken 15 s.
pub const BOOT: Duration = Duration::from_secs(120);

/// For what a running compartment does at once, on a busy machine.
pub const SHORT: Duration = Duration::from_secs(30);

/// Between two looks at something that has no way to tell.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` finds something.
///
/// # Panics
/// When it found nothing within `limit`; `what` says what was looked for.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(PAUSE);
    }
}
