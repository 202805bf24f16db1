//! Panics of this process, wherever they are caught.

use std::panic;

use parking_lot::Mutex;

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Remembers each panic, and prints it as before.
pub(crate) fn watch() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        SEEN.lock().push(panic.to_string());
        print(panic);
    }));
}

/// Returns the panics since the last call. With several cases at a time, a panic may be counted for
/// another one that ends first.
pub(crate) fn take() -> Vec<String> {
    std::mem::take(&mut *SEEN.lock())
}
