//! `traced-broker publish`: messages, each with a trace of its own.

mod lines;

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use opentelemetry::trace::{SpanContext, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, global};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use traced_broker::message::CONTENT_TYPE;
use traced_broker::w3c::{self, BAGGAGE, TRACEPARENT, TRACESTATE};
use traced_broker::{Broker, Error, ErrorKind, Headers, Message, PublishOutcome, Receipt, TracedBroker as _};

use crate::place::{Missing, Place, close};
use crate::screen::{self, printable};
use crate::stop::told_to_stop;
use crate::trouble::{Trouble, chain};
use crate::{duration, telemetry};

pub(crate) const EXAMPLES: &str = "\
Each message begins a sampled trace of its own, whose id is printed. With a header `traceparent` (and `tracestate`, `baggage`) it \
is part of that trace instead. Spans are exported where OTEL_EXPORTER_OTLP_ENDPOINT says, and nowhere else.

Examples:
  # One message
  traced-broker publish kafka://localhost:9092 orders --key customer-7 --data '{\"sku\": \"A-1\"}' \\
      --content-type application/json --header 'tenant: acme'

  # A message a line
  jq -c '.[]' orders.json | traced-broker publish nats://localhost:4222 orders --json

  # Delivered in ten minutes, where the broker can keep messages back
  traced-broker publish amqp://localhost orders --data @order.json --delay 10m

Exit codes:
  0  all were confirmed, or sent where the broker confirms nothing
  2  one was not";

/// How many publishes are under way at a time.
const IN_FLIGHT: usize = 64;

#[derive(Args)]
pub(crate) struct Publish {
    #[command(flatten)]
    place: Place,
    /// The payload, or @FILE; without it, each line of standard input is a message
    #[arg(long, value_name = "TEXT|@FILE")]
    data: Option<String>,
    /// The key
    #[arg(long)]
    key: Option<String>,
    /// A header; may be given several times, also of one name
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// The media type of the payload
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// How long the broker is to keep the message back
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    delay: Option<Duration>,
    /// Print one JSON object for each message
    #[arg(long)]
    json: bool,
}

type Payloads = BoxStream<'static, Result<Bytes, Trouble>>;

/// What all messages have in common.
struct Draft {
    topic: String,
    key: Option<String>,
    headers: Headers,
    delay: Option<Duration>,
    /// The context that the headers name, to be in its trace.
    parent: Context,
}

/// What became of a message.
struct Sent {
    span: SpanContext,
    result: Result<Receipt, Error>,
}

pub(crate) async fn run(options: Publish) -> Result<(), Trouble> {
    let draft = Draft::of(&options)?;
    let payloads = payloads(options.data.as_deref())?;
    let telemetry = telemetry::start()?;
    let sent = connect_and_send(&options, &draft, payloads).await;
    telemetry.end().await;
    sent
}

async fn connect_and_send(options: &Publish, draft: &Draft, payloads: Payloads) -> Result<(), Trouble> {
    let broker = options.place.connect(Missing::ByOption).await?;
    let enough = CancellationToken::new();
    let told = enough.clone();
    let stop = async move {
        tokio::select! {
            () = told_to_stop() => {}
            () = told.cancelled() => {}
        }
    };
    let payloads = payloads.take_until(Box::pin(stop));
    let sent = send(&broker, draft, payloads, options.json, &enough).await;
    sent.and(close(&broker).await)
}

/// The payload given, or one a line of standard input.
fn payloads(data: Option<&str>) -> Result<Payloads, Trouble> {
    let Some(data) = data else { return Ok(lines::of_standard_input().boxed()) };
    let payload = match data.strip_prefix('@') {
        None => Bytes::copy_from_slice(data.as_bytes()),
        Some(path) => {
            fs::read(path).map_err(|error| Trouble::because(format_args!("--data: cannot read {path}"), &error))?.into()
        }
    };
    Ok(stream::iter([Ok(payload)]).boxed())
}

/// Publishes and tells of each. It ends with the first failure that is not the message's own.
async fn send(
    broker: &Broker,
    draft: &Draft,
    payloads: impl futures_util::Stream<Item = Result<Bytes, Trouble>>,
    as_json: bool,
    enough: &CancellationToken,
) -> Result<(), Trouble> {
    let sending = payloads.map(|payload| async { Ok::<_, Trouble>(draft.send(broker, payload?).await) });
    let mut sending = std::pin::pin!(sending.buffered(IN_FLIGHT));
    let (mut all, mut failed, mut first) = (0_u64, 0_u64, None);
    while let Some(sent) = sending.next().await {
        let sent = sent?;
        all += 1;
        if let Err(error) = &sent.result {
            failed += 1;
            first.get_or_insert_with(|| chain(error));
            let is_its_own = matches!(error.kind(), ErrorKind::InvalidMessage | ErrorKind::TooLarge);
            if !is_its_own {
                enough.cancel();
            }
        }
        let printed = if as_json { screen::line(&sent.json())? } else { screen::line(&sent.text())? };
        if printed.is_break() {
            enough.cancel();
        }
    }
    match first {
        None => Ok(()),
        Some(first) => Err(Trouble::new(format!("{failed} of {all} messages were not confirmed: {first}"))),
    }
}

impl Draft {
    fn of(options: &Publish) -> Result<Self, Trouble> {
        let mut headers = Headers::new();
        for (index, line) in options.header.iter().enumerate() {
            // The line is not repeated: it may hold a secret.
            let wrong = || Trouble::new(format!("--header number {} is not of the form `name: value`", index + 1));
            let (name, value) = line.split_once(':').ok_or_else(wrong)?;
            let name = Some(name.trim()).filter(|name| !name.is_empty()).ok_or_else(wrong)?;
            headers.append(name, value.trim());
        }
        if let Some(content_type) = &options.content_type {
            headers.insert(CONTENT_TYPE, content_type);
        }
        let [parent, state, baggage] = [TRACEPARENT, TRACESTATE, BAGGAGE].map(|name| headers.get_all(name));
        let read = w3c::decode_all(parent, state, baggage, &Context::new());
        if let Some(reason) = read.issues.traceparent {
            return Err(Trouble::new(format!("--header: the traceparent is malformed: {reason}")));
        }
        let (topic, key, delay) = (options.place.topic.clone(), options.key.clone(), options.delay);
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
    fn outcome(&self) -> PublishOutcome {
        self.result.as_ref().map_or_else(Error::publish_outcome, Receipt::outcome)
    }

    fn text(&self) -> String {
        let outcome = match self.outcome() {
            PublishOutcome::Confirmed => "confirmed",
            PublishOutcome::NotSent => "not sent",
            PublishOutcome::Unknown => "unknown",
        };
        let details = match &self.result {
            Ok(receipt) => place(receipt),
            Err(error) => chain(error),
        };
        printable(format!("{outcome:<9}  trace {}  {details}", self.span.trace_id()).trim_end())
    }

    fn json(&self) -> Value {
        let outcome = match self.outcome() {
            PublishOutcome::Confirmed => "confirmed",
            PublishOutcome::NotSent => "not_sent",
            PublishOutcome::Unknown => "unknown",
        };
        let mut object = json!({ "outcome": outcome, "trace_id": self.span.trace_id().to_string() });
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

fn place(receipt: &Receipt) -> String {
    let parts = [
        receipt.partition.map(|partition| format!("partition {partition}")),
        receipt.offset.map(|offset| format!("offset {offset}")),
        receipt.id.as_ref().map(|id| format!("id {id}")),
        (!receipt.confirmed).then(|| "this broker confirms nothing".to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
}
