"""pika with only one channel instrumented."""

import pika
from opentelemetry.instrumentation.pika import PikaInstrumentor


def produce(at, payload):
    with pika.BlockingConnection(pika.URLParameters(at.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        PikaInstrumentor.instrument_channel(channel)
        channel.basic_publish(at.topic, "", payload)
