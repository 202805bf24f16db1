//! Tempo or Jaeger, asked for one trace.

use std::time::Duration;

use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use traced_broker::verify::answer::{self, AnswerError, MAX_ANSWER};
use traced_broker::verify::{TraceId, Traces};

use crate::args::Verify;
use crate::client::{self, shown};
use crate::trouble::{Trouble, chain};

/// The longest that one answer may take: 64 MiB through a slow line.
const ANSWER: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tempo,
    Jaeger,
}

/// Where traces are kept.
#[derive(Debug)]
pub(super) struct Backend {
    kind: Kind,
    base: Url,
    client: Client,
    headers: HeaderMap,
}

/// What one path answers.
enum Reply {
    Traces(Traces),
    Missing,
    /// Something that this path of this backend never answers.
    Foreign(String),
}

impl Backend {
    pub(super) fn of(options: &Verify) -> Result<Self, Trouble> {
        let (kind, base) = match (&options.tempo, &options.jaeger) {
            (Some(text), _) => (Kind::Tempo, client::url("--tempo", text)?),
            (None, text) => (Kind::Jaeger, client::url("--jaeger", text.as_deref().unwrap_or_default())?),
        };
        let mut headers = client::headers("--backend-header", &options.backend_header)?;
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        Ok(Self { kind, base, client: client::client()?, headers })
    }

    /// The trace; `None` when the backend has none of this id. The newer interface is asked first: it is exact where
    /// Jaeger's older one is not. Not every backend has both.
    pub(super) async fn ask(&self, trace: TraceId) -> Result<Option<Traces>, Trouble> {
        let mut foreign = Vec::new();
        for path in self.kind.paths() {
            let response = self.get(&format!("{path}/{trace}")).await?;
            match self.reply(response).await? {
                Reply::Traces(traces) if traces.get(trace).is_some() => return Ok(Some(traces)),
                Reply::Traces(_) | Reply::Missing => {}
                Reply::Foreign(what) => foreign.push(what),
            }
        }
        if foreign.len() < self.kind.paths().len() {
            return Ok(None);
        }
        let what = foreign.swap_remove(0);
        Err(Trouble::new(format!("{self}: {what}: is this the address that {} is queried at?", self.kind.name())))
    }

    /// Whether the backend answers as one of its kind does. Without a trace that is all there is to tell it by.
    pub(super) async fn is_recognized(&self) -> bool {
        match self.get(self.kind.greeting()).await {
            Ok(response) => response.status().is_success(),
            Err(_) => false,
        }
    }

    /// What Jaeger's older interface answers to a search; `None` when it does not, or the backend is another.
    pub(super) async fn search(&self, path: &str, query: &[(&str, &str)]) -> Option<Vec<u8>> {
        let response = match self.kind {
            Kind::Tempo => return None,
            Kind::Jaeger => self.get_with(path, query).await.ok()?,
        };
        let body = client::body(response.error_for_status().ok()?, MAX_ANSWER).await;
        body.ok().flatten()
    }

    async fn get(&self, path: &str) -> Result<Response, Trouble> {
        self.get_with(path, &[]).await
    }

    async fn get_with(&self, path: &str, query: &[(&str, &str)]) -> Result<Response, Trouble> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.client.get(url).headers(self.headers.clone()).timeout(ANSWER);
        let sent = request.send().await;
        sent.map_err(|error| Trouble::passing(format!("{self} does not answer: {}", client::failure(error))))
    }

    async fn reply(&self, response: Response) -> Result<Reply, Trouble> {
        let status = response.status();
        match status {
            StatusCode::NOT_FOUND => return Ok(Reply::Missing),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(Trouble::new(format!(
                    "{self} wants other credentials ({status}): give them with --backend-header"
                )));
            }
            _ if status.is_redirection() => {
                return Err(Trouble::new(format!("{self} redirects ({status}): give the URL it leads to")));
            }
            _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(Trouble::passing(format!("{self} answers {status}")));
            }
            _ if !status.is_success() => return Err(Trouble::new(format!("{self} answers {status}"))),
            _ => {}
        }
        let body = client::body(response, MAX_ANSWER).await;
        let body = body
            .map_err(|error| Trouble::passing(format!("{self}: the answer broke off: {}", client::failure(error))))?;
        let read = body.map_or(Err(AnswerError::TooLong(MAX_ANSWER)), |body| self.kind.read(&body));
        self.understood(read)
    }

    fn understood(&self, read: Result<Traces, AnswerError>) -> Result<Reply, Trouble> {
        let error = match read {
            Ok(traces) => return Ok(Reply::Traces(traces)),
            Err(error) => error,
        };
        match error {
            AnswerError::Refused { code: 404, .. } => Ok(Reply::Missing),
            AnswerError::Malformed(_) | AnswerError::Foreign => Ok(Reply::Foreign(chain(&error))),
            AnswerError::Truncated | AnswerError::Refused { .. } => Err(Trouble::passing(format!("{self}: {error}"))),
            _ => Err(Trouble::new(format!("{self}: {error}"))),
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

    /// A path that answers whatever traces there are.
    const fn greeting(self) -> &'static str {
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
