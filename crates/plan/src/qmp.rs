//! What a running QEMU is told so that its volumes go over to new layers: commands of QMP, as data.
//!
//! The file of a new layer reaches QEMU as a descriptor beside the first command, as QEMU may open
//! none. See QEMU's `docs/interop/live-block-operations.rst` and its QMP reference.

use serde_json::{Value, json};

/// A new layer for the disk of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLayer {
    /// Node the disk writes to now.
    pub below: String,
    /// Name of the new node.
    pub node: String,
    /// Number of a set of descriptors that nobody else uses.
    pub set: u32,
}

impl NewLayer {
    /// Makes the layer known. The file's descriptor comes with the first command. Its header names
    /// no backing file, and until [`switch`] it has none.
    pub fn add(&self) -> [Value; 3] {
        let file = format!("{}-file", self.node);
        [
            json!({ "execute": "add-fd", "arguments": { "fdset-id": self.set } }),
            json!({ "execute": "blockdev-add", "arguments": {
                "driver": "file",
                "node-name": file,
                "filename": format!("/dev/fdset/{}", self.set),
                "read-only": false,
                "locking": "on",
                "discard": "unmap",
            }}),
            json!({ "execute": "blockdev-add", "arguments": {
                "driver": "qcow2",
                "node-name": self.node,
                "file": file,
                "read-only": false,
                "discard": "unmap",
                "backing": null,
            }}),
        ]
    }

    /// Forgets a layer to which nothing went over.
    pub fn remove(&self) -> [Value; 3] {
        let delete =
            |node: &str| json!({ "execute": "blockdev-del", "arguments": { "node-name": node } });
        [
            delete(&self.node),
            delete(&format!("{}-file", self.node)),
            json!({ "execute": "remove-fd", "arguments": { "fdset-id": self.set } }),
        ]
    }
}

/// Lets all disks write to their new layers from one moment on, or none of them when that fails.
pub fn switch(layers: &[NewLayer]) -> Value {
    let actions: Vec<Value> = layers
        .iter()
        .map(|layer| {
            json!({ "type": "blockdev-snapshot",
                    "data": { "node": layer.below, "overlay": layer.node } })
        })
        .collect();
    json!({ "execute": "transaction", "arguments": { "actions": actions } })
}

/// Name under which QEMU keeps the descriptor that a memory is written to.
const MEMORY: &str = "memory";

/// Bytes a second a memory is written with at most: as fast as its reader takes it. QEMU's own limit
/// is 128 MiB.
const MEMORY_BANDWIDTH: u64 = 1 << 40;

/// Makes ready for the guest's memory to be written: the descriptor comes with the first command.
/// With `events`, QEMU tells how the writing goes.
pub fn prepare_memory() -> [Value; 3] {
    [
        json!({ "execute": "getfd", "arguments": { "fdname": MEMORY } }),
        json!({ "execute": "migrate-set-capabilities", "arguments": {
            "capabilities": [{ "capability": "events", "state": true }],
        }}),
        json!({ "execute": "migrate-set-parameters", "arguments": {
            "max-bandwidth": MEMORY_BANDWIDTH,
        }}),
    ]
}

/// Stops executing guest code and writes the memory. How that ends is told by an event.
pub fn write_memory() -> [Value; 2] {
    [
        json!({ "execute": "stop" }),
        json!({ "execute": "migrate", "arguments": { "uri": format!("fd:{MEMORY}") } }),
    ]
}

/// Gives up writing, and closes the descriptor if it was not begun; each may be refused.
pub fn forget_memory() -> [Value; 2] {
    [
        json!({ "execute": "migrate_cancel" }),
        json!({ "execute": "closefd", "arguments": { "fdname": MEMORY } }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_disks_go_over_in_one_command() {
        let layer = |number: u32| NewLayer {
            below: format!("volume{number}"),
            node: format!("volume{number}-1"),
            set: 1000 + number,
        };
        let text = switch(&[layer(0), layer(1)]).to_string();
        assert_eq!(text.matches("blockdev-snapshot").count(), 2, "{text}");
        let added = layer(1).add();
        assert_eq!(added[1]["arguments"]["filename"], "/dev/fdset/1001");
        assert_eq!(added[2]["arguments"]["backing"], Value::Null);
        assert_eq!(prepare_memory()[0]["arguments"]["fdname"], "memory");
        assert_eq!(write_memory()[1]["arguments"]["uri"], "fd:memory");
        assert_eq!(layer(1).remove()[1]["arguments"]["node-name"], "volume1-1-file");
    }
}
