"""Sends or receives one message as Python services do, with one name for each client library.

    main.py LIBRARY produce|consume --url URL --topic TOPIC [--group GROUP]

Spans are exported over OTLP to OTEL_EXPORTER_OTLP_ENDPOINT. A consumer prints `ready` once it is
subscribed, and then, as one line of JSON, the message and its headers with their types in the library.
"""

import argparse
import importlib

import telemetry

# Each library has its own module, so that only the selected one is imported.
LIBRARIES = {
    "confluent-kafka": "kafka_by_hand",
    "confluent-kafka-instrumented": "kafka_instrumented",
    "confluent-kafka-instrumented-late": "kafka_instrumented_late",
    "confluent-kafka-dictionary": "kafka_dictionary",
    "pika": "pika_by_hand",
    "pika-instrumented": "pika_instrumented",
    "pika-instrumented-channel": "pika_instrumented_channel",
    "nats-py": "nats_jetstream",
    "nats-py-core": "nats_core",
    "redis-py": "redis_streams",
    "redis-py-bytes": "redis_bytes",
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("verb", choices=["produce", "consume"])
    parser.add_argument("--url", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group")
    at = parser.parse_args()
    library = importlib.import_module(LIBRARIES[at.library])
    provider = telemetry.start()
    try:
        if at.verb == "produce":
            with telemetry.placing_an_order():
                library.produce(at, b"order 42")
        else:
            library.consume(at)
    finally:
        # Without this, the program may lose its last spans when it exits.
        provider.shutdown()


if __name__ == "__main__":
    main()
