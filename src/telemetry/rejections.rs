//! The kinds of rejected headers that were seen.

use parking_lot::Mutex;

/// The kinds of rejections that a subscription has seen: a header and a reason each. There are a
/// few dozen of them.
#[derive(Debug, Default)]
pub(crate) struct Rejections(Mutex<Vec<(&'static str, &'static str)>>);

impl Rejections {
    /// Returns `true` for the first rejection of its kind.
    pub(crate) fn is_new(&self, header: &'static str, reason: &'static str) -> bool {
        let mut seen = self.0.lock();
        let is_new = !seen.contains(&(header, reason));
        if is_new {
            seen.push((header, reason));
        }
        is_new
    }
}
