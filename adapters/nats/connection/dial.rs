//! Creates clients: one to publish and acknowledge, and one for each subscription.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerError};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::driver::TlsConnector;
use crate::error::{Error, ErrorKind, Result};

use super::super::config::{Config, Credentials};
use super::super::error;
use super::background::Background;
use super::credentials;

/// Maximum pause between two attempts to reach a server, before jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Time without a sign of life after which the client sends a ping. After two unanswered pings the
/// connection counts as lost.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Number of refusals that are kept between two looks.
const MOST_FRESH: usize = 64;

/// The source of clients.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    origin: Origin,
    background: Arc<Background>,
}

#[derive(Debug, Clone)]
enum Origin {
    /// Each client is a new connection with these options.
    New(Arc<Config>),
    /// Each client is this one, given by the user.
    Given(Client),
}

/// The bounds of a client's two queues.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queues {
    /// Maximum number of messages that wait to be written. Further ones are refused.
    pub(crate) outgoing: usize,
    /// Maximum number of unread messages of a subscription. The client drops further ones.
    pub(crate) incoming: usize,
}

/// Events that a client reports besides answers.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    dropped: AtomicU64,
    /// The reason why there is no connection, as far as it is known.
    trouble: Mutex<Option<String>>,
    /// The refusals since the last look for requests that they end.
    fresh: Mutex<Vec<String>>,
}

impl Dial {
    /// Makes a new connection with these options for each client, on a thread for all of them.
    pub(crate) fn new(config: Arc<Config>) -> Result<Self> {
        Ok(Self { origin: Origin::New(config), background: Arc::new(Background::start()?) })
    }

    /// Uses a client of the user's, which runs on the user's runtime.
    pub(crate) fn given(client: Client) -> Result<Self> {
        Ok(Self { origin: Origin::Given(client), background: Arc::new(Background::start()?) })
    }

    pub(crate) fn background(&self) -> &Arc<Background> {
        &self.background
    }

    /// Returns `true` if one client serves all purposes.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.origin, Origin::Given(_))
    }

    /// Returns a connected client, within the time-out for connecting.
    pub(crate) async fn client(&self, queues: Queues, notices: &Arc<Notices>) -> Result<Client> {
        match &self.origin {
            Origin::Given(client) => Ok(client.clone()),
            Origin::New(config) => {
                let connecting = connect(Arc::clone(config), queues, Arc::clone(notices));
                self.background.run(connecting).await
            }
        }
    }
}

async fn connect(config: Arc<Config>, queues: Queues, notices: Arc<Notices>) -> Result<Client> {
    let options = options(&config, queues, notices).await?;
    match timeout(config.connect_timeout, options.connect(config.addresses())).await {
        Ok(connected) => connected.map_err(|error| error::connect(error, &config.shown_hosts())),
        Err(_) => {
            let message = "no server answered in time: check that it runs, and host and port in the URL";
            Err(Error::new(ErrorKind::Unavailable, message)
                .with_context("server", config.shown_hosts())
                .with_context("connect_timeout_ms", config.connect_timeout.as_millis()))
        }
    }
}

async fn options(config: &Config, queues: Queues, notices: Arc<Notices>) -> Result<ConnectOptions> {
    let options = match &config.credentials {
        Credentials::None => ConnectOptions::new(),
        Credentials::File(file) => credentials::of_file(file).await?,
        Credentials::User(user, password) => credentials::of_user(user, password).await?,
        Credentials::Token(token) => credentials::of_token(token).await?,
        Credentials::Nkey(seed) => ConnectOptions::new().nkey(seed.expose().to_owned()),
    };
    let mut options = options
        .name("traced-broker")
        .connection_timeout(config.patience_with_one())
        .request_timeout(Some(config.confirm_timeout))
        .ping_interval(PING_INTERVAL)
        .reconnect_delay_callback(pause)
        .client_capacity(queues.outgoing)
        .subscription_capacity(queues.incoming)
        .require_tls(config.requires_tls())
        .event_callback(move |event| {
            notices.take(event);
            std::future::ready(())
        });
    if let Some(tls) = &config.encryption.tls {
        options = options.tls_client_config(TlsConnector::new(tls)?.config());
    }
    if let Some(prefix) = &config.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    Ok(options)
}

/// Returns the pause before an attempt to reach the server: none before the first, then growing.
pub(crate) fn pause(attempt: usize) -> Duration {
    if attempt <= 1 {
        return Duration::ZERO;
    }
    let doublings = u32::try_from(attempt).unwrap_or(u32::MAX).min(16);
    let pause = Duration::from_millis(10).saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    // Jitter of half to one and a half times, so that clients that lost the same server do not all
    // return at once. The only randomness in the standard library is the seed of its hash maps.
    pause.mul_f64(0.5 + (RandomState::new().hash_one(attempt) % 1000) as f64 / 1000.0)
}

impl Notices {
    fn take(&self, event: Event) {
        match event {
            Event::SlowConsumer(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            // The server names the forbidden subject, but not the message.
            Event::ServerError(ServerError::Other(text)) if text.starts_with("Permissions Violation") => {
                let mut fresh = self.fresh.lock();
                if fresh.len() < MOST_FRESH {
                    fresh.push(text);
                }
            }
            Event::ServerError(error) => *self.trouble.lock() = Some(error.to_string()),
            Event::ClientError(error) => *self.trouble.lock() = Some(error.to_string()),
            Event::Connected => *self.trouble.lock() = None,
            _ => {}
        }
    }

    /// Returns the number of messages that the client has dropped since the last call because they
    /// were not read in time.
    pub(crate) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// Takes the refusals for lack of permission since the last call.
    pub(crate) fn take_fresh(&self) -> Vec<String> {
        std::mem::take(&mut *self.fresh.lock())
    }

    /// Returns the error while the connection is down: the message was not sent.
    pub(crate) fn disconnected(&self) -> Error {
        let error = error::disconnected();
        match self.trouble.lock().as_ref() {
            Some(reason) => error.with_context("reason", reason),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        assert_eq!(pause(1), Duration::ZERO);
        assert!(pause(2) <= Duration::from_millis(60));
        for attempt in [10, 100, usize::MAX] {
            assert!(pause(attempt) >= LONGEST_PAUSE / 2 && pause(attempt) <= LONGEST_PAUSE * 3 / 2);
        }
        let pauses: std::collections::HashSet<_> = (0..20).map(|_| pause(50)).collect();
        assert!(pauses.len() > 1);
    }
}
