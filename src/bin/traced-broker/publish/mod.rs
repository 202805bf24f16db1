//! `traced-broker publish`: publishes messages, each in its own trace.

mod lines;

use std::time::Duration;
use traced_broker::names::header;

use bytes::Bytes;
use clap::Args;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use opentelemetry::trace::{SpanContext, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, global};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use traced_broker::w3c::{self};
use traced_broker::{Broker, Error, ErrorKind, Headers, Message, PublishOutcome, Receipt, TracedBroker as _};

use crate::endpoint::{Endpoint, Topology, close};
use crate::error::{CliError, chain};
use crate::output::{self, printable};
use crate::stop::stop_signal_or;
use crate::{input, telemetry, time};

pub(crate) const EXAMPLES: &str = "\
Each message begins its own sampled trace, whose id is printed. With a header `traceparent` (and \
`tracestate`, `baggage`) it joins that trace instead. Spans are exported to \
OTEL_EXPORTER_OTLP_ENDPOINT if it is set.

Examples:
  # One message
  traced-broker publish kafka://localhost:9092 orders --key customer-7 --data '{\"sku\": \"A-1\"}' \\
      --content-type application/json --header 'tenant: acme'

  # One message per line
  jq -c '.[]' orders.json | traced-broker publish nats://localhost:4222 orders --json

  # Delivered after ten minutes, if the broker can delay messages
  traced-broker publish amqp://localhost orders --data @order.json --delay 10m

Exit codes:
  0  all messages were confirmed, or sent to a broker without confirms
  2  a message was not, or another error";

/// Maximum number of concurrent publishes.
const IN_FLIGHT: usize = 64;

#[derive(Args)]
pub(crate) struct Publish {
    #[command(flatten)]
    endpoint: Endpoint,
    /// The payload, or @FILE; without it, each line of standard input is a message
    #[arg(long, value_name = "TEXT|@FILE")]
    data: Option<String>,
    /// The key of the messages
    #[arg(long)]
    key: Option<String>,
    /// A header; may be given several times, also with the same name
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// The media type of the payload
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Time for which the broker delays the messages
    #[arg(long, value_name = "DURATION", value_parser = time::duration)]
    delay: Option<Duration>,
    /// Print one JSON object for each message
    #[arg(long)]
    json: bool,
}

type Payloads = BoxStream<'static, Result<Bytes, CliError>>;

/// The common parts of all messages.
struct Draft {
    topic: String,
    key: Option<String>,
    headers: Headers,
    delay: Option<Duration>,
    /// The context in the headers, whose trace the messages join.
    parent: Context,
}

/// The result of publishing one message.
struct Sent {
    span: SpanContext,
    result: Result<Receipt, Error>,
}

pub(crate) async fn run(options: Publish) -> Result<(), CliError> {
    let draft = Draft::new(&options)?;
    let payloads = payloads(options.data.as_deref())?;
    telemetry::traced(connect_and_send(&options, &draft, payloads)).await
}

async fn connect_and_send(options: &Publish, draft: &Draft, payloads: Payloads) -> Result<(), CliError> {
    let broker = options.endpoint.connect(Topology::AsConfigured).await?;
    let stop = CancellationToken::new();
    let payloads = payloads.take_until(Box::pin(stop_signal_or(stop.clone().cancelled_owned())));
    let sent = send(&broker, draft, payloads, options.json, &stop).await;
    sent.and(close(&broker).await)
}

/// Returns the payload given, or one for each line of standard input.
fn payloads(data: Option<&str>) -> Result<Payloads, CliError> {
    let Some(data) = data else { return Ok(lines::read_stdin().boxed()) };
    let payload = input::data(data)?;
    Ok(stream::iter([Ok(payload.into())]).boxed())
}

/// Publishes and prints each result. Stops at the first error that other messages would have, too.
async fn send(
    broker: &Broker,
    draft: &Draft,
    payloads: impl futures_util::Stream<Item = Result<Bytes, CliError>>,
    as_json: bool,
    stop: &CancellationToken,
) -> Result<(), CliError> {
    let sending = payloads.map(|payload| async { Ok::<_, CliError>(draft.send(broker, payload?).await) });
    let mut sending = std::pin::pin!(sending.buffered(IN_FLIGHT));
    let (mut count, mut failed, mut first) = (0_u64, 0_u64, None);
    while let Some(sent) = sending.next().await {
        let sent = sent?;
        count += 1;
        if let Err(error) = &sent.result {
            failed += 1;
            first.get_or_insert_with(|| chain(error));
            if !matches!(error.kind(), ErrorKind::InvalidMessage | ErrorKind::TooLarge) {
                stop.cancel();
            }
        }
        let printed = if as_json { output::print_line(&sent.json())? } else { output::print_line(&sent.text())? };
        if printed.is_break() {
            stop.cancel();
        }
    }
    match first {
        None => Ok(()),
        Some(first) => Err(CliError::new(format!("{failed} of {count} messages were not confirmed: {first}"))),
    }
}

impl Draft {
    fn new(options: &Publish) -> Result<Self, CliError> {
        let mut headers = Headers::new();
        input::headers("--header", &options.header, |name, value| {
            (!name.is_empty()).then(|| headers.append(name, value))
        })?;
        if let Some(content_type) = &options.content_type {
            headers.insert(header::CONTENT_TYPE, content_type);
        }
        let [parent, state, baggage] =
            [header::TRACEPARENT, header::TRACESTATE, header::BAGGAGE].map(|name| headers.get_all(name));
        let read = w3c::decode_all(parent, state, baggage, &Context::new());
        if let Some(reason) = read.issues.traceparent {
            return Err(CliError::new(format!("--header: the traceparent is malformed: {reason}")));
        }
        let (topic, key, delay) = (options.endpoint.topic.clone(), options.key.clone(), options.delay);
        Ok(Self { topic, key, headers, delay, parent: read.context })
    }

    async fn send(&self, broker: &Broker, payload: Bytes) -> Sent {
        let tracer = global::tracer(telemetry::SCOPE);
        let span = tracer.span_builder(format!("publish {}", self.topic)).start_with_context(&tracer, &self.parent);
        let context = self.parent.with_span(span);
        let result = broker.publish(&self.topic, self.message(payload).context(context.clone())).await;
        if let Err(error) = &result {
            context.span().set_status(Status::error(error.to_string()));
        }
        context.span().end();
        Sent { span: context.span().span_context().clone(), result }
    }

    fn message(&self, payload: Bytes) -> Message {
        let mut message = Message::new(payload);
        *message.headers_mut() = self.headers.clone();
        if let Some(key) = &self.key {
            message = message.key(key);
        }
        match self.delay {
            Some(delay) => message.delay(delay),
            None => message,
        }
    }
}

impl Sent {
    fn outcome(&self) -> &'static str {
        match self.result.as_ref().map_or_else(Error::publish_outcome, Receipt::outcome) {
            PublishOutcome::Confirmed => "confirmed",
            PublishOutcome::NotSent => "not_sent",
            PublishOutcome::Unknown => "unknown",
        }
    }

    fn text(&self) -> String {
        let outcome = self.outcome().replace('_', " ");
        let details = match &self.result {
            Ok(receipt) => position(receipt),
            Err(error) => chain(error),
        };
        printable(format!("{outcome:<9}  trace {}  {details}", self.span.trace_id()).trim_end())
    }

    fn json(&self) -> Value {
        let mut object = json!({ "outcome": self.outcome(), "trace_id": self.span.trace_id().to_string() });
        match &self.result {
            Ok(receipt) => {
                object["partition"] = receipt.partition.into();
                object["offset"] = receipt.offset.into();
                object["id"] = receipt.id.as_deref().into();
            }
            Err(error) => object["error"] = json!({ "kind": error.kind().as_str(), "message": chain(error) }),
        }
        object
    }
}

fn position(receipt: &Receipt) -> String {
    let parts = [
        receipt.partition.map(|partition| format!("partition {partition}")),
        receipt.offset.map(|offset| format!("offset {offset}")),
        receipt.id.as_ref().map(|id| format!("id {id}")),
        (!receipt.confirmed).then(|| "this broker confirms nothing".to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
}
