//! The volumes of one start: taken, made where they are not there, their keys opened.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;

use casemate_config::{Compartment, CompartmentName, DiskFormat, KeySource, Volume};
use casemate_host::clock;
use casemate_plan::{Layer, VolumeParts};
use casemate_volume::{
    LockedVolume, Retention, Secret, SnapshotName, Unlock, VolumeError, VolumeKey, Volumes,
};
use serde::{Deserialize, Serialize};

use crate::prepare::{PrepareError, World};
use crate::secrets::{IDENTITY, SECRETS};

/// Passphrases that the user typed, by volume. Read from the standard input of a supervisor that
/// somebody starts, as one line of JSON.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Passphrases(BTreeMap<String, String>);

impl Passphrases {
    /// Remembers what was typed for a volume.
    pub fn set(&mut self, volume: &str, passphrase: String) {
        self.0.insert(volume.into(), passphrase);
    }

    /// What was typed for a volume.
    pub(crate) fn of(&self, volume: &str) -> Option<Secret> {
        self.0.get(volume).map(|text| Secret::copied(text.as_bytes()))
    }

    /// Forgets all of them.
    pub fn wipe(&mut self) {
        for (_, passphrase) in std::mem::take(&mut self.0) {
            // Overwritten when it is dropped.
            drop(Secret::new(passphrase.into_bytes()));
        }
    }
}

impl std::fmt::Debug for Passphrases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A passphrase that somebody has to type before the compartment can start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PassphraseNeeded {
    /// For this volume, or [`IDENTITY`], or [`SECRETS`].
    pub volume: String,
    /// The volume is new: the passphrase is chosen now.
    pub new: bool,
    /// The last one was wrong.
    pub wrong: bool,
}

impl PassphraseNeeded {
    /// What it opens, for a person.
    pub fn what(&self) -> String {
        match self.volume.as_str() {
            IDENTITY => "the age identity".into(),
            SECRETS => "the secrets".into(),
            volume => format!("the volume `{volume}`"),
        }
    }
}

/// A volume of a start, taken until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenVolume {
    pub(crate) locked: LockedVolume,
    pub(crate) key: VolumeKey,
}

impl World {
    /// The volumes of the user, or of the system.
    ///
    /// # Errors
    /// There is no place for them.
    pub fn volumes(&self) -> Result<Volumes, PrepareError> {
        let data = self.places.data()?;
        casemate_host::places::make_directory(data)?;
        Ok(Volumes::at(data))
    }

    /// The file with the age identity that opens keys encrypted with age.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn identity(&self) -> Result<std::path::PathBuf, PrepareError> {
        Ok(self.places.configuration()?.join("identity.txt"))
    }

    /// Takes the volumes of a compartment and opens their keys. What is not there is made.
    pub(crate) fn open_volumes(
        &self,
        compartment: &Compartment,
        passphrases: &Passphrases,
    ) -> Result<Vec<OpenVolume>, PrepareError> {
        if compartment.volumes.is_empty() {
            return Ok(Vec::new());
        }
        let volumes = self.volumes()?;
        let identity = self.identity()?;
        if let (true, Some(folder)) = (self.places.is_system(), identity.parent()) {
            // Everybody reads the system's configuration there. Whoever cannot make it is told by
            // what is to be written there.
            let _ = DirBuilder::new().recursive(true).mode(0o755).create(folder);
        }
        let open = |volume: &Volume| {
            let secret = passphrases.of(volume.name.as_str());
            let unlock = Unlock { passphrase: secret.as_ref(), identity: &identity };
            open(&volumes, &compartment.name, volume, &unlock)
        };
        compartment.volumes.iter().map(open).collect()
    }

    /// The files volumes have, or would have, for a plan that is only printed.
    pub(crate) fn volumes_to_be(
        &self,
        compartment: &Compartment,
    ) -> Result<Vec<VolumeParts>, PrepareError> {
        let folder = self.places.data()?.join("volumes").join(compartment.name.as_str());
        let parts = |volume: &Volume| VolumeParts {
            name: volume.name.clone(),
            layers: vec![Layer {
                path: folder.join(volume.name.as_str()).join("data.raw"),
                format: DiskFormat::Raw,
            }],
            size: volume.size.bytes(),
            blank: false,
            sector_size: 4096,
        };
        Ok(compartment.volumes.iter().map(parts).collect())
    }
}

impl OpenVolume {
    /// What the plan has to know.
    pub(crate) fn parts(&self) -> Result<VolumeParts, PrepareError> {
        let layers = self.locked.layers()?;
        let layer =
            |file: casemate_volume::LayerFile| Layer { path: file.path, format: file.format };
        Ok(VolumeParts {
            name: self.locked.id().volume.clone(),
            layers: layers.into_iter().map(layer).collect(),
            size: self.locked.size(),
            blank: self.locked.is_blank(),
            sector_size: self.key.sector_size(),
        })
    }
}

fn open(
    volumes: &Volumes,
    compartment: &CompartmentName,
    volume: &Volume,
    unlock: &Unlock<'_>,
) -> Result<OpenVolume, PrepareError> {
    let asks = |new, wrong| {
        let volume = volume.name.to_string();
        PrepareError::Passphrase(PassphraseNeeded { volume, new, wrong })
    };
    // Of the volume, or of the age identity that opens its key.
    let or_ask = |error: VolumeError| match error {
        error if error.needs_passphrase() => asks(false, false),
        error if error.is_wrong_passphrase() => asks(false, true),
        error => error.into(),
    };
    let locked = match volumes.lock(compartment, &volume.name) {
        Err(VolumeError::NotThere(_)) => {
            if volume.key == KeySource::Passphrase && unlock.passphrase.is_none() {
                return Err(asks(true, false));
            }
            volumes.create(compartment, volume, unlock).map_err(or_ask)?;
            volumes.lock(compartment, &volume.name)?
        }
        other => other?,
    };
    let key = locked.open_key(&volume.key, unlock).map_err(or_ask)?;
    Ok(OpenVolume { locked, key })
}

/// Takes a snapshot of volumes that nobody writes to any more, and deletes those taken so earlier
/// that the rule does not keep. What cannot be done is logged: the compartment has ended well.
pub(crate) fn keep_state(volumes: Vec<OpenVolume>, rule: &str) {
    let name = clock::stamp(clock::now_ns() / 1_000_000_000);
    let (Ok(name), Ok(rule)) = (name.parse::<SnapshotName>(), rule.parse::<Retention>()) else {
        return tracing::error!("could not take snapshots: {name:?} or {rule:?} cannot be used");
    };
    let mut locked: Vec<LockedVolume> = volumes.into_iter().map(|volume| volume.locked).collect();
    let mut all: Vec<&mut LockedVolume> = locked.iter_mut().collect();
    if let Err(error) = casemate_volume::take_together(&mut all, &name, true) {
        return tracing::warn!("could not take a snapshot: {}", crate::chain(&error));
    }
    for volume in all {
        let id = volume.id().clone();
        match volume.expire(&rule) {
            Ok(gone) => tracing::info!("took snapshot {name} of {id}; {} deleted", gone.len()),
            Err(error) => tracing::warn!("could not delete old snapshots of {id}: {error}"),
        }
    }
}
