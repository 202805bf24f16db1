//! Queries of Tempo and Jaeger.

use std::time::Duration;

use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use traced_broker::verify::answer::{self, AnswerError, MAX_ANSWER};
use traced_broker::verify::{TraceId, Traces};

use crate::args::Verify;
use crate::client::{self, shown};
use crate::error::{CliError, chain};

/// Maximum duration of one query, enough for 64 MiB over a slow connection.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tempo,
    Jaeger,
}

/// A trace backend.
#[derive(Debug)]
pub(super) struct Backend {
    kind: Kind,
    base: Url,
    client: Client,
    headers: HeaderMap,
}

/// The response of one path.
enum Reply {
    Traces(Traces),
    Missing,
    /// A response that this path of the backend never gives.
    Unrecognized(String),
}

impl Backend {
    pub(super) fn new(options: &Verify) -> Result<Self, CliError> {
        let (kind, base) = match (&options.tempo, &options.jaeger) {
            (Some(text), _) => (Kind::Tempo, client::url("--tempo", text)?),
            (None, text) => (Kind::Jaeger, client::url("--jaeger", text.as_deref().unwrap_or_default())?),
        };
        let mut headers = client::headers("--backend-header", &options.backend_header)?;
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        Ok(Self { kind, base, client: client::client()?, headers })
    }

    /// Returns the trace; `None` if the backend does not have it.
    ///
    /// Tries the newer interface first, because it is more exact than Jaeger's older one. Not every
    /// backend has both.
    pub(super) async fn get_trace(&self, trace: TraceId) -> Result<Option<Traces>, CliError> {
        let mut unrecognized = Vec::new();
        for path in self.kind.paths() {
            let response = self.get(&format!("{path}/{trace}")).await?;
            match self.reply(response).await? {
                Reply::Traces(traces) if traces.get(trace).is_some() => return Ok(Some(traces)),
                Reply::Traces(_) | Reply::Missing => {}
                Reply::Unrecognized(what) => unrecognized.push(what),
            }
        }
        if unrecognized.len() < self.kind.paths().len() {
            return Ok(None);
        }
        let what = unrecognized.swap_remove(0);
        Err(CliError::new(format!("{self}: {what}: is this the query address of {}?", self.kind.name())))
    }

    /// Returns `true` if the server responds like a backend of this kind, even without a trace.
    pub(super) async fn is_recognized(&self) -> bool {
        match self.get(self.kind.probe_path()).await {
            Ok(response) => response.status().is_success(),
            Err(_) => false,
        }
    }

    /// Searches Jaeger through its older interface; returns `None` for another backend, or on an
    /// error.
    pub(super) async fn search(&self, path: &str, query: &[(&str, &str)]) -> Option<Vec<u8>> {
        let response = match self.kind {
            Kind::Tempo => return None,
            Kind::Jaeger => self.get_with(path, query).await.ok()?,
        };
        let body = client::body(response.error_for_status().ok()?, MAX_ANSWER).await;
        body.ok().flatten()
    }

    async fn get(&self, path: &str) -> Result<Response, CliError> {
        self.get_with(path, &[]).await
    }

    async fn get_with(&self, path: &str, query: &[(&str, &str)]) -> Result<Response, CliError> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.client.get(url).headers(self.headers.clone()).timeout(QUERY_TIMEOUT);
        let sent = request.send().await;
        sent.map_err(|error| CliError::temporary(format!("{self} does not respond: {}", client::failure(error))))
    }

    async fn reply(&self, response: Response) -> Result<Reply, CliError> {
        let status = response.status();
        match status {
            StatusCode::NOT_FOUND => return Ok(Reply::Missing),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(CliError::new(format!(
                    "{self} refuses the credentials ({status}): give others with --backend-header"
                )));
            }
            _ if status.is_redirection() => {
                return Err(CliError::new(format!("{self} redirects ({status}): give the URL that it redirects to")));
            }
            _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(CliError::temporary(format!("{self} responds with {status}")));
            }
            _ if !status.is_success() => return Err(CliError::new(format!("{self} responds with {status}"))),
            _ => {}
        }
        let body = client::body(response, MAX_ANSWER).await;
        let body = body.map_err(|error| {
            CliError::temporary(format!("{self}: the response was cut off: {}", client::failure(error)))
        })?;
        let read = body.map_or(Err(AnswerError::TooLong(MAX_ANSWER)), |body| self.kind.read(&body));
        self.interpret(read)
    }

    fn interpret(&self, read: Result<Traces, AnswerError>) -> Result<Reply, CliError> {
        let error = match read {
            Ok(traces) => return Ok(Reply::Traces(traces)),
            Err(error) => error,
        };
        match error {
            AnswerError::Refused { code: 404, .. } => Ok(Reply::Missing),
            AnswerError::Malformed(_) | AnswerError::Foreign => Ok(Reply::Unrecognized(chain(&error))),
            AnswerError::Truncated | AnswerError::Refused { .. } => {
                Err(CliError::temporary(format!("{self}: {error}")))
            }
            _ => Err(CliError::new(format!("{self}: {error}"))),
        }
    }
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Tempo => "Tempo",
            Self::Jaeger => "Jaeger",
        }
    }

    const fn paths(self) -> [&'static str; 2] {
        match self {
            Self::Tempo => ["api/v2/traces", "api/traces"],
            Self::Jaeger => ["api/v3/traces", "api/traces"],
        }
    }

    /// Returns a path that responds even without traces.
    const fn probe_path(self) -> &'static str {
        match self {
            Self::Tempo => "api/echo",
            Self::Jaeger => "api/services",
        }
    }

    fn read(self, json: &[u8]) -> Result<Traces, AnswerError> {
        match self {
            Self::Tempo => answer::tempo(json),
            Self::Jaeger => answer::jaeger(json),
        }
    }
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.kind.name(), shown(&self.base))
    }
}
