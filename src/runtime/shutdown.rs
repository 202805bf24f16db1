//! The signal that asks a program to stop.

use std::io;

/// Waits until the program is asked to stop: by Ctrl-C, or on Unix by SIGTERM, which service
/// managers send.
///
/// ```no_run
/// # async fn run(broker: traced_broker::Broker) -> Result<(), Box<dyn std::error::Error>> {
/// # use traced_broker::{HandlerError, Received, Subscription, TracedBrokerExt};
/// # async fn ship(_: Received) -> Result<(), HandlerError> { Ok(()) }
/// let workers = Subscription::new("orders").group("fulfillment-workers");
/// let report = broker.consume(workers, ship).run_until(traced_broker::shutdown_signal()).await?;
/// println!("{report}");
/// # Ok(()) }
/// ```
///
/// # Errors
/// An error if the operating system does not let this program listen for signals.
pub async fn shutdown_signal() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupt = tokio::signal::ctrl_c() => interrupt,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
