//! One trace of the page.

use std::fmt::Write as _;
use std::time::Duration;

use super::data::Details;
use super::row;
use crate::verify::latency::HumanDuration;
use crate::verify::layout::{self, Axis, Layout};
use crate::verify::text::counted;

/// Number of rows that the browser skips together while they are out of sight, which keeps long
/// traces fast.
const CHUNK: usize = 100;

/// A trace beside its own axis.
#[derive(Debug)]
pub(super) struct Section<'l, 'a> {
    pub(super) layout: &'l Layout<'a>,
    pub(super) laid: &'l layout::Section<'a>,
    pub(super) axis: Axis,
}

impl Section<'_, '_> {
    /// Adds the trace to the document, and the details of its rows.
    pub(super) fn write(&self, html: &mut String, details: &mut Details, is_first: bool) {
        let id = self.laid.trace.id();
        let length = self.axis.length();
        let _ = writeln!(html, "<section id=\"t-{id}\" data-length=\"{length}\">");
        if !is_first {
            let duration = HumanDuration(self.laid.trace.duration());
            let _ = writeln!(html, "<h2>linked trace <code>{id}</code> <small>{duration}</small></h2>");
        }
        html.push_str("<div class=\"ruler\" aria-hidden=\"true\"><span></span><div class=\"ticks\"></div></div>\n");
        html.push_str("<div class=\"tree\" role=\"treegrid\" aria-label=\"Spans\">\n");
        for rows in self.laid.rows.chunks(CHUNK) {
            let _ = writeln!(html, "<div class=\"chunk\" role=\"rowgroup\" style=\"--rows:{}\">", rows.len());
            for row in rows {
                row::write(self, html, row, details.rows());
                details.push(&self.details(row));
            }
            html.push_str("</div>\n");
        }
        html.push_str("</div>\n");
        if self.laid.left_out > 0 {
            let _ = writeln!(html, "<p class=\"more\">{} not shown</p>", counted(self.laid.left_out, "more span"));
        }
        html.push_str("</section>\n");
    }

    pub(super) fn since_start(&self, time: u64) -> HumanDuration {
        HumanDuration(Duration::from_nanos(time.saturating_sub(self.axis.start())))
    }
}
