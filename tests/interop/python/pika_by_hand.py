"""pika without instrumentation: headers are a dictionary, which OpenTelemetry can use as a carrier."""

import pika
from opentelemetry import propagate

import telemetry


def produce(at, payload):
    with pika.BlockingConnection(pika.URLParameters(at.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        with telemetry.sending("rabbitmq", at.topic):
            headers = {}
            propagate.inject(headers)
            # A topic is an exchange; its groups are queues bound to it with any routing key.
            channel.basic_publish(at.topic, "", payload, pika.BasicProperties(headers=headers, delivery_mode=2))


def consume(at):
    with pika.BlockingConnection(pika.URLParameters(at.url)) as connection:
        channel = connection.channel()

        def handle(channel, method, properties, body):
            sent = propagate.extract(properties.headers or {})
            with telemetry.processing(sent, "rabbitmq", at.topic):
                telemetry.reserve_stock()
                channel.basic_ack(method.delivery_tag)
            telemetry.report(body, (properties.headers or {}).items())
            channel.stop_consuming()

        # The group `billing` of the topic `orders` is the queue `orders.billing`.
        channel.basic_consume(f"{at.topic}.{at.group}", handle)
        telemetry.ready()
        channel.start_consuming()
