//! `net.ipv4.ip_forward`: on while there are links, and off again when it was off before. That it was
//! off is written down first, so that it is put back even after the helper was killed.
//!
//! A host that forwards does so between all its interfaces. Where it did not before, a table drops
//! what is for no link (`casemate_plan::firewall::guard`).

use std::fs;
use std::path::{Path, PathBuf};

use casemate_netns::error::{KeeperError, While};
use casemate_netns::nft;
use casemate_plan::firewall::{TABLE, guard, removal};

const SETTING: &str = "/proc/sys/net/ipv4/ip_forward";

/// The setting, and what is known of it.
#[derive(Debug)]
pub(crate) struct Forwarding {
    nft: PathBuf,
    /// Is there when it was off.
    record: PathBuf,
}

impl Forwarding {
    /// Of the helper whose folder this is.
    pub(crate) fn new(nft: &Path, state: &Path) -> Self {
        Self { nft: nft.into(), record: state.join("forwarding-was-off") }
    }

    /// Switches it on, if it is off.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub(crate) fn on(&self) -> Result<(), KeeperError> {
        let found = fs::read_to_string(SETTING).while_(format!("read {SETTING}"))?;
        if found.trim() != "0" {
            return Ok(());
        }
        fs::write(&self.record, "").while_("write down that nothing was forwarded")?;
        self.close()?;
        fs::write(SETTING, "1").while_(format!("write {SETTING}"))
    }

    /// Makes the table that drops what is for no link, where nothing was forwarded before: again, if
    /// somebody has removed it.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub(crate) fn close(&self) -> Result<(), KeeperError> {
        if self.record.exists() { nft::load(&self.nft, &guard()) } else { Ok(()) }
    }

    /// Switches it off, if it was; true when it was.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub(crate) fn restore(&self) -> Result<bool, KeeperError> {
        if !self.record.exists() {
            return Ok(false);
        }
        fs::write(SETTING, "0").while_(format!("write {SETTING}"))?;
        nft::load(&self.nft, &removal(TABLE))?;
        fs::remove_file(&self.record).while_("forget that nothing was forwarded")?;
        Ok(true)
    }
}
