//! The frequency of the time stamp counter, which a guest without a PIT cannot measure on a busy
//! host. Measured once per boot and kept in the cache directory.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{boot, durable};

/// What is kept.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Measured {
    boot: String,
    khz: u32,
}

/// The frequency in kHz; none where there is no counter that ticks evenly.
pub fn khz(cache: Option<&Path>) -> Option<u32> {
    let boot = boot::id();
    let file = cache.map(|directory| directory.join("tsc.json"));
    if let (Some(file), Some(boot)) = (&file, &boot)
        && let Ok(Some(kept)) = durable::load::<Measured>(file)
        && kept.boot == *boot
    {
        return Some(kept.khz);
    }
    let khz = measure()?;
    if let (Some(file), Some(boot)) = (file, boot)
        && let Err(error) = durable::store(&file, &Measured { boot, khz })
    {
        tracing::debug!("the measured frequency is not kept: {error}");
    }
    Some(khz)
}

/// Counts for 20 ms. Both ends are read between two looks at the clock, several times, and the
/// closest pair of looks counts: exact to a few parts in a million even on a busy host.
#[cfg(target_arch = "x86_64")]
fn measure() -> Option<u32> {
    use std::time::{Duration, Instant};

    let cpu = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    if !crate::kvm::cpu_flags(&cpu).any(|flag| flag == "constant_tsc") {
        return None;
    }
    let look = || {
        let looks = (0..16).map(|_| {
            let before = Instant::now();
            // SAFETY: every x86_64 processor has the counter, and Linux lets programs read it.
            let count = unsafe { std::arch::x86_64::_rdtsc() };
            let apart = before.elapsed();
            (apart, before + apart / 2, count)
        });
        looks.min_by_key(|(apart, ..)| *apart).map(|(_, when, count)| (when, count))
    };
    let (start, from) = look()?;
    std::thread::sleep(Duration::from_millis(20));
    let (end, to) = look()?;
    let elapsed = end.duration_since(start).as_nanos().max(1);
    let khz = u128::from(to.checked_sub(from)?) * 1_000_000 / elapsed;
    u32::try_from(khz).ok().filter(|&khz| khz > 0)
}

#[cfg(not(target_arch = "x86_64"))]
fn measure() -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequency_is_measured_once() {
        let cache = tempfile::tempdir().expect("a directory");
        let Some(first) = khz(Some(cache.path())) else {
            println!("skipped: no even time stamp counter here");
            return;
        };
        assert!((500_000..10_000_000).contains(&first), "{first} kHz");
        assert_eq!(khz(Some(cache.path())), Some(first));
    }
}
