"""nats-py on JetStream: headers are a dictionary of text, which OpenTelemetry can use as a carrier."""

import asyncio

import nats
from opentelemetry import propagate

import telemetry


def produce(at, payload):
    async def run():
        connection = await nats.connect(at.url)
        with telemetry.sending("nats", at.topic):
            headers = {}
            propagate.inject(headers)
            await connection.jetstream().publish(at.topic, payload, headers=headers)
        await connection.close()

    asyncio.run(run())


def consume(at):
    async def run():
        connection = await nats.connect(at.url)
        # The stream has the name of the topic, and the durable consumer that of the group.
        group = await connection.jetstream().pull_subscribe_bind(at.group, stream=at.topic)
        telemetry.ready()
        [message] = await group.fetch(1, timeout=60)
        with telemetry.processing(propagate.extract(message.headers or {}), "nats", at.topic):
            telemetry.reserve_stock()
            await message.ack_sync()
        telemetry.report(message.data, (message.headers or {}).items())
        await connection.close()

    asyncio.run(run())
