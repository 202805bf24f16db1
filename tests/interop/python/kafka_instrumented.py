"""confluent-kafka with only OpenTelemetry's instrumentation."""

from confluent_kafka import Consumer, Producer
from opentelemetry.instrumentation.confluent_kafka import ConfluentKafkaInstrumentor

import telemetry
from kafka_by_hand import next_message


def produce(at, payload):
    producer = ConfluentKafkaInstrumentor.instrument_producer(Producer({"bootstrap.servers": at.url}))
    producer.produce(at.topic, payload)
    producer.flush()


def consume(at):
    plain = Consumer({"bootstrap.servers": at.url, "group.id": at.group, "auto.offset.reset": "earliest"})
    consumer = ConfluentKafkaInstrumentor.instrument_consumer(plain)
    consumer.subscribe([at.topic], on_assign=lambda *_: telemetry.ready())
    # The span begins when a message is handed out, and is current until the next poll.
    message = next_message(consumer)
    telemetry.reserve_stock()
    consumer.commit(message, asynchronous=False)
    telemetry.report(message.value(), message.headers() or [])
    consumer.close()
