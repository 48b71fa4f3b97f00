//! The agent's program: `/init` of the initrd, or `casemate-agent --service` under another init.

use std::process::ExitCode;

fn main() -> ExitCode {
    let argument = std::env::args_os().nth(1);
    match argument.as_ref().and_then(|argument| argument.to_str()) {
        _ if std::process::id() == 1 => casemate_agent::run_as_init(),
        Some("--service") => casemate_agent::run_as_service(),
        Some("--version") => {
            println!("casemate-agent {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!(
                "casemate-agent runs inside a guest: as /init of its initrd, or as a service\n\
                 usage: casemate-agent --service | --version"
            );
            ExitCode::from(2)
        }
    }
}
