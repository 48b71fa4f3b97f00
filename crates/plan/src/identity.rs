//! Which subordinate user and group each confined process runs as.
//!
//! Two ids for each compartment, taken from the end of the caller's range so that they do not
//! meet the ids that image builds map from its beginning.

use casemate_config::Ipv4Cidr;
use casemate_config::ipnet::Ipv4Net;

use crate::facts::{Caller, HostFacts};
use crate::jail::{IdMapMethod, Identity};
use crate::process::Role;
use crate::refusal::Refusal;

/// Subordinate ids a caller needs: what adduser(8) and useradd(8) give to every new user.
const NEEDED: u32 = 65536;

/// Root's range where `/etc/subuid` gives it none: the block that systemd's table of ids
/// (UIDS-GIDS) leaves unused, from 0x70000000.
const ROOT_RANGE: (u32, u32) = (0x7000_0000, NEEDED);

/// First slot of fresh disposables; declared compartments have those below.
pub const FRESH_SLOTS: u32 = 16384;

/// Ids that VMMs and link processes use at most, from the end: two for each slot up to that of the
/// last fresh disposable, which are numbered up to 9999.
const PAIRS: u32 = 2 * (FRESH_SLOTS + 10_000);

/// Declared compartments with a network of their own: those whose id is at most 5535. What is left
/// of the range beyond them is for fresh disposables.
const NETWORKED: u32 = NEEDED - PAIRS - 10_000;

/// Users of switches: what [`FRESH_SLOTS`] leaves unused, as fresh disposables are numbered from 1000.
const SWITCHES: u32 = 1000;

/// The number of a network's switch: that of its /24 in 10.88.0.0/16; for others, which are beyond
/// them, any that depends on the network. Two of these may be one user, who sees neither process.
pub fn switch_number(network: Ipv4Net) -> u16 {
    let place = u32::from(network.network()) >> 8;
    match Ipv4Cidr::pool().net().contains(&network) && network.prefix_len() == 24 {
        true => (place & 0xff) as u16,
        false => (256 + place % (SWITCHES - 256)) as u16,
    }
}

/// The identity of `role` in the compartment with this `slot`.
///
/// A slot is `(id - 1) / 2` for a declared compartment, [`FRESH_SLOTS`] + its number for a fresh
/// disposable.
pub fn identity(facts: &HostFacts, slot: u32, role: Role) -> Result<Identity, Refusal> {
    let caller = &facts.caller;
    let map = if caller.uid == 0 { IdMapMethod::Direct } else { IdMapMethod::Newidmap };
    if map == IdMapMethod::Newidmap && !facts.newidmap {
        return Err(Refusal::HostNotReady {
            what: "`newuidmap` is not installed, so a VM cannot run as a user of its own".into(),
            hint: "install the package `uidmap`".into(),
        });
    }
    let offset = match role {
        Role::Vmm => 0,
        Role::Link => 1,
        // It works on the files of somebody: see `of_folder`.
        Role::Share(_) => return Ok(of_folder(caller, (caller.uid, caller.gid))),
        Role::Network | Role::Switch(_) => 0,
        // As the link: all three take a guest's bytes apart and hold nothing else, and none sees a
        // process, file or socket of another.
        Role::Windows | Role::Waypipe => 1,
    };
    let from_end = match (role, slot.checked_sub(FRESH_SLOTS)) {
        (Role::Switch(number), _) => 1 + PAIRS + NETWORKED + u32::from(number),
        (Role::Network, None) if slot >= NETWORKED => {
            let largest = 2 * NETWORKED - 1;
            return Err(Refusal::HostNotReady {
                what: format!("no user is left for the network of id {}", 2 * slot + 1),
                hint: format!("give the compartment an `id` of at most {largest}"),
            });
        }
        (Role::Network, None) => 1 + PAIRS + slot,
        (Role::Network, Some(fresh)) => 1 + PAIRS + NETWORKED + fresh,
        _ => 1 + 2 * slot + offset,
    };
    let pick = |range: Option<(u32, u32)>, file: &str| -> Result<u32, Refusal> {
        let (start, count) = range
            .or((caller.uid == 0).then_some(ROOT_RANGE))
            .filter(|&(_, count)| count >= NEEDED)
            .ok_or_else(|| no_range(caller, file))?;
        count
            .checked_sub(from_end)
            .map(|offset| start + offset)
            .ok_or_else(|| no_range(caller, file))
    };
    Ok(Identity {
        uid: pick(caller.subordinate_uids, "/etc/subuid")?,
        gid: pick(caller.subordinate_gids, "/etc/subgid")?,
        map,
        keep_groups: false,
    })
}

/// Who serves a folder with this owner and group: the caller, so that what the guest makes is his.
/// Root can be anybody, and is the owner, who may do less.
pub(crate) fn of_folder(caller: &Caller, (uid, gid): (u32, u32)) -> Identity {
    if caller.uid == 0 {
        return Identity { uid, gid, map: IdMapMethod::Direct, keep_groups: false };
    }
    let Caller { uid, gid, .. } = *caller;
    Identity { uid, gid, map: IdMapMethod::Caller, keep_groups: true }
}

fn no_range(caller: &Caller, file: &str) -> Refusal {
    Refusal::HostNotReady {
        what: format!(
            "user `{}` has no range of {NEEDED} subordinate ids in {file}, \
             so a VM cannot run as a user of its own",
            caller.name
        ),
        hint: format!(
            "run: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {} \
             (choose a range that nobody else in {file} has)",
            caller.name
        ),
    }
}
