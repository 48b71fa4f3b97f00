//! `volume.json`: what is true of a volume. A file beside it that it does not name is a leftover.
//!
//! Layers form a tree. The root, layer 0, is `data.raw`; every other is `N.qcow2` and holds what
//! was written since it was put on its parent. A snapshot is a layer nobody writes to any more; the
//! *active* layer is the one the guest writes to, and has no children. A layer that is neither is
//! left from a deleted snapshot, and waits to be merged with its only child or to be removed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use casemate_config::{KeySource, VolumeName};
use serde::{Deserialize, Serialize};

use crate::name::SnapshotName;

/// The only format of this file.
pub(crate) const FORMAT: u32 = 1;
/// Bytes of the largest volume: 64 TiB, as the configuration allows.
const MOST_BYTES: u64 = 64 << 40;
/// The most layers: QEMU opens each, and reads through all of a branch.
pub(crate) const MOST_LAYERS: usize = 128;

/// What is true of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Record {
    pub(crate) format: u32,
    /// Bytes offered to the guest.
    pub(crate) size: u64,
    /// When it was made, in seconds since 1970.
    pub(crate) created: u64,
    pub(crate) key: KeyKind,
    /// Whether no file system has been made in the active layer yet.
    pub(crate) blank: bool,
    /// The layer the guest writes to.
    pub(crate) active: u32,
    /// The number of the next layer. Never used twice.
    pub(crate) next: u32,
    pub(crate) layers: BTreeMap<u32, Layer>,
    /// A snapshot that is neither taken nor not: see [`crate::together`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) prepared: Option<Prepared>,
}

/// A snapshot whose layer, the one numbered `next`, is on the disk and may be written to already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Prepared {
    /// What the active layer becomes.
    pub(crate) snapshot: Snapshot,
    /// The compartment's other volumes of which it is as well.
    pub(crate) with: Vec<String>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Layer {
    /// The layer it stands on; its number is smaller.
    pub(crate) parent: Option<u32>,
    /// The snapshot it is.
    pub(crate) snapshot: Option<Snapshot>,
}

/// A state of a volume that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Snapshot {
    /// Its name, unique within the volume.
    pub name: SnapshotName,
    /// When it was taken, in seconds since 1970.
    pub taken: u64,
    /// Whether a rule took it, and a rule may delete it.
    pub automatic: bool,
    /// Whether the volume had no file system yet.
    pub blank: bool,
}

/// What opens a volume, as it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyKind {
    /// A passphrase.
    Passphrase,
    /// A key sealed by the machine's TPM 2.0.
    Tpm2,
    /// A key in this file, encrypted with age.
    Age(PathBuf),
}

impl From<&KeySource> for KeyKind {
    fn from(source: &KeySource) -> Self {
        match source {
            KeySource::Passphrase => Self::Passphrase,
            KeySource::Tpm2 => Self::Tpm2,
            KeySource::Age(path) => Self::Age(path.clone()),
        }
    }
}

impl KeyKind {
    /// Whether both are opened in the same manner; the files may have been moved.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl std::fmt::Display for KeyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Passphrase => f.write_str("a passphrase"),
            Self::Tpm2 => f.write_str("the TPM"),
            Self::Age(_) => f.write_str("an age identity"),
        }
    }
}

impl Record {
    /// That of a new volume.
    pub(crate) fn new(size: u64, created: u64, key: KeyKind) -> Self {
        let root = Layer { parent: None, snapshot: None };
        let layers = BTreeMap::from([(0, root)]);
        Self {
            format: FORMAT,
            size,
            created,
            key,
            blank: true,
            active: 0,
            next: 1,
            layers,
            prepared: None,
        }
    }

    /// Whether it can be one of ours.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.format != FORMAT {
            return Err("it is of a format this version does not know");
        }
        if self.size == 0 || self.size > MOST_BYTES || !self.size.is_multiple_of(4096) {
            return Err("its size is none a volume can have");
        }
        if self.layers.len() > MOST_LAYERS {
            return Err("it has too many layers");
        }
        let root = self.layers.get(&0).ok_or("its first layer is missing")?;
        if root.parent.is_some() {
            return Err("its first layer stands on another");
        }
        for (number, layer) in self.layers.iter().skip(1) {
            let parent = layer.parent.ok_or("a layer stands on nothing")?;
            if parent >= *number || !self.layers.contains_key(&parent) {
                return Err("a layer stands on one that is not there");
            }
        }
        let active = self.layers.get(&self.active).ok_or("its active layer is missing")?;
        if active.snapshot.is_some() || self.children(self.active).next().is_some() {
            return Err("its active layer is a snapshot");
        }
        if self.layers.keys().any(|number| *number >= self.next) {
            return Err("it counts its layers wrongly");
        }
        let prepared = self.prepared.iter().map(|prepared| &prepared.snapshot.name);
        let mut names: Vec<_> = self.snapshots().map(|(_, snapshot)| &snapshot.name).collect();
        names.extend(prepared);
        names.sort();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("two snapshots have one name");
        }
        let mut others = self.prepared.iter().flat_map(|prepared| &prepared.with);
        if !others.all(|name| name.parse::<VolumeName>().is_ok()) {
            return Err("a volume it names can be none");
        }
        Ok(())
    }

    /// Name of a layer's file.
    pub(crate) fn file(number: u32) -> String {
        match number {
            0 => "data.raw".to_owned(),
            number => format!("{number}.qcow2"),
        }
    }

    /// The snapshots with the numbers of their layers, by number.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = (u32, &Snapshot)> {
        self.layers.iter().filter_map(|(number, layer)| {
            layer.snapshot.as_ref().map(|snapshot| (*number, snapshot))
        })
    }

    /// The layer of a snapshot.
    pub(crate) fn find(&self, name: &SnapshotName) -> Option<u32> {
        self.snapshots().find(|(_, snapshot)| snapshot.name == *name).map(|(number, _)| number)
    }

    /// The layers that stand on this one.
    pub(crate) fn children(&self, number: u32) -> impl Iterator<Item = u32> {
        let stands = move |layer: &Layer| layer.parent == Some(number);
        self.layers.iter().filter(move |(_, layer)| stands(layer)).map(|(number, _)| *number)
    }

    /// A layer and all it stands on, from the root up.
    pub(crate) fn branch(&self, top: u32) -> Vec<u32> {
        let parent = |number: &u32| self.layers.get(number).and_then(|layer| layer.parent);
        let mut branch: Vec<u32> = std::iter::successors(Some(top), parent).collect();
        branch.reverse();
        branch
    }

    /// Puts a new layer on `parent` and makes it the active one; returns its number.
    pub(crate) fn put_layer(&mut self, parent: u32) -> u32 {
        let number = self.next;
        self.next += 1;
        self.layers.insert(number, Layer { parent: Some(parent), snapshot: None });
        self.active = number;
        number
    }

    /// Lets the prepared snapshot be taken: the guest writes to the prepared layer.
    pub(crate) fn keep_prepared(&mut self) {
        let Some(prepared) = self.prepared.take() else { return };
        let active = self.active;
        if let Some(layer) = self.layers.get_mut(&active) {
            layer.snapshot = Some(prepared.snapshot);
        }
        self.put_layer(active);
    }

    /// Lets the prepared snapshot not be taken.
    pub(crate) fn drop_prepared(&mut self) {
        if self.prepared.take().is_some() {
            self.next += 1;
        }
    }

    /// Forgets layers that nothing stands on and that are neither active nor a snapshot.
    pub(crate) fn prune(&mut self) {
        loop {
            let bare = self.unnamed().find(|number| self.children(*number).next().is_none());
            match bare {
                Some(number) => drop(self.layers.remove(&number)),
                None => return,
            }
        }
    }

    /// A layer left from a deleted snapshot, and the one that can be merged into it.
    pub(crate) fn mergeable(&self) -> Option<(u32, u32)> {
        self.unnamed().find_map(|number| {
            let mut children = self.children(number);
            match (children.next(), children.next()) {
                (Some(child), None) => Some((number, child)),
                _ => None,
            }
        })
    }

    /// Lets `lower` be what `upper`, its only child, was.
    pub(crate) fn merged(&mut self, lower: u32, upper: u32) {
        for layer in self.layers.values_mut().filter(|layer| layer.parent == Some(upper)) {
            layer.parent = Some(lower);
        }
        let snapshot = self.layers.remove(&upper).and_then(|layer| layer.snapshot);
        if let Some(layer) = self.layers.get_mut(&lower) {
            layer.snapshot = snapshot;
        }
        if self.active == upper {
            self.active = lower;
        }
    }

    fn unnamed(&self) -> impl Iterator<Item = u32> {
        let left =
            |(number, layer): &(&u32, &Layer)| layer.snapshot.is_none() && **number != self.active;
        self.layers.iter().filter(left).map(|(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(record: &mut Record, number: u32, name: &str) {
        let name = name.parse().expect("a name");
        record.layers.get_mut(&number).expect("there").snapshot =
            Some(Snapshot { name, taken: 1, automatic: false, blank: false });
    }

    /// root `a` ← 1 `b` ← 2 active, and 3 `c` on the root.
    fn forked() -> Record {
        let mut record = Record::new(1 << 20, 1, KeyKind::Passphrase);
        named(&mut record, 0, "a");
        record.put_layer(0);
        named(&mut record, 1, "b");
        record.put_layer(1);
        record.put_layer(0);
        named(&mut record, 3, "c");
        record.active = 2;
        record.check().expect("sound");
        record
    }

    #[test]
    fn layers_with_one_child_merge_and_those_with_none_go() {
        let mut record = forked();
        record.layers.get_mut(&0).expect("root").snapshot = None;
        assert_eq!(record.mergeable(), None, "two stand on it");
        record.layers.get_mut(&3).expect("c").snapshot = None;
        record.prune();
        assert_eq!(record.mergeable(), Some((0, 1)));
        record.merged(0, 1);
        record.check().expect("sound");
        assert_eq!(record.branch(record.active), [0, 2]);
        assert_eq!(record.find(&"b".parse().expect("a name")), Some(0));
    }

    #[test]
    fn what_cannot_be_ours_is_refused() {
        let wrong: [fn(&mut Record); 11] = [
            |record| record.format = 2,
            |record| record.size = 0,
            |record| record.size = 1 << 63,
            |record| record.size += 1,
            |record| record.active = 9,
            |record| record.active = 1,
            |record| record.next = 2,
            |record| drop(record.layers.remove(&0)),
            |record| record.layers.get_mut(&1).expect("there").parent = Some(2),
            |record| record.layers.get_mut(&0).expect("there").parent = Some(2),
            |record| named(record, 3, "a"),
        ];
        for (index, spoil) in wrong.iter().enumerate() {
            let mut record = forked();
            spoil(&mut record);
            assert!(record.check().is_err(), "{index}");
        }
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        let record = forked();
        let text = serde_json::to_string(&record).expect("written");
        assert_eq!(serde_json::from_str::<Record>(&text).expect("read"), record);
        let more = text.replacen('{', "{\"more\":1,", 1);
        assert!(serde_json::from_str::<Record>(&more).is_err());
    }
}
