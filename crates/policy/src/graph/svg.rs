//! The graph as a drawing: places on a circle, a curve for each way, questions dashed. What a curve
//! is for is shown when the pointer rests on it.

use std::f64::consts::TAU;
use std::fmt::Write;

use super::{Graph, Node, Verdict, dot};

/// Height of a box, and half its least width, in pixels.
const HEIGHT: f64 = 28.0;
const HALF_WIDTH: f64 = 40.0;
/// Width of a letter of the font.
const LETTER: f64 = 7.5;
/// Space around, for the boxes at the sides.
const MARGIN: f64 = 60.0;
/// How far apart places stand on the circle, at least.
const APART: f64 = 90.0;

const STYLE: &str = "text{font:12px monospace;text-anchor:middle;dominant-baseline:central}\
    rect{fill:#fff;stroke:#333}\
    path{fill:none;stroke:#2a6;stroke-width:1.5}\
    path.ask{stroke:#c70;stroke-dasharray:5 4}\
    path:hover{stroke-width:4}";

impl Graph {
    /// An SVG document of its own, without scripts and without anything to load.
    pub fn svg(&self) -> String {
        let nodes: Vec<&Node> = self.nodes().into_iter().collect();
        let names: Vec<String> = nodes.iter().map(|node| node.to_string()).collect();
        let half: Vec<f64> = names.iter().map(|name| half_width(name)).collect();
        let widest = half.iter().copied().fold(HALF_WIDTH, f64::max);
        let radius = (nodes.len() as f64 * APART / TAU).max(120.0);
        let (middle_x, middle_y) = (radius + widest + MARGIN, radius + HEIGHT + MARGIN);
        let at = |index: usize| {
            let angle = TAU * index as f64 / nodes.len().max(1) as f64;
            (middle_x + radius * angle.sin(), middle_y - radius * angle.cos())
        };
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{:.0}\">\n\
             <style>{STYLE}</style>\n<defs>{}{}</defs>\n",
            2.0 * middle_x,
            2.0 * middle_y,
            arrow("allow", "#2a6"),
            arrow("ask", "#c70"),
        );
        for ((source, target, verdict), services) in self.bundles() {
            let place = |node: &Node| nodes.binary_search(&node).unwrap_or(0);
            let (from, to) = (place(source), place(target));
            let verdict_name = verdict.name();
            // Ways there and back, and those of both kinds, take different curves.
            let bend = if verdict == Verdict::Allow { 0.35 } else { 0.6 };
            let path = match from == to {
                true => round_trip(at(from), (middle_x, middle_y)),
                false => curve(at(from), at(to), (middle_x, middle_y), bend, half[to]),
            };
            let title = format!("{source} → {target}: {verdict_name} {}", dot::label(&services));
            let _ = writeln!(
                out,
                "<path class=\"{verdict_name}\" marker-end=\"url(#{verdict_name})\" d=\"{path}\">\
                 <title>{}</title></path>",
                escaped(&title)
            );
        }
        for (index, name) in names.iter().enumerate() {
            let (x, y) = at(index);
            let rounded = if matches!(nodes[index], Node::DisposableOf(_)) { 14 } else { 3 };
            let _ = writeln!(
                out,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{HEIGHT}\" rx=\"{rounded}\"/>\
                 <text x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
                x - half[index],
                y - HEIGHT / 2.0,
                2.0 * half[index],
                escaped(name)
            );
        }
        out.push_str("</svg>\n");
        out
    }
}

fn half_width(name: &str) -> f64 {
    (name.chars().count() as f64 * LETTER / 2.0 + 10.0).max(HALF_WIDTH)
}

fn arrow(name: &str, colour: &str) -> String {
    format!(
        "<marker id=\"{name}\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" \
         markerHeight=\"8\" markerUnits=\"userSpaceOnUse\" orient=\"auto\">\
         <path d=\"M0 0L8 4L0 8z\" style=\"fill:{colour};stroke:none\"/></marker>"
    )
}

/// A curve bent towards the middle, ending where it meets the box of its target.
fn curve(
    from: (f64, f64),
    to: (f64, f64),
    middle: (f64, f64),
    bend: f64,
    half_width: f64,
) -> String {
    let (half_x, half_y) = ((from.0 + to.0) / 2.0, (from.1 + to.1) / 2.0);
    // Aside of the straight line, to the right of who goes along it.
    let aside = ((to.1 - from.1) * 0.08, (from.0 - to.0) * 0.08);
    let control = (
        half_x + (middle.0 - half_x) * bend + aside.0,
        half_y + (middle.1 - half_y) * bend + aside.1,
    );
    let (dx, dy) = (control.0 - to.0, control.1 - to.1);
    let scale = (half_width / dx.abs().max(0.001)).min(HEIGHT / 2.0 / dy.abs().max(0.001)).min(1.0);
    let end = (to.0 + dx * scale, to.1 + dy * scale);
    format!(
        "M{:.1} {:.1}Q{:.1} {:.1} {:.1} {:.1}",
        from.0, from.1, control.0, control.1, end.0, end.1
    )
}

/// A way that ends where it began, outside of the circle.
fn round_trip(at: (f64, f64), middle: (f64, f64)) -> String {
    let (dx, dy) = (at.0 - middle.0, at.1 - middle.1);
    let length = dx.hypot(dy).max(0.001);
    let (x, y) = (dx / length * 55.0, dy / length * 55.0);
    format!(
        "M{:.1} {:.1}C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}",
        at.0 - 12.0,
        at.1,
        at.0 + x - 30.0,
        at.1 + y,
        at.0 + x + 30.0,
        at.1 + y,
        at.0 + 12.0,
        at.1
    )
}

/// Text as it may stand in an element; what XML has no place for becomes a sign.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            letter if letter.is_control() => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn labels_cannot_leave_their_element() {
        assert_eq!(
            escaped("<a href=\"x\">&\u{1b}[0m"),
            "&lt;a href=&quot;x&quot;&gt;&amp;\u{fffd}[0m"
        );
    }
}
