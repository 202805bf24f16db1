"""confluent-kafka with a hand-written carrier."""

from confluent_kafka import Consumer, KafkaException, Producer
from opentelemetry import propagate
from opentelemetry.propagators.textmap import Getter, Setter

import telemetry


class HeaderSetter(Setter):
    """Writes to a list of headers, whose values are bytes."""

    def set(self, carrier, key, value):
        carrier[:] = [header for header in carrier if header[0] != key]
        carrier.append((key, value.encode()))


class HeaderGetter(Getter):
    """Reads from the headers of a message: `None` when it has none, else pairs whose value may be `None` as well."""

    def get(self, carrier, key):
        found = [value.decode(errors="replace") for name, value in carrier or [] if name == key and value is not None]
        return found or None

    def keys(self, carrier):
        return [name for name, _ in carrier or []]


def produce(at, payload):
    producer = Producer({"bootstrap.servers": at.url})
    with telemetry.sending("kafka", at.topic):
        headers = []
        propagate.inject(headers, setter=HeaderSetter())
        producer.produce(at.topic, payload, headers=headers)
        producer.flush()


def consume(at):
    consumer = Consumer({"bootstrap.servers": at.url, "group.id": at.group, "auto.offset.reset": "earliest"})
    consumer.subscribe([at.topic], on_assign=lambda *_: telemetry.ready())
    message = next_message(consumer)
    sent = propagate.extract(message.headers(), getter=HeaderGetter())
    with telemetry.processing(sent, "kafka", at.topic):
        telemetry.reserve_stock()
        consumer.commit(message, asynchronous=False)
    telemetry.report(message.value(), message.headers() or [])
    consumer.close()


def next_message(consumer):
    while True:
        message = consumer.poll(1)
        if message is not None:
            if message.error():
                raise KafkaException(message.error())
            return message
