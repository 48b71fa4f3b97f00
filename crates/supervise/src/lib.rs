//! One compartment's life, kept by one process.
mod channels;
pub mod configuration;
pub mod control;
pub mod crew;
pub mod keeper;
pub mod life;
pub mod logs;
pub mod monitor;
pub mod prepare;
pub mod runtime;
pub mod serve;

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
