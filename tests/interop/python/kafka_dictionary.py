"""confluent-kafka without a carrier: sent headers may be a dictionary, but received values are bytes."""

from confluent_kafka import Consumer, Producer
from opentelemetry import propagate

import telemetry
from kafka_by_hand import next_message


def produce(at, payload):
    producer = Producer({"bootstrap.servers": at.url})
    with telemetry.sending("kafka", at.topic):
        headers = {}
        propagate.inject(headers)
        producer.produce(at.topic, payload, headers=headers)
        producer.flush()


def consume(at):
    consumer = Consumer({"bootstrap.servers": at.url, "group.id": at.group, "auto.offset.reset": "earliest"})
    consumer.subscribe([at.topic], on_assign=lambda *_: telemetry.ready())
    message = next_message(consumer)
    # The mistake: the default getter treats bytes as a list of values, and fails on the first.
    sent = propagate.extract(dict(message.headers() or []))
    with telemetry.processing(sent, "kafka", at.topic):
        telemetry.reserve_stock()
