//! Rules between compartments, and between compartments and everything else.

mod devices;
mod networks;
mod references;

use crate::build::Draft;
use crate::diagnostic::Diagnostic;
use crate::layers::View;
use crate::sections::Sections;
use crate::settings::Settings;
use crate::tree::Node;

pub(crate) use networks::networks;

/// Everything but networks: ids, devices, disks, and names that must exist.
pub(crate) fn check(
    sections: &Sections<'_>,
    settings: &Settings,
    drafts: &[Draft<'_>],
    found: &mut Vec<Diagnostic>,
) {
    references::ids(settings, drafts, found);
    references::macs(drafts, found);
    references::images(sections, drafts, found);
    references::default_disposables(sections, drafts, found);
    devices::pci(settings, drafts, found);
    devices::writable_disks(drafts, found);
}

/// The elements of a list that are texts.
fn texts<'a>(
    view: &View<'a>,
    key: &crate::schema::Key,
) -> impl Iterator<Item = (&'a str, &'a Node)> {
    view.list(key).iter().filter_map(|node| Some((node.as_text()?, node)))
}
