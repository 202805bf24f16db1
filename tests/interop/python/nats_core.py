"""nats-py without JetStream."""

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
            await connection.publish(at.topic, payload, headers=headers)
            await connection.flush()
        await connection.close()

    asyncio.run(run())


def consume(at):
    async def run():
        connection = await nats.connect(at.url)
        # A group is a queue group.
        subscription = await connection.subscribe(at.topic, queue=at.group)
        await connection.flush()
        telemetry.ready()
        message = await subscription.next_msg(timeout=60)
        with telemetry.processing(propagate.extract(message.headers or {}), "nats", at.topic):
            telemetry.reserve_stock()
        telemetry.report(message.data, (message.headers or {}).items())
        await connection.close()

    asyncio.run(run())
