package main

import (
	"context"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/propagation"
)

// natsCarrier leaves names as they are when it writes, and finds them in any case when it reads.
type natsCarrier nats.Header

func (c natsCarrier) Get(key string) string {
	for name, values := range c {
		if strings.EqualFold(name, key) && len(values) > 0 {
			return values[0]
		}
	}
	return ""
}

func (c natsCarrier) Set(key, value string) { c[key] = []string{value} }

func (c natsCarrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for key := range c {
		keys = append(keys, key)
	}
	return keys
}

func exactCarrier(headers nats.Header) propagation.TextMapCarrier { return natsCarrier(headers) }

// httpCarrier is used by many services, because the types fit. But it is made for HTTP: it writes
// and looks up only `Traceparent`, while NATS header names are case-sensitive.
func httpCarrier(headers nats.Header) propagation.TextMapCarrier {
	return propagation.HeaderCarrier(headers)
}

type natsCarrying func(nats.Header) propagation.TextMapCarrier

func jetStreamProduce(carrier natsCarrying) func(context.Context, place, string) error {
	return func(ctx context.Context, to place, payload string) error {
		connection, err := nats.Connect(to.url)
		if err != nil {
			return err
		}
		defer connection.Close()
		js, err := jetstream.New(connection)
		if err != nil {
			return err
		}
		ctx, span := startSend(ctx, "nats", to.topic)
		defer span.End()
		message := &nats.Msg{Subject: to.topic, Data: []byte(payload), Header: nats.Header{}}
		inject(ctx, carrier(message.Header))
		_, err = js.PublishMsg(ctx, message)
		return err
	}
}

func jetStreamConsume(carrier natsCarrying) func(context.Context, place) error {
	return func(ctx context.Context, from place) error {
		connection, err := nats.Connect(from.url)
		if err != nil {
			return err
		}
		defer connection.Close()
		js, err := jetstream.New(connection)
		if err != nil {
			return err
		}
		// The stream has the name of the topic, and the durable consumer that of the group.
		consumer, err := js.Consumer(ctx, from.topic, from.group)
		if err != nil {
			return err
		}
		messages, err := consumer.Messages()
		if err != nil {
			return err
		}
		defer messages.Stop()
		ready()
		message, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		natsProcess(message.Headers(), message.Data(), from.topic, carrier)
		return message.DoubleAck(ctx)
	}
}

func coreProduce(carrier natsCarrying) func(context.Context, place, string) error {
	return func(ctx context.Context, to place, payload string) error {
		connection, err := nats.Connect(to.url)
		if err != nil {
			return err
		}
		defer connection.Close()
		ctx, span := startSend(ctx, "nats", to.topic)
		defer span.End()
		message := &nats.Msg{Subject: to.topic, Data: []byte(payload), Header: nats.Header{}}
		inject(ctx, carrier(message.Header))
		if err := connection.PublishMsg(message); err != nil {
			return err
		}
		return connection.FlushWithContext(ctx)
	}
}

func coreConsume(carrier natsCarrying) func(context.Context, place) error {
	return func(ctx context.Context, from place) error {
		connection, err := nats.Connect(from.url)
		if err != nil {
			return err
		}
		defer connection.Close()
		// A group is a queue group.
		subscription, err := connection.QueueSubscribeSync(from.topic, from.group)
		if err != nil {
			return err
		}
		if err := connection.FlushWithContext(ctx); err != nil {
			return err
		}
		ready()
		message, err := subscription.NextMsgWithContext(ctx)
		if err != nil {
			return err
		}
		natsProcess(message.Header, message.Data, from.topic, carrier)
		return nil
	}
}

func natsProcess(received nats.Header, payload []byte, topic string, carrier natsCarrying) {
	ctx, span := startProcess(extract(carrier(received)), "nats", topic)
	defer span.End()
	reserveStock(ctx)
	var headers []header
	for name, values := range received {
		for _, value := range values {
			headers = append(headers, header{name, "string", value})
		}
	}
	report(string(payload), headers)
}
