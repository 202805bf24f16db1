//! Progress on standard error, shown only if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Interval between redraws.
const TICK: Duration = Duration::from_millis(120);

/// A progress bar, or a spinner if the end is unknown. Dropping it clears the line.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// Creates a bar with the estimated time left, or a spinner without an end.
    pub(crate) fn new(end: Option<u64>) -> Self {
        match end {
            Some(end) => Self::drawn(ProgressBar::new(end), "{wide_bar} {human_pos} of {human_len}, {eta} left{msg}"),
            None => Self::drawn(ProgressBar::new_spinner(), "{spinner} {human_pos} in {elapsed}{msg}"),
        }
    }

    /// Creates a bar without an estimate, for work that may end before `max`.
    pub(crate) fn up_to(max: u64) -> Self {
        Self::drawn(ProgressBar::new(max), "{wide_bar} {human_pos} of {human_len}{msg}")
    }

    /// Creates a spinner that shows only a message.
    pub(crate) fn message(text: &'static str) -> Self {
        let bar = Self::drawn(ProgressBar::new_spinner(), "{spinner} {msg}");
        bar.0.set_message(text);
        bar
    }

    fn drawn(bar: ProgressBar, template: &str) -> Self {
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Sets the position and the details behind it.
    pub(crate) fn set(&self, position: u64, details: &str) {
        self.0.set_position(position);
        let message = if details.is_empty() { String::new() } else { format!("; {details}") };
        self.0.set_message(message);
    }

    /// Replaces the message of a [`Bar::message`].
    pub(crate) fn set_message(&self, text: String) {
        self.0.set_message(text);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
