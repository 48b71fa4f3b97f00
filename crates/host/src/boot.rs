//! Which boot of the machine this is, for what is remembered until the next one.

/// The random id of this boot (random(4)); none where `/proc` does not tell.
pub fn id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}
