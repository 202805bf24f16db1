"""pika with only OpenTelemetry's instrumentation."""

import pika
from opentelemetry.instrumentation.pika import PikaInstrumentor

import telemetry

# Instruments every channel opened from now on.
PikaInstrumentor().instrument()


def produce(at, payload):
    with pika.BlockingConnection(pika.URLParameters(at.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(at.topic, "", payload)


def consume(at):
    with pika.BlockingConnection(pika.URLParameters(at.url)) as connection:
        channel = connection.channel()

        def handle(channel, method, properties, body):
            telemetry.reserve_stock()
            channel.basic_ack(method.delivery_tag)
            telemetry.report(body, (properties.headers or {}).items())
            channel.stop_consuming()

        channel.basic_consume(f"{at.topic}.{at.group}", handle)
        telemetry.ready()
        channel.start_consuming()
