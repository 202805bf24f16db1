"""confluent-kafka, instrumented too late: the module's classes are replaced after they were imported."""

from confluent_kafka import Producer
from opentelemetry.instrumentation.confluent_kafka import ConfluentKafkaInstrumentor

ConfluentKafkaInstrumentor().instrument()


def produce(at, payload):
    producer = Producer({"bootstrap.servers": at.url})
    producer.produce(at.topic, payload)
    producer.flush()
