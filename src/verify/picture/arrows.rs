//! Links, as dashed arrows from a span to the linked span.

use super::canvas::{Canvas, number};
use super::scene::Scene;
use crate::verify::span::Span;

/// Draws every link of a drawn span to another one, except a link to its parent, which the tree
/// already shows.
pub(super) fn draw(scene: &Scene<'_, '_>, canvas: &mut Canvas) {
    let mut sources: Vec<(&Span, f64)> = scene.spans.values().copied().collect();
    sources.sort_by(|(_, one), (_, other)| one.total_cmp(other));
    for (span, y) in sources {
        for link in span.links.iter().filter(|link| Some(link.target) != span.parent_reference()) {
            if let Some((target, target_y)) = scene.spans.get(&link.target) {
                arrow(scene, canvas, (span, y), (target, *target_y));
            }
        }
    }
}

/// Draws an arrow from the start of one bar, leftwards and around, to the end of the other.
fn arrow(scene: &Scene<'_, '_>, canvas: &mut Canvas, (from, from_y): (&Span, f64), (to, to_y): (&Span, f64)) {
    let start = scene.axis.x(from.start) - 1.0;
    let end = scene.axis.x(to.end.max(to.start)) + 4.0;
    // The arrow arrives from below or above, at the corner of the bar, so the time beside the bar
    // stays legible.
    let side = if from_y > to_y { 1.0 } else { -1.0 };
    let (end, end_y) = ((end - 6.0).max(scene.axis.left() + 2.0), to_y + side * 9.0);
    let bend = (from_y - to_y).abs() * 0.45;
    let out = (start - 26.0).max(scene.names_end + 4.0).min(end.max(start - 26.0));
    let [start, from_y, out, end, end_y, control] = [start, from_y, out, end, end_y, end_y + side * bend].map(number);
    canvas.path(
        "link",
        &format!("M{start} {from_y}C{out} {from_y} {end} {control} {end} {end_y}"),
        " marker-end=\"url(#to)\"",
    );
}
