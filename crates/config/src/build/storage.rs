//! Volumes, additional disks and shares of one compartment.

use crate::compartment::{AdditionalDisk, BlockSize, KeySource, Share, Volume};
use crate::diagnostic::{Concern, Diagnostic};
use crate::layers::View;
use crate::schema::Key;
use crate::schema::compartment as key;
use crate::schema::lists::{age_key, disk, share, volume};
use crate::source::Span;
use crate::value::name::ShareTag;

pub(super) fn volumes(view: &View<'_>, name: &str, found: &mut Vec<Diagnostic>) -> Vec<Volume> {
    distinct(view, &[(&key::VOLUMES, &volume::NAME)], "two volumes are named", name, found);
    let tables = view.tables(&key::VOLUMES).into_iter();
    tables
        .filter_map(|(_, table)| {
            Some(Volume {
                name: table.text(&volume::NAME)?,
                size: table.size(&volume::SIZE)?,
                mount_point: table.text(&volume::MOUNT_POINT)?,
                filesystem: table.text(&volume::FILESYSTEM)?,
                key: key_source(&table)?,
            })
        })
        .collect()
}

fn key_source(table: &View<'_>) -> Option<KeySource> {
    if table.node(&volume::KEY).is_some_and(|node| node.as_table().is_some()) {
        return table.table(&volume::KEY).path(&age_key::AGE).map(KeySource::Age);
    }
    match table.text::<String>(&volume::KEY)?.as_str() {
        "passphrase" => Some(KeySource::Passphrase),
        "tpm2" => Some(KeySource::Tpm2),
        _ => None,
    }
}

pub(super) fn disks(
    view: &View<'_>,
    name: &str,
    found: &mut Vec<Diagnostic>,
) -> Vec<AdditionalDisk> {
    let identifiers = [(&key::ADDITIONAL_DISKS, &disk::DEV_IDENTIFIER)];
    distinct(view, &identifiers, "two disks have the identifier", name, found);
    let tables = view.tables(&key::ADDITIONAL_DISKS).into_iter();
    tables
        .filter_map(|(_, table)| {
            Some(AdditionalDisk {
                path: table.path(&disk::PATH)?,
                format: table.text(&disk::FORMAT)?,
                read_only: table.flag(&disk::READ_ONLY),
                enable_discard: table.flag(&disk::ENABLE_DISCARD),
                block_size: match table.integer(&disk::BLOCK_SIZE) {
                    Some(4096) => BlockSize::B4096,
                    _ => BlockSize::B512,
                },
                dev_identifier: table.text(&disk::DEV_IDENTIFIER),
                use_direct: table.flag(&disk::USE_DIRECT),
            })
        })
        .collect()
}

pub(super) fn shares(view: &View<'_>, name: &str, found: &mut Vec<Diagnostic>) -> Vec<Share> {
    distinct(view, &[(&key::SHARES, &share::TAG)], "two shares have the tag", name, found);
    let tables = view.tables(&key::SHARES);
    let mut shares: Vec<Share> = Vec::new();
    let fixed: Vec<ShareTag> =
        tables.iter().filter_map(|(_, table)| table.text(&share::TAG)).collect();
    for (position, (_, table)) in tables.iter().enumerate() {
        // A tag somebody wrote is never given to another share.
        let derived = || {
            let mut candidates = (position..).filter_map(|at| format!("share{at}").parse().ok());
            candidates.find(|tag| {
                !fixed.contains(tag) && !shares.iter().any(|share: &Share| share.tag == *tag)
            })
        };
        let tag = table.text(&share::TAG).or_else(derived);
        let source = table.path(&share::SOURCE);
        if let Some(((tag, source), mount_point)) =
            tag.zip(source).zip(table.text(&share::MOUNT_POINT))
        {
            shares.push(Share {
                source,
                mount_point,
                tag,
                read_only: table.flag(&share::READ_ONLY),
            });
        }
    }
    shares
}

/// No two volumes or shares on the same mount point.
pub(super) fn distinct_mount_points(view: &View<'_>, name: &str, found: &mut Vec<Diagnostic>) {
    let lists = [(&key::VOLUMES, &volume::MOUNT_POINT), (&key::SHARES, &share::MOUNT_POINT)];
    distinct(view, &lists, "two volumes or shares are mounted on", name, found);
}

/// Reports values that occur twice in the named columns of lists of tables.
fn distinct(
    view: &View<'_>,
    columns: &[(&Key, &Key)],
    message: &str,
    name: &str,
    found: &mut Vec<Diagnostic>,
) {
    let mut seen: Vec<(&str, Span)> = Vec::new();
    for (list, column) in columns {
        for (_, table) in view.tables(list) {
            let Some(node) = table.node(column) else { continue };
            let Some(value) = node.as_text() else { continue };
            match seen.iter().find(|(known, _)| *known == value) {
                None => seen.push((value, node.span)),
                Some((_, first)) => found.push(
                    Diagnostic::error(format!("{message} `{value}`"))
                        .at(node.span)
                        .related(*first, "first here")
                        .hint("give one of them another")
                        .concerning(Concern::Compartment(name.to_owned())),
                ),
            }
        }
    }
}
