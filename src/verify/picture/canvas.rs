//! SVG elements as text, with names that cannot break out of them.

use std::fmt::Write as _;

use crate::verify::markup::escaped;
use crate::verify::text::{columns, fit, printable};

/// The width of a column of text, in pixels: that of a digit or wide letter, so text comes out
/// short rather than long.
const COLUMN: f64 = 7.3;
/// The same for small text.
const SMALL_COLUMN: f64 = 6.4;

/// The size of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Font {
    /// 13 pixels.
    Normal,
    /// 11.5 pixels.
    Small,
}

impl Font {
    const fn column(self) -> f64 {
        match self {
            Self::Normal => COLUMN,
            Self::Small => SMALL_COLUMN,
        }
    }

    /// Returns the maximum width of text, in pixels.
    pub(super) fn width(self, text: &str) -> f64 {
        columns(&printable(text, false, '�')) as f64 * self.column()
    }

    /// Cuts `text` to `width` pixels.
    pub(super) fn fit(self, text: &str, width: f64) -> String {
        fit(&printable(text, false, '�'), (width / self.column()).max(0.0) as usize, '…')
    }

    /// Returns the number of columns in `width` pixels.
    pub(super) fn columns(self, width: f64) -> usize {
        (width / self.column()).max(1.0) as usize
    }
}

/// The elements drawn so far.
#[derive(Debug, Default)]
pub(super) struct Canvas(String);

impl Canvas {
    /// Adds markup that needs no escaping.
    pub(super) fn raw(&mut self, markup: &str) {
        self.0.push_str(markup);
        self.0.push('\n');
    }

    /// Adds text, cut to `room` pixels. `anchor` is `start`, `end` or `middle`.
    pub(super) fn text(&mut self, (x, y): (f64, f64), class: &str, anchor: &str, text: &str, room: f64, font: Font) {
        let (x, y, text) = (number(x), number(y), escaped(&font.fit(text, room)));
        let anchor = if anchor == "start" { String::new() } else { format!(" text-anchor=\"{anchor}\"") };
        self.raw(&format!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\"{anchor}>{text}</text>"));
    }

    /// Adds a rectangle with rounded corners.
    pub(super) fn bar(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), class: &str) {
        let radius = number((width / 2.0).min(3.0));
        let (x, y, width, height) = (number(x), number(y), number(width), number(height));
        self.raw(&format!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"{radius}\"/>"
        ));
    }

    /// Adds a path with these steps.
    pub(super) fn path(&mut self, class: &str, steps: &str, more: &str) {
        self.raw(&format!("<path class=\"{class}\" d=\"{steps}\"{more}/>"));
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// Formats a coordinate, with one decimal if it needs one.
pub(super) fn number(value: f64) -> String {
    let mut text = String::new();
    let rounded = (value * 10.0).round() / 10.0;
    // Writing to a string does not fail. Adding zero turns minus zero into zero.
    let _ = write!(text, "{}", rounded + 0.0);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_plain() {
        assert_eq!([1.0, 0.04, -0.04, 12.345, -7.25].map(number), ["1", "0", "0", "12.3", "-7.3"]);
    }
}
