"""OpenTelemetry as the programs here use it, and what they print."""

import json
from contextlib import contextmanager

from opentelemetry import baggage, context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind

tracer = trace.get_tracer("interop")


def start():
    """Sets up OpenTelemetry from the usual OTEL_ variables; W3C trace context and baggage are propagated unless they say otherwise."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


@contextmanager
def placing_an_order():
    """The request on whose behalf something is sent; its baggage travels along."""
    token = context.attach(baggage.set_baggage("tenant", "blue"))
    try:
        with tracer.start_as_current_span("place order"):
            yield
    finally:
        context.detach(token)


def sending(system, topic):
    """The span whose context the message has to carry: inject inside of it."""
    return tracer.start_as_current_span(
        f"send {topic}", kind=SpanKind.PRODUCER, attributes=messaging(system, "send", topic)
    )


@contextmanager
def processing(sent, system, topic):
    """The span of a message whose context is `sent`: a child of what sent it, with a link to it as well, for tools that go by links.

    It lasts until the message is settled. Attaching `sent` first makes its baggage current, too.
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
    """What the service does about an order."""
    with tracer.start_as_current_span("reserve stock", attributes={"tenant": baggage.get_baggage("tenant") or ""}):
        pass


def ready():
    print("ready", flush=True)


def report(payload, headers):
    """Says what was received; `headers` are pairs."""
    typed = [[text(name), type(value).__name__, text(value)] for name, value in headers]
    print(json.dumps({"payload": text(payload), "headers": typed}), flush=True)


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)
