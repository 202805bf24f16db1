//! Stopping at a signal.

use std::future::{Future, pending};
use std::process;

use traced_broker::shutdown_signal;

/// The exit code that a shell reports for a program ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Completes at Ctrl-C or SIGTERM, so that the command can finish. A second signal ends the program
/// at once.
pub(crate) async fn stop_signal() {
    if shutdown_signal().await.is_err() {
        // Signals cannot be handled, so they have their default effect and end the program.
        return pending().await;
    }
    tokio::spawn(async {
        if shutdown_signal().await.is_ok() {
            process::exit(INTERRUPTED);
        }
    });
}

/// Completes at a signal, or when `other` does.
pub(crate) async fn stop_signal_or(other: impl Future<Output = ()>) {
    tokio::select! {
        () = stop_signal() => {}
        () = other => {}
    }
}
