//! From a stopped compartment to the first byte of output, and from `stop` to nothing.

use anyhow::{Result, ensure};
use serde_json::json;

use super::samples::Samples;
use super::table::Figure;
use super::{Bed, bare, casemate, now};

/// Takes turns: casemate, bare QEMU, casemate, ….
pub(super) fn starts_and_stops(bed: &mut Bed, count: usize) -> Result<()> {
    now(&format!("{count} starts and stops beside bare QEMU"));
    let mut ours = [Samples::default(), Samples::default()];
    let mut bares = [Samples::default(), Samples::default()];
    let mut stops = [Samples::default(), Samples::default()];
    // The first start of each reads files that no cache has yet.
    for turn in 0..=count {
        let (mut client, wall, processor) =
            casemate::first_byte(&mut bed.casemate.run(&["echo", "ready"]))?;
        ensure!(client.wait()?.success(), "`casemate run` failed");
        let stop = bed.casemate.stop()?;
        let (mut child, bare_wall, bare_processor) = casemate::first_byte(&mut bed.bare.command())?;
        bare::end(&mut child);
        if turn == 0 {
            continue;
        }
        for (pair, times) in [
            (&mut ours, [wall, processor]),
            (&mut bares, [bare_wall, bare_processor]),
            (&mut stops, [stop.monitor, stop.rest]),
        ] {
            pair.iter_mut().zip(times).for_each(|(samples, time)| samples.push(time));
        }
    }
    let names = ["stopped to first byte, wall", "stopped to first byte, processor"];
    for ((name, ours), bare) in names.into_iter().zip(&ours).zip(&bares) {
        let ratio = ours.median() / bare.median();
        bed.figures.push(Figure::new(
            name,
            format!("{:.0} ms ({ratio:.2} x)", ours.median()),
            format!("{:.0} ms bare QEMU", bare.median()),
            "<= 1.25 x",
            ratio <= 1.25,
        ));
        let samples = json!({ "casemate-ms": ours.all(), "bare-ms": bare.all() });
        bed.raw.insert(name.into(), samples);
    }
    let [monitor, rest] = stops;
    bed.figures.push(Figure::new(
        "stop, rest gone after the VMM",
        format!("{:.1} ms", rest.median()),
        format!("{:.0} ms until the VMM's end", monitor.median()),
        "<= 300 ms",
        rest.median() <= 300.0,
    ));
    let samples = json!({ "until-vmm-ended-ms": monitor.all(), "then-ms": rest.all() });
    bed.raw.insert("stop".into(), samples);
    Ok(())
}
