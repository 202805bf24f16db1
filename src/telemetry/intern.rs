//! Names that live as long as the process, so that a span or a metric copies a pointer instead of
//! text.
//!
//! The names are those of topics, groups and servers: few, and constant for the life of a program.
//! Names beyond [`MAX_BYTES`] are not kept; they are copied each time.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use parking_lot::RwLock;

/// Maximum number of bytes of names that are kept; room for ten thousand topics.
const MAX_BYTES: usize = 1 << 20;

static NAMES: LazyLock<RwLock<Names>> = LazyLock::new(RwLock::default);

#[derive(Default)]
struct Names {
    kept: HashSet<&'static str>,
    bytes: usize,
}

/// Returns the text, kept for the life of the process if there is room.
pub(crate) fn intern(text: &str) -> Cow<'static, str> {
    if let Some(kept) = NAMES.read().kept.get(text) {
        return Cow::Borrowed(kept);
    }
    let mut names = NAMES.write();
    if let Some(kept) = names.kept.get(text) {
        return Cow::Borrowed(kept);
    }
    if names.bytes + text.len() > MAX_BYTES {
        return Cow::Owned(text.to_owned());
    }
    let kept: &'static str = Box::leak(text.into());
    names.bytes += text.len();
    names.kept.insert(kept);
    Cow::Borrowed(kept)
}
