//! What the agent will be told.

use std::collections::BTreeMap;
use std::path::PathBuf;

use casemate_config::{Compartment, FileContent, GuestInit, Share};
use casemate_wire::{
    Boot, Init, Key, RootDisk, ShareMount, User, VolumeMount, WriteFile, WriteSecret,
};

use crate::{ImageParts, Instance, VolumeParts, hardening};

/// Serial number of the root disk.
pub(crate) const ROOT_SERIAL: &str = "root";

/// The agent's orders for this compartment, but for clock and seed.
pub(crate) fn boot(
    compartment: &Compartment,
    instance: &Instance,
    machine_id: &str,
    image: Option<&ImageParts>,
    parts: &[VolumeParts],
    file_sources: &BTreeMap<PathBuf, Vec<u8>>,
    allocator: &[u8],
) -> Boot {
    let guest = &compartment.guest;
    let keys: Vec<String> = guest.authorized_keys.iter().map(|key| key.as_str().into()).collect();
    let mut users: Vec<User> = guest
        .users
        .iter()
        .map(|user| User {
            name: user.name.as_str().into(),
            uid: Some(user.uid),
            groups: user.groups.iter().map(|group| group.as_str().into()).collect(),
            shell: user
                .shell
                .as_ref()
                .map_or("/bin/bash".into(), |shell| shell.as_path().display().to_string()),
            authorized_keys: keys.clone(),
        })
        .collect();
    let default_user: String = guest.user.as_str().into();
    if default_user != "root" && users.iter().all(|user| user.name != default_user) {
        users.push(User {
            name: default_user.clone(),
            uid: None,
            groups: vec![],
            shell: "/bin/bash".into(),
            authorized_keys: keys,
        });
    }
    let own_files = guest.files.iter().filter_map(|(path, file)| {
        let content = match &file.content {
            FileContent::Text(text) => text.clone().into_bytes(),
            FileContent::Source(source) => file_sources.get(source)?.clone(),
        };
        Some(WriteFile {
            path: path.as_path().display().to_string(),
            content,
            mode: file.mode.bits(),
            owner: file.owner.as_str().into(),
        })
    });
    Boot {
        hostname: if instance.fresh {
            instance.name.clone()
        } else {
            guest.hostname.as_str().into()
        },
        machine_id: machine_id.into(),
        clock: 0,
        seed: vec![],
        root: root(compartment, image),
        volumes: volumes(compartment, parts),
        overlay_size: guest.overlay_size.map_or(0, |size| size.bytes()),
        units: guest.services.iter().map(|unit| unit.as_str().into()).collect(),
        init: match guest.init {
            GuestInit::Agent => Init::Agent,
            GuestInit::Systemd => Init::Systemd,
        },
        console_user: Some(default_user.clone()),
        users,
        default_user,
        files: hardening::files(guest, allocator).into_iter().chain(own_files).collect(),
        sysctls: hardening::sysctls(guest),
        timezone: guest.timezone.as_ref().map(|zone| zone.as_str().into()),
        environment: guest
            .env
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
            .collect(),
        secrets: if instance.fresh { vec![] } else { secrets(compartment) },
        restrictions: hardening::restrictions(guest),
        shares: compartment.shares.iter().map(share).collect(),
        network: None,
        ports: vec![],
    }
}

/// The secrets to write; what they are is filled in at the time. A fresh disposable, in which
/// anything may be opened, is told none.
fn secrets(compartment: &Compartment) -> Vec<WriteSecret> {
    let secrets = compartment.secrets.iter().map(|(name, secret)| WriteSecret {
        name: name.as_str().into(),
        content: Key::new(&[]),
        mode: secret.mode.bits(),
        owner: secret.owner.as_str().into(),
    });
    secrets.collect()
}

fn share(share: &Share) -> ShareMount {
    ShareMount {
        tag: share.tag.as_str().into(),
        mount_point: share.mount_point.to_string(),
        read_only: share.read_only,
    }
}

/// The guest's user who is to see the files of shares as his own: the default user. One without a
/// number gets the first that is free, which is 1000 unless the image has users of its own.
pub(crate) fn default_uid(compartment: &Compartment) -> u32 {
    const FIRST: u32 = 1000;
    let guest = &compartment.guest;
    let name = guest.user.as_str();
    if name == "root" {
        return 0;
    }
    guest.users.iter().find(|user| user.name.as_str() == name).map_or(FIRST, |user| user.uid)
}

/// The image's root file system, verified and below an overlay; or the user's own disk, whose file
/// system the agent finds out.
fn root(compartment: &Compartment, image: Option<&ImageParts>) -> RootDisk {
    let serial = ROOT_SERIAL.to_owned();
    if compartment.root_disk.is_some() {
        return RootDisk {
            serial,
            filesystem: RootDisk::ANY.into(),
            overlay: compartment.root_disk_readonly,
            verity: None,
        };
    }
    RootDisk {
        serial,
        filesystem: image.map_or("erofs".into(), |image| image.filesystem.clone()),
        overlay: true,
        verity: image.and_then(|image| image.verity.clone()),
    }
}

/// Serial number of a volume's disk, by its place in the configuration.
pub(crate) fn volume_serial(index: usize) -> String {
    format!("volume{index}")
}

/// The volumes to mount; their keys are filled in at the time.
fn volumes(compartment: &Compartment, parts: &[VolumeParts]) -> Vec<VolumeMount> {
    let mount = |(index, parts): (usize, &VolumeParts)| {
        let volume = compartment.volumes.iter().find(|volume| volume.name == parts.name)?;
        Some(VolumeMount {
            name: parts.name.as_str().into(),
            serial: volume_serial(index),
            mount_point: volume.mount_point.to_string(),
            filesystem: volume.filesystem.to_string(),
            blank: parts.blank,
            sector_size: parts.sector_size,
            key: Key::new(&[]),
        })
    };
    parts.iter().enumerate().filter_map(mount).collect()
}
