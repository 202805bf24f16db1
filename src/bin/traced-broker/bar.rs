//! Progress, on standard error and only where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often the picture moves by itself.
const TICK: Duration = Duration::from_millis(120);

/// A bar where the end is known, and something that turns where it is not. It is gone once dropped.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// With how long it will take, where it goes on until the end.
    pub(crate) fn new(end: Option<u64>) -> Self {
        match end {
            Some(end) => Self::drawn(ProgressBar::new(end), "{wide_bar} {human_pos} of {human_len}, {eta} left{msg}"),
            None => Self::drawn(ProgressBar::new_spinner(), "{spinner} {human_pos} in {elapsed}{msg}"),
        }
    }

    /// Of what may be over before it comes to its end.
    pub(crate) fn up_to(most: u64) -> Self {
        Self::drawn(ProgressBar::new(most), "{wide_bar} {human_pos} of {human_len}{msg}")
    }

    fn drawn(bar: ProgressBar, template: &str) -> Self {
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// How far it is, and what else there is to say.
    pub(crate) fn set(&self, position: u64, words: &str) {
        self.0.set_position(position);
        let message = if words.is_empty() { String::new() } else { format!("; {words}") };
        self.0.set_message(message);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
