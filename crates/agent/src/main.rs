//! The agent's program: `/init` of the initrd, `casemate-agent --service` under another init, or, by
//! another name, a command for the guest's programs or a service for other compartments.

use std::process::ExitCode;

use casemate_agent::{carrier, tools};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_default();
    if std::process::id() != 1
        && let Some(tool) = tools::named(&called)
    {
        return tool(arguments.collect());
    }
    let argument = arguments.next();
    match argument.as_ref().and_then(|argument| argument.to_str()) {
        _ if std::process::id() == 1 => casemate_agent::run_as_init(),
        Some(argument) if carrier::is_carrier(argument) => carrier::run(argument),
        Some("--service") => casemate_agent::run_as_service(),
        Some(tools::SEND) => tools::send(arguments.collect()),
        Some(tools::SEND_MENU) => tools::send_menu(),
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
