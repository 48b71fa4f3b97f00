//! What casemate has on the machine: its configuration, images, volumes and units.

use casemate_plan::hardening::Severity::{Error, Note, Warning};

use super::{Check, Machine, Outcome, none_of, none_seen};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "configuration",
        severity: Error,
        title: "a configuration without errors",
        why: "a compartment that an error concerns does not start",
        mend: "casemate check shows each error with its place",
        run: |machine| none_of(&machine.configuration),
    },
    Check {
        id: "images",
        severity: Error,
        title: "images of the compartments whole",
        why: "compartments with a damaged image do not start",
        mend: "build them anew: casemate image build --force NAME; or go back: casemate image \
               rollback NAME",
        run: |machine| none_seen(&machine.damaged_images),
    },
    Check {
        id: "volumes",
        severity: Error,
        title: "volumes whole",
        why: "a compartment with a damaged volume does not start",
        mend: "go back to a snapshot, or import an archive of it",
        run: |machine| match &machine.volumes {
            Ok(volumes) => none_of(&volumes.damaged),
            Err(reason) => Outcome::Unknown(reason.clone()),
        },
    },
    Check {
        id: "volume-keys",
        severity: Warning,
        title: "keys of volumes apart from them",
        why: "who takes the disk reads a volume whose key lies beside it unprotected",
        mend: "give the age identity a passphrase (age -p), put it on a token or another disk, or \
               use key = \"passphrase\" or \"tpm2\"",
        run: |machine| match &machine.volumes {
            Ok(volumes) => none_of(&volumes.weak),
            Err(reason) => Outcome::Unknown(reason.clone()),
        },
    },
    Check {
        id: "units",
        severity: Note,
        title: "units of systemd",
        why: "`autostart`, and starting a compartment by connecting to it, need them",
        mend: "write them: casemate units --output FOLDER (/etc/systemd/system, or \
               ~/.config/systemd/user for one's own), then systemctl enable",
        run: units,
    },
];

fn units(machine: &Machine) -> Outcome {
    let units = &machine.units;
    match (&units.stale, units.not_enabled.is_empty()) {
        _ if !units.systemd => Outcome::Nothing,
        (Some(program), _) => Outcome::Found(format!("they start another program: {program}")),
        (None, false) => {
            let names = units.not_enabled.join(", ");
            Outcome::Found(format!("nothing starts, in spite of `autostart`: {names}"))
        }
        (None, true) if units.installed => Outcome::Good,
        (None, true) => Outcome::Nothing,
    }
}
