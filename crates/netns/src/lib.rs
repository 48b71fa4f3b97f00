//! The part of `casemate-netns` that reads what strangers send, apart from the program so that it
//! can be fuzzed.

pub mod dns;
