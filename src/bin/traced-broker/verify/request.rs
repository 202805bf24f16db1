//! The trace to check: given, or that of a request which is sent for the purpose.

use std::fs;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use traced_broker::verify::TraceId;
use traced_broker::w3c::TraceParent;

use crate::args::Verify;
use crate::client::{self, shown};
use crate::trouble::Trouble;

/// How long the service may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// What names the trace.
pub(super) enum Subject {
    Given(TraceId),
    Request(Box<Request>),
}

/// A request to be sent. It holds secrets, so it cannot be printed.
pub(super) struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
}

/// A trace to look for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) trace: TraceId,
    /// Whether the service records it, when it says so.
    pub(super) sampled: Option<bool>,
}

impl Subject {
    pub(super) fn of(options: &Verify) -> Result<Self, Trouble> {
        if let Some(text) = &options.trace_id {
            let id = text.parse().map_err(|error| Trouble::because("--trace-id", &error))?;
            return nonzero(id).map(Self::Given).ok_or_else(|| Trouble::new("--trace-id: all zeros is no trace"));
        }
        let text = options.request.as_deref().unwrap_or_default().trim();
        let (method, url) = text.split_once(char::is_whitespace).ok_or_else(|| {
            Trouble::new("--request is a method and a URL, as in 'POST http://localhost:8080/orders'")
        })?;
        let method = method.parse().map_err(|_| Trouble::new("--request begins with a method, as POST"))?;
        let url = client::url("--request", url.trim_start())?;
        let mut headers = client::headers("--header", &options.header)?;
        let body = options.data.as_deref().map(body).transpose()?;
        if body.is_some() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(Self::Request(Box::new(Request { method, url, headers, body })))
    }

    /// Sends the request, if there is one.
    pub(super) async fn send(self) -> Result<Asked, Trouble> {
        let Request { method, url, headers, body } = match self {
            Self::Given(trace) => return Ok(Asked { trace, sampled: None }),
            Self::Request(request) => *request,
        };
        let name = format!("{method} {}", shown(&url));
        let request = client::client()?.request(method, url).headers(headers).timeout(ANSWER);
        let sent = request.body(body.unwrap_or_default()).send().await;
        let response = sent.map_err(|error| Trouble::new(format!("{name}: {}", client::failure(error))))?;
        let named = asked(response.headers()).map_err(|what| Trouble::new(format!("{name}: {what}")));
        if response.status().is_success() {
            return named;
        }
        let hint = named.map(|asked| format!(": its trace is {}", asked.trace)).unwrap_or_default();
        Err(Trouble::new(format!("{name} was answered with {}{hint}", response.status())))
    }
}

/// The trace that an answer names.
fn asked(headers: &HeaderMap) -> Result<Asked, String> {
    let context = ["traceresponse", "traceparent"].into_iter().find_map(|name| Some((name, headers.get(name)?)));
    let parsed = context.map(|(name, value)| (name, TraceParent::parse(value.as_bytes()).ok()));
    let said = parsed.and_then(|(_, parent)| parent).and_then(|parent| {
        let trace = parent.trace_id().to_string().parse().ok()?;
        Some(Asked { trace, sampled: Some(parent.is_sampled()) })
    });
    if let Some(value) = headers.get("x-trace-id") {
        let id = value.to_str().ok().and_then(|text| text.trim().parse().ok()).and_then(nonzero);
        let trace = id.ok_or("the x-trace-id of the answer is not a trace id (32 hex digits, not all zero)")?;
        return Ok(Asked { trace, sampled: said.filter(|said| said.trace == trace).and_then(|said| said.sampled) });
    }
    said.ok_or_else(|| match parsed {
        Some((name, _)) => format!("the {name} of the answer is malformed"),
        None => "the answer names no trace: it has neither x-trace-id nor traceresponse nor traceparent; \
                 let the service send its trace id, or give --trace-id"
            .to_owned(),
    })
}

fn nonzero(id: TraceId) -> Option<TraceId> {
    Some(id).filter(|id| !id.is_zero())
}

fn body(data: &str) -> Result<Vec<u8>, Trouble> {
    match data.strip_prefix('@') {
        None => Ok(data.as_bytes().to_vec()),
        Some(path) => {
            fs::read(path).map_err(|error| Trouble::because(format_args!("--data: cannot read {path}"), &error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "5b8efff798038103d269b633813fc60c";

    fn named(headers: &[(&'static str, &'static str)]) -> Result<(String, Option<bool>), String> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        asked(&headers).map(|asked| (asked.trace.to_string(), asked.sampled))
    }

    #[test]
    fn an_answer_names_its_trace_in_one_of_three_ways() {
        let response = "00-5b8efff798038103d269b633813fc60c-00f067aa0ba902b1-00";
        let other = "00-9b8efff798038103d269b633813fc60c-00f067aa0ba902b1-01";
        assert_eq!(named(&[("x-trace-id", ID)]), Ok((ID.to_owned(), None)));
        assert_eq!(named(&[("x-trace-id", ID), ("traceresponse", response)]), Ok((ID.to_owned(), Some(false))));
        assert_eq!(named(&[("x-trace-id", ID), ("traceresponse", other)]), Ok((ID.to_owned(), None)));
        assert_eq!(named(&[("traceparent", other), ("traceresponse", response)]), Ok((ID.to_owned(), Some(false))));
        assert_eq!(named(&[("traceparent", other)]), Ok((format!("9{}", &ID[1..]), Some(true))));
    }

    #[test]
    fn an_answer_that_names_none_is_trouble() {
        for value in ["", "7", "00000000000000000000000000000000"] {
            assert!(named(&[("x-trace-id", value)]).unwrap_err().contains("not a trace id"), "{value}");
        }
        assert!(named(&[("traceresponse", "00-7-7-01")]).unwrap_err().contains("malformed"));
        assert!(named(&[]).unwrap_err().contains("names no trace"));
    }
}
