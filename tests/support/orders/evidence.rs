//! The file of spans, read without the library's reader and checked without its rules.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use serde_json::Value;

/// The accepted orders, of the 300 in the repository.
pub(super) const ACCEPTED: usize = 283;
/// Sixteen malformed orders, and one duplicate.
pub(super) const REFUSED: usize = 17;

/// A span kind, numbered as in OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

/// The checked parts of a span.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: i64,
    start: u64,
    end: u64,
    /// Trace id and span id.
    links: Vec<(String, String)>,
    attributes: HashMap<String, Value>,
    /// The OTLP status: 2 is an error.
    status: i64,
}

/// All spans of a file.
pub(crate) struct Evidence {
    pub(crate) spans: Vec<Span>,
}

impl Evidence {
    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("the file of spans");
        let requests = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("one JSON document a line"));
        let spans = requests
            .flat_map(|request| list(&request["resourceSpans"]).iter().flat_map(of_resource).collect::<Vec<_>>());
        Self { spans: spans.collect() }
    }

    /// Checks a run over all the orders of the repository.
    pub(crate) fn check(&self) {
        self.check_references();
        let answered = |status| {
            self.named("POST /orders").filter(|span| span.int("http.response.status_code") == Some(status)).count()
        };
        assert_eq!((answered(202), answered(400), answered(409)), (ACCEPTED, REFUSED - 1, 1));

        let mut attempts = BTreeMap::<usize, usize>::new();
        for server in self.named("POST /orders").filter(|span| span.int("http.response.status_code") == Some(202)) {
            *attempts.entry(self.check_order(server)).or_default() += 1;
        }
        // A broker may redeliver without need; only the two special orders fail, one of them for
        // good.
        assert_eq!(attempts[&3], 1, "orders by attempts: {attempts:?}");
        assert_eq!(attempts[&4], 1, "orders by attempts: {attempts:?}");
        self.check_refused();
        self.check_job();
    }

    /// Checks that every id is unique and every reference resolves.
    pub(crate) fn check_references(&self) {
        let mut seen = HashMap::new();
        for span in &self.spans {
            let is_hex = |id: &str, digits| {
                id.len() == digits && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
            };
            assert!(is_hex(&span.trace, 32) && is_hex(&span.id, 16), "{span:?}");
            assert!(0 < span.start && span.start <= span.end, "{span:?}");
            assert!(seen.insert((&span.trace, &span.id), span).is_none(), "exported twice: {span:?}");
        }
        for span in &self.spans {
            assert!(span.parent.is_empty() || seen.contains_key(&(&span.trace, &span.parent)), "no parent: {span:?}");
            for (trace, id) in &span.links {
                assert!(seen.contains_key(&(trace, id)), "a link to nowhere: {span:?}");
            }
        }
    }

    /// Follows one accepted order from the request to its end; returns the number of attempts.
    fn check_order(&self, server: &Span) -> usize {
        let trace: Vec<&Span> = self.spans.iter().filter(|span| span.trace == server.trace).collect();
        let named = |name: &str| trace.iter().copied().filter(|span| span.name == name).collect::<Vec<_>>();
        assert_eq!((server.parent.as_str(), server.is("order-api", Kind::Server)), ("", true), "{server:?}");
        assert_eq!(trace.iter().filter(|span| span.parent.is_empty()).count(), 1, "one root: {trace:?}");

        let sends = named("send orders");
        let [send] = sends[..] else { panic!("one send: {trace:?}") };
        assert!(send.is("order-api", Kind::Producer) && send.parent == server.id, "{send:?}");

        let mut attempts = named("process orders");
        attempts.sort_by_key(|span| span.start);
        assert!(!attempts.is_empty(), "{trace:?}");
        for (index, attempt) in attempts.iter().enumerate() {
            attempt.check_delivery("fulfillment-worker", send);
            assert_eq!(attempt.int("traced_broker.delivery.attempt"), Some(index as i64 + 1), "{attempt:?}");
            let last = index + 1 == attempts.len();
            assert_eq!(attempt.text("traced_broker.settlement") == Some("retry"), !last, "{attempt:?}");
        }
        let last = attempts[attempts.len() - 1];
        match last.text("traced_broker.settlement") {
            Some("ack") => self.check_notified(&named, last),
            Some("reject") => self.check_dead(&named, send, last),
            other => panic!("settled by {other:?}: {last:?}"),
        }
        attempts.len()
    }

    fn check_notified<'a>(&self, named: &impl Fn(&str) -> Vec<&'a Span>, last: &Span) {
        let (sends, deliveries) = (named("send notifications"), named("process notifications"));
        let ([send], [delivery]) = (&sends[..], &deliveries[..]) else {
            panic!("one notification: {sends:?} {deliveries:?}")
        };
        assert!(send.is("fulfillment-worker", Kind::Producer) && send.parent == last.id, "{send:?}");
        assert!(last.start <= send.start && send.end <= last.end, "{last:?} {send:?}");
        assert_eq!(last.status, 0, "{last:?}");
        delivery.check_delivery("notification-service", send);
        let mail = named("e-mail customer");
        assert!(mail.len() == 1 && mail[0].parent == delivery.id, "{mail:?}");
    }

    fn check_dead<'a>(&self, named: &impl Fn(&str) -> Vec<&'a Span>, send: &Span, last: &Span) {
        assert!(named("send notifications").is_empty());
        assert_eq!(last.status, 2, "{last:?}");
        let (sends, deliveries) = (named("send orders.dead"), named("process orders.dead"));
        let ([dead], [delivery]) = (&sends[..], &deliveries[..]) else {
            panic!("one dead letter: {sends:?} {deliveries:?}")
        };
        assert!(dead.is("fulfillment-worker", Kind::Client) && dead.parent == last.id && dead.links(send), "{dead:?}");
        delivery.check_delivery("dead-letter-desk", send);
        let reason = delivery.text("dead_letter.reason").unwrap_or_default();
        assert!(reason.contains("4 attempts") && reason.contains("SAMOVAR"), "{delivery:?}");
    }

    /// Checks that a refused order is a trace of one span, without a server error.
    fn check_refused(&self) {
        for server in self.named("POST /orders").filter(|span| span.int("http.response.status_code") != Some(202)) {
            assert_eq!(self.spans.iter().filter(|span| span.trace == server.trace).count(), 1, "{server:?}");
            assert_eq!(server.status, 0, "{server:?}");
        }
    }

    /// Checks that the job is a root span with a link into the trace of the order that enqueued it.
    fn check_job(&self) {
        let jobs: Vec<_> = self.named("job daily.reconciliation").collect();
        let [job] = jobs[..] else { panic!("one job: {jobs:?}") };
        assert!(job.is("reconciliation-job", Kind::Internal) && job.parent.is_empty(), "{job:?}");
        let enqueued: Vec<_> = self.named("enqueue daily.reconciliation").collect();
        let [enqueued] = enqueued[..] else { panic!("enqueued once: {enqueued:?}") };
        assert!(job.links(enqueued) && job.links.len() == 1 && job.trace != enqueued.trace, "{job:?} {enqueued:?}");
        assert_eq!(job.text("job.type"), Some("reconciliation"));
        assert_eq!(job.text("job.trigger"), Some("first-order-of-day"));
        assert_eq!(job.int("reconciliation.accepted"), Some(ACCEPTED as i64));
        assert_eq!(job.int("reconciliation.unaccounted"), Some(0));
    }

    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Span> {
        self.spans.iter().filter(move |span| span.name == name)
    }
}

impl Span {
    /// Checks a delivery: child of the span that sent the message, linked to it, later than it, and
    /// with its queue time.
    #[track_caller]
    fn check_delivery(&self, service: &str, send: &Span) {
        assert!(self.is(service, Kind::Consumer), "{self:?}");
        assert_eq!((&self.trace, &self.parent), (&send.trace, &send.id), "{self:?}");
        assert!(self.links(send), "{self:?} {send:?}");
        assert!(self.start >= send.start, "{self:?} {send:?}");
        let waited = self.attributes.get("traced_broker.queue.duration").and_then(Value::as_f64);
        // The wait before a retry is not time in the queue.
        let is_first = self.int("traced_broker.delivery.attempt") == Some(1);
        assert_eq!(waited.is_some_and(|seconds| (0.0..600.0).contains(&seconds)), is_first, "{self:?}");
    }

    pub(crate) fn is(&self, service: &str, kind: Kind) -> bool {
        self.service == service && self.kind == kind as i64
    }

    fn links(&self, other: &Span) -> bool {
        self.links.iter().any(|(trace, id)| (trace, id) == (&other.trace, &other.id))
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.attributes.get(name)?.as_str()?.parse().ok()
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.attributes.get(name)?.as_str()
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn of_resource(resource: &Value) -> Vec<Span> {
    let service = attributes(&resource["resource"])["service.name"].as_str().expect("a service name").to_owned();
    let spans = list(&resource["scopeSpans"]).iter().flat_map(|scope| list(&scope["spans"]));
    spans.map(|span| read(&service, span)).collect()
}

fn read(service: &str, span: &Value) -> Span {
    let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
    let link = |link: &Value| {
        let id = |name: &str| link[name].as_str().expect("the ids of a link").to_owned();
        (id("traceId"), id("spanId"))
    };
    Span {
        service: service.to_owned(),
        trace: text("traceId"),
        id: text("spanId"),
        parent: text("parentSpanId"),
        name: text("name"),
        kind: span["kind"].as_i64().expect("a kind"),
        start: text("startTimeUnixNano").parse().expect("a start"),
        end: text("endTimeUnixNano").parse().expect("an end"),
        links: list(&span["links"]).iter().map(link).collect(),
        attributes: attributes(span),
        status: span["status"]["code"].as_i64().unwrap_or(0),
    }
}

/// Returns the attributes as OTLP/JSON represents them: integers are strings.
fn attributes(owner: &Value) -> HashMap<String, Value> {
    let pair = |attribute: &Value| {
        let value = attribute["value"].as_object().and_then(|value| value.values().next()).cloned();
        (attribute["key"].as_str().expect("a key").to_owned(), value.unwrap_or_default())
    };
    list(&owner["attributes"]).iter().map(pair).collect()
}
