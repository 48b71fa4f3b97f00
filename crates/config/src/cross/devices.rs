//! Devices and disks of the host that compartments are given.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::build::Draft;
use crate::cross::texts;
use crate::diagnostic::Diagnostic;
use crate::schema::compartment as key;
use crate::schema::lists::disk;
use crate::settings::Settings;
use crate::source::Span;
use crate::value::pci::Bdf;

/// Every device isolated, and given to one compartment only.
pub(super) fn pci(settings: &Settings, drafts: &[Draft<'_>], found: &mut Vec<Diagnostic>) {
    let mut seen: BTreeMap<Bdf, (&Draft, Span)> = BTreeMap::new();
    for draft in drafts {
        for (text, node) in texts(&draft.view, &key::PCI_DEVICES) {
            let Ok(device) = text.parse::<Bdf>() else { continue };
            if !settings.isolated_pci_devices.contains(&device) {
                found.push(
                    Diagnostic::error(format!("PCI device {device} is not isolated from the host"))
                        .at(node.span)
                        .hint(format!("add \"{device}\" to isolated-pci-devices at the top level"))
                        .concerning(draft.concern()),
                );
            }
            match seen.get(&device) {
                Some((first, _)) if first.declared.name == draft.declared.name => {}
                Some((first, place)) => {
                    let mut diagnostic = Diagnostic::error(format!(
                        "PCI device {device} is given to both `{}` and `{}`",
                        first.declared.name, draft.declared.name
                    ))
                    .at(node.span)
                    .hint("a device belongs to one compartment only")
                    .concerning(first.concern())
                    .concerning(draft.concern());
                    if *place != node.span {
                        diagnostic = diagnostic.related(*place, "first here");
                    }
                    found.push(diagnostic);
                }
                None => {
                    seen.insert(device, (draft, node.span));
                }
            }
        }
    }
}

/// A disk that two compartments may write is destroyed as soon as both run.
pub(super) fn writable_disks(drafts: &[Draft<'_>], found: &mut Vec<Diagnostic>) {
    let mut seen: BTreeMap<PathBuf, (&Draft, Span)> = BTreeMap::new();
    for draft in drafts {
        for (_, table) in draft.view.tables(&key::ADDITIONAL_DISKS) {
            let Some(node) = table.node(&disk::PATH) else { continue };
            let Some(path) = table.path(&disk::PATH).filter(|_| !table.flag(&disk::READ_ONLY))
            else {
                continue;
            };
            match seen.get(&path) {
                None => {
                    seen.insert(path, (draft, node.span));
                }
                Some((first, place)) => {
                    let mut diagnostic = Diagnostic::warning(format!(
                        "`{}` and `{}` both write to {}",
                        first.declared.name,
                        draft.declared.name,
                        path.display()
                    ))
                    .at(node.span)
                    .hint("add read-only = true, or never run both at once")
                    .concerning(draft.concern());
                    if *place != node.span {
                        diagnostic = diagnostic.related(*place, "first here");
                    }
                    found.push(diagnostic);
                }
            }
        }
    }
}
