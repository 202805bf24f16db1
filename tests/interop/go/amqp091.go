package main

import (
	"context"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.opentelemetry.io/otel/propagation"
)

// tableCarrier reads and writes a context in the header table of a message. A string goes out as a long string, which every
// language reads as text; a []byte would go out as a byte array, which Java and .NET do not.
type tableCarrier amqp.Table

func (c tableCarrier) Get(key string) string {
	text, _ := c[key].(string)
	return text
}

func (c tableCarrier) Set(key, value string) { c[key] = value }

func (c tableCarrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for key := range c {
		keys = append(keys, key)
	}
	return keys
}

// bytesCarrier writes byte arrays, which is the type that a carrier for Kafka would use.
type bytesCarrier struct{ tableCarrier }

func (c bytesCarrier) Set(key, value string) { c.tableCarrier[key] = []byte(value) }

func withBytes(headers amqp.Table) propagation.TextMapCarrier {
	return bytesCarrier{tableCarrier(headers)}
}

func withStrings(headers amqp.Table) propagation.TextMapCarrier { return tableCarrier(headers) }

func amqpProduce(carrier func(amqp.Table) propagation.TextMapCarrier) func(context.Context, place, string) error {
	return func(ctx context.Context, to place, payload string) error {
		connection, err := amqp.Dial(to.url)
		if err != nil {
			return err
		}
		defer connection.Close()
		channel, err := connection.Channel()
		if err != nil {
			return err
		}
		if err := channel.Confirm(false); err != nil {
			return err
		}

		// A topic is an exchange; its groups are queues bound to it with any routing key.
		ctx, span := startSend(ctx, "rabbitmq", to.topic)
		defer span.End()
		headers := amqp.Table{}
		inject(ctx, carrier(headers))
		message := amqp.Publishing{Headers: headers, Body: []byte(payload), DeliveryMode: amqp.Persistent}
		confirm, err := channel.PublishWithDeferredConfirmWithContext(ctx, to.topic, "", false, false, message)
		if err != nil {
			return err
		}
		if acked, err := confirm.WaitContext(ctx); err != nil || !acked {
			return fmt.Errorf("not confirmed by the broker (%v)", err)
		}
		return nil
	}
}

func amqpConsume(ctx context.Context, from place) error {
	connection, err := amqp.Dial(from.url)
	if err != nil {
		return err
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	// The group `billing` of the topic `orders` is the queue `orders.billing`.
	deliveries, err := channel.ConsumeWithContext(ctx, from.topic+"."+from.group, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	ready()
	delivery, open := <-deliveries
	if !open {
		return fmt.Errorf("no message came")
	}
	return amqpProcess(delivery, from.topic)
}

func amqpProcess(delivery amqp.Delivery, topic string) error {
	ctx, span := startProcess(extract(tableCarrier(delivery.Headers)), "rabbitmq", topic)
	defer span.End()
	reserveStock(ctx)
	var headers []header
	for name, value := range delivery.Headers {
		headers = append(headers, header{name, fmt.Sprintf("%T", value), fmt.Sprint(value)})
	}
	report(string(delivery.Body), headers)
	return delivery.Ack(false)
}
