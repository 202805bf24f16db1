package main

import (
	"context"
	"strings"

	"github.com/IBM/sarama"
	"go.opentelemetry.io/otel/propagation"
)

// headerCarrier writes a context into the headers of a message to send.
type headerCarrier struct{ headers *[]sarama.RecordHeader }

func (c headerCarrier) Get(key string) string {
	for _, header := range *c.headers {
		if string(header.Key) == key {
			return string(header.Value)
		}
	}
	return ""
}

// Set replaces: a message that is sent on must not have two contexts.
func (c headerCarrier) Set(key, value string) {
	for i, header := range *c.headers {
		if string(header.Key) == key {
			(*c.headers)[i].Value = []byte(value)
			return
		}
	}
	*c.headers = append(*c.headers, sarama.RecordHeader{Key: []byte(key), Value: []byte(value)})
}

func (c headerCarrier) Keys() []string {
	keys := make([]string, 0, len(*c.headers))
	for _, header := range *c.headers {
		keys = append(keys, string(header.Key))
	}
	return keys
}

// receivedCarrier reads a context from the headers of a received message, which sarama gives as pointers.
type receivedCarrier []*sarama.RecordHeader

func (c receivedCarrier) Get(key string) string {
	for _, header := range c {
		if header != nil && string(header.Key) == key {
			return string(header.Value)
		}
	}
	return ""
}

func (c receivedCarrier) Set(string, string) {}

func (c receivedCarrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for _, header := range c {
		if header != nil {
			keys = append(keys, string(header.Key))
		}
	}
	return keys
}

// carrierByValue is the mistake: Set appends to its own copy of the slice, and the message stays
// without a context.
type carrierByValue []sarama.RecordHeader

func (c carrierByValue) Get(string) string { return "" }
func (c carrierByValue) Set(key, value string) {
	c = append(c, sarama.RecordHeader{Key: []byte(key), Value: []byte(value)})
	_ = c
}
func (c carrierByValue) Keys() []string { return nil }

func withCarrier(headers *[]sarama.RecordHeader) propagation.TextMapCarrier {
	return headerCarrier{headers}
}

func withCarrierByValue(headers *[]sarama.RecordHeader) propagation.TextMapCarrier {
	return carrierByValue(*headers)
}

func saramaProduce(carrier func(*[]sarama.RecordHeader) propagation.TextMapCarrier) func(context.Context, place, string) error {
	return func(ctx context.Context, to place, payload string) error {
		producer, err := sarama.NewSyncProducer(strings.Split(to.url, ","), saramaConfig())
		if err != nil {
			return err
		}
		defer producer.Close()

		ctx, span := startSend(ctx, "kafka", to.topic)
		defer span.End()
		message := &sarama.ProducerMessage{Topic: to.topic, Value: sarama.StringEncoder(payload)}
		inject(ctx, carrier(&message.Headers))
		_, _, err = producer.SendMessage(message)
		return err
	}
}

func saramaConsume(ctx context.Context, from place) error {
	return saramaConsumeWith(ctx, from, saramaHandler(func(message *sarama.ConsumerMessage) {
		ctx, span := startProcess(extract(receivedCarrier(message.Headers)), "kafka", message.Topic)
		defer span.End()
		reserveStock(ctx)
	}))
}

// saramaConsumeWith is a member of the group until the handler has had one message.
func saramaConsumeWith(ctx context.Context, from place, handler sarama.ConsumerGroupHandler) error {
	group, err := sarama.NewConsumerGroup(strings.Split(from.url, ","), from.group, saramaConfig())
	if err != nil {
		return err
	}
	defer group.Close()
	return group.Consume(ctx, []string{from.topic}, handler)
}

// saramaHandler is called with one message.
type saramaHandler func(*sarama.ConsumerMessage)

func (saramaHandler) Setup(sarama.ConsumerGroupSession) error {
	ready()
	return nil
}

func (saramaHandler) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (handle saramaHandler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	message, open := <-claim.Messages()
	if !open {
		return nil
	}
	var headers []header
	for _, each := range message.Headers {
		headers = append(headers, header{string(each.Key), "[]byte", string(each.Value)})
	}
	handle(message)
	session.MarkMessage(message, "")
	session.Commit()
	report(string(message.Value), headers)
	return nil
}

func saramaConfig() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.V4_0_0_0
	config.Producer.Return.Successes = true
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	return config
}
