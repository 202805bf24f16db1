//! Being told to stop.

use std::process;

use traced_broker::shutdown_signal;

/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Ends at Ctrl-C or SIGTERM, after which there is time to finish. A second one ends the program at once.
pub(crate) async fn told_to_stop() {
    if shutdown_signal().await.is_err() {
        // Nobody can tell us. The program ends as it would without us, when it is killed.
        return std::future::pending().await;
    }
    tokio::spawn(async {
        if shutdown_signal().await.is_ok() {
            process::exit(INTERRUPTED);
        }
    });
}
