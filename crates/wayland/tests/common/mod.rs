//! What tests of the proxy need: a desktop without a screen, the proxy in front of it, and clients
//! that say whatever a test wants, honest or not.

#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod bench;
pub mod client;
pub mod compositor;
pub mod desktop;
pub mod picture;
pub mod pointer;
pub mod window;

use std::time::{Duration, Instant};

/// The longest a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks again and again until something is so.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The desktop, or the end of the test with a word about it.
#[macro_export]
macro_rules! desktop {
    () => {
        match common::desktop::Desktop::start("") {
            Ok(desktop) => desktop,
            Err(why) => {
                println!("skipped: {why}");
                return;
            }
        }
    };
}
