//! Takes an archive into a tree, entry by entry, and refuses what no root file system has.

use std::collections::BTreeMap;
use std::io::Read;

use super::path::MAX_PATH;
use super::read::{Entry, EntryKind, Reader};
use super::{ArchiveError, EntryFault, EntryPath, Metadata, NodeKind, Spool, Tree, shown};

/// Begins names that mean a removal in an OCI layer (image-spec, `layer.md`, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// The name that removes all that lower layers have in its folder.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Begins names of notes a former storage driver left, which are no files.
const NOTE: &[u8] = b".wh..wh.";

/// Extended attributes that are kept: what users set, and file capabilities. Labels and access
/// lists belong to the machine they were made on.
const USERS: &[u8] = b"user.";
const CAPABILITY: &[u8] = b"security.capability";
/// Longest name of an attribute (`XATTR_NAME_MAX` of `linux/limits.h`).
const MAX_ATTRIBUTE_NAME: usize = 255;
/// Longest value of an attribute (`XATTR_SIZE_MAX` of `linux/limits.h`).
const MAX_ATTRIBUTE: usize = 65536;
/// Length of capabilities without a user namespace, and their revision in the first four bytes
/// (`vfs_cap_data` of `linux/capability.h`, revision 2).
const CAPABILITY_LENGTH: usize = 20;
const CAPABILITY_REVISION: u8 = 2;

/// What names in an archive mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layering {
    /// What they say.
    Plain,
    /// It is a layer of an OCI image: some remove what is in lower layers.
    Oci,
}

/// Takes all of an archive into the tree, and its files' contents into the spool.
pub(crate) fn merge(
    source: impl Read,
    layering: Layering,
    tree: &mut Tree,
    spool: &mut Spool,
) -> Result<(), ArchiveError> {
    tree.begin_layer();
    let mut reader = Reader::new(source);
    while let Some(entry) = reader.next()? {
        let taken = take(&mut reader, &entry, layering, tree, spool)?;
        taken.map_err(|fault| ArchiveError::Entry { entry: shown(&entry.path), fault })?;
    }
    reader.finish()
}

/// Takes one entry. Of the results, the inner one is about the entry alone.
fn take<R: Read>(
    reader: &mut Reader<R>,
    entry: &Entry,
    layering: Layering,
    tree: &mut Tree,
    spool: &mut Spool,
) -> Result<Result<(), EntryFault>, ArchiveError> {
    // Whether it may be there is decided before its contents take room.
    let (path, metadata) = match describe(entry) {
        Ok(description) => description,
        Err(fault) => return Ok(Err(fault)),
    };
    if layering == Layering::Oci
        && let Some(removal) = removal(&path, entry, tree)
    {
        return Ok(removal);
    }
    let kind = match &entry.kind {
        EntryKind::File => NodeKind::File(spool.append(|buffer| reader.contents(buffer))?),
        EntryKind::Folder => NodeKind::Folder(BTreeMap::new()),
        EntryKind::Symlink(target) => NodeKind::Symlink(target.clone()),
        EntryKind::HardLink(target) => return Ok(link(&path, target, tree)),
        EntryKind::Refused(fault) => return Ok(Err(fault.clone())),
    };
    Ok(tree.put(&path, metadata, kind))
}

/// Where an entry is and whose.
fn describe(entry: &Entry) -> Result<(EntryPath, Metadata), EntryFault> {
    let path = EntryPath::parse(&entry.path)?;
    if let EntryKind::Symlink(target) = &entry.kind
        && (target.is_empty() || target.len() > MAX_PATH || target.contains(&0))
    {
        return Err(EntryFault::SymlinkTarget);
    }
    let number = |id: u64| u16::try_from(id).map_err(|_| EntryFault::Owner(id));
    let mut attributes = BTreeMap::new();
    for (name, value) in &entry.attributes {
        if is_kept(&entry.kind, name) {
            check_attribute(name, value)?;
            attributes.insert(name.clone(), value.clone());
        }
    }
    let (owner, group) = (number(entry.owner)?, number(entry.group)?);
    Ok((path, Metadata { mode: entry.mode, owner, group, attributes }))
}

fn is_kept(kind: &EntryKind, name: &[u8]) -> bool {
    match kind {
        EntryKind::File => name == CAPABILITY || name.starts_with(USERS),
        EntryKind::Folder => name.starts_with(USERS),
        _ => false,
    }
}

fn check_attribute(name: &[u8], value: &[u8]) -> Result<(), EntryFault> {
    // `=` and `%` are what archives and the program that unpacks ours differ about.
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"=%".contains(byte);
    let fits = match name == CAPABILITY {
        true => value.len() == CAPABILITY_LENGTH && value[3] == CAPABILITY_REVISION,
        false => value.len() <= MAX_ATTRIBUTE && name.len() > USERS.len(),
    };
    if fits && name.len() <= MAX_ATTRIBUTE_NAME && name.iter().all(plain) {
        return Ok(());
    }
    Err(EntryFault::Attribute(shown(name)))
}

fn link(path: &EntryPath, target: &[u8], tree: &mut Tree) -> Result<(), EntryFault> {
    let refused = |fault| EntryFault::LinkPath { target: shown(target), fault: Box::new(fault) };
    tree.link(path, &EntryPath::parse(target).map_err(refused)?)
}

/// What an entry of a layer removes; none when it is an ordinary entry.
fn removal(path: &EntryPath, entry: &Entry, tree: &mut Tree) -> Option<Result<(), EntryFault>> {
    let (folder, name) = path.split()?;
    let reserved = |name: &[u8]| name.starts_with(WHITEOUT);
    if folder.iter().any(|name| reserved(name) && !name.starts_with(NOTE)) {
        return Some(Err(EntryFault::Whiteout));
    }
    if folder.iter().any(|name| reserved(name)) {
        return Some(Ok(()));
    }
    let hidden = name.strip_prefix(WHITEOUT)?;
    if name == OPAQUE {
        return Some(tree.clear_lower(folder));
    }
    if name.starts_with(NOTE) {
        return Some(Ok(()));
    }
    if entry.kind != EntryKind::File {
        return Some(Err(EntryFault::Whiteout));
    }
    let mut raw = folder.join(&b'/');
    if !folder.is_empty() {
        raw.push(b'/');
    }
    raw.extend(hidden);
    let hidden_path = match hidden {
        b"" | b"." => Err(EntryFault::Whiteout),
        _ => EntryPath::parse(&raw),
    };
    Some(hidden_path.and_then(|path| tree.remove_lower(&path)))
}
