//! The trace to check: given by its id, or the trace of a request that the command sends.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use traced_broker::verify::TraceId;
use traced_broker::w3c::TraceParent;

use crate::args::Verify;
use crate::client::{self, shown};
use crate::error::CliError;
use crate::input;

/// Maximum duration of the request.
const ANSWER: Duration = Duration::from_secs(30);

/// The source of the trace id.
pub(super) enum TraceSource {
    Given(TraceId),
    Request(Box<Request>),
}

/// A request to send. Not `Debug`, because it holds secrets.
pub(super) struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
}

/// The id of the trace to check.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestedTrace {
    pub(super) trace: TraceId,
    /// The sampling decision, if the service reports it.
    pub(super) sampled: Option<bool>,
}

impl TraceSource {
    pub(super) fn new(options: &Verify) -> Result<Self, CliError> {
        if let Some(text) = &options.trace_id {
            let id = text.parse().map_err(|error| CliError::with_source("--trace-id", &error))?;
            return nonzero(id)
                .map(Self::Given)
                .ok_or_else(|| CliError::new("--trace-id: all zeros is not a valid trace id"));
        }
        let text = options.request.as_deref().unwrap_or_default().trim();
        let (method, url) = text.split_once(char::is_whitespace).ok_or_else(|| {
            CliError::new("--request must be a method and a URL, as in 'POST http://localhost:8080/orders'")
        })?;
        let method = method.parse().map_err(|_| CliError::new("--request must begin with a method such as POST"))?;
        let url = client::url("--request", url.trim_start())?;
        let mut headers = client::headers("--header", &options.header)?;
        let body = options.data.as_deref().map(input::data).transpose()?;
        if body.is_some() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(Self::Request(Box::new(Request { method, url, headers, body })))
    }

    /// Sends the request, if there is one.
    pub(super) async fn send(self) -> Result<RequestedTrace, CliError> {
        let Request { method, url, headers, body } = match self {
            Self::Given(trace) => return Ok(RequestedTrace { trace, sampled: None }),
            Self::Request(request) => *request,
        };
        let name = format!("{method} {}", shown(&url));
        let request = client::client()?.request(method, url).headers(headers).timeout(ANSWER);
        let sent = request.body(body.unwrap_or_default()).send().await;
        let response = sent.map_err(|error| CliError::new(format!("{name}: {}", client::failure(error))))?;
        let named = read_trace(response.headers()).map_err(|error| CliError::new(format!("{name}: {error}")));
        if response.status().is_success() {
            return named;
        }
        let hint = named.map(|requested| format!(": its trace is {}", requested.trace)).unwrap_or_default();
        Err(CliError::new(format!("{name} was answered with {}{hint}", response.status())))
    }
}

/// Reads the trace id from the headers of a response.
fn read_trace(headers: &HeaderMap) -> Result<RequestedTrace, String> {
    let context = ["traceresponse", "traceparent"].into_iter().find_map(|name| Some((name, headers.get(name)?)));
    let parsed = context.map(|(name, value)| (name, TraceParent::parse(value.as_bytes()).ok()));
    let decoded = parsed.and_then(|(_, parent)| parent).and_then(|parent| {
        let trace = parent.trace_id().to_string().parse().ok()?;
        Some(RequestedTrace { trace, sampled: Some(parent.is_sampled()) })
    });
    if let Some(value) = headers.get("x-trace-id") {
        let id = value.to_str().ok().and_then(|text| text.trim().parse().ok()).and_then(nonzero);
        let trace = id.ok_or("the x-trace-id of the response is not a trace id (32 hex digits, not all zero)")?;
        return Ok(RequestedTrace {
            trace,
            sampled: decoded.filter(|decoded| decoded.trace == trace).and_then(|decoded| decoded.sampled),
        });
    }
    decoded.ok_or_else(|| match parsed {
        Some((name, _)) => format!("the {name} of the response is malformed"),
        None => "the response names no trace: it has neither x-trace-id nor traceresponse nor traceparent; \
                 configure the service to return its trace id, or give --trace-id"
            .to_owned(),
    })
}

fn nonzero(id: TraceId) -> Option<TraceId> {
    Some(id).filter(|id| !id.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "5b8efff798038103d269b633813fc60c";

    fn named(headers: &[(&'static str, &'static str)]) -> Result<(String, Option<bool>), String> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        read_trace(&headers).map(|requested| (requested.trace.to_string(), requested.sampled))
    }

    #[test]
    fn a_response_names_its_trace_in_one_of_three_headers() {
        let response = "00-5b8efff798038103d269b633813fc60c-00f067aa0ba902b1-00";
        let other = "00-9b8efff798038103d269b633813fc60c-00f067aa0ba902b1-01";
        assert_eq!(named(&[("x-trace-id", ID)]), Ok((ID.to_owned(), None)));
        assert_eq!(named(&[("x-trace-id", ID), ("traceresponse", response)]), Ok((ID.to_owned(), Some(false))));
        assert_eq!(named(&[("x-trace-id", ID), ("traceresponse", other)]), Ok((ID.to_owned(), None)));
        assert_eq!(named(&[("traceparent", other), ("traceresponse", response)]), Ok((ID.to_owned(), Some(false))));
        assert_eq!(named(&[("traceparent", other)]), Ok((format!("9{}", &ID[1..]), Some(true))));
    }

    #[test]
    fn a_response_without_a_trace_is_an_error() {
        for value in ["", "7", "00000000000000000000000000000000"] {
            assert!(named(&[("x-trace-id", value)]).unwrap_err().contains("not a trace id"), "{value}");
        }
        assert!(named(&[("traceresponse", "00-7-7-01")]).unwrap_err().contains("malformed"));
        assert!(named(&[]).unwrap_err().contains("names no trace"));
    }
}
