//! A root file system as it will be: folders, files and symbolic links, with nothing outside of
//! it and nothing below what is no folder.
//!
//! Paths are followed name by name from the root and never through a symbolic link, so that an
//! entry is either in the tree or refused. Nodes are numbered: two names of one node are hard
//! links. Each name knows in which layer it was last written to, which is what a removal in an
//! OCI layer needs: it concerns the layers below only.

use std::collections::{BTreeMap, btree_map};

use super::read::MAX_ENTRIES;
use super::{Contents, EntryFault, EntryPath, shown};

/// Bytes of all names, link targets and attributes together: 512 MiB, more than a thousand for
/// each entry of a large system.
const MAX_DESCRIPTION: u64 = 512 << 20;

/// Number of the root folder's node.
const ROOT: usize = 0;

/// A root file system.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    layer: u32,
    /// Bytes of names, link targets and attributes ever taken.
    description: u64,
}

/// A folder, file or symbolic link.
#[derive(Debug)]
pub(crate) struct Node {
    /// Owner and permissions.
    pub(crate) metadata: Metadata,
    /// What it is.
    pub(crate) kind: NodeKind,
}

/// Owner, permissions and attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Permission bits, those of setuid, setgid and sticky included.
    pub(crate) mode: u32,
    /// Number of the owner.
    pub(crate) owner: u16,
    /// Number of the group.
    pub(crate) group: u16,
    /// Extended attributes, by name.
    pub(crate) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a node is.
#[derive(Debug)]
pub(crate) enum NodeKind {
    /// A folder, and what it has by name.
    Folder(BTreeMap<Vec<u8>, Child>),
    /// A file.
    File(Contents),
    /// A symbolic link.
    Symlink(Vec<u8>),
}

/// A name in a folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Child {
    node: usize,
    /// The last layer that wrote it, or something below it.
    layer: u32,
}

/// One name of the tree, as a walk comes to it.
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    /// Its path; empty for the root.
    pub(crate) path: Vec<u8>,
    /// Which node it names.
    pub(crate) number: usize,
    /// The node.
    pub(crate) node: &'a Node,
}

impl Metadata {
    /// Root's, with these permission bits.
    pub(crate) fn of_root(mode: u32) -> Self {
        Self { mode, owner: 0, group: 0, attributes: BTreeMap::new() }
    }

    fn length(&self) -> usize {
        self.attributes.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

impl Tree {
    /// A tree of the root folder alone.
    pub(crate) fn new() -> Self {
        let root =
            Node { metadata: Metadata::of_root(0o755), kind: NodeKind::Folder(BTreeMap::new()) };
        Self { nodes: vec![root], layer: 0, description: 0 }
    }

    /// Lets everybody enter the root folder.
    pub(crate) fn open_root(&mut self) {
        self.nodes[ROOT].metadata.mode |= 0o555;
    }

    /// What is written from now on is another layer's.
    pub(crate) fn begin_layer(&mut self) {
        self.layer += 1;
    }

    /// Writes an entry, in place of one of the same name. A folder that is there already keeps
    /// what it has; folders on the way that are not there are made.
    pub(crate) fn put(
        &mut self,
        path: &EntryPath,
        metadata: Metadata,
        kind: NodeKind,
    ) -> Result<(), EntryFault> {
        let length =
            metadata.length() + if let NodeKind::Symlink(to) = &kind { to.len() } else { 0 };
        self.charge(length)?;
        let is_folder = matches!(kind, NodeKind::Folder(_));
        let Some((parent, name)) = path.split() else {
            if !is_folder {
                return Err(EntryFault::Root);
            }
            self.nodes[ROOT].metadata = metadata;
            return Ok(());
        };
        let parent = self.enter(parent)?;
        if is_folder
            && let Some(child) = self.child(parent, name)
            && matches!(self.nodes[child.node].kind, NodeKind::Folder(_))
        {
            self.nodes[child.node].metadata = metadata;
            self.insert(parent, name, child.node)
        } else {
            let node = self.add(metadata, kind)?;
            self.insert(parent, name, node)
        }
    }

    /// Gives a file or symbolic link a second name.
    pub(crate) fn link(&mut self, path: &EntryPath, target: &EntryPath) -> Result<(), EntryFault> {
        let called = || shown(&target.names().join(&b'/'));
        let found = self.find(target)?.ok_or_else(|| EntryFault::LinkMissing(called()))?;
        if matches!(self.nodes[found].kind, NodeKind::Folder(_)) {
            return Err(EntryFault::LinkFolder(called()));
        }
        let (parent, name) = path.split().ok_or(EntryFault::Root)?;
        let parent = self.enter(parent)?;
        self.insert(parent, name, found)
    }

    /// Removes a name as far as layers below the current one wrote it.
    pub(crate) fn remove_lower(&mut self, path: &EntryPath) -> Result<(), EntryFault> {
        let (parent, name) = path.split().ok_or(EntryFault::Whiteout)?;
        let Some(found) = self.find(&EntryPath::of_names(parent))? else { return Ok(()) };
        if !matches!(self.nodes[found].kind, NodeKind::Folder(_)) {
            return Err(self.below(found, parent));
        }
        let parent = found;
        let Some(child) = self.child(parent, name) else { return Ok(()) };
        if child.layer == self.layer {
            self.prune(child.node);
        } else if let NodeKind::Folder(children) = &mut self.nodes[parent].kind {
            children.remove(name);
        }
        Ok(())
    }

    /// Removes what layers below the current one wrote in a folder, which is made when it is not
    /// there.
    pub(crate) fn clear_lower(&mut self, folder: &[Vec<u8>]) -> Result<(), EntryFault> {
        let folder = self.enter(folder)?;
        self.prune(folder);
        Ok(())
    }

    /// The node of a path, which is not followed through symbolic links; none when it is not
    /// there.
    pub(crate) fn find(&self, path: &EntryPath) -> Result<Option<usize>, EntryFault> {
        let mut node = ROOT;
        for (depth, name) in path.names().iter().enumerate() {
            let NodeKind::Folder(children) = &self.nodes[node].kind else {
                return Err(self.below(node, &path.names()[..depth]));
            };
            let Some(child) = children.get(name) else { return Ok(None) };
            node = child.node;
        }
        Ok(Some(node))
    }

    /// The node of a path that we know; none when it is not there.
    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        let path = EntryPath::parse(path.as_bytes()).ok()?;
        self.find(&path).ok()?.map(|node| &self.nodes[node])
    }

    /// What a folder has, in order; nothing when it is not there or no folder.
    pub(crate) fn list(&self, path: &str) -> Vec<(&[u8], &Node)> {
        match self.get(path).map(|node| &node.kind) {
            Some(NodeKind::Folder(children)) => children
                .iter()
                .map(|(name, child)| (name.as_slice(), &self.nodes[child.node]))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// All names, in order, folders before what they have; the root first.
    pub(crate) fn walk(&self) -> impl Iterator<Item = Visit<'_>> {
        Walk { tree: self, root: true, open: Vec::new(), path: Vec::new() }
    }

    /// Goes down a path, making folders that are not there; returns the last one.
    fn enter(&mut self, names: &[Vec<u8>]) -> Result<usize, EntryFault> {
        let mut node = ROOT;
        for (depth, name) in names.iter().enumerate() {
            let next = match self.child(node, name) {
                Some(child) => child.node,
                None => self.add(Metadata::of_root(0o755), NodeKind::Folder(BTreeMap::new()))?,
            };
            if !matches!(self.nodes[next].kind, NodeKind::Folder(_)) {
                return Err(self.below(next, &names[..=depth]));
            }
            self.insert(node, name, next)?;
            node = next;
        }
        Ok(node)
    }

    fn child(&self, folder: usize, name: &[u8]) -> Option<Child> {
        match &self.nodes[folder].kind {
            NodeKind::Folder(children) => children.get(name).copied(),
            _ => None,
        }
    }

    fn add(&mut self, metadata: Metadata, kind: NodeKind) -> Result<usize, EntryFault> {
        if self.nodes.len() as u64 > MAX_ENTRIES {
            return Err(EntryFault::TreeTooLarge);
        }
        self.nodes.push(Node { metadata, kind });
        Ok(self.nodes.len() - 1)
    }

    /// Names a node in a folder, in the current layer.
    fn insert(&mut self, folder: usize, name: &[u8], node: usize) -> Result<(), EntryFault> {
        let child = Child { node, layer: self.layer };
        let NodeKind::Folder(children) = &mut self.nodes[folder].kind else {
            return Err(EntryFault::BelowFile(shown(name)));
        };
        match children.get_mut(name) {
            Some(there) => *there = child,
            None => {
                children.insert(name.to_vec(), child);
                self.charge(name.len())?;
            }
        }
        Ok(())
    }

    /// Counts memory that stays taken.
    fn charge(&mut self, length: usize) -> Result<(), EntryFault> {
        self.description += length as u64;
        if self.description > MAX_DESCRIPTION {
            return Err(EntryFault::TreeTooLarge);
        }
        Ok(())
    }

    /// Removes from a folder, and from those in it that the current layer wrote to, whatever
    /// only layers below did.
    fn prune(&mut self, folder: usize) {
        let mut open = vec![folder];
        while let Some(node) = open.pop() {
            let layer = self.layer;
            if let NodeKind::Folder(children) = &mut self.nodes[node].kind {
                children.retain(|_, child| child.layer == layer);
                open.extend(children.values().map(|child| child.node));
            }
        }
    }

    /// Why nothing can be below this node.
    fn below(&self, node: usize, names: &[Vec<u8>]) -> EntryFault {
        let path = shown(&names.join(&b'/'));
        match self.nodes[node].kind {
            NodeKind::Symlink(_) => EntryFault::BelowSymlink(path),
            _ => EntryFault::BelowFile(path),
        }
    }
}

/// A walk: the folders it is in, innermost last, each with the length of its path.
struct Walk<'a> {
    tree: &'a Tree,
    root: bool,
    open: Vec<(btree_map::Iter<'a, Vec<u8>, Child>, usize)>,
    path: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, number: usize) -> Visit<'a> {
        let node = &self.tree.nodes[number];
        if let NodeKind::Folder(children) = &node.kind {
            self.open.push((children.iter(), self.path.len()));
        }
        Visit { path: self.path.clone(), number, node }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Visit<'a>;

    fn next(&mut self) -> Option<Visit<'a>> {
        if std::mem::take(&mut self.root) {
            return Some(self.visit(ROOT));
        }
        loop {
            let (children, length) = self.open.last_mut()?;
            self.path.truncate(*length);
            let Some((name, child)) = children.next() else {
                self.open.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend(name);
            return Some(self.visit(child.node));
        }
    }
}
