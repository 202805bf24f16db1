"""redis-py: the payload and each header are separate fields under their own names."""

import redis
from opentelemetry import propagate

import telemetry


def produce(at, payload):
    client = redis.Redis.from_url(at.url)
    with telemetry.sending("redis", at.topic):
        fields = {"payload": payload}
        propagate.inject(fields)
        client.xadd(at.topic, fields)


def consume(at):
    # Without decode_responses names and values are bytes, and OpenTelemetry finds no context in them.
    client = redis.Redis.from_url(at.url, decode_responses=True)
    receive(at, client)


def receive(at, client):
    telemetry.ready()
    [[_, [[entry, fields]]]] = client.xreadgroup(at.group, "interop", {at.topic: ">"}, count=1, block=60_000)
    with telemetry.processing(propagate.extract(fields), "redis", at.topic):
        telemetry.reserve_stock()
        client.xack(at.topic, at.group, entry)
    telemetry.report(fields.get("payload") or fields[b"payload"], fields.items())
