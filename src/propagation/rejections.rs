//! Which kinds of refused headers were seen.

use parking_lot::Mutex;

/// The kinds that a subscription has met: a header and a reason. There are a few dozen of them.
#[derive(Debug, Default)]
pub(crate) struct Rejections(Mutex<Vec<(&'static str, &'static str)>>);

impl Rejections {
    /// Whether it is the first of its kind.
    pub(crate) fn is_new(&self, header: &'static str, reason: &'static str) -> bool {
        let mut seen = self.0.lock();
        let is_new = !seen.contains(&(header, reason));
        if is_new {
            seen.push((header, reason));
        }
        is_new
    }
}
