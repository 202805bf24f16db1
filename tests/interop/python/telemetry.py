"""OpenTelemetry as these programs use it, and their output."""

import json
from contextlib import contextmanager

from opentelemetry import baggage, context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind

tracer = trace.get_tracer("interop")


def start():
    """Sets up OpenTelemetry from the usual OTEL_ variables; by default with W3C trace context and baggage."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


@contextmanager
def placing_an_order():
    """The request on whose behalf a message is sent; its baggage is propagated."""
    token = context.attach(baggage.set_baggage("tenant", "blue"))
    try:
        with tracer.start_as_current_span("place order"):
            yield
    finally:
        context.detach(token)


def sending(system, topic):
    """The span whose context the message has to carry: inject inside it."""
    return tracer.start_as_current_span(
        f"send {topic}", kind=SpanKind.PRODUCER, attributes=messaging(system, "send", topic)
    )


@contextmanager
def processing(sent, system, topic):
    """The span of a message whose context is `sent`: a child of the sending span, with a link to it.

    The link is for tools that follow links. The span lasts until the message is settled. Attaching
    `sent` first makes its baggage current, too.
    """
    token = context.attach(sent)
    try:
        with tracer.start_as_current_span(
            f"process {topic}",
            kind=SpanKind.CONSUMER,
            attributes=messaging(system, "process", topic),
            links=[Link(trace.get_current_span(sent).get_span_context())],
        ):
            yield
    finally:
        context.detach(token)


def messaging(system, operation, topic):
    return {
        "messaging.system": system,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
    }


def reserve_stock():
    """The service's work for an order."""
    with tracer.start_as_current_span("reserve stock", attributes={"tenant": baggage.get_baggage("tenant") or ""}):
        pass


def ready():
    print("ready", flush=True)


def report(payload, headers):
    """Prints the received message; `headers` are pairs."""
    typed = [[text(name), type(value).__name__, text(value)] for name, value in headers]
    print(json.dumps({"payload": text(payload), "headers": typed}), flush=True)


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)
