//! What shows the windows of a compartment on the user's desktop: waypipe, which takes them out of
//! the stream that the guest sends, and `casemate-wayland`, which draws their border.
//!
//! ```text
//! guest ══ link ══ socket ══▶ waypipe client ══ display ══▶ casemate-wayland ══▶ compositor
//!                             jailed             (folder)   jailed, asks the supervisor
//!                                                           for each connection there
//! ```
//!
//! Both are planned when the first program of the guest wants a window, for only then is it known
//! where the compositor is; so they are not in the [`crate::Plan`].

use std::path::{Path, PathBuf};

use casemate_config::WindowRight;

use crate::facts::HostFacts;
use crate::jail::{Access, Jail, Limits, Reach, VisibleFile};
use crate::process::{Channel, Descriptor, DescriptorSource, Process, Role};
use crate::vm::LOG_SIZE;
use crate::{Refusal, Request, identity};

/// Descriptors of the proxy.
const DISPLAY: i32 = 3;
const COMPOSITOR: i32 = 4;
const CLIPBOARD: i32 = 5;

/// Where waypipe finds its sockets.
const FOLDER: &str = "/windows";

/// Name of the proxy's socket in that folder.
pub const DISPLAY_NAME: &str = "display";

/// Largest file in memory that waypipe may make, in bytes: the pixels of one pool. Two frames of
/// 7680×4320 are 265 MB.
const LARGEST_POOL: u64 = 512 << 20;

/// What one process of waypipe may map, in bytes: its libraries are 0.3 GB of it.
const ADDRESS_SPACE: u64 = 4 << 30;

/// The proxy that draws borders. It gets three sockets: where waypipe connects, where connections to
/// the compositor are asked for, and where the clipboard's commands connect.
///
/// # Errors
/// No user is left for it.
pub fn proxy(request: &Request<'_>, facts: &HostFacts) -> Result<Process, Refusal> {
    let compartment = request.compartment;
    let color = compartment.color;
    let mut arguments = vec![
        "--compartment".to_owned(),
        request.instance.name.clone(),
        "--color".into(),
        format!("{:02x}{:02x}{:02x}", color.red, color.green, color.blue),
        "--label".into(),
        label(request),
        "--listen-fd".into(),
        DISPLAY.to_string(),
        "--upstream-fd".into(),
        COMPOSITOR.to_string(),
        "--control-listen-fd".into(),
        CLIPBOARD.to_string(),
    ];
    let rights = &compartment.window_rights;
    if rights.contains(&WindowRight::Fullscreen) {
        arguments.push("--allow-fullscreen".into());
    }
    let asked =
        [(WindowRight::Activation, "activation"), (WindowRight::Constraints, "constraints")];
    for (right, word) in asked {
        if rights.contains(&right) {
            arguments.extend(["--allow".into(), word.into()]);
        }
    }
    let listener =
        |number, channel| Descriptor { number, what: DescriptorSource::Listener { channel } };
    Ok(Process {
        role: Role::Windows,
        program: facts.programs.wayland.clone(),
        arguments,
        environment: vec![],
        descriptors: vec![
            listener(DISPLAY, Channel::Display),
            Descriptor {
                number: COMPOSITOR,
                what: DescriptorSource::Channel { channel: Channel::Compositor },
            },
            listener(CLIPBOARD, Channel::Clipboard),
        ],
        jail: Jail {
            identity: identity::identity(facts, request.instance.slot, Role::Windows)?,
            files: vec![],
            // It limits its own memory further.
            limits: Limits {
                open_files: 4096,
                address_space: Some(1 << 30),
                file_size: LOG_SIZE,
                processes: 1,
            },
            reach: Reach::Nothing,
        },
    })
}

/// What is written on the border: a fresh disposable's is its own name, to tell it from others.
fn label(request: &Request<'_>) -> String {
    let label = request.compartment.label.as_str();
    if request.instance.fresh && label == request.compartment.name.as_str() {
        return request.instance.name.clone();
    }
    label.to_owned()
}

/// waypipe's end on the host. `folder` is where the proxy's socket is, and where waypipe makes one of
/// its own, named `socket`.
///
/// # Errors
/// No user is left for it.
pub fn waypipe(
    request: &Request<'_>,
    facts: &HostFacts,
    waypipe: &Path,
    folder: &Path,
    socket: &str,
) -> Result<Process, Refusal> {
    let inside = |name: &str| Path::new(FOLDER).join(name).display().to_string();
    let mut files: Vec<VisibleFile> =
        facts.system_directories.iter().map(|path| VisibleFile::execute(path.clone())).collect();
    if !files.iter().any(|file| waypipe.starts_with(&file.source)) {
        files.push(VisibleFile::execute(waypipe));
    }
    files.push(VisibleFile::read("/etc/ld.so.cache").if_there());
    files.push(VisibleFile {
        target: PathBuf::from(FOLDER),
        access: Access::Sockets,
        ..VisibleFile::read(folder)
    });
    let words = ["--compress", "none", "--no-gpu", "--threads", "1", "--socket"];
    let mut arguments = words.map(str::to_owned).to_vec();
    arguments.extend([inside(socket), "client".into()]);
    Ok(Process {
        role: Role::Waypipe,
        program: waypipe.into(),
        arguments,
        environment: vec![
            ("WAYLAND_DISPLAY".into(), inside(DISPLAY_NAME)),
            ("XDG_RUNTIME_DIR".into(), FOLDER.into()),
        ],
        descriptors: vec![],
        jail: Jail {
            identity: identity::identity(facts, request.instance.slot, Role::Waypipe)?,
            files,
            // For each of 32 programs a process and a thread; descriptors are pools of pixels.
            limits: Limits {
                open_files: 4096,
                address_space: Some(ADDRESS_SPACE),
                file_size: LARGEST_POOL,
                processes: 128,
            },
            reach: Reach::Nothing,
        },
    })
}
